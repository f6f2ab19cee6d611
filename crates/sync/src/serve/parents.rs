//! Nodes of a state tree that a peer names by their parent. Never sends them.

use alike_core::digest::Digest;
use alike_core::message::Wanted;
use alike_core::state;
use alike_core::tree::{self, Nodes};

/// The node whose children were asked for last: who asks for some of them asks for more of them next.
#[derive(Default)]
pub(super) struct Parents(Option<(Digest, Vec<Digest>)>);

impl Parents {
    /// The nodes that are asked for; `None` for those that nobody knows here.
    pub(super) fn named(&mut self, nodes: &dyn Nodes, wanted: &Wanted) -> Vec<Option<Digest>> {
        match *wanted {
            Wanted::Node(digest) => vec![Some(digest)],
            Wanted::Below { parent, first, count } => {
                let children = self.children(nodes, parent);
                let child = |n: u64| children.get(usize::try_from(n).ok()?).copied();
                (0..u64::from(count))
                    .map(|n| child(u64::from(first) + n))
                    .collect()
            }
        }
    }

    fn children(&mut self, nodes: &dyn Nodes, parent: Digest) -> &[Digest] {
        if self.0.as_ref().is_none_or(|(last, _)| *last != parent) {
            let node = nodes.node(&parent).ok().flatten();
            let node = node.and_then(|bytes| tree::decode(&bytes).ok());
            self.0 = Some((parent, node.as_ref().map(state::children).unwrap_or_default()));
        }
        self.0.as_ref().map_or(&[], |(_, children)| children)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use alike_core::path::Name;
    use alike_core::state::StateEntry;

    use super::*;

    #[test]
    fn children_are_named_by_their_parent() {
        let entry = |n: usize| StateEntry {
            name: Name::new(format!("d{n:05}").as_bytes()).unwrap(),
            records: Vec::new(),
            child: Some(Digest::of(&n.to_le_bytes())),
        };
        let mut nodes: HashMap<Digest, Arc<[u8]>> = HashMap::new();
        let entries: Vec<StateEntry> = (0..3).map(entry).collect();
        let parent = tree::write(&entries, &mut |digest, bytes| {
            nodes.insert(digest, bytes.into());
        });
        let below = |parent, first, count| Wanted::Below { parent, first, count };
        let mut parents = Parents::default();
        let child = |n: usize| entry(n).child;
        assert_eq!(parents.named(&nodes, &below(parent, 1, 2)), [child(1), child(2)]);
        assert_eq!(parents.named(&nodes, &below(parent, 2, 2)), [child(2), None]);
        assert_eq!(parents.named(&nodes, &below(parent, u32::MAX, 2)), [None, None]);
        let stranger = Digest::of(b"stranger");
        assert_eq!(parents.named(&nodes, &below(stranger, 0, 1)), [None]);
        assert_eq!(parents.named(&nodes, &Wanted::Node(stranger)), [Some(stranger)]);
        assert_eq!(parents.named(&nodes, &below(parent, 0, 1)), [child(0)]);
    }
}
