//! `sync tickets`: the tickets that can still be used. Never shows a ticket's secret.

use std::time::SystemTime;

use alike_sync::control::{self, Request, TicketInfo};

use crate::args::List;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: &List) -> anyhow::Result<Exit> {
    let tickets: Vec<TicketInfo> = control::ask(&context.home, &Request::Tickets)?;
    if args.json {
        render::json(&tickets)?;
    } else if tickets.is_empty() {
        render::line("no tickets: `sync share DIR` makes one")?;
    } else {
        let now = SystemTime::now();
        let row = |ticket: &TicketInfo| {
            let uses = render::things(ticket.uses_left.into(), "use left", "uses left");
            let ends = format!("expires {}", render::moment(&ticket.expires, now));
            let access = render::text(&ticket.access);
            vec![
                render::text(&ticket.id),
                render::text(&ticket.folder),
                access,
                uses,
                ends,
            ]
        };
        render::out(render::table(&tickets.iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(Exit::Done)
}
