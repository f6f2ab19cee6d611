//! The way back from a move that was cut off: what somebody had saved at the path in that very moment returns to
//! it. Never touches a path at which anything else than our own version is.

use std::io;

use alike_core::conflict::conflict_name;
use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use rustix::io::Errno;

use super::moves::exchange;
use super::own::TMP;
use super::temp::ASIDE;
use super::{Buffer, Content, Dir, Kind, Place, Root, is_absent, lease};
use crate::failpoint::point;

/// Digits of the content's digest in the name of a file put beside its place.
const DIGITS: usize = 8;

/// Ends the name of what is taken away from `path`, so that it can be told after a crash where it came from.
fn mark(path: &RelPath) -> Vec<u8> {
    let hex = Digest::of(path.as_bytes()).to_hex();
    [b"-", &hex.as_bytes()[..16]].concat()
}

impl Root {
    /// A name that is never removed, for what is taken away from `path`.
    pub(super) fn aside_of(&self, path: &RelPath) -> Vec<u8> {
        let mut name = self.fresh_name(ASIDE);
        name.extend_from_slice(&mark(path));
        name
    }

    /// The names of what moves that were cut off have taken away.
    pub(crate) fn asides(&self) -> io::Result<Vec<Vec<u8>>> {
        let tmp = match self.own_dir(TMP) {
            Ok(tmp) => tmp,
            Err(errno) if is_absent(errno) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let names = tmp.entries()?.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| name.starts_with(ASIDE)).collect())
    }

    /// A move at `path` was cut off that was to put `after` in the place of `before`. Where it had taken away
    /// something else (one of `asides`), saved by somebody between its look and its move and not put back yet, or what
    /// a program has open for writing, that goes back to its path: where nothing is, or in exchange for `after`. To be called before any other move.
    pub(crate) fn put_back_saved(
        &self,
        asides: &[Vec<u8>],
        path: &RelPath,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> io::Result<()> {
        let mark = mark(path);
        for name in asides.iter().filter(|name| name.ends_with(&mark)) {
            let tmp = self.own_dir(TMP)?;
            let held = value(&tmp, name)?;
            // One that a program still has open for writing goes back too: what it writes belongs to the path.
            let is_known = held.as_ref() == before || held.as_ref() == after;
            if held.is_none() || (is_known && !lease::is_being_written(&tmp, name)) {
                continue;
            }
            // Its directory went as well: then it stays with the displaced versions.
            let Ok(place) = self.place(path) else { continue };
            if self.put_back_at(&tmp, name, &place, after)? {
                tracing::warn!(%path, "what was saved there while it was changed from afar is at its path again");
            }
            point("recover.back");
        }
        Ok(())
    }

    /// Somebody made a directory where his file was a moment before and will be again: he overwrote nothing. The file
    /// gets the name of a conflict copy beside it. Was that so, and was it done?
    pub(super) fn put_beside(&self, tmp: &Dir, name: &[u8], place: &Place) -> bool {
        if !matches!(place.stat(), Ok(Some(stat)) if stat.kind == Kind::Dir) {
            return false;
        }
        let Ok(Some(Value::File { digest, .. })) = value(tmp, name) else {
            return false;
        };
        let beside = conflict_name(&place.name, digest, DIGITS);
        let put = self.rename_new(tmp, name, &place.dir, beside.as_bytes());
        if put.is_ok() {
            tracing::warn!(path = %place.path, "a directory was made where a file was: the file is beside it");
        }
        put.is_ok()
    }

    fn put_back_at(&self, tmp: &Dir, name: &[u8], place: &Place, after: Option<&Value>) -> io::Result<bool> {
        let at = place.name.as_bytes();
        let seen = place.dir.stat(at)?;
        let there = value(&place.dir, at)?;
        if there.is_none() && seen.is_none() {
            return match self.rename_new(tmp, name, &place.dir, at) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST | Errno::NOENT) => Ok(false),
                Err(errno) => Err(errno.into()),
            };
        }
        if there.is_none() || there.as_ref() != after {
            self.put_beside(tmp, name, place);
            return Ok(false);
        }
        exchange(tmp, name, place)?;
        // And once more somebody may have been faster.
        let out = tmp.stat(name)?;
        if out.map(|out| out.fingerprint.ino) != seen.map(|seen| seen.fingerprint.ino) {
            exchange(tmp, name, place)?;
            return Ok(false);
        }
        Ok(true)
    }
}

/// What is under a name; `None` for nothing, and for what cannot be told.
fn value(dir: &Dir, name: &[u8]) -> io::Result<Option<Value>> {
    let Some(stat) = dir.stat(name)? else {
        return Ok(None);
    };
    Ok(match stat.kind {
        Kind::Dir => Some(Value::Dir),
        Kind::Symlink => Some(Value::Symlink {
            target: dir.read_link(name)?.into(),
        }),
        Kind::File => match dir.hash(name, None, &mut Buffer::new(), None, &mut |_| true)? {
            Content::Is { digest, stat } => Some(Value::File {
                digest,
                size: stat.fingerprint.size,
            }),
            Content::Changing | Content::Gone | Content::Stopped => None,
        },
        Kind::Special(_) => None,
    })
}
