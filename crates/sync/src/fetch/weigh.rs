//! Is what a peer sent a state tree? Canonical, not too deep, and not too many entries. Never asks for anything.

use std::collections::HashMap;

use alike_core::digest::Digest;
use alike_core::path::{MAX_DEPTH, Name};
use alike_core::state::StateEntry;
use alike_core::tree::{self, Overlay};
use alike_core::view::Summaries;

use crate::wire::WireError;

/// Most entries of a whole tree, counted at every path at which they are.
const MAX_ENTRIES: u64 = 50_000_000;

/// Checks directories of a peer's state.
pub(super) struct Scales<'a> {
    /// What it sent, over what is here.
    all: &'a Overlay<'a>,
    known: &'a dyn Summaries,
    /// What a directory and all below it came to: entries, and levels.
    weights: HashMap<Digest, (u64, usize)>,
}

impl<'a> Scales<'a> {
    pub(super) fn new(all: &'a Overlay<'a>, known: &'a dyn Summaries) -> Self {
        let weights = HashMap::new();
        Scales { all, known, weights }
    }

    /// Checks a directory and all below it. `ours` is what this device has at its path: where the two are much the same only
    /// the difference is read. Entries are counted with multiplicity: a few nodes that name each other twice would be
    /// a tree without end to whoever walks its paths.
    pub(super) fn weigh(
        &mut self,
        dir: Digest,
        ours: Option<Digest>,
        depth: usize,
    ) -> Result<(u64, usize), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::protocol("a tree that is too deep"));
        }
        if let Some(&(entries, height)) = self.weights.get(&dir) {
            if depth + height > MAX_DEPTH {
                return Err(WireError::protocol("a tree that is too deep"));
            }
            return Ok((entries, height));
        }
        let weight = if self.all.new.contains_key(&dir) {
            let near = match ours {
                Some(ours) => self.near(dir, ours)?,
                None => None,
            };
            let (mut entries, members) = match near {
                Some(near) => near,
                None => {
                    let all = tree::read_checked::<StateEntry>(self.all, dir).map_err(WireError::protocol)?;
                    (0, all.into_iter().map(|entry| (entry, None)).collect())
                }
            };
            let mut height = 0;
            for (entry, ours) in members {
                entries = entries.saturating_add(1);
                if let Some(child) = entry.child {
                    let below = self.weigh(child, ours, depth + 1)?;
                    entries = entries.saturating_add(below.0);
                    height = height.max(below.1 + 1);
                }
            }
            (entries, height)
        } else {
            // Its height is not remembered; what was merged before was checked then.
            (self.counted(&dir)?, 0)
        };
        if weight.0 > MAX_ENTRIES {
            return Err(WireError::protocol("a tree with too many entries"));
        }
        self.weights.insert(dir, weight);
        Ok(weight)
    }

    fn counted(&self, dir: &Digest) -> Result<u64, WireError> {
        let summary = self.known.summary(dir).map_err(WireError::lost)?;
        Ok(summary.map_or(0, |s| s.files + s.dirs))
    }

    /// A directory by its difference to ours: how many entries are in what both share, with all below them, and the others,
    /// each with the directory that we have under its name. It is canonical if ours becomes it with them. `None`: that cannot be told so.
    #[expect(
        clippy::type_complexity,
        reason = "the pair is taken apart at the one place of use"
    )]
    fn near(
        &self,
        dir: Digest,
        ours: Digest,
    ) -> Result<Option<(u64, Vec<(StateEntry, Option<Digest>)>)>, WireError> {
        let Ok((old, new)) = tree::read_two::<StateEntry>(self.all, ours, dir) else {
            return Ok(None);
        };
        // Whoever sends names twice, or in another order, gets no help in hiding it.
        if !new.is_sorted_by(|a, b| a.name < b.name) {
            return Ok(None);
        }
        let changes = tree::changes(&old, &new);
        if tree::patch(self.all, ours, changes, &mut |_, _| ()).ok() != Some(dir) {
            return Ok(None);
        }
        let at: HashMap<&Name, Digest> = old
            .iter()
            .filter_map(|entry| Some((&entry.name, entry.child?)))
            .collect();
        let with_ours = |entry: StateEntry| {
            let ours = at.get(&entry.name).copied();
            (entry, ours)
        };
        // Without those that are in the other list: else each level of a deep tree would count all below it once more.
        let mut shared = self.counted(&ours)?;
        for entry in &old {
            let below = match &entry.child {
                Some(child) => self.counted(child)?,
                None => 0,
            };
            shared = shared.saturating_sub(1 + below);
        }
        Ok(Some((shared, new.into_iter().map(with_ours).collect())))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use alike_core::ids::{Dot, Hlc, ReplicaId};
    use alike_core::record::{Record, Value};
    use alike_core::tree::{Nodes, NodesError};
    use alike_core::view::Summary;

    use super::*;

    /// Counts the nodes read.
    struct Base(HashMap<Digest, Arc<[u8]>>, Cell<usize>);

    impl Nodes for Base {
        fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
            self.1.set(self.1.get() + 1);
            self.0.node(digest)
        }
    }

    impl Summaries for Base {
        fn summary(&self, _: &Digest) -> Result<Option<Summary>, NodesError> {
            Ok(None)
        }
    }

    fn entry(name: String, seq: u64) -> StateEntry {
        let dot = Dot {
            replica: ReplicaId(1),
            seq,
        };
        StateEntry {
            name: Name::new(name.as_bytes()).unwrap(),
            records: vec![Record {
                dot,
                hlc: Hlc::default(),
                value: Value::Dir,
                exec: None,
                mtime: 0,
                prev: None,
                relocated: false,
                imported: false,
            }],
            child: None,
        }
    }

    fn many(count: u64) -> Vec<StateEntry> {
        (0..count).map(|n| entry(format!("f{n:07}"), n + 1)).collect()
    }

    fn put(entries: &[StateEntry], nodes: &mut HashMap<Digest, Arc<[u8]>>) -> Digest {
        tree::write(entries, &mut |digest, bytes| {
            nodes.insert(digest, bytes.into());
        })
    }

    /// A large directory here, and a peer's other one with the nodes that are not here.
    fn two(change: impl FnOnce(&mut Vec<StateEntry>)) -> (Base, Digest, HashMap<Digest, Arc<[u8]>>, Digest) {
        let mut entries = many(20_000);
        let (mut here, mut theirs) = (HashMap::new(), HashMap::new());
        let ours = put(&entries, &mut here);
        change(&mut entries);
        let top = put(&entries, &mut theirs);
        theirs.retain(|digest, _| !here.contains_key(digest));
        (Base(here, Cell::new(0)), ours, theirs, top)
    }

    #[test]
    fn of_a_directory_that_is_much_like_ours_the_difference_is_read() {
        let (base, ours, theirs, top) = two(|entries| {
            entries.remove(7);
            entries.insert(10_000, entry("f0010000x".to_owned(), 99_999));
        });
        let mut all = Overlay::new(&base);
        all.new = theirs;
        Scales::new(&all, &base).weigh(top, Some(ours), 0).unwrap();
        assert!(base.1.get() < 100, "{} nodes read", base.1.get());
        let (entries, _) = Scales::new(&all, &base).weigh(top, None, 0).unwrap();
        assert_eq!(entries, 20_000);
        assert!(base.1.get() > 1_000);
    }

    #[test]
    fn a_change_deep_down_counts_no_entry_twice() {
        struct Counts(HashMap<Digest, u64>);
        impl Summaries for Counts {
            fn summary(&self, state: &Digest) -> Result<Option<Summary>, NodesError> {
                let sum = |&dirs| Summary {
                    dirs,
                    ..Summary::empty()
                };
                Ok(self.0.get(state).map(sum))
            }
        }
        const DEEP: u64 = 40;
        let mut counts = Counts(HashMap::new());
        let (mut here, mut sent) = (HashMap::new(), HashMap::new());
        let mut bottom = many(1_000);
        let mut ours = put(&bottom, &mut here);
        bottom[500].records[0].dot.seq = 5_000;
        let mut theirs = put(&bottom, &mut sent);
        counts.0.insert(ours, 1_000);
        for level in 1..=DEEP {
            let dir = |child| StateEntry {
                child: Some(child),
                ..entry("d".to_owned(), 9_000 + level)
            };
            ours = put(&[dir(ours)], &mut here);
            theirs = put(&[dir(theirs)], &mut sent);
            counts.0.insert(ours, 1_000 + level);
        }
        sent.retain(|digest, _| !here.contains_key(digest));
        let mut all = Overlay::new(&here);
        all.new = sent;
        for ours in [Some(ours), None] {
            let (entries, _) = Scales::new(&all, &counts).weigh(theirs, ours, 0).unwrap();
            assert_eq!(entries, 1_000 + DEEP);
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused_however_much_it_is_like_ours() {
        let (base, ours, theirs, top) = two(|entries| entries[10_000].records[0].dot.seq = 50_000);
        // The node that has changed is sent in other forms: its last entry twice in the directory, or cut elsewhere.
        let Some((leaf, bytes)) = theirs.iter().find(|(_, bytes)| bytes[0] == 0) else {
            panic!("one shard is new");
        };
        let tree::Node::Leaf(shard) = tree::decode::<StateEntry>(bytes).unwrap() else {
            panic!("it is a leaf");
        };
        for change in [0, 1] {
            let mut wrong = shard.clone();
            match change {
                // A name of the shard before it.
                0 => wrong.insert(0, entry("f0000003".to_owned(), 60_000)),
                // Its last name belongs to it whatever is in it.
                _ => drop(wrong.pop()),
            }
            let mut sent = theirs.clone();
            let mut from = *leaf;
            let mut to = raw_leaf(&wrong);
            loop {
                let (digest, bytes) = to.clone();
                sent.insert(digest, bytes.into());
                let above = theirs
                    .iter()
                    .find(|(_, bytes)| bytes[0] > 0 && bytes.windows(32).any(|window| window == from.0));
                let Some((above, bytes)) = above else { break };
                let mut bytes = bytes.to_vec();
                let at = bytes.windows(32).position(|window| window == from.0).unwrap();
                bytes[at..at + 32].copy_from_slice(&digest.0);
                from = *above;
                to = (tree::node_digest::<StateEntry>(&bytes), bytes);
            }
            assert_eq!(from, top);
            let mut all = Overlay::new(&base);
            all.new = sent;
            for ours in [None, Some(ours)] {
                assert!(Scales::new(&all, &base).weigh(to.0, ours, 0).is_err(), "{change}");
            }
        }
    }

    /// A leaf as it is written, whatever is in it.
    fn raw_leaf(entries: &[StateEntry]) -> (Digest, Vec<u8>) {
        use alike_core::tree::Item;
        assert!(entries.len() < 128);
        let mut bytes = vec![0, entries.len() as u8];
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        (tree::node_digest::<StateEntry>(&bytes), bytes)
    }
}
