//! A folder made what it was, as an edit of HEAD: the puller and the apply carry it out like anybody's edit. Never
//! touches the disk, so that what was saved and nobody has seen yet is found out as always.

use std::collections::BTreeSet;

use alike_core::diff::{Difference, diff};
use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::entry::Entry;
use alike_core::path::RelPath;
use alike_core::record::{ExecMark, Record, Value};
use alike_core::tree::Overlay;
use alike_core::view::Shown;
use alike_store::{Generation, Hold, Reason, Snapshot};

use super::{Folder, Look, Place, now_ms};
use crate::error::Error;
use crate::failpoint::point;

/// What a restore is to make of the folder.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) generation: Generation,
    /// What the generation needs is not let go of as long as somebody wants it back.
    pub(crate) _hold: Hold,
    /// Only what is at or below these; none: everything.
    pub(crate) paths: Vec<RelPath>,
    /// What stays as it is, because nobody has its content.
    pub(crate) missing: BTreeSet<RelPath>,
}

impl Wish {
    /// Every path that differs between HEAD and the generation, is asked for and not left out by rules; nothing at or below
    /// what is missing.
    pub(crate) fn differences(
        &self,
        place: &Place,
        snapshot: &Snapshot,
        now: Digest,
    ) -> Result<Vec<Difference>, Error> {
        let mut all = diff(snapshot, now, self.generation.root)?;
        let mut rules = place.rules();
        let is_missing = |path: &RelPath| {
            !self.missing.is_empty()
                && (self.missing.contains(path)
                    || path.ancestors().any(|above| self.missing.contains(&above)))
        };
        all.retain(|d| {
            (self.paths.is_empty() || self.paths.iter().any(|at| d.path.is_within(at)))
                && !is_missing(&d.path)
                && !rules.ignores(&d.path, is_dir(&d.before) || is_dir(&d.after))
        });
        Ok(all)
    }
}

fn is_dir(entry: &Option<Entry>) -> bool {
    matches!(entry, Some(Entry::Dir { .. }))
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
        // Since it was asked for.
        let held = !self.hold.view().is_empty();
        if held || self.view.frozen.is_some() {
            return Err(Error::Refused(
                "the folder cannot be changed now; `sync status` says why".into(),
            ));
        }
        let store = self.place.store.clone();
        let mut done = (0, 0);
        self.or_as_before(|folder| {
            let snapshot = store.snapshot()?;
            let all = wish.differences(&folder.place, &snapshot, folder.head.summary.root)?;
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
        let mut edits = Edits::default();
        let mut dirs = BTreeSet::new();
        let (mut changed, mut removed) = (0, 0);
        for (i, difference) in all.iter().enumerate() {
            let path = &difference.path;
            let Some((dir, name)) = path.split() else { continue };
            let shown = look.at(path)?.cloned();
            if let Some(shown) = &shown {
                self.next_dot();
                let home = shown.copy_of.as_ref().unwrap_or(&name);
                edits.dir(&dir).kill(home, shown.dots.iter().copied());
            }
            dirs.extend(dir.ancestors().chain([dir.clone()]));
            // A directory counts by what is in it.
            let counts = !all.get(i + 1).is_some_and(|next| next.path.is_within(path));
            match &difference.after {
                Some(Entry::Dir { .. }) => {
                    dirs.insert(path.clone());
                    changed += u64::from(counts);
                }
                Some(after) => {
                    let was = past.at(path).ok().flatten().cloned();
                    let record = self.record_of(after, shown.as_ref(), was.as_ref(), now);
                    edits.dir(&dir).add.push((name, record));
                    changed += 1;
                }
                None => removed += u64::from(counts || !is_dir(&difference.before)),
            }
        }
        // Directories that go are none to keep.
        let gone: BTreeSet<&RelPath> = all
            .iter()
            .filter(|d| !is_dir(&d.after))
            .map(|d| &d.path)
            .collect();
        dirs.retain(|dir| !dir.is_root() && !gone.contains(dir));
        Ok((edits, dirs, (changed, removed)))
    }

    /// The record of what comes back. It is an edit of now: newer than all that was seen here, however old its file's
    /// time is.
    fn record_of(&mut self, entry: &Entry, shown: Option<&Shown>, was: Option<&Shown>, now: u64) -> Record {
        let value = match entry {
            Entry::File { digest, size, .. } => Value::File {
                digest: *digest,
                size: *size,
            },
            Entry::Symlink { target } => Value::Symlink {
                target: target.clone(),
            },
            Entry::Dir { .. } => Value::Dir,
        };
        let mut record = self.record_of_now(value, now);
        record.prev = shown.and_then(|shown| shown.value.key());
        if let Some(was) = was.filter(|was| was.value == record.value) {
            record.mtime = was.mtime;
        }
        if let Entry::File { exec, .. } = entry {
            let own = ExecMark {
                hlc: record.hlc,
                dot: record.dot,
                on: *exec,
            };
            // Unchanged by this: the mark of the version before lives on.
            let old = shown.and_then(|shown| shown.exec).filter(|mark| mark.on == *exec);
            record.exec = Some(old.unwrap_or(own));
        }
        record
    }

    fn record_of_now(&mut self, value: Value, now: u64) -> Record {
        let dot = self.next_dot();
        self.head.hlc = self.head.hlc.next(now);
        let ns = i64::try_from(now).unwrap_or(0).saturating_mul(1_000_000);
        Record {
            dot,
            hlc: self.head.hlc,
            mtime: if value == Value::Dir { 0 } else { ns },
            value,
            exec: None,
            prev: None,
            relocated: false,
            imported: false,
        }
    }

    /// Records for directories that are to be there and are not.
    fn empty_dirs(
        &mut self,
        nodes: &Overlay<'_>,
        root: Option<Digest>,
        dirs: BTreeSet<RelPath>,
    ) -> Result<Edits, Error> {
        let mut look = Look::new(nodes, root);
        let now = now_ms();
        let mut edits = Edits::default();
        for dir in dirs {
            if look.at(&dir)?.is_none() {
                let (parent, name) = dir.split().expect("not the root");
                let record = self.record_of_now(Value::Dir, now);
                edits.dir(&parent).add.push((name, record));
            }
        }
        Ok(edits)
    }
}
