//! A database's medium that dies with its process after so many operations. Never decides what is lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alike_store::StorageBackend;

use crate::sim::medium::{Backend, Medium};

/// A medium that dies after so many operations.
#[derive(Clone, Debug)]
pub(super) struct Mortal {
    pub(super) medium: Medium,
    /// Below zero: it lives.
    left: Arc<AtomicI64>,
    dead: Arc<AtomicI64>,
}

impl Mortal {
    pub(super) fn on(medium: Medium) -> Mortal {
        Mortal {
            medium,
            left: Arc::new(AtomicI64::new(-1)),
            dead: Arc::default(),
        }
    }

    /// For one run of a process.
    pub(super) fn open(&self) -> impl StorageBackend + use<> {
        Counted(self.medium.open(), self.clone())
    }

    pub(super) fn dies_in(&self, operations: usize) {
        self.left.store(operations as i64, Ordering::Relaxed);
    }

    pub(super) fn kill(&self) {
        self.medium.kill();
        self.dead.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed) == 1
    }

    /// Was it to die, and has not yet? Now it lives on.
    pub(super) fn cannot_die_any_more(&self) -> bool {
        self.left.swap(-1, Ordering::Relaxed) >= 0
    }

    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.kill();
        }
        self.left.fetch_max(-1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Counted(Backend, Mortal);

impl StorageBackend for Counted {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.1.count();
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.1.count();
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.1.count();
        self.0.write(offset, data)
    }
}
