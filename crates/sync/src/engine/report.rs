//! What is told: the status, and the journal of events for `sync watch` and `sync status --watch`. Never
//! changes anything but what has been told.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use alike_store::FolderKey;
use tokio::time::Instant;

use super::Engine;
use super::folders::{OpenFolder, ROOT_GONE, Slot};
use super::pair::access;
use super::socket::Responder;
use crate::control::Event;
use crate::folder::{Counts, FolderView, HeldView, Problem};
use crate::status::{
    DeviceStatus, FolderState, FolderStatus, PeerStatus, Pending, ProblemStatus, StatusReport, json_text,
    rfc3339,
};

/// A watched status is sent at most this often.
const STATUS_EVERY: Duration = Duration::from_millis(200);
/// What to do about a held mass removal.
const HELD_HINT: &str = "`sync accept` lets it through, `sync reject` puts the files back";

/// Who listens, and what they have been told.
#[derive(Default)]
pub(super) struct Journal {
    listeners: Vec<Responder>,
    status_watchers: Vec<Responder>,
    status_due: Option<Instant>,
    status_last: Option<Instant>,
    told: HashMap<FolderKey, Told>,
}

/// What the journal last said of a folder.
#[derive(Clone, Default, PartialEq)]
struct Told {
    local: Counts,
    remote: Counts,
    pending: bool,
    conflicts: u64,
    problems: usize,
    troubles: Vec<String>,
    frozen: Option<String>,
    full: bool,
    held: Vec<HeldView>,
    in_sync: bool,
    scanned: bool,
}

impl Journal {
    pub(super) fn subscribe(&mut self, responder: Responder) {
        self.listeners.push(responder);
    }

    pub(super) fn watch_status(&mut self, responder: Responder) {
        self.status_watchers.push(responder);
    }

    /// When the next status is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.status_due.filter(|_| !self.status_watchers.is_empty())
    }

    /// One event to everybody who listens, and to the log.
    pub(super) fn say(
        &mut self,
        event: &str,
        folder: Option<String>,
        device: Option<String>,
        message: String,
    ) {
        tracing::info!(folder = folder.as_deref(), "{event}: {message}");
        self.listeners.retain(|l| !l.is_gone());
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = Event {
            time,
            event: event.to_owned(),
            folder,
            device,
            message,
        };
        self.listeners.iter().for_each(|l| l.event(&line));
    }
}

impl Engine {
    /// A folder's view or activity changed: its peers hear of it, its puller looks for work.
    pub(super) fn folder_changed(&mut self, key: FolderKey) {
        self.announce(key);
        if let Some(Slot::Open(folder)) = self.folders.get(&key)
            && let Some(broken) = &folder.thread.view.borrow().broken
        {
            self.reopen |= broken.reopen;
        }
        if let Some(Slot::Open(folder)) = self.folders.get(&key)
            && folder.thread.view.borrow().pending_files > 0
        {
            folder.puller.kick();
        }
        self.tell(key);
    }

    /// Puts into words what changed since the folder was last spoken of.
    fn tell(&mut self, key: FolderKey) {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        let view = folder.thread.view.borrow();
        let now = Told {
            local: view.local,
            remote: view.remote,
            pending: view.pending_files > 0,
            conflicts: view.head.summary.conflicts,
            problems: view.problems.len(),
            troubles: view
                .troubles
                .iter()
                .map(|problem| problem.reason.clone())
                .collect(),
            frozen: view.frozen.clone(),
            full: view.disk_full.is_some() || view.store_full.is_some(),
            held: view.held.clone(),
            in_sync: folder.sessions.values().any(|s| s.in_sync()) && view.pending_files == 0,
            scanned: folder.activity().complete && view.head.scanned,
        };
        let summary = view.head.summary;
        let full = view.store_full.clone().or_else(|| view.disk_full.clone());
        let newest_problem = view
            .problems
            .iter()
            .next_back()
            .map(|(p, problem)| format!("{p}: {}", problem.reason));
        drop(view);
        let name = Some(folder.row.name.clone());
        let before = self.journal.told.insert(key, now.clone()).unwrap_or_default();
        if before == now {
            return;
        }
        let newly_held: Vec<String> = now
            .held
            .iter()
            .filter(|held| !before.held.contains(held))
            .map(|held| self.held_words(held))
            .collect();
        let mut say = |event: &str, message: String| self.journal.say(event, name.clone(), None, message);
        if now.scanned && !before.scanned {
            say(
                "scanned",
                format!("{} files in {} directories", summary.files, summary.dirs),
            );
        }
        if let Some(text) = counted(before.local, now.local) {
            say("changed", format!("here: {text}"));
        }
        if let Some(text) = counted(before.remote, now.remote) {
            say("received", format!("from others: {text}"));
        }
        if now.conflicts > before.conflicts {
            say(
                "conflict",
                match now.conflicts {
                    1 => "1 conflict copy; `sync conflicts` lists it".into(),
                    n => format!("{n} conflict copies; `sync conflicts` lists them"),
                },
            );
        }
        if now.frozen != before.frozen {
            let text = now.frozen.clone().unwrap_or_else(|| "the folder is back".into());
            say("problem", text);
        }
        if now.full != before.full {
            say("problem", full.unwrap_or_else(|| "there is room again".into()));
        }
        for held in newly_held {
            say("held", format!("{held}; {HELD_HINT}"));
        }
        for trouble in now.troubles.iter().filter(|t| !before.troubles.contains(t)) {
            say("problem", trouble.clone());
        }
        if now.problems > before.problems {
            say("problem", newest_problem.unwrap_or_default());
        }
        if now.in_sync && (!before.in_sync || before.remote != now.remote || before.local != now.local) {
            say("in_sync", format!("root {}", summary.root));
        }
    }

    /// Sends the status to those who watch it, not more often than they can read.
    pub(super) fn report_changes(&mut self) {
        self.journal.status_watchers.retain(|w| !w.is_gone());
        if self.journal.status_watchers.is_empty() {
            self.journal.status_due = None;
            return;
        }
        let now = Instant::now();
        let due = *self.journal.status_due.get_or_insert_with(|| {
            self.journal
                .status_last
                .map_or(now, |last| (last + STATUS_EVERY).max(now))
        });
        if due <= now {
            self.journal.status_due = None;
            self.journal.status_last = Some(now);
            let status = self.status();
            self.journal.status_watchers.iter().for_each(|w| w.event(&status));
        }
    }

    /// 64 hex digits.
    pub(super) fn root_of(&self, key: FolderKey) -> String {
        match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder.thread.view.borrow().head.summary.root.to_hex(),
            _ => String::new(),
        }
    }

    /// Everything `sync status` shows.
    pub(super) fn status(&self) -> StatusReport {
        let device = DeviceStatus {
            id: self.endpoint.id().to_string(),
            name: self.config.name.clone(),
        };
        let mut folders: Vec<FolderStatus> = self
            .folders
            .values()
            .map(|slot| self.folder_status(slot))
            .collect();
        folders.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device,
            folders,
            packed_bytes: self.store.packs_bytes(),
            scrub: self.scrub_status(),
        }
    }

    fn folder_status(&self, slot: &Slot) -> FolderStatus {
        let row = slot.row();
        let mut status = FolderStatus {
            id: row.id.to_string(),
            name: row.name.clone(),
            path: json_text(row.path.as_os_str().as_bytes()),
            state: FolderState::Frozen,
            root: String::new(),
            generation: 0,
            files: 0,
            dirs: 0,
            bytes: 0,
            pending: Pending::default(),
            conflicts: 0,
            watching: false,
            problems: Vec::new(),
            received_bytes: 0,
            sent_bytes: 0,
            history_bytes: 0,
            peers: Vec::new(),
        };
        let folder = match slot {
            Slot::Open(folder) => folder,
            Slot::Closed(closed) => {
                status.problems.push(frozen_problem(&closed.reason, closed.hint));
                return status;
            }
        };
        let view = folder.thread.view.borrow();
        let summary = view.head.summary;
        status.state = state(folder, &view);
        status.root = summary.root.to_hex();
        status.generation = view.head.generation;
        (status.files, status.dirs, status.bytes) = (summary.files, summary.dirs, summary.bytes);
        status.pending = Pending {
            files: view.pending_files,
            bytes: folder.pending_bytes(&view),
        };
        status.conflicts = summary.conflicts;
        status.watching = view.watching && !folder.row.paused;
        status.received_bytes = folder.place.traffic.received.load(Ordering::Relaxed);
        status.sent_bytes = folder.place.traffic.sent.load(Ordering::Relaxed);
        status.history_bytes = folder.place.history_bytes();
        let frozen = view.frozen.as_deref();
        status
            .problems
            .extend(frozen.map(|reason| frozen_problem(reason, ROOT_GONE)));
        status.problems.extend(view.held.iter().map(|held| ProblemStatus {
            path: json_text(b""),
            reason: self.held_words(held),
            hint: HELD_HINT.into(),
        }));
        status
            .problems
            .extend(view.broken.as_ref().map(|broken| ProblemStatus {
                path: json_text(b""),
                reason: broken.reason.clone(),
                hint: if broken.reopen {
                    "look at the disk of the state directory; the database is opened again by itself".into()
                } else {
                    "the folder has stopped; look at the disk, then start the engine again".into()
                },
            }));
        let full = [
            (&view.disk_full, row.path.as_path()),
            (&view.store_full, self.config.home.as_path()),
        ];
        for (reason, place) in full {
            status
                .problems
                .extend(reason.as_ref().map(|reason| ProblemStatus {
                    path: json_text(b""),
                    reason: reason.clone(),
                    hint: format!("free some space for {}; it goes on by itself", place.display()),
                }));
        }
        status
            .problems
            .extend(view.troubles.iter().map(|problem| ProblemStatus {
                path: json_text(b""),
                reason: problem.reason.clone(),
                hint: problem.hint.clone(),
            }));
        status
            .problems
            .extend(view.problems.iter().map(|(path, problem)| ProblemStatus {
                path: json_text(path.as_bytes()),
                reason: problem.reason.clone(),
                hint: problem.hint.clone(),
            }));
        let rotten = self.verifying.rotten.of(folder.row.key);
        status.problems.extend(rotten.iter().map(|thing| {
            let Problem { reason, hint } = thing.problem();
            ProblemStatus {
                path: json_text(thing.name().as_bytes()),
                reason,
                hint,
            }
        }));
        status.peers = self.peers(folder);
        status
    }

    fn peers(&self, folder: &OpenFolder) -> Vec<PeerStatus> {
        let mut peers: Vec<PeerStatus> = Vec::new();
        for (id, grant) in &folder.grants {
            let Some(device) = self.devices.get(id) else {
                continue;
            };
            let session = folder.sessions.get(id);
            let theirs = session.and_then(|s| s.theirs());
            let connected = device.link.is_some();
            let (path, rtt_ms) = device.path();
            peers.push(PeerStatus {
                id: id.to_string(),
                name: device.row.name.clone(),
                connected,
                in_sync: connected && session.is_some_and(|s| s.in_sync()),
                root: theirs.map(|t| t.root.to_hex()).unwrap_or_default(),
                path: path.to_owned(),
                rtt_ms,
                access: access(grant.read_only).to_owned(),
                pending: theirs
                    .map(|t| Pending {
                        files: t.pending_files,
                        bytes: t.pending_bytes,
                    })
                    .unwrap_or_default(),
                last_seen: device.row.last_seen_ms.map(rfc3339),
            });
        }
        peers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        peers
    }
}

fn state(folder: &OpenFolder, view: &FolderView) -> FolderState {
    let activity = folder.activity();
    if view.broken.is_some() || view.store_full.is_some() {
        FolderState::Error
    } else if folder.row.paused {
        FolderState::Paused
    } else if view.frozen.is_some() {
        FolderState::Frozen
    } else if !view.held.is_empty() {
        FolderState::Held
    } else if view.pending_files > 0 {
        FolderState::Syncing
    } else if activity.scanning || activity.dirty || !activity.complete || view.unlooked {
        FolderState::Scanning
    } else {
        FolderState::Idle
    }
}

fn frozen_problem(reason: &str, hint: &str) -> ProblemStatus {
    ProblemStatus {
        path: json_text(b""),
        reason: reason.to_owned(),
        hint: hint.into(),
    }
}

/// What a folder's counters say happened between two looks.
fn counted(before: Counts, now: Counts) -> Option<String> {
    let parts: Vec<String> = [
        ("added", before.added, now.added),
        ("changed", before.changed, now.changed),
        ("removed", before.removed, now.removed),
    ]
    .into_iter()
    .filter(|(_, before, now)| now > before)
    .map(|(word, before, now)| format!("{} {word}", now - before))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
