//! `sync restore`: makes a folder, or some paths, what it was. The engine does it.

use alike_sync::control::{self, PastRequest, Request, Restored};

use crate::args::Restore;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Restore) -> anyhow::Result<Exit> {
    let json = args.json;
    let request = PastRequest::Restore {
        folder: context.folder(args.folder),
        generation: args.generation,
        paths: args.paths,
    };
    let done: Restored = control::ask(&context.home, &Request::Past(request))?;
    if json {
        render::json(&done)?;
    } else {
        let changed = render::things(done.changed, "path", "paths");
        let removed = render::things(done.removed, "went", "went");
        render::line(&match (done.changed, done.removed) {
            (0, 0) => format!(
                "{} is as it was in generation {} already",
                render::text(&done.folder),
                done.generation
            ),
            _ => format!(
                "{}: {changed} came back as in generation {}, {removed}; `sync wait` returns when it is so on all devices",
                render::text(&done.folder),
                done.generation
            ),
        })?;
    }
    Ok(render::missing(&done.missing, "stays as it is"))
}
