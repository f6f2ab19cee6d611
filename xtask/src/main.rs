//! The project's tasks, one file each: picks one by its name. Never names a crate of the project.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod bench;
mod demo;
mod device;
mod history;
mod sim;
mod soak;
mod test;
mod tidy;

const USAGE: &str = "\
Usage: cargo xtask TASK

  test   format, clippy, tidy, and all tests (unit, property, black-box)
  readers
         the tests that read while another device overwrites, with 10,000 overwrites and 50 kills
  tidy   the walls between the crates and the rules of the house
  demo   two devices on this machine, started, synced, shown and removed
  bench [WORKLOAD...] [--list] [--quick] [--runs N] [--tree DIR] [--peers NAME,...] [--limit SECONDS]
        [--patience SECONDS] [--bin FILE] [--stream FILE] [--place DIR] [--out DIR]
         the same work through alike, rsync, Unison, Syncthing and tar over loopback, in turn; docs/benchmarks.md
  sim [--seed N] [--minutes M] [--devices K]
         simulated machines, from seed N on for M minutes; --seed alone repeats one history
  soak [--minutes M] [--seed N] [--devices D]
         users, crashes and cut cables at random for half an hour; nothing may be lost
  history [--rounds N] [--changes N] [--files N] [--seed N] [--tree DIR] [--bin FILE] [--place DIR]
         edits, renames and removals from two sides; then each round's generation is written out again and compared
  ci     what continuous integration runs: the same as test";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test" | "ci"] => test::run(),
        ["readers"] => test::readers(),
        ["tidy"] => tidy::run(),
        ["demo"] => demo::run(),
        ["sim", ref rest @ ..] => sim::run(rest),
        ["bench", ref options @ ..] if bench::Options::parse(options).is_some() => {
            bench::run(bench::Options::parse(options).expect("just parsed"))
        }
        ["soak", ref options @ ..] if soak::Options::parse(options).is_some() => {
            soak::run(soak::Options::parse(options).expect("just parsed"))
        }
        ["history", ref options @ ..] if history::Options::parse(options).is_some() => {
            history::run(history::Options::parse(options).expect("just parsed"))
        }
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            if !args.is_empty() {
                eprintln!("unknown task: {}\n", args.join(" "));
            }
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The directory that holds the workspace's `Cargo.toml`.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the workspace")
        .to_path_buf()
}

/// Cargo, run in the workspace as a person would: without the variables that `cargo run` set for us, which
/// would make build scripts run again.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let is_ours = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix));
        if is_ours {
            command.env_remove(&key);
        }
    }
    command
}

/// Where `cargo` puts what it builds.
fn target_dir() -> anyhow::Result<PathBuf> {
    let metadata = metadata()?;
    let dir = metadata["target_directory"].as_str();
    Ok(dir
        .ok_or_else(|| anyhow::anyhow!("`cargo metadata` names no target directory"))?
        .into())
}

/// The workspace's packages as cargo sees them.
fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"]).output()?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}
