//! `sync revoke TICKET-ID`: makes a ticket useless. Never touches devices that already used it.

use alike_sync::control::{self, Named, Request};

use crate::args::Revoke;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Revoke) -> anyhow::Result<Exit> {
    let done: Named = control::ask(&context.home, &Request::Revoke { ticket: args.ticket })?;
    render::line(&format!("revoked: ticket {}", render::text(&done.name)))?;
    Ok(Exit::Done)
}
