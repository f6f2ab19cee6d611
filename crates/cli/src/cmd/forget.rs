//! `sync forget FOLDER`: stops tracking a folder. Never touches its files.

use alike_sync::control::{self, Named, Request};

use crate::args::Forget;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Forget) -> anyhow::Result<Exit> {
    let folder = context.folder(Some(args.folder));
    let done: Named = control::ask(&context.home, &Request::Forget { folder })?;
    render::line(&format!(
        "forgotten: {} (every file stays where it is)",
        render::text(&done.name)
    ))?;
    Ok(Exit::Done)
}
