//! Two folders that are equal already are paired: nothing has to go over the wire but the proof.

use std::path::Path;

use anyhow::Result;

use super::{equal_ends, many, room, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::{Meter, Span};
use crate::bench::peers::{Outcome, Peer};
use crate::bench::results::{ALIKE, Case, Column, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::{self, Spec};

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let spec = many(bench, 100_000, (1 << 10, 8 << 10));
    let mut cases = [Case::new(format!(
        "Two equal folders of {} files paired",
        spec.files
    ))];
    let peers = those(bench, |peer| peer.traits().incremental);
    rounds::run(bench, &mut cases, room(&spec) * 2, &peers, |peer, corner| {
        once(bench, peer, corner, &spec)
    })?;
    let how = "Names, bytes, modes and times are the same on both sides before they hear of each other. Timed as a first \
               sync, so both sides' scans, which read every byte (rsync: none), are in it.";
    let mut section = Section::new("Equal folders are paired", how, cases.into());
    let wire = section.cases[0].median(ALIKE, Column::Wire);
    // All content would be 450 MB: a tenth of it holds two lists of names and digests, and no content.
    let content = spec.files as f64 * (spec.size.0 + spec.size.1) as f64 / 2.0;
    section.aim("no content on the wire", wire, content / 10.0, Unit::Bytes);
    Ok(Some(section))
}

fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec) -> Result<Given> {
    let (from, to) = equal_ends(corner, spec)?;
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    let mut span = Span::begin(&meter)?;
    let outcome = pair.first(span.deadline(bench.limit))?;
    span.stop_clock();
    let mut figures = span.end()?;
    if outcome == Outcome::Stopped {
        figures.stopped = Some("stopped".to_owned());
    } else {
        trees::compare(&from, &to, peer.traits().grain)?;
        pair.stop()?;
    }
    Ok(vec![(0, peer.name().to_owned(), figures)])
}
