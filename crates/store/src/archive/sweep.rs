//! Letting go of archived nodes that nothing reaches. Their rows go at once; a block goes, or what is left of it goes back
//! among the nodes, when half of it is waste.

use std::ops::Bound;

use alike_core::digest::Digest;
use redb::{ReadableTable, WriteTransaction};

use super::block::Block;
use super::{prefix, read};
use crate::error::Fault;
use crate::gc::Marks;
use crate::schema::{ARCHIVE, ARCHIVED, NODES};
use crate::snapshot::Snapshot;

/// Less than one part in so many alive: a block is taken apart.
const WORTH: usize = 2;

/// Blocks that are looked at in one step at most.
const LOOK: usize = 256;

/// What is left of a block, and what goes.
struct Rest {
    live: Vec<(u16, Digest)>,
    live_bytes: usize,
    gone: Vec<Digest>,
    /// Bytes that those which go take of the block's row.
    freed: u64,
    all_bytes: usize,
}

impl Rest {
    fn of(
        number: u32,
        block: &Block,
        archived: &impl ReadableTable<u64, (u32, u16)>,
        marks: &Marks,
    ) -> Result<Rest, Fault> {
        let mut gone_bytes = 0;
        let mut rest = Rest {
            live: Vec::new(),
            live_bytes: 0,
            gone: Vec::new(),
            freed: 0,
            all_bytes: 0,
        };
        for (at, node) in block.nodes() {
            rest.all_bytes += node.bytes.len();
            let digest = node.digest();
            let row = archived.get(prefix(&digest))?.map(|row| row.value());
            if row != Some((number, at)) {
                continue;
            }
            if marks.has_node(&digest) {
                rest.live.push((at, digest));
                rest.live_bytes += node.bytes.len();
            } else {
                rest.gone.push(digest);
                gone_bytes += node.bytes.len();
            }
        }
        rest.freed = (block.row_len * gone_bytes / rest.all_bytes.max(1)) as u64;
        Ok(rest)
    }
}

/// `None`: it is damaged. It stays, and nothing of it is ever handed out; what is not needed of it must not stop a
/// collection.
fn readable(block: Result<Block, Fault>) -> Result<Option<Block>, Fault> {
    match block {
        Err(Fault::Corrupt(_)) => Ok(None),
        block => block.map(Some),
    }
}

/// Looks at blocks after `from` until about `look` nodes were looked at or `remove` have gone. Where it ended (`None`: at
/// the end), how many nodes went, and the bytes that these took.
pub(crate) fn step(
    tx: &WriteTransaction,
    marks: &Marks,
    from: Option<u32>,
    look: usize,
    remove: usize,
) -> Result<(Option<u32>, u64, u64), Fault> {
    let mut nodes = tx.open_table(NODES)?;
    let mut archived = tx.open_table(ARCHIVED)?;
    let mut archive = tx.open_table(ARCHIVE)?;
    let lower = from.map_or(Bound::Unbounded, Bound::Excluded);
    let mut numbers = Vec::new();
    for row in archive.range((lower, Bound::Unbounded))?.take(LOOK) {
        numbers.push(row?.0.value());
    }
    let (mut looked, mut removed, mut freed) = (0, 0, 0);
    for (at, number) in numbers.iter().enumerate() {
        if looked >= look || removed as usize >= remove {
            return Ok((Some(numbers[at - 1]), removed, freed));
        }
        let Some(block) = readable(read(&archive, *number))? else {
            continue;
        };
        let rest = Rest::of(*number, &block, &archived, marks)?;
        looked += block.len();
        for digest in &rest.gone {
            archived.remove(prefix(digest))?;
        }
        removed += rest.gone.len() as u64;
        freed += rest.freed;
        if rest.live_bytes * WORTH >= rest.all_bytes {
            continue;
        }
        for (at, digest) in &rest.live {
            let node = block.node(*at).expect("it was there");
            nodes.insert(&digest.0, node.bytes)?;
            archived.remove(prefix(digest))?;
        }
        archive.remove(*number)?;
    }
    let last = numbers.last().filter(|_| numbers.len() == LOOK);
    Ok((last.copied(), removed, freed))
}

/// What a sweep with these marks would remove: nodes, and the bytes that these take.
pub(crate) fn unmarked(snapshot: &Snapshot, marks: &Marks) -> Result<(u64, u64), Fault> {
    let (mut removed, mut freed) = (0, 0);
    for row in snapshot.trees.archive.iter()? {
        let number = row?.0.value();
        let Some(block) = readable(read(&snapshot.trees.archive, number))? else {
            continue;
        };
        let rest = Rest::of(number, &block, &snapshot.trees.archived, marks)?;
        removed += rest.gone.len() as u64;
        freed += rest.freed;
    }
    Ok((removed, freed))
}
