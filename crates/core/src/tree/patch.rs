//! A directory changed in some of its entries: the tree that [`write`](super::write) makes of all of them, out of the
//! nodes near the changes. Never reads or writes the others.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::iter::Peekable;
use std::mem::take;
use std::vec::IntoIter;

use super::{
    Item, MAX_TOP, MIN_GROUP, Node, Nodes, TreeError, decode, encode_inner, encode_leaf, ends_group,
    name_hash,
};
use crate::codec::DecodeError;
use crate::digest::Digest;
use crate::path::Name;

/// What makes one list of entries (sorted, no name twice) another.
pub fn changes<T: Item + Clone + PartialEq>(before: &[T], after: &[T]) -> Vec<(Name, Option<T>)> {
    let differ = pairs(before, after, T::name).into_iter().filter(|(a, b)| a != b);
    differ
        .map(|(a, b)| (a.or(b).expect("one side has it").name().clone(), b.cloned()))
        .collect()
}

/// Two lists, sorted by name, side by side: every name once, with what each has of it.
pub(crate) fn pairs<'a, T>(
    a: &'a [T],
    b: &'a [T],
    name: fn(&T) -> &Name,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => name(x).cmp(name(y)),
        };
        out.push(match order {
            Ordering::Less => (a.next(), None),
            Ordering::Greater => (None, b.next()),
            Ordering::Equal => (a.next(), b.next()),
        });
    }
}

/// Changes a directory (by name, sorted, each name once: the entry that it has from now on, or `None`) and returns its new
/// digest; its new nodes go to `sink`. The tree that is changed must be canonical.
pub fn patch<T: Item>(
    nodes: &dyn Nodes,
    root: Digest,
    changes: Vec<(Name, Option<T>)>,
    sink: &mut dyn FnMut(Digest, Vec<u8>),
) -> Result<Digest, TreeError> {
    debug_assert!(
        changes.is_sorted_by(|a, b| a.0 < b.0),
        "changes are sorted, each name once"
    );
    let mut patch = Patch {
        nodes,
        changes: changes.into_iter().peekable(),
        entries: Vec::new(),
        above: Vec::new(),
        new: HashMap::new(),
    };
    patch.open(root, None, None)?;
    let top = patch.top()?;
    patch.emit(top, sink);
    Ok(top)
}

/// The new tree as far as it is known: at every level the members behind the last group that has ended.
struct Patch<'a, T> {
    nodes: &'a dyn Nodes,
    changes: Peekable<IntoIter<(Name, Option<T>)>>,
    /// The list of level 0.
    entries: Vec<T>,
    /// The lists of the levels from 1. The highest one has not been cut yet: it is whole.
    above: Vec<Vec<Member>>,
    /// Nodes written, each with what is below it. Those above the level that turns out to be the top are in vain.
    new: HashMap<Digest, (Vec<u8>, Vec<Digest>)>,
}

/// A node in the list of a level above it.
struct Member {
    last: Name,
    hash: u32,
    digest: Digest,
}

impl Member {
    fn new(last: Name, digest: Digest) -> Self {
        let hash = name_hash(&last);
        Member { last, hash, digest }
    }
}

impl<T: Item> Patch<'_, T> {
    /// Takes over a node of the old tree, with the changes up to the name `end` (`None`: all that are left).
    fn open(&mut self, digest: Digest, level: Option<u8>, end: Option<&Name>) -> Result<(), TreeError> {
        match self.read(digest)? {
            Node::Leaf(entries) if level.is_none_or(|level| level == 0) => {
                for entry in entries {
                    while let Some((_, new)) = self.changes.next_if(|change| change.0 < *entry.name()) {
                        new.into_iter().for_each(|new| self.push(new));
                    }
                    match self.changes.next_if(|change| change.0 == *entry.name()) {
                        Some((_, new)) => new.into_iter().for_each(|new| self.push(new)),
                        None => self.push(entry),
                    }
                }
                while let Some((_, new)) = self
                    .changes
                    .next_if(|change| end.is_none_or(|end| change.0 <= *end))
                {
                    new.into_iter().for_each(|new| self.push(new));
                }
            }
            Node::Inner(at, members) if level.is_none_or(|level| level == at) => {
                let count = members.len();
                for (i, (last, digest)) in members.into_iter().enumerate() {
                    // What comes behind all names belongs to the last node.
                    let end = if i + 1 == count { end } else { Some(&last) };
                    let touched = |change: &(Name, _)| end.is_none_or(|end| change.0 <= *end);
                    // Without changes it is the same node again, if it also begins where one begins now. It ends where
                    // it did: because of its last name, or because nothing comes behind it.
                    if self.changes.peek().is_some_and(touched) || !self.begins(at) {
                        self.open(digest, Some(at - 1), end)?;
                    } else {
                        self.add(at, Member::new(last, digest));
                    }
                }
            }
            Node::Leaf(_) | Node::Inner(..) => {
                let why = DecodeError::NotCanonical("levels do not descend");
                return Err(TreeError::Bad(digest, why));
            }
        }
        Ok(())
    }

    /// Has every group below this level ended?
    fn begins(&self, level: u8) -> bool {
        let below = self.above.iter().take(usize::from(level) - 1);
        self.entries.is_empty() && below.into_iter().all(Vec::is_empty)
    }

    fn push(&mut self, entry: T) {
        let hash = name_hash(entry.name());
        self.entries.push(entry);
        if ends_group(0, hash, self.entries.len()) {
            self.end_group(0);
        }
    }

    fn add(&mut self, level: u8, member: Member) {
        let at = usize::from(level) - 1;
        if self.above.len() <= at {
            self.above.resize_with(at + 1, Vec::new);
        }
        let hash = member.hash;
        self.above[at].push(member);
        if ends_group(level, hash, self.above[at].len()) {
            self.end_group(level);
        }
    }

    /// Makes the list of a level, which is not empty, one member of the level above.
    fn end_group(&mut self, level: u8) {
        let last = match level.checked_sub(1) {
            None => self.entries.last().map(|entry| entry.name()),
            Some(at) => self.above[usize::from(at)].last().map(|member| &member.last),
        };
        let last = last.expect("a group has members").clone();
        let digest = self.node(level);
        self.add(level + 1, Member::new(last, digest));
    }

    /// Writes the list of a level as one node, and empties it.
    fn node(&mut self, level: u8) -> Digest {
        let (bytes, below) = match level.checked_sub(1) {
            None => (encode_leaf(&take(&mut self.entries)), Vec::new()),
            Some(at) => {
                let members = take(&mut self.above[usize::from(at)]);
                let bytes = encode_inner(level, members.iter().map(|member| (&member.last, &member.digest)));
                (bytes, members.into_iter().map(|member| member.digest).collect())
            }
        };
        let digest = Digest::keyed(T::KEY, &bytes);
        self.new.insert(digest, (bytes, below));
        digest
    }

    /// Ends all lists, and writes the top: the list of the lowest level that has at most [`MAX_TOP`] members.
    fn top(&mut self) -> Result<Digest, TreeError> {
        let mut level = 0u8;
        loop {
            let members = match level.checked_sub(1) {
                None => self.entries.len(),
                Some(at) => self.above[usize::from(at)].len(),
            };
            if usize::from(level) == self.above.len() && members <= MAX_TOP {
                break;
            }
            if members > 0 {
                self.end_group(level);
            }
            level += 1;
        }
        // A directory that has lost entries may lose levels.
        while level > 0 && self.open_top(level)? {
            level -= 1;
        }
        Ok(self.node(level))
    }

    /// Puts the list of the level below in the place of this one, if it is short enough to be the top.
    fn open_top(&mut self, level: u8) -> Result<bool, TreeError> {
        let list = &self.above[usize::from(level) - 1];
        // All groups but the last one are known to have so many members.
        if (list.len() - 1) * MIN_GROUP >= MAX_TOP {
            return Ok(false);
        }
        let (mut entries, mut members) = (Vec::new(), Vec::new());
        for member in list {
            match self.read(member.digest)? {
                Node::Leaf(below) => entries.extend(below),
                Node::Inner(_, below) => members.extend(below),
            }
            if entries.len() + members.len() > MAX_TOP {
                return Ok(false);
            }
        }
        self.above.pop();
        self.entries = entries;
        if let Some(list) = self.above.last_mut() {
            *list = members
                .into_iter()
                .map(|(last, digest)| Member::new(last, digest))
                .collect();
        }
        Ok(true)
    }

    fn read(&self, digest: Digest) -> Result<Node<T>, TreeError> {
        let node = match self.new.get(&digest) {
            Some((bytes, _)) => decode(bytes),
            None => decode(&self.nodes.node(&digest)?.ok_or(TreeError::Missing(digest))?),
        };
        node.map_err(|e| TreeError::Bad(digest, e))
    }

    /// Hands out what was written and is part of the tree.
    fn emit(&mut self, digest: Digest, sink: &mut dyn FnMut(Digest, Vec<u8>)) {
        if let Some((bytes, below)) = self.new.remove(&digest) {
            below.into_iter().for_each(|digest| self.emit(digest, sink));
            sink(digest, bytes);
        }
    }
}
