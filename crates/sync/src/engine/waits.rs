//! `sync wait`: everything saved before is committed, nothing is left to do, and every connected peer has the
//! same root on its disk. Never polls: it is looked at whenever something changes.

use std::time::Duration;

use alike_store::FolderKey;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::folders::Slot;
use super::socket::Responder;
use super::{Engine, Event};
use crate::control::Waited;
use crate::folder::scanner::ScanInput;

/// A command that waits.
pub(super) struct Waiter {
    id: u64,
    folder: FolderKey,
    pub(super) deadline: Instant,
    flushed: bool,
    pub(super) responder: Responder,
}

impl Engine {
    pub(super) fn wait(&mut self, key: FolderKey, timeout_ms: u64, responder: Responder) {
        self.next_wait += 1;
        let id = self.next_wait;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.min(7 * 24 * 3600 * 1000));
        if let Some(Slot::Open(folder)) = self.folders.get(&key) {
            let (reply, done) = oneshot::channel();
            let _ = folder.scanner.input.send(ScanInput::Barrier(reply));
            let events = self.events.clone();
            tokio::spawn(async move {
                if done.await.is_ok() {
                    let _ = events.send(Event::Flushed { wait: id }).await;
                }
            });
        }
        self.waits.push(Waiter {
            id,
            folder: key,
            deadline,
            flushed: false,
            responder,
        });
    }

    pub(super) fn flushed(&mut self, wait: u64) {
        let Some(waiter) = self.waits.iter_mut().find(|w| w.id == wait) else {
            return;
        };
        waiter.flushed = true;
        // What the barrier committed is in the view; the sessions must know it before they are asked.
        let key = waiter.folder;
        self.announce(key);
    }

    /// Ends every wait whose condition holds or whose time is up.
    pub(super) fn check_waits(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waits) {
            if waiter.responder.is_gone() {
                continue;
            }
            let reason = match self.not_in_sync(waiter.folder) {
                None if waiter.flushed => {
                    let row = self.folders[&waiter.folder].row().name.clone();
                    let root = self.root_of(waiter.folder);
                    waiter.responder.done(&Waited { root, folder: row });
                    continue;
                }
                None => "changes on this device are still being looked at".to_owned(),
                Some(reason) => reason,
            };
            if waiter.deadline <= now {
                waiter
                    .responder
                    .failed(format!("not in sync in time: {reason}"), true);
            } else {
                self.waits.push(waiter);
            }
        }
    }

    /// Why the folder is not in sync with every connected peer; `None` if it is.
    fn not_in_sync(&self, key: FolderKey) -> Option<String> {
        let folder = match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder,
            Some(Slot::Closed(closed)) => return Some(closed.reason.clone()),
            None => return Some("the folder is no longer synced".into()),
        };
        if folder.row.paused {
            return Some("the folder is paused; `sync resume` lets it go on".into());
        }
        let view = folder.thread.view.borrow();
        if let Some(reason) = view.broken.as_ref().or(view.frozen.as_ref()) {
            return Some(reason.clone());
        }
        let activity = folder.activity();
        if activity.scanning || activity.dirty || !activity.complete {
            return Some("changes on this device are still being looked at".into());
        }
        if view.pending_files > 0 {
            return Some(format!(
                "{} paths are still to be fetched and applied here",
                view.pending_files
            ));
        }
        let connected: Vec<_> = folder.sessions.iter().filter(|(_, s)| s.is_connected()).collect();
        if connected.is_empty() {
            return Some("no device of this folder is connected".into());
        }
        let behind = connected.into_iter().find(|(_, s)| !s.in_sync())?;
        let name = self
            .devices
            .get(behind.0)
            .map_or_else(String::new, |d| d.row.name.clone());
        Some(match behind.1.theirs() {
            Some(theirs) if theirs.pending_files > 0 => {
                format!(
                    "{name} still has {} paths to fetch and apply",
                    theirs.pending_files
                )
            }
            _ => format!("{name} does not have the same root yet"),
        })
    }
}
