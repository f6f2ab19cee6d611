//! `sync pin` and `sync unpin`: keep a generation from gc, or not any more.

use alike_sync::control::{self, PastRequest, Pinned, Request};

use crate::args::Pin;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Pin, keep: bool) -> anyhow::Result<Exit> {
    let request = PastRequest::Pin {
        folder: context.folder(args.folder),
        generation: args.generation,
        keep,
    };
    let done: Pinned = control::ask(&context.home, &Request::Past(request))?;
    let what = if keep {
        "is kept"
    } else {
        "is not kept any more than others"
    };
    render::line(&format!(
        "generation {} of {} {what}",
        done.generation,
        render::text(&done.folder)
    ))?;
    Ok(Exit::Done)
}
