//! Names that a directory takes for one another: where case does not count, or where accents may be written in more
//! than one way, a name leads to what is listed under another one. Never changes anything.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use alike_core::path::{OWN_DIR, RelPath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, Place, Root, Stat, dir::stat_of, is_absent, sys};

impl Dir {
    /// The name under which what `name` leads to is listed, if that is another one. `stat` is what it leads to.
    pub(crate) fn other_spelling(&self, name: &[u8], stat: &Stat) -> io::Result<Option<Vec<u8>>> {
        sys::quietly(|| self.find_other_spelling(name, stat))
    }

    /// The same of whatever `name` leads to.
    pub(crate) fn other_name(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        sys::quietly(|| match self.stat(name)? {
            Some(stat) => self.find_other_spelling(name, &stat),
            None => Ok(None),
        })
    }

    fn find_other_spelling(&self, name: &[u8], stat: &Stat) -> io::Result<Option<Vec<u8>>> {
        if !self.may_fold(name, stat)? {
            return Ok(None);
        }
        let names = self.listed()?;
        if names.iter().any(|(listed, _)| listed == name) {
            return Ok(None);
        }
        // Most likely one that differs in case alone; but who knows what this file system does.
        let folded = fold(name);
        let (near, far): (Vec<_>, Vec<_>) = names.into_iter().partition(|(other, _)| fold(other) == folded);
        for (other, _) in near.into_iter().chain(far) {
            let found = self.stat(&other)?;
            if found.is_some_and(|found| is_same(&found, stat)) {
                return Ok(Some(other));
            }
        }
        // Gone meanwhile: nothing is known of it.
        Ok(None)
    }

    /// Could what `name` leads to have another name? Reading a directory may take long; one more look does not.
    fn may_fold(&self, name: &[u8], stat: &Stat) -> io::Result<bool> {
        let flipped: Vec<u8> = name
            .iter()
            .map(|b| {
                if b.is_ascii_lowercase() {
                    b.to_ascii_uppercase()
                } else {
                    b.to_ascii_lowercase()
                }
            })
            .collect();
        if flipped == name {
            return Ok(self.folds && !name.iter().all(u8::is_ascii_alphanumeric));
        }
        if self.minds_case.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let Some(other) = self.stat(&flipped)? else {
            // Unless it went in between, that holds for every name here.
            if self.stat(name)?.is_some() {
                self.minds_case.store(true, Ordering::Relaxed);
            }
            return Ok(false);
        };
        // A second name of the same file looks the same: the list tells.
        Ok(is_same(&other, stat))
    }

    /// The same as `entries`, also of a directory that was opened to act in it.
    fn listed(&self) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open: OwnedFd = sys::openat(self, ".", flags, Mode::empty())?;
        sys::entries(open)
    }
}

impl Root {
    /// Does the root's own directory take names that differ in case for one? Directories below it are asked again,
    /// each name, as each may be another way.
    pub(super) fn folds(&self) -> bool {
        if let Some(folds) = self.folds.get() {
            return *folds;
        }
        let look =
            |name: &str| sys::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat_of(&stat));
        let folds = match sys::quietly(|| (look(OWN_DIR), look(&OWN_DIR.to_ascii_uppercase()))) {
            (Ok(own), Ok(other)) => is_same(&own, &other),
            (Ok(_), Err(Errno::NOENT)) => false,
            // It is not there yet, or nobody can tell now.
            _ => return false,
        };
        *self.folds.get_or_init(|| folds)
    }

    /// Are all directories on the way to `dir`, and itself, listed as `dir` says?
    pub(crate) fn is_spelled(&self, dir: &RelPath) -> io::Result<bool> {
        sys::quietly(|| self.find_spelled(dir))
    }

    fn find_spelled(&self, dir: &RelPath) -> io::Result<bool> {
        for at in std::iter::once(dir.clone()).chain(dir.ancestors()) {
            let Some((above, name)) = at.split() else { break };
            let above = match self.place_dir(&above) {
                Ok(above) => above,
                Err(errno) if is_absent(errno) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            };
            let Some(stat) = above.stat(name.as_bytes())? else {
                return Ok(true);
            };
            if above.other_spelling(name.as_bytes(), &stat)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What has this path's name already, as far as the file system can tell the two apart.
    pub(crate) fn taken_by(&self, path: &RelPath) -> io::Result<Option<RelPath>> {
        let Some((dir, name)) = path.split() else {
            return Ok(None);
        };
        let open = match self.place_dir(&dir) {
            Ok(open) => open,
            Err(errno) if is_absent(errno) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let Some(stat) = open.stat(name.as_bytes())? else {
            return Ok(None);
        };
        let other = open.other_spelling(name.as_bytes(), &stat)?;
        Ok(other.and_then(|other| Some(dir.join(&alike_core::path::Name::new(&other).ok()?))))
    }
}

impl Place {
    /// Was what we just put there listed under another name? Only file systems on which case does not count are known
    /// to do that, and not with plain names: FAT drops dots and spaces at the end, others change how accents are written.
    pub(super) fn is_respelled(&self) -> bool {
        let name = self.name.as_bytes();
        let is_plain = name.is_ascii() && !name.ends_with(b".") && !name.ends_with(b" ");
        if !self.dir.folds || is_plain {
            return false;
        }
        let found = self.dir.stat(name).ok().flatten();
        found.is_some_and(|stat| matches!(self.dir.other_spelling(name, &stat), Ok(Some(_))))
    }

    /// Is what is there listed under this very name?
    pub(super) fn is_listed(&self, stat: &Stat) -> io::Result<bool> {
        Ok(self.dir.other_spelling(self.name.as_bytes(), stat)?.is_none())
    }
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    (a.dev, a.fingerprint.ino) == (b.dev, b.fingerprint.ino)
}

fn fold(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_lowercase()
}
