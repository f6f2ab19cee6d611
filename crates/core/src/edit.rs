//! Local writes as a change of the state tree: records killed, records added, exec marks set. Never decides
//! what a write means (that is `observe`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::conflict;
use crate::digest::Digest;
use crate::ids::Dot;
use crate::path::{Name, RelPath};
use crate::record::{ExecMark, Record};
use crate::rewrite::rewrite;
use crate::state::{StateEntry, read_dir};
use crate::tree::{Cursor, Overlay, TreeError};
use crate::view::Change;

/// What happens in one directory.
#[derive(Debug, Default)]
pub struct DirEdit {
    /// New records, by home name.
    pub add: Vec<(Name, Record)>,
    kill: HashSet<Dot>,
    exec: Vec<(Dot, ExecMark)>,
    near: BTreeSet<Name>,
}

impl DirEdit {
    /// These records were overwritten or deleted by their user, who saw them at `name`. They go wherever in this directory
    /// their home is: that they are at home there only spares reading all of it.
    pub fn kill(&mut self, name: &Name, dots: impl IntoIterator<Item = Dot>) {
        self.kill.extend(dots);
        self.near.insert(name.clone());
    }

    /// The exec mark of records that live on, and are seen at `name`.
    pub fn mark(&mut self, name: &Name, dots: impl IntoIterator<Item = Dot>, mark: ExecMark) {
        self.exec.extend(dots.into_iter().map(|dot| (dot, mark)));
        self.near.insert(name.clone());
    }
}

/// Edits of a whole folder, by directory.
#[derive(Debug, Default)]
pub struct Edits {
    here: DirEdit,
    below: BTreeMap<Name, Edits>,
}

impl Edits {
    /// The edit of one directory, to be filled.
    pub fn dir(&mut self, path: &RelPath) -> &mut DirEdit {
        let mut at = self;
        for name in path.components() {
            at = at.below.entry(name).or_default();
        }
        &mut at.here
    }

    /// Nothing to do?
    pub fn is_empty(&self) -> bool {
        self.here.kill.is_empty()
            && self.here.add.is_empty()
            && self.here.exec.is_empty()
            && self.below.values().all(Edits::is_empty)
    }
}

/// Applies `edits` to the state tree `root`; returns the new root and what changed its look.
pub fn apply(
    nodes: &mut Overlay<'_>,
    root: Option<Digest>,
    edits: Edits,
) -> Result<(Option<Digest>, Vec<Change>), TreeError> {
    let mut changes = Vec::new();
    let root = apply_dir(nodes, root, edits, &RelPath::root(), &mut changes)?;
    Ok((root, changes))
}

fn apply_dir(
    nodes: &mut Overlay<'_>,
    dir: Option<Digest>,
    edits: Edits,
    at: &RelPath,
    changes: &mut Vec<Change>,
) -> Result<Option<Digest>, TreeError> {
    let before = concerned(nodes, dir, &edits)?;
    let mut entries: BTreeMap<Name, StateEntry> =
        before.iter().map(|e| (e.name.clone(), e.clone())).collect();
    let blank = |name: &Name| StateEntry {
        name: name.clone(),
        records: Vec::new(),
        child: None,
    };
    let mut touched: HashSet<Name> = HashSet::new();

    if !edits.here.kill.is_empty() {
        for entry in entries.values_mut() {
            let count = entry.records.len();
            entry.records.retain(|r| !edits.here.kill.contains(&r.dot));
            if entry.records.len() != count {
                touched.insert(entry.name.clone());
            }
        }
    }
    if !edits.here.exec.is_empty() {
        let marks: BTreeMap<Dot, ExecMark> = edits.here.exec.into_iter().collect();
        for record in entries.values_mut().flat_map(|e| &mut e.records) {
            if let (Some(mark), Some(new)) = (&mut record.exec, marks.get(&record.dot)) {
                *mark = (*mark).max(*new);
            }
        }
    }
    for (name, record) in edits.here.add {
        let entry = entries.entry(name.clone()).or_insert_with(|| blank(&name));
        let place = entry.records.partition_point(|r| r.dot < record.dot);
        entry.records.insert(place, record);
        touched.insert(name);
    }
    for (name, below) in edits.below {
        let path = at.join(&name);
        let child = entries.get(&name).and_then(|e| e.child);
        let child = apply_dir(nodes, child, below, &path, changes)?;
        entries.entry(name.clone()).or_insert_with(|| blank(&name)).child = child;
        touched.insert(name);
    }
    for name in touched {
        let entry = entries.get_mut(&name).expect("touched entries are there");
        conflict::close(&mut entry.records, entry.child.is_some());
        if entry.records.is_empty() && entry.child.is_none() {
            entries.remove(&name);
        }
    }
    let after: Vec<StateEntry> = entries.into_values().collect();
    rewrite(nodes, dir, &before, &after, at, changes)
}

/// The entries that an edit of a directory is about: those of the names in it, if all its records are there; otherwise all.
fn concerned(nodes: &Overlay<'_>, dir: Option<Digest>, edits: &Edits) -> Result<Vec<StateEntry>, TreeError> {
    let Some(top) = dir else { return Ok(Vec::new()) };
    let here = &edits.here;
    let added = here.add.iter().map(|(name, _)| name);
    let names: BTreeSet<&Name> = here.near.iter().chain(added).chain(edits.below.keys()).collect();
    let mut cursor = Cursor::<StateEntry>::new(top);
    let mut found = Vec::new();
    for name in names {
        found.extend(cursor.find(nodes, name)?.cloned());
    }
    let there: HashSet<Dot> = found.iter().flat_map(|e| &e.records).map(|r| r.dot).collect();
    let mut wanted = here.kill.iter().chain(here.exec.iter().map(|(dot, _)| dot));
    if wanted.all(|dot| there.contains(dot)) {
        Ok(found)
    } else {
        read_dir(nodes, dir)
    }
}

/// Gives the writes for which `fresh` knows another dot that dot; `None` = it keeps its own. They count as imported from
/// then on: where they were seen before, they are twins of what others have, and what was replaced since loses quietly.
pub fn redot(
    nodes: &mut Overlay<'_>,
    root: Option<Digest>,
    fresh: &mut dyn FnMut(Dot) -> Option<Dot>,
) -> Result<(Option<Digest>, Vec<Change>), TreeError> {
    let mut changes = Vec::new();
    let root = redot_dir(nodes, root, fresh, &RelPath::root(), &mut changes)?;
    Ok((root, changes))
}

fn redot_dir(
    nodes: &mut Overlay<'_>,
    dir: Option<Digest>,
    fresh: &mut dyn FnMut(Dot) -> Option<Dot>,
    at: &RelPath,
    changes: &mut Vec<Change>,
) -> Result<Option<Digest>, TreeError> {
    let before = read_dir(nodes, dir)?;
    let mut after = before.clone();
    for entry in &mut after {
        entry.child = redot_dir(nodes, entry.child, fresh, &at.join(&entry.name), changes)?;
        for record in &mut entry.records {
            if let Some(mark) = &mut record.exec {
                mark.dot = fresh(mark.dot).unwrap_or(mark.dot);
            }
            if let Some(dot) = fresh(record.dot) {
                record.dot = dot;
                record.imported = true;
            }
        }
        entry.records.sort_unstable_by_key(|r| r.dot);
        conflict::close(&mut entry.records, entry.child.is_some());
    }
    after.retain(|e| e.child.is_some() || !e.records.is_empty());
    rewrite(nodes, dir, &before, &after, at, changes)
}
