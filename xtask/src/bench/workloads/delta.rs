//! Changes of a big file, one after the other: how much of it goes over the wire, and how long it takes.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{change, ends_in, prepare, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::Meter;
use crate::bench::peers::Peer;
use crate::bench::results::{ALIKE, Case, Column, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::{self, Bytes};

/// What is done to it, and how many MiB may go over the wire at most.
const CHANGES: [(&str, f64); 4] = [
    ("one byte in the middle", 1.0),
    ("4 KiB inserted at the front", 2.0),
    ("1 MiB appended", 2.0),
    ("100 scattered writes of 4 KiB", 8.0),
];

/// Unison takes two times that are less apart than this for one, and a change without another length for none.
const APART: Duration = Duration::from_secs(3);

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let size: u64 = if bench.quick { 64 << 20 } else { 1 << 30 };
    let mut cases = CHANGES.map(|(what, _)| Case::new(format!("{what}, of {} MiB", size >> 20)));
    let peers = those(bench, |peer| peer.traits().incremental);
    rounds::run(bench, &mut cases, size * 4, &peers, |peer, corner| {
        once(bench, peer, corner, size)
    })?;
    let how = "A file of random bytes that both sides have. The changes are made one after the other, each when the one \
               before has arrived: in place, but the insertion, which is written beside the file and renamed over it. Those \
               that watch are timed from the change until the other side's file has its size and time; the others are run.";
    let mut section = Section::new("A big file is changed", how, cases.into());
    for (at, (what, mib)) in CHANGES.iter().enumerate() {
        let case = &section.cases[at];
        let (wire, ratio) = (case.median(ALIKE, Column::Wire), case.ratio("rsync -a"));
        section.aim(
            &format!("{what}: on the wire"),
            wire,
            mib * 1_048_576.0,
            Unit::Bytes,
        );
        section.aim(&format!("{what}: alike / rsync"), ratio, 1.5, Unit::Times);
    }
    Ok(Some(section))
}

fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, size: u64) -> Result<Given> {
    let (from, to) = ends_in(corner)?;
    let (here, there) = (from.join("big"), to.join("big"));
    trees::make_big(&here, size, 1)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    prepare(pair.as_mut(), bench.limit)?;
    let mut given = Vec::new();
    let mut bytes = Bytes::new(2);
    for at in 0..CHANGES.len() {
        std::thread::sleep(APART);
        let make = || apply(at, &here, &corner.join("aside"), &mut bytes);
        let grain = peer.traits().grain;
        let arrived = || Ok(trees::looks_same(&here, &there, grain));
        let figures = change(bench, peer, pair.as_mut(), &meter, make, arrived)?;
        let stopped = figures.stopped.is_some();
        given.push((at, peer.name().to_owned(), figures));
        if stopped {
            return Ok(given);
        }
        trees::compare(&from, &to, grain)?;
    }
    pair.stop()?;
    for side in [&here, &there] {
        std::fs::remove_file(side)?;
    }
    Ok(given)
}

/// Makes the change of this number.
fn apply(number: usize, file: &Path, aside: &Path, bytes: &mut Bytes) -> Result<()> {
    let size = std::fs::metadata(file)?.len();
    let mut piece = vec![0; 4096];
    bytes.fill(&mut piece);
    match number {
        0 => trees::overwrite(file, size / 2, &piece[..1]),
        1 => trees::put_in_front(file, &piece, aside),
        2 => {
            let mut end = vec![0; 1 << 20];
            bytes.fill(&mut end);
            trees::overwrite(file, size, &end)
        }
        _ => (0..100).try_for_each(|_| {
            bytes.fill(&mut piece);
            let at = bytes.next() % (size - 4096);
            trees::overwrite(file, at, &piece)
        }),
    }
}
