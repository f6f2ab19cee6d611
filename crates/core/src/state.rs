//! The state tree: what devices exchange. For every name of a directory, the records whose home it is and the
//! state tree of what lies below. Never decides anything; see `merge` (two states) and `edit` (local writes).

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::digest::Digest;
use crate::ids::Vector;
use crate::path::Name;
use crate::record::{Record, Value};
use crate::tree::{self, Item, Node, Nodes, TreeError};

/// Most records with one home; more are refused as an attack (each is a version in conflict).
pub const MAX_RECORDS: usize = 1 << 20;

/// One name of a directory in the state tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The name.
    pub name: Name,
    /// The records whose home path this is, sorted by dot.
    pub records: Vec<Record>,
    /// State tree of what lives below; `None` if nothing does.
    pub child: Option<Digest>,
}

impl StateEntry {
    /// Is this name a directory: by a record of its own, or because something lives below?
    pub fn is_dir(&self) -> bool {
        self.child.is_some() || self.records.iter().any(|r| r.value == Value::Dir)
    }
}

impl Item for StateEntry {
    const KEY: &'static [u8; 32] = b"alike state tree, version 1     ";

    fn name(&self) -> &Name {
        &self.name
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_varint(
            out,
            (self.records.len() as u64) << 1 | u64::from(self.child.is_some()),
        );
        for record in &self.records {
            record.encode(out);
        }
        if let Some(child) = &self.child {
            out.extend_from_slice(&child.0);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = reader.name()?;
        let head = reader.varint()?;
        if head >> 1 > MAX_RECORDS as u64 {
            return Err(DecodeError::Limit("records with one home"));
        }
        if head == 0 {
            return Err(DecodeError::NotCanonical("a name without anything"));
        }
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..head >> 1 {
            let record = Record::decode(reader)?;
            if records.last().is_some_and(|last| last.dot >= record.dot) {
                return Err(DecodeError::NotCanonical("records are not sorted"));
            }
            records.push(record);
        }
        let child = if head & 1 == 1 {
            Some(reader.digest()?)
        } else {
            None
        };
        Ok(StateEntry { name, records, child })
    }
}

/// A folder's whole state: always exchanged and committed as one pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Root of the state tree; `None` if nothing lives.
    pub root: Option<Digest>,
    /// What has been seen of every replica.
    pub vector: Vector,
}

/// What a node of the state tree points to, in order: shards, or the directories among a leaf's entries.
pub fn children(node: &Node<StateEntry>) -> Vec<Digest> {
    match node {
        Node::Leaf(entries) => entries.iter().filter_map(|entry| entry.child).collect(),
        Node::Inner(_, shards) => shards.iter().map(|shard| shard.1).collect(),
    }
}

/// The entries of a directory of the state tree; none for `None`.
pub fn read_dir(nodes: &dyn Nodes, dir: Option<Digest>) -> Result<Vec<StateEntry>, TreeError> {
    match dir {
        Some(digest) => tree::read(nodes, digest),
        None => Ok(Vec::new()),
    }
}
