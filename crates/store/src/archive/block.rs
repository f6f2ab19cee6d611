//! `Block`: tree nodes, one behind the other, compressed as one. Its form alone; never knows the database.
//!
//! A row is a version byte, the first 16 bytes of the BLAKE3 of what follows, the length of the unpacked bytes (u32,
//! little-endian), and these as an LZ4 block: a varint, how many nodes there are; for each a varint, twice its length,
//! and one more for a node of a state tree; then their bytes.

use alike_core::codec::{Reader, put_varint};
use alike_core::digest::Digest;
use alike_core::entry::NamedEntry;
use alike_core::state::StateEntry;
use alike_core::tree::node_digest;

const FORM: u8 = 1;
const CHECKSUM: usize = 16;
/// Most unpacked bytes, and most nodes: what one read costs is bounded, and LZ4 looks back no further than 64 KiB.
/// A node that is longer is never archived.
pub(super) const MAX_BYTES: usize = 128 << 10;
const MAX_NODES: usize = 4096;
/// The unpacked bytes of a row are fewer: so many, and the lengths of all of them.
const SANE: usize = 2 * MAX_BYTES;

/// A tree node, and of which tree it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) is_state: bool,
    pub(super) bytes: &'a [u8],
}

impl<'a> Node<'a> {
    /// `None`: this is no node of that digest.
    pub(super) fn of(digest: &Digest, bytes: &'a [u8]) -> Option<Node<'a>> {
        [true, false]
            .map(|is_state| Node { is_state, bytes })
            .into_iter()
            .find(|node| node.digest() == *digest)
    }

    pub(super) fn digest(&self) -> Digest {
        match self.is_state {
            true => node_digest::<StateEntry>(self.bytes),
            false => node_digest::<NamedEntry>(self.bytes),
        }
    }
}

/// Nodes, unpacked.
#[derive(Debug)]
pub(super) struct Block {
    /// Bytes of its row.
    pub(super) row_len: usize,
    bytes: Vec<u8>,
    /// Of which tree each is, and where in `bytes`.
    nodes: Vec<(bool, std::ops::Range<usize>)>,
}

impl Block {
    pub(super) fn decode(row: &[u8]) -> Result<Block, &'static str> {
        let rest = row.strip_prefix(&[FORM]).ok_or("it is of an unknown form")?;
        let (checksum, rest) = rest.split_at_checked(CHECKSUM).ok_or("it is too short")?;
        if Digest::of(rest).0[..CHECKSUM] != *checksum {
            return Err("it is not what was written");
        }
        let (len, packed) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
        let len = u32::from_le_bytes(*len) as usize;
        if len > SANE {
            return Err("it is too long");
        }
        let bytes = lz4_flex::block::decompress(packed, len).map_err(|_| "it cannot be unpacked")?;
        Block::unpacked(bytes, row.len()).ok_or("its nodes are not in it")
    }

    fn unpacked(bytes: Vec<u8>, row_len: usize) -> Option<Block> {
        let mut reader = Reader(&bytes);
        let count = reader.varint().ok().filter(|n| *n <= MAX_NODES as u64)?;
        let mut lens = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let len = reader.varint().ok()?;
            lens.push((len & 1 == 1, usize::try_from(len >> 1).ok()?));
        }
        let mut from = bytes.len() - reader.0.len();
        let mut nodes = Vec::with_capacity(lens.len());
        for (is_state, len) in lens {
            let to = from.checked_add(len).filter(|to| *to <= bytes.len())?;
            nodes.push((is_state, from..to));
            from = to;
        }
        (from == bytes.len()).then_some(Block {
            row_len,
            bytes,
            nodes,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, at: u16) -> Option<Node<'_>> {
        let (is_state, range) = self.nodes.get(usize::from(at))?;
        Some(Node {
            is_state: *is_state,
            bytes: &self.bytes[range.clone()],
        })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (u16, Node<'_>)> {
        (0..=u16::MAX).map_while(|at| Some((at, self.node(at)?)))
    }
}

/// The row of as many of the first `nodes` as it has room for in `room` bytes, but of one at least, and how many these
/// are. `None`: with all of them it would not be full.
pub(super) fn fill(nodes: &[Node<'_>], room: usize) -> Option<(Vec<u8>, usize)> {
    let mut bytes = 0;
    let most = nodes
        .iter()
        .take(MAX_NODES)
        .take_while(|node| {
            bytes += node.bytes.len();
            bytes <= MAX_BYTES
        })
        .count()
        .max(1);
    let all = encode(nodes.get(..most)?);
    if all.len() <= room {
        return (most < nodes.len()).then_some((all, most));
    }
    // One more node hardly makes a row shorter.
    let (mut fits, mut too_many) = (1, most);
    let mut row = None;
    while too_many - fits > 1 {
        let some = (fits + too_many) / 2;
        let tried = encode(&nodes[..some]);
        if tried.len() <= room {
            (fits, row) = (some, Some(tried));
        } else {
            too_many = some;
        }
    }
    Some((row.unwrap_or_else(|| encode(&nodes[..fits])), fits))
}

fn encode(nodes: &[Node<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, nodes.len() as u64);
    for node in nodes {
        put_varint(
            &mut bytes,
            (node.bytes.len() as u64) << 1 | u64::from(node.is_state),
        );
    }
    nodes.iter().for_each(|node| bytes.extend_from_slice(node.bytes));
    let len = u32::try_from(bytes.len()).expect("it is some hundred kilobytes at most");
    let rest = [&len.to_le_bytes()[..], &lz4_flex::block::compress(&bytes)].concat();
    [&[FORM], &Digest::of(&rest).0[..CHECKSUM], &rest].concat()
}
