//! An open directory, and the calls relative to it. Nothing here follows a link or crosses into another file
//! system; nothing here writes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;

use alike_store::Fingerprint;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Kind, Root, Stat, Ways, sys};

/// Longest path the kernel takes in one call, with its NUL.
const KERNEL_PATH: usize = 4096;
/// How often a walk is begun again when directories above it are being renamed.
const WALK_TRIES: usize = 16;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    dev: u64,
    /// Does the folder's root take names that differ in case for one?
    pub(super) folds: bool,
    /// A name was found to lead to nothing once its case is changed: as all names of this directory.
    pub(super) minds_case: AtomicBool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(super) fn new(fd: OwnedFd, dev: u64, folds: bool) -> Self {
        Dir {
            fd,
            dev,
            folds,
            minds_case: AtomicBool::new(false),
        }
    }

    /// The device of the folder's root.
    pub(crate) fn dev(&self) -> u64 {
        self.dev
    }

    /// What the directory itself is now.
    pub(crate) fn stat_self(&self) -> io::Result<Stat> {
        Ok(stat_of(&sys::fstat(&self.fd)?))
    }

    /// Looks at a name without following it.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match sys::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat_of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file for reading; a link is refused, a pipe does not block.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(sys::openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// Where a symbolic link points.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(sys::readlinkat(&self.fd, name, Vec::new())?.into_bytes())
    }

    /// All names but `.` and `..`, in no order.
    pub(crate) fn entries(&self) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        sys::entries(&self.fd)
    }
}

// The types of these fields differ between machines.
#[allow(clippy::unnecessary_cast)]
pub(super) fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Special("named pipe"),
        FileType::Socket => Kind::Special("socket"),
        FileType::CharacterDevice => Kind::Special("character device"),
        FileType::BlockDevice => Kind::Special("block device"),
        _ => Kind::Special("thing of unknown kind"),
    };
    Stat {
        kind,
        fingerprint: Fingerprint {
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            mode: stat.st_mode as u32,
        },
        dev: stat.st_dev,
        owner: (stat.st_uid, stat.st_gid),
    }
}

fn nanos(secs: i64, nanos: i64) -> i64 {
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// What no walk below a root may do.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Linux before 5.6, and some sandboxes, do not have it.
pub(super) fn has_openat2(fd: &OwnedFd) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    !matches!(
        sys::openat2(fd, ".", flags, Mode::empty(), BENEATH),
        Err(Errno::NOSYS | Errno::PERM)
    )
}

impl Root {
    /// Opens `path` (empty: the root) below the root: no links anywhere in it, no other file system.
    pub(super) fn open_beneath(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !Ways::has(&self.ways.openat2) || path.len() >= KERNEL_PATH {
            return self.open_by_steps(path, flags);
        }
        let path = if path.is_empty() { b"." } else { path };
        for _ in 0..WALK_TRIES {
            match sys::openat2(&self.fd, path, flags, Mode::empty(), BENEATH) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The same, one component at a time.
    fn open_by_steps(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at = sys::dup(&self.fd)?;
        if path.is_empty() {
            return sys::openat(&at, ".", flags, Mode::empty());
        }
        let steps = path.split(|&b| b == b'/').count();
        for (i, name) in path.split(|&b| b == b'/').enumerate() {
            let step = if i + 1 == steps {
                flags
            } else {
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
            };
            at = sys::openat(&at, name, step, Mode::empty())?;
            if sys::fstat(&at)?.st_dev != self.dev {
                return Err(Errno::XDEV);
            }
        }
        Ok(at)
    }
}
