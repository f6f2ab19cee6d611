//! How long a person waits for an answer of the command.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{many, room};
use crate::bench::Bench;
use crate::bench::results::{ALIKE, Case, Column, Figures, Section, Unit};
use crate::bench::trees::{self, Spec};
use crate::device::Device;

const COMMANDS: [&[&str]; 3] = [&["status"], &["status", "--json"], &["log", "-n", "20"]];
/// How often each is asked.
const ASKED: usize = 20;

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let spec = many(bench, 100_000, (1 << 10, 8 << 10));
    let corner = bench.place.corner(room(&spec))?;
    let mut cases =
        COMMANDS.map(|args| Case::new(format!("`sync {}`, {} files", args.join(" "), spec.files)));
    for run in 1..=bench.runs {
        once(bench, &corner.join(run.to_string()), &spec, run, &mut cases)?;
    }
    bench.place.is_old(corner);
    let how = "The whole command, 20 times each, in a folder that an engine watches.";
    let mut section = Section::new("Asking", how, cases.into());
    for at in 0..COMMANDS.len() {
        let case = &section.cases[at];
        let (what, median) = (case.title.clone(), case.median(ALIKE, Column::Median));
        section.aim(&what, median, 0.05, Unit::Seconds);
    }
    Ok(Some(section))
}

fn once(bench: &Bench, corner: &Path, spec: &Spec, run: usize, cases: &mut [Case]) -> Result<()> {
    let folder = corner.join("from");
    trees::make(&folder, spec)?;
    let mut device = Device::start(&bench.bin, corner, "asked")?;
    device.sync(["share".as_ref(), folder.as_os_str()])?;
    let deadline = Instant::now() + bench.limit;
    let scanned = super::in_time(deadline, super::STEP, || {
        let status: serde_json::Value = serde_json::from_str(&device.sync(["status", "--json"])?)?;
        let folder = &status["folders"][0];
        Ok(folder["state"] == "idle" && folder["files"] == spec.files)
    })?;
    ensure!(scanned, "the folder was not scanned within {:?}", bench.limit);
    for (at, args) in COMMANDS.iter().enumerate() {
        let mut times = Vec::new();
        for _ in 0..ASKED {
            let start = Instant::now();
            device.sync(*args)?;
            times.push(start.elapsed().as_secs_f64());
        }
        let figures = Figures::of_times(times);
        cases[at].add(ALIKE, run, figures);
    }
    device.stop()
}
