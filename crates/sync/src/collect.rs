//! Letting go of the past that nobody keeps: generations by the policy, then what only they reached: packed contents,
//! displaced versions, outboards, tree nodes. Never removes what a head, a kept generation, one that somebody reads, the
//! index or an intent reaches, but for a displaced version that is packed too, and nothing young that no generation ever
//! had: that may be somebody's only copy of a save.
//!
//! Generations that go are remembered until their contents are gone (`alike_store`'s table `dropped`), and their nodes go
//! last: so that one that is cut off, or finds something that may not be removed now, is ended by the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alike_core::digest::Digest;
use alike_core::retention::{Policy, expired};
use alike_store::{Archiving, FolderKey, MAX_PACKED, Marks, PackSweep, Store, Sweep};

use crate::clock::now_ns;
use crate::control::Collected;
use crate::disk::{Buffer, Object, Removed};
use crate::error::Error;
use crate::failpoint;
use crate::folder::{Place, now_ms};

#[cfg(test)]
mod tests;

/// What no generation ever had is kept this long after it was displaced or packed (seconds).
const UNNAMED: u64 = 30 * 24 * 60 * 60;
/// Displaced versions that are removed while nobody else can take hold of any.
const STEP: usize = 500;
/// How long one step waits for the turns of others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long those are waited for who read the database, and between two looks.
const READERS: (Duration, u32) = (Duration::from_millis(5), 2_000);
/// The clock that stamps files is behind by so much at most (nanoseconds).
const TICK: i64 = 20_000_000;
/// An outboard that nothing reaches may be of a file that is being looked at (seconds).
const YOUNG_OUTBOARD: u64 = 24 * 60 * 60;
/// The database is compacted if so many bytes of it, and so large a part (a divisor), are free.
const WORTH: (u64, u64) = (8 << 20, 3);

/// What is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// What the policy says.
    Policy(Policy),
    /// A person's word: all but the newest so many, all older than so many milliseconds, or what is both.
    Asked {
        keep: Option<u64>,
        older_ms: Option<u64>,
    },
}

impl Wanted {
    fn expired(&self, all: &[(u64, u64)], pinned: &dyn Fn(u64) -> bool, now: u64) -> Vec<u64> {
        match *self {
            Wanted::Policy(policy) => expired(all, pinned, now, &policy),
            Wanted::Asked { keep, older_ms } => {
                let policy = Policy {
                    newest: keep.unwrap_or(1),
                    all_ms: older_ms.unwrap_or(0),
                    daily_ms: 0,
                    monthly: false,
                };
                expired(all, pinned, now, &policy)
            }
        }
    }
}

/// How far a collection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It only tells what would go.
    Tell,
    /// What nobody needs goes; others go on. The database uses that room again.
    Sweep,
    /// The database is compacted too, if that is worth it: others wait.
    Compact,
}

/// Collects in one go; other things go on meanwhile. `wanted`: of which folders generations may go. `places`: all
/// folders that are open, for what they have displaced.
pub(crate) fn collect(
    store: &Arc<Store>,
    places: &[Arc<Place>],
    wanted: &[(FolderKey, Wanted)],
    mode: Mode,
) -> Result<Collected, Error> {
    let mut work = Work {
        store,
        places,
        compacts: mode == Mode::Compact,
        unnamed: UNNAMED,
        patience: PATIENCE,
        nodes: Sweep::default(),
        archive: Archiving::default(),
        reached: &mut |name| {
            failpoint::point(name);
            Ok(())
        },
    };
    work.run(wanted, mode == Mode::Tell)
}

struct Work<'a> {
    store: &'a Store,
    places: &'a [Arc<Place>],
    compacts: bool,
    /// How long what no generation ever had is kept (seconds).
    unnamed: u64,
    patience: Duration,
    nodes: Sweep,
    archive: Archiving,
    /// What happens where it has come so far: nothing, but in a test.
    reached: &'a mut dyn FnMut(&'static str) -> Result<(), Error>,
}

/// What is known of what is needed, and what is not.
struct Known {
    marks: Marks,
    /// What the generations reach that go: of that, nothing need be kept for its youth.
    dropped: Marks,
    unnamed: u64,
    /// Contents that would have gone, but for what has come to be on disk meanwhile.
    spared: u64,
}

impl Known {
    /// Does nobody need a content any more that was displaced or packed so many seconds ago?
    fn is_waste(&self, digest: &Digest, age: u64) -> bool {
        is_waste(&self.marks, &self.dropped, digest, age, self.unnamed)
    }
}

fn is_waste(marks: &Marks, dropped: &Marks, digest: &Digest, age: u64, unnamed: u64) -> bool {
    !marks.has_blob(digest) && (dropped.has_blob(digest) || age >= unnamed)
}

impl Work<'_> {
    fn point(&mut self, name: &'static str) -> Result<(), Error> {
        (self.reached)(name)
    }

    fn run(&mut self, wanted: &[(FolderKey, Wanted)], dry_run: bool) -> Result<Collected, Error> {
        let store = self.store;
        // What comes to be on disk from here on is not judged by what is marked below.
        let since = now_ns() - TICK;
        let collecting = store.collecting();
        let mut done = Collected {
            removed_objects: 0,
            freed_bytes: 0,
            kept_generations: 0,
            removed_generations: 0,
        };
        let snapshot = store.snapshot()?;
        let mut going: Vec<(FolderKey, Vec<u64>)> = Vec::new();
        for (key, wanted) in wanted {
            let all = snapshot.generations(*key, usize::MAX)?;
            let times: Vec<(u64, u64)> = all.iter().map(|g| (g.number, g.time_ms)).collect();
            let pins = snapshot.pins(*key)?;
            let gone = wanted.expired(&times, &|number| pins.contains(&number), now_ms());
            done.kept_generations += (times.len() - gone.len()) as u64;
            going.push((*key, gone));
        }
        if dry_run {
            let goes = |key: FolderKey, number: u64| {
                going.iter().any(|(k, gone)| *k == key && gone.contains(&number))
            };
            let known = Known {
                dropped: snapshot.mark_dropped(&goes)?,
                marks: snapshot.mark(&|key, number| !goes(key, number))?,
                unnamed: self.unnamed,
                spared: 0,
            };
            let (rows, bytes) = snapshot.unmarked(&known.marks)?;
            drop(snapshot);
            done.removed_generations = going.iter().map(|(_, gone)| gone.len() as u64).sum();
            done.removed_objects += rows;
            done.freed_bytes += bytes;
            self.foresee(&known, &mut done)?;
            return Ok(done);
        }
        drop(snapshot);
        self.point("gc.begin")?;
        for (key, gone) in going.iter().filter(|(_, gone)| !gone.is_empty()) {
            done.removed_generations += store.drop_generations(*key, gone)?;
        }
        self.point("gc.dropped")?;
        let snapshot = store.snapshot()?;
        let gone = snapshot.dropped()?;
        let mut known = Known {
            dropped: snapshot.mark_dropped(&|_, _| false)?,
            marks: snapshot.mark(&|_, _| true)?,
            unnamed: self.unnamed,
            spared: 0,
        };
        drop(snapshot);
        self.point("gc.marked")?;
        self.packs(&mut known, &mut done)?;
        for place in self.places {
            let Displaced { waste, copies } = Displaced::list(store, place, &known)?;
            self.waste(place, &waste, since, &mut known, &mut done)?;
            self.copies(place, &copies, since, &mut done)?;
            place.count_history();
        }
        self.outboards(&known, &mut done);
        drop(collecting);
        // Of a folder that is not open the displaced versions are still there.
        let is_ended =
            |key: &FolderKey| known.spared == 0 && self.places.iter().any(|place| place.key == *key);
        let ended: Vec<_> = gone.into_iter().filter(|(key, _)| is_ended(key)).collect();
        self.point("gc.forget")?;
        let alone = store.alone(self.patience).ok_or_else(busy)?;
        store.forget_dropped(&alone, &ended)?;
        drop(alone);
        let asked = wanted.iter().any(|(_, w)| matches!(w, Wanted::Asked { .. }));
        self.nodes(&mut known.marks, asked, &mut done)?;
        Ok(done)
    }

    /// What [`Work::run`] would remove, but for rows.
    fn foresee(&mut self, known: &Known, done: &mut Collected) -> Result<(), Error> {
        let (contents, packed) = self
            .store
            .packs_waste(&|digest, age| known.is_waste(digest, age))?;
        done.removed_objects += contents;
        done.freed_bytes += packed;
        for place in self.places {
            let Displaced { waste, copies } = Displaced::list(self.store, place, known)?;
            for object in waste.iter().chain(&copies) {
                done.removed_objects += 1;
                done.freed_bytes += object.bytes;
            }
        }
        done.freed_bytes += self
            .outboards_waste(known)
            .iter()
            .map(|(_, bytes)| bytes)
            .sum::<u64>();
        Ok(())
    }

    fn packs(&mut self, known: &mut Known, done: &mut Collected) -> Result<(), Error> {
        let Known {
            marks,
            dropped,
            unnamed,
            spared,
        } = known;
        let goes = |marks: &Marks, digest: &Digest, age| is_waste(marks, dropped, digest, age, *unnamed);
        let mut sweep = PackSweep::default();
        while !sweep.is_done() {
            self.point("gc.packs")?;
            if !self.store.sweep_packs(marks, &goes, &mut sweep, self.patience)? {
                return Err(busy());
            }
        }
        *spared += sweep.spared;
        done.removed_objects += sweep.removed;
        done.freed_bytes += sweep.freed;
        Ok(())
    }

    /// Removes displaced versions that nobody needs. In short steps, before each of which is marked what has come to be
    /// reached since, and during which nobody begins to reach anything.
    fn waste(
        &mut self,
        place: &Place,
        waste: &[Object],
        since: i64,
        known: &mut Known,
        done: &mut Collected,
    ) -> Result<(), Error> {
        for part in waste.chunks(STEP) {
            self.point("gc.objects")?;
            let alone = self.store.alone(self.patience).ok_or_else(busy)?;
            self.store.mark_more(&alone, &mut known.marks)?;
            for object in part.iter().filter(|object| !known.marks.has_blob(&object.digest)) {
                let gone = place.root.remove_object(&object.digest, since);
                match gone.map_err(|source| at(place, source))? {
                    Removed::Done => {
                        done.removed_objects += 1;
                        done.freed_bytes += object.bytes;
                    }
                    Removed::Young => known.spared += 1,
                    Removed::NotThere => {}
                }
            }
        }
        Ok(())
    }

    /// Removes displaced versions that are packed too.
    fn copies(
        &mut self,
        place: &Place,
        copies: &[Object],
        since: i64,
        done: &mut Collected,
    ) -> Result<(), Error> {
        let mut buffer = Buffer::new();
        for object in copies {
            self.point("gc.copies")?;
            // Read, for a row alone is no content.
            if self.store.packed(&object.digest)?.is_none() {
                continue;
            }
            let gone = place.root.remove_copy(&object.digest, since, &mut buffer);
            if gone.map_err(|source| at(place, source))? {
                done.removed_objects += 1;
                done.freed_bytes += object.bytes;
            }
        }
        Ok(())
    }

    /// Removes outboards and lists of chunks of what nobody needs: one that is missed is made again.
    fn outboards(&mut self, known: &Known, done: &mut Collected) {
        for (path, bytes) in self.outboards_waste(known) {
            match fs::remove_file(&path) {
                Ok(()) => done.freed_bytes += bytes,
                Err(error) => tracing::debug!(path = %path.display(), "an outboard stays: {error}"),
            }
        }
    }

    fn outboards_waste(&self, known: &Known) -> Vec<(PathBuf, u64)> {
        let Some(place) = self.places.first() else {
            return Vec::new();
        };
        let waste = |digest: &Digest, age| {
            let (marks, dropped) = (&known.marks, &known.dropped);
            is_waste(marks, dropped, digest, age, YOUNG_OUTBOARD.min(known.unnamed))
        };
        outboards_waste(&place.outboards, &waste).unwrap_or_else(|error| {
            tracing::warn!("looking for outboards that nobody needs: {error}");
            Vec::new()
        })
    }

    fn nodes(&mut self, marks: &mut Marks, asked: bool, done: &mut Collected) -> Result<(), Error> {
        let mut sweep = self.nodes;
        while !sweep.is_done() {
            self.point("gc.nodes")?;
            if !self.store.sweep(marks, &mut sweep, self.patience)? {
                return Err(busy());
            }
        }
        done.removed_objects += sweep.removed;
        let before = self.store.bytes_on_disk();
        let moved = self.old_nodes()?;
        self.point("gc.compact")?;
        if self.compacts && ((asked && sweep.removed + moved > 0) || worth_compacting(self.store)?) {
            compact(self.store)?;
        }
        done.freed_bytes += before.saturating_sub(self.store.bytes_on_disk());
        self.point("gc.end")
    }

    /// Packs the nodes that only older generations reach, which then take a fifth. How many?
    fn old_nodes(&mut self) -> Result<u64, Error> {
        // They take more for a moment, and nothing depends on it.
        while !self.archive.is_done() && self.store.check_room().is_ok() {
            self.point("gc.archive")?;
            self.store.archive(&mut self.archive)?;
        }
        Ok(self.archive.moved)
    }
}

/// Displaced versions of one folder that may go.
#[derive(Default)]
struct Displaced {
    /// Nobody needs them.
    waste: Vec<Object>,
    /// Somebody does, and they are packed too: nothing lets go of what is packed and needed.
    copies: Vec<Object>,
}

impl Displaced {
    fn list(store: &Store, place: &Place, known: &Known) -> Result<Displaced, Error> {
        let snapshot = store.snapshot()?;
        let mut all = Vec::new();
        let listed = place.root.each_object(&mut |object| {
            all.push(*object);
            true
        });
        listed.map_err(|source| at(place, source))?;
        let mut displaced = Displaced::default();
        for object in all {
            let (digest, is_small) = (&object.digest, object.bytes <= MAX_PACKED as u64);
            if known.is_waste(digest, object.age) {
                displaced.waste.push(object);
            } else if is_small && known.marks.has_blob(digest) && snapshot.is_packed(digest)? {
                displaced.copies.push(object);
            }
        }
        Ok(displaced)
    }
}

/// The files in `dir`, called by a digest, that `waste` names by that and by age in seconds; and their bytes.
fn outboards_waste(dir: &Path, waste: &dyn Fn(&Digest, u64) -> bool) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (name, meta) = (entry.file_name(), entry.metadata()?);
        let of = name.to_str().and_then(|name| name.split_once('.'));
        let Some(digest) = of.and_then(|(hex, _)| Digest::from_hex(hex)) else {
            continue;
        };
        // Young, if nobody can tell.
        let age = meta
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if waste(&digest, age.map_or(0, |age| age.as_secs())) {
            found.push((entry.path(), meta.len()));
        }
    }
    Ok(found)
}

fn at(place: &Place, source: io::Error) -> Error {
    Error::Displaced {
        path: place.root.path().to_owned(),
        source,
    }
}

fn busy() -> Error {
    Error::Refused(
        "something that needs the past is still under way; what is left is collected the next time".into(),
    )
}

fn worth_compacting(store: &Store) -> Result<bool, Error> {
    let free = store.free_bytes()?;
    Ok(free >= WORTH.0 && free >= store.bytes_on_disk() / WORTH.1)
}

fn compact(store: &Store) -> Result<(), Error> {
    for _ in 0..READERS.1 {
        if store.compact()? {
            return Ok(());
        }
        // Nobody is told when a reader ends: they are short, but for a checkout.
        std::thread::sleep(READERS.0);
    }
    tracing::info!("the database is compacted another time: somebody reads it all the time");
    Ok(())
}
