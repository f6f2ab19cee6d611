//! Subtrees of a big blob's BLAKE3 tree, down to groups of 16 KiB: where they are, and how their values join. The same
//! bytes at the same offset have the same value in every blob: by that two versions are compared. Never reads a file.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Bytes that are verified together at least.
pub const GROUP: u64 = 16 * 1024;

/// What BLAKE3 makes of a subtree that is not a whole blob.
pub type Value = [u8; 32];

/// A run of groups that is one node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subtree {
    /// Its first group.
    pub first: u64,
    /// The group behind its last one.
    pub end: u64,
}

impl Subtree {
    /// All of a blob.
    pub fn whole(size: u64) -> Subtree {
        Subtree {
            first: 0,
            end: size.div_ceil(GROUP).max(1),
        }
    }

    /// How many groups.
    pub fn groups(self) -> u64 {
        self.end - self.first
    }

    /// Its first byte, and how many there are in a blob of `size`.
    pub fn extent(self, size: u64) -> (u64, u64) {
        let start = self.first * GROUP;
        (start, (self.end * GROUP).min(size).saturating_sub(start))
    }

    /// The two nodes below it; `None` for a group.
    pub fn halves(self) -> Option<(Subtree, Subtree)> {
        let groups = self.groups();
        if groups < 2 {
            return None;
        }
        // The left one is full: the largest power of two that leaves something.
        let middle = self.first + groups.div_ceil(2).next_power_of_two();
        let half = |first, end| Subtree { first, end };
        Some((half(self.first, middle), half(middle, self.end)))
    }

    /// Which of the two nodes below it leads to `to`? `None` if neither does.
    pub fn towards(self, to: Subtree) -> Option<bool> {
        let (left, right) = self.halves()?;
        if to.end <= left.end {
            Some(false)
        } else if to.first >= right.first {
            Some(true)
        } else {
            None
        }
    }

    /// Is it a node of the tree of a blob of `size`?
    pub fn is_of(self, size: u64) -> bool {
        if self.first >= self.end {
            return false;
        }
        let mut at = Subtree::whole(size);
        while at != self {
            let (Some(right), Some(halves)) = (at.towards(self), at.halves()) else {
                return false;
            };
            at = if right { halves.1 } else { halves.0 };
        }
        true
    }

    /// The nodes below it of at most `most` groups each (itself, if it is no larger), left to right.
    pub fn below(self, most: u64) -> Vec<Subtree> {
        let mut all = Vec::new();
        let mut rest = vec![self];
        while let Some(next) = rest.pop() {
            match next.halves().filter(|_| next.groups() > most) {
                Some((left, right)) => rest.extend([right, left]),
                None => all.push(next),
            }
        }
        all
    }

    /// How many those are, without listing them.
    pub fn count(self, most: u64) -> u64 {
        // All halves to the left are full: a power of two of nodes each.
        let (mut rest, mut count) = (self, 0u64);
        let most_full = 1 << most.clamp(1, 1 << 62).ilog2();
        while rest.groups() > most {
            let (left, right) = rest.halves().expect("more than one group");
            count += (left.groups() / most_full).max(1);
            rest = right;
        }
        count + 1
    }

    /// Is this the value that the values of the nodes [`Subtree::below`] it join to? `None` for a whole blob's digest.
    pub fn joins(self, most: u64, values: &[Value], value: Option<&Value>, digest: &Digest) -> bool {
        let mut values = values.iter();
        let joined = match (value, self.halves().filter(|_| self.groups() > most)) {
            (None, Some((left, right))) => {
                let left = left.join(most, &mut values);
                let right = right.join(most, &mut values);
                left.zip(right)
                    .is_some_and(|(left, right)| join_root(&left, &right) == *digest)
            }
            (None, None) => false,
            (Some(value), _) => self.join(most, &mut values).as_ref() == Some(value),
        };
        joined && values.next().is_none()
    }

    fn join<'a>(self, most: u64, values: &mut impl Iterator<Item = &'a Value>) -> Option<Value> {
        match self.halves().filter(|_| self.groups() > most) {
            Some((left, right)) => {
                let left = left.join(most, values)?;
                let right = right.join(most, values)?;
                Some(join(&left, &right))
            }
            None => values.next().copied(),
        }
    }
}

/// The value of the subtree that begins at byte `start` and has this content.
pub fn value_of(content: &[u8], start: u64) -> Value {
    blake3::Hasher::new()
        .set_input_offset(start)
        .update(content)
        .finalize_non_root()
}

/// The value of the node above two.
pub fn join(left: &Value, right: &Value) -> Value {
    merge_subtrees_non_root(left, right, Mode::Hash)
}

/// The digest of a blob whose tree has these two at the top.
pub fn join_root(left: &Value, right: &Value) -> Digest {
    Digest(*merge_subtrees_root(left, right, Mode::Hash).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|i| (i ^ (i >> 7) ^ (i >> 15)) as u8).collect()
    }

    #[test]
    fn values_below_join_to_the_digest() {
        for size in [GROUP + 1, 3 * GROUP, 64 * GROUP, 65 * GROUP + 1, 200 * GROUP - 7] {
            let content = content(size);
            let digest = Digest::of(&content);
            let whole = Subtree::whole(size);
            for most in [1, 2, 3, 8, 64, 100] {
                if whole.groups() <= most {
                    continue;
                }
                let below = whole.below(most);
                assert!(below.iter().all(|node| node.is_of(size)));
                assert_eq!(below.len() as u64, whole.count(most), "{size} {most}");
                let value = |node: &Subtree| {
                    let (start, len) = node.extent(size);
                    value_of(&content[start as usize..(start + len) as usize], start)
                };
                let mut values: Vec<Value> = below.iter().map(value).collect();
                assert!(whole.joins(most, &values, None, &digest));
                let left = whole.halves().unwrap().0;
                let under: Vec<Value> = left.below(most).iter().map(value).collect();
                assert!(left.joins(most, &under, Some(&value(&left)), &digest));
                values[0][0] ^= 1;
                assert!(!whole.joins(most, &values, None, &digest));
                values[0][0] ^= 1;
                assert!(!whole.joins(most, &values[1..], None, &digest));
                values.push([0; 32]);
                assert!(!whole.joins(most, &values, None, &digest));
            }
        }
    }

    #[test]
    fn only_nodes_of_the_tree_are_nodes() {
        let size = 11 * GROUP - 1;
        let node = |first, end| Subtree { first, end };
        for right in [
            node(0, 11),
            node(0, 8),
            node(8, 11),
            node(8, 10),
            node(10, 11),
            node(3, 4),
        ] {
            assert!(right.is_of(size), "{right:?}");
        }
        let wrong = [
            node(1, 3),
            node(8, 12),
            node(0, 3),
            node(9, 11),
            node(4, 4),
            node(5, 4),
            node(11, 12),
        ];
        for wrong in wrong
            .into_iter()
            .chain([node(u64::MAX - 1, u64::MAX), node(0, u64::MAX)])
        {
            assert!(!wrong.is_of(size), "{wrong:?}");
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_value_in_a_longer_blob() {
        let longer = content(130 * GROUP);
        let first = &longer[..(64 * GROUP) as usize];
        let node = Subtree { first: 0, end: 64 };
        assert!(node.is_of(64 * GROUP) && node.is_of(130 * GROUP));
        let halves = node.halves().unwrap();
        let half = (32 * GROUP) as usize;
        let joined = join(
            &value_of(&first[..half], 0),
            &value_of(&first[half..], 32 * GROUP),
        );
        assert_eq!(joined, value_of(first, 0));
        assert_eq!(halves.1, Subtree { first: 32, end: 64 });
    }
}
