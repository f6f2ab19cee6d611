//! `cargo xtask bench TREE [RUNS]`: the first sync of a real tree, beside rsync from an rsync daemon over loopback,
//! in turn, in one run. Both ends of each are processes of this machine; the trees are compared at the end.
//! Prints the table for docs/benchmarks.md. Never installs anything.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::device::{Device, until};
use crate::{cargo, target_dir};

/// One measured run.
struct Run {
    alike: f64,
    rsync: f64,
    rsync_durable: f64,
    peak: [u64; 2],
}

/// Measures and prints.
pub(crate) fn run(tree: &str, runs: usize) -> Result<()> {
    let tree = fs::canonicalize(tree).with_context(|| format!("the tree {tree}"))?;
    ensure!(tree.is_dir(), "{} is not a directory", tree.display());
    ensure!(
        !tree.join(".alike").exists(),
        "{} is a synced folder: measure with a copy",
        tree.display()
    );
    let version = Command::new("rsync")
        .arg("--version")
        .output()
        .context("rsync is needed beside it")?;
    let status = cargo(&["build", "--release", "--package", "alike-cli"]).status()?;
    ensure!(status.success(), "cargo build: {status}");
    let bin = target_dir()?.join("release/sync");
    let (files, bytes) = weigh(&tree)?;
    println!(
        "{files} files and links, {:.2} GB; {runs} runs, in turn",
        bytes as f64 / 1e9
    );
    println!(
        "{}",
        String::from_utf8_lossy(&version.stdout)
            .lines()
            .next()
            .unwrap_or_default()
    );
    let place = tempfile::Builder::new()
        .prefix("alike-bench-")
        .tempdir_in(tree.parent().unwrap_or(&tree))?;
    let mut all = Vec::new();
    for n in 1..=runs {
        let corner = place.path().join(n.to_string());
        fs::create_dir(&corner)?;
        let run = once(&bin, &tree, &corner)?;
        println!(
            "run {n}: alike {:.1} s (peak {} and {} MiB); rsync {:.1} s, {:.1} s with sync",
            run.alike,
            run.peak[0] >> 20,
            run.peak[1] >> 20,
            run.rsync,
            run.rsync_durable
        );
        all.push(run);
    }
    place.close()?;
    let median = |of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (alike, rsync, durable) = (
        median(|r| r.alike),
        median(|r| r.rsync),
        median(|r| r.rsync_durable),
    );
    let ratio = median(|r| r.alike / r.rsync);
    let ratio_durable = median(|r| r.alike / r.rsync_durable);
    println!("\n| | median | alike / it, median of the pairs |\n| --- | --- | --- |");
    println!(
        "| alike: share, pair, until `sync wait` returns (encrypted, verified, durable) | {alike:.1} s | |"
    );
    println!("| rsync -a from a daemon (not encrypted, not durable) | {rsync:.1} s | {ratio:.2} |");
    println!("| the same, then sync (durable) | {durable:.1} s | {ratio_durable:.2} |");
    Ok(())
}

/// One run of each. What they wrote stays until all runs are over: a file system that has just deleted many files
/// is slower at making new ones for a while, and whoever comes next would pay for it.
fn once(bin: &Path, tree: &Path, place: &Path) -> Result<Run> {
    let (rsync, rsync_durable) = rsync(place, tree)?;
    let (mut first, mut second) = (
        Device::start(bin, place, "first")?,
        Device::start(bin, place, "second")?,
    );
    flush()?;
    let start = Instant::now();
    let ticket = first.sync(["share".as_ref(), tree.as_os_str()])?;
    second.sync(["pair".as_ref(), ticket.trim().as_ref(), second.folder.as_os_str()])?;
    first.sync(["wait", "--timeout", "1h"])?;
    let alike = start.elapsed().as_secs_f64();
    let peak = [first.peak_memory()?, second.peak_memory()?];
    compare(tree, &second.folder)?;
    first.stop()?;
    second.stop()?;
    fs::remove_dir_all(tree.join(".alike"))?;
    Ok(Run {
        alike,
        rsync,
        rsync_durable,
        peak,
    })
}

/// Seconds until rsync is done, and until what it wrote is durable.
fn rsync(place: &Path, tree: &Path) -> Result<(f64, f64)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = place.join("rsyncd.conf");
    let uid = if nobody_is_root() {
        "uid = 0\ngid = 0\n"
    } else {
        ""
    };
    let text = format!(
        "address = 127.0.0.1\nport = {port}\nuse chroot = no\n{uid}[tree]\npath = {}\nread only = yes\n",
        tree.display()
    );
    fs::write(&config, text)?;
    let mut daemon = Daemon(
        Command::new("rsync")
            .args(["--daemon", "--no-detach"])
            .arg(format!("--config={}", config.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    until("the rsync daemon listens", || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;
    let target = place.join("rsynced");
    flush()?;
    let start = Instant::now();
    let from = format!("rsync://127.0.0.1:{port}/tree/");
    let status = Command::new("rsync").args(["-a", &from]).arg(&target).status()?;
    let done = start.elapsed().as_secs_f64();
    ensure!(status.success(), "rsync: {status}");
    flush()?;
    let durable = start.elapsed().as_secs_f64();
    compare(tree, &target)?;
    daemon.0.kill()?;
    daemon.0.wait()?;
    Ok((done, durable))
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon started by root reads as nobody unless told otherwise.
fn nobody_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Everything written so far goes to the disk, so that no run pays for the one before.
fn flush() -> Result<()> {
    let coreutils = ["/usr/bin/sync", "/bin/sync"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let status = Command::new(coreutils.context("coreutils' sync is needed")?).status()?;
    ensure!(status.success(), "sync: {status}");
    Ok(())
}

fn compare(one: &Path, other: &Path) -> Result<()> {
    let status = Command::new("diff")
        .args(["-rq", "--no-dereference", "-x", ".alike"])
        .args([one, other])
        .status()?;
    ensure!(status.success(), "the trees are not equal");
    Ok(())
}

fn weigh(tree: &Path) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    let mut dirs: Vec<PathBuf> = vec![tree.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else {
                sum.0 += 1;
                sum.1 += if kind.is_file() {
                    entry.metadata()?.len()
                } else {
                    0
                };
            }
        }
    }
    Ok(sum)
}
