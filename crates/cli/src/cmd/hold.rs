//! `sync accept` and `sync reject`: a person's answer to a held mass removal. What is held, the engine says.

use alike_sync::control::{self, Answered, Request};

use crate::args::WhichFolder;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn accept(context: &Context, args: WhichFolder) -> anyhow::Result<Exit> {
    let folder = context.folder(args.folder);
    tell(
        "accepted",
        control::ask(&context.home, &Request::Accept { folder })?,
    )
}

pub(crate) fn reject(context: &Context, args: WhichFolder) -> anyhow::Result<Exit> {
    let folder = context.folder(args.folder);
    tell(
        "rejected, the files are put back",
        control::ask(&context.home, &Request::Reject { folder })?,
    )
}

fn tell(done: &str, answered: Answered) -> anyhow::Result<Exit> {
    for held in &answered.held {
        render::line(&format!(
            "{}: {done}: {}",
            render::text(&answered.folder),
            render::text(held)
        ))?;
    }
    Ok(Exit::Done)
}
