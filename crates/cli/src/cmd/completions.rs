//! `sync completions SHELL`: the completion script. Never installs it.

use crate::args::Completions;
use crate::{Exit, args, render};

pub(crate) fn run(asked: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut args::command(), "sync", &mut script);
    render::out(script)?;
    Ok(Exit::Done)
}
