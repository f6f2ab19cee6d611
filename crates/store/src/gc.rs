//! Which tree nodes and blobs anything still reaches, and removing the other nodes and summaries while commits go
//! on. Never removes a generation that it is not told to, and never touches a file.
//!
//! Why nothing needed can go: one bounded write transaction removes only what is not in [`Marks`], and first adds to
//! them whatever heads, generations and holds reach *in that transaction*. A commit that names nodes which it does not
//! bring along (it has seen them in the database) holds a [`crate::Lease`] from before it looked until it is written;
//! no transaction of a sweep runs meanwhile. Between two of them a node may be there of which a part is gone: then
//! [`Snapshot::is_half_swept`].

use std::collections::HashSet;
use std::ops::Bound;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::record::Value;
use alike_core::state::StateEntry;
use alike_core::tree::{self, Item, Node};
use alike_core::view::Summary;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use crate::archive::{self, Blocks, NodeTables};
use crate::dropped::dropped_roots;
use crate::error::{Fault, StoreError};
use crate::folders::{self, FolderKey};
use crate::index::{IndexRow, Intent};
use crate::leases::Alone;
use crate::schema::{DROPPED, GENERATIONS, HEADS, META, META_SWEEPING, NODES, SUMMARIES};
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
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    at: Stage,
    /// Rows that one transaction looks at, at most.
    look: usize,
    /// How many summaries there were after the last step.
    known: Option<u64>,
    /// Some were written since they were looked at.
    added: bool,
    /// Rows removed so far, and the bytes of their values.
    pub removed: u64,
    /// Bytes.
    pub freed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Summaries above this digest are still to be looked at: before nodes, for they name some.
    Summaries(Option<[u8; 32]>),
    /// The same for nodes.
    Nodes(Option<[u8; 32]>),
    /// Blocks of archived nodes above this number are still to be looked at.
    Archive(Option<u32>),
    Done,
}

impl Default for Stage {
    fn default() -> Self {
        Stage::Summaries(None)
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep::in_steps_of(LOOK)
    }
}

impl Sweep {
    /// One whose transactions look at no more than so many rows: a test's database is small.
    pub fn in_steps_of(look: usize) -> Sweep {
        Sweep {
            at: Stage::default(),
            look,
            known: None,
            added: false,
            removed: 0,
            freed: 0,
        }
    }

    /// Has everything been looked at?
    pub fn is_done(&self) -> bool {
        matches!(self.at, Stage::Done)
    }
}

pub(crate) type Rows<'a> = (
    &'a dyn Fn(&Digest) -> Result<Option<Vec<u8>>, Fault>,
    &'a dyn Fn(&Digest) -> Result<Option<Summary>, Fault>,
);

/// A tree still to be walked.
pub(crate) enum Root {
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
    pub(crate) fn walk(&mut self, (node, summary): Rows<'_>, mut roots: Vec<Root>) -> Result<(), Fault> {
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

/// What heads and generations reach, and what somebody holds.
fn roots_of(
    heads: &impl ReadableTable<u32, &'static [u8]>,
    generations: &impl ReadableTable<(u32, u64), &'static [u8]>,
    keep: &dyn Fn(FolderKey, u64) -> bool,
    alone: Option<&Alone<'_>>,
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
            roots.extend(Root::of_generation(bytes.value())?);
            kept += 1;
        }
    }
    for held in alone.into_iter().flat_map(Alone::held) {
        roots.push(Root::Content(held.root));
        roots.extend(held.state.map(Root::State));
    }
    Ok((roots, kept))
}

pub(crate) fn summary_in(
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
        self.mark_trees(&mut marks, keep, None)?;
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

    fn mark_trees(
        &self,
        marks: &mut Marks,
        keep: &dyn Fn(FolderKey, u64) -> bool,
        alone: Option<&Alone<'_>>,
    ) -> Result<(), StoreError> {
        self.run(|| {
            let (roots, kept) = roots_of(&self.heads, &self.generations, keep, alone)?;
            marks.generations = kept;
            let node = |digest: &Digest| self.trees.get(digest);
            let summary = |digest: &Digest| summary_in(&self.summaries, digest);
            marks.walk((&node, &summary), roots)
        })
    }

    /// Marks the trees of heads alone.
    pub(crate) fn mark_heads(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        self.mark_trees(&mut marks, &|_, _| false, None)?;
        Ok(marks)
    }

    /// Was a sweep cut off, or is under way, so that a node that nothing reaches may be there and not all below it?
    pub fn is_half_swept(&self) -> Result<bool, StoreError> {
        self.run(|| Ok(self.meta.get(META_SWEEPING)?.is_some()))
    }

    /// What a sweep with these marks would remove: rows, and bytes.
    pub fn unmarked(&self, marks: &Marks) -> Result<(u64, u64), StoreError> {
        self.run(|| {
            let (mut rows, mut bytes) = archive::unmarked(self, marks)?;
            for table in [&self.trees.nodes, &self.summaries] {
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
    /// Adds what heads, generations and holds have come to reach since. `alone`: nobody begins to reach more while
    /// that lives.
    pub fn mark_more(&self, alone: &Alone<'_>, marks: &mut Marks) -> Result<(), StoreError> {
        self.snapshot()?.mark_trees(marks, &|_, _| true, Some(alone))
    }

    /// One bounded transaction of a sweep. `false`: somebody has held a lease for all of `patience`; nothing was done.
    pub fn sweep(
        &self,
        marks: &mut Marks,
        sweep: &mut Sweep,
        patience: Duration,
    ) -> Result<bool, StoreError> {
        if sweep.known.is_none() {
            // Nearly all that the transaction will have to mark of these, while others go on.
            self.snapshot()?.mark_dropped_too(marks, &|_, _| false)?;
        }
        let Some(alone) = self.alone(patience) else {
            return Ok(false);
        };
        // What frees space is done from the reserve.
        let after = self.write_anyway(|tx| step(tx, &self.blocks, &alone, marks, *sweep))?;
        *sweep = after;
        Ok(true)
    }
}

/// Adds to `marks` what anything reaches as the transaction sees it.
pub(crate) fn mark_in(
    tx: &WriteTransaction,
    blocks: &Blocks,
    alone: &Alone<'_>,
    marks: &mut Marks,
) -> Result<(), Fault> {
    let (nodes, summaries) = (NodeTables::open(tx, blocks)?, tx.open_table(SUMMARIES)?);
    let (heads, generations) = (tx.open_table(HEADS)?, tx.open_table(GENERATIONS)?);
    let (roots, kept) = roots_of(&heads, &generations, &|_, _| true, Some(alone))?;
    marks.generations = kept;
    marks.walk(
        (&|d: &Digest| nodes.get(d), &|d: &Digest| {
            summary_in(&summaries, d)
        }),
        roots,
    )
}

/// The same for generations that were let go of: their nodes say what else is to go.
fn mark_dropped_in(tx: &WriteTransaction, blocks: &Blocks, marks: &mut Marks) -> Result<(), Fault> {
    let (nodes, summaries) = (NodeTables::open(tx, blocks)?, tx.open_table(SUMMARIES)?);
    let roots = dropped_roots(&tx.open_table(DROPPED)?)?;
    marks.walk(
        (&|d: &Digest| nodes.get(d), &|d: &Digest| {
            summary_in(&summaries, d)
        }),
        roots,
    )
}

fn step(
    tx: &WriteTransaction,
    blocks: &Blocks,
    alone: &Alone<'_>,
    marks: &mut Marks,
    mut sweep: Sweep,
) -> Result<Sweep, Fault> {
    mark_in(tx, blocks, alone, marks)?;
    mark_dropped_in(tx, blocks, marks)?;
    let mut summaries = tx.open_table(SUMMARIES)?;
    let look = sweep.look;
    // A summary that was written since and is not reached any more names nodes that go: it goes before them.
    let known = summaries.len()?;
    sweep.added |= sweep.known.is_some_and(|before| before != known);
    if sweep.added && matches!(sweep.at, Stage::Nodes(_) | Stage::Archive(_)) {
        pass(&mut summaries, marks, None, usize::MAX, &mut sweep)?;
        sweep.added = false;
    }
    sweep.at = match sweep.at {
        Stage::Summaries(from) => match pass(&mut summaries, marks, from, look, &mut sweep)? {
            Some(last) => Stage::Summaries(Some(last)),
            None => Stage::Nodes(None),
        },
        Stage::Nodes(from) => {
            tx.open_table(META)?.insert(META_SWEEPING, 1)?;
            let mut nodes = tx.open_table(NODES)?;
            match pass(&mut nodes, marks, from, look, &mut sweep)? {
                Some(last) => Stage::Nodes(Some(last)),
                None => Stage::Archive(None),
            }
        }
        Stage::Archive(from) => {
            let (last, removed, freed) = archive::step(tx, marks, from, look, (look / REMOVE).max(1))?;
            sweep.removed += removed;
            sweep.freed += freed;
            match last {
                Some(last) => Stage::Archive(Some(last)),
                None => {
                    tx.open_table(META)?.remove(META_SWEEPING)?;
                    Stage::Done
                }
            }
        }
        Stage::Done => Stage::Done,
    };
    sweep.known = Some(summaries.len()?);
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
        if looked == limit || gone.len() == (limit / REMOVE).max(1) {
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
