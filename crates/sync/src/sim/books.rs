//! What users did, who had seen what when they did it, and what lay where: kept from the disks alone, so that the
//! code under test has no say in it. Never changes anything but itself.
//!
//! A *write* is a content that a user gave to a path of a machine. Its past is every write that had been on that
//! machine's disk at that path before. A write is *killed* when a user overwrites or removes it where it lies.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::conflict::conflict_name;
use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;

use super::disk::Tree;

#[derive(Debug)]
pub(super) struct Write {
    pub(super) machine: usize,
    pub(super) path: RelPath,
    pub(super) key: Digest,
    pub(super) past: BTreeSet<usize>,
    /// A medium lost it, or made it up: nothing is asked of it.
    pub(super) excused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) writes: Vec<Write>,
    by_key: BTreeMap<Digest, Vec<usize>>,
    /// Per machine and path: the writes that have been on its disk there.
    known: Vec<BTreeMap<RelPath, BTreeSet<usize>>>,
    pub(super) killed: BTreeSet<usize>,
    /// Per machine: everything that ever lay on its disk.
    ever: Vec<BTreeSet<(RelPath, Option<Digest>)>>,
    /// Paths that were a directory anywhere, ever.
    pub(super) dirs: BTreeSet<RelPath>,
    /// Paths of which nobody can say what a user had seen there.
    pub(super) doubtful: BTreeSet<RelPath>,
    /// What users overwrote or removed last, where.
    last_displaced: BTreeMap<(usize, RelPath), Digest>,
    /// What people call a content.
    pub(super) names: BTreeMap<Digest, String>,
    /// What users wrote into files that were not at a path any more.
    pub(super) strays: Vec<(usize, Digest)>,
}

impl Books {
    pub(super) fn new(machines: usize) -> Self {
        Books {
            known: vec![BTreeMap::new(); machines],
            ever: vec![BTreeSet::new(); machines],
            ..Books::default()
        }
    }

    pub(super) fn name(&self, key: &Digest) -> String {
        self.names
            .get(key)
            .cloned()
            .unwrap_or_else(|| key.to_hex()[..8].to_owned())
    }

    pub(super) fn of_key(&self, key: &Digest) -> &[usize] {
        self.by_key.get(key).map_or(&[], |ids| &ids[..])
    }

    /// The writes that a content at a path stems from: those of this path, or, of a conflict copy, those of its
    /// neighbours.
    fn candidates(&self, path: &RelPath, key: &Digest) -> Vec<usize> {
        let all = self.of_key(key);
        let own: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&w| self.writes[w].path == *path)
            .collect();
        if own.is_empty() && is_copy(path) {
            let (_, name) = path.split().expect("not the root");
            let beside = |w: &usize| {
                let (dir, home) = self.writes[*w].path.split().expect("not the root");
                Some(dir) == path.parent()
                    && [8, 12, 16].iter().any(|n| conflict_name(&home, *key, *n) == name)
            };
            return all.iter().copied().filter(beside).collect();
        }
        own
    }

    /// Something lies on a disk.
    pub(super) fn appeared(&mut self, machine: usize, path: &RelPath, value: &Value) {
        let key = value.key();
        if !self.ever[machine].insert((path.clone(), key)) {
            return;
        }
        let Some(key) = key else {
            self.dirs.insert(path.clone());
            return;
        };
        // Where one content was written to one path twice, nobody can say which of the two this is.
        if let [write] = self.candidates(path, &key)[..] {
            let mut seen = self.writes[write].past.clone();
            seen.insert(write);
            self.known[machine].entry(path.clone()).or_default().extend(seen);
        }
    }

    pub(super) fn was_there(&self, machine: usize, path: &RelPath, value: &Value) -> bool {
        self.ever[machine].contains(&(path.clone(), value.key()))
    }

    /// A user writes.
    pub(super) fn written(&mut self, machine: usize, path: &RelPath, value: &Value) {
        let Some(key) = value.key() else {
            self.appeared(machine, path, value);
            return;
        };
        let id = self.writes.len();
        let known = self.known[machine].entry(path.clone()).or_default();
        self.writes.push(Write {
            machine,
            path: path.clone(),
            key,
            past: known.clone(),
            // The same content once more is no event to whoever looks at contents.
            excused: self.last_displaced.get(&(machine, path.clone())) == Some(&key),
        });
        known.insert(id);
        self.by_key.entry(key).or_default().push(id);
        self.ever[machine].insert((path.clone(), Some(key)));
    }

    /// A user overwrites or removes what lies at a path.
    pub(super) fn displaced(&mut self, machine: usize, path: &RelPath, value: &Value) {
        let Some(key) = value.key() else { return };
        self.last_displaced.insert((machine, path.clone()), key);
        let candidates = self.candidates(path, &key);
        let known = self.known[machine].get(path);
        for &write in &candidates {
            if candidates.len() > 1 || known.is_some_and(|k| k.contains(&write)) {
                self.killed.insert(write);
            }
        }
    }

    pub(super) fn doubt(&mut self, path: &RelPath) {
        self.doubtful.insert(path.clone());
    }

    /// These bytes may be nowhere any more, and it was not alike who did it.
    pub(super) fn excuse(&mut self, key: &Digest) {
        for write in self.by_key.get(key).cloned().unwrap_or_default() {
            self.writes[write].excused = true;
        }
    }

    pub(super) fn is_excused(&self, key: &Digest) -> bool {
        self.of_key(key).iter().any(|w| self.writes[*w].excused)
    }

    pub(super) fn is_doubtful(&self, path: &RelPath) -> bool {
        self.doubtful
            .iter()
            .any(|d| d.is_within(path) || path.is_within(d))
    }

    /// Bytes outlived a power cut and the times of when they were written did not: nobody sees that the versions are
    /// gone that a user had at this path before.
    pub(super) fn times_went_back(&mut self, machine: usize, path: &RelPath) {
        let own = self
            .writes
            .iter()
            .filter(|w| w.machine == machine && w.path == *path);
        for key in own.map(|w| w.key).collect::<Vec<_>>() {
            self.excuse(&key);
        }
    }

    /// The power was cut: what lies there now is as if the medium had written and removed it. Returns what changed.
    pub(super) fn power_cut(&mut self, machine: usize, before: &Tree, after: &Tree) -> Vec<RelPath> {
        let mut changed = Vec::new();
        self.strays.retain(|(at, _)| *at != machine);
        let paths: BTreeSet<&RelPath> = before.keys().chain(after.keys()).collect();
        for path in paths {
            let (old, new) = (before.get(path), after.get(path));
            if old == new {
                continue;
            }
            changed.push(path.clone());
            self.doubt(path);
            for write in self.known[machine].get(path).cloned().unwrap_or_default() {
                let key = self.writes[write].key;
                self.excuse(&key);
            }
            for (value, _) in [old, new].into_iter().flatten() {
                let Some(key) = value.key() else { continue };
                if self.of_key(&key).is_empty() {
                    self.names.insert(key, format!("what a power cut left of {path}"));
                    self.written(machine, path, value);
                }
                self.excuse(&key);
            }
        }
        changed
    }

    /// Where this machine's user wrote last.
    pub(super) fn last_write(&self, machine: usize) -> Option<RelPath> {
        let last = self.writes.iter().rev().find(|w| w.machine == machine);
        last.map(|w| w.path.clone())
    }

    /// Is neither in the other's past?
    pub(super) fn concurrent(&self, a: usize, b: usize) -> bool {
        a != b && !self.writes[a].past.contains(&b) && !self.writes[b].past.contains(&a)
    }

    /// Did this machine's user write it there himself?
    pub(super) fn own_write(&self, machine: usize, path: &RelPath, key: &Digest) -> bool {
        let own = |w: &usize| self.writes[*w].machine == machine && self.writes[*w].path == *path;
        self.of_key(key).iter().any(own)
    }
}

pub(super) fn is_copy(path: &RelPath) -> bool {
    path.as_bytes().windows(11).any(|w| w == b" (conflict ")
}
