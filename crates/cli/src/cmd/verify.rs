//! `sync verify`: reads everything again. The engine does it.

use alike_sync::control::{self, PastRequest, Request, Verified};

use crate::args::Verify;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Verify) -> anyhow::Result<Exit> {
    let request = PastRequest::Verify {
        folder: context.folder(args.folder),
        repair: args.repair,
    };
    let done: Verified = control::ask(&context.home, &Request::Past(request))?;
    render::json(&done)?;
    Ok(if done.damaged.len() > done.repaired.len() {
        Exit::Damage
    } else {
        Exit::Done
    })
}
