//! Content of a big file that is in an older version here: copied from there, each part verified against the new version's
//! tree as it is copied, because somebody may be writing the older one. Never asks a peer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use alike_core::digest::Digest;
use alike_core::message::{MAX_DELTA, SMALL_BLOB};
use alike_core::path::RelPath;
use alike_core::record::Value as Content;
use alike_core::subtree::{Subtree, Value, value_of};
use alike_store::Snapshot;

use crate::apply::Item;
use crate::chunks;
use crate::folder::{Look, Place};
use crate::outboard::{self, Outboard};

/// Groups that are copied and verified at once: 1 MiB.
pub(super) const UNIT: u64 = 64;
/// Inner hashes up to this size are looked at in memory (bytes): those of a file of 16 GiB.
const IN_MEMORY: u64 = 64 << 20;
/// Threads that copy one file.
const THREADS: usize = 2;

/// An older version.
pub(super) struct Base {
    file: File,
    size: u64,
    outboard: Outboard,
}

/// A file that is being put together.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) size: u64,
    /// There may be good content in it that nobody has noted: an earlier fetch's, or the older version's.
    pub(super) may_hold: bool,
}

/// A part of the new version, and what its content must come to.
pub(super) type Part = (Subtree, Value);

/// Where in the older version the bytes of a part are: offsets and lengths, in order.
pub(super) type Pieces = Vec<(u64, u64)>;

impl Base {
    /// The version that this item replaces, or is a conflict copy of, if it is big. Reads all of it where nobody knows its
    /// inner hashes.
    pub(super) fn of(place: &Place, snapshot: &Snapshot, item: &Item, size: u64) -> io::Result<Option<Base>> {
        if size > MAX_DELTA {
            return Ok(None);
        }
        let Some((path, digest)) = older(place, snapshot, item) else {
            return Ok(None);
        };
        match place.root.open_file(&path) {
            Ok(file) => Base::new(place, file, &digest),
            // Moved away by now, but for what was displaced.
            Err(_) => match place.root.open_object(&digest)? {
                Some(file) => Base::new(place, file, &digest),
                None => Ok(None),
            },
        }
    }

    /// `digest` is what it was last; if somebody has changed it since, most of it may still be of use.
    fn new(place: &Place, file: File, digest: &Digest) -> io::Result<Option<Base>> {
        let size = file.metadata()?.len();
        if size <= SMALL_BLOB || size > MAX_DELTA {
            return Ok(None);
        }
        let outboard = match outboard::kept(&place.outboards, size, digest)? {
            Some(outboard) => outboard,
            None => outboard::of_file(&place.outboards, &file, size)?,
        };
        let outboard = outboard.in_memory(IN_MEMORY)?;
        Ok(Some(Base { file, size, outboard }))
    }

    #[cfg(test)]
    pub(super) fn for_test(file: File, outboard: Outboard) -> Base {
        let size = outboard.size();
        Base { file, size, outboard }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Is this part of a new version of `size` bytes at the same place here?
    pub(super) fn has(&self, (part, value): &Part, size: u64) -> bool {
        let here = self.outboard.value_for(*part, size);
        here.is_ok_and(|here| here.as_ref() == Some(value))
    }

    /// The parts of at most [`UNIT`] groups of one that is the same here.
    pub(super) fn units(&self, (part, value): Part) -> io::Result<Vec<Part>> {
        if part.groups() <= UNIT {
            return Ok(vec![(part, value)]);
        }
        let values = self.outboard.values(part, UNIT)?.unwrap_or_default();
        Ok(part.below(UNIT).into_iter().zip(values).collect())
    }

    /// Where its chunks are, cut as those of a file of `like` bytes.
    pub(super) fn index(&self, like: u64) -> io::Result<chunks::Index> {
        chunks::Index::of(&self.file, self.size, like)
    }

    /// Shares its extents with the target, where the file system can: then most of it is there already.
    pub(super) fn share(&self, target: &mut Target) -> io::Result<()> {
        if !target.may_hold && rustix::fs::ioctl_ficlone(&target.file, &self.file).is_ok() {
            target.may_hold = true;
            target.file.set_len(target.size)?;
        }
        Ok(())
    }

    /// Copies what of `parts` is where `find` says, and is what it should be; returns which are in the target now.
    pub(super) fn copy(
        &self,
        target: &Target,
        parts: &[Part],
        find: &(dyn Fn(u64, u64) -> Option<Pieces> + Sync),
    ) -> io::Result<Vec<Subtree>> {
        let next = AtomicUsize::new(0);
        let copied = Mutex::new(Vec::with_capacity(parts.len()));
        let work = || {
            let mut buffer = Vec::new();
            let mut done = Vec::new();
            let result = loop {
                let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break Ok(());
                };
                match self.copy_one(target, part, find, &mut buffer) {
                    Ok(true) => done.push(part.0),
                    Ok(false) => {}
                    Err(error) => break Err(error),
                }
            };
            copied.lock().expect("nobody panics with it").append(&mut done);
            result
        };
        let threads = THREADS.min(parts.len());
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                result = result.and(
                    other
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a copier died"))),
                );
            }
            result
        })?;
        Ok(copied.into_inner().expect("nobody panicked with it"))
    }

    fn copy_one(
        &self,
        target: &Target,
        (part, value): &Part,
        find: &(dyn Fn(u64, u64) -> Option<Pieces> + Sync),
        buffer: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let (start, len) = part.extent(target.size);
        buffer.resize(len as usize, 0);
        if target.may_hold
            && target.file.read_exact_at(buffer, start).is_ok()
            && value_of(buffer, start) == *value
        {
            return Ok(true);
        }
        let Some(pieces) = find(start, len) else {
            return Ok(false);
        };
        let mut filled = 0;
        for (at, len) in pieces {
            let end = filled + len as usize;
            // What cannot be read is fetched.
            let piece = buffer.get_mut(filled..end);
            if piece.is_none_or(|piece| self.file.read_exact_at(piece, at).is_err()) {
                return Ok(false);
            }
            filled = end;
        }
        if filled != buffer.len() || value_of(buffer, start) != *value {
            return Ok(false);
        }
        outboard::put(&target.file, buffer, start)?;
        Ok(true)
    }
}

/// Where a content is that the new one is probably like, and its digest.
fn older(place: &Place, snapshot: &Snapshot, item: &Item) -> Option<(RelPath, Digest)> {
    let big = |content: &Content| match content {
        Content::File { digest, size } if *size > SMALL_BLOB => Some(*digest),
        Content::File { .. } | Content::Dir | Content::Symlink { .. } => None,
    };
    let at = |path: RelPath| {
        let row = snapshot.index(place.key, &path).ok()??;
        big(&row.mat.value).map(|digest| (path, digest))
    };
    if let Some(digest) = item.row.as_ref().and_then(|row| big(&row.mat.value)) {
        return Some((item.path.clone(), digest));
    }
    // A conflict copy is like what it is a copy of, and the other way round.
    let dir = item.path.parent()?;
    if let Some(original) = &item.head.as_ref()?.copy_of {
        return at(dir.join(original));
    }
    let root = snapshot.head(place.key).ok()?.state.root;
    let copies = Look::new(snapshot, root).copies_of(&item.path).ok()?;
    copies.iter().find_map(|name| at(dir.join(name)))
}
