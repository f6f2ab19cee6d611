//! A network namespace of the benchmark's own, so that the loopback counters count nothing but the work. Needs root,
//! `unshare` and `ip`; without them the machine's loopback is used, and the page says so.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Options;

/// Set for the process that is inside.
const MARK: &str = "ALIKE_BENCH_NET";

pub(super) fn inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Can a namespace be made, and its loopback be switched on?
pub(super) fn possible() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "ip", "link", "set", "lo", "up"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs this program again, inside.
pub(super) fn enter(options: &Options) -> Result<()> {
    let mut command = Command::new("unshare");
    command.arg("--net").arg("--").arg(std::env::current_exe()?);
    command.arg("bench").args(options.to_args()).env(MARK, "1");
    let status = command.status().context("unshare")?;
    ensure!(status.success(), "see above ({status})");
    Ok(())
}

/// Switches the loopback on, if it is our own.
pub(super) fn set_up() -> Result<()> {
    if inside() {
        let status = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        ensure!(status.success(), "ip link set lo up: {status}");
    }
    Ok(())
}
