//! `sync man [VERB]`: the manual page. Never opens a pager.

use anyhow::{Context as _, anyhow};

use crate::args::Man;
use crate::{Exit, args, render};

pub(crate) fn run(asked: &Man) -> anyhow::Result<Exit> {
    let mut command = args::command();
    // Also gives each verb its full name, `sync-share`.
    command.build();
    let command = match &asked.verb {
        None => command,
        Some(verb) => {
            let found = command.find_subcommand(verb);
            found
                .cloned()
                .ok_or_else(|| anyhow!("there is no verb `{verb}`: see `sync --help`"))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .context("cannot write the manual page")?;
    render::out(page)?;
    Ok(Exit::Done)
}
