//! Single paths: they become jobs, one a directory, and each is looked at with what is above it. Never walks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_store::Snapshot;
use rustix::io::Errno;

use super::gone::Gone;
use super::run::{Depth, Job, Member, PART, Run, is_vanished};
use super::{ScanError, Target, look};
use crate::disk::Buffer;
use crate::ignore::{Asker, Rules};

impl Run<'_> {
    /// Sorts the targets into jobs: one a directory, none within another.
    pub(super) fn begin(&self, targets: Vec<Target>) {
        let trees: BTreeSet<RelPath> = targets
            .iter()
            .filter_map(|target| match target {
                Target::Tree(path) => Some(path.clone()),
                Target::Path(_) => None,
            })
            .collect();
        let in_tree = |path: &RelPath| path.ancestors().any(|above| trees.contains(&above));
        let mut by_dir: BTreeMap<RelPath, BTreeSet<Target>> = BTreeMap::new();
        for target in targets {
            let (path, depth) = match &target {
                Target::Path(path) if trees.contains(path) => continue,
                Target::Path(path) => (path, Depth::Members),
                Target::Tree(path) => (path, Depth::Tree),
            };
            if in_tree(path) {
                continue;
            }
            match path.parent() {
                Some(dir) => {
                    by_dir.entry(dir).or_default().insert(target);
                }
                None if depth == Depth::Tree => {
                    self.pool
                        .push(Job::Dir(RelPath::root(), Depth::Tree, Rules::default()))
                }
                None => self
                    .pool
                    .push(Job::Dir(RelPath::root(), Depth::Itself, Rules::default())),
            }
        }
        for (dir, targets) in by_dir {
            let mut targets: Vec<_> = targets.into_iter().collect();
            while !targets.is_empty() {
                let rest = targets.split_off(targets.len().min(PART));
                self.pool.push(Job::Paths(dir.clone(), targets));
                targets = rest;
            }
        }
    }

    /// Looks at single paths of one directory.
    pub(super) fn paths(
        &self,
        buffer: &mut Buffer,
        dir: &RelPath,
        targets: Vec<Target>,
    ) -> Result<(), ScanError> {
        // Before anything is looked at.
        let snapshot = self.index.snapshot()?;
        let spelled = self.scan.root.is_spelled(dir);
        let open = match spelled.and_then(|spelled| {
            if spelled {
                self.scan.root.dir(dir)
            } else {
                not_found()
            }
        }) {
            Ok(open) => open,
            // What is above has changed: that is the news. Perhaps the index knows of that already, and of what was
            // below it not yet.
            Err(e) if is_vanished(&e) && !dir.is_root() => {
                if self.is_known_as_file(&snapshot, dir)? {
                    for target in targets {
                        let (Target::Path(path) | Target::Tree(path)) = target;
                        let row = snapshot.index(self.scan.folder, &path)?;
                        self.gone(Gone::Path(path, row));
                    }
                }
                let (above, _) = dir.split().expect("it is not the root");
                return self.paths(buffer, &above, vec![Target::Path(dir.clone())]);
            }
            Err(e) => {
                self.no_dir(dir.clone(), &e);
                return Ok(());
            }
        };
        let above = Asker::new(self.scan.ignore, self.scan.root).above(dir);
        // Nothing is said of what is in a directory that is left out.
        let Some(above) = above else { return Ok(()) };
        let rules = self.rules(&above, dir, &open);
        for target in targets {
            let (path, depth) = match target {
                Target::Path(path) => (path, Depth::Members),
                Target::Tree(path) => (path, Depth::Tree),
            };
            let Some((_, name)) = path.split() else { continue };
            let base = snapshot.index(self.scan.folder, &path)?;
            match open.other_name(name.as_bytes()) {
                Ok(None) => self.members(buffer, &open, dir, depth, &rules, vec![Member { name, base }]),
                // Whatever was said of one name was meant of the other.
                Ok(Some(other)) => {
                    self.gone_member(dir, &rules, Member { name, base });
                    let Ok(name) = Name::new(&other) else { continue };
                    let base = snapshot.index(self.scan.folder, &dir.join(&name))?;
                    self.members(buffer, &open, dir, depth, &rules, vec![Member { name, base }]);
                }
                Err(e) => self.batches.push(look::unreadable(path, &e)),
            }
        }
        Ok(())
    }

    /// Does the index have a file or link at a path or above it?
    fn is_known_as_file(&self, snapshot: &Snapshot, path: &RelPath) -> Result<bool, ScanError> {
        for at in std::iter::once(path.clone()).chain(path.ancestors()) {
            let row = snapshot.index(self.scan.folder, &at)?;
            if row.is_some_and(|row| row.mat.value != Value::Dir) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn not_found<T>() -> io::Result<T> {
    Err(Errno::NOENT.into())
}
