//! A file mapped into memory, as programs do that keep their data in one: what they write there needs no call of the
//! kernel, and may leave no trace in the file's times. Never writes outside of the file.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A shared map of a file, for writing.
pub(crate) struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    /// Maps the whole file at `path`, which must not be empty.
    pub(crate) fn new(path: impl AsRef<Path>) -> Map {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("open the file");
        let len = usize::try_from(file.metadata().expect("stat").len()).expect("it fits");
        // SAFETY: a new map at an address that the kernel chooses; the file stays open by the map itself.
        #[expect(unsafe_code, reason = "there is no other way to map a file")]
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Map { at: at.cast(), len }
    }

    /// Changes one byte. On a tmpfs the file keeps its times, because the byte is read first.
    pub(crate) fn flip(&self, offset: usize, with: u8) {
        assert!(offset < self.len);
        // SAFETY: within the map, which lives as long as `self`; nobody has a reference to its bytes.
        #[expect(unsafe_code, reason = "the map is no slice: others may change it")]
        unsafe {
            let at = self.at.add(offset);
            at.write_volatile(at.read_volatile() ^ with);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nothing refers to it any more.
        #[expect(unsafe_code, reason = "there is no other way to unmap it")]
        unsafe {
            libc::munmap(self.at.cast(), self.len);
        }
    }
}
