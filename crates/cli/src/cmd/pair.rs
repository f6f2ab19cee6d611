//! `sync pair TICKET [DIR]`: pairs, and on a terminal shows the first sync. The sync is the engine's work and goes
//! on without us.

use std::ops::ControlFlow;
use std::time::Duration;

use alike_sync::control::{self, ClientError, Paired, Request};
use alike_sync::status::{FolderState, FolderStatus, Pending, StatusReport};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Pair;
use crate::context::{Context, future_dir, working_dir};
use crate::{Exit, background, render};

/// How often the bar redraws its rate and ETA by itself.
const TICK: Duration = Duration::from_millis(200);

pub(crate) fn run(context: &Context, args: Pair) -> anyhow::Result<Exit> {
    let dir = args.dir.as_deref().map(future_dir).transpose()?;
    background::ensure(context)?;
    let ticket = args.ticket.trim().to_owned();
    let request = Request::Pair {
        ticket,
        dir,
        default_parent: working_dir(),
    };
    let paired: Paired = control::ask(&context.home, &request)?;
    if args.json {
        render::json(&paired)?;
        return Ok(Exit::Done);
    }
    let (device, folder) = (render::text(&paired.device_name), &paired.folder);
    let at = render::path(&folder.path);
    render::line(&format!(
        "paired with {device}: {} at {at}",
        render::text(&folder.name)
    ))?;
    if render::stderr_is_terminal() {
        show_first_sync(context, &paired)?;
    }
    Ok(Exit::Done)
}

/// Follows the first sync until both sides are equal, something stops it, or Ctrl-C.
fn show_first_sync(context: &Context, paired: &Paired) -> anyhow::Result<()> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(
        "{spinner} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}  {msg}",
    );
    bar.set_style(style.expect("a fixed template"));
    bar.enable_steady_tick(TICK);
    leave_on_interrupt(bar.clone())?;
    let mut sync = FirstSync::new(paired);
    let mut end = None;
    let followed = control::call(&context.home, &Request::WatchStatus, |value| {
        let Ok(report) = serde_json::from_value::<StatusReport>(value) else {
            return true;
        };
        match sync.step(&report) {
            ControlFlow::Continue(left) => {
                bar.set_length(sync.most.bytes);
                bar.set_position(sync.most.bytes - left.bytes);
                bar.set_message(sync.describe(left));
                true
            }
            ControlFlow::Break(message) => {
                end = Some(message);
                false
            }
        }
    });
    bar.finish_and_clear();
    match (end, followed) {
        (Some(message), _) => render::note(&message),
        // Pairing is done; that somebody stopped the engine is no failure of ours.
        (None, Ok(_) | Err(ClientError::Broken(_) | ClientError::NoEngine(_))) => {
            render::note("the engine has ended; syncing goes on when it runs again (`sync watch`)");
        }
        (None, Err(error)) => return Err(error.into()),
    }
    Ok(())
}

/// Ctrl-C means "enough of watching": pairing is done, so that is no failure.
fn leave_on_interrupt(bar: ProgressBar) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for Ctrl-C")?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            bar.finish_and_clear();
            render::note("syncing goes on in the background: see `sync status`");
            std::process::exit(crate::Exit::Done as i32);
        }
    });
    Ok(())
}

/// What is known of the first sync.
struct FirstSync {
    folder_id: String,
    device_id: String,
    device: String,
    /// The most that was ever left: the sync's size, as far as it is known.
    most: Pending,
    /// Is the device connected?
    connected: bool,
}

impl FirstSync {
    fn new(paired: &Paired) -> FirstSync {
        FirstSync {
            folder_id: paired.folder.folder_id.clone(),
            device_id: paired.device_id.clone(),
            device: render::text(&paired.device_name),
            most: Pending::default(),
            connected: false,
        }
    }

    /// Takes in a report: goes on with what is left, or breaks with the last words.
    fn step(&mut self, report: &StatusReport) -> ControlFlow<String, Pending> {
        let Some(folder) = report.folders.iter().find(|folder| folder.id == self.folder_id) else {
            return ControlFlow::Break("the folder is not tracked any more".into());
        };
        let left = folder.pending;
        self.most.files = self.most.files.max(left.files);
        self.most.bytes = self.most.bytes.max(left.bytes);
        self.connected = folder
            .peers
            .iter()
            .any(|peer| peer.id == self.device_id && peer.connected);
        match folder.state {
            FolderState::Paused | FolderState::Held | FolderState::Frozen | FolderState::Error => {
                let state = super::status::state_word(folder.state);
                ControlFlow::Break(format!(
                    "the first sync stopped: the folder is {state}, see `sync status`"
                ))
            }
            FolderState::Idle if left == Pending::default() && folder.peers.iter().any(|p| p.in_sync) => {
                ControlFlow::Break(done_words(folder))
            }
            FolderState::Idle | FolderState::Scanning | FolderState::Syncing => ControlFlow::Continue(left),
        }
    }

    fn describe(&self, left: Pending) -> String {
        match (self.connected, left.files) {
            (false, _) => format!("waiting for {}", self.device),
            (true, 0) => "comparing".into(),
            (true, files) => format!("{} left", render::things(files, "file", "files")),
        }
    }
}

fn done_words(folder: &FolderStatus) -> String {
    let problems = match folder.problems.len() as u64 {
        0 => String::new(),
        some => format!(
            "; {}: see `sync status`",
            render::things(some, "problem", "problems")
        ),
    };
    format!(
        "in sync: {}, {}{problems}",
        render::things(folder.files, "file", "files"),
        render::size(folder.bytes)
    )
}

#[cfg(test)]
mod tests {
    use alike_sync::control::Tracked;

    use super::*;
    use crate::cmd::status::tests::report;

    fn sync_of(report: &StatusReport) -> FirstSync {
        let folder = &report.folders[0];
        FirstSync::new(&Paired {
            folder: Tracked {
                folder_id: folder.id.clone(),
                name: folder.name.clone(),
                path: "/x".into(),
            },
            device_id: folder.peers[0].id.clone(),
            device_name: "desktop".into(),
            access: "read-write".into(),
        })
    }

    #[test]
    fn progress_is_measured_against_the_most_ever_left() {
        let mut now = report();
        let mut sync = sync_of(&now);
        for bytes in [100, 400, 300] {
            now.folders[0].state = FolderState::Syncing;
            now.folders[0].pending = Pending { files: 3, bytes };
            assert_eq!(
                sync.step(&now),
                ControlFlow::Continue(Pending { files: 3, bytes })
            );
        }
        assert_eq!(sync.most.bytes, 400);
        assert_eq!(sync.describe(Pending { files: 3, bytes: 300 }), "3 files left");
    }

    #[test]
    fn it_ends_when_idle_and_equal_and_not_before() {
        let mut now = report();
        let mut sync = sync_of(&now);
        (now.folders[0].state, now.folders[0].pending) = (FolderState::Idle, Pending::default());
        now.folders[0]
            .peers
            .iter_mut()
            .for_each(|peer| peer.in_sync = false);
        assert!(sync.step(&now).is_continue());
        now.folders[0].peers[0].in_sync = true;
        assert!(matches!(sync.step(&now), ControlFlow::Break(words) if words.starts_with("in sync: ")));
    }

    #[test]
    fn it_ends_when_a_person_is_needed() {
        let mut now = report();
        let mut sync = sync_of(&now);
        now.folders[0].state = FolderState::Held;
        assert!(matches!(sync.step(&now), ControlFlow::Break(words) if words.contains("held")));
        now.folders.clear();
        assert!(sync.step(&now).is_break());
    }
}
