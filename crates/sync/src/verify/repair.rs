//! Good content for what is damaged: from this device, else from a peer that is connected. What is got is verified on
//! its way. Never puts a file in place itself.

use std::fs::File;
use std::io::Read;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_store::{IndexRow, Marks};

use super::{Part, Run, content_of, is_current};
use crate::disk::Root;
use crate::error::Error;
use crate::fetch;
use crate::folder::FolderEvent;
use crate::{blobs, outboard};

impl Run {
    /// Brings the content of a damaged file back. Was it done?
    pub(super) fn repair_file(&self, part: &Part, path: &RelPath, row: &IndexRow) -> bool {
        match self.try_file(part, path, row) {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(folder = %part.place.row.name, "repairing: {error}");
                false
            }
        }
    }

    fn try_file(&self, part: &Part, path: &RelPath, row: &IndexRow) -> Result<bool, Error> {
        let place = &*part.place;
        let (Some((digest, size)), Some(print)) = (content_of(row), row.fingerprint) else {
            return Ok(false);
        };
        if !is_current(&self.store, place.key, path, row)? {
            return Ok(false);
        }
        let Some(temp) = self.content(part, &digest, size)? else {
            return Ok(false);
        };
        let finished = place
            .root
            .temp_named(&temp, false)
            .and_then(|file| Root::finish_temp(&file, row.mat.exec, print.mtime_ns));
        if let Err(e) = finished {
            place.root.remove_temp(&temp);
            return Err(Error::Refused(format!("{path}: {e}")));
        }
        let path = path.clone();
        self.ask(part, |reply| FolderEvent::Repair { path, temp, reply })??;
        // Its verification tree may be of the damaged content.
        outboard::forget(&place.outboards, &digest);
        Ok(true)
    }

    /// Puts good content in the place of a damaged displaced version; if nobody has any, takes its name away. Is
    /// everything that is needed good again?
    pub(super) fn repair_object(
        &self,
        part: &Part,
        digest: &Digest,
        marks: &mut Option<Marks>,
    ) -> Result<bool, Error> {
        let root = &part.place.root;
        let failed = |e: std::io::Error| Error::Refused(format!("repairing the version {digest}: {e}"));
        let needed = self.is_needed(digest, marks)?;
        let size = match root.open_object(digest) {
            Ok(Some(file)) => file.metadata().map_or(0, |meta| meta.len()),
            Ok(None) | Err(_) => 0,
        };
        if needed && let Some(temp) = self.content(part, digest, size)? {
            let synced = root.temp_named(&temp, false).and_then(|file| file.sync_all());
            let put = synced.and_then(|()| root.temp_to_object(&temp, digest));
            if put.is_err() {
                root.remove_temp(&temp);
            }
            put.map_err(failed)?;
            return Ok(true);
        }
        root.put_object_aside(digest).map_err(failed)?;
        Ok(!needed)
    }

    /// The same for a packed content, which may be of any folder.
    pub(super) fn repair_packed(
        &self,
        digest: &Digest,
        size: u64,
        marks: &mut Option<Marks>,
    ) -> Result<bool, Error> {
        let needed = self.is_needed(digest, marks)?;
        for part in self.parts.iter().filter(|_| needed) {
            let Some(temp) = self.content(part, digest, size)? else {
                continue;
            };
            let root = &part.place.root;
            let read = root.temp_named(&temp, false).and_then(|mut file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map(|_| bytes)
            });
            root.remove_temp(&temp);
            let Some(bytes) = read.ok().filter(|bytes| Digest::of(bytes) == *digest) else {
                continue;
            };
            self.store.pack_anew(digest, Some(&bytes))?;
            return Ok(true);
        }
        self.store.pack_anew(digest, None)?;
        Ok(!needed)
    }

    /// Does anything that is kept reach this content?
    fn is_needed(&self, digest: &Digest, marks: &mut Option<Marks>) -> Result<bool, Error> {
        let marks = match marks {
            Some(marks) => marks,
            None => marks.insert(self.store.snapshot()?.mark(&|_, _| true)?),
        };
        Ok(marks.has_blob(digest))
    }

    /// A temporary file with this content, from wherever there is any.
    fn content(&self, part: &Part, digest: &Digest, size: u64) -> Result<Option<Vec<u8>>, Error> {
        let place = &part.place;
        let snapshot = self.store.snapshot()?;
        if let Some(temp) = blobs::to_temp(place, &snapshot, &place.root.shards(), digest, size)? {
            return Ok(Some(temp));
        }
        drop(snapshot);
        for source in &part.sources {
            let failed = |e: std::io::Error| Error::Refused(format!("{}: {e}", place.row.name));
            let (temp, file) = place.root.temp_file().map_err(failed)?;
            if self.fetched(part, source, (*digest, size), file) {
                return Ok(Some(temp));
            }
            place.root.remove_temp(&temp);
        }
        Ok(None)
    }

    fn fetched(&self, part: &Part, source: &fetch::Source, want: (Digest, u64), file: File) -> bool {
        let got = self.runtime.block_on(fetch::one(source, &part.place, want, file));
        got.unwrap_or_else(|error| {
            tracing::debug!(peer = %source.device.fmt_short(), "fetching: {error}");
            false
        })
    }
}
