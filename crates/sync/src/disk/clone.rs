//! Clones: what is in a big file, kept among the displaced versions before anybody edits it in place, where the file
//! system can share the bytes of two files (btrfs, XFS). Nothing is ever copied for it, and nothing fails for want of it.

use std::fs::File;
use std::io;

use alike_core::digest::Digest;
use alike_store::MAX_PACKED;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::content::forget;
use super::temp::ASIDE;
use super::{Dir, Kind, Root, Stat, Ways, sys, temp};
use crate::failpoint::point;

/// When a clone says it was edited last (nanoseconds since 1970). Whoever writes to it sets another time, so an object that
/// says this is what it was when it was hashed, and nobody's bytes go with it if another one takes its place.
pub(crate) const CLONED: i64 = 101_010_101;
/// Files over this (bytes) are cloned: smaller contents are in packs. (A simulated file is small.)
pub(crate) const CLONED_FROM: u64 = if cfg!(test) { 1 } else { MAX_PACKED as u64 };
/// A hundredth of the file system stays free of clones, but no more than this (bytes): what an edit would free stays
/// taken, and the past is worth less than room to work.
const SPARE: u64 = 1 << 30;

/// Is it a clone, as it was made?
pub(super) fn is_clone(stat: &Stat) -> bool {
    stat.kind == Kind::File && stat.fingerprint.mtime_ns == CLONED
}

/// A clone in `.alike/tmp`, which nobody else writes to. Gone with this, unless it is kept.
pub(crate) struct Cloned<'a> {
    root: &'a Root,
    name: Vec<u8>,
    file: File,
}

impl Root {
    /// Can its files be cloned, as far as anybody has tried?
    pub(super) fn may_clone(&self) -> bool {
        Ways::has(&self.ways.clones)
    }

    /// Clones an open file, if it is too big for packs.
    pub(crate) fn clone_of(&self, file: &File, size: u64) -> Option<Cloned<'_>> {
        if size <= CLONED_FROM || !self.may_clone() || self.is_short_of_room() {
            return None;
        }
        match self.try_clone(file) {
            Ok(clone) => Some(clone),
            Err(error) => {
                // Any other error, EINVAL too, may be about this file alone: one that btrfs does not copy on write.
                if let Some(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) =
                    Errno::from_io_error(&error)
                {
                    self.ways
                        .clones
                        .store(false, std::sync::atomic::Ordering::Relaxed);
                }
                tracing::debug!(root = %self.path.display(), "a file is not cloned: {error}");
                None
            }
        }
    }

    /// The same of a temporary file.
    pub(crate) fn clone_of_temp(&self, name: &[u8], size: u64) -> Option<Cloned<'_>> {
        // Most are small: those are not even opened.
        if size <= CLONED_FROM || !self.may_clone() {
            return None;
        }
        let file = self.tmp().ok()?.open_file(name).ok()?;
        self.clone_of(&file, size)
    }

    fn try_clone(&self, file: &File) -> io::Result<Cloned<'_>> {
        let (name, made) = self.temp_file()?;
        let clone = Cloned {
            root: self,
            name,
            file: made,
        };
        sys::ficlone(&clone.file, file)?;
        point("clone.made");
        Ok(clone)
    }

    fn is_short_of_room(&self) -> bool {
        self.room()
            .is_ok_and(|room| room.free < (room.total / 100).min(SPARE))
    }

    /// Is what is kept of this content a clone of what was in the folder, and no displaced version? `None`: nothing is.
    pub(crate) fn is_object_clone(&self, digest: &Digest) -> io::Result<Option<bool>> {
        let Some(file) = self.open_object(digest)? else {
            return Ok(None);
        };
        Ok(Some(is_clone(&super::dir::stat_of(&sys::fstat(&file)?))))
    }

    fn keep_clone(&self, name: &[u8], digest: &Digest) -> io::Result<()> {
        let (tmp, shard) = (self.tmp()?, self.object_dir(digest)?);
        let hex = digest.to_hex();
        let hex = hex.as_bytes();
        match self.rename_new(&tmp, name, &shard, hex) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        // One of long ago may share its bytes with nothing that is still there: this one does.
        if self.replace_clone(&tmp, name, &shard, hex)? {
            return Ok(());
        }
        // A displaced version stays. A collection sees by its last change that it is wanted again.
        let there = shard.open_file(hex)?;
        let mode = sys::fstat(&there)?.st_mode;
        Ok(sys::fchmod(&there, Mode::from_raw_mode(mode))?)
    }

    /// Puts `tmp/name` in the place of a clone with the same content, which goes. `false`: there is none, but something
    /// else.
    pub(super) fn replace_clone(&self, tmp: &Dir, name: &[u8], shard: &Dir, hex: &[u8]) -> io::Result<bool> {
        if !matches!(shard.stat(hex)?, Some(there) if is_clone(&there)) {
            return Ok(false);
        }
        let old = self.fresh_name(ASIDE);
        self.rename_new(shard, hex, tmp, &old)?;
        // A displaced version may have come in its place since.
        let is_it = matches!(tmp.stat(&old)?, Some(out) if is_clone(&out));
        let put = if is_it {
            self.rename_new(tmp, name, shard, hex)
        } else {
            Err(Errno::EXIST)
        };
        match put {
            Ok(()) => {}
            Err(Errno::EXIST) if is_it => {}
            Err(errno) => {
                if self.rename_new(tmp, &old, shard, hex).is_err() {
                    self.keep_whatever(tmp, &old);
                }
                return if is_it { Err(errno.into()) } else { Ok(false) };
            }
        }
        sys::unlinkat(tmp, &old, AtFlags::empty())?;
        Ok(put.is_ok())
    }
}

impl Cloned<'_> {
    /// What is in it.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Keeps it: it is known to be `digest`. Not durable yet.
    pub(crate) fn keep(self, digest: &Digest) -> bool {
        // The file itself is read from now on; this is of use when that has changed.
        forget(&self.file);
        let kept = sys::futimens(&self.file, &temp::times(CLONED))
            .map_err(io::Error::from)
            .and_then(|()| self.root.keep_clone(&self.name, digest));
        match kept {
            Ok(()) => point("clone.kept"),
            Err(error) => tracing::debug!(root = %self.root.path.display(), "a clone is not kept: {error}"),
        }
        self.root.open_object(digest).is_ok_and(|there| there.is_some())
    }
}

impl Drop for Cloned<'_> {
    fn drop(&mut self) {
        // Nothing is there under that name if it was kept. What a panic leaves is cleared by the next start.
        if !std::thread::panicking() {
            self.root.remove_temp(&self.name);
        }
    }
}
