//! Every system call by which the modules beside this one reach a folder, by its own name. Here alone, tests put
//! a simulated machine in the kernel's place (`sim::calls`). Never does anything by itself.

#[cfg(not(test))]
pub(super) use rustix::fs::{
    fchmod, fchown, flock, fstat, fstatvfs, fsync, futimens, linkat, mkdirat, open, openat, openat2,
    readlinkat, renameat_with, stat, statat, symlinkat, syncfs, unlinkat, utimensat,
};

#[cfg(not(test))]
pub(super) use rustix::fs::ioctl_ficlone as ficlone;

#[cfg(not(test))]
pub(super) use real::{dup, entries, file_system, keeps_exec, quietly};

#[cfg(not(test))]
pub(super) use super::lease::{probe as is_being_written, probe_doubting as may_be_written};

/// One simulated machine never has two engines.
#[cfg(test)]
pub(super) use rustix::fs::flock;

#[cfg(test)]
pub(super) use crate::sim::calls::{
    dup, entries, fchmod, fchown, ficlone, file_system, fstat, fstatvfs, fsync, futimens, is_being_written,
    keeps_exec, linkat, may_be_written, mkdirat, open, openat, openat2, quietly, readlinkat, renameat_with,
    stat, statat, symlinkat, syncfs, unlinkat, utimensat,
};

/// What takes more than one call.
pub(crate) mod real {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{FileType, RawDir};

    /// Bytes of directory entries asked for at once: about a thousand names a call.
    const ENTRIES_BUFFER: usize = 32 * 1024;

    /// All names in a directory but `.` and `..`, in no order.
    pub(crate) fn entries(dir: impl AsFd) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); ENTRIES_BUFFER];
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
        let mut entries = Vec::new();
        let mut raw = RawDir::new(dir, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push((name.to_vec(), entry.file_type()));
            }
        }
        Ok(entries)
    }

    /// Looks of which nobody need know when they are made, one by one.
    #[cfg(not(test))]
    pub(crate) fn quietly<T>(look: impl FnOnce() -> T) -> T {
        look()
    }

    /// Whether files keep exec bits: nobody knows without trying.
    #[cfg(not(test))]
    pub(crate) fn keeps_exec(_fd: impl AsFd) -> Option<bool> {
        None
    }

    /// Another handle to the same thing.
    pub(crate) fn dup(fd: impl AsFd) -> rustix::io::Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(fd, 3)
    }

    /// The magic number of the file system that it is on.
    pub(crate) fn file_system(fd: impl AsFd) -> rustix::io::Result<u32> {
        Ok(rustix::fs::fstatfs(fd)?.f_type as u32)
    }
}
