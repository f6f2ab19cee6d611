//! A medium in memory that remembers what was done to it, and fails where it is told to. It makes the images
//! that a crash could have left of it. Never knows what a database is.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Lcg;

/// What disks write whole or not at all, in bytes.
const SECTOR: usize = 512;

/// Something done to the medium.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Inner {
    /// As this process sees it.
    seen: Vec<u8>,
    log: Vec<Op>,
    /// At which operation it begins to fail, and how.
    fails: Option<(usize, i32)>,
    /// Operations tried since then: one alone, or all that follow, may fail.
    failing: usize,
}

/// Shared with the database that is on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medium(Arc<Mutex<Inner>>);

impl Medium {
    /// A medium that holds `image`, with nothing recorded.
    pub(crate) fn holding(image: Vec<u8>) -> Medium {
        let medium = Medium::default();
        medium.inner().seen = image;
        medium
    }

    /// The `at`-th operation from the start of the recording fails with the error number `errno`, and so does
    /// what follows, as on a disk that is broken or full.
    pub(crate) fn fail(&self, at: usize, errno: i32) {
        self.inner().fails = Some((at, errno));
    }

    /// Did something fail?
    pub(crate) fn has_failed(&self) -> bool {
        self.inner().failing > 0
    }

    /// How many operations were done.
    pub(crate) fn count(&self) -> usize {
        self.inner().log.len()
    }

    pub(crate) fn log(&self) -> Vec<Op> {
        self.inner().log.clone()
    }

    /// What another process would see now.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.inner().seen.clone()
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(&self, op: Op) -> io::Result<()> {
        let mut inner = self.inner();
        if let Some((at, errno)) = inner.fails
            && inner.log.len() >= at
        {
            inner.failing += 1;
            return Err(io::Error::from_raw_os_error(errno));
        }
        apply(&mut inner.seen, &op);
        inner.log.push(op);
        Ok(())
    }
}

impl redb::StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        let from = inner.seen.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(Op::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(Op::Write(offset, data.to_vec()))
    }
}

/// Does `op` to `image`. A write beyond the end makes the file longer.
pub(crate) fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, data) => {
            let (at, end) = (*at as usize, *at as usize + data.len());
            if image.len() < end {
                image.resize(end, 0);
            }
            image[at..end].copy_from_slice(data);
        }
        Op::SetLen(len) => image.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

/// Which of the writes that were not synced a crash leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// None is lost.
    None,
    /// Any of them may be lost.
    Some,
    /// Any of their sectors may be lost.
    Torn,
    /// The last one is cut off at a sector.
    CutOff,
}

/// What a crash leaves of `durable` and what was done since the last sync. The file's length is kept (a file
/// system orders it before the data that it makes room for); how much of the content is kept says `loss`.
pub(crate) fn crash(durable: &[u8], since: &[Op], loss: Loss, random: &mut Lcg) -> Vec<u8> {
    let mut image = durable.to_vec();
    let odds = 1 + random.below(4);
    for (i, op) in since.iter().enumerate() {
        let Op::Write(at, data) = op else {
            apply(&mut image, op);
            continue;
        };
        let last = i + 1 == since.len();
        let sectors = data.len().div_ceil(SECTOR).max(1);
        let whole = random.below(5) >= odds;
        let cut = random.below(sectors);
        for (k, part) in data.chunks(SECTOR).enumerate() {
            let kept = match loss {
                Loss::None => true,
                Loss::Some => whole,
                Loss::Torn => random.below(5) >= odds,
                Loss::CutOff => !last || k < cut,
            };
            if kept {
                apply(&mut image, &Op::Write(at + (k * SECTOR) as u64, part.to_vec()));
            }
        }
    }
    image
}
