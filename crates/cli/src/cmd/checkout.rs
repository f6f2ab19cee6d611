//! `sync checkout`: writes a generation into a new directory. The engine does it.

use alike_sync::control::{CheckedOut, PastRequest};

use crate::args::Checkout;
use crate::context::{self, Context};
use crate::{Exit, progress, render};

pub(crate) fn run(context: &Context, args: Checkout) -> anyhow::Result<Exit> {
    let json = args.json;
    let request = PastRequest::Checkout {
        folder: context.folder(args.folder),
        generation: args.generation,
        dir: context::future_dir(&args.dir)?,
    };
    let done: CheckedOut = progress::ask(context, request)?;
    if json {
        render::json(&done)?;
    } else {
        let files = render::things(done.files, "file", "files");
        render::line(&format!(
            "generation {}: {files}, {}, root {}",
            done.generation,
            render::size(done.bytes),
            done.root
        ))?;
    }
    Ok(render::missing(&done.missing, "is not written"))
}
