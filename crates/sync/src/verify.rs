//! Reads everything again and compares it with its digest: live files, displaced versions, tree nodes. At low priority,
//! on one thread; nobody waits for it. Never judges a file that was changed meanwhile: that is the scan's work. Never
//! changes a file itself: good content is put in place by the folder's thread.

mod priority;
mod repair;
mod rotten;
mod scrub;

pub(crate) use priority::lower_priority;
pub(crate) use rotten::{Rotten, Thing};
pub(crate) use scrub::{Batch, Busy, Scrub, every};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::{DATABASE, FolderKey, IndexRow, Store, StoreError};
use tokio::sync::oneshot;

use crate::control::{Verified, VerifyProgress};
use crate::disk::Buffer;
use crate::error::Error;
use crate::failpoint::point;
use crate::fetch::Source;
use crate::folder::scanner::ScanInput;
use crate::folder::{Checked, FolderEvent, Inbox, Place, check, is_still};
use crate::status::json_text;

/// Rows of the index taken from one moment of the database.
const PAGE: usize = 256;
/// Tree nodes compared in one moment of the database.
const NODES: usize = 1000;
/// How often it is said how far it has come.
const SAY: Duration = Duration::from_millis(250);
/// A run that was cut off is gone on with for so long; then everything is read from the beginning.
const GO_ON: Duration = Duration::from_secs(24 * 3600);

/// A folder that is read, and the ways to its threads.
pub(crate) struct Part {
    pub(crate) place: Arc<Place>,
    pub(crate) events: Inbox,
    pub(crate) scanner: mpsc::Sender<ScanInput>,
    pub(crate) sources: Vec<Source>,
}

/// How far runs that were cut off had come.
pub(crate) type Positions = Arc<Mutex<HashMap<FolderKey, (RelPath, Instant)>>>;

/// What is read, and how.
pub(crate) struct Run {
    pub(crate) store: Arc<Store>,
    pub(crate) parts: Vec<Part>,
    /// Names of folders that are not there.
    pub(crate) unavailable: Vec<String>,
    /// Get good content for what is damaged.
    pub(crate) repair: bool,
    pub(crate) positions: Positions,
    /// What else is damaged than live files.
    pub(crate) rotten: Arc<Rotten>,
    /// The engine ends.
    pub(crate) stop: Arc<AtomicBool>,
    /// For asking peers.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// What was found so far, and who listens.
struct Tally<'a> {
    done: Verified,
    bytes: u64,
    said: Instant,
    stop: &'a dyn Fn() -> bool,
    say: &'a dyn Fn(VerifyProgress),
    buffer: Buffer,
}

impl Tally<'_> {
    /// A buffer, and whom to tell of each read: he says `false` when it is to stop.
    fn reading(&mut self) -> (&mut Buffer, impl FnMut(u64) -> bool) {
        let (checked, stop, say) = (self.done.checked, self.stop, self.say);
        let (bytes, said) = (&mut self.bytes, &mut self.said);
        let tick = move |read| {
            *bytes += read;
            if said.elapsed() >= SAY {
                *said = Instant::now();
                say(VerifyProgress {
                    checked,
                    bytes: *bytes,
                });
            }
            !stop()
        };
        (&mut self.buffer, tick)
    }

    fn check(&mut self, place: &Place, path: &RelPath, row: &IndexRow) -> Checked {
        let (buffer, mut tick) = self.reading();
        // The disk is asked, not the memory.
        place.root.forget_pages(path);
        check(place, path, row, buffer, &mut tick)
    }

    fn is_object_good(&mut self, place: &Place, digest: &Digest) -> std::io::Result<Option<bool>> {
        let (buffer, mut tick) = self.reading();
        place.root.forget_object_pages(digest);
        place.root.is_object_good(digest, buffer, &mut tick)
    }

    fn damaged(&mut self, what: &[u8], repaired: bool) {
        let what = json_text(what);
        if repaired {
            self.done.repaired.push(what.clone());
        }
        self.done.damaged.push(what);
    }
}

/// It was told to stop.
struct Stopped;

type Step = Result<Result<(), Stopped>, Error>;

/// Goes on with the next step, or ends here.
macro_rules! unless_stopped {
    ($step:expr) => {
        if let Err(Stopped) = $step? {
            return Ok(Err(Stopped));
        }
    };
}

impl Run {
    /// Reads everything. `None`: it was told to stop.
    pub(crate) fn run(
        mut self,
        is_over: &dyn Fn() -> bool,
        say: &dyn Fn(VerifyProgress),
    ) -> Result<Option<Verified>, Error> {
        let stop = self.stop.clone();
        let mut tally = Tally {
            done: Verified {
                checked: 0,
                damaged: Vec::new(),
                repaired: Vec::new(),
                unavailable: std::mem::take(&mut self.unavailable),
            },
            bytes: 0,
            said: Instant::now(),
            stop: &|| stop.load(Ordering::Relaxed) || is_over(),
            say,
            buffer: Buffer::new(),
        };
        let result = self.all(&mut tally);
        // What nobody has is not there any more, and what is good again need not be said.
        self.rotten.forget_gone(&self.store, &self.parts)?;
        match result {
            Ok(Ok(())) => Ok(Some(tally.done)),
            Ok(Err(Stopped)) => Ok(None),
            // Its rows make no sense.
            Err(Error::Store(error @ StoreError::Corrupt { .. })) => {
                tracing::error!("{error}");
                tally.damaged(DATABASE.as_bytes(), false);
                Ok(Some(tally.done))
            }
            Err(error) => Err(error),
        }
    }

    fn all(&self, tally: &mut Tally<'_>) -> Step {
        self.rotten.forget_gone(&self.store, &self.parts)?;
        for part in &self.parts {
            if part.place.root.check(&part.place.row.marker).is_err() {
                tally.done.unavailable.push(part.place.row.name.clone());
                continue;
            }
            unless_stopped!(self.files(part, tally));
            unless_stopped!(self.objects(part, tally));
        }
        unless_stopped!(self.packs(tally));
        self.nodes(tally)
    }

    /// The live files of a folder.
    fn files(&self, part: &Part, tally: &mut Tally<'_>) -> Step {
        let place = &*part.place;
        let key = place.key;
        let mut after = self.position(key);
        let mut suspects = Vec::new();
        loop {
            let rows = self.store.snapshot()?.index_after(key, after.as_ref(), PAGE)?;
            if rows.is_empty() {
                break;
            }
            for (path, row) in rows {
                point("verify.file");
                match tally.check(place, &path, &row) {
                    Checked::Good => {
                        tally.done.checked += 1;
                        place.damaged.is_good(&path);
                    }
                    Checked::Damaged(_) => {
                        tally.done.checked += 1;
                        suspects.push(path.clone());
                    }
                    Checked::Open => {}
                    Checked::Stopped => {
                        // What was found is not lost.
                        self.confirm(part, &suspects)?;
                        return Ok(Err(Stopped));
                    }
                }
                self.remember(key, &path);
                after = Some(path);
            }
            if (tally.stop)() {
                self.confirm(part, &suspects)?;
                return Ok(Err(Stopped));
            }
        }
        self.positions.lock().expect("nobody panics with it").remove(&key);
        self.confirm(part, &suspects)?;
        for (path, row) in place.damaged.rows() {
            let repaired = self.repair && self.repair_file(part, &path, &row);
            tally.damaged(&self.name(place, path.as_bytes()), repaired);
        }
        Ok(Ok(()))
    }

    /// Looks once more at what seemed to be damaged, after everything that was saved before is committed: a program may
    /// have written through a memory map and closed it in the same moment.
    fn confirm(&self, part: &Part, suspects: &[RelPath]) -> Result<(), Error> {
        if !suspects.is_empty() {
            let (reply, done) = oneshot::channel();
            let sent = part.scanner.send(ScanInput::Barrier(reply)).is_ok();
            if !sent || done.blocking_recv().is_err() {
                return Err(ended(part));
            }
            let mut buffer = Buffer::new();
            for path in suspects {
                let row = self.store.snapshot()?.index(part.place.key, path)?;
                let Some(row) = row else { continue };
                let checked = check(&part.place, path, &row, &mut buffer, &mut |_| true);
                if let Checked::Damaged(found) = checked {
                    let event = FolderEvent::Damaged(path.clone(), Box::new(row), found);
                    part.events.send(event).map_err(|_| ended(part))?;
                }
            }
        }
        // What is damaged is known, and said, from here on; what is not any more, is forgotten.
        self.ask(part, FolderEvent::Barrier)
    }

    /// Asks the folder's thread, and waits.
    fn ask<T>(&self, part: &Part, event: impl FnOnce(oneshot::Sender<T>) -> FolderEvent) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        part.events.send(event(reply)).map_err(|_| ended(part))?;
        answer.blocking_recv().map_err(|_| ended(part))
    }

    /// Displaced versions.
    fn objects(&self, part: &Part, tally: &mut Tally<'_>) -> Step {
        let place = &*part.place;
        let failed = |e: std::io::Error| Error::Refused(format!("{}: .alike/objects: {e}", place.row.name));
        let mut marks = None;
        for digest in place
            .displaced()
            .map_err(failed)?
            .iter()
            .map(|object| object.digest)
        {
            let good = tally.is_object_good(place, &digest);
            if (tally.stop)() {
                return Ok(Err(Stopped));
            }
            let Some(good) = good.map_err(failed)? else {
                continue;
            };
            tally.done.checked += 1;
            let thing = Thing::Object(place.key, digest);
            self.rotten.note(thing, good);
            if !good {
                let repaired = self.repair && self.repair_object(part, &digest, &mut marks)?;
                self.rotten.note(thing, repaired);
                tally.damaged(&self.name(place, thing.name().as_bytes()), repaired);
            }
        }
        Ok(Ok(()))
    }

    /// Packed contents, of all folders.
    fn packs(&self, tally: &mut Tally<'_>) -> Step {
        let mut bad = Vec::new();
        self.store.check_packs(&mut |digest, bytes, good| {
            tally.done.checked += 1;
            self.rotten.note(Thing::Packed(*digest), good);
            if !good {
                bad.push((*digest, bytes));
            }
            (tally.reading().1)(bytes)
        })?;
        let mut marks = None;
        for (digest, size) in bad {
            let thing = Thing::Packed(digest);
            let repaired = self.repair && self.repair_packed(&digest, size, &mut marks)?;
            self.rotten.note(thing, repaired);
            tally.damaged(thing.name().as_bytes(), repaired);
        }
        Ok(if (tally.stop)() { Err(Stopped) } else { Ok(()) })
    }

    /// Tree nodes in the database, of all folders.
    fn nodes(&self, tally: &mut Tally<'_>) -> Step {
        let mut after = None;
        loop {
            let checked = self.store.snapshot()?.check_nodes(after.as_ref(), NODES)?;
            tally.done.checked += checked.checked;
            for digest in checked.damaged {
                let thing = Thing::Node(digest);
                self.rotten.note(thing, false);
                tally.damaged(thing.name().as_bytes(), false);
            }
            after = checked.last;
            if after.is_none() {
                return Ok(Ok(()));
            }
            if (tally.stop)() {
                return Ok(Err(Stopped));
            }
        }
    }

    /// How a path is called in the answer.
    fn name(&self, place: &Place, path: &[u8]) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        if self.parts.len() == 1 {
            return path.to_vec();
        }
        let root = place.row.path.as_os_str().as_bytes();
        [root, b"/", path].concat()
    }

    fn position(&self, key: FolderKey) -> Option<RelPath> {
        let positions = self.positions.lock().expect("nobody panics with it");
        let (path, since) = positions.get(&key)?;
        (since.elapsed() < GO_ON).then(|| path.clone())
    }

    fn remember(&self, key: FolderKey, path: &RelPath) {
        let mut positions = self.positions.lock().expect("nobody panics with it");
        positions.insert(key, (path.clone(), Instant::now()));
    }
}

fn ended(part: &Part) -> Error {
    Error::Refused(format!(
        "the folder “{}” has stopped; `sync status` says why",
        part.place.row.name
    ))
}

/// The content that the index says is in a file.
fn content_of(row: &IndexRow) -> Option<(Digest, u64)> {
    match row.mat.value {
        Value::File { digest, size } => Some((digest, size)),
        Value::Dir | Value::Symlink { .. } => None,
    }
}

/// Does the index still say the same of a path?
fn is_current(store: &Store, key: FolderKey, path: &RelPath, row: &IndexRow) -> Result<bool, Error> {
    Ok(is_still(store.snapshot()?.index(key, path)?.as_ref(), row))
}
