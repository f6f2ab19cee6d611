//! Which tree nodes and blobs anything still reaches, and removing the other nodes and summaries while commits go
//! on. Never removes a generation that it is not told to, and never touches a file.
//!
//! Why nothing needed can go: one bounded write transaction removes only what is not in [`Marks`], and first adds to
//! them whatever heads and generations reach *in that transaction*. A commit that names nodes which it does not
//! bring along (it has seen them in the database) holds a [`Lease`] from before it looked until it is written;
//! no transaction of a sweep runs meanwhile.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::record::Value;
use alike_core::state::StateEntry;
use alike_core::tree::{self, Item, Node};
use alike_core::view::Summary;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use crate::error::{Fault, StoreError};
use crate::folders::{self, FolderKey};
use crate::generations::Generation;
use crate::index::{IndexRow, Intent};
use crate::schema::{GENERATIONS, HEADS, NODES, PINS, SUMMARIES};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::value;

/// Rows that one transaction of a sweep looks at, at most: others wait for it, some tens of milliseconds.
const LOOK: usize = 20_000;
/// … and this share of them it removes at most.
const REMOVE: usize = 10;

/// What heads, generations, the index and intents reach.
#[derive(Debug, Default)]
pub struct Marks {
    nodes: HashSet<Digest>,
    /// The first bytes of digests: where two agree in these, one blob too many is kept.
    blobs: HashSet<u64>,
    generations: u64,
}

impl Marks {
    /// Does anything reach this blob?
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains(&short(digest))
    }

    /// Does anything reach this tree node?
    pub fn has_node(&self, digest: &Digest) -> bool {
        self.nodes.contains(digest)
    }

    /// Generations that were kept, of all folders.
    pub fn generations(&self) -> u64 {
        self.generations
    }
}

fn short(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.0[..8].try_into().expect("eight bytes"))
}

/// How far a sweep has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    at: Stage,
    /// Rows removed so far, and the bytes of their values.
    pub removed: u64,
    /// Bytes.
    pub freed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Summaries above this digest are still to be looked at: before nodes, for they name some.
    Summaries(Option<[u8; 32]>),
    /// The same for nodes; and how many summaries there were.
    Nodes(Option<[u8; 32]>, u64),
    Done,
}

impl Default for Stage {
    fn default() -> Self {
        Stage::Summaries(None)
    }
}

impl Sweep {
    /// Has everything been looked at?
    pub fn is_done(&self) -> bool {
        matches!(self.at, Stage::Done)
    }
}

/// While it lives, what is in the database is not swept, reached or not.
#[derive(Debug)]
pub struct Lease {
    count: std::sync::Arc<Mutex<usize>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.count) -= 1;
    }
}

/// While it lives there is no [`Lease`], and whoever wants one waits: for one short step.
#[derive(Debug)]
pub struct Alone<'a>(#[expect(dead_code, reason = "it is held, not looked at")] MutexGuard<'a, usize>);

fn lock(count: &Mutex<usize>) -> MutexGuard<'_, usize> {
    count.lock().expect("nobody panics while he counts")
}

type Rows<'a> = (
    &'a dyn Fn(&Digest) -> Result<Option<Vec<u8>>, Fault>,
    &'a dyn Fn(&Digest) -> Result<Option<Summary>, Fault>,
);

/// A tree still to be walked.
enum Root {
    Content(Digest),
    State(Digest),
}

impl Marks {
    fn blob(&mut self, value: &Value) {
        if let Value::File { digest, .. } = value {
            self.blobs.insert(short(digest));
        }
    }

    /// Adds everything below `roots` that is not there yet. Without recursion: a tree may be deep.
    fn walk(&mut self, (node, summary): Rows<'_>, mut roots: Vec<Root>) -> Result<(), Fault> {
        while let Some(root) = roots.pop() {
            let (Root::Content(digest) | Root::State(digest)) = root;
            if !self.nodes.insert(digest) {
                continue;
            }
            let bytes = node(&digest)?.ok_or_else(|| damaged(&digest, "is missing"))?;
            match root {
                Root::Content(_) => match read::<NamedEntry>(&digest, &bytes)? {
                    Node::Inner(_, children) => {
                        roots.extend(children.into_iter().map(|c| Root::Content(c.1)))
                    }
                    Node::Leaf(entries) => {
                        for entry in entries {
                            match entry.entry {
                                Entry::Dir { digest } => roots.push(Root::Content(digest)),
                                Entry::File { digest, .. } => {
                                    self.blobs.insert(short(&digest));
                                }
                                Entry::Symlink { .. } => {}
                            }
                        }
                    }
                },
                Root::State(_) => {
                    roots.extend(summary(&digest)?.map(|summary| Root::Content(summary.root)));
                    match read::<StateEntry>(&digest, &bytes)? {
                        Node::Inner(_, children) => {
                            roots.extend(children.into_iter().map(|c| Root::State(c.1)));
                        }
                        Node::Leaf(entries) => {
                            for entry in entries {
                                roots.extend(entry.child.map(Root::State));
                                entry.records.iter().for_each(|record| self.blob(&record.value));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn read<T: Item>(digest: &Digest, bytes: &[u8]) -> Result<Node<T>, Fault> {
    tree::decode::<T>(bytes).map_err(|e| damaged(digest, &e.to_string()))
}

fn damaged(digest: &Digest, what: &str) -> Fault {
    Fault::Corrupt(format!("tree node {digest}: {what}"))
}

fn fixed_roots() -> Vec<Root> {
    vec![
        Root::Content(tree::empty::<NamedEntry>()),
        Root::State(tree::empty::<StateEntry>()),
    ]
}

fn roots_of(
    heads: &impl ReadableTable<u32, &'static [u8]>,
    generations: &impl ReadableTable<(u32, u64), &'static [u8]>,
    keep: &dyn Fn(FolderKey, u64) -> bool,
) -> Result<(Vec<Root>, u64), Fault> {
    let mut roots = fixed_roots();
    let mut kept = 0;
    for row in heads.iter()? {
        let (root, state) = folders::trees_of_head(row?.1.value())?;
        roots.push(Root::Content(root));
        roots.extend(state.map(Root::State));
    }
    for row in generations.iter()? {
        let (key, bytes) = row?;
        let (folder, number) = key.value();
        if keep(FolderKey(folder), number) {
            let generation: Generation = value::decode("generations", bytes.value())?;
            roots.push(Root::Content(generation.root));
            roots.extend(generation.state.map(Root::State));
            kept += 1;
        }
    }
    Ok((roots, kept))
}

fn node_in(
    table: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, Fault> {
    Ok(table.get(&digest.0)?.map(|bytes| bytes.value().to_vec()))
}

fn summary_in(
    table: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    digest: &Digest,
) -> Result<Option<Summary>, Fault> {
    let row = table.get(&digest.0)?;
    row.map(|bytes| value::decode("summaries", bytes.value()))
        .transpose()
}

impl Snapshot {
    /// Marks what is reached; of generations, from those that `keep` names (by folder and number).
    pub fn mark(&self, keep: &dyn Fn(FolderKey, u64) -> bool) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        self.mark_more(&mut marks, keep)?;
        self.run(|| {
            for row in self.index.iter()? {
                let row: IndexRow = value::decode("index", row?.1.value())?;
                marks.blob(&row.mat.value);
            }
            for row in self.intents.iter()? {
                let intent: Intent = value::decode("intents", row?.1.value())?;
                intent.before.iter().for_each(|mat| marks.blob(&mat.value));
                intent.after.iter().for_each(|value| marks.blob(value));
            }
            Ok(())
        })?;
        Ok(marks)
    }

    /// Adds what heads and generations have come to reach since.
    pub fn mark_more(
        &self,
        marks: &mut Marks,
        keep: &dyn Fn(FolderKey, u64) -> bool,
    ) -> Result<(), StoreError> {
        self.run(|| {
            let (roots, kept) = roots_of(&self.heads, &self.generations, keep)?;
            marks.generations = kept;
            let node = |digest: &Digest| node_in(&self.nodes, digest);
            let summary = |digest: &Digest| summary_in(&self.summaries, digest);
            marks.walk((&node, &summary), roots)
        })
    }

    /// What a sweep with these marks would remove: rows, and bytes.
    pub fn unmarked(&self, marks: &Marks) -> Result<(u64, u64), StoreError> {
        self.run(|| {
            let (mut rows, mut bytes) = (0, 0);
            for table in [&self.nodes, &self.summaries] {
                for row in table.iter()? {
                    let (key, value) = row?;
                    if !marks.nodes.contains(&Digest(*key.value())) {
                        rows += 1;
                        bytes += value.value().len() as u64;
                    }
                }
            }
            Ok((rows, bytes))
        })
    }
}

impl Store {
    /// To be held by whoever writes a commit that may name tree nodes it does not bring along, from before he looks
    /// for them; and by whoever reads what a generation reached that may be dropped meanwhile.
    pub fn lease(&self) -> Lease {
        *lock(&self.leases) += 1;
        Lease {
            count: self.leases.clone(),
        }
    }

    /// Keeps leases away for one short step; `None` while there is one.
    pub fn alone(&self) -> Option<Alone<'_>> {
        let count = lock(&self.leases);
        (*count == 0).then_some(Alone(count))
    }

    /// Removes generations of a folder; what they alone reach is for a sweep. Not the newest: it says what HEAD
    /// was last. How many were there?
    pub fn drop_generations(&self, folder: FolderKey, numbers: &[u64]) -> Result<u64, StoreError> {
        self.write_anyway(|tx| {
            let mut table = tx.open_table(GENERATIONS)?;
            let newest = table
                .range((folder.0, 0)..=(folder.0, u64::MAX))?
                .next_back()
                .transpose()?
                .map(|row| row.0.value().1);
            let pins = tx.open_table(PINS)?;
            let mut dropped = 0;
            for number in numbers.iter().filter(|n| Some(**n) != newest) {
                // Pinned since somebody decided.
                if pins.get((folder.0, *number))?.is_some() {
                    continue;
                }
                dropped += u64::from(table.remove((folder.0, *number))?.is_some());
            }
            Ok(dropped)
        })
    }

    /// One bounded transaction of a sweep. `false`: somebody holds a lease; nothing was done.
    pub fn sweep(&self, marks: &mut Marks, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let Some(_alone) = self.alone() else {
            return Ok(false);
        };
        // What frees space is done from the reserve.
        let after = self.write_anyway(|tx| step(tx, marks, *sweep))?;
        *sweep = after;
        Ok(true)
    }
}

fn step(tx: &WriteTransaction, marks: &mut Marks, mut sweep: Sweep) -> Result<Sweep, Fault> {
    let mut nodes = tx.open_table(NODES)?;
    let mut summaries = tx.open_table(SUMMARIES)?;
    let (roots, kept) = roots_of(&tx.open_table(HEADS)?, &tx.open_table(GENERATIONS)?, &|_, _| true)?;
    marks.generations = kept;
    marks.walk(
        (&|d: &Digest| node_in(&nodes, d), &|d: &Digest| {
            summary_in(&summaries, d)
        }),
        roots,
    )?;
    sweep.at = match sweep.at {
        Stage::Summaries(from) => match pass(&mut summaries, marks, from, LOOK, &mut sweep)? {
            Some(last) => Stage::Summaries(Some(last)),
            None => Stage::Nodes(None, summaries.len()?),
        },
        Stage::Nodes(from, known) => {
            // A summary that was written since and is not reached any more names nodes that go now: it goes first.
            if summaries.len()? != known {
                pass(&mut summaries, marks, None, usize::MAX, &mut sweep)?;
            }
            match pass(&mut nodes, marks, from, LOOK, &mut sweep)? {
                Some(last) => Stage::Nodes(Some(last), summaries.len()?),
                None => Stage::Done,
            }
        }
        Stage::Done => Stage::Done,
    };
    Ok(sweep)
}

/// Removes unmarked rows after `from`; looks at `limit` at most, and removes a tenth of that. Where it ended;
/// `None`: at the end.
fn pass(
    table: &mut Table<'_, &'static [u8; 32], &'static [u8]>,
    marks: &Marks,
    from: Option<[u8; 32]>,
    limit: usize,
    sweep: &mut Sweep,
) -> Result<Option<[u8; 32]>, Fault> {
    let lower = from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut gone: Vec<[u8; 32]> = Vec::new();
    let mut last = None;
    for (looked, row) in table.range::<&[u8; 32]>((lower, Bound::Unbounded))?.enumerate() {
        let (key, bytes) = row?;
        if looked == limit || gone.len() == limit / REMOVE {
            break;
        }
        let key = *key.value();
        last = Some(key);
        if !marks.nodes.contains(&Digest(key)) {
            sweep.removed += 1;
            sweep.freed += bytes.value().len() as u64;
            gone.push(key);
        }
    }
    for key in &gone {
        table.remove(key)?;
    }
    let lower = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let more = last.is_some()
        && table
            .range::<&[u8; 32]>((lower, Bound::Unbounded))?
            .next()
            .is_some();
    Ok(last.filter(|_| more))
}
