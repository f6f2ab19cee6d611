//! `sync wait [FOLDER]`: returns when the folder is in sync with every connected peer. The engine decides that.

use std::sync::mpsc;
use std::time::Duration;

use alike_sync::control::{self, Request, Waited};

use crate::args::Wait;
use crate::context::Context;
use crate::{Exit, render};

/// How much longer than asked an engine may take to say that the time is over.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn run(context: &Context, args: Wait) -> anyhow::Result<Exit> {
    let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Wait {
        folder: context.folder(args.folder),
        timeout_ms,
    };
    let home = context.home.clone();
    let (send, answer) = mpsc::channel();
    std::thread::spawn(move || send.send(control::ask::<Waited>(&home, &request)));
    let Ok(answer) = answer.recv_timeout(args.timeout.saturating_add(GRACE)) else {
        render::error("the time is over, and the engine does not answer: see engine.log, or `sync stop` it");
        return Ok(Exit::Timeout);
    };
    render::line(&format!("in sync: {}", render::text(&answer?.root)))?;
    Ok(Exit::Done)
}
