//! Writes groups of a file where they belong: many at once, and zeros only where something else is.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use alike_core::subtree::GROUP;
use bytes::Bytes;

/// Bytes that are gathered before they are written. The kernel takes larger pages for a larger write, which is half of its
/// work, and pieces of one file, which write in turn, wait for each other less often.
const GATHERED: usize = 1 << 20;

static ZEROS: [u8; GROUP as usize] = [0; GROUP as usize];

/// Groups that follow each other, to be written together.
pub(super) struct Gathered<'a> {
    file: &'a File,
    at: u64,
    len: usize,
    groups: Vec<Bytes>,
    wrote: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Gathered<'a> {
    /// `wrote(offset, bytes)` is called for what is in the file.
    pub(super) fn new(file: &'a File, wrote: &'a mut dyn FnMut(u64, u64)) -> Self {
        Gathered {
            file,
            at: 0,
            len: 0,
            groups: Vec::new(),
            wrote,
        }
    }

    /// One group, to be written at `at` now or with others that follow it.
    pub(super) fn add(&mut self, at: u64, group: Bytes) -> io::Result<()> {
        if self.len >= GATHERED || at != self.at + self.len as u64 {
            self.write()?;
            self.at = at;
        }
        if is_zero(&group) {
            self.write()?;
            put(self.file, &group, at)?;
            (self.wrote)(at, group.len() as u64);
            self.at = at + group.len() as u64;
            return Ok(());
        }
        self.len += group.len();
        self.groups.push(group);
        Ok(())
    }

    /// Writes what was gathered.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let (groups, len) = (std::mem::take(&mut self.groups), std::mem::take(&mut self.len));
        let mut slices: Vec<IoSlice<'_>> = groups.iter().map(|group| IoSlice::new(group)).collect();
        let mut rest = &mut slices[..];
        let mut at = self.at;
        while !rest.is_empty() {
            match rustix::io::pwritev(self.file, rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    at += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if len > 0 {
            (self.wrote)(self.at, len as u64);
        }
        self.at = at;
        Ok(())
    }
}

fn is_zero(part: &[u8]) -> bool {
    part.len() <= ZEROS.len() && *part == ZEROS[..part.len()]
}

/// Writes `bytes` at `at`; zeros only where something else is, so that holes stay holes.
pub(crate) fn put(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut from = 0;
    while from < bytes.len() {
        let parts = bytes[from..].chunks(ZEROS.len());
        // As much as can be written at once.
        let full: usize = parts.take_while(|part| !is_zero(part)).map(<[u8]>::len).sum();
        if full > 0 {
            file.write_all_at(&bytes[from..from + full], at + from as u64)?;
            from += full;
            continue;
        }
        let end = bytes.len().min(from + ZEROS.len());
        let mut there = [0; ZEROS.len()];
        let there = &mut there[..end - from];
        let read = file.read_exact_at(there, at + from as u64);
        if read.is_err() || !is_zero(there) {
            file.write_all_at(&bytes[from..end], at + from as u64)?;
        }
        from = end;
    }
    Ok(())
}
