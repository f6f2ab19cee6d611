//! Both ends are started again and nothing has changed. The floor is to ask for every file's attributes once.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{equal_ends, many, prepare, room, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::{Meter, Span};
use crate::bench::peers::{Outcome, Peer};
use crate::bench::results::{ALIKE, Case, Column, Figures, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::Spec;

const FIND: &str = "find -printf, both trees at once";
/// A second that alike may need beside the scan.
const EXTRA: f64 = 0.3;

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let specs = [
        many(bench, 100_000, (1 << 10, 8 << 10)),
        many(bench, 1_000_000, (16, 200)),
    ];
    let mut all = Vec::new();
    for spec in specs {
        let mut cases = [Case::new(format!("{} files", spec.files))];
        let peers = those(bench, |peer| peer.traits().incremental);
        rounds::run(bench, &mut cases, room(&spec) * 2, &peers, |peer, corner| {
            once(bench, peer, corner, &spec)
        })?;
        all.extend(cases);
    }
    let how = "Both directories are equal beforehand and known to both ends. Those that watch: from the start of both \
               processes until both know that all is equal (`sync wait`; Syncthing: scanned, connected, nothing missing). \
               The others: one more run. `find -printf` asks for the attributes of every file of both trees, one process \
               a tree, right before. All attributes are in the kernel's cache: beforehand it lets go of what files hold, which \
               would crowd them out, and all is looked at and started once, unmeasured.";
    let mut section = Section::new("Restart, nothing changed", how, all);
    for at in 0..section.cases.len() {
        let case = &section.cases[at];
        let find = case.median(FIND, Column::Seconds).unwrap_or(f64::NAN);
        let (what, got) = (
            format!("restart with {}", case.title),
            case.median(ALIKE, Column::Seconds),
        );
        section.aim(&what, got, 1.5 * find + EXTRA, Unit::Seconds);
    }
    Ok(Some(section))
}

fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec) -> Result<Given> {
    let (from, to) = equal_ends(corner, spec)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    // The many files have to be known first; that is another workload, and may take longer.
    prepare(pair.as_mut(), bench.limit * 4)?;
    let mut given = Vec::new();
    know_all(&from, &to)?;
    // What the peer keeps of them has to be known to the kernel as well: one restart beforehand.
    pair.stop()?;
    let before = Span::begin(&meter)?;
    pair.start_again(before.deadline(bench.limit))?;
    if peer.name() == ALIKE {
        given.push((0, FIND.to_owned(), find(&from, &to)?));
    }
    pair.stop()?;
    let mut span = Span::begin(&meter)?;
    let outcome = pair.start_again(span.deadline(bench.limit))?;
    span.stop_clock();
    let mut figures = span.end()?;
    if outcome == Outcome::Stopped {
        figures.stopped = Some("stopped".to_owned());
    }
    given.push((0, peer.name().to_owned(), figures));
    Ok(given)
}

/// Makes the kernel know the attributes of all files. Contents of two million files, and those of the file that a file system may
/// be in, leave too little memory for them otherwise.
fn know_all(from: &Path, to: &Path) -> Result<()> {
    let synced = Command::new("sync").status()?;
    ensure!(synced.success(), "sync: {synced}");
    // Only root may; others measure what they have.
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    find(from, to).map(drop)
}

fn find(from: &Path, to: &Path) -> Result<Figures> {
    let start = Instant::now();
    let mut running = Vec::new();
    for tree in [from, to] {
        let mut command = Command::new("find");
        command.arg(tree).args(["-printf", "%i %s %m %T@ %C@ %p\n"]);
        running.push(command.stdout(Stdio::null()).spawn()?);
    }
    for mut find in running {
        let status = find.wait()?;
        ensure!(status.success(), "find: {status}");
    }
    Ok(Figures::only(&[(Column::Seconds, start.elapsed().as_secs_f64())]))
}
