//! Displaced versions in `.alike/objects/ab/<digest>`: files that were at a path, put there by rename. Never
//! written, removed only where a collection says so (it decides elsewhere); read only with their digest checked.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use alike_core::digest::Digest;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::clone::is_clone;
use super::own::OBJECTS;
use super::temp::{ASIDE, is_absent_io};
use super::{Buffer, Content, Dir, Kind, Root, sys};

/// A displaced version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// What it is called; what is in it nobody has looked at here.
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Seconds since it was put there.
    pub(crate) age: u64,
    /// Does it share its bytes with the file that it was made of, as long as nobody edits that?
    pub(crate) is_clone: bool,
}

/// What removing a displaced version came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Done,
    NotThere,
    /// It was displaced just now, and stays.
    Young,
}

/// Directories of displaced versions, by the first two hex digits of what is in them; `None`: nobody knows.
#[derive(Debug)]
pub(crate) struct Shards(Option<HashSet<Vec<u8>>>);

impl Shards {
    /// Could there be a displaced version with this content?
    pub(crate) fn may_hold(&self, digest: &Digest) -> bool {
        self.0
            .as_ref()
            .is_none_or(|names| names.contains(format!("{:02x}", digest.0[0]).as_bytes()))
    }
}

impl Root {
    /// Copies a displaced version into a new temporary file. `None` if there is none, or it is damaged.
    pub(crate) fn temp_from_object(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_object(digest)? else {
            return Ok(None);
        };
        let stat = super::dir::stat_of(&sys::fstat(&file)?);
        self.temp_copy(&file, &stat, digest)
    }

    /// Opens a displaced version for reading; `None` if there is none. Its content is not verified here.
    pub(crate) fn open_object(&self, digest: &Digest) -> io::Result<Option<File>> {
        let hex = digest.to_hex();
        let shard = match self.own_dir(&format!("{OBJECTS}/{}", &hex[..2])) {
            Ok(shard) => shard,
            Err(errno) if super::is_absent(errno) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let file = match shard.open_file(hex.as_bytes()) {
            Ok(file) => file,
            Err(e) if is_absent_io(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let stat = super::dir::stat_of(&sys::fstat(&file)?);
        Ok((stat.kind == Kind::File).then_some(file))
    }

    /// Which directories of displaced versions there are.
    pub(crate) fn shards(&self) -> Shards {
        let listed = self.own_dir(OBJECTS).ok().and_then(|dir| dir.entries().ok());
        Shards(listed.map(|names| names.into_iter().map(|(name, _)| name).collect()))
    }

    /// Calls `seen` for each displaced version until that returns `false`.
    pub(crate) fn each_object(&self, seen: &mut dyn FnMut(&Object) -> bool) -> io::Result<()> {
        let absent = |errno: Errno| {
            if super::is_absent(errno) {
                Ok(())
            } else {
                Err(errno.into())
            }
        };
        let all = match self.own_dir(OBJECTS) {
            Ok(all) => all,
            Err(errno) => return absent(errno),
        };
        let now = crate::clock::now_ns();
        for (shard, _) in all.entries()? {
            let Ok(name) = std::str::from_utf8(&shard) else {
                continue;
            };
            let shard = match self.own_dir(&format!("{OBJECTS}/{name}")) {
                Ok(shard) => shard,
                Err(errno) => {
                    absent(errno)?;
                    continue;
                }
            };
            for (name, _) in shard.entries()? {
                let digest = std::str::from_utf8(&name).ok().and_then(Digest::from_hex);
                let (Some(digest), Some(stat)) = (digest, shard.stat(&name)?) else {
                    continue;
                };
                let age = now.saturating_sub(stat.fingerprint.ctime_ns) / 1_000_000_000;
                let object = Object {
                    digest,
                    bytes: stat.fingerprint.size,
                    age: u64::try_from(age).unwrap_or(0),
                    is_clone: is_clone(&stat),
                };
                if !seen(&object) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Removes a displaced version, but for one that was displaced at `since` (nanoseconds since 1970) or later.
    pub(crate) fn remove_object(&self, digest: &Digest, since: i64) -> io::Result<Removed> {
        let hex = digest.to_hex();
        let shard = match self.own_dir(&format!("{OBJECTS}/{}", &hex[..2])) {
            Ok(shard) => shard,
            Err(errno) if super::is_absent(errno) => return Ok(Removed::NotThere),
            Err(errno) => return Err(errno.into()),
        };
        match shard.stat(hex.as_bytes())? {
            Some(stat) if stat.fingerprint.ctime_ns >= since => return Ok(Removed::Young),
            Some(_) => {}
            None => return Ok(Removed::NotThere),
        }
        match sys::unlinkat(&shard, hex.as_bytes(), AtFlags::empty()) {
            Ok(()) => Ok(Removed::Done),
            Err(errno) if super::is_absent(errno) => Ok(Removed::NotThere),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes a displaced version whose content is kept elsewhere too, if it is still what its name says and nobody
    /// can be writing to it; but for one that was displaced at `since` or later. Is it gone?
    pub(crate) fn remove_copy(&self, digest: &Digest, since: i64, buffer: &mut Buffer) -> io::Result<bool> {
        // Whoever had it open when it was displaced may have it open still. Nobody opens it any more.
        let is_closed = self
            .open_object(digest)?
            .is_some_and(|file| !sys::may_be_written(&file));
        Ok(is_closed
            && self.is_object_good(digest, buffer, &mut |_| true)? == Some(true)
            && self.remove_object(digest, since)? == Removed::Done)
    }

    /// Keeps a content that was at no path here.
    pub(crate) fn keep_content(&self, digest: &Digest, content: &[u8]) -> io::Result<()> {
        let temp = self.temp_of(content)?;
        let kept = self
            .tmp()
            .map_err(io::Error::from)
            .and_then(|tmp| self.keep_as(&tmp, &temp, digest));
        if kept.is_err() {
            self.remove_temp(&temp);
        }
        kept
    }

    /// Is the displaced version what its name says? `None`: it is gone by now, or `tick` said to stop.
    pub(crate) fn is_object_good(
        &self,
        digest: &Digest,
        buffer: &mut Buffer,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Option<bool>> {
        let hex = digest.to_hex();
        let shard = match self.own_dir(&format!("{OBJECTS}/{}", &hex[..2])) {
            Ok(shard) => shard,
            Err(errno) if super::is_absent(errno) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        match shard.hash(hex.as_bytes(), None, buffer, None, tick) {
            Ok(Content::Is { digest: found, .. }) => Ok(Some(found == *digest)),
            Ok(Content::Changing) => Ok(Some(false)),
            Ok(Content::Gone | Content::Stopped) => Ok(None),
            Err(e) if is_unreadable(&e) => Ok(Some(false)),
            Err(e) => Err(e),
        }
    }

    /// Puts a temporary file whose content is `digest` into the objects; one that is there and damaged gives way.
    pub(crate) fn temp_to_object(&self, temp: &[u8], digest: &Digest) -> io::Result<()> {
        let tmp = self.tmp()?;
        self.keep_as(&tmp, temp, digest)
    }

    /// Takes away the name of a displaced version that is damaged, and for which there is no good content: what is in
    /// it is kept as what it is.
    pub(crate) fn put_object_aside(&self, digest: &Digest) -> io::Result<()> {
        let hex = digest.to_hex();
        let (tmp, shard) = (self.tmp()?, self.own_dir(&format!("{OBJECTS}/{}", &hex[..2]))?);
        let aside = self.fresh_name(ASIDE);
        self.rename_new(&shard, hex.as_bytes(), &tmp, &aside)?;
        self.keep_whatever(&tmp, &aside);
        Ok(())
    }

    /// The directory of an object, made if it is not there.
    pub(super) fn object_dir(&self, digest: &Digest) -> io::Result<Dir> {
        let path = format!("{OBJECTS}/{}", &digest.to_hex()[..2]);
        match self.own_dir(&path) {
            Err(Errno::NOENT) => {
                for dir in [OBJECTS, &path] {
                    match sys::mkdirat(&self.fd, dir, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Ok(self.own_dir(&path)?)
            }
            other => Ok(other?),
        }
    }

    /// Puts `tmp/name`, whose content is known to be `digest`, into the objects.
    pub(super) fn keep_as(&self, tmp: &Dir, name: &[u8], digest: &Digest) -> io::Result<()> {
        let hex = digest.to_hex();
        let shard = self.object_dir(digest)?;
        match self.rename_new(tmp, name, &shard, hex.as_bytes()) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        // A clone of it: what was displaced is kept once, and need not be read for that.
        if self.replace_clone(tmp, name, &shard, hex.as_bytes())? {
            return Ok(());
        }
        // It is there already: one of the two is enough, once it is sure that the other is good.
        let mut buffer = Buffer::new();
        match shard.hash(hex.as_bytes(), None, &mut buffer, None, &mut |_| true) {
            Ok(Content::Is { digest: found, .. }) if found == *digest => {
                // What goes must be the same: known is only what it was when it was looked at last.
                return match tmp.hash(name, None, &mut buffer, None, &mut |_| true)? {
                    Content::Is { digest: own, .. } if own == *digest => {
                        self.keep_instead(tmp, name, &shard, hex.as_bytes())
                    }
                    Content::Is { digest: own, .. } => self.keep_as(tmp, name, &own),
                    Content::Changing | Content::Gone | Content::Stopped => Err(io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        "somebody is writing it",
                    )),
                };
            }
            _ => {}
        }
        // Somebody who had the file open wrote into it after it was displaced. Both are kept.
        let spoilt = self.fresh_name(ASIDE);
        self.rename_new(&shard, hex.as_bytes(), tmp, &spoilt)?;
        self.rename_new(tmp, name, &shard, hex.as_bytes())?;
        match self.keep_as_found(tmp, &spoilt) {
            Ok(_) => {}
            Err(e) => tracing::warn!(error = %e, "a damaged object stays in .alike/tmp"),
        }
        Ok(())
    }

    /// Puts `tmp/name` in the place of a displaced version with the same content, which goes: that it was displaced just
    /// now, and is not waste from long ago, the time of its last move tells a collection.
    fn keep_instead(&self, tmp: &Dir, name: &[u8], shard: &Dir, hex: &[u8]) -> io::Result<()> {
        let old = self.fresh_name(ASIDE);
        self.rename_new(shard, hex, tmp, &old)?;
        if let Err(errno) = self.rename_new(tmp, name, shard, hex) {
            self.rename_new(tmp, &old, shard, hex)?;
            return Err(errno.into());
        }
        Ok(sys::unlinkat(tmp, &old, AtFlags::empty())?)
    }

    /// Puts `tmp/name` into the objects under the digest of what is in it.
    pub(super) fn keep_as_found(&self, tmp: &Dir, name: &[u8]) -> io::Result<Digest> {
        let mut buffer = Buffer::new();
        match tmp.hash(name, None, &mut buffer, None, &mut |_| true)? {
            Content::Is { digest, .. } => {
                self.keep_as(tmp, name, &digest)?;
                Ok(digest)
            }
            Content::Changing | Content::Gone | Content::Stopped => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "somebody is writing it",
            )),
        }
    }
}

/// Does the disk fail to read what is there? (A file system with checksums says of rot that it cannot be read.)
pub(crate) fn is_unreadable(e: &io::Error) -> bool {
    Errno::from_io_error(e).is_some_and(|errno| matches!(errno, Errno::IO | Errno::BADMSG | Errno::UCLEAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::folder;

    #[test]
    fn a_displaced_version_is_looked_for_where_it_can_be() {
        let f = folder();
        let digest = Digest::of(b"old");
        assert!(!f.root.shards().may_hold(&digest));
        f.root.keep_content(&digest, b"old").unwrap();
        assert!(f.root.shards().may_hold(&digest));
    }
}
