//! Making what lies in the folder durable. Never changes anything, and never says what has to be durable when.

use std::collections::BTreeSet;
use std::io;

use alike_core::path::RelPath;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Root, sys};

/// More files and directories than this are made durable by one `syncfs`, which also waits for whatever else is
/// being written on this file system; fewer by an `fsync` each, about 1.5 ms.
const EACH: usize = 16;

impl Root {
    /// Makes everything written to this file system so far durable.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(sys::syncfs(&self.fd)?)
    }

    /// Makes durable the bytes of these files, and that these paths are what they are: a file, a directory, a link,
    /// or nothing. What is gone by now is left out.
    pub(crate) fn sync_paths(&self, files: &[&RelPath], paths: &[&RelPath]) -> io::Result<()> {
        let dirs: BTreeSet<RelPath> = paths
            .iter()
            .filter_map(|path| path.parent())
            .take(EACH + 1)
            .collect();
        if files.len() + dirs.len() > EACH || paths.len() > EACH {
            return self.sync_all();
        }
        for file in files {
            match self.open_file(file) {
                Ok(file) => sync(&file)?,
                Err(e) if is_gone(&e) => {}
                // Whoever could read it a moment ago cannot now.
                Err(_) => return self.sync_all(),
            }
        }
        for dir in dirs {
            self.sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Makes the names in a directory durable, or in the nearest one above it that is there.
    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        let mut at = dir.clone();
        loop {
            match self.open_beneath(at.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => return sync(&fd),
                Err(errno) if super::is_absent(errno) => match at.parent() {
                    Some(above) => at = above,
                    None => return Err(errno.into()),
                },
                // One that may not be listed.
                Err(_) => return self.sync_all(),
            }
        }
    }
}

fn sync(fd: &impl std::os::fd::AsFd) -> io::Result<()> {
    match sys::fsync(fd) {
        // A file system that has nothing to sync says so in this way.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_gone(e: &io::Error) -> bool {
    Errno::from_io_error(e).is_some_and(super::is_absent)
}
