//! `Medium`: where an open database is, and who hears that it failed. Knows nothing of transactions.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::error::{Fault, StoreError};

/// What hears of a failure.
type Hear = Box<dyn Fn() + Send + Sync>;

/// The medium of a database, shared with its snapshots: whoever meets a failure tells of it here, whatever he does with the
/// error himself.
pub(crate) struct Medium {
    path: Box<Path>,
    hear: OnceLock<Hear>,
}

impl Medium {
    pub(crate) fn new(path: &Path) -> Arc<Medium> {
        Arc::new(Medium {
            path: path.into(),
            hear: OnceLock::new(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn on_failure(&self, hear: impl Fn() + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.hear.set(Box::new(hear));
    }

    /// The public error, after the failure was told of.
    pub(crate) fn error(&self, fault: Fault) -> StoreError {
        if fault.ends_all()
            && let Some(hear) = self.hear.get()
        {
            hear();
        }
        fault.at(&self.path)
    }
}
