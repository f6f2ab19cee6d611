//! Large directories: what is done near a change comes to the same as what is done with the whole directory.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::Name;
use alike_core::tree::{self, MAX_TOP, Node, Nodes, NodesError};
use common::{Mem, Rng, name, run_seeds};

/// Nodes in memory that know how many of them were read.
struct Counting<'a>(&'a Mem, Cell<usize>);

impl Nodes for Counting<'_> {
    fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
        self.1.set(self.1.get() + 1);
        self.0.node(digest)
    }
}

fn entry(name: &Name, content: u64) -> NamedEntry {
    let digest = Digest::of(&content.to_le_bytes());
    let size = content;
    let exec = false;
    NamedEntry {
        name: name.clone(),
        entry: Entry::File { digest, size, exec },
    }
}

/// Every node of a tree.
fn reachable(nodes: &Mem, top: Digest, out: &mut BTreeSet<Digest>) {
    out.insert(top);
    if let Node::Inner(_, below) = tree::decode::<NamedEntry>(&nodes[&top]).expect("own nodes decode") {
        below
            .iter()
            .for_each(|(_, digest)| reachable(nodes, *digest, out));
    }
}

/// The first names whose hash is wanted.
fn names(count: usize, wanted: impl Fn(u32) -> bool) -> Vec<Name> {
    let hash = |name: &Name| {
        let hash = blake3::hash(name.as_bytes());
        u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("four bytes"))
    };
    let all = (0..).map(|i| name(&format!("f{i:07}")));
    all.filter(|name| wanted(hash(name))).take(count).collect()
}

/// Names to make directories of: as they come, cut everywhere (at one, two, three levels), cut nowhere, and cut into
/// shards of which none ends a group.
fn pools() -> Vec<Vec<Name>> {
    vec![
        names(6000, |_| true),
        names(60, |_| true),
        names(3000, |hash| hash & 0x7 == 0),
        names(1000, |hash| hash & 0x7f == 0),
        names(500, |hash| hash & 0x7ff == 0),
        names(5000, |hash| hash & 0x7 != 0),
        names(3000, |hash| hash & 0x7 == 0 && hash & 0x78 != 0),
        names(200, |hash| hash & 0x7 == 0 && hash & 0x78 != 0),
    ]
}

#[test]
fn a_patched_directory_is_the_one_that_writing_all_of_it_makes() {
    let pools = pools();
    run_seeds("patch", 60, |seed| {
        let mut rng = Rng::new(seed);
        let pool = rng.pick(&pools);
        let mut now: BTreeMap<Name, NamedEntry> = BTreeMap::new();
        let share = rng.pick(&[0, 2, 50, 100]);
        for name in &pool {
            if rng.percent(share) {
                now.insert(name.clone(), entry(name, 0));
            }
        }
        let write = |now: &BTreeMap<Name, NamedEntry>, nodes: &mut Mem| {
            let all: Vec<_> = now.values().cloned().collect();
            tree::write(&all, &mut |digest, bytes| {
                nodes.insert(digest, bytes.into());
            })
        };
        let mut nodes = Mem::new();
        let mut top = write(&now, &mut nodes);
        for step in 1..30 {
            let mut changes: BTreeMap<Name, Option<NamedEntry>> = BTreeMap::new();
            for _ in 0..rng.range(1, 3) {
                let at = match rng.below(4) {
                    0 => 0,
                    1 => pool.len() - 1,
                    _ => rng.below(pool.len()),
                };
                let run = rng.pick(&[1, 1, 1, 2, 8, 30, 300, pool.len()]);
                let names = &pool[at.saturating_sub(rng.below(2) * run)..(at + run).min(pool.len())];
                let what = rng.below(5);
                for name in names {
                    let new = match what {
                        0 => Some(entry(name, step)),
                        1 => now.get(name).map(|_| entry(name, step)),
                        2 => None,
                        3 => rng.percent(50).then(|| entry(name, step)),
                        // All but a few go: down to about what one node holds.
                        _ => now.get(name).cloned().filter(|_| rng.below(run) < MAX_TOP),
                    };
                    changes.insert(name.clone(), new);
                }
            }
            for (name, new) in &changes {
                match new {
                    Some(new) => now.insert(name.clone(), new.clone()),
                    None => now.remove(name),
                };
            }
            let mut new = Mem::new();
            let patched = tree::patch(
                &nodes,
                top,
                changes.into_iter().collect(),
                &mut |digest, bytes| {
                    assert_eq!(digest, tree::node_digest::<NamedEntry>(&bytes));
                    new.insert(digest, bytes.into());
                },
            );
            let patched = patched.expect("own trees are readable");
            let mut whole = Mem::new();
            assert_eq!(
                patched,
                write(&now, &mut whole),
                "step {step}, {} entries",
                now.len()
            );
            assert!(
                new.keys().all(|digest| whole.contains_key(digest)),
                "step {step}: nothing is written in vain"
            );
            nodes.extend(new);
            let mut reached = BTreeSet::new();
            reachable(&nodes, patched, &mut reached);
            assert_eq!(reached, whole.keys().copied().collect(), "step {step}");
            top = patched;
        }
    });
}

#[test]
fn one_change_among_100_000_reads_and_writes_a_few_nodes() {
    let names = names(100_001, |_| true);
    let all: Vec<_> = names[..100_000].iter().map(|name| entry(name, 0)).collect();
    let mut nodes = Mem::new();
    let top = tree::write(&all, &mut |digest, bytes| {
        nodes.insert(digest, bytes.into());
    });
    let mut most = (0, 0);
    for at in (0..100_000).step_by(977).chain([99_999, 100_000]) {
        for new in [Some(entry(&names[at], 1)), None] {
            let counting = Counting(&nodes, Cell::new(0));
            let mut written = 0;
            let changes = vec![(names[at].clone(), new)];
            tree::patch(&counting, top, changes, &mut |_, _| written += 1).expect("own trees are readable");
            most = (most.0.max(counting.1.get()), most.1.max(written));
        }
    }
    assert!(most.0 <= 20 && most.1 <= 8, "{most:?} nodes read and written");
}
