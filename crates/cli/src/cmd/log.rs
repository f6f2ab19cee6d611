//! `sync log`: a folder's generations, or the versions of one path. Never changes anything.

use alike_sync::control::{self, LogEntry, PastRequest, Request};

use crate::args::Log;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Log) -> anyhow::Result<Exit> {
    let request = PastRequest::Log {
        folder: context.folder(args.folder),
        limit: args.limit,
        path: args.path,
    };
    let list: Vec<LogEntry> = control::ask(&context.home, &Request::Past(request))?;
    render::json(&list)?;
    Ok(Exit::Done)
}
