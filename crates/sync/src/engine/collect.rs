//! `sync gc`, `sync pin`, and collecting by itself. The work runs on a blocking thread.

use std::sync::Arc;
use std::time::Duration;

use alike_store::FolderKey;
use tokio::time::Instant;

use super::folders::Slot;
use super::past::find_generation;
use super::socket::Responder;
use super::{Engine, Event};
use crate::collect::{Mode, Wanted, collect};
use crate::control::{FolderRef, Pinned};
use crate::error::Error;
use crate::folder::Place;

/// Pause before the first collection after a start, and between two.
const BY_ITSELF: (Duration, Duration) = (Duration::from_secs(15 * 60), Duration::from_secs(6 * 60 * 60));
/// How often the database's size is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// A database that has grown by so many bytes, and to twice its size, is collected sooner: each commit of a large first scan
/// leaves a tree that nobody needs when the next one is there.
const GROWN: u64 = 64 << 20;

/// When a collection begins by itself, and how far it goes.
struct Looks {
    due: Instant,
    /// The size of the database (bytes) when one began last, or a smaller one since.
    least: u64,
}

impl Looks {
    fn begin(now: Instant, bytes: u64) -> Looks {
        Looks {
            due: now + BY_ITSELF.0,
            least: bytes,
        }
    }

    /// Is it time for one, now that the database has so many bytes?
    fn look(&mut self, now: Instant, bytes: u64) -> Option<Mode> {
        // A collection since has made it smaller.
        self.least = self.least.min(bytes);
        let is_due = now >= self.due;
        if !is_due && bytes - self.least < self.least.max(GROWN) {
            return None;
        }
        self.least = bytes;
        if !is_due {
            // Something is going on: nobody should wait until a large database is compacted.
            return Some(Mode::Sweep);
        }
        self.due = now + BY_ITSELF.1;
        Some(Mode::Compact)
    }
}

impl Engine {
    /// Asks for a collection now and then, as long as the engine lives.
    pub(super) fn collect_by_itself(&self) {
        let events = self.events.downgrade();
        let store = Arc::downgrade(&self.store);
        tokio::spawn(async move {
            let size = || Some(store.upgrade()?.bytes_on_disk());
            let mut looks = Looks::begin(Instant::now(), size().unwrap_or(0));
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(bytes) = size() else { return };
                let Some(mode) = looks.look(Instant::now(), bytes) else {
                    continue;
                };
                let Some(events) = events.upgrade() else { return };
                if events.send(Event::Collect(mode)).await.is_err() {
                    return;
                }
            }
        });
    }

    fn places(&self) -> Vec<Arc<Place>> {
        let open = self.folders.values().filter_map(|slot| match slot {
            Slot::Open(folder) => Some(folder.place.clone()),
            Slot::Closed(_) => None,
        });
        open.collect()
    }

    /// The policy, on all folders.
    pub(super) fn collect_now(&self, mode: Mode) {
        let wanted: Vec<(FolderKey, Wanted)> = self
            .folders
            .keys()
            .map(|key| (*key, Wanted::Policy(self.config.retention)))
            .collect();
        let (store, places, busy) = (self.store.clone(), self.places(), self.collecting.clone());
        tokio::task::spawn_blocking(move || {
            let Ok(_alone) = busy.try_lock() else { return };
            match collect(&store, &places, &wanted, mode) {
                Ok(done) if done.removed_objects > 0 => tracing::info!(
                    objects = done.removed_objects,
                    bytes = done.freed_bytes,
                    generations = done.removed_generations,
                    "let go of what no kept generation needs"
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!("collecting: {error}"),
            }
        });
    }

    /// A person asks.
    pub(super) fn gc(
        &self,
        folder: &FolderRef,
        keep: Option<u64>,
        older_than_secs: Option<u64>,
        dry_run: bool,
        responder: Responder,
    ) -> Result<(), Error> {
        let keys: Vec<FolderKey> = match folder.name {
            Some(_) => vec![self.find_folder(folder)?],
            None => self.folders.keys().copied().collect(),
        };
        let wanted = match (keep, older_than_secs) {
            (None, None) => Wanted::Policy(self.config.retention),
            (keep, older) => Wanted::Asked {
                keep,
                older_ms: older.map(|secs| secs.saturating_mul(1000)),
            },
        };
        let wanted: Vec<(FolderKey, Wanted)> = keys.into_iter().map(|key| (key, wanted)).collect();
        let (store, places, busy) = (self.store.clone(), self.places(), self.collecting.clone());
        tokio::task::spawn_blocking(move || {
            // One after the other.
            let _alone = busy.lock().unwrap_or_else(|e| e.into_inner());
            let mode = if dry_run { Mode::Tell } else { Mode::Compact };
            match collect(&store, &places, &wanted, mode) {
                Ok(done) => responder.done(&done),
                Err(error) => responder.failed(error, false),
            }
        });
        Ok(())
    }

    pub(super) fn pin(
        &self,
        folder: &FolderRef,
        generation: &str,
        keep: bool,
        responder: &Responder,
    ) -> Result<(), Error> {
        let key = self.find_folder(folder)?;
        let found = find_generation(&self.store.snapshot()?, key, generation)?;
        if !super::short(|| self.store.pin(key, found.number, keep))? {
            return Err(Error::Refused(format!(
                "generation {} is not there any more",
                found.number
            )));
        }
        responder.done(&Pinned {
            folder: self.folders[&key].row().name.clone(),
            generation: found.number,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Looks at these sizes (MiB) a minute apart: what does each begin?
    fn looks(began: Instant, first: u64, sizes: &[u64]) -> Vec<Option<Mode>> {
        let mut looks = Looks::begin(began, first * MIB);
        let times = (1..).map(|n| began + n * LOOK);
        let looked = times.zip(sizes);
        looked.map(|(now, size)| looks.look(now, size * MIB)).collect()
    }

    #[test]
    fn what_has_doubled_by_64_mib_is_swept_and_not_compacted() {
        let (no, sweep) = (None, Some(Mode::Sweep));
        let began = Instant::now();
        // To twice as much, but by less than 64 MiB.
        assert_eq!(looks(began, 1, &[2, 20, 64, 65, 65]), [no, no, no, sweep, no]);
        // By 64 MiB, but not to twice as much.
        assert_eq!(looks(began, 100, &[164, 199, 200]), [no, no, sweep]);
        // From one collection to the next: from 65 MiB to 130.
        assert_eq!(looks(began, 0, &[65, 128, 129, 130]), [sweep, no, no, sweep]);
        // One has made it smaller.
        assert_eq!(looks(began, 300, &[100, 199, 200]), [no, no, sweep]);
        // It shrinks for good.
        assert_eq!(looks(began, 300, &[10, 9, 8]), [no, no, no]);
    }

    #[test]
    fn what_is_due_is_compacted_whatever_it_has_grown_to() {
        let began = Instant::now();
        let mut looks = Looks::begin(began, MIB);
        let due = began + BY_ITSELF.0;
        assert_eq!(looks.look(due - LOOK, MIB), None);
        assert_eq!(looks.look(due, MIB), Some(Mode::Compact));
        assert_eq!(looks.look(due + LOOK, MIB), None);
        let next = due + BY_ITSELF.1;
        // One that growth began puts off none that is due.
        assert_eq!(looks.look(next - 2 * LOOK, 100 * MIB), Some(Mode::Sweep));
        assert_eq!(looks.look(next - LOOK, 100 * MIB), None);
        assert_eq!(looks.look(next, 400 * MIB), Some(Mode::Compact));
        assert_eq!(looks.look(next + LOOK, 401 * MIB), None);
    }
}
