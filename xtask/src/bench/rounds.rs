//! Runs of one workload: every peer once in each round, another one first each time. A peer that was stopped by the
//! limit, or failed, is not asked again; nor one that is slower than there is patience for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::peers::Peer;
use super::results::{ALIKE, Case, Column, Figures};

/// What one run gave: for each of the cases by number, figures, perhaps under a longer name than the peer's.
pub(super) type Given = Vec<(usize, String, Figures)>;

/// Runs `once` for each peer and each round, in a corner with room for so many bytes; sorts what it gives into `cases`.
pub(super) fn run(
    bench: &Bench,
    cases: &mut [Case],
    bytes: u64,
    peers: &[&dyn Peer],
    mut once: impl FnMut(&dyn Peer, &Path) -> Result<Given>,
) -> Result<()> {
    let mut out = BTreeSet::new();
    let mut taken: BTreeMap<&str, Duration> = BTreeMap::new();
    for round in 1..=bench.runs {
        for turn in 0..peers.len() {
            let peer = peers[(turn + round - 1) % peers.len()];
            if out.contains(peer.name()) {
                continue;
            }
            let corner = bench.place.corner(bytes)?;
            let begun = Instant::now();
            let given = once(peer, &corner).with_context(|| format!("{}, run {round}", peer.name()));
            bench.place.is_old(corner);
            match given {
                Ok(given) => {
                    for (case, name, figures) in given {
                        println!("    {round}: {}: {name}: {}", cases[case].title, line(&figures));
                        if figures.stopped.is_some() {
                            out.insert(peer.name());
                        }
                        cases[case].add(&name, round, figures);
                    }
                }
                Err(error) => {
                    println!("    {round}: {error:#}");
                    out.insert(peer.name());
                    cases[0].fail(peer.name(), format!("{error:#}"));
                }
            }
            let taken = taken.entry(peer.name()).or_default();
            *taken += begun.elapsed();
            // alike is what this is about.
            if peer.name() != ALIKE && bench.patience.is_some_and(|patience| *taken > patience) {
                out.insert(peer.name());
            }
        }
    }
    // Tables begin with alike.
    for case in cases {
        case.rows.sort_by_key(|row| row.peer != ALIKE);
    }
    Ok(())
}

/// The figures of one run, to watch it.
fn line(figures: &Figures) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (column, name) in [
        (Column::Seconds, "seconds"),
        (Column::Median, "median"),
        (Column::P99, "99 %"),
    ] {
        parts.extend(figures.get(column).map(|v| format!("{name} {v:.3}")));
    }
    for (column, name) in [
        (Column::Wire, "wire"),
        (Column::PeakFrom, "from's peak"),
        (Column::PeakTo, "to's peak"),
    ] {
        let mib = figures.get(column).map(|v| v / 1_048_576.0);
        parts.extend(mib.map(|v| format!("{name} {v:.2} MiB")));
    }
    parts.extend(figures.stopped.clone());
    parts.join(", ")
}
