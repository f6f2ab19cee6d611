//! Snapshots for whoever reads for long. Never one that is older than the question.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::StoreError;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// A snapshot that is replaced once something was committed since. One that is kept for long keeps all pages that
/// commits leave from being used again: the database grows by all that is written meanwhile.
pub struct Latest<'a> {
    store: &'a Store,
    /// With the number of commits that it is not older than.
    last: Mutex<Option<(u64, Arc<Snapshot>)>>,
}

impl<'a> Latest<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Latest {
            store,
            last: Mutex::default(),
        }
    }

    /// The database as it is now. Do not keep it for longer than a piece of work.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, StoreError> {
        let now = self.store.commits();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, snapshot)) = &*last
            && *then == now
        {
            return Ok(snapshot.clone());
        }
        *last = None;
        let snapshot = Arc::new(self.store.snapshot()?);
        *last = Some((now, snapshot.clone()));
        Ok(snapshot)
    }

    /// Nobody may ask for a while: one that is old by now is let go of.
    pub fn let_go(&self) {
        let now = self.store.commits();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.take_if(|(then, _)| *then != now);
    }
}
