//! Making what lies in the folder durable. Never changes anything, and never says what has to be durable when.

use std::collections::BTreeSet;
use std::io;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::own::{OBJECTS, TMP};
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
    /// or nothing; and clones of these contents. What is gone by now is left out.
    pub(crate) fn sync_paths(
        &self,
        files: &[&RelPath],
        paths: &[&RelPath],
        clones: &[&Digest],
    ) -> io::Result<()> {
        let clones = if self.may_clone() { clones } else { &[] };
        let dirs: BTreeSet<RelPath> = paths
            .iter()
            .filter_map(|path| path.parent())
            .take(EACH + 1)
            .collect();
        if files.len() + dirs.len() + clones.len() > EACH || paths.len() > EACH {
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
        let mut there = Vec::new();
        for digest in clones {
            if self.open_object(digest)?.is_some() {
                there.push(*digest);
            }
        }
        self.sync_objects(&there).map(drop)
    }

    /// Makes these temporary files durable, with their names.
    pub(crate) fn sync_temps(&self, names: &[&[u8]]) -> io::Result<()> {
        if names.len() > EACH {
            return self.sync_all();
        }
        for name in names {
            match self.temp_named(name, false) {
                Ok(file) => sync(&file)?,
                // A link: it is all name.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {}
                Err(_) => return self.sync_all(),
            }
        }
        self.sync_own(TMP)
    }

    /// Makes durable what moves did: that these paths are what they are, and the versions that were displaced.
    pub(crate) fn sync_moves(&self, paths: &[&RelPath], displaced: &[&Digest]) -> io::Result<()> {
        if paths.len() > EACH {
            return self.sync_all();
        }
        if !self.sync_objects(displaced)? {
            return Ok(());
        }
        let dirs: BTreeSet<RelPath> = paths.iter().filter_map(|path| path.parent()).collect();
        for dir in dirs {
            self.sync_dir(&dir)?;
        }
        self.sync_own(TMP)
    }

    /// Makes objects durable, with their names. `false`: one was not there, so that everything was.
    fn sync_objects(&self, digests: &[&Digest]) -> io::Result<bool> {
        let mut shards: BTreeSet<String> = BTreeSet::new();
        for digest in digests {
            // It may be kept under another name, or not yet.
            match self.open_object(digest) {
                Ok(Some(file)) => sync(&file)?,
                Ok(None) | Err(_) => return self.sync_all().map(|()| false),
            }
            shards.insert(format!("{OBJECTS}/{}", &digest.to_hex()[..2]));
        }
        for dir in shards.iter().map(String::as_str) {
            self.sync_own(dir)?;
        }
        if !shards.is_empty() {
            self.sync_own(OBJECTS)?;
        }
        Ok(true)
    }

    fn sync_own(&self, dir: &str) -> io::Result<()> {
        match self.open_beneath(dir.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => sync(&fd),
            Err(_) => self.sync_all(),
        }
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
