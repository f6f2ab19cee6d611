//! Merging two states: pure, commutative in effect, idempotent. A path that a side lacks while its vector
//! covers the record's dot was deleted or overwritten there; not covered = never seen there.

use std::cmp::Ordering;

use crate::conflict;
use crate::digest::Digest;
use crate::ids::{Hlc, Vector};
use crate::path::RelPath;
use crate::record::{ExecMark, Record};
use crate::rewrite::rewrite;
use crate::state::{State, StateEntry, read_dir};
use crate::tree::{Overlay, TreeError, pairs, read_two};
use crate::view::Change;

/// Two states became one.
#[derive(Debug)]
pub struct Merged {
    /// The merged state.
    pub state: State,
    /// Paths that look different from `ours`, in no useful order.
    pub changes: Vec<Change>,
    /// The newest time among the records that were looked at.
    pub newest: Hlc,
}

/// Merges `theirs` into `ours`; new nodes go to `nodes`.
pub fn merge(nodes: &mut Overlay<'_>, ours: &State, theirs: &State) -> Result<Merged, TreeError> {
    let mut changes = Vec::new();
    let mut merger = Merger {
        nodes,
        x: &ours.vector,
        y: &theirs.vector,
        changes: &mut changes,
        newest: Hlc::default(),
    };
    let root = merger.dir(ours.root, theirs.root, &RelPath::root())?;
    let newest = merger.newest;
    let mut vector = ours.vector.clone();
    vector.join(&theirs.vector);
    Ok(Merged {
        state: State { root, vector },
        changes,
        newest,
    })
}

struct Merger<'a, 'n> {
    nodes: &'a mut Overlay<'n>,
    x: &'a Vector,
    y: &'a Vector,
    changes: &'a mut Vec<Change>,
    newest: Hlc,
}

impl Merger<'_, '_> {
    fn dir(
        &mut self,
        x: Option<Digest>,
        y: Option<Digest>,
        at: &RelPath,
    ) -> Result<Option<Digest>, TreeError> {
        if x == y {
            return Ok(x);
        }
        // Shards that both have are equal, as directories are.
        let (ours, theirs) = match (x, y) {
            (Some(x), Some(y)) => read_two::<StateEntry>(self.nodes, x, y)?,
            _ => (read_dir(self.nodes, x)?, read_dir(self.nodes, y)?),
        };
        for record in theirs.iter().flat_map(|e| &e.records) {
            self.newest = self
                .newest
                .max(record.hlc)
                .max(record.exec.map_or(record.hlc, |m| m.hlc));
        }
        let mut out: Vec<StateEntry> = Vec::with_capacity(ours.len().max(theirs.len()));
        for (a, b) in pairs(&ours, &theirs, |entry| &entry.name) {
            let name = &a.or(b).expect("one side has it").name;
            let below = (a.and_then(|e| e.child), b.and_then(|e| e.child));
            let child = self.dir(below.0, below.1, &at.join(name))?;
            let none: &[Record] = &[];
            let mut records = merge_records(
                (a.map_or(none, |e| &e.records), self.x),
                (b.map_or(none, |e| &e.records), self.y),
            );
            conflict::close(&mut records, child.is_some());
            if child.is_some() || !records.is_empty() {
                out.push(StateEntry {
                    name: name.clone(),
                    records,
                    child,
                });
            }
        }
        rewrite(self.nodes, x, &ours, &out, at, self.changes)
    }
}

/// The records of one home path after a merge, before the closure.
fn merge_records((x, vx): (&[Record], &Vector), (y, vy): (&[Record], &Vector)) -> Vec<Record> {
    // The exec bit has a history of its own: a mark set on a version that has since been replaced still counts
    // for the version that replaced it. But not one that the other side has seen: either it has it, or the
    // file was deleted there with its mark.
    let (from_x, from_y) = (newest_mark(x, vy), newest_mark(y, vx));
    let marked = |mut record: Record, news: Option<ExecMark>| {
        if let (Some(mark), Some(new), false) = (&mut record.exec, news, record.relocated) {
            *mark = (*mark).max(new);
        }
        record
    };
    let mut out = Vec::with_capacity(x.len().max(y.len()));
    let (mut i, mut j) = (0, 0);
    while i < x.len() || j < y.len() {
        let order = match (x.get(i), y.get(j)) {
            (Some(a), Some(b)) => a.dot.cmp(&b.dot),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        match order {
            Ordering::Less => {
                if !vy.covers(x[i].dot) {
                    out.push(marked(x[i].clone(), from_y));
                }
                i += 1;
            }
            Ordering::Greater => {
                if !vx.covers(y[j].dot) {
                    out.push(marked(y[j].clone(), from_x));
                }
                j += 1;
            }
            Ordering::Equal => {
                let mut both = x[i].clone();
                both.relocated |= y[j].relocated;
                both.exec = both.exec.max(y[j].exec);
                out.push(marked(both, from_x.max(from_y)));
                i += 1;
                j += 1;
            }
        }
    }
    out
}

/// The newest mark that the other side has not seen.
fn newest_mark(records: &[Record], other: &Vector) -> Option<ExecMark> {
    records
        .iter()
        .filter(|r| !r.relocated)
        .filter_map(|r| r.exec)
        .filter(|mark| !other.covers(mark.dot))
        .max()
}
