//! A file is read on one thread and hashed on another.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::{panic, thread};

/// Bytes of a part.
const PART: usize = 256 * 1024;
/// Parts that are read and not hashed yet.
const WAITING: usize = 4;

/// Reads `size` bytes of `source` here, while `work` goes through them on a thread of its own. An error of `source`, also its
/// end before them, is the result.
pub(super) fn read_ahead<T: Send>(
    source: &mut dyn Read,
    size: u64,
    work: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send,
) -> io::Result<T> {
    let (full, ready) = sync_channel(WAITING);
    let (used, empty) = channel();
    thread::scope(|scope| {
        let mut parts = Parts {
            part: Vec::new(),
            at: 0,
            ready,
            used,
        };
        let worker = thread::Builder::new()
            .name("hash".into())
            .spawn_scoped(scope, move || work(&mut parts))?;
        let read = fill(source, size, &full, &empty);
        drop(full);
        let worked = worker
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        read.and(worked)
    })
}

/// Reads part after part, until all is read or nobody wants more.
fn fill(
    source: &mut dyn Read,
    size: u64,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let mut part = empty.try_recv().unwrap_or_default();
        part.resize(left.min(PART as u64) as usize, 0);
        source.read_exact(&mut part)?;
        left -= part.len() as u64;
        if full.send(part).is_err() {
            break;
        }
    }
    Ok(())
}

/// What was read, for the other thread.
struct Parts {
    part: Vec<u8>,
    at: usize,
    ready: Receiver<Vec<u8>>,
    used: std::sync::mpsc::Sender<Vec<u8>>,
}

impl Read for Parts {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.part.len() {
            let Ok(next) = self.ready.recv() else {
                return Ok(0);
            };
            // Nobody takes it when all has been read.
            let _ = self.used.send(std::mem::replace(&mut self.part, next));
            self.at = 0;
        }
        let n = out.len().min(self.part.len() - self.at);
        out[..n].copy_from_slice(&self.part[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
