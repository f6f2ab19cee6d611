//! A folder made what it was, as an edit of HEAD: the puller and the apply carry it out like anybody's edit. Never
//! touches the disk, so that what was saved and nobody has seen yet is found out as always.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::diff::{Difference, diff};
use alike_core::edit::{self, Edits};
use alike_core::entry::Entry;
use alike_core::observe::{Mat, Seen};
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::tree::Overlay;
use alike_core::view::Shown;
use alike_store::{Generation, Reason, Snapshot};

use super::{Folder, Look, now_ms};
use crate::error::Error;
use crate::failpoint::point;

/// What a restore is to make of the folder.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) generation: Generation,
    /// Only what is at or below these; none: everything.
    pub(crate) paths: Vec<RelPath>,
    /// What stays as it is, because nobody has its content.
    pub(crate) missing: BTreeSet<RelPath>,
}

impl Wish {
    /// Every path that differs between HEAD and the generation, and is asked for.
    pub(crate) fn differences(
        &self,
        snapshot: &Snapshot,
        now: alike_core::digest::Digest,
    ) -> Result<Vec<Difference>, Error> {
        let mut all = diff(snapshot, now, self.generation.root)?;
        all.retain(|d| {
            (self.paths.is_empty() || self.paths.iter().any(|at| d.path.is_within(at)))
                && !self.missing.contains(&d.path)
        });
        Ok(all)
    }
}

/// How many paths came back or changed, and how many went.
pub(crate) type Done = (u64, u64);

impl Folder {
    /// Commits a restore as one generation.
    pub(super) fn restore(&mut self, wish: &Wish) -> Result<Done, Error> {
        if !self.head.scanned {
            return Err(Error::Refused(
                "the folder is being looked at for the first time; try again when that is done".into(),
            ));
        }
        let store = self.place.store.clone();
        let mut done = (0, 0);
        self.or_as_before(|folder| {
            let snapshot = store.snapshot()?;
            let all = wish.differences(&snapshot, folder.head.summary.root)?;
            if all.is_empty() {
                return Ok(());
            }
            let (edits, dirs, counts) = folder.edits_of(&snapshot, wish, &all)?;
            done = counts;
            let mut nodes = Overlay::new(&snapshot);
            let (mut root, mut changes) = edit::apply(&mut nodes, folder.head.state.root, edits)?;
            // Directories that were there, and that the last member has left.
            let more = folder.empty_dirs(&nodes, root, dirs)?;
            if !more.is_empty() {
                let (new_root, more_changes) = edit::apply(&mut nodes, root, more)?;
                root = new_root;
                changes.extend(more_changes);
            }
            let mut commit = folder.edited(&snapshot, nodes, root, changes, Vec::new())?;
            commit.generation = folder.generation(Reason::Restore, folder.device);
            commit.head = Some(folder.head.clone());
            point("commit.restore");
            store.commit(folder.place.key, commit)?;
            point("commit.restore.done");
            Ok(())
        })?;
        Ok(done)
    }

    /// What changes in the state tree; directories that have to be there afterwards, whether or not something is in
    /// them.
    fn edits_of(
        &mut self,
        snapshot: &Snapshot,
        wish: &Wish,
        all: &[Difference],
    ) -> Result<(Edits, BTreeSet<RelPath>, Done), Error> {
        let now = now_ms();
        let mut look = Look::new(snapshot, self.head.state.root);
        // The past's state tree knows the times of its files, if it is still whole.
        let mut past = Look::new(snapshot, wish.generation.state);
        let place = self.place.clone();
        let mut rules = place.rules();
        let mut edits = Edits::default();
        let mut dirs = BTreeSet::new();
        let (mut changed, mut removed) = (0, 0);
        for difference in all {
            let path = &difference.path;
            let Some((dir, name)) = path.split() else { continue };
            let shown = look.at(path)?.cloned();
            let is_dir = |entry: &Option<Entry>| matches!(entry, Some(Entry::Dir { .. }));
            if rules.ignores(path, is_dir(&difference.before) || is_dir(&difference.after)) {
                continue;
            }
            if let Some(shown) = &shown {
                self.next_dot();
                edits.dir(&dir).kill.extend(shown.dots.iter().copied());
            }
            if let Some(after) = &difference.after {
                dirs.extend(dir.ancestors().chain([dir.clone()]));
                if matches!(after, Entry::Dir { .. }) {
                    dirs.insert(path.clone());
                    continue;
                }
                let was = past.at(path).ok().flatten().cloned();
                let record = self.record_of(after, shown.as_ref(), was.as_ref(), now);
                edits.dir(&dir).add.push((name, record));
                changed += 1;
            } else {
                if !is_dir(&difference.before) {
                    removed += 1;
                }
                dirs.extend(dir.ancestors().chain([dir]));
            }
        }
        // Directories that go are none to keep.
        let gone: BTreeSet<&RelPath> = all
            .iter()
            .filter(|d| !matches!(d.after, Some(Entry::Dir { .. })))
            .map(|d| &d.path)
            .collect();
        dirs.retain(|dir| !dir.is_root() && !gone.contains(dir));
        Ok((edits, dirs, (changed, removed)))
    }

    fn record_of(
        &mut self,
        entry: &Entry,
        shown: Option<&Shown>,
        was: Option<&Shown>,
        now: u64,
    ) -> alike_core::record::Record {
        let (value, exec) = match entry {
            Entry::File { digest, size, exec } => (
                Value::File {
                    digest: *digest,
                    size: *size,
                },
                *exec,
            ),
            Entry::Symlink { target } => (
                Value::Symlink {
                    target: target.clone(),
                },
                false,
            ),
            Entry::Dir { .. } => (Value::Dir, false),
        };
        let mtime = was.filter(|was| was.value == value).map_or_else(
            || {
                i64::try_from(now)
                    .unwrap_or(i64::MAX / 1_000_000)
                    .saturating_mul(1_000_000)
            },
            |was| was.mtime,
        );
        let mat = shown.map(|shown| Mat {
            value: shown.value.clone(),
            exec: shown.is_exec(),
            dots: shown.dots.clone(),
        });
        let mut record = self.record(&Seen { value, exec }, mat.as_ref(), shown, mtime, now);
        // It is newer than all that was seen here, however old its file's time is.
        record.hlc = self.head.hlc;
        record
    }

    /// Records for directories that are to be there and are not.
    fn empty_dirs(
        &mut self,
        nodes: &Overlay<'_>,
        root: Option<alike_core::digest::Digest>,
        dirs: BTreeSet<RelPath>,
    ) -> Result<Edits, Error> {
        let mut look = Look::new(nodes, root);
        let mut absent: BTreeMap<RelPath, ()> = BTreeMap::new();
        for dir in dirs {
            if look.at(&dir)?.is_none() {
                absent.insert(dir, ());
            }
        }
        let mut edits = Edits::default();
        for dir in absent.into_keys() {
            let (parent, name) = dir.split().expect("not the root");
            let record = self.record_of(
                &Entry::Dir {
                    digest: self.head.summary.root,
                },
                None,
                None,
                now_ms(),
            );
            edits.dir(&parent).add.push((name, record));
        }
        Ok(edits)
    }
}
