//! Who needs what nothing in the database reaches: leases keep a collection away for a moment, holds keep one
//! generation for as long as somebody reads it. In memory alone: whoever needs it ends with the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;

use crate::error::StoreError;
use crate::folders::FolderKey;
use crate::generations::Generation;
use crate::store::Store;

/// What is counted.
#[derive(Debug, Default)]
struct Counts {
    leases: usize,
    /// Collections that wait for the last lease to end.
    waiting: usize,
    next: u64,
    held: BTreeMap<u64, Held>,
}

/// A generation that somebody reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) folder: FolderKey,
    pub(crate) number: u64,
    pub(crate) root: Digest,
    pub(crate) state: Option<Digest>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    /// The last lease ended, or nobody waits for that any more.
    turn: Condvar,
}

/// The leases and holds of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Shared>);

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().expect("nobody panics while he counts")
    }
}

/// While it lives, what is in the database is not swept, reached or not.
#[derive(Debug)]
pub struct Lease(Leases);

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.leases -= 1;
        if counts.leases == 0 {
            self.0.0.turn.notify_all();
        }
    }
}

/// While it lives, a collection keeps everything that one generation reaches, whether or not the generation stays.
#[derive(Debug)]
pub struct Hold {
    leases: Leases,
    at: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leases.lock().held.remove(&self.at);
    }
}

/// While it lives there is no [`Lease`] and no new [`Hold`], and whoever wants one waits: for one short step.
#[derive(Debug)]
pub struct Alone<'a>(MutexGuard<'a, Counts>);

impl Alone<'_> {
    pub(crate) fn held(&self) -> impl Iterator<Item = &Held> {
        self.0.held.values()
    }

    /// Does somebody read this generation?
    pub(crate) fn is_held(&self, folder: FolderKey, number: u64) -> bool {
        self.held()
            .any(|held| held.folder == folder && held.number == number)
    }
}

impl Store {
    /// To be held by whoever writes a commit that may name tree nodes it does not bring along, from before he looks
    /// for them.
    pub fn lease(&self) -> Lease {
        let leases = &self.leases;
        let mut counts = leases.lock();
        // A collection whose turn has come goes first: else it had none while one lease follows the other.
        while counts.leases == 0 && counts.waiting > 0 {
            counts = leases.0.turn.wait(counts).expect("nobody panics while he counts");
        }
        counts.leases += 1;
        Lease(leases.clone())
    }

    /// To be held by whoever reads a generation for long. `None`: it is not there any more.
    pub fn hold(&self, folder: FolderKey, generation: &Generation) -> Result<Option<Hold>, StoreError> {
        // No step of a collection runs meanwhile.
        let mut counts = self.leases.lock();
        if self.snapshot()?.generation(folder, generation.number)?.as_ref() != Some(generation) {
            return Ok(None);
        }
        let at = counts.next;
        counts.next += 1;
        let held = Held {
            folder,
            number: generation.number,
            root: generation.root,
            state: generation.state,
        };
        counts.held.insert(at, held);
        Ok(Some(Hold {
            leases: self.leases.clone(),
            at,
        }))
    }

    /// Keeps leases away for one short step; `None` if there is one until the end of `patience`.
    pub fn alone(&self, patience: Duration) -> Option<Alone<'_>> {
        let until = Instant::now() + patience;
        let mut counts = self.leases.lock();
        counts.waiting += 1;
        while counts.leases > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.leases.0.turn.wait_timeout(counts, left);
            counts = waited.expect("nobody panics while he counts").0;
        }
        counts.waiting -= 1;
        self.leases.0.turn.notify_all();
        (counts.leases == 0).then_some(Alone(counts))
    }
}
