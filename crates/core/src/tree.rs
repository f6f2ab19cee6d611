//! One tree ⇔ one byte string ⇔ one digest. The grammar of directory nodes, shared by content trees and state
//! trees, and the canonical split of large directories into shards. Never decides what an entry means.
//!
//! A directory of at most [`MAX_TOP`] entries is one leaf node. A larger one is cut into shards after each
//! name whose hash says so, and the list of shards is cut the same way until one node holds it. Where the
//! cuts fall depends on the names alone, so one changed file rewrites one shard and the nodes above it. Shards are small,
//! for every generation keeps what it rewrote: see docs/decisions/0005.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::digest::Digest;
use crate::path::Name;

mod patch;
mod two;

pub(crate) use patch::pairs;
pub use patch::{changes, patch};
pub use two::read_two;

/// Most entries in one leaf, and most children in one inner node.
pub const MAX_LEAF: usize = 1024;
/// A shard ends about two to this many entries after [`MIN_GROUP`].
const SHARD_BITS: u32 = 3;
/// An inner node ends about two to this many children after [`MIN_GROUP`].
const FAN_BITS: u32 = 4;
/// No group ends before it has this many members: names made to be cut everywhere cannot make a tree that
/// does not shrink from level to level.
const MIN_GROUP: usize = 4;
/// Entries, or shards, up to this many are not cut (further).
pub const MAX_TOP: usize = 24;
/// Deepest nesting of inner nodes in one directory; far more than `MAX_LEAF.pow(..)` entries need.
const MAX_LEVELS: u8 = 8;

/// An entry of a directory node.
pub trait Item: Sized {
    /// Separates the digests of this kind of tree from those of files and of other trees.
    const KEY: &'static [u8; 32];
    /// The sort key.
    fn name(&self) -> &Name;
    /// Appends the canonical form.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the canonical form, and rejects any other.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Where nodes come from.
pub trait Nodes {
    /// The bytes of a node, or `None` if it is not here.
    fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError>;
}

/// The place where nodes are kept failed.
#[derive(Debug, thiserror::Error)]
#[error("reading trees: {0}")]
pub struct NodesError(pub String);

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A node is not there.
    #[error("tree node {0} is missing")]
    Missing(Digest),
    /// A node's bytes are not canonical.
    #[error("tree node {0}: {1}")]
    Bad(Digest, DecodeError),
    /// The storage failed.
    #[error(transparent)]
    Nodes(#[from] NodesError),
}

/// New nodes over a place where older ones are: what one edit or merge writes.
pub struct Overlay<'a> {
    base: &'a dyn Nodes,
    /// The nodes written, by digest.
    pub new: HashMap<Digest, Arc<[u8]>>,
    patched: HashMap<Digest, Patched>,
}

/// What a directory was made of.
#[derive(Clone, Debug)]
pub struct Patched {
    /// An older directory.
    pub old: Digest,
    /// The names outside of which both are equal.
    pub names: BTreeSet<Name>,
}

impl<'a> Overlay<'a> {
    /// Nothing new yet.
    pub fn new(base: &'a dyn Nodes) -> Self {
        Overlay {
            base,
            new: HashMap::new(),
            patched: HashMap::new(),
        }
    }

    /// Remembers that a directory is an older one but for these names.
    pub fn note_patched(&mut self, new: Digest, old: Digest, names: impl Iterator<Item = Name>) {
        // If that one has only been made here, nothing is known of it elsewhere.
        let mut patched = match self.patched.get(&old) {
            Some(before) => before.clone(),
            None => Patched {
                old,
                names: BTreeSet::new(),
            },
        };
        patched.names.extend(names);
        self.patched.insert(new, patched);
    }

    /// Which older directory is this one made of?
    pub fn patched(&self, new: &Digest) -> Option<&Patched> {
        self.patched.get(new)
    }
}

impl Nodes for Overlay<'_> {
    fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
        match self.new.get(digest) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.base.node(digest),
        }
    }
}

impl Nodes for HashMap<Digest, Arc<[u8]>> {
    fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
        Ok(self.get(digest).cloned())
    }
}

/// One decoded node.
#[derive(Debug)]
pub enum Node<T> {
    /// Entries, sorted by name.
    Leaf(Vec<T>),
    /// Digests of the shards or inner nodes below, each with the last name in it.
    Inner(u8, Vec<(Name, Digest)>),
}

/// The digest of a directory without entries.
pub fn empty<T: Item>() -> Digest {
    Digest::keyed(T::KEY, &encode_leaf::<T>(&[]))
}

/// The digest of a node of this kind of tree.
pub fn node_digest<T: Item>(bytes: &[u8]) -> Digest {
    Digest::keyed(T::KEY, bytes)
}

/// Encodes a directory (sorted, no name twice) and returns its digest; its nodes go to `sink`.
pub fn write<T: Item>(entries: &[T], sink: &mut dyn FnMut(Digest, Vec<u8>)) -> Digest {
    debug_assert!(
        entries.is_sorted_by(|a, b| a.name() < b.name()),
        "entries are sorted, each name once"
    );
    let mut put = |bytes: Vec<u8>| {
        let digest = Digest::keyed(T::KEY, &bytes);
        sink(digest, bytes);
        digest
    };
    if entries.len() <= MAX_TOP {
        return put(encode_leaf(entries));
    }
    let hashes: Vec<u32> = entries.iter().map(|e| name_hash(e.name())).collect();
    let mut list: Vec<(&Name, u32, Digest)> = Vec::new();
    for shard in cut(&hashes, 0) {
        let last = shard.end - 1;
        list.push((
            entries[last].name(),
            hashes[last],
            put(encode_leaf(&entries[shard])),
        ));
    }
    let encode = |level, members: &[(&Name, u32, Digest)]| {
        encode_inner(level, members.iter().map(|(name, _, digest)| (*name, digest)))
    };
    let mut level = 1u8;
    while list.len() > MAX_TOP {
        let hashes: Vec<u32> = list.iter().map(|l| l.1).collect();
        let mut above = Vec::new();
        for group in cut(&hashes, level) {
            let last = &list[group.end - 1];
            above.push((last.0, last.1, put(encode(level, &list[group.clone()]))));
        }
        list = above;
        level += 1;
    }
    put(encode(level, &list))
}

/// The groups that the members of a level's list make: entries are level 0, shards 1, what is above them 2 and so on.
fn cut(hashes: &[u32], level: u8) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for (i, hash) in hashes.iter().enumerate() {
        if ends_group(level, *hash, i + 1 - start) || i + 1 == hashes.len() {
            groups.push(start..i + 1);
            start = i + 1;
        }
    }
    groups
}

/// Does a group end with the member that has this hash and makes it so large, whatever comes behind it?
fn ends_group(level: u8, hash: u32, members: usize) -> bool {
    let (shift, bits) = match level {
        0 => (0, SHARD_BITS),
        _ => (SHARD_BITS + FAN_BITS * u32::from(level - 1), FAN_BITS),
    };
    let is_cut = (hash >> shift.min(27)) & ((1 << bits) - 1) == 0;
    (is_cut && members >= MIN_GROUP) || members == MAX_LEAF
}

fn name_hash(name: &Name) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("four bytes"))
}

fn encode_leaf<T: Item>(entries: &[T]) -> Vec<u8> {
    let mut out = vec![0];
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        entry.encode(&mut out);
    }
    out
}

fn encode_inner<'a>(level: u8, members: impl ExactSizeIterator<Item = (&'a Name, &'a Digest)>) -> Vec<u8> {
    let mut out = vec![level];
    put_varint(&mut out, members.len() as u64);
    for (name, digest) in members {
        put_bytes(&mut out, name.as_bytes());
        out.extend_from_slice(&digest.0);
    }
    out
}

/// Decodes one node; sorted, bounded, nothing left over.
pub fn decode<T: Item>(bytes: &[u8]) -> Result<Node<T>, DecodeError> {
    let mut reader = Reader(bytes);
    let level = reader.byte()?;
    if level > MAX_LEVELS {
        return Err(DecodeError::Limit("levels of a directory"));
    }
    let count = reader.varint()?;
    if level > 0 && count == 0 {
        return Err(DecodeError::NotCanonical("an inner node without shards"));
    }
    if count > MAX_LEAF as u64 {
        return Err(DecodeError::Limit("entries of a node"));
    }
    let node = if level == 0 {
        let mut entries = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let entry = T::decode(&mut reader)?;
            if entries.last().is_some_and(|last: &T| last.name() >= entry.name()) {
                return Err(DecodeError::NotCanonical("entries are not sorted"));
            }
            entries.push(entry);
        }
        Node::Leaf(entries)
    } else {
        let mut children = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let child = (reader.name()?, reader.digest()?);
            if children
                .last()
                .is_some_and(|last: &(Name, Digest)| last.0 >= child.0)
            {
                return Err(DecodeError::NotCanonical("shards are not sorted"));
            }
            children.push(child);
        }
        Node::Inner(level, children)
    };
    reader.end()?;
    Ok(node)
}

/// Reads a whole directory, all its shards.
pub fn read<T: Item>(nodes: &dyn Nodes, digest: Digest) -> Result<Vec<T>, TreeError> {
    let mut entries = Vec::new();
    read_into(nodes, digest, MAX_LEVELS + 1, &mut entries)?;
    Ok(entries)
}

fn read_into<T: Item>(
    nodes: &dyn Nodes,
    digest: Digest,
    above: u8,
    out: &mut Vec<T>,
) -> Result<(), TreeError> {
    let bytes = nodes.node(&digest)?.ok_or(TreeError::Missing(digest))?;
    match decode::<T>(&bytes).map_err(|e| TreeError::Bad(digest, e))? {
        Node::Leaf(entries) if entries.is_empty() && above <= MAX_LEVELS => Err(TreeError::Bad(
            digest,
            DecodeError::NotCanonical("an empty shard"),
        )),
        Node::Leaf(mut entries) => {
            if let (Some(last), Some(first)) = (out.last(), entries.first())
                && last.name() >= first.name()
            {
                return Err(TreeError::Bad(
                    digest,
                    DecodeError::NotCanonical("shards overlap"),
                ));
            }
            out.append(&mut entries);
            Ok(())
        }
        Node::Inner(level, _) if level >= above => Err(TreeError::Bad(
            digest,
            DecodeError::NotCanonical("levels do not descend"),
        )),
        Node::Inner(level, children) => children
            .iter()
            .try_for_each(|c| read_into(nodes, c.1, level, out)),
    }
}

/// Reads one entry of a directory: of its nodes only those on the way to the name.
pub fn find<T: Item + Clone>(nodes: &dyn Nodes, digest: Digest, name: &Name) -> Result<Option<T>, TreeError> {
    Ok(Cursor::new(digest).find(nodes, name)?.cloned())
}

/// Finds entries of one directory. Keeps the nodes on the way to the last one: names in order read no node twice.
#[derive(Debug)]
pub struct Cursor<T> {
    top: Digest,
    way: Vec<(Digest, Node<T>)>,
}

impl<T: Item> Cursor<T> {
    /// Nothing read yet.
    pub fn new(top: Digest) -> Self {
        let way = Vec::new();
        Cursor { top, way }
    }

    /// The entry of this name.
    pub fn find(&mut self, nodes: &dyn Nodes, name: &Name) -> Result<Option<&T>, TreeError> {
        let (mut at, mut above) = (self.top, MAX_LEVELS + 1);
        for depth in 0.. {
            if self.way.get(depth).is_none_or(|step| step.0 != at) {
                self.way.truncate(depth);
                let bytes = nodes.node(&at)?.ok_or(TreeError::Missing(at))?;
                let node = decode::<T>(&bytes).map_err(|e| TreeError::Bad(at, e))?;
                self.way.push((at, node));
            }
            match &self.way[depth].1 {
                Node::Leaf(_) => break,
                Node::Inner(level, _) if *level >= above => {
                    let why = DecodeError::NotCanonical("levels do not descend");
                    return Err(TreeError::Bad(at, why));
                }
                // Each shard is known by its last name.
                Node::Inner(level, members) => match members.get(members.partition_point(|m| m.0 < *name)) {
                    Some(member) => (at, above) = (member.1, *level),
                    None => return Ok(None),
                },
            }
        }
        let Some((_, Node::Leaf(entries))) = self.way.last() else {
            unreachable!("the way ends with a leaf");
        };
        let found = entries.binary_search_by(|entry| entry.name().cmp(name));
        Ok(found.ok().map(|i| &entries[i]))
    }
}

/// Reads a directory that a peer sent, and checks that it is cut as [`write`] cuts it.
pub fn read_checked<T: Item>(nodes: &dyn Nodes, digest: Digest) -> Result<Vec<T>, TreeError> {
    let entries = read::<T>(nodes, digest)?;
    if write(&entries, &mut |_, _| ()) != digest {
        return Err(TreeError::Bad(
            digest,
            DecodeError::NotCanonical("not cut into its canonical shards"),
        ));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, NamedEntry};

    fn file(name: String) -> NamedEntry {
        let digest = Digest::of(name.as_bytes());
        NamedEntry {
            name: Name::new(name.as_bytes()).unwrap(),
            entry: Entry::File {
                digest,
                size: 3,
                exec: false,
            },
        }
    }

    fn store(entries: &[NamedEntry], nodes: &mut HashMap<Digest, Arc<[u8]>>) -> (Digest, usize) {
        let mut bytes_new = 0;
        let digest = write(entries, &mut |d, b| {
            if !nodes.contains_key(&d) {
                bytes_new += b.len();
            }
            nodes.insert(d, b.into());
        });
        (digest, bytes_new)
    }

    #[test]
    fn directories_of_every_size_round_trip() {
        for n in [0, 1, MAX_TOP, MAX_TOP + 1, 5_000, 100_000] {
            let entries: Vec<_> = (0..n).map(|i| file(format!("f{i:07}"))).collect();
            let mut nodes = HashMap::new();
            let (digest, _) = store(&entries, &mut nodes);
            assert_eq!(
                read_checked::<NamedEntry>(&nodes, digest).unwrap(),
                entries,
                "{n}"
            );
        }
    }

    #[test]
    fn one_change_among_100_000_rewrites_kilobytes() {
        let mut entries: Vec<_> = (0..100_000).map(|i| file(format!("f{i:07}"))).collect();
        let mut nodes = HashMap::new();
        let (before, _) = store(&entries, &mut nodes);
        entries[50_000].entry = Entry::File {
            digest: Digest::of(b"changed"),
            size: 7,
            exec: true,
        };
        let (after, bytes) = store(&entries, &mut nodes);
        assert_ne!(before, after);
        assert!(bytes < 8 * 1024, "{bytes}");
        entries.remove(70_000);
        assert!(store(&entries, &mut nodes).1 < 8 * 1024);
    }

    #[test]
    fn one_entry_is_found_and_two_directories_are_compared_without_reading_all_of_them() {
        struct Counting<'a>(&'a HashMap<Digest, Arc<[u8]>>, std::cell::Cell<usize>);
        impl Nodes for Counting<'_> {
            fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
                self.1.set(self.1.get() + 1);
                self.0.node(digest)
            }
        }
        for n in [0, 3, MAX_TOP, MAX_TOP + 1, 100_000] {
            let old: Vec<_> = (0..n).map(|i| file(format!("f{i:07}"))).collect();
            let mut nodes = HashMap::new();
            let (a, _) = store(&old, &mut nodes);
            let mut new = old.clone();
            new.push(file("zz".into()));
            new.drain(n / 2..(n / 2 + 2).min(n));
            let (b, _) = store(&new, &mut nodes);
            let counting = Counting(&nodes, Default::default());
            let (x, y) = read_two::<NamedEntry>(&counting, a, b).unwrap();
            assert!(counting.1.get() < 40, "{n}: {} nodes read", counting.1.get());
            let differing = |side: &[NamedEntry], other: &[NamedEntry]| -> Vec<NamedEntry> {
                side.iter()
                    .filter(|e| other.binary_search_by(|o| o.name.cmp(&e.name)).is_err())
                    .cloned()
                    .collect()
            };
            assert!(x.is_sorted_by(|a, b| a.name < b.name) && y.is_sorted_by(|a, b| a.name < b.name));
            assert_eq!(differing(&x, &y), differing(&old, &new), "{n}");
            assert_eq!(differing(&y, &x), differing(&new, &old), "{n}");
            counting.1.set(0);
            for i in (0..n).step_by(997) {
                let name = Name::new(format!("f{i:07}").as_bytes()).unwrap();
                assert_eq!(find(&counting, a, &name).unwrap(), Some(old[i].clone()));
            }
            assert!(
                counting.1.get() <= 5 * (n / 997 + 1),
                "{n}: {} nodes read",
                counting.1.get()
            );
            for none in ["a", "f0000001x", "zzz"] {
                let name = Name::new(none.as_bytes()).unwrap();
                assert!(find::<NamedEntry>(&nodes, a, &name).unwrap().is_none());
            }
        }
    }

    #[test]
    fn names_made_to_be_cut_everywhere_make_no_endless_tree() {
        let groups = cut(&[0; 100_000], 0);
        assert!(
            groups.iter().rev().skip(1).all(|g| g.len() == MIN_GROUP),
            "shrinks by the same factor each level"
        );
        let groups = cut(&[u32::MAX; 5_000], 0);
        assert!(groups.iter().all(|g| g.len() <= MAX_LEAF));
    }

    #[test]
    fn what_encoding_would_not_write_is_refused() {
        let entries: Vec<_> = ["a", "b"].into_iter().map(|n| file(n.to_owned())).collect();
        let good = encode_leaf(&entries);
        assert!(decode::<NamedEntry>(&good).is_ok());
        let swapped = encode_leaf(&[entries[1].clone(), entries[0].clone()]);
        assert!(decode::<NamedEntry>(&swapped).is_err());
        assert!(decode::<NamedEntry>(&[&good[..], b"x"].concat()).is_err());
        assert!(decode::<NamedEntry>(&good[..good.len() - 1]).is_err());
        assert!(decode::<NamedEntry>(&[200, 0]).is_err());
        // A leaf that should have been sharded, and shards that should have been a leaf.
        let names: Vec<_> = (0..4).map(|i| file(format!("{i}"))).collect();
        let mut nodes: HashMap<Digest, Arc<[u8]>> = HashMap::new();
        let mut level = Vec::new();
        for half in names.chunks(2) {
            let bytes = encode_leaf(half);
            let digest = node_digest::<NamedEntry>(&bytes);
            nodes.insert(digest, bytes.into());
            level.push((half[1].name(), digest));
        }
        let top = encode_inner(1, level.iter().map(|(name, digest)| (*name, digest)));
        let digest = node_digest::<NamedEntry>(&top);
        nodes.insert(digest, top.into());
        assert!(read::<NamedEntry>(&nodes, digest).is_ok());
        assert!(read_checked::<NamedEntry>(&nodes, digest).is_err());
    }

    #[test]
    fn a_file_cannot_pose_as_a_tree() {
        let bytes = encode_leaf::<NamedEntry>(&[]);
        assert_ne!(node_digest::<NamedEntry>(&bytes), Digest::of(&bytes));
        assert_ne!(empty::<NamedEntry>(), empty::<crate::state::StateEntry>());
    }
}
