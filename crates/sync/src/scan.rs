//! Looks at the disk, compares it with the index, and hashes what changed. Never writes anything, and never
//! decides what a difference means.
//!
//! A run is a pool of threads over two stacks of jobs: directories (or parts of large ones), and large files.
//! Findings leave in batches while the run goes on. What is gone leaves last, and only after another look: a
//! file that was moved is then known under its new name before its old one is given up.

mod batch;
mod gone;
mod look;
mod paths;
mod pool;
mod run;

pub(crate) use pool::Pool;

use std::collections::HashSet;
use std::path::Path;

use alike_core::digest::Digest;
use alike_core::observe::Seen;
use alike_core::path::RelPath;
use alike_store::{Fingerprint, FolderKey, IndexRow, Store, StoreError};

use crate::disk::Root;
use crate::ignore::Ignore;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// This path. Of a directory that is in the index also its direct members, of any other all below it.
    /// Of the root its direct members.
    Path(RelPath),
    /// This path and everything below it.
    Tree(RelPath),
}

/// What was seen at a path, and what it was compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where.
    pub path: RelPath,
    /// What is there; `None`: nothing any more.
    pub seen: Option<(Seen, Fingerprint)>,
    /// It was changed so recently that the fingerprint would not tell a further change.
    pub racy: bool,
    /// What the index said.
    pub base: Option<IndexRow>,
    /// Modification time of a file or link (ns since 1970), else 0.
    pub mtime: i64,
    /// Has anybody written to it since it was hashed?
    pub wrote: Wrote,
    /// The disk cannot read it; `seen` is what the index says of it.
    pub unreadable: bool,
}

/// Did the watcher see a program write to a file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Yes; or one may have, by way of a memory map that leaves no trace here.
    Yes,
    /// No, and it would have seen it.
    No,
    /// It has not watched all the time.
    Unknown,
}

impl Finding {
    /// Does one more look at the path, without its content, see the same?
    pub(crate) fn is_still_so(&self, root: &Root) -> bool {
        match (&self.seen, root.stat(&self.path)) {
            (None, Ok(None)) => true,
            (Some((_, print)), Ok(Some(stat))) => stat.fingerprint == *print,
            (None | Some(_), _) => false,
        }
    }
}

/// What a scan has to say about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It differs from the index: in content, exec bit or presence.
    Changed(Finding),
    /// It is the same; its fingerprint (or whether that can be trusted) is not.
    Touched(Finding),
    /// It cannot be taken. What the index says about it, and about all below it, stays as it is.
    Problem {
        /// Where.
        path: RelPath,
        /// Why.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// It changed while it was looked at: look again after a quiet moment.
    Busy(RelPath),
    /// A name that cannot be one of ours.
    Unnamable {
        /// The directory it is in.
        dir: RelPath,
        /// The name.
        name: Vec<u8>,
        /// Why.
        reason: String,
    },
}

/// One look at a folder.
pub(crate) struct Scan<'a> {
    /// The folder's root.
    pub root: &'a Root,
    /// Where the index is: a row is read before what is on the disk there, and compared with that.
    pub store: &'a Store,
    /// Of which folder.
    pub folder: FolderKey,
    /// Called before a directory is read, so that a watch can be put on it first.
    pub on_dir: &'a (dyn Fn(&RelPath) + Sync),
    /// Asked often; `true` ends the run early.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Where to keep the outboards of large files.
    pub keep_outboards: Option<&'a Path>,
    /// Gets the content of small files, as they are hashed.
    pub keep_small: &'a (dyn Fn(&Digest, &[u8]) + Sync),
    /// What is left out.
    pub ignore: &'a Ignore,
    /// Files that are hashed even if their fingerprints say that nothing has changed: programs have closed them.
    pub closed: &'a HashSet<RelPath>,
    /// Did anybody write to this file lately?
    pub wrote: &'a (dyn Fn(&RelPath) -> Wrote + Sync),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanReport {
    /// Files and links looked at.
    pub files: u64,
    /// Directories read.
    pub dirs: u64,
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// Was the run not cancelled? Problems do not make it incomplete.
    pub complete: bool,
    /// Directories of the index that are none any more, without those below them: watches on them are stale.
    pub gone_dirs: Vec<RelPath>,
}

/// Why a run failed as a whole. Findings that left before stay true.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The index could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root is not what it was; nothing was reported as gone.
    #[error("{0}")]
    Root(String),
}

impl Scan<'_> {
    /// Looks at the targets. `out` gets the findings in batches, one batch at a time: directories before
    /// their members, and what is gone at the very end, members before their directories.
    pub(crate) fn run(
        &self,
        targets: Vec<Target>,
        out: &(dyn Fn(Vec<Found>) + Sync),
    ) -> Result<ScanReport, ScanError> {
        run::run(self, targets, out)
    }
}

#[cfg(test)]
mod tests;
