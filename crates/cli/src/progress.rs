//! Asking the engine for what may take a while: on a terminal it is said how far it is. Never asks twice.

use std::time::Duration;

use alike_sync::control::{self, PastProgress, PastRequest, Request};
use indicatif::ProgressBar;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::render;

/// The spinner's turn.
const TICK: Duration = Duration::from_millis(100);

/// The answer to a request that tells of its progress.
pub(crate) fn ask<T: DeserializeOwned>(context: &Context, request: PastRequest) -> anyhow::Result<T> {
    let bar = render::stderr_is_terminal().then(ProgressBar::new_spinner);
    if let Some(bar) = &bar {
        bar.enable_steady_tick(TICK);
    }
    let answer = control::call(&context.home, &Request::Past(request), |value| {
        if let (Some(bar), Ok(so_far)) = (&bar, serde_json::from_value::<PastProgress>(value)) {
            bar.set_message(if so_far.files > 0 {
                format!("{} written", render::things(so_far.files, "file", "files"))
            } else {
                format!("{} fetched", render::size(so_far.fetched))
            });
        }
        true
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(serde_json::from_value(answer?)?)
}
