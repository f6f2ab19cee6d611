//! The archive: tree nodes that only older generations reached when a collection looked, many to a compressed block.
//! The versions of a directory differ in an entry or two, so that next to each other they take a fifth. Reading one is
//! slower, nothing else is different: a node is found here or in the table of nodes, whoever asks.

mod block;
mod fill;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use alike_core::digest::Digest;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, WriteTransaction};

pub use fill::Archiving;

use crate::error::{Fault, StoreError};
use crate::schema::{ARCHIVE, ARCHIVED, NODES};
use crate::snapshot::Snapshot;
use block::{Block, Node};
pub(crate) use sweep::{step, unmarked};

/// Blocks that stay unpacked in memory: about 4 MiB.
const KEPT: usize = 48;

/// Blocks that were read last, unpacked. A number always names the same bytes, so they hold for any transaction.
#[derive(Clone, Default)]
pub(crate) struct Blocks(Arc<Mutex<VecDeque<Kept>>>);

type Kept = (u32, Arc<Block>);

impl Blocks {
    fn load(
        &self,
        archive: &impl ReadableTable<u32, &'static [u8]>,
        number: u32,
    ) -> Result<Arc<Block>, Fault> {
        if let Some(block) = self.kept(number) {
            return Ok(block);
        }
        let block = Arc::new(read(archive, number)?);
        let mut kept = self.0.lock().expect("nobody panics while he looks");
        kept.truncate(KEPT - 1);
        kept.push_front((number, block.clone()));
        Ok(block)
    }

    fn kept(&self, number: u32) -> Option<Arc<Block>> {
        let mut kept = self.0.lock().expect("nobody panics while he looks");
        let at = kept.iter().position(|(n, _)| *n == number)?;
        let found = kept.remove(at)?;
        let block = found.1.clone();
        kept.push_front(found);
        Some(block)
    }
}

/// Is this the node of that digest, of a state tree or of a content tree?
pub(crate) fn is_node(digest: &Digest, bytes: &[u8]) -> bool {
    Node::of(digest, bytes).is_some()
}

fn read(archive: &impl ReadableTable<u32, &'static [u8]>, number: u32) -> Result<Block, Fault> {
    let damaged = |why: &str| Fault::Corrupt(format!("block {number} of the archive: {why}"));
    let row = archive.get(number)?.ok_or_else(|| damaged("is missing"))?;
    Block::decode(row.value()).map_err(damaged)
}

/// What a node is found by. Of two that agree in this one alone is archived.
fn prefix(digest: &Digest) -> u64 {
    u64::from_be_bytes(digest.0[..8].try_into().expect("eight bytes"))
}

/// Where tree nodes are, in one transaction.
pub(crate) struct NodeTables<N, A, B> {
    pub(crate) nodes: N,
    archived: A,
    archive: B,
    blocks: Blocks,
}

type InWrite<'tx> = NodeTables<
    Table<'tx, &'static [u8; 32], &'static [u8]>,
    Table<'tx, u64, (u32, u16)>,
    Table<'tx, u32, &'static [u8]>,
>;

pub(crate) type InSnapshot = NodeTables<
    ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    ReadOnlyTable<u64, (u32, u16)>,
    ReadOnlyTable<u32, &'static [u8]>,
>;

impl<'tx> InWrite<'tx> {
    /// Those of a transaction that writes. It must not have opened one of them.
    pub(crate) fn open(tx: &'tx WriteTransaction, blocks: &Blocks) -> Result<Self, Fault> {
        Ok(NodeTables {
            nodes: tx.open_table(NODES)?,
            archived: tx.open_table(ARCHIVED)?,
            archive: tx.open_table(ARCHIVE)?,
            blocks: blocks.clone(),
        })
    }
}

impl InSnapshot {
    pub(crate) fn of(tx: &ReadTransaction, blocks: &Blocks) -> Result<Self, Fault> {
        Ok(NodeTables {
            nodes: tx.open_table(NODES)?,
            archived: tx.open_table(ARCHIVED)?,
            archive: tx.open_table(ARCHIVE)?,
            blocks: blocks.clone(),
        })
    }
}

impl<N, A, B> NodeTables<N, A, B>
where
    N: ReadableTable<&'static [u8; 32], &'static [u8]>,
    A: ReadableTable<u64, (u32, u16)>,
    B: ReadableTable<u32, &'static [u8]>,
{
    /// The bytes that are kept of a node: of one among the nodes, damaged or not.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Fault> {
        match self.nodes.get(&digest.0)? {
            Some(bytes) => Ok(Some(bytes.value().to_vec())),
            None => self.archived(digest),
        }
    }

    /// The bytes of an archived node.
    pub(crate) fn archived(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Fault> {
        get(&self.archived, &self.archive, &self.blocks, digest)
    }

    /// Is this node here?
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool, Fault> {
        Ok(self.nodes.get(&digest.0)?.is_some() || self.archived(digest)?.is_some())
    }

    /// Is there a row for this node, damaged or not, or for an archived one that is called nearly so?
    pub(crate) fn names(&self, digest: &Digest) -> Result<bool, Fault> {
        Ok(self.nodes.get(&digest.0)?.is_some() || self.archived.get(prefix(digest))?.is_some())
    }

    /// Refuses a commit that would name a tree which is not there.
    pub(crate) fn must_exist(&self, digest: &Digest) -> Result<(), Fault> {
        self.has(digest)?.then_some(()).ok_or(Fault::MissingTree(*digest))
    }
}

/// The bytes of an archived node, and no others: its digest was computed.
fn get(
    archived: &impl ReadableTable<u64, (u32, u16)>,
    archive: &impl ReadableTable<u32, &'static [u8]>,
    blocks: &Blocks,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, Fault> {
    let Some(row) = archived.get(prefix(digest))? else {
        return Ok(None);
    };
    let (number, at) = row.value();
    let block = blocks.load(archive, number)?;
    let node = block
        .node(at)
        .ok_or_else(|| Fault::Corrupt(format!("block {number} of the archive has no {at}th node")))?;
    Ok((node.digest() == *digest).then(|| node.bytes.to_vec()))
}

impl Snapshot {
    /// Reads every block: how many nodes are archived, and those that cannot be read; of these the first eight bytes of
    /// their digests are known.
    pub(crate) fn check_archive(&self) -> Result<(u64, Vec<Digest>), Fault> {
        let (mut checked, mut damaged) = (0, Vec::new());
        let mut bad = Vec::new();
        for row in self.trees.archive.iter()? {
            let (number, row) = row?;
            match Block::decode(row.value()) {
                Ok(block) => checked += block.len() as u64,
                Err(_) => bad.push(number.value()),
            }
        }
        if !bad.is_empty() {
            for row in self.trees.archived.iter()? {
                let (prefix, place) = row?;
                if bad.contains(&place.value().0) {
                    let mut digest = [0; 32];
                    digest[..8].copy_from_slice(&prefix.value().to_be_bytes());
                    damaged.push(Digest(digest));
                }
            }
        }
        Ok((checked + damaged.len() as u64, damaged))
    }

    /// How many nodes are archived, and the bytes that their blocks take.
    pub fn archive_len(&self) -> Result<(u64, u64), StoreError> {
        use redb::ReadableTableMetadata as _;
        self.run(|| {
            let archive = self.trees.archive.stats()?;
            Ok((self.trees.archived.len()?, archive.stored_bytes()))
        })
    }
}
