//! From a save to the moment when the other side's file has the new bytes: idle, in a large folder, and while a big
//! file is on its way.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{ends_in, equal_ends, many, prepare, room, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::{Meter, wire};
use crate::bench::peers::{Pair, Peer};
use crate::bench::process::in_time;
use crate::bench::results::{ALIKE, Case, Column, Figures, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::{self, Bytes, Spec};

/// Bytes of a saved file.
const SAVED: usize = 10 << 10;
/// How often is looked whether it has arrived.
const STEP: Duration = Duration::from_micros(500);
/// Idle time between an arrival and the next save, in milliseconds.
const PAUSE: (usize, usize) = (50, 250);
/// So much of the big file must be on its way before saves begin.
const UNDER_WAY: u64 = 16 << 20;

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let saves = if bench.quick { 20 } else { 100 };
    let (few, million) = (
        many(bench, 100_000, (1 << 10, 8 << 10)),
        many(bench, 1_000_000, (16, 200)),
    );
    let big: u64 = if bench.quick { 512 << 20 } else { 4 << 30 };
    let mut cases = Vec::new();
    for spec in [few, million] {
        let mut case = [Case::new(format!("Idle, {} files", spec.files))];
        let peers = those(bench, |peer| peer.traits().incremental && peer.traits().live);
        rounds::run(bench, &mut case, room(&spec) * 2, &peers, |peer, corner| {
            idle(bench, peer, corner, &spec, saves)
        })?;
        cases.extend(case);
    }
    let mut case = [Case::new(format!("While a file of {} MiB is pulled", big >> 20))];
    let peers = those(bench, |peer| peer.traits().live);
    rounds::run(
        bench,
        &mut case,
        big * 2 + room(&few) * 2,
        &peers,
        |peer, corner| during_pull(bench, peer, corner, &few, big),
    )?;
    cases.extend(case);
    let how = "A file of 10 KiB is saved on one side, sides in turn, and the other side's file is read until it has the new \
               bytes; then a pause of 50 to 250 ms. While a big file is pulled: saves on the side that sends it, from \
               its first bytes on the wire until it is there. `on the wire` and `database grew` are for each save. \
               Unison and rsync are not in it: somebody has to run them.";
    let mut section = Section::new("Save to arrival", how, cases);
    for at in 0..section.cases.len() {
        let case = &section.cases[at];
        let of = |column| case.median(ALIKE, column);
        let (title, median, p99) = (case.title.clone(), of(Column::Median), of(Column::P99));
        let (wire, database) = (of(Column::Wire), of(Column::Database));
        if at < 2 {
            section.aim(&format!("{title}: median"), median, 0.1, Unit::Seconds);
            section.aim(&format!("{title}: 99 %"), p99, 0.3, Unit::Seconds);
        } else {
            section.aim(&format!("{title}: 99 %"), p99, 0.5, Unit::Seconds);
        }
        if at == 1 {
            let kib = 64.0 * 1024.0;
            section.aim(
                &format!("{title}: one change on the wire"),
                wire,
                kib,
                Unit::Bytes,
            );
            section.aim(
                &format!("{title}: one change in the database"),
                database,
                kib,
                Unit::Bytes,
            );
        }
    }
    Ok(Some(section))
}

fn idle(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec, saves: usize) -> Result<Given> {
    let (from, to) = equal_ends(corner, spec)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    prepare(pair.as_mut(), bench.limit * 4)?;
    let (before, state) = (wire()?, pair.state_bytes());
    let deadline = Instant::now() + bench.limit;
    let mut bytes = Bytes::new(corner.as_os_str().len() as u64);
    let mut times = Vec::new();
    while times.len() < saves && Instant::now() < deadline {
        let sides = if times.len() % 2 == 0 {
            [&from, &to]
        } else {
            [&to, &from]
        };
        let file = trees::name(spec, bytes.between(0, spec.files - 1));
        let content = content(&mut bytes);
        let Some(seconds) = save(&sides[0].join(&file), &sides[1].join(&file), &content, deadline)? else {
            break;
        };
        times.push(seconds);
        std::thread::sleep(Duration::from_millis(bytes.between(PAUSE.0, PAUSE.1) as u64));
    }
    ensure!(!times.is_empty(), "not one save arrived within {:?}", bench.limit);
    let count = times.len() as f64;
    let mut figures = Figures::of_times(times);
    figures.set(Column::Wire, (wire()? - before) as f64 / count);
    if let (Some(before), Some(now)) = (state, pair.state_bytes()) {
        figures.set(Column::Database, now.saturating_sub(before) as f64 / count);
    }
    finish(pair.as_mut(), bench)?;
    trees::compare(&from, &to, peer.traits().grain)?;
    Ok(vec![(0, peer.name().to_owned(), figures)])
}

fn during_pull(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec, big: u64) -> Result<Given> {
    let (from, to) = ends_in(corner)?;
    trees::make(&from.join("many"), spec)?;
    trees::make(&to.join("many"), spec)?;
    let aside = corner.join("aside");
    trees::make_big(&aside, big, 1)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    prepare(pair.as_mut(), bench.limit * 4)?;
    let before = wire()?;
    fs::rename(&aside, from.join("big"))?;
    let deadline = Instant::now() + bench.limit;
    let begun = in_time(deadline, Duration::from_millis(5), || {
        Ok(wire()? > before + UNDER_WAY)
    })?;
    ensure!(begun, "the big file was not on its way within {:?}", bench.limit);
    let mut bytes = Bytes::new(3);
    let mut times = Vec::new();
    // A save that had the big file come in while it was on its way still counts: it began before.
    while !to.join("big").exists() && Instant::now() < deadline {
        let file = Path::new("many").join(trees::name(spec, bytes.between(0, spec.files - 1)));
        let content = content(&mut bytes);
        let Some(seconds) = save(&from.join(&file), &to.join(&file), &content, deadline)? else {
            break;
        };
        times.push(seconds);
    }
    ensure!(!times.is_empty(), "the big file was there before the first save");
    let figures = Figures::of_times(times);
    finish(pair.as_mut(), bench)?;
    trees::compare(&from, &to, peer.traits().grain)?;
    for side in [&from, &to] {
        fs::remove_file(side.join("big"))?;
    }
    Ok(vec![(0, peer.name().to_owned(), figures)])
}

/// Everything is equal at the end, and both ends are gone.
fn finish(pair: &mut dyn Pair, bench: &Bench) -> Result<()> {
    pair.again(Instant::now() + bench.limit)?;
    pair.stop()
}

fn content(bytes: &mut Bytes) -> Vec<u8> {
    let mut content = vec![0; SAVED];
    bytes.fill(&mut content);
    content
}

/// Saves a file here, in place as editors do, and reads the one there until it is the same.
fn save(here: &Path, there: &Path, content: &[u8], deadline: Instant) -> Result<Option<f64>> {
    fs::write(here, content)?;
    let start = Instant::now();
    let arrived = in_time(deadline, STEP, || {
        Ok(fs::read(there).is_ok_and(|now| now == content))
    })?;
    Ok(arrived.then(|| start.elapsed().as_secs_f64()))
}
