//! The parts by themselves, as criterion measures them in `benches`: shown as they are, compared with nobody.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::bench::results::{Case, Column, Figures, Section};
use crate::{cargo, target_dir};

const NANOSECOND: f64 = 1e-9;

pub(super) fn run(bench: &Bench) -> Result<Option<Section>> {
    let mut command = cargo(&[
        "bench",
        "-p",
        "alike-benches",
        "--features",
        "alike-benches/micro",
    ]);
    let out = target_dir()?.join("criterion");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    command.env("CRITERION_HOME", &out);
    if bench.quick {
        command.args(["--profile", "dev", "--", "--quick"]);
    }
    let status = command.status()?;
    ensure!(status.success(), "cargo bench: {status}");
    let mut case = Case::new("Medians");
    for file in estimates(&out)? {
        let text = fs::read_to_string(&file)?;
        let estimate: serde_json::Value = serde_json::from_str(&text)?;
        let nanoseconds = estimate["median"]["point_estimate"]
            .as_f64()
            .with_context(|| format!("a median in {}", file.display()))?;
        let name = file.parent().and_then(Path::parent).unwrap_or(&file);
        let name = name.strip_prefix(&out)?.to_string_lossy().replace('_', " ");
        let figures = Figures::only(&[(Column::Seconds, nanoseconds * NANOSECOND)]);
        case.add(&name, 1, figures);
    }
    let how = "Medians by criterion (`cargo bench -p alike-benches --features micro`).";
    Ok(Some(Section::new("The parts by themselves", how, vec![case])))
}

/// Criterion's newest estimates, sorted by name.
fn estimates(out: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![out.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.ends_with("new/estimates.json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
