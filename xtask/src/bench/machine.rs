//! Where it was measured and with what, in words for the page.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Bench, own_net};
use crate::root;

/// The machine, the versions, the settings.
pub(super) struct Machine(String);

impl Machine {
    /// Looks; what it does not find it leaves out. `built`: alike's binary is of this tree.
    pub(super) fn look(bench: &Bench, place: &Path, built: bool) -> Machine {
        let mut parts = vec![hardware(place)];
        let of = if built {
            commit()
        } else {
            " (a binary that was there)".to_owned()
        };
        parts.push(format!("alike {}{of}", version(bench)));
        parts.extend(bench.peers.iter().skip(1).map(|peer| peer.version()));
        parts.dedup();
        parts.push(if own_net::inside() {
            "loopback of a network namespace of its own".to_owned()
        } else {
            "the machine's loopback, shared with all else that uses it".to_owned()
        });
        let runs = match bench.runs {
            1 => "one run".to_owned(),
            n => format!("median of {n} runs, in turn"),
        };
        let quick = if bench.quick {
            ". **Small sizes to try the harness: these figures mean nothing**"
        } else {
            ""
        };
        Machine(format!("{}; {runs}{quick}.", parts.join(", ")))
    }

    /// One line.
    pub(super) fn line(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hardware(place: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_048_576;
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    let disk = Command::new("df").arg("--output=fstype").arg(place).output();
    let disk = disk.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    let disk = disk.lines().last().unwrap_or_default().trim().to_owned();
    format!("{cores} cores ({model}), {memory} GiB, {disk}, Linux {kernel}")
}

fn version(bench: &Bench) -> String {
    let output = Command::new(&bench.bin).arg("--version").output();
    let text = output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.split_whitespace().last().unwrap_or_default().to_owned()
}

/// Of the tree that this is built from.
fn commit() -> String {
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(root())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            format!(" at {}", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => String::new(),
    }
}
