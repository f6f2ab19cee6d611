//! `sync restore`: makes a folder, or some paths, what it was. The engine does it.

use alike_sync::control::{PastRequest, Restored};

use crate::args::Restore;
use crate::context::Context;
use crate::{Exit, progress, render};

pub(crate) fn run(context: &Context, args: Restore) -> anyhow::Result<Exit> {
    let json = args.json;
    let request = PastRequest::Restore {
        folder: context.folder(args.folder),
        generation: args.generation,
        paths: args.paths,
    };
    let done: Restored = progress::ask(context, request)?;
    if json {
        render::json(&done)?;
    } else {
        let folder = render::text(&done.folder);
        let then = done.generation;
        let changed = render::things(done.changed, "path is", "paths are");
        let removed = render::things(
            done.removed,
            "path that was not there goes",
            "paths that were not there go",
        );
        let what = match (done.changed, done.removed) {
            (0, 0) if done.missing.is_empty() => {
                return render::line(&format!("{folder} is as it was in generation {then} already"))
                    .map(|()| Exit::Done);
            }
            (0, 0) => format!("nothing of generation {then} can be brought back now"),
            (_, 0) => format!("{changed} as in generation {then}"),
            (0, _) => removed,
            _ => format!("{changed} as in generation {then}; {removed}"),
        };
        render::line(&format!("{folder}: {what}"))?;
        if done.changed + done.removed > 0 {
            render::note("`sync wait` returns when it is so on the disks of all connected devices");
        }
    }
    Ok(render::missing(&done.missing, "stays as it is"))
}
