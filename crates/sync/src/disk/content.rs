//! Reading one file so that what was read is what the file was at one moment. Never keeps content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use alike_core::digest::Digest;
use alike_core::path::RelPath;

use super::clone::Cloned;
use super::{Dir, Kind, Root, Stat, sys};
use crate::outboard;

/// Bytes read at once.
pub(crate) const BUFFER: usize = 256 * 1024;
/// Files over this get an outboard (bytes); smaller ones are sent whole.
pub(crate) const OUTBOARD_FROM: u64 = 1024 * 1024;
/// While a file is read, it is looked at again after this many bytes, so that one that is being written is
/// given up early.
const LOOK_AGAIN: u64 = 16 * 1024 * 1024;
/// How often a file that changes while it is read is tried.
const TRIES: usize = 2;

/// A buffer used for one file after the other.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Buffer(vec![0; BUFFER])
    }

    /// The first bytes: all of the file that was hashed last, if it is not longer than the buffer.
    pub(crate) fn start(&self, len: usize) -> &[u8] {
        &self.0[..len]
    }
}

/// What reading came to.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it, as it was at one moment.
    Is {
        /// BLAKE3 of it.
        digest: Digest,
        /// What the file was then.
        stat: Stat,
    },
    /// It changed while it was read, each time, or is no file any more.
    Changing,
    /// It is not there any more.
    Gone,
    /// `tick` said to stop.
    Stopped,
}

/// Why reading ended before the end.
enum Stop {
    Changed,
    Cancelled,
    Io(io::Error),
}

/// Lets the kernel forget what it has of a file in memory, but for what is still to be written: whoever reads it next
/// asks the disk.
pub(super) fn forget(file: &File) {
    // Where that cannot be, memory is asked.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

impl Root {
    /// The next one to read this file asks the disk.
    pub(crate) fn forget_pages(&self, path: &RelPath) {
        if let Ok(file) = self.open_file(path) {
            forget(&file);
        }
    }

    /// The same for a displaced version.
    pub(crate) fn forget_object_pages(&self, digest: &Digest) {
        if let Ok(Some(file)) = self.open_object(digest) {
            forget(&file);
        }
    }
}

impl Dir {
    /// Hashes the file `name`; `first` is what it was a moment ago, if known. `tick` is called for every buffer with the bytes in it; `false` stops.
    /// An outboard is kept in `outboards` if the file is large.
    pub(crate) fn hash(
        &self,
        name: &[u8],
        first: Option<Stat>,
        buffer: &mut Buffer,
        outboards: Option<&Path>,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Content> {
        self.hash_and_keep(None, (name, first), buffer, outboards, tick)
    }

    /// The same; what was hashed is kept as a clone in `root`, where that can be.
    pub(crate) fn hash_and_keep(
        &self,
        root: Option<&Root>,
        (name, mut first): (&[u8], Option<Stat>),
        buffer: &mut Buffer,
        outboards: Option<&Path>,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Content> {
        for _ in 0..TRIES {
            let before = match first.take() {
                Some(stat) => Some(stat),
                None => self.stat(name)?,
            };
            let Some(before) = before else {
                return Ok(Content::Gone);
            };
            if before.kind != Kind::File {
                return Ok(Content::Changing);
            }
            let file = match self.open_file(name) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Content::Gone),
                Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::LOOP) => continue,
                Err(e) => return Err(e),
            };
            if super::dir::stat_of(&sys::fstat(&file)?) != before {
                continue;
            }
            // The clone is read, not the file: what is kept is then what was hashed, whoever writes to the file meanwhile,
            // in whatever way, and however coarse its times are.
            let clone = root.and_then(|root| root.clone_of(&file, before.fingerprint.size));
            let from = clone.as_ref().map_or(&file, Cloned::file);
            let digest = match read((from, &file), &before, buffer, outboards, tick) {
                Ok(digest) => digest,
                Err(Stop::Changed) => continue,
                Err(Stop::Cancelled) => return Ok(Content::Stopped),
                Err(Stop::Io(e)) => return Err(e),
            };
            // The same inode, so this says of the open file what fstat would, and that it is still there.
            if self.stat(name)? == Some(before) {
                if let Some(clone) = clone {
                    clone.keep(&digest);
                }
                return Ok(Content::Is { digest, stat: before });
            }
        }
        Ok(Content::Changing)
    }
}

/// Hashes exactly as many bytes of `from` as `before` says there are, as long as `file` is what it says.
fn read(
    (from, file): (&File, &File),
    before: &Stat,
    buffer: &mut Buffer,
    outboards: Option<&Path>,
    tick: &mut dyn FnMut(u64) -> bool,
) -> Result<Digest, Stop> {
    let size = before.fingerprint.size;
    let mut source = Source {
        from,
        file,
        before,
        tick,
        left: size,
        until_look: LOOK_AGAIN,
        stopped: None,
    };
    let result = if size > OUTBOARD_FROM && outboards.is_some() {
        outboard::hash_reader(&mut source, size, outboards)
    } else {
        plain(&mut source, size, &mut buffer.0)
    };
    match (result, source.stopped) {
        (Ok(digest), None) => Ok(digest),
        (_, Some(stop)) => Err(stop),
        (Err(e), None) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Stop::Changed),
        (Err(e), None) => Err(Stop::Io(e)),
    }
}

fn plain(source: &mut Source<'_>, size: u64, buffer: &mut [u8]) -> io::Result<Digest> {
    if size <= buffer.len() as u64 {
        let content = &mut buffer[..size as usize];
        source.read_exact(content)?;
        return Ok(Digest::of(content));
    }
    let mut hasher = blake3::Hasher::new();
    let mut left = size;
    while left > 0 {
        let part = &mut buffer[..left.min(BUFFER as u64) as usize];
        source.read_exact(part)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// A file being read, with a look at the clock and at the file now and then.
struct Source<'a> {
    from: &'a File,
    file: &'a File,
    before: &'a Stat,
    tick: &'a mut dyn FnMut(u64) -> bool,
    left: u64,
    until_look: u64,
    stopped: Option<Stop>,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = (&mut &*self.from).read(&mut buf[..want])?;
        self.left -= got as u64;
        if !(self.tick)(got as u64) {
            self.stopped = Some(Stop::Cancelled);
            return Err(io::Error::other("stopped"));
        }
        self.until_look = self.until_look.saturating_sub(got as u64);
        if self.until_look == 0 {
            self.until_look = LOOK_AGAIN;
            if super::dir::stat_of(&sys::fstat(self.file)?) != *self.before {
                self.stopped = Some(Stop::Changed);
                return Err(io::Error::other("changed"));
            }
        }
        Ok(got)
    }
}
