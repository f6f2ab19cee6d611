//! First syncs of many files into an empty directory: a real tree, and small files.

use std::path::Path;

use anyhow::Result;

use super::{many, room};
use crate::bench::measure::{Meter, Span};
use crate::bench::peers::{Outcome, Peer};
use crate::bench::process::flush;
use crate::bench::results::{ALIKE, Case, Column, Figures, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::{Bench, trees};

/// So many files of the given tree are enough to try the harness.
const QUICK_FILES: usize = 3_000;
const HOW: &str = "alike is timed from `sync share` until `sync wait` returns on the first device, both engines being \
     there; Syncthing from adding the folder on both devices, which are connected already, until both say that nothing \
     is missing; the others from their start to their end, and once more with a `sync` behind it, which is what they \
     need to be durable. Names, bytes, modes, links and times are compared after each run. Into an empty directory of \
     the same disk.";

/// The tree that was given.
pub(super) fn kernel(bench: &Bench) -> Result<Option<Section>> {
    let Some(tree) = &bench.tree else {
        println!("    left out: no --tree DIR");
        return Ok(None);
    };
    let tree = trees::given(tree)?;
    let weight = trees::weigh(&tree)?;
    // The tree itself gets no engine's directory: its copy does.
    let source = bench.place.corner(weight.bytes * 2)?;
    trees::copy(&tree, &source, bench.quick.then_some(QUICK_FILES))?;
    let name = tree.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("First sync of a real tree: {name}");
    let mut section = all(bench, &source, &title)?;
    let case = &section.cases[0];
    let peak = [Column::PeakFrom, Column::PeakTo].map(|c| case.most(ALIKE, c));
    let peak = peak.into_iter().flatten().reduce(f64::max);
    let syncthing = case.ratio("Syncthing, tuned");
    let tar = case.ratio("tar to tar, then sync");
    let rsync = case.ratio("rsync -a");
    section.aim("alike / rsync", rsync, 0.8, Unit::Times);
    section.aim("alike / Syncthing, tuned", syncthing, 1.0 / 15.0, Unit::Times);
    section.aim("alike / (tar to tar, then sync); the aim", tar, 1.0, Unit::Times);
    section.aim(
        "memory of an end at its peak",
        peak,
        150.0 * 1_048_576.0,
        Unit::Bytes,
    );
    Ok(Some(section))
}

/// Small files.
pub(super) fn small(bench: &Bench) -> Result<Option<Section>> {
    let spec = many(bench, 100_000, (1 << 10, 8 << 10));
    let source = bench.place.corner(room(&spec) * 2)?;
    trees::make(&source, &spec)?;
    let mut section = all(bench, &source, "First sync of many small files (1 to 8 KiB)")?;
    let rsync = section.cases[0].ratio("rsync -a");
    section.aim("alike / rsync", rsync, 1.0, Unit::Times);
    section.aim("alike / rsync; the aim", rsync, 0.6, Unit::Times);
    Ok(Some(section))
}

/// All peers with one tree.
fn all(bench: &Bench, source: &Path, title: &str) -> Result<Section> {
    let weight = trees::weigh(source)?;
    let what = format!(
        "{} files, {} links, {} directories, {:.2} GB",
        weight.files,
        weight.links,
        weight.dirs,
        weight.bytes as f64 / 1e9
    );
    println!("    {what}");
    let mut cases = [Case::new(format!("First sync of {what}"))];
    let peers = super::those(bench, |_| true);
    let bytes = weight.bytes + (weight.files + weight.dirs) * 4096;
    rounds::run(bench, &mut cases, bytes, &peers, |peer, corner| {
        once(bench, peer, corner, source)
    })?;
    bench.place.remove(source)?;
    Ok(Section::new(title, HOW, cases.into()))
}

/// One run of one peer from `source` into its corner; more than one row if what it wrote is not durable by itself.
pub(super) fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, source: &Path) -> Result<Given> {
    let to = corner.join("to");
    std::fs::create_dir(&to)?;
    let meter = Meter::start();
    trees::clean(source)?;
    let mut pair = super::set_up(peer, corner, (source, &to), &meter)?;
    let mut span = Span::begin(&meter)?;
    let outcome = pair.first(span.deadline(bench.limit))?;
    span.stop_clock();
    let mut figures = span.end()?;
    let mut given = Vec::new();
    if outcome == Outcome::Stopped {
        let part = trees::arrived(source, &to)?;
        figures.stopped = Some(format!("stopped at {part:.0} % of the files"));
    } else if !peer.traits().durable {
        let start = std::time::Instant::now();
        flush()?;
        let flushed = start.elapsed().as_secs_f64();
        let seconds = figures.get(Column::Seconds).unwrap_or_default() + flushed;
        let durable = Figures::only(&[(Column::Seconds, seconds)]);
        given.push((0, format!("{}, then sync", peer.name()), durable));
    }
    if outcome == Outcome::Done {
        trees::compare(source, &to, peer.traits().grain)?;
        if peer.traits().live {
            pair.stop()?;
        }
    }
    drop(pair);
    trees::clean(source)?;
    given.insert(0, (0, peer.name().to_owned(), figures));
    Ok(given)
}
