//! `cargo xtask sim`: many histories of simulated machines, or one of them again. Never simulates anything itself;
//! the tests of `crates/sync` do (docs/testing.md).

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// Minutes that a run without `--seed` takes, if nothing else is said.
const MINUTES: &str = "1";

/// Runs `args`: `--seed N` alone repeats that history, with `--minutes M` begins there.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut seed, mut minutes, mut devices) = (None, None, None);
    let mut rest = args.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("{flag} needs a number"))?;
        ensure!(value.parse::<u64>().is_ok(), "{flag} needs a number, not {value}");
        match *flag {
            "--seed" => seed = Some(*value),
            "--minutes" => minutes = Some(*value),
            "--devices" => devices = Some(*value),
            other => bail!("unknown option {other}: there are --seed, --minutes and --devices"),
        }
    }
    if seed.is_none() {
        minutes = minutes.or(Some(MINUTES));
    }
    let test = "sim::run::many_histories_end_well";
    let mut command = cargo(&[
        "test",
        "--workspace",
        "--lib",
        "--quiet",
        test,
        "--",
        "--nocapture",
    ]);
    for (key, value) in [
        ("ALIKE_SIM_SEED", seed),
        ("ALIKE_SIM_MINUTES", minutes),
        ("ALIKE_SIM_DEVICES", devices),
    ] {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.env("RUST_BACKTRACE", "0");
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "a history failed");
    Ok(())
}
