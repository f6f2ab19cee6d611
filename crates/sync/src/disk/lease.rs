//! Does a program hold a file open for writing? What it writes goes into the file, wherever that is by then: one that
//! is being written must not be displaced. Never keeps a lease.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{Dir, MoveError, Place, Root, sys};

impl Root {
    /// Is the file at `path` open for writing? `false` where nobody can tell.
    pub(crate) fn is_being_written(&self, path: &alike_core::path::RelPath) -> bool {
        self.open_file(path)
            .is_ok_and(|file| sys::is_being_written(&file))
    }
}

impl Place {
    /// Refuses what a program has open for writing.
    pub(super) fn must_be_closed(&self) -> Result<(), MoveError> {
        if is_being_written(&self.dir, self.name.as_bytes()) {
            return Err(MoveError::BeingWritten);
        }
        Ok(())
    }
}

/// The same for a name in a directory. A link or a directory is not written.
pub(super) fn is_being_written(dir: &Dir, name: &[u8]) -> bool {
    dir.open_file(name).is_ok_and(|file| sys::is_being_written(&file))
}

/// Asks the kernel: it gives a read lease only on a file that nobody has open for writing, also by a shared mapping.
/// Other people's files, and some file systems, have no leases; then nobody can tell.
pub(crate) fn probe(file: &File) -> bool {
    let fcntl = |command, argument: libc::c_int| {
        // SAFETY: these commands take an integer and touch no memory; the descriptor is open while `file` is.
        #[expect(unsafe_code, reason = "neither std nor rustix has leases")]
        unsafe {
            libc::fcntl(file.as_raw_fd(), command, argument)
        }
    };
    // Whoever opens it in the moment in which we have the lease makes the kernel send us a signal. Of the default
    // one we would die; this one does nothing by default.
    if fcntl(F_SETSIG, libc::SIGURG) != 0 {
        return false;
    }
    if fcntl(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
        return false;
    }
    std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

/// `fcntl(2)`, Linux; libc does not name it.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_somebody_could_write_to_is_being_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let writer = File::create(&path).expect("made");
        let reader = File::open(&path).expect("opened");
        assert!(probe(&reader));
        drop(writer);
        assert!(!probe(&reader));
        let other = File::open(&path).expect("opened");
        assert!(!probe(&reader), "readers do not count");
        drop(other);
        let appender = File::options()
            .append(true)
            .open(&path)
            .expect("no lease is left");
        assert!(probe(&reader));
        drop(appender);
        assert!(!probe(&reader));
    }
}
