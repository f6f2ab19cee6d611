//! Where the benchmark works: one temporary directory with a corner for each run. What a run wrote stays as long as
//! there is room: a file system that has just deleted many files is slower at making new ones for a while, and
//! whoever comes next would pay for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::process::flush;

/// Never filled up below this many bytes.
const RESERVE: u64 = 2 << 30;

/// The place; removed when it is dropped.
pub(super) struct Place {
    dir: TempDir,
    old: RefCell<VecDeque<PathBuf>>,
}

impl Place {
    pub(super) fn new(parent: &Path) -> Result<Place> {
        fs::create_dir_all(parent)?;
        let parent = fs::canonicalize(parent)?;
        let dir = tempfile::Builder::new()
            .prefix("alike-bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("a directory in {}", parent.display()))?;
        Ok(Place {
            dir,
            old: RefCell::default(),
        })
    }

    /// An empty directory in which a run will write so many bytes. What is oldest goes if they do not fit.
    pub(super) fn corner(&self, bytes: u64) -> Result<PathBuf> {
        while self.free()? < bytes + RESERVE {
            let oldest = self.old.borrow_mut().pop_front();
            let oldest = oldest.with_context(|| {
                format!(
                    "{} GiB are needed in {}",
                    (bytes + RESERVE) >> 30,
                    self.dir.path().display()
                )
            })?;
            fs::remove_dir_all(&oldest).with_context(|| format!("remove {}", oldest.display()))?;
            flush()?;
        }
        let dir = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(self.dir.path())?;
        Ok(dir.keep())
    }

    /// What is in this corner is not needed any more.
    pub(super) fn is_old(&self, corner: PathBuf) {
        self.old.borrow_mut().push_back(corner);
    }

    /// Removes a directory of this place now.
    pub(super) fn remove(&self, dir: &Path) -> Result<()> {
        ensure!(dir.starts_with(self.dir.path()), "only what is ours");
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.dir.path())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    pub(super) fn close(self) -> Result<()> {
        self.dir.close().context("remove what the benchmark made")
    }
}
