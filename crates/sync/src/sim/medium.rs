//! What a database is on: bytes that are written at once, and last once they are synced. Never fails by itself.

use std::io;
use std::sync::{Arc, Mutex};

use alike_store::StorageBackend;

use super::rng::Rng;

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes and lengths since the last sync, in order.
    unsynced: Vec<Write>,
    /// The process that had it open is dead.
    opened: u64,
}

#[derive(Debug)]
enum Write {
    At(u64, Vec<u8>),
    Len(u64),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::At(at, bytes) => {
                let (from, end) = (*at as usize, *at as usize + bytes.len());
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[from..end].copy_from_slice(bytes);
            }
            Write::Len(len) => to.resize(*len as usize, 0),
        }
    }
}

/// The medium itself, in or out of a machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medium(Arc<Mutex<Bytes>>);

impl Medium {
    pub(crate) fn with(bytes: &[u8]) -> Self {
        let medium = Medium::default();
        let mut inner = medium.0.lock().expect("not poisoned");
        inner.now = bytes.to_vec();
        inner.durable = bytes.to_vec();
        drop(inner);
        medium
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("not poisoned").now.clone()
    }

    /// For one run of a process: when that is killed, nothing it still does reaches the medium.
    pub(crate) fn open(&self) -> Backend {
        let mut inner = self.0.lock().expect("not poisoned");
        inner.opened += 1;
        Backend {
            medium: self.clone(),
            opened: inner.opened,
        }
    }

    /// The process that has it open ends now.
    pub(crate) fn kill(&self) {
        self.0.lock().expect("not poisoned").opened += 1;
    }

    /// Of what was not synced, any part is lost.
    pub(crate) fn power_cut(&self, rng: &mut Rng) {
        let mut inner = self.0.lock().expect("not poisoned");
        let unsynced = std::mem::take(&mut inner.unsynced);
        let keep = rng.pick(&[0, 50, 90, 100]);
        let prefix = if rng.percent(50) {
            rng.below(unsynced.len() + 1)
        } else {
            unsynced.len()
        };
        let mut bytes = std::mem::take(&mut inner.durable);
        for write in &unsynced[..prefix] {
            if rng.percent(keep) || matches!(write, Write::Len(_)) {
                write.apply(&mut bytes);
            }
        }
        inner.now = bytes.clone();
        inner.durable = bytes;
    }
}

/// A medium as an open database has it.
#[derive(Debug)]
pub(crate) struct Backend {
    medium: Medium,
    opened: u64,
}

impl Backend {
    fn inner<T>(&self, act: impl FnOnce(&mut Bytes) -> io::Result<T>) -> Result<T, io::Error> {
        let mut inner = self.medium.0.lock().expect("not poisoned");
        if inner.opened != self.opened {
            return Err(io::Error::other("the process is dead"));
        }
        act(&mut inner)
    }

    fn write_down(&self, write: Write) -> Result<(), io::Error> {
        super::calls::on_medium("database write")?;
        self.inner(|inner| {
            write.apply(&mut inner.now);
            inner.unsynced.push(write);
            Ok(())
        })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner(|inner| Ok(inner.now.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner(|inner| {
            let from = offset as usize;
            let bytes = inner
                .now
                .get(from..from + out.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.write_down(Write::Len(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        super::calls::on_medium("database sync")?;
        self.inner(|inner| {
            for write in std::mem::take(&mut inner.unsynced) {
                write.apply(&mut inner.durable);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.write_down(Write::At(offset, data.to_vec()))
    }
}
