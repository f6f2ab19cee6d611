//! The work that is measured, each kind in a file of its own, by name.

mod at_rest;
mod big;
mod delta;
mod equal;
mod first;
mod latency;
mod micro;
mod rename;
mod restart;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Bench;
use super::measure::{Meter, Span};
use super::peers::{Ends, Outcome, Pair, Peer};
use super::process::in_time;
use super::results::Section;
use super::trees::{self, Spec};

/// One of them. `None`: it has nothing to work on, and has said so.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) run: fn(&Bench) -> Result<Option<Section>>,
}

/// All of them, in the order of the page.
pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "kernel",
        about: "first sync of a real tree (--tree DIR)",
        run: first::kernel,
    },
    Workload {
        name: "small",
        about: "first sync of 100,000 files of 1 to 8 KiB",
        run: first::small,
    },
    Workload {
        name: "big",
        about: "first sync of one file of 4 GiB, beside a bare iroh stream",
        run: big::run,
    },
    Workload {
        name: "restart",
        about: "both ends started again, nothing changed, beside `find -printf`",
        run: restart::run,
    },
    Workload {
        name: "latency",
        about: "from a save to its arrival: idle, among 1,000,000 files, during a big pull",
        run: latency::run,
    },
    Workload {
        name: "delta",
        about: "changes of a file of 1 GiB",
        run: delta::run,
    },
    Workload {
        name: "rename",
        about: "a directory of 20,000 files gets another name",
        run: rename::run,
    },
    Workload {
        name: "equal",
        about: "two equal folders of 100,000 files are paired",
        run: equal::run,
    },
    Workload {
        name: "rest",
        about: "CPU and memory while nothing happens",
        run: at_rest::run,
    },
    Workload {
        name: "status",
        about: "`sync status` and `sync log`",
        run: status::run,
    },
    Workload {
        name: "micro",
        about: "hashing, trees, merging, the index, by criterion",
        run: micro::run,
    },
];

/// Those that are named, in the order of the page; all of them if none is.
pub(super) fn choose(names: &[String]) -> Result<Vec<&'static Workload>> {
    for name in names {
        if !ALL.iter().any(|work| work.name == name) {
            bail!("no such workload: {name} (`cargo xtask bench --list`)");
        }
    }
    let is_chosen = |work: &&Workload| names.is_empty() || names.iter().any(|n| n == work.name);
    Ok(ALL.iter().filter(is_chosen).collect())
}

/// A tree of many small files: of the full size, or of a fiftieth.
fn many(bench: &Bench, files: usize, size: (usize, usize)) -> Spec {
    let files = if bench.quick { files / 50 } else { files };
    Spec {
        files,
        per_dir: if files > 100_000 { 1000 } else { 100 },
        size,
    }
}

/// What an engine may note about one file, in bytes on its disk: alike's database, at its greatest.
const NOTED: u64 = 12 << 10;

/// What such a tree may take on the disk, at most, with what an engine notes about it.
fn room(spec: &Spec) -> u64 {
    spec.files as u64 * ((spec.size.1 as u64).next_multiple_of(4096) + NOTED) + (64 << 20)
}

/// Two directories in a run's corner.
fn ends_in(corner: &Path) -> Result<(PathBuf, PathBuf)> {
    let (from, to) = (corner.join("from"), corner.join("to"));
    std::fs::create_dir_all(&from)?;
    std::fs::create_dir_all(&to)?;
    Ok((from, to))
}

/// The same with this tree in both.
fn equal_ends(corner: &Path, spec: &Spec) -> Result<(PathBuf, PathBuf)> {
    let (from, to) = (corner.join("from"), corner.join("to"));
    trees::make(&from, spec)?;
    trees::make(&to, spec)?;
    Ok((from, to))
}

/// A peer's two ends over these directories.
fn set_up<'a>(
    peer: &dyn Peer,
    corner: &'a Path,
    (from, to): (&'a Path, &'a Path),
    meter: &'a Meter,
) -> Result<Box<dyn Pair + 'a>> {
    peer.setup(&Ends {
        corner,
        from,
        to,
        meter,
    })
}

/// Peers that do what is wanted.
fn those(bench: &Bench, wanted: impl Fn(&dyn Peer) -> bool) -> Vec<&dyn Peer> {
    let all = bench.peers.iter().map(AsRef::as_ref);
    all.filter(|peer| wanted(*peer)).collect()
}

/// Makes the ends equal before anything is measured; that must work in the time that a peer has.
fn prepare(pair: &mut dyn Pair, limit: Duration) -> Result<()> {
    let outcome = pair.first(std::time::Instant::now() + limit)?;
    ensure!(outcome == Outcome::Done, "not ready within {limit:?}");
    Ok(())
}

/// How often is looked whether a change has arrived.
const STEP: Duration = Duration::from_millis(2);

/// Makes a change and measures until it has arrived: a peer that watches is waited for, another one is run. What comes
/// after the arrival (records, acknowledgements) is in all figures but the time.
fn change(
    bench: &Bench,
    peer: &dyn Peer,
    pair: &mut dyn Pair,
    meter: &Meter,
    make: impl FnOnce() -> Result<()>,
    mut has_arrived: impl FnMut() -> Result<bool>,
) -> Result<super::results::Figures> {
    let mut span = Span::begin(meter)?;
    make()?;
    let made = std::time::Instant::now();
    let deadline = span.deadline(bench.limit);
    let done = if peer.traits().live {
        in_time(deadline, STEP, &mut has_arrived)?
    } else {
        pair.again(deadline)? == Outcome::Done
    };
    let seconds = made.elapsed().as_secs_f64();
    span.stop_clock();
    if done && peer.traits().live {
        pair.again(deadline + bench.limit)?;
    }
    let mut figures = span.end()?;
    figures.set(super::results::Column::Seconds, seconds);
    if done {
        ensure!(
            has_arrived()?,
            "it said that it is done, and the change is not there"
        );
    } else {
        figures.stopped = Some(format!("stopped after {} s", bench.limit.as_secs()));
    }
    Ok(figures)
}
