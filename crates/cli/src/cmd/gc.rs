//! `sync gc`: frees what no kept generation needs. The engine does it.

use alike_sync::control::{self, Collected, PastRequest, Request};

use crate::args::Gc;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Gc) -> anyhow::Result<Exit> {
    let request = PastRequest::Gc {
        folder: context.folder(args.folder),
        keep: args.keep,
        older_than_secs: args.older_than.map(|time| time.as_secs()),
        dry_run: args.dry_run,
    };
    let done: Collected = control::ask(&context.home, &Request::Past(request))?;
    render::json(&done)?;
    Ok(Exit::Done)
}
