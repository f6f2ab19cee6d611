//! The end of a walk: what is gone is looked at once more, and reported with all that was below it. Never reports what
//! is left out.

use std::collections::{BTreeSet, HashSet};

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::IndexRow;

use super::run::{Run, is_dir_row};
use super::{Finding, Found, ScanError, Wrote, look};
use crate::disk::Kind;
use crate::ignore::Asker;

/// What is gone, until the end of the run.
pub(super) enum Gone {
    /// The path and all rows below it.
    Path(RelPath, Option<IndexRow>),
    /// The path is a file or link now: the rows below it.
    Below(RelPath),
}

impl Gone {
    pub(super) fn path(&self) -> &RelPath {
        match self {
            Gone::Path(path, _) | Gone::Below(path) => path,
        }
    }
}

impl Run<'_> {
    /// At the end: what is still gone, with all that the index has below it, deepest first. Returns the
    /// directories among it.
    pub(super) fn report_gone(&self, mut gone: Vec<Gone>) -> Result<Vec<RelPath>, ScanError> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        // A root that was unmounted or replaced meanwhile looks empty.
        self.scan.root.check_known().map_err(|reason| {
            self.batches.flush();
            ScanError::Root(reason)
        })?;
        // Before the disk is asked: what the index gets after that may be there.
        let snapshot = self.scan.store.snapshot()?;
        gone.sort_by(|a, b| a.path().cmp(b.path()));
        let mut ignored = Asker::new(self.scan.ignore, self.scan.root);
        let mut dirs = BTreeSet::new();
        let mut last = None;
        for gone in gone {
            let path = gone.path().clone();
            if last.as_ref() == Some(&path) || path.ancestors().any(|above| dirs.contains(&above)) {
                continue;
            }
            last = Some(path.clone());
            if !self.is_still_gone(&gone) {
                continue;
            }
            let (own, was_dir) = match gone {
                Gone::Path(_, own) => (own, None),
                Gone::Below(_) => (None, Some(true)),
            };
            let may_have_rows = own.as_ref().is_none_or(|row| row.mat.value == Value::Dir);
            let was_dir = was_dir.unwrap_or(is_dir_row(own.as_ref()));
            let mut rows = Vec::new();
            if may_have_rows {
                rows = snapshot.index_below(self.scan.folder, &path)?;
                rows.retain(|(below, _)| *below != path);
                rows.sort_by(|a, b| b.0.cmp(&a.0));
                if was_dir || !rows.is_empty() {
                    dirs.insert(path.clone());
                }
            }
            rows.extend(own.map(|row| (path.clone(), row)));
            // What is left out is frozen, and with it the directories around it.
            let mut frozen: HashSet<RelPath> = HashSet::new();
            for (at, row) in &rows {
                if ignored.ignores(at, row.mat.value == Value::Dir) {
                    let around = at.ancestors().take_while(|above| above.is_within(&path));
                    frozen.extend(std::iter::once(at.clone()).chain(around));
                }
            }
            for (path, base) in rows.into_iter().filter(|(at, _)| !frozen.contains(at)) {
                self.batches.push(Found::Changed(Finding {
                    path,
                    seen: None,
                    racy: false,
                    base: Some(base),
                    mtime: 0,
                    wrote: Wrote::Unknown,
                    unreadable: false,
                }));
            }
        }
        Ok(dirs.into_iter().collect())
    }

    /// Looks again, now that everything else was looked at.
    fn is_still_gone(&self, gone: &Gone) -> bool {
        let path = gone.path();
        match (self.scan.root.stat(path), gone) {
            (Ok(None), _) => true,
            (Ok(Some(stat)), Gone::Below(_)) if stat.kind != Kind::Dir => true,
            (Ok(Some(_)), _) => {
                self.batches.push(Found::Busy(path.clone()));
                false
            }
            (Err(e), _) => {
                self.batches.push(look::unreadable(path.clone(), &e));
                false
            }
        }
    }
}
