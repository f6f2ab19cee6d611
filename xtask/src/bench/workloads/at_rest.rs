//! What engines use while nothing happens.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{equal_ends, many, prepare, room, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::{Meter, wire};
use crate::bench::peers::Peer;
use crate::bench::results::{ALIKE, Case, Column, Figures, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::Spec;

/// Until what a first scan left to do is done.
const SETTLE: Duration = Duration::from_secs(10);
const WATCHED: Duration = Duration::from_secs(20);

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let spec = many(bench, 100_000, (1 << 10, 8 << 10));
    let seconds = watched(bench).as_secs();
    let title = format!("{seconds} s in which nothing happens, {} files", spec.files);
    let mut cases = [Case::new(title)];
    let peers = those(bench, |peer| peer.traits().live);
    rounds::run(bench, &mut cases, room(&spec) * 2, &peers, |peer, corner| {
        once(bench, peer, corner, &spec)
    })?;
    let how = "Both engines restarted with two equal folders, connected, ten seconds after the last thing they had to do. \
               CPU is counted in ticks of 10 ms; memory is what is resident.";
    let mut section = Section::new("At rest", how, cases.into());
    let case = &section.cases[0];
    let worse = |a, b| Some(case.median(ALIKE, a)?.max(case.median(ALIKE, b)?));
    let memory = worse(Column::RestFrom, Column::RestTo);
    let cpu = worse(Column::CpuFrom, Column::CpuTo);
    section.aim("memory at rest", memory, 60.0 * 1_048_576.0, Unit::Bytes);
    section.aim("CPU at rest (a tick is 10 ms)", cpu, 0.0, Unit::Seconds);
    Ok(Some(section))
}

fn watched(bench: &Bench) -> Duration {
    if bench.quick { WATCHED / 5 } else { WATCHED }
}

fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec) -> Result<Given> {
    let (from, to) = equal_ends(corner, spec)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    prepare(pair.as_mut(), bench.limit)?;
    pair.stop()?;
    pair.start_again(std::time::Instant::now() + bench.limit)?;
    std::thread::sleep(if bench.quick { SETTLE / 5 } else { SETTLE });
    meter.mark();
    let before = wire()?;
    std::thread::sleep(watched(bench));
    let [here, there] = meter.read();
    let figures = Figures::only(&[
        (Column::Wire, (wire()? - before) as f64),
        (Column::CpuFrom, here.cpu),
        (Column::CpuTo, there.cpu),
        (Column::RestFrom, here.resident as f64),
        (Column::RestTo, there.resident as f64),
    ]);
    pair.stop()?;
    Ok(vec![(0, peer.name().to_owned(), figures)])
}
