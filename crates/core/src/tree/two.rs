//! Two directories side by side, without what both have. Never says what differs.

use std::collections::HashSet;

use super::{Item, MAX_LEVELS, Node, Nodes, TreeError, decode};
use crate::codec::DecodeError;
use crate::digest::Digest;

/// Reads two directories but for the shards that both have: all entries that differ are in what is left, with some
/// that do not.
pub fn read_two<T: Item>(nodes: &dyn Nodes, a: Digest, b: Digest) -> Result<(Vec<T>, Vec<T>), TreeError> {
    let mut sides = [vec![Part::Unread(a)], vec![Part::Unread(b)]];
    let mut above = MAX_LEVELS + 1;
    loop {
        // A digest stands for its names and all there is to them: what both sides have is equal.
        let both: HashSet<Digest> = {
            let [old, new] = sides
                .each_ref()
                .map(|side| side.iter().filter_map(Part::unread).collect::<HashSet<_>>());
            old.intersection(&new).copied().collect()
        };
        let mut top = 0;
        for side in &mut sides {
            side.retain(|part| part.unread().is_none_or(|digest| !both.contains(&digest)));
            for part in side {
                if let Part::Unread(digest) = *part {
                    let bytes = nodes.node(&digest)?.ok_or(TreeError::Missing(digest))?;
                    let node = decode::<T>(&bytes).map_err(|e| TreeError::Bad(digest, e))?;
                    *part = Part::Read(digest, node);
                }
                if let Part::Read(digest, Node::Inner(level, _)) = part {
                    if *level >= above {
                        return Err(TreeError::Bad(
                            *digest,
                            DecodeError::NotCanonical("levels do not descend"),
                        ));
                    }
                    top = top.max(*level);
                }
            }
        }
        if top == 0 {
            return Ok(sides.map(entries).into());
        }
        // The highest first, so that shards of one level are compared with each other.
        for side in &mut sides {
            *side = std::mem::take(side)
                .into_iter()
                .flat_map(|part| part.opened(top))
                .collect();
        }
        above = top;
    }
}

/// A part of a directory that is being compared.
enum Part<T> {
    Unread(Digest),
    Read(Digest, Node<T>),
}

impl<T> Part<T> {
    fn unread(&self) -> Option<Digest> {
        match self {
            Part::Unread(digest) => Some(*digest),
            Part::Read(..) => None,
        }
    }

    /// What is below it, if it is an inner node of this level.
    fn opened(self, top: u8) -> Vec<Part<T>> {
        match self {
            Part::Read(_, Node::Inner(level, children)) if level == top => {
                children.into_iter().map(|child| Part::Unread(child.1)).collect()
            }
            part => vec![part],
        }
    }
}

fn entries<T>(parts: Vec<Part<T>>) -> Vec<T> {
    parts
        .into_iter()
        .flat_map(|part| match part {
            Part::Read(_, Node::Leaf(entries)) => entries,
            Part::Read(_, Node::Inner(..)) | Part::Unread(_) => {
                unreachable!("every node was read, and every inner one opened")
            }
        })
        .collect()
}
