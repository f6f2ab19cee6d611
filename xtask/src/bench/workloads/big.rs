//! One big file: near what QUIC can carry? Beside a bare iroh stream of as many bytes in the same rounds.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{first, those};
use crate::bench::measure::{End, Meter, Span};
use crate::bench::process::Running;
use crate::bench::results::{Case, Figures, Section, Unit};
use crate::bench::{Bench, rounds, trees};

const BARE: &str = "bare iroh stream";

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let size: u64 = if bench.quick { 256 << 20 } else { 4 << 30 };
    let source = bench.place.corner(size)?;
    trees::make_big(&source.join("big"), size, 1)?;
    let mut cases = [Case::new(format!("One file of {} MiB", size >> 20))];
    let peers = those(bench, |_| true);
    let mut round = 0;
    let first_peer = peers[0].name();
    let mut bare = Vec::new();
    rounds::run(bench, &mut cases, size, &peers, |peer, corner| {
        if peer.name() == first_peer
            && let Some(stream) = &bench.stream
        {
            round += 1;
            bare.push((round, stream_once(bench, stream, size)?));
        }
        let given = first::once(bench, peer, corner, &source)?;
        // Such files are gone at once, and nobody has to wait for that.
        bench.place.remove(&corner.join("to"))?;
        Ok(given)
    })?;
    for (round, figures) in bare {
        println!(
            "    {round}: {BARE}: {:.3} s",
            figures.first().unwrap_or_else(none).1
        );
        cases[0].add(BARE, round, figures);
    }
    if bench.stream.is_none() {
        println!("    {BARE}: left out, no --stream FILE");
    }
    bench.place.remove(&source)?;
    let how = "As above, with one file of random bytes. The bare stream is what two processes with iroh and nothing else \
               need to send as many bytes from memory to nowhere (`benches/src/stream.rs`).";
    let mut section = Section::new("One big file", how, cases.into());
    let (bare, syncthing) = (
        section.cases[0].ratio(BARE),
        section.cases[0].ratio("Syncthing, tuned"),
    );
    section.aim("alike / bare iroh stream", bare, 1.0 / 0.8, Unit::Times);
    section.aim("alike / bare iroh stream; the aim", bare, 1.0 / 0.95, Unit::Times);
    section.aim("alike / Syncthing, tuned", syncthing, 0.5, Unit::Times);
    Ok(Some(section))
}

fn none() -> (crate::bench::results::Column, f64) {
    (crate::bench::results::Column::Seconds, f64::NAN)
}

/// Seconds for so many bytes from one process to another one.
fn stream_once(bench: &Bench, program: &std::path::Path, size: u64) -> Result<Figures> {
    use std::io::{BufRead, BufReader};
    let meter = Meter::start();
    let mut command = Command::new(program);
    command.args(["send", &size.to_string()]);
    let (mut sender, output) = Running::start_piped(&mut command, &meter, End::From)?;
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    let mut span = Span::begin(&meter)?;
    let mut command = Command::new(program);
    command.args(["receive", address.trim()]).stdout(Stdio::null());
    let mut receiver = Running::start(&mut command, &meter, End::To)?;
    let deadline = Instant::now() + bench.limit;
    let status = receiver
        .wait(deadline)?
        .context("the bare stream did not end in time")?;
    span.stop_clock();
    ensure!(status.success(), "the bare stream: {status}");
    let figures = span.end()?;
    sender.ends()?;
    Ok(figures)
}
