//! Does a program hold a file open for writing? What it writes goes into the file, wherever that is by then: one that
//! is being written must not be displaced. Never keeps a lease.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use super::{Dir, MoveError, Place, Root, sys};

/// A kernel that writes pages back at leisure may be told to take longer than this.
const SHOWS_AFTER: Duration = Duration::from_secs(600);

impl Root {
    /// Is the file at `path` open for writing? `false` where nobody can tell.
    pub(crate) fn is_being_written(&self, path: &alike_core::path::RelPath) -> bool {
        self.open_file(path)
            .is_ok_and(|file| sys::is_being_written(&file))
    }

    /// The same; `true` where nobody can tell.
    pub(crate) fn may_be_written(&self, path: &alike_core::path::RelPath) -> bool {
        self.open_file(path)
            .map_or(true, |file| sys::may_be_written(&file))
    }

    /// Does what a program writes through a shared memory map show in the file's times? The kernel sets them at the
    /// first write to a page, and again at the first one after it has written the page back; what is written in between
    /// leaves no trace. So a file that is open for writing tells nothing before this long has passed since the last time
    /// that it was changed. `None`: this file system may never tell (a tmpfs does not).
    pub(crate) fn maps_show_after(&self) -> Option<Duration> {
        const TELLS: [u32; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];
        self.file_system()
            .filter(|magic| TELLS.contains(magic))
            .and_then(|_| written_back_within())
    }
}

/// How long a page that was written to stays so at most; `None` if nobody writes pages back by time.
fn written_back_within() -> Option<Duration> {
    static WITHIN: OnceLock<Option<Duration>> = OnceLock::new();
    *WITHIN.get_or_init(|| {
        let read = |name| -> Option<u64> {
            let text = std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok()?;
            text.trim().parse().ok()
        };
        let (age, every) = (
            read("dirty_expire_centisecs")?,
            read("dirty_writeback_centisecs")?,
        );
        let within = Duration::from_millis(age.saturating_add(every).saturating_mul(20));
        (every > 0).then(|| within.max(SHOWS_AFTER))
    })
}

impl Dir {
    /// Is the file open for writing, or can nobody tell?
    pub(crate) fn may_be_written(&self, name: &[u8]) -> bool {
        self.open_file(name)
            .map_or(true, |file| sys::may_be_written(&file))
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
    state(file) == Some(true)
}

/// The same; `true` where nobody can tell.
pub(crate) fn probe_doubting(file: &File) -> bool {
    state(file) != Some(false)
}

/// `None`: nobody can tell.
fn state(file: &File) -> Option<bool> {
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
        return None;
    }
    if fcntl(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
        return Some(false);
    }
    (std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true)
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
        assert!(
            !probe(&reader) && !probe_doubting(&reader),
            "readers do not count"
        );
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
