//! `sync pause` and `sync resume`, for a folder or a device. Which of the two a name means, the engine says.

use alike_sync::control::{self, Named, Request};

use crate::args::Target;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn pause(context: &Context, args: Target) -> anyhow::Result<Exit> {
    let target = context.folder(args.target);
    tell("paused", control::ask(&context.home, &Request::Pause { target })?)
}

pub(crate) fn resume(context: &Context, args: Target) -> anyhow::Result<Exit> {
    let target = context.folder(args.target);
    tell(
        "resumed",
        control::ask(&context.home, &Request::Resume { target })?,
    )
}

fn tell(done: &str, named: Named) -> anyhow::Result<Exit> {
    render::line(&format!(
        "{done}: {} {}",
        render::text(&named.kind),
        render::text(&named.name)
    ))?;
    Ok(Exit::Done)
}
