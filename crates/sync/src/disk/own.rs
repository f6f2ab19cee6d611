//! `.alike/`, the directory in the root that is alike's own: the marker that tells this folder from a
//! directory that happens to be at its path. Never touches what is outside it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use alike_core::path::OWN_DIR;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, DiskError, Root, sys};

/// Temporary files.
pub(super) const TMP: &str = ".alike/tmp";
/// Displaced versions.
pub(super) const OBJECTS: &str = ".alike/objects";
const MARKER: &str = "marker";
/// Tells git that nothing in `.alike` is its business, where the folder is a repository: it would be offered for
/// every commit, and `git stash -u` or `git clean -d` would take it away.
const GITIGNORE: &str = ".gitignore";
/// A marker is 32 hex digits and a newline; longer files are not read.
const MARKER_LEN: usize = 33;

const PRIVATE: Mode = Mode::RWXU;

/// A folder that no other engine touches as long as this is there.
#[derive(Debug)]
pub(crate) struct Taken(#[expect(dead_code, reason = "its lock ends with it")] Option<Dir>);

/// Why there is no marker to be had.
enum NoMarker {
    Missing,
    Malformed,
    Io(Errno),
}

impl Root {
    /// Makes `.alike` and what belongs in it, where missing. Returns the marker that is there now: `marker`,
    /// unless there was one.
    pub(crate) fn ensure_own_dir(&self, marker: [u8; 16]) -> Result<[u8; 16], DiskError> {
        for dir in [OWN_DIR, TMP, OBJECTS] {
            match sys::mkdirat(&self.fd, dir, PRIVATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.own_failed("make", dir, errno)),
            }
            self.own_dir(dir).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP => DiskError::Unfit {
                    path: self.path.join(dir),
                    problem: "is not a directory",
                    hint: "move it away: alike keeps its own files there",
                },
                Errno::XDEV => DiskError::Unfit {
                    path: self.path.join(dir),
                    problem: "is on another file system than the folder",
                    hint: "alike renames files into it, so it has to be in the folder itself",
                },
                errno => self.own_failed("open", dir, errno),
            })?;
        }
        let found = match self.read_marker() {
            Ok(found) => found,
            Err(NoMarker::Missing) => self.write_marker(marker)?,
            Err(NoMarker::Malformed) => {
                return Err(DiskError::Unfit {
                    path: self.path.join(OWN_DIR).join(MARKER),
                    problem: "is not the marker of a folder",
                    hint: "if nothing else uses this directory, remove that file",
                });
            }
            Err(NoMarker::Io(errno)) => return Err(self.own_failed("read", ".alike/marker", errno)),
        };
        if let Err(errno) = self.hide_from_git() {
            tracing::debug!(%errno, "no .alike/.gitignore");
        }
        Ok(*self.marker.get_or_init(|| found))
    }

    /// A convenience: nothing hangs on it, and whoever changed it is left alone.
    fn hide_from_git(&self) -> rustix::io::Result<()> {
        let own = self.own_dir(OWN_DIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match sys::openat(&own, GITIGNORE, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                let written = File::from(fd).write_all(b"*\n");
                written.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
            }
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Is the directory at [`Root::path`] still the one that was opened, and marked `marker`? Says why not.
    pub(crate) fn check(&self, marker: &[u8; 16]) -> Result<(), String> {
        self.check_place()?;
        match self.read_marker() {
            Ok(found) if found == *marker => {
                self.marker.get_or_init(|| found);
                Ok(())
            }
            Ok(_) => Err(format!("{} is marked as another folder", self.path.display())),
            Err(NoMarker::Missing) => Err(format!(
                "the marker {}/.alike/marker is missing",
                self.path.display()
            )),
            Err(NoMarker::Malformed) => Err(format!(
                "the marker {}/.alike/marker is damaged",
                self.path.display()
            )),
            Err(NoMarker::Io(errno)) => Err(format!(
                "the marker {}/.alike/marker cannot be read: {errno}",
                self.path.display()
            )),
        }
    }

    /// The same with the marker that was found before; without one, of the place alone.
    pub(crate) fn check_known(&self) -> Result<(), String> {
        match self.marker.get() {
            Some(marker) => self.check(marker),
            None => self.check_place(),
        }
    }

    fn check_place(&self) -> Result<(), String> {
        let path = self.path.display();
        match sys::stat(&self.path) {
            Ok(now) if (now.st_dev, now.st_ino) == (self.dev, self.ino) => Ok(()),
            Ok(_) => Err(format!(
                "{path} is not the directory it was: it was replaced, or something is mounted over it"
            )),
            Err(Errno::NOENT) => Err(format!("{path} is gone")),
            Err(errno) => Err(format!("{path} cannot be looked at: {errno}")),
        }
    }

    /// Takes the folder for this engine alone, as long as what comes of it is kept: two that know nothing of each other
    /// would take each other's temporary files for their own. `None`: another has it. Where nobody can tell (network file
    /// systems do not lock directories) everybody has it.
    pub(crate) fn take(&self) -> Option<Taken> {
        let Ok(own) = self.own_dir(OWN_DIR) else {
            return Some(Taken(None));
        };
        match sys::flock(&own, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(Taken(Some(own))),
            Err(Errno::WOULDBLOCK) => None,
            Err(errno) => {
                tracing::debug!(%errno, "the folder cannot be locked");
                Some(Taken(None))
            }
        }
    }

    /// Does a file keep an exec bit, set or not? Not on FAT and its like, where all files have it or none. Tried on the
    /// marker; who cannot tell takes it for kept.
    pub(crate) fn keeps_exec(&self) -> bool {
        if let Some(keeps) = self.keeps_exec.get() {
            return *keeps;
        }
        match sys::keeps_exec(&self.fd).map_or_else(|| self.try_exec(), |kept| Ok(Some(kept))) {
            Ok(Some(keeps)) => *self.keeps_exec.get_or_init(|| keeps),
            Ok(None) => true,
            Err(errno) => {
                tracing::debug!(%errno, "the exec bit of the marker could not be tried");
                true
            }
        }
    }

    fn try_exec(&self) -> rustix::io::Result<Option<bool>> {
        let own = self.own_dir(OWN_DIR)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = sys::openat(&own, MARKER, flags, Mode::empty())?;
        let mut kept = true;
        for (mode, exec) in [(0o700, true), (0o600, false)] {
            match sys::fchmod(&file, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                // It may be another user's.
                Err(Errno::PERM) if !self.is_ours(&sys::fstat(&file)?) => return Ok(None),
                Err(Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            kept &= super::dir::stat_of(&sys::fstat(&file)?).is_exec() == exec;
        }
        Ok(Some(kept))
    }

    fn is_ours(&self, stat: &rustix::fs::Stat) -> bool {
        let own = rustix::process::geteuid();
        own.is_root() || own.as_raw() == stat.st_uid
    }

    /// Opens `.alike` itself.
    pub(crate) fn own_dir_fd(&self) -> rustix::io::Result<Dir> {
        self.own_dir(OWN_DIR)
    }

    /// Opens a directory of our own.
    pub(super) fn own_dir(&self, dir: &str) -> rustix::io::Result<Dir> {
        let fd = self.open_beneath(dir.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        // Names of our own are all different, whatever counts.
        Ok(Dir::new(fd, self.dev, false))
    }

    fn read_marker(&self) -> Result<[u8; 16], NoMarker> {
        let own = self.own_dir(OWN_DIR).map_err(|errno| match errno {
            errno if super::is_absent(errno) => NoMarker::Missing,
            errno => NoMarker::Io(errno),
        })?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match sys::openat(&own, MARKER, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Err(NoMarker::Missing),
            Err(errno) => return Err(NoMarker::Io(errno)),
        };
        let mut text = Vec::with_capacity(MARKER_LEN + 1);
        file.take(MARKER_LEN as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|e| NoMarker::Io(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        parse_marker(&text).ok_or(NoMarker::Malformed)
    }

    fn write_marker(&self, marker: [u8; 16]) -> Result<[u8; 16], DiskError> {
        let failed = |e: std::io::Error| {
            let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
            self.own_failed("write", ".alike/marker", errno)
        };
        let (temp, mut file) = self.temp_file().map_err(failed)?;
        let mut text: String = marker.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let own = self.own_dir(OWN_DIR).map_err(|errno| failed(errno.into()))?;
        let tmp = self.own_dir(TMP).map_err(|errno| failed(errno.into()))?;
        match self.rename_new(&tmp, &temp, &own, MARKER.as_bytes()) {
            Ok(()) => {}
            // Somebody was faster.
            Err(Errno::EXIST) => self.remove_temp(&temp),
            Err(errno) => return Err(failed(errno.into())),
        }
        sys::fsync(&own).map_err(|errno| failed(errno.into()))?;
        self.read_marker()
            .map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
    }

    fn own_failed(&self, what: &'static str, path: &str, errno: Errno) -> DiskError {
        let hint = match errno {
            Errno::ACCESS | Errno::PERM => "the folder has to be writable for you",
            Errno::ROFS => "the file system is read-only",
            Errno::NOSPC | Errno::DQUOT => "free some space",
            _ => "check the disk",
        };
        DiskError::Io {
            what,
            path: self.path.join(Path::new(path)),
            source: errno.into(),
            hint,
        }
    }

    /// Creates and removes `.alike/<name>`, for whoever watches `.alike`.
    pub(crate) fn touch_own(&self, name: &str) -> std::io::Result<()> {
        let own = self.own_dir(OWN_DIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        sys::openat(&own, name, flags, Mode::RUSR | Mode::WUSR)?;
        sys::unlinkat(&own, name, AtFlags::empty())?;
        Ok(())
    }
}

fn parse_marker(text: &[u8]) -> Option<[u8; 16]> {
    let hex = std::str::from_utf8(text).ok()?.trim_end();
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut marker = [0; 16];
    for (i, byte) in marker.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(marker)
}
