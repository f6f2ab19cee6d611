//! The only module that touches users' files: one folder's root as an open directory, from which everything
//! below is reached without following links and without leaving the file system. Never decides what should be
//! where; each move carries what it expects to find and refuses if that is not there.
//!
//! What it holds to, whatever goes wrong and whenever it is killed: bytes found at a path are never unlinked.
//! They stay at the path, or go by rename into `.alike/objects` or, for a moment, `.alike/tmp`.

mod back;
mod clone;
mod content;
mod dir;
mod durable;
mod lease;
mod moves;
mod near;
mod object;
mod own;
mod rename;
mod spelling;
mod sys;
pub(crate) mod temp;
mod witness;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_store::Fingerprint;
use rustix::fs::{Mode, OFlags};

#[cfg(test)]
pub(crate) use clone::CLONED;
pub(crate) use clone::CLONED_FROM;
pub(crate) use content::{Buffer, Content, OUTBOARD_FROM};
pub(crate) use dir::Dir;
#[cfg(test)]
pub(crate) use lease::{probe as probe_lease, probe_doubting as probe_lease_doubting};
pub(crate) use moves::NotRelocated;
pub(crate) use object::{Object, Removed, Shards, is_unreadable};
pub(crate) use own::Taken;
#[cfg(test)]
pub(crate) use sys::real;
pub(crate) use witness::Witness;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; never followed.
    Symlink,
    /// Anything else, in words; never opened.
    Special(&'static str),
}

/// What `lstat` says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Tells one state of it from another.
    pub fingerprint: Fingerprint,
    /// The device of its file system.
    pub dev: u64,
    /// User and group it belongs to.
    pub owner: (u32, u32),
}

impl Stat {
    /// Executable by its owner? `false` for what is no file.
    pub(crate) fn is_exec(&self) -> bool {
        self.kind == Kind::File && self.fingerprint.mode & 0o100 != 0
    }

    /// Is it the same file with the same content, but for what a rename of it changes?
    fn is_same_but_renamed(&self, other: &Stat) -> bool {
        let (a, b) = (&self.fingerprint, &other.fingerprint);
        self.dev == other.dev
            && a.ino == b.ino
            && a.size == b.size
            && a.mtime_ns == b.mtime_ns
            && a.mode == b.mode
    }
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// What we may take.
    pub free: u64,
    /// All there is; 0 if the file system does not say.
    pub total: u64,
}

/// What MAT says is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Its fingerprint; `None` if that cannot be trusted, and the content has to be compared.
    pub fingerprint: Option<Fingerprint>,
    /// What it is.
    pub value: Value,
    /// Its content is known not to be what `value` says any more: it is kept as what it is.
    pub damaged: bool,
}

/// Why a move was not made. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// The disk is not what MAT says: the path has to be scanned. A temporary file that was to be put there is
    /// still there under its name, or is gone if somebody wrote into it.
    #[error("it was changed on this device meanwhile")]
    Changed,
    /// What was expected there is kept, but the path is not what it was made to be: something else is there by
    /// now, or nothing. It was not a user who took the old version away.
    #[error("it was changed on this device while it was replaced")]
    Displaced,
    /// This file system takes its name for that of something else that is there.
    #[error("{0} has that name already")]
    NameTaken(RelPath),
    /// The directory has members.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Somebody holds it: later.
    #[error("it is in use")]
    Busy,
    /// This file system cannot hold that name, or cannot do what is needed.
    #[error("this file system cannot do it: {0}")]
    Unsupported(String),
    /// A program has it open for writing: later.
    #[error("a program has it open for writing")]
    BeingWritten,
    /// No room, or over quota.
    #[error("no space is left on the file system")]
    NoSpace,
    /// Anything else.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: RelPath,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why a folder's root cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// An operation failed.
    #[error("cannot {what} {}: {source}; {hint}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Something is there that should not be.
    #[error("{} {problem}; {hint}", path.display())]
    Unfit {
        /// Which path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

/// A folder's root, held open.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    fd: OwnedFd,
    dev: u64,
    ino: u64,
    marker: OnceLock<[u8; 16]>,
    ways: Ways,
    folds: OnceLock<bool>,
    keeps_exec: OnceLock<bool>,
    temp_seed: u64,
    temp_count: AtomicU64,
    /// Displaced versions in `.alike/tmp` that could not be kept yet, by name.
    left: Mutex<Vec<Vec<u8>>>,
    near: Mutex<Option<near::Near>>,
    /// The magic number of its file system; `None` if that does not tell.
    magic: OnceLock<Option<u32>>,
    #[cfg(test)]
    meanwhile: moves::Meanwhile,
    /// … between the second name of what is taken away and the end of the first.
    #[cfg(test)]
    between_names: moves::Meanwhile,
}

/// Which calls the kernel and the file system have; what they lack is done in another way.
#[derive(Debug)]
struct Ways {
    openat2: AtomicBool,
    no_replace: AtomicBool,
    exchange: AtomicBool,
    clones: AtomicBool,
}

impl Ways {
    fn has(way: &AtomicBool) -> bool {
        way.load(Ordering::Relaxed)
    }
}

impl Root {
    /// Opens the directory at `path` (links in `path` itself are followed).
    pub(crate) fn open(path: &Path) -> Result<Root, DiskError> {
        let failed = |what, source: rustix::io::Errno, hint| DiskError::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
            hint,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = sys::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::NOENT => failed("open", errno, "create the directory, or name another one"),
            rustix::io::Errno::NOTDIR => failed("open", errno, "name a directory"),
            rustix::io::Errno::ACCESS => failed("open", errno, "make the directory readable for you"),
            _ => failed("open", errno, "check the disk"),
        })?;
        let stat = sys::fstat(&fd).map_err(|errno| failed("look at", errno, "check the disk"))?;
        let ways = Ways {
            openat2: AtomicBool::new(dir::has_openat2(&fd)),
            no_replace: AtomicBool::new(true),
            exchange: AtomicBool::new(true),
            clones: AtomicBool::new(true),
        };
        Ok(Root {
            path: path.to_owned(),
            fd,
            dev: stat.st_dev,
            ino: stat.st_ino,
            marker: OnceLock::new(),
            ways,
            folds: OnceLock::new(),
            keeps_exec: OnceLock::new(),
            temp_seed: temp::seed(),
            temp_count: AtomicU64::new(0),
            left: Mutex::default(),
            near: Mutex::default(),
            magic: OnceLock::new(),
            #[cfg(test)]
            meanwhile: Default::default(),
            #[cfg(test)]
            between_names: Default::default(),
        })
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// The whole path of `path`, for messages only.
    pub(crate) fn display(&self, path: &RelPath) -> PathBuf {
        self.path.join(OsStr::from_bytes(path.as_bytes()))
    }

    /// Opens a directory for reading.
    pub(crate) fn open_dir(&self, dir: &RelPath) -> io::Result<OwnedFd> {
        Ok(self.open_beneath(dir.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// Opens a directory for reading it and what is in it.
    pub(crate) fn dir(&self, dir: &RelPath) -> io::Result<Dir> {
        Ok(Dir::new(self.open_dir(dir)?, self.dev, self.folds()))
    }

    /// Opens a directory to watch it: also one that cannot be listed.
    pub(crate) fn watch_dir(&self, dir: &RelPath) -> io::Result<OwnedFd> {
        Ok(self.open_beneath(dir.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?)
    }

    /// Names in a directory and what they seem to be, in no order.
    #[cfg(test)]
    pub(crate) fn read_dir(&self, dir: &RelPath) -> io::Result<Vec<(Vec<u8>, rustix::fs::FileType)>> {
        self.dir(dir)?.entries()
    }

    /// Looks at a path without following it; `None` if nothing is there under this very name, or if its directory is
    /// none.
    pub(crate) fn stat(&self, path: &RelPath) -> io::Result<Option<Stat>> {
        let Some((dir, name)) = path.split() else {
            return Ok(Some(dir::stat_of(&sys::fstat(&self.fd)?)));
        };
        if !self.is_spelled(&dir)? {
            return Ok(None);
        }
        match self.place_dir(&dir) {
            Ok(dir) => match dir.stat(name.as_bytes())? {
                Some(stat) if dir.other_spelling(name.as_bytes(), &stat)?.is_some() => Ok(None),
                found => Ok(found),
            },
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file for reading. Not a link, not through a link; the caller checks that it is a regular file.
    pub(crate) fn open_file(&self, path: &RelPath) -> io::Result<File> {
        let (dir, name) = path.split().ok_or(io::ErrorKind::IsADirectory)?;
        self.place_dir(&dir)?.open_file(name.as_bytes())
    }

    /// Where a symbolic link points.
    pub(crate) fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (dir, name) = path.split().ok_or(io::ErrorKind::InvalidInput)?;
        self.place_dir(&dir)?.read_link(name.as_bytes())
    }

    /// Are its times this machine's own, a kernel tick fine? Not on FAT, exFAT, HFS+, SMB, NFS and FUSE: even
    /// seconds, or another machine's clock.
    pub(crate) fn keeps_fine_times(&self) -> bool {
        const COARSE: [u32; 8] = [
            0x4d44,
            0x2011_bab0,
            0x482b,
            0x517b,
            0xff53_4d42,
            0xfe53_4d42,
            0x6969,
            0x6573_5546,
        ];
        self.file_system().is_some_and(|magic| !COARSE.contains(&magic))
    }

    /// The magic number of its file system.
    fn file_system(&self) -> Option<u32> {
        *self.magic.get_or_init(|| sys::file_system(&self.fd).ok())
    }

    /// Room on its file system.
    pub(crate) fn room(&self) -> io::Result<Room> {
        let fs = sys::fstatvfs(&self.fd)?;
        Ok(Room {
            free: fs.f_bavail.saturating_mul(fs.f_frsize),
            total: fs.f_blocks.saturating_mul(fs.f_frsize),
        })
    }

    /// Another handle to the same directory.
    pub(crate) fn again(&self) -> io::Result<Root> {
        let has = |way: &AtomicBool| AtomicBool::new(Ways::has(way));
        Ok(Root {
            path: self.path.clone(),
            fd: sys::dup(&self.fd)?,
            dev: self.dev,
            ino: self.ino,
            marker: self.marker.clone(),
            folds: self.folds.clone(),
            keeps_exec: self.keeps_exec.clone(),
            ways: Ways {
                openat2: has(&self.ways.openat2),
                no_replace: has(&self.ways.no_replace),
                exchange: has(&self.ways.exchange),
                clones: has(&self.ways.clones),
            },
            temp_seed: temp::seed(),
            temp_count: AtomicU64::new(0),
            left: Mutex::default(),
            near: Mutex::default(),
            magic: self.magic.clone(),
            #[cfg(test)]
            meanwhile: Default::default(),
            #[cfg(test)]
            between_names: Default::default(),
        })
    }

    /// A directory to act in, not to read: needs no permission to list it.
    fn place_dir(&self, dir: &RelPath) -> rustix::io::Result<Dir> {
        let fd = self.open_beneath(dir.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Dir::new(fd, self.dev, self.folds()))
    }

    /// Where a move acts. A missing directory, or a link in its place, is a change.
    fn place(&self, path: &RelPath) -> Result<Place, MoveError> {
        let (dir, name) = path
            .split()
            .ok_or_else(|| MoveError::Unsupported("the folder's root cannot be moved".to_owned()))?;
        let dir = self.near_dir(&dir).map_err(|errno| match errno {
            errno if is_absent(errno) => MoveError::Changed,
            rustix::io::Errno::XDEV => {
                MoveError::Unsupported("another file system is mounted there".to_owned())
            }
            errno => failed("open the directory of", path, errno),
        })?;
        Ok(Place {
            dir,
            name,
            path: path.clone(),
        })
    }
}

/// One name in an open directory.
struct Place {
    dir: Arc<Dir>,
    name: Name,
    path: RelPath,
}

impl Place {
    fn stat(&self) -> Result<Option<Stat>, MoveError> {
        self.dir
            .stat(self.name.as_bytes())
            .map_err(|source| io_failed("look at", &self.path, source))
    }
}

/// Is there nothing that this path could mean?
fn is_absent(errno: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// Sorts a failed call into what the caller can do about it.
fn failed(what: &'static str, path: &RelPath, errno: rustix::io::Errno) -> MoveError {
    use rustix::io::Errno;
    match errno {
        Errno::NOSPC | Errno::DQUOT => MoveError::NoSpace,
        Errno::BUSY | Errno::TXTBSY => MoveError::Busy,
        Errno::NAMETOOLONG => MoveError::Unsupported("the name is too long for it".to_owned()),
        Errno::INVAL | Errno::ILSEQ => MoveError::Unsupported("the name is not allowed on it".to_owned()),
        Errno::XDEV => MoveError::Unsupported("it is another file system than the folder's root".to_owned()),
        Errno::OPNOTSUPP | Errno::NOSYS => {
            MoveError::Unsupported("it has no rename that spares what is there".to_owned())
        }
        errno => MoveError::Io {
            what,
            path: path.clone(),
            source: errno.into(),
        },
    }
}

fn io_failed(what: &'static str, path: &RelPath, source: io::Error) -> MoveError {
    match rustix::io::Errno::from_io_error(&source) {
        Some(errno) => failed(what, path, errno),
        None => MoveError::Io {
            what,
            path: path.clone(),
            source,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;
