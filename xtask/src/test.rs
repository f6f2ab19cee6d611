//! `cargo xtask test`: everything that must hold before a commit, in order, up to the first failure.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{cargo, target_dir, tidy};

/// The black-box tests mostly wait for processes: two for each core keep a small machine busy.
const TEST_THREADS: &str = "4";

/// Runs all steps.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    step("cargo fmt --check", || {
        exec(&mut cargo(&["fmt", "--all", "--check"]))
    })?;
    step("cargo clippy", || {
        exec(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("tidy", tidy::run)?;
    // All targets at once: one set of features, so that the tests below find everything built.
    step("cargo build: the sync binary and the tests", || {
        exec(&mut cargo(&["build", "--workspace", "--all-targets"]))
    })?;
    step("cargo test", || {
        let mut test = cargo(&["test", "--workspace"]);
        test.env("ALIKE_TEST_BIN", target_dir()?.join("debug/sync"));
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            test.env("RUST_TEST_THREADS", TEST_THREADS);
        }
        exec(&mut test)
    })?;
    println!("==> everything passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("==> {name}");
    let start = Instant::now();
    let result = run().with_context(|| format!("step failed: {name}"));
    let word = if result.is_ok() { "ok" } else { "failed" };
    println!("    {name}: {word} after {:.1} s", start.elapsed().as_secs_f64());
    result
}

fn exec(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}
