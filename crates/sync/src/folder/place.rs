//! Where a folder is, and what everything that works on it shares. Never changes what is in it.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;
use alike_core::ids::FolderId;
use alike_store::{FolderKey, FolderRow, Snapshot, Store};

use super::{Damaged, Parked};
use crate::blobs::PLACES;
use crate::disk::{Object, Root};
use crate::ignore::Ignore;
use crate::serve::Traffic;

/// Where a folder is, and everything about it that does not change while the engine runs.
pub(crate) struct Place {
    pub(crate) key: FolderKey,
    pub(crate) id: FolderId,
    pub(crate) row: FolderRow,
    pub(crate) root: Root,
    pub(crate) store: Arc<Store>,
    /// Verification trees of big files.
    pub(crate) outboards: PathBuf,
    pub(crate) traffic: Traffic,
    /// Bytes of big files that have arrived but are not applied yet.
    pub(crate) partial: AtomicU64,
    /// What cannot be put on this disk.
    pub(crate) parked: Parked,
    /// Files whose content is not what the index says, and that nobody has changed.
    pub(crate) damaged: Damaged,
    /// What is not synced at all.
    pub(crate) ignore: Ignore,
    /// Bytes of displaced versions, and when they were counted.
    pub(crate) history: Arc<Mutex<(u64, Option<Instant>)>>,
}

/// How old the count of displaced versions may be that is shown.
const COUNT_AGAIN: Duration = Duration::from_secs(60);

/// The directory, in the state directory, in which damaged files are noted.
pub(crate) const DAMAGED: &str = "damaged";

impl Place {
    pub(crate) fn new(row: FolderRow, root: Root, store: Arc<Store>, outboards: PathBuf) -> Place {
        Place {
            key: row.key,
            id: row.id,
            damaged: Damaged::load(outboards.with_file_name(DAMAGED).join(row.id.to_string())),
            row,
            root,
            store,
            outboards,
            traffic: Traffic::default(),
            partial: AtomicU64::new(0),
            parked: Parked::default(),
            ignore: Ignore::default(),
            history: Arc::default(),
        }
    }

    /// Bytes of displaced versions as they were counted last. If that was some time ago they are counted again, beside
    /// whatever goes on.
    pub(crate) fn history_bytes(self: &Arc<Self>) -> u64 {
        let mut history = self.history.lock().expect("nobody panics while he counts");
        if history.1.is_none_or(|at| at.elapsed() > COUNT_AGAIN) {
            history.1 = Some(Instant::now());
            let place = self.clone();
            tokio::task::spawn_blocking(move || place.count_history());
        }
        history.0
    }

    /// Bytes of displaced versions as they were counted last.
    pub(crate) fn counted_history(&self) -> u64 {
        self.history.lock().expect("nobody panics while he counts").0
    }

    /// Lists displaced versions, but for clones of what is in the folder: they take no room, what the disk does to their
    /// bytes it does to those of the file, and when that is repaired they are made again.
    pub(crate) fn displaced(&self) -> std::io::Result<Vec<Object>> {
        let snapshot = self.store.snapshot().map_err(std::io::Error::other)?;
        let mut all = Vec::new();
        self.root.each_object(&mut |object| {
            if !(object.is_clone && self.lives(&snapshot, &object.digest)) {
                all.push(*object);
            }
            true
        })?;
        Ok(all)
    }

    /// Is this one there, and would be listed?
    pub(crate) fn is_displaced(&self, snapshot: &Snapshot, digest: &Digest) -> bool {
        match self.root.is_object_clone(digest) {
            Ok(None) => false,
            Ok(Some(true)) => !self.lives(snapshot, digest),
            Ok(Some(false)) | Err(_) => true,
        }
    }

    fn lives(&self, snapshot: &Snapshot, digest: &Digest) -> bool {
        let is_here = |places: Vec<(FolderKey, _)>| places.iter().any(|(key, _)| *key == self.key);
        snapshot.blob_places(digest, PLACES).is_ok_and(is_here)
    }

    /// Counts displaced versions.
    pub(crate) fn count_history(&self) {
        if let Ok(all) = self.displaced() {
            let bytes = all.iter().map(|object| object.bytes).sum();
            self.history.lock().expect("nobody panics while he counts").0 = bytes;
        }
    }

    /// Keeps the content of a small file, for its past. Without that everything else goes on.
    pub(crate) fn keep_small(&self, digest: &Digest, content: &[u8]) {
        if content.len() <= alike_store::MAX_PACKED
            && let Err(error) = self.store.pack(digest, content)
        {
            tracing::debug!(folder = %self.row.name, "a content is not kept: {error}");
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.row.name, self.row.path.display())
    }
}
