//! The folders of this device: tracking, opening, pausing, forgetting; and finding the one a person means.
//! Never looks into a folder; its threads do.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alike_core::ids::FolderId;
use alike_core::message::Message;
use alike_core::session::Session;
use alike_store::{FolderKey, FolderRow, Grant, NewFolder};
use iroh::EndpointId;
use tokio::time::Instant;

use super::{Engine, Event, short};
use crate::control::FolderRef;
use crate::disk::{Root, Taken};
use crate::error::Error;
use crate::failpoint::{point, task_point};
use crate::fetch::Puller;
use crate::folder::scanner::{Activity, ScanInput, ScannerThread};
use crate::folder::{FolderThread, FolderView, Place, now_ms};
use crate::named;
use crate::serve::ServedFolder;

/// A folder that could not be opened is tried again this often.
const REOPEN: Duration = Duration::from_secs(2);

/// What to do about a root that cannot be used.
pub(super) const ROOT_GONE: &str =
    "bring the directory back (is its disk mounted?); until then nothing is sent or applied";
/// What to do about another engine in the same directory.
const ONE_ENGINE: &str = "let only one of them have it: stop the other one (`sync stop` with its ALIKE_HOME), or choose another directory";

/// A folder: running, or waiting for its root to come back.
pub(super) enum Slot {
    Open(Box<OpenFolder>),
    Closed(ClosedFolder),
}

/// A running folder.
pub(super) struct OpenFolder {
    pub(super) row: FolderRow,
    pub(super) place: Arc<Place>,
    pub(super) thread: FolderThread,
    pub(super) scanner: ScannerThread,
    pub(super) puller: Puller,
    pub(super) sessions: HashMap<EndpointId, Session>,
    pub(super) grants: HashMap<EndpointId, Grant>,
    pub(super) retries: HashMap<EndpointId, Instant>,
    forward: tokio::task::JoinHandle<()>,
    taken: Taken,
}

/// A folder whose root cannot be used now.
pub(super) struct ClosedFolder {
    pub(super) row: FolderRow,
    pub(super) reason: String,
    /// What to do about it.
    pub(super) hint: &'static str,
    retry: Instant,
}

impl OpenFolder {
    /// What is left to fetch, less what has arrived of big files.
    pub(super) fn pending_bytes(&self, view: &FolderView) -> u64 {
        view.pending_bytes
            .saturating_sub(self.place.partial.load(Ordering::Relaxed))
    }

    pub(super) fn activity(&self) -> Activity {
        *self.scanner.activity.borrow()
    }
}

impl Slot {
    pub(super) fn row(&self) -> &FolderRow {
        match self {
            Slot::Open(folder) => &folder.row,
            Slot::Closed(folder) => &folder.row,
        }
    }

    /// When to try something again.
    pub(super) fn retry_due(&self) -> Option<Instant> {
        match self {
            Slot::Open(folder) => folder.retries.values().min().copied(),
            Slot::Closed(folder) => Some(folder.retry),
        }
    }

    /// Ends the folder's threads.
    pub(super) async fn close(self) {
        if let Slot::Open(folder) = self {
            let OpenFolder {
                forward,
                puller,
                mut scanner,
                mut thread,
                taken,
                ..
            } = *folder;
            forward.abort();
            puller.stop().await;
            // The scanner first: it feeds the folder's thread.
            let ended = tokio::task::spawn_blocking(move || {
                scanner.stop();
                thread.stop();
            });
            let _ = ended.await;
            drop(taken);
        }
    }
}

impl Engine {
    /// Opens a folder that the database knows.
    pub(super) fn open_folder(&mut self, row: FolderRow) {
        let key = row.key;
        let slot = match short(|| self.start_folder(&row)) {
            Ok(folder) => Slot::Open(Box::new(folder)),
            Err(error) => {
                let hint = match &error {
                    Error::Taken(_) => ONE_ENGINE,
                    _ => ROOT_GONE,
                };
                let reason = error.to_string();
                let known = matches!(self.folders.get(&key), Some(Slot::Closed(old)) if old.reason == reason);
                if !known {
                    let message = format!("{reason}; {hint}");
                    self.journal.say("problem", Some(row.name.clone()), None, message);
                }
                Slot::Closed(ClosedFolder {
                    row,
                    reason,
                    hint,
                    retry: Instant::now() + REOPEN,
                })
            }
        };
        self.folders.insert(key, slot);
        let devices: Vec<EndpointId> = match &self.folders[&key] {
            Slot::Open(folder) => folder.grants.keys().copied().collect(),
            Slot::Closed(_) => Vec::new(),
        };
        for device in devices {
            self.begin_session(key, device, true);
        }
    }

    fn start_folder(&self, row: &FolderRow) -> Result<OpenFolder, Error> {
        let root = Root::open(&row.path)?;
        if let Err(reason) = root.check(&row.marker) {
            return Err(Error::Refused(reason));
        }
        let Some(taken) = root.take() else {
            return Err(Error::Taken(row.path.clone()));
        };
        if root.identity() != (row.root_dev, row.root_ino) {
            tracing::info!(folder = %row.name, "the root is another directory than before, with the right marker");
        }
        let outboards = self.config.home.join("outboards");
        let place = Arc::new(Place::new(row.clone(), root, self.store.clone(), outboards));
        // So that the first status has it.
        place.history_bytes();
        let (input, inbox) = std::sync::mpsc::channel();
        let thread = FolderThread::start(place.clone(), self.signer.clone(), input.clone())?;
        let scanner = ScannerThread::start(place.clone(), (input, inbox), thread.events.clone(), row.paused)
            .map_err(|e| Error::Refused(format!("cannot start a thread: {e}")))?;
        let puller = Puller::start(place.clone(), thread.events.clone(), row.paused);
        let mut grants = HashMap::new();
        for grant in self.store.grants()?.into_iter().filter(|g| g.folder == row.key) {
            if let Ok(device) = EndpointId::from_bytes(&grant.device) {
                grants.insert(device, grant);
            }
        }
        let (mut view, mut activity) = (thread.view.clone(), scanner.activity.clone());
        let (events, key) = (self.events.clone(), row.key);
        let forward = tokio::spawn(async move {
            loop {
                let changed = tokio::select! {
                    changed = view.changed() => changed,
                    changed = activity.changed() => changed,
                };
                task_point("engine.forward").await;
                if changed.is_err() || events.send(Event::FolderChanged(key)).await.is_err() {
                    return;
                }
            }
        });
        Ok(OpenFolder {
            row: row.clone(),
            place,
            thread,
            scanner,
            puller,
            sessions: HashMap::new(),
            grants,
            retries: HashMap::new(),
            forward,
            taken,
        })
    }

    /// Folders waiting for their root, and pulls waiting to be tried again.
    pub(super) fn retry_folders(&mut self) {
        let now = Instant::now();
        let closed: Vec<FolderRow> = self
            .folders
            .values()
            .filter_map(|slot| match slot {
                Slot::Closed(folder) if folder.retry <= now => Some(folder.row.clone()),
                _ => None,
            })
            .collect();
        for row in closed {
            self.open_folder(row);
            self.serve();
        }
        for key in self.folders.keys().copied().collect::<Vec<_>>() {
            self.retry_pulls(key, now);
        }
    }

    /// The table for request tasks.
    pub(super) fn serve(&self) {
        let mut table = HashMap::new();
        for slot in self.folders.values() {
            if let Slot::Open(folder) = slot
                && !folder.row.paused
            {
                let active = |d: &&EndpointId| self.devices.get(*d).is_some_and(|d| !d.row.paused);
                let devices = folder.grants.keys().filter(active).copied().collect();
                let served = ServedFolder {
                    place: folder.place.clone(),
                    devices,
                    events: folder.thread.events.clone(),
                };
                table.insert(folder.row.id, served);
            }
        }
        self.served.replace(table);
    }

    /// May `dir` (absolute) become a folder? It may not exist yet.
    pub(super) fn check_dir(&self, dir: &Path) -> Result<PathBuf, Error> {
        let refuse = |what: String| Err(Error::Refused(what));
        let show = dir.display();
        let real = match std::fs::canonicalize(dir) {
            Ok(real) if !real.is_dir() => {
                return refuse(format!("{show} is not a directory; give a directory"));
            }
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let parent = dir.ancestors().skip(1).find(|p| p.exists());
                let Some(parent) = parent else {
                    return refuse(format!("{show}: {e}"));
                };
                let real = std::fs::canonicalize(parent)
                    .map_err(|e| Error::Refused(format!("{}: {e}", parent.display())))?;
                if !real.is_dir() {
                    return refuse(format!(
                        "{} is not a directory, so {show} cannot be made in it",
                        parent.display()
                    ));
                }
                let rest = dir.strip_prefix(parent).expect("an ancestor is a prefix");
                if !writable(&real) {
                    return refuse(format!(
                        "{show} cannot be made: no permission to write in {}; change its permissions or choose another directory",
                        parent.display()
                    ));
                }
                real.join(rest)
            }
            Err(e) => return refuse(format!("{show}: {e}")),
        };
        if real.exists() && !writable(&real) {
            return refuse(format!(
                "{show}: no permission to write there; change its permissions or choose another directory"
            ));
        }
        for slot in self.folders.values() {
            let row = slot.row();
            if row.path == real {
                continue;
            }
            let other = row.path.display();
            if real.starts_with(&row.path) {
                return refuse(format!(
                    "{show} is inside the folder “{}” ({other}), which is synced already; choose a directory outside of it",
                    row.name
                ));
            }
            if row.path.starts_with(&real) {
                return refuse(format!(
                    "{show} contains the folder “{}” ({other}), which is synced already; choose another directory or `sync forget` that folder first",
                    row.name
                ));
            }
        }
        let marked = |p: &&Path| p.join(alike_core::path::OWN_DIR).join("marker").exists();
        if let Some(above) = real.ancestors().skip(1).find(marked) {
            return refuse(format!(
                "{show} is inside {}, which is a synced folder already; choose a directory outside of it",
                above.display()
            ));
        }
        if self.config.home.starts_with(&real) {
            return refuse(format!(
                "{show} contains alike's own state directory ({}); set ALIKE_HOME to a place outside of it",
                self.config.home.display()
            ));
        }
        Ok(real)
    }

    /// Tracks `dir` (checked before), or returns the folder that is tracked there.
    pub(super) fn track(
        &mut self,
        dir: &Path,
        name: Option<String>,
        id: Option<FolderId>,
    ) -> Result<FolderKey, Error> {
        let real = self.check_dir(dir)?;
        if let Some(slot) = self.folders.values().find(|slot| slot.row().path == real) {
            let row = slot.row();
            return match (id, name) {
                (Some(id), _) if id != row.id => Err(Error::Refused(format!(
                    "{} is synced already as the folder “{}”; choose another directory",
                    dir.display(),
                    row.name
                ))),
                (None, Some(name)) if name != row.name => Err(Error::Refused(format!(
                    "{} is shared already under the name “{}”; leave out --name",
                    dir.display(),
                    row.name
                ))),
                _ => Ok(row.key),
            };
        }
        let name = name.unwrap_or_else(|| default_name(&real));
        let row = short(|| {
            std::fs::create_dir_all(&real)
                .map_err(|e| Error::Refused(format!("{} cannot be made: {e}", dir.display())))?;
            point("track.made");
            let root = Root::open(&real)?;
            let marker = root.ensure_own_dir(random()?)?;
            point("track.marked");
            if root.take().is_none() {
                let taken = Error::Taken(real);
                return Err(Error::Refused(format!("{taken}; {ONE_ENGINE}")));
            }
            let (root_dev, root_ino) = root.identity();
            let id = match id {
                Some(id) => id,
                None => FolderId(random()?),
            };
            let replica = self.signer.begin(id)?;
            let new = NewFolder {
                id,
                name,
                path: real,
                replica,
                marker,
                root_dev,
                root_ino,
                created_ms: now_ms(),
            };
            Ok::<_, Error>(self.store.add_folder(new)?)
        })?;
        point("track.added");
        let key = row.key;
        self.open_folder(row);
        self.serve();
        match &self.folders[&key] {
            Slot::Open(_) => Ok(key),
            Slot::Closed(closed) => Err(Error::Refused(closed.reason.clone())),
        }
    }

    /// The folder a person means.
    pub(super) fn find_folder(&self, wanted: &FolderRef) -> Result<FolderKey, Error> {
        Ok(named::folder(&self.folder_rows(), wanted)?.key)
    }

    pub(super) fn folder_rows(&self) -> Vec<&FolderRow> {
        self.folders.values().map(Slot::row).collect()
    }

    /// Pauses or resumes a folder.
    pub(super) fn pause_folder(&mut self, key: FolderKey, paused: bool) -> Result<(), Error> {
        short(|| self.store.set_folder_paused(key, paused))?;
        let mut devices = Vec::new();
        match self.folders.get_mut(&key) {
            Some(Slot::Open(folder)) => {
                folder.row.paused = paused;
                let _ = folder.scanner.input.send(ScanInput::Pause(paused));
                folder.puller.pause(paused);
                devices.extend(folder.grants.keys().copied());
            }
            Some(Slot::Closed(folder)) => folder.row.paused = paused,
            None => {}
        }
        for device in devices {
            if paused {
                self.withdraw(key, device);
            } else {
                self.begin_session(key, device, true);
            }
        }
        self.serve();
        Ok(())
    }

    /// Tells a device that this folder takes no part any more, and forgets what it said.
    pub(super) fn withdraw(&mut self, key: FolderKey, device: EndpointId) {
        let Some(Slot::Open(folder)) = self.folders.get_mut(&key) else {
            return;
        };
        let id = folder.row.id;
        folder.sessions.remove(&device);
        if let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) {
            link.send(Message::Withdraw(id));
        }
        self.update_sources(key);
    }

    /// Stops tracking; every file stays where it is.
    pub(super) fn forget(&mut self, key: FolderKey) -> Result<Slot, Error> {
        let devices: Vec<EndpointId> = match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder.grants.keys().copied().collect(),
            _ => Vec::new(),
        };
        for device in devices {
            self.withdraw(key, device);
        }
        let slot = self
            .folders
            .remove(&key)
            .ok_or_else(|| Error::Refused("no such folder".into()))?;
        self.serve();
        Ok(slot)
    }
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::Refused(format!("no random numbers: {e}")))?;
    Ok(bytes)
}

fn writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// A folder is called like its directory.
fn default_name(dir: &Path) -> String {
    dir.file_name()
        .map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned())
}
