//! `sync wait`: everything saved before is committed, nothing is left to do, and every connected peer has the
//! same root on its disk. Never polls: it is looked at whenever something changes.

use std::collections::HashSet;
use std::time::Duration;

use alike_core::ids::FolderId;
use alike_core::message::Message;
use alike_store::FolderKey;
use iroh::EndpointId;
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
    /// Peers that have not said yet that they looked at their disk.
    peers: HashSet<EndpointId>,
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
        let peers: Vec<EndpointId> = match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder
                .sessions
                .iter()
                .filter(|(_, s)| s.takes_part())
                .map(|(d, _)| *d)
                .collect(),
            _ => Vec::new(),
        };
        self.waits.push(Waiter {
            id,
            folder: key,
            deadline,
            flushed: false,
            peers: peers.iter().copied().collect(),
            responder,
        });
        for device in peers {
            self.ask_to_flush(key, device);
        }
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

    /// Asks a peer to look at its disk, for every wait that has not heard from it. Also when its connection is a
    /// new one: what was asked on the old one may be lost.
    pub(super) fn ask_to_flush(&self, key: FolderKey, device: EndpointId) {
        let Some(slot) = self.folders.get(&key) else {
            return;
        };
        let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) else {
            return;
        };
        for waiter in self
            .waits
            .iter()
            .filter(|w| w.folder == key && w.peers.contains(&device))
        {
            let folder = slot.row().id;
            link.send(Message::Flush {
                folder,
                wait: waiter.id,
            });
        }
    }

    /// A peer waits for a folder: what was saved here before counts for it too.
    pub(super) fn flush_for(&mut self, folder: FolderId, device: EndpointId, wait: u64) {
        let takes_part = self.folders_of(device);
        let key = takes_part
            .into_iter()
            .find(|key| self.folders[key].row().id == folder);
        let Some((key, Slot::Open(open))) = key.and_then(|key| Some((key, self.folders.get(&key)?))) else {
            return;
        };
        let (reply, done) = oneshot::channel();
        let _ = open.scanner.input.send(ScanInput::Barrier(reply));
        let events = self.events.clone();
        tokio::spawn(async move {
            if done.await.is_ok() {
                let _ = events
                    .send(Event::FlushedFor {
                        folder: key,
                        device,
                        wait,
                    })
                    .await;
            }
        });
    }

    pub(super) fn flushed_for(&mut self, key: FolderKey, device: EndpointId, wait: u64) {
        // First the state, then the word that it is all there is.
        self.announce(key);
        let Some(slot) = self.folders.get(&key) else {
            return;
        };
        if let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) {
            link.send(Message::Flushed {
                folder: slot.row().id,
                wait,
            });
        }
    }

    pub(super) fn peer_flushed(&mut self, folder: FolderId, device: EndpointId, wait: u64) {
        let folders = &self.folders;
        let waiter = self.waits.iter_mut().find(|w| w.id == wait);
        if let Some(waiter) = waiter.filter(|w| folders.get(&w.folder).is_some_and(|s| s.row().id == folder))
        {
            waiter.peers.remove(&device);
        }
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
                None if waiter.flushed && self.all_looked(&waiter) => {
                    let row = self.folders[&waiter.folder].row().name.clone();
                    let root = self.root_of(waiter.folder);
                    waiter.responder.done(&Waited { root, folder: row });
                    continue;
                }
                None => "changes are still being looked at".to_owned(),
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

    /// Have all peers that are still connected looked at their disks since the wait began?
    fn all_looked(&self, waiter: &Waiter) -> bool {
        let Some(Slot::Open(folder)) = self.folders.get(&waiter.folder) else {
            return false;
        };
        !waiter
            .peers
            .iter()
            .any(|d| folder.sessions.get(d).is_some_and(|s| s.takes_part()))
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
        let broken = view.broken.as_ref().map(|broken| &broken.reason);
        let full = view.store_full.as_ref().or(view.disk_full.as_ref());
        if let Some(reason) = broken.or(view.frozen.as_ref()).or(full) {
            return Some(reason.clone());
        }
        if let Some(held) = view.held.first() {
            let what = self.held_words(held);
            return Some(format!(
                "{what}; `sync accept` lets it through, `sync reject` puts them back"
            ));
        }
        let activity = folder.activity();
        if activity.scanning || activity.dirty || !activity.complete || view.unlooked {
            return Some("changes on this device are still being looked at".into());
        }
        if view.pending_files > 0 {
            let count = match view.pending_files {
                1 => "1 path is".to_owned(),
                n => format!("{n} paths are"),
            };
            // The first thing that is the matter is often the only one.
            let problem = view.problems.first_key_value();
            let why = problem.map_or_else(String::new, |(path, problem)| {
                format!(" ({path}: {})", problem.reason)
            });
            return Some(format!("{count} still to be fetched and applied here{why}"));
        }
        let connected: Vec<_> = folder.sessions.iter().filter(|(_, s)| s.takes_part()).collect();
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
            _ => {
                let trouble = view.troubles.first();
                let why = trouble.map_or_else(String::new, |problem| format!(" ({})", problem.reason));
                format!("{name} does not have the same root yet{why}")
            }
        })
    }
}
