//! The `sync` command: hands over to coreutils' `sync` where that was meant, otherwise parses, runs the verb and
//! turns the outcome into an exit code. Never decides anything about folders.

mod args;
mod background;
mod cmd;
mod context;
mod coreutils;
#[cfg(feature = "failpoints")]
mod failpoints;
mod foreground;
mod progress;
mod qr;
mod render;

use std::ffi::OsString;
use std::process::ExitCode;

use alike_sync::control::ClientError;

/// What the shell learns: part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It failed; a message on stderr says what, where and what to do.
    Failed = 1,
    /// It was asked for in a form that means nothing.
    Usage = 2,
    /// The wait ran out of time.
    Timeout = 3,
    /// Damage was found.
    Damage = 4,
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    if failpoints::listed() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let own = args.get(1..).unwrap_or_default();
    let verbs = args::verb_names();
    let is_verb = |name: &str| verbs.iter().any(|verb| verb == name);
    if coreutils::is_meant(own, is_verb, |path| path.symlink_metadata().is_ok()) {
        return ExitCode::from(coreutils::run(own));
    }
    let exit = match args::parse(&args) {
        Ok(asked) => cmd::run(asked).unwrap_or_else(report),
        Err(error) => {
            // A closed pipe is the reader's choice; there is nobody left to tell.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    };
    ExitCode::from(exit as u8)
}

/// Says what went wrong, and which exit code that is.
fn report(error: anyhow::Error) -> Exit {
    if error.is::<render::OutputClosed>() {
        return Exit::Done;
    }
    render::error(&format!("{error:#}"));
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Failed { timeout: true, .. }) => Exit::Timeout,
        _ => Exit::Failed,
    }
}
