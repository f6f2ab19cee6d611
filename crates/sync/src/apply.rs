//! Applying a plan to the disk: durable content first, then intents, then one move a path that checks what it
//! displaces, then MAT. Also the way back after a crash. Never decides what should be there.

mod found;
mod gather;
mod recover;
mod relocate;

pub(crate) use gather::{Planned, Stage, gather};
pub(crate) use relocate::must_stay;

use std::collections::HashSet;

use alike_core::digest::Digest;
use alike_core::observe::Mat;
use alike_core::path::RelPath;
use alike_core::plan::Op;
use alike_core::record::Value;
use alike_core::view::Shown;
use alike_store::{Commit, Fingerprint, IndexRow, Intent, Snapshot};

use crate::disk::{Expected, MoveError, Root};
use crate::error::Error;
use crate::failpoint::{may_fail, point};
use crate::folder::{Folder, Look, Problem, Why, leaves_out};
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
        self.displaces().is_some()
    }

    /// The content of the file that it takes away, as far as the index knows.
    fn displaces(&self) -> Option<&Digest> {
        match (&self.op, &self.row.as_ref()?.mat.value) {
            (Op::Replace | Op::Remove | Op::RemoveThenMkdir, Value::File { digest, .. }) => Some(digest),
            _ => None,
        }
    }
}

/// An item whose content, if it needs any, is at hand.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) item: Item,
    /// The temporary file that it is in.
    pub(crate) temp: Option<Vec<u8>>,
    /// Or the removal that takes away a file with this content: then that goes here instead.
    pub(crate) moved: Option<Box<Item>>,
}

impl Ready {
    /// What needs no content, or has it in a temporary file.
    pub(crate) fn new(item: Item, temp: Option<Vec<u8>>) -> Self {
        Ready {
            item,
            temp,
            moved: None,
        }
    }

    /// Everything that it changes.
    fn items(&self) -> impl Iterator<Item = &Item> {
        self.moved.as_deref().into_iter().chain([&self.item])
    }

    /// The file to be put in place: the name of its temporary file, and its content.
    fn content(&self) -> Option<(&[u8], &Digest, u64)> {
        match &self.item.head.as_ref()?.value {
            Value::File { digest, size } => Some((self.temp.as_deref()?, digest, *size)),
            Value::Symlink { .. } | Value::Dir => None,
        }
    }
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

/// Makes the content of a batch durable.
pub(crate) fn make_durable<'a>(root: &Root, batch: impl Iterator<Item = &'a Ready>) -> std::io::Result<()> {
    let temps: Vec<&[u8]> = batch.filter_map(|ready| ready.temp.as_deref()).collect();
    if temps.is_empty() {
        return Ok(());
    }
    may_fail("apply.sync").and_then(|()| root.sync_temps(&temps))?;
    point("apply.synced");
    Ok(())
}

impl Folder {
    /// Applies what is ready and commits what happened. `durable`: what is in temporary files is so already.
    pub(crate) fn apply(
        &mut self,
        planned: Option<Digest>,
        ready: Vec<Ready>,
        durable: bool,
    ) -> Result<Vec<Outcome>, Error> {
        let place = self.place.clone();
        let snapshot = place.store.snapshot()?;
        let healthy = self.view.frozen.is_none() && place.root.check(&place.row.marker).is_ok();
        let mut outcomes = vec![Outcome::Stale; ready.len()];
        let mut todo = Vec::new();
        // What moves comes from another directory mostly.
        let mut look = Look::new(&snapshot, self.head.state.root);
        let mut look_from = Look::new(&snapshot, self.head.state.root);
        for (i, mut item) in ready.into_iter().enumerate() {
            let good = healthy
                && self.still_good(&snapshot, &mut look, planned, &mut item.item)?
                && match &mut item.moved {
                    Some(from) => self.still_good(&snapshot, &mut look_from, planned, from)?,
                    None => true,
                };
            if good {
                todo.push((i, item));
            } else if let Some(temp) = &item.temp {
                place.root.remove_temp(temp);
            }
        }
        if todo.is_empty() {
            return Ok(outcomes);
        }
        drop((look, look_from));
        point("apply.begin");
        // Rules come first, with the directories that they are in: what they leave out may be among the rest. A
        // directory comes before what is in it; those that go are last and deepest first, once their members are gone.
        let has_rules = |r: &Ready| r.items().any(|item| is_rules(&item.path));
        let rules = todo.iter().filter(|(_, ready)| has_rules(ready));
        let around: HashSet<RelPath> = rules.flat_map(|(_, ready)| ready.item.path.ancestors()).collect();
        let turn = |r: &Ready| match r.item.op {
            Op::Rmdir => (2, usize::MAX - r.item.path.depth()),
            _ if has_rules(r) => (0, 2 * r.item.path.depth()),
            _ if around.contains(&r.item.path) => (0, 2 * r.item.path.depth() + 1),
            _ => (1, 0),
        };
        todo.sort_by(|(_, a), (_, b)| (turn(a), &a.item.path).cmp(&(turn(b), &b.item.path)));
        if !durable {
            self.disk(make_durable(&place.root, todo.iter().map(|(_, ready)| ready)))?;
        }
        let intents: Vec<Intent> = todo
            .iter()
            .filter(|(_, r)| r.item.op != Op::Adopt)
            .flat_map(|(_, r)| r.items().map(|item| intent(item, r.temp.clone())))
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
        let mut clones = Vec::new();
        let near = place.root.nearby();
        for (i, ready) in &todo {
            point("apply.item");
            // Before anybody else can write to it.
            let clone = ready
                .content()
                .and_then(|(temp, digest, size)| Some((place.root.clone_of_temp(temp, size)?, digest)));
            outcomes[*i] = self.perform(&mut rules, ready, &mut commit);
            if let Some((clone, digest)) = clone
                && outcomes[*i] == Outcome::Done
                && clone.keep(digest)
            {
                clones.push(digest);
            }
            if outcomes[*i] == Outcome::Done {
                for item in ready.items().filter(|item| is_rules(&item.path)) {
                    self.rules_applied(&item.path);
                    rules.forget();
                }
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
        drop(near);
        let done = todo.iter().all(|(i, _)| outcomes[*i] == Outcome::Done);
        self.disk(may_fail("apply.moved").and_then(|()| {
            if done {
                let items = todo.iter().map(|(_, ready)| &ready.item);
                let mut objects: Vec<&Digest> = items.filter_map(Item::displaces).collect();
                objects.extend(clones);
                let changed = todo.iter().flat_map(|(_, ready)| ready.items());
                place
                    .root
                    .sync_moves(&changed.map(|item| &item.path).collect::<Vec<_>>(), &objects)
            } else {
                // What went back, or is kept under another name, is not listed here.
                place.root.sync_all()
            }
        }))?;
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
        if let Some(from) = &ready.moved {
            return self.relocate(rules, from, (path, head.as_ref()), commit);
        }
        let root = &self.place.root;
        let expected = row.as_ref().map(|row| self.expected(path, row));
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
                let new = head.as_ref().map(|head| {
                    let mut new = materialised(head, fingerprint, root.keeps_fine_times());
                    if *op == Op::Adopt {
                        new.racy = row.as_ref().is_some_and(|r| r.racy);
                    }
                    new
                });
                self.is_done(path, new, commit);
                if matches!(op, Op::Rmdir | Op::RmdirThenCreate) {
                    self.forget_below(path, commit);
                }
                if op.makes_dir() {
                    // Nobody watches it yet: what its user does there until then is found by looking.
                    self.dirty(path.clone());
                }
                Outcome::Done
            }
            Err(error) => self.not_done(
                (path, size),
                *op == Op::RemoveThenMkdir || *op == Op::RmdirThenCreate,
                error,
                commit,
            ),
        }
    }

    /// A path is as it should be: `row`, or nothing.
    fn is_done(&mut self, path: &RelPath, row: Option<IndexRow>, commit: &mut Commit) {
        self.apply_problems.remove(path);
        self.place.parked.forget(path);
        match row {
            Some(row) => commit.index_put.push((path.clone(), row)),
            None => {
                commit.index_remove.push(path.clone());
                self.place.parked.name_is_free(path);
            }
        }
        commit.pending_remove.push(path.clone());
    }

    fn expected(&self, path: &RelPath, row: &IndexRow) -> Expected {
        Expected {
            // A racy fingerprint proves nothing: then the content is compared.
            fingerprint: row.fingerprint.filter(|_| !row.racy),
            value: row.mat.value.clone(),
            damaged: self.place.damaged.holds(path),
        }
    }

    /// A directory has gone that was to go, so it was empty: members that the index still knows were removed by their
    /// user, and nothing is wanted there. No look at what is around them would find them any more.
    fn forget_below(&self, dir: &RelPath, commit: &mut Commit) {
        let snapshot = self.place.store.snapshot();
        let rows = snapshot.and_then(|snapshot| snapshot.index_below(self.place.key, dir));
        let below = rows
            .into_iter()
            .flatten()
            .map(|(path, _)| path)
            .filter(|path| path != dir);
        for path in below {
            commit.pending_remove.push(path.clone());
            commit.index_remove.push(path);
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

    fn not_done(
        &mut self,
        (path, size): (&RelPath, u64),
        two_steps: bool,
        error: MoveError,
        commit: &mut Commit,
    ) -> Outcome {
        if matches!(error, MoveError::Displaced) {
            // What MAT names is not there any more, and that was nobody's deletion or edit.
            commit.index_remove.push(path.clone());
        }
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
}

fn intent(item: &Item, temp: Option<Vec<u8>>) -> Intent {
    let Item { path, head, row, .. } = item;
    Intent {
        path: path.clone(),
        before: row.as_ref().map(|r| r.mat.clone()),
        before_fingerprint: row.as_ref().and_then(|r| r.fingerprint),
        after: head.as_ref().map(|h| h.value.clone()),
        after_exec: head.as_ref().is_some_and(Shown::is_exec),
        dots: head.as_ref().map(|h| h.dots.clone()).unwrap_or_default(),
        temp,
    }
}

/// The index row of what was just put on disk.
fn materialised(head: &Shown, fingerprint: Option<Fingerprint>, fine_times: bool) -> IndexRow {
    let racy = fingerprint.is_some_and(|f| is_young(&f, fine_times)) && head.value != Value::Dir;
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

/// Would a later change of what was just put in place perhaps not show? A later edit sets another mtime; only where
/// the given mtime is of just now could the two be the same.
pub(crate) fn is_young(print: &Fingerprint, fine_times: bool) -> bool {
    let now = i64::try_from(crate::folder::now_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
    let grain = if fine_times { RACY_NS.0 } else { RACY_NS.1 };
    print.mtime_ns > now - grain
}
