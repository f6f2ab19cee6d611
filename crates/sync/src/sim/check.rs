//! What must be true: some of it always, the rest once everything is at rest. Never changes a machine.

use std::collections::BTreeMap;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::{Record, Value};
use alike_core::state::read_dir;
use alike_core::view::{Shown, view};
use alike_store::Snapshot;

use super::Sim;
use super::books::{Write, is_copy};
use super::disk::{Kind, Tree};
use super::machine::Process;

/// Every path that HEAD shows.
fn shown(snapshot: &Snapshot, root: Option<Digest>, at: &RelPath, out: &mut BTreeMap<RelPath, Shown>) {
    for item in view(&read_dir(snapshot, root).expect("HEAD is there")) {
        let path = at.join(&item.name);
        if item.child.is_some() {
            shown(snapshot, item.child, &path, out);
        }
        out.insert(path, item);
    }
}

/// All records, by home.
fn records(
    snapshot: &Snapshot,
    root: Option<Digest>,
    at: &RelPath,
    out: &mut BTreeMap<RelPath, Vec<Record>>,
) {
    for entry in read_dir(snapshot, root).expect("HEAD is there") {
        let path = at.join(&entry.name);
        if entry.child.is_some() {
            records(snapshot, entry.child, &path, out);
        }
        out.insert(path, entry.records);
    }
}

fn as_tree(shown: &BTreeMap<RelPath, Shown>) -> Tree {
    shown
        .iter()
        .map(|(p, s)| (p.clone(), (s.value.clone(), s.is_exec())))
        .collect()
}

impl Sim {
    /// MAT claims nothing that was never on this disk.
    pub(super) fn check_mat(&self, machine: usize, process: &Process) {
        let Ok(snapshot) = process.place.store.snapshot() else {
            return;
        };
        let rows = snapshot
            .index_below(process.place.key, &RelPath::root())
            .unwrap_or_default();
        let books = self.books.borrow();
        for (path, row) in rows {
            assert!(
                books.was_there(machine, &path, &row.mat.value),
                "MAT of m{machine} says {path} is {:?}, which never lay there",
                row.mat.value
            );
        }
    }

    /// What alike wrote down as put on disk, by itself or by a user, is still there when the power is back.
    pub(super) fn check_durable(
        &self,
        machine: usize,
        (before, prints): (&Tree, &BTreeMap<RelPath, (u64, i64, i64)>),
        after: &Tree,
    ) {
        let here = &self.machines[machine];
        let opened = alike_store::Store::with_backend(here.medium.open(), "check".as_ref());
        let store = opened.expect("a database outlives a power cut");
        let row = store.folders().expect("it can be read").remove(0);
        let snapshot = store.snapshot().expect("it can be read");
        let rows = snapshot
            .index_below(row.key, &RelPath::root())
            .expect("it can be read");
        let books = self.books.borrow();
        for (path, row) in rows {
            let Some(key) = row.mat.value.key() else { continue };
            let was = before.get(&path).is_some_and(|(v, _)| *v == row.mat.value);
            let is = after.get(&path).is_some_and(|(v, _)| *v == row.mat.value);
            // Its user may have saved the same once more since it was looked at.
            let as_seen = !row.racy
                && row
                    .fingerprint
                    .is_some_and(|f| prints.get(&path) == Some(&(f.ino, f.mtime_ns, f.ctime_ns)));
            let saved_again = !as_seen && books.own_write(machine, &path, &key);
            assert!(
                !was || is || saved_again,
                "MAT of m{machine} knows {:?} at {path}, but it was not durable there",
                books.name(&key)
            );
        }
    }

    /// Everything that must be true at rest.
    pub(super) fn check(&self) {
        let first = self.process(0).expect("it runs");
        let head = first.view.borrow().head.clone();
        let snapshot = first.place.store.snapshot().expect("it can be read");
        let mut wanted = BTreeMap::new();
        shown(&snapshot, head.state.root, &RelPath::root(), &mut wanted);
        let tree = as_tree(&wanted);
        // Of bytes that a medium or a user has destroyed, nobody can give a device what HEAD shows of them.
        let lost: Vec<RelPath> = tree
            .iter()
            .filter(|(_, (value, _))| value.key().is_some_and(|k| self.books.borrow().is_excused(&k)))
            .map(|(path, _)| path.clone())
            .filter(|path| (0..self.machines.len()).all(|m| !self.machines[m].tree().contains_key(path)))
            .collect();
        if !lost.is_empty() {
            self.note(format_args!("nobody has the bytes of {lost:?} any more"));
            return;
        }
        for machine in 0..self.machines.len() {
            let process = self.process(machine).expect("it runs");
            let view = process.view.borrow();
            assert_eq!(
                view.head.state.vector, head.state.vector,
                "m{machine} and m0 have seen different things"
            );
            if view.head.state != head.state {
                let other = process.place.store.snapshot().expect("it can be read");
                let (mut one, mut two) = (BTreeMap::new(), BTreeMap::new());
                records(&snapshot, head.state.root, &RelPath::root(), &mut one);
                records(&other, view.head.state.root, &RelPath::root(), &mut two);
                for (at, entry) in &one {
                    assert_eq!(Some(entry), two.get(at), "records of {at} differ on m{machine}");
                }
                for at in two.keys() {
                    assert!(one.contains_key(at), "records of {at} are on m{machine} alone");
                }
            }
            assert_eq!(
                view.head.summary.root, head.summary.root,
                "m{machine} and m0 have different roots"
            );
            assert!(view.held.is_empty() && view.broken.is_none() && view.frozen.is_none());
            assert_same(&self.machines[machine].tree(), &tree, machine);
            let snapshot = process.place.store.snapshot().expect("it can be read");
            let key = process.place.key;
            let pending = snapshot.pending(key, None, 100).expect("it can be read");
            assert!(
                pending.is_empty(),
                "m{machine} has something left to do: {pending:?}"
            );
            assert!(
                snapshot.intents(key).expect("it can be read").is_empty(),
                "m{machine} has intents left"
            );
            let mat: Tree = snapshot
                .index_below(key, &RelPath::root())
                .expect("it can be read")
                .into_iter()
                .map(|(p, row)| (p, (row.mat.value, row.mat.exec)))
                .collect();
            assert_same(&mat, &tree, machine);
        }
        self.check_contents(&tree);
        self.check_clones();
        self.check_conflicts(&wanted);
        self.check_strays();
    }

    /// Nothing is lost, nothing comes back, nothing is made up.
    fn check_contents(&self, tree: &Tree) {
        let books = self.books.borrow();
        let mut there: BTreeMap<Digest, RelPath> = BTreeMap::new();
        for (path, (value, _)) in tree {
            if let Some(key) = value.key() {
                there.insert(key, path.clone());
            }
        }
        let killed = |w: &usize| books.killed.contains(w);
        for (id, write) in books.writes.iter().enumerate() {
            // Of one content written to one path twice, one fate is both's.
            let twins = books
                .of_key(&write.key)
                .iter()
                .filter(|w| books.writes[**w].path == write.path);
            if write.excused || twins.clone().any(killed) {
                continue;
            }
            // Saved twice while alike held the file: of the first save, the bytes are kept, but not at a path.
            let later = |w: &Write| w.machine == write.machine && w.path == write.path;
            if books.writes[id + 1..].iter().any(later) && self.lies_somewhere(write.machine, write.key) {
                continue;
            }
            assert!(
                there.contains_key(&write.key),
                "lost: {:?}, write {id}, of m{} to {}",
                books.name(&write.key),
                write.machine,
                write.path
            );
        }
        for (key, path) in &there {
            let writes = books.of_key(key);
            assert!(
                !writes.is_empty(),
                "nobody ever wrote {:?} at {path}",
                books.name(key)
            );
            let twice = |w: &usize| {
                writes
                    .iter()
                    .filter(|o| books.writes[**o].path == books.writes[*w].path)
                    .count()
                    > 1
            };
            let in_doubt =
                |w: &usize| twice(w) || books.writes[*w].excused || books.is_doubtful(&books.writes[*w].path);
            assert!(
                !writes.iter().all(killed) || writes.iter().any(in_doubt) || books.is_doubtful(path),
                "came back: {:?} at {path}",
                books.name(key)
            );
        }
    }

    /// A conflict copy has a cause.
    fn check_conflicts(&self, wanted: &BTreeMap<RelPath, Shown>) {
        let books = self.books.borrow();
        for (path, item) in wanted {
            let (Some(home), Some(key)) = (&item.copy_of, item.value.key()) else {
                continue;
            };
            let home = path.parent().expect("a file is in a directory").join(home);
            let was_dir = books.dirs.contains(&home);
            if was_dir || books.is_doubtful(&home) || is_copy(&home) {
                continue;
            }
            let mine: Vec<usize> = books
                .of_key(&key)
                .iter()
                .copied()
                .filter(|w| books.writes[*w].path == home)
                .collect();
            let unclear = |w: &usize| books.writes[*w].excused;
            if mine.len() != 1 || mine.iter().any(unclear) {
                continue;
            }
            let others: Vec<usize> = (0..books.writes.len())
                .filter(|w| books.writes[*w].path == home)
                .collect();
            let twice = |w: &usize| {
                let key = books.writes[*w].key;
                others.iter().filter(|o| books.writes[**o].key == key).count() > 1
            };
            if others.iter().any(|w| twice(w) || unclear(w)) {
                continue;
            }
            assert!(
                others.iter().any(|w| books.concurrent(mine[0], *w)),
                "a conflict out of nothing: {:?} at {path}, but all writes of {home} saw each other",
                books.name(&key)
            );
        }
    }

    /// What somebody wrote into a file that alike had moved away still lies on his disk.
    fn check_strays(&self) {
        let strays = std::mem::take(&mut self.books.borrow_mut().strays);
        for (machine, key) in strays {
            let there = self.lies_somewhere(machine, key);
            let books = self.books.borrow();
            assert!(
                there || books.is_excused(&key),
                "lost: {:?}, written by hand on m{machine}",
                books.name(&key)
            );
        }
    }

    /// Does a file of a machine's folder hold this, in `.alike` or outside it?
    fn lies_somewhere(&self, machine: usize, key: Digest) -> bool {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let all = disk.below(disk.folder);
        all.into_iter()
            .any(|n| disk.kind(n) == Kind::File && disk.digest(n) == key)
    }

    /// What is called a clone of something is that, but for one that a power cut caught.
    fn check_clones(&self) {
        for machine in self.machines.iter().filter(|m| !m.had_no_power.get()) {
            let mut disk = machine.disk.borrow_mut();
            for node in disk.below(disk.folder) {
                let found = &disk.nodes[&node];
                let name = found
                    .up
                    .as_ref()
                    .and_then(|(_, name)| std::str::from_utf8(name).ok());
                if found.attr.mtime == crate::disk::CLONED
                    && let Some(digest) = name.and_then(Digest::from_hex)
                {
                    assert_eq!(disk.digest(node), digest, "a clone on m{}", machine.id);
                }
            }
        }
    }

    /// Doing everything again changes nothing and says nothing.
    pub(super) fn check_idempotence(&self) {
        let sent = self.net.borrow().sent;
        let before = self.round();
        let after = self.round();
        assert_eq!(before, after, "everything once more changed something");
        assert_eq!(
            sent,
            self.net.borrow().sent,
            "something was announced though nothing changed"
        );
    }
}

fn assert_same(found: &Tree, wanted: &Tree, machine: usize) {
    for path in found.keys().chain(wanted.keys()) {
        let is: Option<&(Value, bool)> = found.get(path);
        assert_eq!(is, wanted.get(path), "{path} on m{machine} is not what HEAD says");
    }
}
