//! Applying a plan to the disk: durable content first, then intents, then one move a path that checks what it
//! displaces, then MAT. Also the way back after a crash. Never decides what should be there.

mod found;

use std::collections::HashSet;

use alike_core::digest::Digest;
use alike_core::observe::{Mat, Seen};
use alike_core::path::RelPath;
use alike_core::plan::{Op, plan};
use alike_core::record::Value;
use alike_core::view::Shown;
use alike_store::{Commit, Fingerprint, IndexRow, Intent, Snapshot};

use crate::disk::{Expected, MoveError};
use crate::error::Error;
use crate::failpoint::{may_fail, point};
use crate::fetch::BIG_TEMP;
use crate::folder::{Folder, Look, Place, Problem, Why, leaves_out};
use crate::ignore::{Asker, is_rules};

/// mtimes younger than this may not tell a later change from this one: on a local file system, on others.
const RACY_NS: (i64, i64) = (10_000_000, 2_000_000_000);

/// What is the matter with a file that a program has open for writing, and what to do.
pub(crate) const BEING_WRITTEN: (&str, &str) = (
    "a program on this device has it open for writing; the other device's version waits until it is closed",
    "close it in that program (`fuser` or `lsof` tells which one)",
);

/// One path that has to change, as planned from one snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) path: RelPath,
    pub(crate) op: Op,
    pub(crate) head: Option<Shown>,
    pub(crate) row: Option<IndexRow>,
}

impl Item {
    /// Does it take a file away that is there?
    pub(crate) fn displaces_file(&self) -> bool {
        let was_file = |row: &IndexRow| matches!(row.mat.value, Value::File { .. });
        matches!(self.op, Op::Replace | Op::Remove | Op::RemoveThenMkdir)
            && self.row.as_ref().is_some_and(was_file)
    }
}

/// An item whose content, if it needs any, is in a temporary file.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) item: Item,
    pub(crate) temp: Option<Vec<u8>>,
}

/// What came of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is so on disk, and remembered.
    Done,
    /// Something else has to happen first; it stays pending.
    Blocked,
    /// HEAD or the disk moved on; it is planned anew.
    Stale,
    /// It cannot be done now; there is a problem to show.
    Failed,
    /// It cannot be done here, and waiting does not help.
    Parked,
}

/// A batch of planned items and where the next one begins.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// HEAD's state tree that it was planned from.
    pub(crate) root: Option<Digest>,
    pub(crate) items: Vec<Item>,
    pub(crate) last: Option<RelPath>,
}

/// Plans the next pending paths after `after`: at most `limit`, and none in `skip`.
pub(crate) fn gather(
    place: &Place,
    after: Option<&RelPath>,
    limit: usize,
    skip: &HashSet<RelPath>,
) -> Result<Planned, Error> {
    // HEAD may want at another path what was displaced.
    place.root.keep_left();
    let snapshot = place.store.snapshot()?;
    let head = snapshot.head(place.key)?;
    if !head.scanned {
        // Before the folder was looked at once, nobody knows what of all this it holds already.
        return Ok(Planned::default());
    }
    let root = head.state.root;
    let mut look = Look::new(&snapshot, root);
    let mut rules = place.rules();
    let mut planned = Planned {
        root,
        ..Planned::default()
    };
    for (path, bytes) in snapshot.pending(place.key, after, limit)? {
        planned.last = Some(path.clone());
        if skip.contains(&path) || place.parked.holds(&path) {
            continue;
        }
        if place.parked.holds_above(&path) {
            place.parked.park(path, bytes, Why::Below);
            continue;
        }
        let head = look.at(&path)?.cloned();
        let row = snapshot.index(place.key, &path)?;
        let op = plan(head.as_ref(), row.as_ref().map(|r| &r.mat));
        if leaves_out(&mut rules, &path, head.as_ref(), row.as_ref()) {
            place.parked.park(path, bytes, Why::Ignored);
            continue;
        }
        planned.items.push(Item { path, op, head, row });
    }
    Ok(planned)
}

impl Folder {
    /// Applies what is ready and commits what happened.
    pub(crate) fn apply(
        &mut self,
        planned: Option<Digest>,
        ready: Vec<Ready>,
    ) -> Result<Vec<Outcome>, Error> {
        let place = self.place.clone();
        let snapshot = place.store.snapshot()?;
        let healthy = self.view.frozen.is_none() && place.root.check(&place.row.marker).is_ok();
        let mut outcomes = vec![Outcome::Stale; ready.len()];
        let mut todo = Vec::new();
        let mut look = Look::new(&snapshot, self.head.state.root);
        for (i, mut item) in ready.into_iter().enumerate() {
            if healthy && self.still_good(&snapshot, &mut look, planned, &mut item.item)? {
                todo.push((i, item));
            } else if let Some(temp) = &item.temp {
                place.root.remove_temp(temp);
            }
        }
        if todo.is_empty() {
            return Ok(outcomes);
        }
        drop(look);
        point("apply.begin");
        // Rules come first: what they leave out may be among the rest. Directories go last and deepest first, once
        // their members are gone.
        todo.sort_by_key(|(_, r)| match r.item.op {
            Op::Rmdir => (2, usize::MAX - r.item.path.depth()),
            _ if is_rules(&r.item.path) => (0, 0),
            _ => (1, 0),
        });
        if todo.iter().any(|(_, r)| r.temp.is_some()) {
            self.disk(may_fail("apply.sync").and_then(|()| place.root.sync_all()))?;
            point("apply.synced");
        }
        let intents: Vec<Intent> = todo
            .iter()
            .filter(|(_, r)| r.item.op != Op::Adopt)
            .map(|(_, r)| intent(r))
            .collect();
        let paths: Vec<RelPath> = intents.iter().map(|i| i.path.clone()).collect();
        if !intents.is_empty() {
            place.store.commit(
                place.key,
                Commit {
                    intents_put: intents,
                    ..Commit::default()
                },
            )?;
            point("apply.intended");
        }
        let mut commit = Commit {
            intents_remove: paths,
            ..Commit::default()
        };
        let mut rules = place.rules();
        for (i, ready) in &todo {
            point("apply.item");
            outcomes[*i] = self.perform(&mut rules, ready, &mut commit);
            if outcomes[*i] == Outcome::Done && is_rules(&ready.item.path) {
                self.rules_applied(&ready.item.path);
                rules.forget();
            }
            point("apply.item.done");
            let Some(temp) = &ready.temp else { continue };
            match outcomes[*i] {
                Outcome::Done => {}
                // It will be tried again: the content need not cross the wire again for that.
                Outcome::Failed | Outcome::Parked if place.root.keep_temp(temp).is_ok() => {}
                Outcome::Failed | Outcome::Parked | Outcome::Blocked | Outcome::Stale => {
                    place.root.remove_temp(temp);
                }
            }
        }
        self.disk(may_fail("apply.moved").and_then(|()| place.root.sync_all()))?;
        point("apply.durable");
        place.store.commit(place.key, commit)?;
        point("apply.committed");
        Ok(outcomes)
    }

    fn disk(&self, result: std::io::Result<()>) -> Result<(), Error> {
        result.map_err(|source| Error::NotDurable {
            path: self.place.root.path().to_owned(),
            source,
        })
    }

    /// Do HEAD and MAT still say what the item was planned from? Newer dots of the same content are taken over.
    fn still_good(
        &self,
        snapshot: &Snapshot,
        look: &mut Look<'_>,
        planned: Option<Digest>,
        item: &mut Item,
    ) -> Result<bool, Error> {
        let row = snapshot.index(self.place.key, &item.path)?;
        if row.as_ref().map(|r| &r.mat) != item.row.as_ref().map(|r| &r.mat) {
            return Ok(false);
        }
        item.row = row;
        if planned == self.head.state.root {
            return Ok(true);
        }
        let head = look.at(&item.path)?.cloned();
        let same = match (&head, &item.head) {
            (Some(a), Some(b)) => a.looks_like(b),
            (None, None) => true,
            _ => false,
        };
        if same {
            item.head = head;
        }
        Ok(same)
    }

    /// Does one item; what happened goes into `commit`.
    fn perform(&mut self, rules: &mut Asker<'_>, ready: &Ready, commit: &mut Commit) -> Outcome {
        let Item { path, op, head, row } = &ready.item;
        let size = head.as_ref().map_or(0, |head| head.value.size());
        if self.place.parked.holds_above(path) {
            self.place.parked.park(path.clone(), size, Why::Below);
            return Outcome::Parked;
        }
        if leaves_out(rules, path, head.as_ref(), row.as_ref()) {
            self.place.parked.park(path.clone(), size, Why::Ignored);
            return Outcome::Parked;
        }
        let root = &self.place.root;
        let expected = row.as_ref().map(|r| Expected {
            // A racy fingerprint proves nothing: then the content is compared.
            fingerprint: r.fingerprint.filter(|_| !r.racy),
            value: r.mat.value.clone(),
        });
        let expected = || {
            expected
                .as_ref()
                .expect("the operation is planned over something that is there")
        };
        let temp = || ready.temp.as_deref().expect("content was made ready");
        let result = match op {
            Op::Nothing => Ok(None),
            Op::Adopt => Ok(row.as_ref().and_then(|r| r.fingerprint)),
            Op::Mkdir => root.mkdir(path).map(Some),
            Op::Create => root.create(temp(), path).map(Some),
            Op::Replace => root.replace(temp(), path, expected()).map(Some),
            Op::SetExec => {
                let exec = head.as_ref().is_some_and(Shown::is_exec);
                root.set_exec(path, exec, expected()).map(Some)
            }
            Op::Remove => root.remove(path, expected()).map(|()| None),
            Op::Rmdir => root.rmdir(path).map(|()| None),
            // Between the two steps nothing is there, and that is what MAT says if the second one fails: the scan
            // must not take it for a deletion by somebody.
            Op::RemoveThenMkdir => root.remove(path, expected()).and_then(|()| {
                commit.index_remove.push(path.clone());
                point("apply.between");
                root.mkdir(path).map(Some)
            }),
            Op::RmdirThenCreate => root.rmdir(path).and_then(|()| {
                commit.index_remove.push(path.clone());
                point("apply.between");
                root.create(temp(), path).map(Some)
            }),
        };
        match result {
            Ok(fingerprint) => {
                self.apply_problems.remove(path);
                self.place.parked.forget(path);
                match head {
                    Some(head) => {
                        let mut new = materialised(head, fingerprint, root.keeps_fine_times());
                        if *op == Op::Adopt {
                            new.racy = row.as_ref().is_some_and(|r| r.racy);
                        }
                        commit.index_put.push((path.clone(), new));
                    }
                    None => {
                        commit.index_remove.push(path.clone());
                        self.place.parked.name_is_free(path);
                    }
                }
                commit.pending_remove.push(path.clone());
                if matches!(op, Op::Mkdir | Op::RemoveThenMkdir) {
                    // Nobody watches it yet: what its user does there until then is found by looking.
                    self.dirty(path.clone());
                }
                Outcome::Done
            }
            Err(error) => {
                if matches!(error, MoveError::Displaced) {
                    // What MAT names is not there any more, and that was nobody's deletion or edit.
                    commit.index_remove.push(path.clone());
                }
                self.not_done(
                    (path, size),
                    *op == Op::RemoveThenMkdir || *op == Op::RmdirThenCreate,
                    error,
                )
            }
        }
    }

    /// Why a directory that is to go does not, if that is for long: all that the index knows of it is parked.
    fn holds_strangers(&self, dir: &RelPath) -> Option<Why> {
        let place = &self.place;
        let rows = place
            .store
            .snapshot()
            .and_then(|s| s.index_below(place.key, dir))
            .ok()?;
        if rows.is_empty() {
            return Some(Why::HoldsStrangers);
        }
        let is_parked = |(path, _): &(RelPath, IndexRow)| place.parked.holds(path);
        rows.iter().all(is_parked).then_some(Why::HoldsParked)
    }

    fn not_done(&mut self, (path, size): (&RelPath, u64), two_steps: bool, error: MoveError) -> Outcome {
        let why = match &error {
            MoveError::NotEmpty => self.holds_strangers(path),
            MoveError::NameTaken(by) => Some(Why::NameTaken { by: by.clone() }),
            MoveError::Unsupported(reason) => Some(
                self.place
                    .in_the_way(path)
                    .unwrap_or(Why::Unsupported(reason.clone())),
            ),
            // `Busy`: a mount point.
            MoveError::Changed | MoveError::Busy => self.place.in_the_way(path),
            _ => None,
        };
        if let Some(why) = why {
            self.apply_problems.remove(path);
            self.place.parked.park(path.clone(), size, why);
            if two_steps {
                self.dirty(path.clone());
            }
            return Outcome::Parked;
        }
        let mut problem = |reason: String, hint: &str| {
            self.apply_problems.insert(
                path.clone(),
                Problem {
                    reason,
                    hint: hint.to_owned(),
                },
            );
            Outcome::Failed
        };
        let outcome = match error {
            // A local change slipped in: the scan finds out what it was. Or the directory it belongs into is
            // not there yet.
            MoveError::Changed | MoveError::Displaced => Outcome::Stale,
            MoveError::NotEmpty | MoveError::Busy | MoveError::Unsupported(_) | MoveError::NameTaken(_) => {
                Outcome::Blocked
            }
            MoveError::BeingWritten => problem(BEING_WRITTEN.0.into(), BEING_WRITTEN.1),
            MoveError::NoSpace => problem(
                "no space left on the device".into(),
                "free some space; the file is fetched again by itself",
            ),
            MoveError::Io { source, .. } => problem(
                format!("cannot be written: {source}"),
                "check the permissions of the file and its directory",
            ),
        };
        if outcome == Outcome::Stale || two_steps {
            self.dirty(path.clone());
        }
        outcome
    }

    /// After a crash: finds out how far the moves came that had begun, and remembers what is so.
    pub(crate) fn recover(&mut self) -> Result<(), Error> {
        let place = self.place.clone();
        if place.root.check(&place.row.marker).is_err() {
            // Not the folder: its intents wait until it is back.
            return Ok(());
        }
        let snapshot = place.store.snapshot()?;
        let intents = snapshot.intents(place.key)?;
        let mut commit = Commit::default();
        let mut unclear = Vec::new();
        point("recover.begin");
        // Once for all of them: a batch leaves many intents, and as many temporary files.
        let asides = if intents.is_empty() {
            Vec::new()
        } else {
            place.root.asides().unwrap_or_else(|error| {
                tracing::warn!(folder = %place.row.name, "looking for displaced versions: {error}");
                Vec::new()
            })
        };
        for intent in &intents {
            let (was, meant) = (
                intent.before.as_ref().map(|mat| &mat.value),
                intent.after.as_ref(),
            );
            if let Err(error) = place.root.put_back_saved(&asides, &intent.path, was, meant) {
                tracing::warn!(folder = %place.row.name, path = %intent.path, "a displaced version: {error}");
            }
            let Ok(now) = found::look_at(&place, &intent.path) else {
                // What cannot be read now is judged by the scan, against MAT as it was.
                commit.intents_remove.push(intent.path.clone());
                continue;
            };
            let before = intent.before.as_ref().map(|m| Seen {
                value: m.value.clone(),
                exec: m.exec,
            });
            let after = intent.after.as_ref().map(|value| Seen {
                value: value.clone(),
                exec: intent.after_exec,
            });
            let now = now.map(|found| found::exec_as_kept(&place, found, before.as_ref(), after.as_ref()));
            let now_seen = now.as_ref().map(|(seen, _)| seen.clone());
            if now_seen == after {
                match now {
                    Some((seen, fingerprint)) => {
                        let mat = Mat {
                            value: seen.value,
                            exec: seen.exec,
                            dots: intent.dots.clone(),
                        };
                        let row = IndexRow {
                            mat,
                            fingerprint: Some(fingerprint),
                            racy: true,
                        };
                        commit.index_put.push((intent.path.clone(), row));
                    }
                    None => commit.index_remove.push(intent.path.clone()),
                }
            } else if now_seen != before {
                // Neither what was nor what was meant.
                unclear.push(intent);
            }
            commit.intents_remove.push(intent.path.clone());
        }
        if !intents.is_empty() {
            tracing::info!(folder = %place.row.name, count = intents.len(), "recovered from an unclean end");
        }
        point("recover.looked");
        // After an exchange the temporary name holds the displaced version, perhaps somebody's edit that
        // slipped in: it goes to the displaced versions, whatever it is.
        for temp in intents.iter().filter_map(|i| i.temp.as_deref()) {
            if let Err(error) = place.root.keep_temp(temp) {
                tracing::warn!(folder = %place.row.name, "a displaced version stays in .alike/tmp: {error}");
            }
        }
        point("recover.kept");
        // A link's target is in its record, so a displaced link need not be kept: neither the old one nor ours.
        let links: HashSet<&[u8]> = intents.iter().flat_map(link_targets).collect();
        if let Err(error) = place.root.keep_displaced(&links) {
            tracing::warn!(folder = %place.row.name, "displaced versions stay in .alike/tmp: {error}");
        }
        point("recover.displaced");
        let all_kept = unclear.is_empty() || place.root.asides().is_ok_and(|asides| asides.is_empty());
        for intent in unclear {
            if !(all_kept && self.was_replaced_by_its_user(intent)) {
                // Whoever wrote what is there never saw the version that MAT names, so it must not count as having
                // replaced it.
                commit.index_remove.push(intent.path.clone());
            }
        }
        let kept: HashSet<&[u8]> = intents.iter().filter_map(|i| i.temp.as_deref()).collect();
        let resumable = |name: &[u8]| name.starts_with(BIG_TEMP) || kept.contains(name);
        if let Err(error) = place.root.clear_temps(resumable) {
            tracing::warn!(folder = %place.row.name, "clearing .alike/tmp: {error}");
        }
        point("recover.cleared");
        self.replan(&snapshot, commit)?;
        point("recover.committed");
        Ok(())
    }

    /// Was a move cut off before it had begun, so that whoever wrote or removed what is there now did so to the file
    /// that MAT names? A move keeps the bytes that it takes away; if they are not with the displaced versions, and all of those
    /// are kept by now, none was made.
    /// (Then they are nowhere here: were MAT forgotten, HEAD would go on asking everybody for them.)
    fn was_replaced_by_its_user(&self, intent: &Intent) -> bool {
        let Some(Value::File { digest, .. }) = intent.before.as_ref().map(|mat| &mat.value) else {
            return false;
        };
        matches!(self.place.root.open_object(digest), Ok(None))
    }

    /// Commits what recovery found, and plans the paths concerned anew.
    fn replan(&mut self, snapshot: &Snapshot, mut commit: Commit) -> Result<(), Error> {
        if commit.intents_remove.is_empty() {
            return Ok(());
        }
        let mut look = Look::new(snapshot, self.head.state.root);
        for path in commit.intents_remove.clone() {
            let head = look.at(&path)?.cloned();
            let put = commit
                .index_put
                .iter()
                .find(|(p, _)| *p == path)
                .map(|(_, row)| row.mat.clone());
            let mat = match put {
                Some(mat) => Some(mat),
                None if commit.index_remove.contains(&path) => None,
                None => snapshot.index(self.place.key, &path)?.map(|row| row.mat),
            };
            match plan(head.as_ref(), mat.as_ref()) {
                Op::Nothing | Op::Adopt => commit.pending_remove.push(path),
                _ => commit
                    .pending_put
                    .push((path, head.map_or(0, |h| h.value.size()))),
            }
        }
        Ok(self.place.store.commit(self.place.key, commit)?)
    }
}

fn intent(ready: &Ready) -> Intent {
    let Item { path, head, row, .. } = &ready.item;
    Intent {
        path: path.clone(),
        before: row.as_ref().map(|r| r.mat.clone()),
        before_fingerprint: row.as_ref().and_then(|r| r.fingerprint),
        after: head.as_ref().map(|h| h.value.clone()),
        after_exec: head.as_ref().is_some_and(Shown::is_exec),
        dots: head.as_ref().map(|h| h.dots.clone()).unwrap_or_default(),
        temp: ready.temp.clone(),
    }
}

/// Where the links point that are about to go or to come.
fn link_targets(intent: &Intent) -> impl Iterator<Item = &[u8]> {
    let before = intent.before.as_ref().map(|mat| &mat.value);
    before
        .into_iter()
        .chain(&intent.after)
        .filter_map(|value| match value {
            Value::Symlink { target } => Some(&target[..]),
            Value::File { .. } | Value::Dir => None,
        })
}

/// The index row of what was just put on disk.
fn materialised(head: &Shown, fingerprint: Option<Fingerprint>, fine_times: bool) -> IndexRow {
    let now = i64::try_from(crate::folder::now_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
    let grain = if fine_times { RACY_NS.0 } else { RACY_NS.1 };
    // A later edit sets another mtime; only where the given mtime is of just now could the two be the same.
    let racy = fingerprint.is_some_and(|f| f.mtime_ns > now - grain) && head.value != Value::Dir;
    let mat = Mat {
        value: head.value.clone(),
        exec: head.is_exec(),
        dots: head.dots.clone(),
    };
    IndexRow {
        mat,
        fingerprint,
        racy,
    }
}
