//! Moving into the archive what no head reaches, in steps between which anything else may happen. What moves is read as
//! before: it does no harm if a head has come to reach it meanwhile.

use std::hash::{DefaultHasher, Hash, Hasher};

use alike_core::digest::Digest;
use redb::{ReadableTable, WriteTransaction};

use super::block::{self, Node};
use super::{Blocks, get, prefix};
use crate::error::{Fault, StoreError};
use crate::gc::Marks;
use crate::schema::{ARCHIVE, ARCHIVED, META, META_NEXT_BLOCK, NODES};
use crate::store::Store;

/// Bytes of a block's row at most, but where a node alone takes more: with its key it fills four pages of the database, and rows of this size get whole pages.
const ROOM: usize = (16 << 10) - 64;
/// Bytes of nodes that are gathered at once, about …
const GATHERED: u64 = 16 << 20;
/// … and at most so many times that, where very many begin with the same name: the others wait for the next collection.
const SPARE: u64 = 2;
/// Blocks that one transaction writes at most: others wait for it.
const BLOCKS: usize = 32;

/// How far archiving has come.
#[derive(Debug)]
pub struct Archiving {
    room: usize,
    gathered: u64,
    begun: Option<Begun>,
    /// What was gathered and is still to be put into blocks.
    queue: Vec<Old>,
    is_done: bool,
    /// Nodes that were moved.
    pub moved: u64,
}

/// What is looked through.
#[derive(Debug)]
struct Begun {
    /// What heads reached then.
    live: Marks,
    /// Of so many parts …
    parts: u64,
    /// … this is the next.
    next: u64,
}

#[derive(Debug)]
struct Old {
    digest: Digest,
    is_state: bool,
    bytes: Vec<u8>,
}

impl Old {
    fn node(&self) -> Node<'_> {
        Node {
            is_state: self.is_state,
            bytes: &self.bytes,
        }
    }
}

impl Default for Archiving {
    fn default() -> Self {
        Archiving::in_blocks_of(ROOM, GATHERED)
    }
}

impl Archiving {
    /// With rows of so many bytes, and nodes gathered in parts of about so many: a test's database is small.
    pub fn in_blocks_of(room: usize, gathered: u64) -> Archiving {
        Archiving {
            room,
            gathered,
            begun: None,
            queue: Vec::new(),
            is_done: false,
            moved: 0,
        }
    }

    /// Has everything been looked at?
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Store {
    /// One step, of at most one bounded transaction. What does not fill a block stays where it is.
    pub fn archive(&self, archiving: &mut Archiving) -> Result<(), StoreError> {
        if archiving.begun.is_none() {
            archiving.begun = Some(self.begin(archiving.gathered)?);
            return Ok(());
        }
        if archiving.queue.is_empty() {
            return self.gather(archiving);
        }
        let nodes: Vec<Node<'_>> = archiving.queue.iter().map(Old::node).collect();
        let (mut rows, mut taken) = (Vec::new(), 0);
        while rows.len() < BLOCKS
            && let Some((row, more)) = block::fill(&nodes[taken..], archiving.room)
        {
            rows.push((row, taken..taken + more));
            taken += more;
        }
        if rows.is_empty() {
            archiving.queue.clear();
            return Ok(());
        }
        archiving.moved += self.write(|tx| {
            // Blocks of this transaction are not kept in memory for others: it may fail.
            let (blocks, mut moved) = (Blocks::default(), 0);
            for (row, range) in &rows {
                moved += put(tx, &blocks, row, &archiving.queue[range.clone()])?;
            }
            Ok(moved)
        })?;
        archiving.queue.drain(..taken);
        Ok(())
    }

    /// How much there is that no head reaches, in parts of about so many bytes.
    fn begin(&self, part: u64) -> Result<Begun, StoreError> {
        let snapshot = self.snapshot()?;
        let live = snapshot.mark_heads()?;
        let mut bytes = 0_u64;
        snapshot.run(|| {
            for row in snapshot.trees.nodes.iter()? {
                let (key, value) = row?;
                if !live.has_node(&Digest(*key.value())) {
                    bytes += value.value().len() as u64;
                }
            }
            Ok(())
        })?;
        let parts = bytes.div_ceil(part);
        Ok(Begun { live, parts, next: 0 })
    }

    /// Reads the next part of the nodes that no head reaches, sorted so that the versions of a directory are next to each
    /// other.
    fn gather(&self, archiving: &mut Archiving) -> Result<(), StoreError> {
        let begun = archiving.begun.as_mut().expect("it has begun");
        if begun.next == begun.parts {
            archiving.is_done = true;
            return Ok(());
        }
        let (queue, most) = (&mut archiving.queue, SPARE * archiving.gathered);
        let mut gathered = 0;
        let snapshot = self.snapshot()?;
        snapshot.run(|| {
            for row in snapshot.trees.nodes.iter()? {
                let (key, value) = row?;
                let (digest, bytes) = (Digest(*key.value()), value.value());
                let is_here = bytes.len() <= block::MAX_BYTES && part_of(bytes, begun.parts) == begun.next;
                if !is_here || begun.live.has_node(&digest) {
                    continue;
                }
                gathered += (bytes.len() + size_of::<Old>()) as u64;
                if gathered > most {
                    break;
                }
                // A damaged one stays where it is looked for.
                if let Some(node) = Node::of(&digest, bytes) {
                    queue.push(Old {
                        digest,
                        is_state: node.is_state,
                        bytes: bytes.to_vec(),
                    });
                }
            }
            Ok(())
        })?;
        begun.next += 1;
        // Behind the level and the number of entries, of a byte each, is the first name.
        queue.sort_by(|a, b| a.bytes.get(2..).cmp(&b.bytes.get(2..)));
        Ok(())
    }
}

/// In which of so many parts a node is gathered: all that begin with the same name in one.
fn part_of(bytes: &[u8], parts: u64) -> u64 {
    let name = bytes.get(2).map(|len| usize::from(*len));
    let name = name.and_then(|len| bytes.get(3..3 + len));
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % parts
}

/// Puts a block, and takes its nodes from where they were. How many?
fn put(tx: &WriteTransaction, blocks: &Blocks, row: &[u8], nodes: &[Old]) -> Result<u64, Fault> {
    let mut table = tx.open_table(NODES)?;
    let mut archived = tx.open_table(ARCHIVED)?;
    let mut archive = tx.open_table(ARCHIVE)?;
    let mut meta = tx.open_table(META)?;
    let number = meta.get(META_NEXT_BLOCK)?.map_or(0, |n| n.value());
    let Ok(block) = u32::try_from(number) else {
        return Ok(0);
    };
    let (mut moved, mut named) = (0, false);
    for (at, Old { digest, .. }) in nodes.iter().enumerate() {
        // Swept since it was gathered.
        if table.get(&digest.0)?.is_none() {
            continue;
        }
        let prefix = prefix(digest);
        let taken = archived.get(prefix)?.map(|row| row.value().0);
        if let Some(taken) = taken {
            // Written once more after it was archived; or another one that is called nearly the same, and this one stays.
            if taken == block || get(&archived, &archive, blocks, digest)?.is_none() {
                continue;
            }
        } else {
            archived.insert(prefix, (block, u16::try_from(at).expect("a block has fewer")))?;
            named = true;
        }
        table.remove(&digest.0)?;
        moved += 1;
    }
    if named {
        archive.insert(block, row)?;
        meta.insert(META_NEXT_BLOCK, number + 1)?;
    }
    Ok(moved)
}
