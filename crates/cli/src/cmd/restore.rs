//! `sync restore`: makes a folder, or some paths, what it was. The engine does it.

use alike_sync::control::{self, PastRequest, Request, Restored};

use crate::args::Restore;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Restore) -> anyhow::Result<Exit> {
    let request = PastRequest::Restore {
        folder: context.folder(args.folder),
        generation: args.generation,
        paths: args.paths,
    };
    let done: Restored = control::ask(&context.home, &Request::Past(request))?;
    render::json(&done)?;
    Ok(Exit::Done)
}
