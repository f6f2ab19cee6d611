//! `sync diff`: what differs between two generations. Never changes anything.

use alike_sync::control::{self, DiffEntry, PastRequest, Request};

use crate::args::Diff;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Diff) -> anyhow::Result<Exit> {
    let request = PastRequest::Diff {
        folder: context.folder(args.folder),
        from: args.from,
        to: args.to,
    };
    let list: Vec<DiffEntry> = control::ask(&context.home, &Request::Past(request))?;
    render::json(&list)?;
    Ok(Exit::Done)
}
