//! `cargo xtask test`: everything that must hold before a commit, in order, up to the first failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{cargo, target_dir, tidy};

/// The black-box tests mostly wait for processes: two for each core keep a small machine busy.
const TEST_THREADS: &str = "4";

/// Runs all steps.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    step("cargo fmt --check", || {
        exec(&mut cargo(&["fmt", "--all", "--check"]))
    })?;
    step("cargo clippy", || {
        exec(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            // Built by `cargo xtask bench` alone, but it must not rot.
            "--features",
            "alike-benches/stream",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("tidy", tidy::run)?;
    let bin = target_dir()?.join("debug/sync");
    // All targets at once: one set of features, so that the tests below find everything built.
    step("cargo build: the sync binary with fail points", || {
        build_with_failpoints(&bin)
    })?;
    step("cargo build: the sync binary and the tests", || {
        exec(&mut cargo(&["build", "--workspace", "--all-targets"]))
    })?;
    step("cargo test", || {
        let mut test = cargo(&["test", "--workspace"]);
        test.env("ALIKE_TEST_BIN", &bin);
        test.env("ALIKE_TEST_FAIL_BIN", with_failpoints(&bin));
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            test.env("RUST_TEST_THREADS", TEST_THREADS);
        }
        exec(&mut test)
    })?;
    not_run();
    println!("==> everything passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Says which tests had nothing to run on.
fn not_run() {
    if !rustix::process::geteuid().is_root() {
        println!(
            "==> NOT RUN, because only root can mount: the tests of full disks, of mounts in the way and of other file \
             systems (tests/cases/{{full,parked,file_systems,clones,rot,scrub,verify}}.rs)"
        );
        return;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    for (test, program, package) in [
        ("file_systems::everything_on_xfs", "mkfs.xfs", "xfsprogs"),
        ("file_systems::everything_on_btrfs", "mkfs.btrfs", "btrfs-progs"),
        ("clones: on XFS", "mkfs.xfs", "xfsprogs"),
        ("clones: on btrfs", "mkfs.btrfs", "btrfs-progs"),
        ("rot, scrub, repair: bit rot on ext4", "mkfs.ext4", "e2fsprogs"),
        ("rot: bit rot on XFS", "mkfs.xfs", "xfsprogs"),
        ("rot: errors of a disk, on btrfs", "mkfs.btrfs", "btrfs-progs"),
        (
            "file_systems::exec_bits_that_ntfs_does_not_keep_stay_for_the_others",
            "mkntfs",
            "ntfs-3g",
        ),
    ] {
        if !has(program) {
            println!("==> NOT RUN: {test}: there is no {program} (package {package})");
        }
    }
    let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for (test, kind) in [
        ("file_systems::everything_on_xfs", "xfs"),
        ("file_systems::everything_on_btrfs", "btrfs"),
        ("clones: on XFS", "xfs"),
        ("clones: on btrfs", "btrfs"),
    ] {
        // One that is a module is listed once something was mounted with it.
        if !kernel
            .lines()
            .any(|line| line.split_whitespace().last() == Some(kind))
        {
            println!("==> NOT RUN: {test}: this kernel has no {kind}");
        }
    }
    // Each of the three is known by a feature or a kind; without any there is nothing that folds case.
    let folds = kernel.contains("vfat") || Path::new("/sys/fs/ext4/features/casefold").exists();
    if !folds {
        println!(
            "==> NOT RUN, unless XFS can be so: clashes: this kernel has no file system in which case does not count"
        );
    }
}

/// A reader in a tight loop beside ten thousand overwrites from afar, and fifty deaths of the receiver: some minutes.
pub(crate) fn readers() -> Result<()> {
    exec(&mut cargo(&["build", "--workspace", "--all-targets"]))?;
    let mut test = cargo(&["test", "-p", "alike-tests", "--", "cases::readers", "--nocapture"]);
    test.env("ALIKE_TEST_BIN", target_dir()?.join("debug/sync"));
    test.env("ALIKE_TEST_OVERWRITES", "10000")
        .env("ALIKE_TEST_KILLS", "50");
    exec(&mut test)
}

/// Where the binary with fail points is: beside the one without.
fn with_failpoints(bin: &Path) -> PathBuf {
    bin.with_file_name("sync-failpoints")
}

/// Builds the binary in which tests can make things go wrong. Cargo puts both at one place and remembers both; this
/// one is set aside, and the one that follows takes the place back.
fn build_with_failpoints(bin: &Path) -> Result<()> {
    let features = ["--features", "alike-cli/failpoints"];
    exec(cargo(&["build", "--workspace", "--all-targets"]).args(features))?;
    let aside = with_failpoints(bin);
    // Over a running one nothing can be written; another file can take its name.
    let new = aside.with_extension("new");
    fs::copy(bin, &new).with_context(|| format!("copy {}", bin.display()))?;
    fs::rename(&new, &aside).with_context(|| format!("rename to {}", aside.display()))
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("==> {name}");
    let start = Instant::now();
    let result = run().with_context(|| format!("step failed: {name}"));
    let word = if result.is_ok() { "ok" } else { "failed" };
    println!("    {name}: {word} after {:.1} s", start.elapsed().as_secs_f64());
    result
}

fn exec(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}
