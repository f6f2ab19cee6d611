//! `sync resolve PATH --keep original|copy|both`: settles one conflict copy. The engine finds it and does it.

use alike_sync::control::{self, Request, Resolved};

use crate::args::{Keep, Resolve};
use crate::context::{Context, real_path};
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: &Resolve) -> anyhow::Result<Exit> {
    let keep = match args.keep {
        Keep::Original => control::Keep::Original,
        Keep::Copy => control::Keep::Copy,
        Keep::Both => control::Keep::Both,
    };
    let path = real_path(&args.path);
    let done: Resolved = control::ask(&context.home, &Request::Resolve { path, keep })?;
    let (copy, original) = (render::json_name(&done.copy), render::json_name(&done.original));
    render::line(&match args.keep {
        Keep::Original => format!("resolved: {original} stays, {copy} goes (kept in .alike/objects)"),
        Keep::Copy => {
            format!("resolved: {original} has the copy's content now; what it was is kept in .alike/objects")
        }
        Keep::Both => format!("resolved: {original} and {copy} both stay, as files like any others"),
    })?;
    Ok(Exit::Done)
}
