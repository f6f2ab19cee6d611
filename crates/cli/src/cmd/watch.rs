//! `sync watch [DIR]`: runs the engine in the foreground and prints its events, as a client of its own socket.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use alike_sync::control::{self, Event, Request, Tracked};
use anyhow::bail;
use serde_json::Value;

use crate::args::Watch;
use crate::context::{Context, existing_dir};
use crate::foreground::{self, Hangup, Stopper};
use crate::{Exit, background, render};

/// How long to wait for a first event before DIR is tracked, so that the events of tracking it are seen too.
const SUBSCRIBE_LIMIT: Duration = Duration::from_millis(300);

/// How long the last events may take to be printed after the engine has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &Context, args: &Watch) -> anyhow::Result<Exit> {
    let dir = args.dir.as_deref().map(existing_dir).transpose()?;
    let home = context.home.clone();
    if let Some(engine) = background::running(&home)? {
        bail!(
            "an engine already runs (process {}) for {}: see `sync status`, or end it with `sync stop` first",
            engine.pid,
            render::path(&home)
        );
    }
    let config = context.config()?;
    foreground::log(&config, "warn")?;
    background::make_home(&home)?;
    let (send, outcome) = mpsc::channel();
    let json = args.json;
    foreground::run(config, Hangup::Ends, move |stopper| {
        let _ = send.send(attend(&home, dir, json, &stopper));
    })?;
    // Nothing comes if the engine was stopped before it was ready.
    outcome.recv_timeout(DRAIN_LIMIT).unwrap_or(Ok(()))?;
    Ok(Exit::Done)
}

/// Prints events until the engine ends. Ends it if DIR cannot be tracked, or if nobody reads the events.
fn attend(home: &Path, dir: Option<PathBuf>, json: bool, stopper: &Stopper) -> anyhow::Result<()> {
    let (subscribed, is_subscribed) = mpsc::channel();
    std::thread::scope(|scope| {
        let events = scope.spawn(move || print_events(home, json, &subscribed, stopper));
        let mut tracked = Ok(());
        if let Some(dir) = dir {
            let _ = is_subscribed.recv_timeout(SUBSCRIBE_LIMIT);
            let request = Request::Track { dir, name: None };
            tracked = control::ask::<Tracked>(home, &request).map(drop);
            if tracked.is_err() {
                stopper.stop();
            }
        }
        let printed = events.join().expect("printing does not panic");
        tracked.map_err(anyhow::Error::from).and(printed)
    })
}

fn print_events(
    home: &Path,
    json: bool,
    subscribed: &mpsc::Sender<()>,
    stopper: &Stopper,
) -> anyhow::Result<()> {
    let mut printed = Ok(());
    let ended = control::call(home, &Request::Events, |value| {
        let _ = subscribed.send(());
        printed = print_event(value, json);
        printed.is_ok()
    });
    if printed.is_err() {
        stopper.stop();
    }
    // That the connection ends is how the engine's end looks from here.
    if let Err(error) = ended {
        tracing::debug!("no more events: {error}");
    }
    printed
}

fn print_event(value: Value, json: bool) -> anyhow::Result<()> {
    match serde_json::from_value::<Event>(value.clone()) {
        Ok(event) if json => render::json_line(&event),
        Ok(event) => render::line(&event_line(&event)),
        Err(_) if json => render::json_line(&value),
        Err(_) => render::line(&render::text(&value.to_string())),
    }
}

fn event_line(event: &Event) -> String {
    let mut line = format!("{} {:<12}", render::text(&event.time), render::text(&event.event));
    if let Some(folder) = &event.folder {
        line.push_str(&format!(" {}:", render::text(folder)));
    }
    line.push_str(&format!(" {}", render::text(&event.message)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let event = Event {
            time: "2026-01-01T00:00:00.000Z".into(),
            event: "received".into(),
            folder: Some("docs".into()),
            device: Some("desktop".into()),
            message: "a\nb\x1b[2J".into(),
        };
        assert_eq!(
            event_line(&event),
            "2026-01-01T00:00:00.000Z received     docs: a\\nb\\x1b[2J"
        );
    }
}
