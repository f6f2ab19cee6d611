//! A directory of many files gets another name.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{change, ends_in, prepare, set_up, those};
use crate::bench::Bench;
use crate::bench::measure::Meter;
use crate::bench::peers::Peer;
use crate::bench::results::{ALIKE, Case, Column, Section, Unit};
use crate::bench::rounds::{self, Given};
use crate::bench::trees::{self, Spec};

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let files = if bench.quick { 900 } else { 20_000 };
    let spec = Spec {
        files,
        per_dir: files,
        size: (1 << 10, 8 << 10),
    };
    let mut cases = [Case::new(format!("A directory of {files} files renamed"))];
    let peers = those(bench, |peer| peer.traits().incremental);
    rounds::run(
        bench,
        &mut cases,
        super::room(&spec) * 3,
        &peers,
        |peer, corner| once(bench, peer, corner, &spec),
    )?;
    let how = "Both sides have it. Those that watch are timed from the rename until the other side has all files under the \
               new name and none under the old one; the others are run. Files of 1 to 8 KiB; as many others stay where they are.";
    let mut section = Section::new("A directory is renamed", how, cases.into());
    let case = &section.cases[0];
    let (wire, seconds) = (
        case.median(ALIKE, Column::Wire),
        case.median(ALIKE, Column::Seconds),
    );
    section.aim("on the wire", wire, 1_048_576.0, Unit::Bytes);
    section.aim("time", seconds, 2.0, Unit::Seconds);
    Ok(Some(section))
}

fn once(bench: &Bench, peer: &dyn Peer, corner: &Path, spec: &Spec) -> Result<Given> {
    let (from, to) = ends_in(corner)?;
    for name in ["moves", "stays"] {
        trees::make(&from.join(name), spec)?;
    }
    let meter = Meter::start();
    let mut pair = set_up(peer, corner, (&from, &to), &meter)?;
    prepare(pair.as_mut(), bench.limit)?;
    let dir = |root: &Path, name: &str| root.join(name).join("d0000");
    let make = || Ok(fs::rename(from.join("moves"), from.join("moved"))?);
    let arrived = || {
        let gone = trees::names_in(&dir(&to, "moves")) == 0;
        Ok(gone && trees::names_in(&dir(&to, "moved")) == spec.files)
    };
    let figures = change(bench, peer, pair.as_mut(), &meter, make, arrived)?;
    if figures.stopped.is_none() {
        trees::compare(&from, &to, peer.traits().grain)?;
        pair.stop()?;
    }
    Ok(vec![(0, peer.name().to_owned(), figures)])
}
