//! Renames that spare whatever has the new name, and whatever somebody puts at the old one meanwhile; also where
//! the file system has no such rename. Never looks at contents.

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use super::{Dir, Place, Root, Ways, sys};
use crate::failpoint::{may_fail, point};

impl Root {
    /// Renames what is ours (a name that only this process uses), unless something has the new name already.
    pub(super) fn rename_new(&self, from: &Dir, name: &[u8], to: &Dir, new: &[u8]) -> rustix::io::Result<()> {
        if Ways::has(&self.ways.no_replace) {
            match self.rename_sparing(from, name, to, new) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                other => return other,
            }
        }
        // A second name, then the first one goes: also never over what is there.
        match sys::linkat(from, name, to, new, AtFlags::empty()) {
            Ok(()) => {}
            // A directory has one name only. Renamed, it takes the place of an empty one at the most.
            Err(Errno::PERM) if is_dir(from, name) => {
                return sys::renameat_with(from, name, to, new, RenameFlags::empty());
            }
            Err(Errno::PERM | Errno::NOSYS) => return Err(Errno::OPNOTSUPP),
            Err(errno) => return Err(errno),
        }
        // It has its new name, whether or not it loses the old one.
        if let Err(errno) = sys::unlinkat(from, name, AtFlags::empty()) {
            tracing::warn!(name = %name.escape_ascii(), %errno, "a file keeps the name in .alike that it had");
        }
        Ok(())
    }

    /// Renames what is at a place to `aside`, a name of our own that nothing has.
    pub(super) fn rename_away(&self, place: &Place, tmp: &Dir, aside: &[u8]) -> rustix::io::Result<()> {
        let (dir, name) = (&place.dir, place.name.as_bytes());
        if Ways::has(&self.ways.no_replace) {
            match self.rename_sparing(dir, name, tmp, aside) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                other => return other,
            }
        }
        // A second name first: where there is no way to give one, nothing could be put back either.
        match sys::linkat(dir, name, tmp, aside, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::NOSYS) => return Err(Errno::OPNOTSUPP),
            Err(errno) => return Err(errno),
        }
        #[cfg(test)]
        self.between_names.act();
        // The first one is renamed, not removed: a save may have put another file there since.
        let other = self.aside_of(&place.path);
        match sys::renameat_with(dir, name, tmp, &other, RenameFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        point("move.away");
        let look = |name: &[u8]| sys::statat(tmp, name, AtFlags::SYMLINK_NOFOLLOW);
        match (look(aside), look(&other)) {
            (Ok(one), Ok(two)) if one.st_ino == two.st_ino => sys::unlinkat(tmp, &other, AtFlags::empty()),
            // Whoever looks at the path next finds it changed.
            (Ok(_), Ok(_)) => self.put_back(tmp, &other, place),
            (Err(errno), _) | (_, Err(errno)) => {
                self.put_back(tmp, &other, place)?;
                Err(errno)
            }
        }
    }

    fn rename_sparing(&self, from: &Dir, name: &[u8], to: &Dir, new: &[u8]) -> rustix::io::Result<()> {
        may_fail("move.rename").map_err(|_| Errno::INVAL)?;
        sys::renameat_with(from, name, to, new, RenameFlags::NOREPLACE)
    }
}

fn is_dir(dir: &Dir, name: &[u8]) -> bool {
    let stat = sys::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
