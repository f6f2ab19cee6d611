//! What a directory of the state tree looks like on a disk: one item a name, conflict copies placed; and its
//! content tree. A pure function of the directory's entries; never decides who wins (that is `conflict`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::conflict::{conflict_name, may_be_copy};
use crate::digest::Digest;
use crate::entry::{Entry, NamedEntry};
use crate::ids::Dot;
use crate::path::{Name, RelPath};
use crate::record::{ExecMark, Record, Value};
use crate::state::{StateEntry, read_dir};
use crate::tree::{self, Cursor, Nodes, Overlay, TreeError};

/// One name as it should be on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The name on disk.
    pub name: Name,
    /// What is there.
    pub value: Value,
    /// The exec bit's mark, for files.
    pub exec: Option<ExecMark>,
    /// Modification time (ns since 1970) to give it.
    pub mtime: i64,
    /// The records this is the materialisation of; empty for a directory that only its members keep alive.
    pub dots: Vec<Dot>,
    /// The original's name, if this is a conflict copy.
    pub copy_of: Option<Name>,
    /// For directories: the state tree below.
    pub child: Option<Digest>,
}

impl Shown {
    fn of(name: Name, record: &Record, copy_of: Option<Name>) -> Self {
        Shown {
            name,
            value: record.value.clone(),
            exec: record.exec,
            mtime: record.mtime,
            dots: vec![record.dot],
            copy_of,
            child: None,
        }
    }

    /// A twin: the same content, written elsewhere too. The newer exec mark and the newer mtime count.
    fn add_twin(&mut self, record: &Record) {
        self.exec = self.exec.max(record.exec);
        self.mtime = self.mtime.max(record.mtime);
        self.dots.push(record.dot);
    }

    /// Executable?
    pub fn is_exec(&self) -> bool {
        self.exec.is_some_and(|mark| mark.on)
    }

    /// Do both ask for the same thing on disk? Times and dots aside.
    pub fn looks_like(&self, other: &Shown) -> bool {
        self.value == other.value && self.is_exec() == other.is_exec()
    }
}

/// One path whose look on disk changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub path: RelPath,
    /// What it looked like.
    pub before: Option<Shown>,
    /// What it looks like now.
    pub after: Option<Shown>,
}

/// What the entries of one directory look like on disk, sorted by name. The records are closed already.
pub fn view(entries: &[StateEntry]) -> Vec<Shown> {
    let mut shown: BTreeMap<Name, Shown> = BTreeMap::new();
    let mut relocated: BTreeMap<(&Name, Digest), Vec<&Record>> = BTreeMap::new();
    for entry in entries {
        if entry.is_dir() {
            let dots = entry
                .records
                .iter()
                .filter(|r| r.value == Value::Dir)
                .map(|r| r.dot)
                .collect();
            let dir = Shown {
                name: entry.name.clone(),
                value: Value::Dir,
                exec: None,
                mtime: 0,
                dots,
                copy_of: None,
                child: entry.child,
            };
            shown.insert(entry.name.clone(), dir);
        }
        for record in &entry.records {
            let Some(key) = record.value.key() else { continue };
            if record.relocated {
                relocated.entry((&entry.name, key)).or_default().push(record);
                continue;
            }
            match shown.get_mut(&entry.name) {
                Some(twin) => twin.add_twin(record),
                None => {
                    shown.insert(entry.name.clone(), Shown::of(entry.name.clone(), record, None));
                }
            }
        }
    }
    if !relocated.is_empty() {
        let homes: BTreeSet<&Name> = entries.iter().map(|e| &e.name).collect();
        for ((home, key), records) in relocated {
            place_copy(&mut shown, &homes, home, key, &records);
        }
    }
    shown.into_values().collect()
}

/// Does an entry look like itself whatever else is in its directory, and all else whatever it is? Conflict copies, and what may
/// be in their way, do not.
pub(crate) fn is_alone(entry: &StateEntry) -> bool {
    !may_be_copy(&entry.name) && entry.records.iter().all(|record| !record.relocated)
}

/// Puts the conflict copy of `home` with the content `key` at the first name that is nobody's home and not
/// taken by a copy of other content.
fn place_copy(
    shown: &mut BTreeMap<Name, Shown>,
    homes: &BTreeSet<&Name>,
    home: &Name,
    key: Digest,
    records: &[&Record],
) {
    let names = [8, 12, 16, 24, 32, 48, 64]
        .into_iter()
        .map(|digits| conflict_name(home, key, digits));
    for name in names {
        match shown.get_mut(&name) {
            // A home whose own versions are all elsewhere is still a home.
            None if homes.contains(&name) => {}
            None => {
                let mut copy = Shown::of(name.clone(), records[0], Some(home.clone()));
                records[1..].iter().for_each(|r| copy.add_twin(r));
                shown.insert(name, copy);
                return;
            }
            Some(taken) if taken.value.key() == Some(key) => {
                records.iter().for_each(|r| taken.add_twin(r));
                return;
            }
            Some(_) => {}
        }
    }
    // Seven names of one content all taken by files that people made: keep the bytes all the same, at a name
    // that depends on nothing but the content and the number of names in the way.
    let mut salt = 0u32;
    loop {
        let salted = Digest::of(&[&key.0[..], &salt.to_le_bytes()].concat());
        let name = conflict_name(home, salted, 64);
        if !homes.contains(&name) && !shown.contains_key(&name) {
            let mut copy = Shown::of(name.clone(), records[0], Some(home.clone()));
            records[1..].iter().for_each(|r| copy.add_twin(r));
            shown.insert(name, copy);
            return;
        }
        salt += 1;
    }
}

/// What a directory and everything below it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Digest of the content tree: the root, if this is the top.
    pub root: Digest,
    /// Files and symlinks.
    pub files: u64,
    /// Directories below this one.
    pub dirs: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Conflict copies.
    pub conflicts: u64,
}

impl Summary {
    /// The summary of nothing.
    pub fn empty() -> Self {
        Summary {
            root: tree::empty::<NamedEntry>(),
            files: 0,
            dirs: 0,
            bytes: 0,
            conflicts: 0,
        }
    }

    /// What one name counts, with what is below it.
    fn of(item: &Shown, below: &Summary) -> Self {
        let is_dir = u64::from(item.value == Value::Dir);
        Summary {
            files: below.files + 1 - is_dir,
            dirs: below.dirs + is_dir,
            bytes: below.bytes.saturating_add(item.value.size()),
            conflicts: below.conflicts + u64::from(item.copy_of.is_some()),
            ..*below
        }
    }

    /// The counts of both, with the root of this one.
    fn plus(&self, other: &Summary) -> Self {
        Summary {
            files: self.files + other.files,
            dirs: self.dirs + other.dirs,
            bytes: self.bytes.saturating_add(other.bytes),
            conflicts: self.conflicts + other.conflicts,
            ..*self
        }
    }

    /// The counts of this without those of the other, with the root of this one; `None` if they do not tell it.
    fn minus(&self, other: &Summary) -> Option<Self> {
        // What ran against the limit was cut off there.
        if self.bytes == u64::MAX {
            return None;
        }
        Some(Summary {
            files: self.files.checked_sub(other.files)?,
            dirs: self.dirs.checked_sub(other.dirs)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
            conflicts: self.conflicts.checked_sub(other.conflicts)?,
            ..*self
        })
    }
}

/// Summaries already known, by state tree digest.
pub trait Summaries {
    /// The summary of this state tree, if it was computed before.
    fn summary(&self, state: &Digest) -> Result<Option<Summary>, tree::NodesError>;
}

/// Summaries and content nodes that a computation added.
#[derive(Debug, Default)]
pub struct NewContent {
    /// Content tree nodes, by digest.
    pub nodes: HashMap<Digest, Vec<u8>>,
    /// Summaries, by state tree digest.
    pub summaries: HashMap<Digest, Summary>,
}

/// The content tree of a state tree, computed from what is not known yet: of a directory that was patched only what is near
/// the changes, if what it was is known.
pub fn summarize(
    nodes: &Overlay<'_>,
    known: &dyn Summaries,
    state: Option<Digest>,
    new: &mut NewContent,
) -> Result<Summary, TreeError> {
    let Some(digest) = state else {
        tree::write::<NamedEntry>(&[], &mut |d, b| {
            new.nodes.insert(d, b);
        });
        return Ok(Summary::empty());
    };
    if let Some(summary) = new.summaries.get(&digest) {
        return Ok(*summary);
    }
    if let Some(summary) = known.summary(&digest)? {
        return Ok(summary);
    }
    let sum = match summarize_patched(nodes, known, digest, new)? {
        Some(sum) => sum,
        None => {
            let mut sum = Summary::empty();
            let items = view(&read_dir(nodes, state)?);
            let entries = add(nodes, known, items, &mut sum, new)?;
            sum.root = tree::write(&entries, &mut |d, b| {
                new.nodes.insert(d, b);
            });
            sum
        }
    };
    new.summaries.insert(digest, sum);
    Ok(sum)
}

/// Adds up what is shown, and makes its content entries.
fn add(
    nodes: &Overlay<'_>,
    known: &dyn Summaries,
    items: Vec<Shown>,
    sum: &mut Summary,
    new: &mut NewContent,
) -> Result<Vec<NamedEntry>, TreeError> {
    let mut entries = Vec::with_capacity(items.len());
    for item in items {
        let below = match item.value {
            Value::Dir => summarize(nodes, known, item.child, new)?,
            Value::File { .. } | Value::Symlink { .. } => Summary::empty(),
        };
        *sum = sum.plus(&Summary::of(&item, &below));
        entries.push(content(item, &below));
    }
    Ok(entries)
}

/// The content entry of what is shown.
fn content(item: Shown, below: &Summary) -> NamedEntry {
    let exec = item.is_exec();
    let entry = match item.value {
        Value::File { digest, size } => Entry::File { digest, size, exec },
        Value::Symlink { target } => Entry::Symlink { target },
        Value::Dir => Entry::Dir { digest: below.root },
    };
    NamedEntry {
        name: item.name,
        entry,
    }
}

/// The summary of a directory by that of the one that it is made of; `None` if that does not tell it.
fn summarize_patched(
    nodes: &Overlay<'_>,
    known: &dyn Summaries,
    state: Digest,
    new: &mut NewContent,
) -> Result<Option<Summary>, TreeError> {
    let Some(patched) = nodes.patched(&state) else {
        return Ok(None);
    };
    let Some(mut sum) = known.summary(&patched.old)? else {
        return Ok(None);
    };
    let mut sides = [Vec::new(), Vec::new()];
    for (side, top) in sides.iter_mut().zip([patched.old, state]) {
        let mut cursor = Cursor::<StateEntry>::new(top);
        for name in &patched.names {
            side.extend(cursor.find(nodes, name)?.cloned());
        }
        if !side.iter().all(is_alone) {
            return Ok(None);
        }
    }
    let mut before = Vec::new();
    for item in view(&sides[0]) {
        let below = match &item.child {
            Some(child) => known.summary(child)?,
            None => Some(Summary::empty()),
        };
        let rest = below.and_then(|below| Some((below, sum.minus(&Summary::of(&item, &below))?)));
        let Some((below, rest)) = rest else {
            return Ok(None);
        };
        sum = rest;
        before.push(content(item, &below));
    }
    let after = add(nodes, known, view(&sides[1]), &mut sum, new)?;
    let changes = tree::changes(&before, &after);
    let root = tree::patch(nodes, sum.root, changes, &mut |d, b| {
        new.nodes.insert(d, b);
    });
    match root {
        Ok(root) => Ok(Some(Summary { root, ..sum })),
        // It can be made anew.
        Err(TreeError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A conflict copy and what has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The directory that both are in.
    pub dir: RelPath,
    /// The copy.
    pub copy: Shown,
    /// What is at the original's name; `None` if it was deleted since.
    pub original: Option<Shown>,
}

/// Every conflict copy of a state tree, in path order by directory. Looks only where the summaries say there are
/// any.
pub fn copies(
    nodes: &dyn Nodes,
    known: &dyn Summaries,
    state: Option<Digest>,
) -> Result<Vec<Copy>, TreeError> {
    let mut out = Vec::new();
    copies_in(nodes, known, state, &RelPath::root(), &mut out)?;
    Ok(out)
}

fn copies_in(
    nodes: &dyn Nodes,
    known: &dyn Summaries,
    state: Option<Digest>,
    at: &RelPath,
    out: &mut Vec<Copy>,
) -> Result<(), TreeError> {
    let Some(digest) = state else { return Ok(()) };
    if known.summary(&digest)?.is_some_and(|sum| sum.conflicts == 0) {
        return Ok(());
    }
    let shown = view(&read_dir(nodes, state)?);
    for item in &shown {
        if let Some(name) = &item.copy_of {
            out.push(Copy {
                dir: at.clone(),
                copy: item.clone(),
                original: shown.iter().find(|s| s.name == *name).cloned(),
            });
        }
        copies_in(nodes, known, item.child, &at.join(&item.name), out)?;
    }
    Ok(())
}
