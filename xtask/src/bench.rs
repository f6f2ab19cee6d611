//! `cargo xtask bench`: the same work through alike and through what people use today, in turn, in one run, each as
//! two processes of this machine over loopback; trees are compared at the end. Installs nothing: what is not there is
//! left out, and said. Writes docs/benchmarks.md and its plots (`page`).

mod machine;
mod measure;
mod options;
mod own_net;
mod page;
mod peers;
mod place;
mod plot;
mod process;
mod results;
mod rounds;
mod table;
mod trees;
mod workloads;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::machine::Machine;
pub(crate) use self::options::Options;
use self::peers::Peer;
use self::place::Place;
use crate::{cargo, root, target_dir};

/// What all workloads share.
struct Bench {
    /// alike's binary.
    bin: PathBuf,
    /// The program that sends over a bare iroh stream, if it is there.
    stream: Option<PathBuf>,
    /// Everything is made in here.
    place: Place,
    /// Those that are installed and were asked for, alike first.
    peers: Vec<Box<dyn Peer>>,
    runs: usize,
    quick: bool,
    /// How long one peer may take for one piece of work.
    limit: Duration,
    /// How long it may take for its runs of one, before it is not asked for another one.
    patience: Option<Duration>,
    /// A real tree, for the workload `kernel`.
    tree: Option<PathBuf>,
}

/// Measures, prints and writes.
pub(crate) fn run(mut options: Options) -> Result<()> {
    if options.list {
        for work in workloads::ALL {
            println!("{:10} {}", work.name, work.about);
        }
        return Ok(());
    }
    let chosen = workloads::choose(&options.workloads)?;
    find_binaries(&mut options)?;
    if !own_net::inside() && own_net::possible() {
        return own_net::enter(&options);
    }
    own_net::set_up()?;
    let out = match (&options.out, options.quick) {
        (Some(out), _) => out.clone(),
        (None, true) => target_dir()?.join("bench"),
        (None, false) => root().join("docs"),
    };
    let bin = options.bin.clone().context("named or built")?;
    let built = bin.starts_with(target_dir()?);
    let place = match &options.place {
        Some(place) => place.clone(),
        None => target_dir()?,
    };
    let bench = Bench {
        place: Place::new(&place)?,
        peers: peers::find(&bin, &options.peers)?,
        bin,
        stream: options.stream.clone(),
        runs: options.runs,
        quick: options.quick,
        limit: options.limit,
        patience: options.patience,
        tree: options.tree.clone(),
    };
    let machine = Machine::look(&bench, &place, built);
    println!("{machine}");
    let mut failed = Vec::new();
    for work in chosen {
        println!("==> {}: {}", work.name, work.about);
        let section = match (work.run)(&bench) {
            Ok(Some(section)) => section,
            Ok(None) => continue,
            // The others take hours: they are not thrown away for this one.
            Err(error) => {
                println!("    failed: {error:#}");
                failed.push(format!("{}: {error:#}", work.name));
                continue;
            }
        };
        println!("{}", table::section(&section));
        page::write(&out, work.name, &section, &machine)?;
        failed.extend(section.failures);
    }
    println!("written to {}", out.join(page::NAME).display());
    bench.place.close()?;
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// The binaries that were named, or those of a release build.
fn find_binaries(options: &mut Options) -> Result<()> {
    if options.bin.is_none() {
        let features = ["--features", "alike-benches/stream"];
        let packages = ["build", "--release", "-p", "alike-cli", "-p", "alike-benches"];
        let status = cargo(&packages).args(features).status()?;
        ensure!(status.success(), "cargo build: {status}");
        let release = target_dir()?.join("release");
        options.bin = Some(release.join("sync"));
        options.stream.get_or_insert(release.join("stream"));
    }
    for path in options.bin.iter_mut().chain(&mut options.stream) {
        *path = fs::canonicalize(&path).with_context(|| format!("the binary {}", path.display()))?;
    }
    Ok(())
}
