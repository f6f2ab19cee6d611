//! From what a scan found to one commit: what each finding means, the edit of the state tree, the index, and
//! what is left to do. Never touches the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alike_core::claim;
use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::ids::Hlc;
use alike_core::observe::{Mat, Meaning, observe};
use alike_core::path::RelPath;
use alike_core::plan::{Op, plan};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::tree::Overlay;
use alike_core::view::{Change, NewContent, Shown, summarize};
use alike_store::{Commit, IndexRow, Reason, Snapshot};

use super::batch::Batch;
use super::damage::Judged;
use super::rules::drop_ignored;
use super::{Folder, Look, leaves_out, now_ms};
use crate::error::Error;
use crate::failpoint::point;
use crate::ignore::Asker;
use crate::scan::{Finding, Found};

/// How many files came, changed and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) removed: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, changes: &[Change]) {
        let file = |s: &Option<Shown>| s.as_ref().is_some_and(|s| s.value != Value::Dir);
        for change in changes {
            match (file(&change.before), file(&change.after)) {
                (false, true) => self.added += 1,
                (true, false) => self.removed += 1,
                (true, true) => {
                    let (a, b) = (change.before.as_ref(), change.after.as_ref());
                    self.changed += u64::from(!a.zip(b).is_some_and(|(a, b)| a.looks_like(b)));
                }
                (false, false) => {}
            }
        }
    }
}

/// A commit being put together: MAT as it will be, over MAT as it is.
pub(super) struct Draft<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) folder: &'a Folder,
    mats: HashMap<RelPath, Option<IndexRow>>,
    pending: BTreeMap<RelPath, Option<u64>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, folder: &'a Folder) -> Self {
        Draft {
            snapshot,
            folder,
            mats: HashMap::new(),
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn mat(&self, path: &RelPath) -> Result<Option<IndexRow>, Error> {
        match self.mats.get(path) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.snapshot.index(self.folder.place.key, path)?),
        }
    }

    pub(super) fn set_mat(&mut self, path: &RelPath, row: Option<IndexRow>) {
        self.mats.insert(path.clone(), row);
    }

    /// Compares HEAD and MAT at a path: is there something to do, or only dots to remember?
    pub(super) fn settle(&mut self, path: &RelPath, head: Option<&Shown>) -> Result<(), Error> {
        let row = self.mat(path)?;
        let op = plan(head, row.as_ref().map(|r| &r.mat));
        match (op, head, row) {
            (Op::Nothing, ..) => self.pending.insert(path.clone(), None),
            (Op::Adopt, Some(head), Some(mut row)) => {
                // A twin learned later belongs to what is on disk.
                if head.dots.iter().any(|d| !row.mat.dots.contains(d)) {
                    row.mat.dots.extend(&head.dots);
                    row.mat.dots.sort_unstable();
                    row.mat.dots.dedup();
                    self.set_mat(path, Some(row));
                }
                self.pending.insert(path.clone(), None)
            }
            (_, head, _) => self
                .pending
                .insert(path.clone(), Some(head.map_or(0, |h| h.value.size()))),
        };
        Ok(())
    }

    /// The rows of the index and of what is pending, for a commit.
    pub(super) fn into_commit(self) -> Commit {
        let mut commit = Commit::default();
        for (path, row) in self.mats {
            match row {
                Some(row) => commit.index_put.push((path, row)),
                None => commit.index_remove.push(path),
            }
        }
        for (path, bytes) in self.pending {
            match bytes {
                Some(bytes) => commit.pending_put.push((path, bytes)),
                None => commit.pending_remove.push(path),
            }
        }
        commit
    }
}

impl Folder {
    /// Commits a batch of findings.
    pub(super) fn found(&mut self, batch: Vec<Found>) -> Result<(), Error> {
        let Batch {
            mut changed,
            mut touched,
            problems,
            unsure,
        } = Batch::new(batch);
        self.scan_problems.extend(problems);
        unsure.into_iter().for_each(|path| self.dirty(path));
        if changed.is_empty() && touched.is_empty() {
            return Ok(());
        }
        let place = self.place.clone();
        let mut rules = place.rules();
        drop_ignored(&mut rules, &mut changed);
        drop_ignored(&mut rules, &mut touched);
        if changed.is_empty() && touched.is_empty() {
            return Ok(());
        }
        if !self.is_durable(&changed, &touched) {
            return Ok(());
        }
        let key = self.place.key;
        let store = self.place.store.clone();
        self.or_as_before(|folder| {
            let snapshot = store.snapshot()?;
            let commit = folder.draft_found(&snapshot, &mut rules, changed, touched)?;
            point("commit.found");
            store.commit(key, commit)?;
            point("commit.found.done");
            Ok(())
        })
    }

    fn draft_found(
        &mut self,
        snapshot: &Snapshot,
        rules: &mut Asker<'_>,
        changed: Vec<Finding>,
        touched: Vec<Finding>,
    ) -> Result<Commit, Error> {
        let key = self.place.key;
        let now = now_ms();
        let mut edits = Edits::default();
        let mut rows: Vec<(RelPath, Option<IndexRow>)> = Vec::new();
        let mut parents_of_deleted: BTreeSet<RelPath> = BTreeSet::new();
        let old_root = self.head.state.root;
        let mut look = Look::new(snapshot, old_root);
        let moved = self.moved(snapshot, &changed)?;
        for mut finding in changed {
            let row = snapshot.index(key, &finding.path)?;
            if row.as_ref().map(|r| &r.mat) != finding.base.as_ref().map(|r| &r.mat) {
                // Something was applied there while the scan looked: its comparison is void.
                self.dirty(finding.path);
                continue;
            }
            let mut damaged = None;
            match self.judge(&finding, row.as_ref(), &moved) {
                Judged::Edit => {}
                Judged::LookAgain => {
                    self.dirty(finding.path);
                    continue;
                }
                Judged::Damage(was, found) => {
                    // It stands for what it was, whatever else has happened to it.
                    if let Some((seen, _)) = &mut finding.seen {
                        seen.value = was.mat.value;
                    }
                    damaged = Some(found);
                }
            }
            let head = look.at(&finding.path)?.cloned();
            let seen = finding.seen.as_ref().map(|s| &s.0);
            let mat = row.as_ref().map(|r| &r.mat);
            let lives = match mat {
                Some(mat) if seen.is_none() => look.lives(&mat.dots)?,
                _ => false,
            };
            let meaning = observe(seen, mat, head.as_ref(), lives);
            let Some((dir, name)) = finding.path.split() else {
                continue;
            };
            let mut dots = mat.map(|m| m.dots.clone()).unwrap_or_default();
            match meaning {
                Meaning::Nothing => {}
                Meaning::Adopt => {
                    let new = head.as_ref().map(|h| h.dots.clone()).unwrap_or_default();
                    let old: Vec<_> = dots.into_iter().filter(|d| !new.contains(d)).collect();
                    // Whoever made it what HEAD wants by now replaced what was there, also where HEAD has moved
                    // that to a conflict name meanwhile: nobody has its bytes to put there.
                    if look.lives(&old)? {
                        self.next_dot();
                        edits.dir(&dir).kill(&name, old);
                    }
                    dots = new;
                }
                Meaning::Forget => {
                    parents_of_deleted.insert(dir);
                }
                Meaning::Delete => {
                    // A deletion is an event of its own, also when nothing of ours is left to kill.
                    self.next_dot();
                    edits.dir(&dir).kill(&name, dots.iter().copied());
                    parents_of_deleted.insert(dir);
                }
                Meaning::Exec => {
                    let on = seen.is_some_and(|s| s.exec);
                    let dot = self.next_dot();
                    self.head.hlc = self.head.hlc.next(now);
                    let mark = ExecMark {
                        hlc: self.head.hlc,
                        dot,
                        on,
                    };
                    let targets = head.as_ref().map(|h| h.dots.clone()).unwrap_or_default();
                    edits.dir(&dir).mark(&name, targets, mark);
                }
                Meaning::Write => {
                    let seen = seen.expect("a write is seen");
                    let record = self.record(seen, mat, head.as_ref(), finding.mtime, now);
                    let edit = edits.dir(&dir);
                    edit.kill(&name, dots.iter().copied());
                    dots = vec![record.dot];
                    edit.add.push((name, record));
                    if mat.is_some_and(|m| m.value == Value::Dir) {
                        // What was below went with the directory. In the same commit: next to members that
                        // still live, the file would be moved to a conflict name for ever.
                        for (below, row) in snapshot.index_below(key, &finding.path)? {
                            if leaves_out(rules, &below, None, Some(&row)) {
                                continue;
                            }
                            let (parent, name) = below.split().expect("it is below something");
                            edits.dir(&parent).kill(&name, row.mat.dots);
                            rows.push((below, None));
                        }
                    }
                }
            }
            let row = finding.seen.map(|(seen, fingerprint)| IndexRow {
                mat: Mat {
                    value: seen.value,
                    exec: seen.exec,
                    dots,
                },
                fingerprint: Some(fingerprint),
                racy: finding.racy,
            });
            if let Some(row) = row.as_ref().filter(|_| damaged.is_some() || finding.unreadable) {
                self.is_damaged(finding.path.clone(), row.clone(), damaged);
            }
            rows.push((finding.path, row));
        }
        for finding in touched {
            let row = snapshot.index(key, &finding.path)?;
            let Some((_, fingerprint)) = finding.seen else {
                continue;
            };
            if row.as_ref().map(|r| &r.mat) != finding.base.as_ref().map(|r| &r.mat) {
                self.dirty(finding.path);
            } else if let Some(mut row) = row {
                row.fingerprint = Some(fingerprint);
                row.racy = finding.racy;
                if finding.unreadable {
                    self.is_damaged(finding.path.clone(), row.clone(), None);
                } else {
                    self.place.damaged.is_good(&finding.path);
                }
                rows.push((finding.path, Some(row)));
            }
        }
        drop(look);

        let mut nodes = Overlay::new(snapshot);
        let (mut root, mut changes) = edit::apply(&mut nodes, old_root, edits)?;
        let kept = self.keep_dirs(&nodes, snapshot, root, &rows, parents_of_deleted, now)?;
        if let Some((more, dirs)) = kept {
            let (new_root, more_changes) = edit::apply(&mut nodes, root, more)?;
            root = new_root;
            changes.extend(more_changes);
            rows.extend(dirs);
        }
        self.edited(snapshot, nodes, root, changes, rows)
    }

    /// From an edit of HEAD to its commit: HEAD and its vector move on, MAT gets its `rows`, and every path that is
    /// concerned is compared.
    pub(super) fn edited(
        &mut self,
        snapshot: &Snapshot,
        nodes: Overlay<'_>,
        root: Option<Digest>,
        changes: Vec<Change>,
        rows: Vec<(RelPath, Option<IndexRow>)>,
    ) -> Result<Commit, Error> {
        self.head.state.root = root;
        if self.head.seq > self.head.state.vector.get(self.own.id) {
            self.head.chain = claim::link(self.head.chain, self.head.seq, root);
        }
        self.head.state.vector.advance(self.own.id, self.head.seq);
        self.view.local.add(&changes);
        self.since_generation.add(&changes);

        let mut draft = Draft::new(snapshot, self);
        let mut paths: BTreeSet<RelPath> = changes.into_iter().map(|c| c.path).collect();
        for (path, row) in rows {
            draft.set_mat(&path, row);
            paths.insert(path);
        }
        let mut look = Look::new(&nodes, root);
        for path in &paths {
            let head = look.at(path)?.cloned();
            draft.settle(path, head.as_ref())?;
        }
        drop(look);
        let commit = draft.into_commit();
        self.settled(&commit);
        self.finish(snapshot, nodes, commit)
    }

    /// The record of a local write.
    pub(super) fn record(
        &mut self,
        seen: &alike_core::observe::Seen,
        mat: Option<&Mat>,
        head: Option<&Shown>,
        mtime: i64,
        now: u64,
    ) -> Record {
        let dot = self.next_dot();
        // A version is as old as the file says, not as its discovery: an old copy must not win over a newer edit
        // made elsewhere because it was looked at later. What the first scan finds is nobody's edit, and so does
        // not come after what was seen here either. See docs/decisions/0001.
        let imported = !self.head.scanned;
        let written = match seen.value {
            Value::Dir => now,
            _ => u64::try_from(mtime / 1_000_000).unwrap_or(0).min(now),
        };
        let hlc = if imported {
            Hlc::from_millis(written)
        } else {
            self.head.hlc = self.head.hlc.next(written);
            self.head.hlc
        };
        let exec = matches!(seen.value, Value::File { .. }).then(|| {
            let own = ExecMark {
                hlc,
                dot,
                on: seen.exec,
            };
            // Unchanged by this write: the mark of the version before lives on.
            head.and_then(|h| h.exec)
                .filter(|m| m.on == seen.exec && mat.is_some())
                .unwrap_or(own)
        });
        let mtime = if seen.value == Value::Dir { 0 } else { mtime };
        let prev = mat
            .and_then(|m| m.value.key())
            .filter(|_| seen.value != Value::Dir);
        Record {
            dot,
            hlc,
            value: seen.value.clone(),
            exec,
            mtime,
            prev,
            relocated: false,
            imported,
        }
    }

    /// Directories that still are on disk but that HEAD would drop with their last member: they get a record.
    #[expect(
        clippy::type_complexity,
        reason = "the pair is taken apart at the one place of use"
    )]
    fn keep_dirs(
        &mut self,
        nodes: &Overlay<'_>,
        snapshot: &Snapshot,
        root: Option<Digest>,
        rows: &[(RelPath, Option<IndexRow>)],
        candidates: BTreeSet<RelPath>,
        now: u64,
    ) -> Result<Option<(Edits, Vec<(RelPath, Option<IndexRow>)>)>, Error> {
        let fresh: HashMap<&RelPath, &Option<IndexRow>> = rows.iter().map(|(p, r)| (p, r)).collect();
        let mut look = Look::new(nodes, root);
        let mut before = Look::new(snapshot, self.head.state.root);
        let mut edits = Edits::default();
        let mut kept = Vec::new();
        for dir in candidates {
            let Some((parent, name)) = dir.split() else {
                continue;
            };
            let row = match fresh.get(&dir) {
                Some(row) => (*row).clone(),
                None => snapshot.index(self.place.key, &dir)?,
            };
            let Some(mut row) = row.filter(|r| r.mat.value == Value::Dir) else {
                continue;
            };
            // Only what this edit emptied: a directory that was removed elsewhere stays so.
            if look.at(&dir)?.is_some() || before.at(&dir)?.is_none() {
                continue;
            }
            let seen = alike_core::observe::Seen {
                value: Value::Dir,
                exec: false,
            };
            let record = self.record(&seen, None, None, 0, now);
            row.mat.dots = vec![record.dot];
            edits.dir(&parent).add.push((name, record));
            kept.push((dir, Some(row)));
        }
        Ok(if kept.is_empty() {
            None
        } else {
            Some((edits, kept))
        })
    }

    /// What is as it should be has no problem any more.
    pub(super) fn settled(&mut self, commit: &Commit) {
        for path in &commit.pending_remove {
            self.apply_problems.remove(path);
            self.place.parked.forget(path);
        }
        // HEAD or the disk has changed there: it is tried again.
        for (path, _) in &commit.pending_put {
            self.place.parked.forget(path);
        }
    }

    /// Adds to a commit what every change of HEAD brings: new nodes, the content tree, HEAD itself.
    pub(super) fn finish(
        &mut self,
        snapshot: &Snapshot,
        nodes: Overlay<'_>,
        mut commit: Commit,
    ) -> Result<Commit, Error> {
        let mut content = NewContent::default();
        self.head.summary = summarize(&nodes, snapshot, self.head.state.root, &mut content)?;
        commit.nodes = nodes.new.into_iter().collect();
        commit.nodes.extend(
            content
                .nodes
                .into_iter()
                .map(|(digest, bytes)| (digest, bytes.into())),
        );
        commit.summaries = content.summaries.into_iter().collect();
        commit.head = Some(self.head.clone());
        Ok(commit)
    }

    /// A scan is over: its changes are one generation, if no `more` of them are to come: what was renamed is gone from
    /// its old path in the same one.
    pub(super) fn scan_ended(&mut self, full: bool, more: bool) -> Result<(), Error> {
        let reason = if self.head.scanned {
            Reason::Local
        } else {
            Reason::Initial
        };
        let first = full && !self.head.scanned;
        self.or_as_before(|folder| {
            folder.head.scanned |= full;
            let generation = if more {
                None
            } else {
                folder.generation(reason, folder.device)
            };
            if first || generation.is_some() {
                let commit = Commit {
                    head: Some(folder.head.clone()),
                    generation,
                    ..Commit::default()
                };
                point("commit.generation");
                folder.place.store.commit(folder.place.key, commit)?;
                point("commit.generation.done");
            }
            Ok(())
        })
    }
}
