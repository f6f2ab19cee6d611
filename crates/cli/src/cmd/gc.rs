//! `sync gc`: frees what no kept generation needs. The engine does it.

use alike_sync::control::{self, Collected, PastRequest, Request};

use crate::args::Gc;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Gc) -> anyhow::Result<Exit> {
    let (json, dry_run) = (args.json, args.dry_run);
    let request = PastRequest::Gc {
        folder: context.folder(args.folder),
        keep: args.keep,
        older_than_secs: args.older_than.map(|time| time.as_secs()),
        dry_run: args.dry_run,
    };
    let done: Collected = control::ask(&context.home, &Request::Past(request))?;
    if json {
        render::json(&done)?;
        return Ok(Exit::Done);
    }
    let freed = render::size(done.freed_bytes);
    let gone = render::things(done.removed_generations, "generation", "generations");
    let kept = render::things(done.kept_generations, "generation", "generations");
    render::line(&if dry_run {
        format!("would let go of {gone} and keep {kept}; that would free about {freed}")
    } else {
        format!("let go of {gone}, kept {kept}; {freed} are free again")
    })?;
    Ok(Exit::Done)
}
