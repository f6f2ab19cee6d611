//! Edits, merges and summaries that read and write all of every directory that they come to: what `edit`, `merge` and
//! `view` do near the changes must come to the same.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::conflict;
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, Vector};
use alike_core::path::{Name, RelPath};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::state::{State, StateEntry, read_dir};
use alike_core::tree;
use alike_core::view::{Summary, view};

use super::{Batch, Mem};

type Dir = BTreeMap<Name, StateEntry>;

fn read(nodes: &Mem, dir: Option<Digest>) -> Dir {
    let all = read_dir(nodes, dir).expect("own trees are readable");
    all.into_iter().map(|entry| (entry.name.clone(), entry)).collect()
}

/// Settles the entries and writes those that are left.
fn write(nodes: &mut Mem, mut dir: Dir) -> Option<Digest> {
    for entry in dir.values_mut() {
        conflict::close(&mut entry.records, entry.child.is_some());
    }
    dir.retain(|_, entry| entry.child.is_some() || !entry.records.is_empty());
    let all: Vec<StateEntry> = dir.into_values().collect();
    let mut put = |digest, bytes: Vec<u8>| {
        nodes.insert(digest, bytes.into());
    };
    (!all.is_empty()).then(|| tree::write(&all, &mut put))
}

fn blank(name: &Name) -> StateEntry {
    StateEntry {
        name: name.clone(),
        records: Vec::new(),
        child: None,
    }
}

pub(crate) fn edit(nodes: &mut Mem, root: Option<Digest>, batch: &Batch) -> Option<Digest> {
    edit_dir(nodes, root, batch, &RelPath::root())
}

fn edit_dir(nodes: &mut Mem, dir: Option<Digest>, batch: &Batch, at: &RelPath) -> Option<Digest> {
    let here = |path: &RelPath| path.parent().as_ref() == Some(at);
    let mut entries = read(nodes, dir);
    let kill: BTreeSet<Dot> = batch.kill.iter().filter(|k| here(&k.0)).map(|k| k.1).collect();
    for entry in entries.values_mut() {
        entry.records.retain(|record| !kill.contains(&record.dot));
        for (_, dot, new) in batch.exec.iter().filter(|e| here(&e.0)) {
            for record in entry.records.iter_mut().filter(|record| record.dot == *dot) {
                record.exec = record.exec.map(|mark| mark.max(*new));
            }
        }
    }
    for (path, record) in batch.add.iter().filter(|a| here(&a.0)) {
        let name = path.split().expect("not the root").1;
        let entry = entries.entry(name.clone()).or_insert_with(|| blank(&name));
        entry.records.push(record.clone());
        entry.records.sort_by_key(|record| record.dot);
    }
    let kills = batch.kill.iter().map(|k| &k.0);
    let marks = batch.exec.iter().map(|e| &e.0);
    let paths = kills.chain(marks).chain(batch.add.iter().map(|a| &a.0));
    let depth = at.depth();
    let below: BTreeSet<Name> = paths
        .filter(|path| path.is_within(at) && path.depth() > depth + 1)
        .map(|path| path.components().nth(depth).expect("deep enough"))
        .collect();
    for name in below {
        let old = entries.get(&name).and_then(|entry| entry.child);
        let child = edit_dir(nodes, old, batch, &at.join(&name));
        entries.entry(name.clone()).or_insert_with(|| blank(&name)).child = child;
    }
    write(nodes, entries)
}

pub(crate) fn merge(nodes: &mut Mem, ours: &State, theirs: &State) -> Option<Digest> {
    merge_dir(nodes, (ours.root, &ours.vector), (theirs.root, &theirs.vector))
}

fn merge_dir(
    nodes: &mut Mem,
    (x, vx): (Option<Digest>, &Vector),
    (y, vy): (Option<Digest>, &Vector),
) -> Option<Digest> {
    let (ours, theirs) = (read(nodes, x), read(nodes, y));
    let names: BTreeSet<Name> = ours.keys().chain(theirs.keys()).cloned().collect();
    let mut out = Dir::new();
    for name in names {
        let (a, b) = (ours.get(&name), theirs.get(&name));
        let child = |entry: Option<&StateEntry>| entry.and_then(|entry| entry.child);
        let records = |entry: Option<&StateEntry>| entry.map_or(Vec::new(), |entry| entry.records.clone());
        let merged = StateEntry {
            records: merge_records((&records(a), vx), (&records(b), vy)),
            child: merge_dir(nodes, (child(a), vx), (child(b), vy)),
            name: name.clone(),
        };
        out.insert(name, merged);
    }
    write(nodes, out)
}

fn merge_records((x, vx): (&[Record], &Vector), (y, vy): (&[Record], &Vector)) -> Vec<Record> {
    let newest = |records: &[Record], other: &Vector| {
        let free = records.iter().filter(|record| !record.relocated);
        let marks = free.filter_map(|record| record.exec);
        marks.filter(|mark| !other.covers(mark.dot)).max()
    };
    let (from_x, from_y) = (newest(x, vy), newest(y, vx));
    let marked = |mut record: Record, news: Option<ExecMark>| {
        if !record.relocated {
            record.exec = record.exec.map(|mark| news.map_or(mark, |new| mark.max(new)));
        }
        record
    };
    let mut out = Vec::new();
    for record in x {
        match y.iter().find(|other| other.dot == record.dot) {
            Some(other) => {
                let mut both = record.clone();
                both.relocated |= other.relocated;
                both.exec = both.exec.max(other.exec);
                out.push(marked(both, from_x.max(from_y)));
            }
            None if !vy.covers(record.dot) => out.push(marked(record.clone(), from_y)),
            None => {}
        }
    }
    for record in y {
        if x.iter().all(|other| other.dot != record.dot) && !vx.covers(record.dot) {
            out.push(marked(record.clone(), from_x));
        }
    }
    out.sort_by_key(|record| record.dot);
    out
}

/// The summary, and every node of the content tree.
pub(crate) fn summarize(nodes: &Mem, state: Option<Digest>, content: &mut Mem) -> Summary {
    let mut sum = Summary::empty();
    let mut entries = Vec::new();
    for item in view(&read_dir(nodes, state).expect("own trees are readable")) {
        let exec = item.is_exec();
        sum.conflicts += u64::from(item.copy_of.is_some());
        sum.bytes += item.value.size();
        let entry = match item.value {
            Value::File { digest, size } => Entry::File { digest, size, exec },
            Value::Symlink { target } => Entry::Symlink { target },
            Value::Dir => {
                let below = summarize(nodes, item.child, content);
                sum.files += below.files;
                sum.dirs += below.dirs + 1;
                sum.bytes += below.bytes;
                sum.conflicts += below.conflicts;
                Entry::Dir { digest: below.root }
            }
        };
        sum.files += u64::from(!matches!(entry, Entry::Dir { .. }));
        let name = item.name;
        entries.push(NamedEntry { name, entry });
    }
    sum.root = tree::write(&entries, &mut |digest, bytes| {
        content.insert(digest, bytes.into());
    });
    sum
}
