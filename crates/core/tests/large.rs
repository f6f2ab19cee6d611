//! Large directories: what is done near a change comes to the same as what is done with the whole directory.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use alike_core::conflict::conflict_name;
use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, ReplicaId};
use alike_core::merge::merge;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_core::state::{State, StateEntry};
use alike_core::tree::{self, MAX_TOP, Node, Nodes, NodesError, Overlay};
use alike_core::view::{NewContent, Summaries, Summary, summarize};
use common::{Batch, Mem, Replica, Rng, check_changes, file, name, path, records, run_seeds, shown, whole};

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

/// What a store keeps of a replica: summaries that were computed, and the content trees that they name.
struct Known(HashMap<Digest, Summary>);

impl Summaries for Known {
    fn summary(&self, state: &Digest) -> Result<Option<Summary>, NodesError> {
        Ok(self.0.get(state).copied())
    }
}

/// Devices with a large directory, and what each has summarised.
struct World {
    rng: Rng,
    names: Vec<String>,
    replicas: Vec<(Replica, Known)>,
    contents: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let dir = rng.pick(&["", "d/"]);
        let count = rng.pick(&[20, 60, 60, 200, 200]);
        let mut names: Vec<String> = (0..count).map(|i| format!("{dir}n{i:03}.txt")).collect();
        if rng.percent(70) {
            // Files that a person gave the names that conflict copies of the first one have, or have where those are taken.
            for i in 0..8 {
                let digest = Digest::of(format!("content {}", i / 2).as_bytes());
                let copy = conflict_name(&name("n000.txt"), digest, rng.pick(&[8, 12]));
                names.push(format!("{dir}{}", String::from_utf8_lossy(copy.as_bytes())));
            }
            names.dedup();
        }
        let replicas = (1..4).map(|id| (Replica::new(id, 1_700_000_000_000), Known(HashMap::new())));
        World {
            replicas: replicas.collect(),
            rng,
            names,
            contents: 0,
        }
    }

    fn content(&mut self) -> Value {
        self.contents += 1;
        let again = self.rng.percent(40);
        file(&format!(
            "content {}",
            if again { self.rng.below(4) } else { self.contents }
        ))
    }

    fn batch(&mut self, i: usize) -> Batch {
        let run = self.rng.pick(&[1, 1, 1, 3, 30]);
        let first = match self.rng.below(10) {
            0..3 => 0,
            3..6 => self.names.len() - self.rng.range(1, 9),
            _ => self.rng.below(self.names.len()),
        };
        let what = self.rng.below(10);
        let mut batch = Batch::default();
        let shown = self.replicas[i].0.shown();
        for at in first..(first + run).min(self.names.len()) {
            let at = path(&self.names[at]);
            let (value, exec) = (self.content(), self.rng.percent(20));
            let replica = &mut self.replicas[i].0;
            replica.now += 1000;
            let more = match what {
                0..5 => replica.write(&at, value, exec),
                5 => replica.write(&at.join(&name("below")), value, exec),
                6 => replica.write(&at, Value::Dir, false),
                7 if shown.get(&at).is_some_and(|item| item.exec.is_some()) => replica.chmod(&at, exec),
                8 => replica.import(&at, value, exec, 1_650_000_000_000),
                _ => replica.delete(&at),
            };
            batch.kill.extend(more.kill);
            batch.add.extend(more.add);
            batch.exec.extend(more.exec);
        }
        let copies: Vec<_> = shown.iter().filter(|(_, item)| item.copy_of.is_some()).collect();
        if batch.is_empty() && !copies.is_empty() {
            // Somebody settles a conflict.
            let at = self.rng.pick(&copies).0;
            batch = self.replicas[i].0.delete(at);
        }
        if self.rng.percent(15) {
            // Records are killed wherever their home is, and some are gone already.
            for (at, _) in &mut batch.kill {
                *at = at.parent().expect("not the root").join(&name("elsewhere"));
            }
            let seq = 1 << 40;
            let replica = ReplicaId(9);
            batch.kill.push((path("x"), Dot { replica, seq }));
        }
        batch
    }

    fn edit(&mut self, i: usize) {
        let batches: Vec<Batch> = (0..self.rng.range(1, 2)).map(|_| self.batch(i)).collect();
        let (replica, known) = &mut self.replicas[i];
        let mut nodes = replica.nodes.clone();
        let mut overlay = Overlay::new(&replica.nodes);
        let mut root = replica.state.root;
        for batch in batches {
            // The second one was made for the state before the first, as any that comes late.
            let before = shown(&nodes, root);
            let whole = whole::edit(&mut nodes, root, &batch);
            let (new, changes) =
                edit::apply(&mut overlay, root, batch.edits()).expect("own trees are readable");
            assert_eq!(new, whole);
            check_changes(&before, &shown(&nodes, whole), changes);
            root = new;
        }
        known.keep(&mut self.rng, &mut nodes, &overlay, root);
        replica.state.root = root;
        replica.nodes = nodes;
    }

    fn pull(&mut self, i: usize, j: usize) {
        let theirs = self.replicas[j].0.clone();
        let (replica, known) = &mut self.replicas[i];
        replica.fetch(&theirs);
        let mut nodes = replica.nodes.clone();
        let whole = whole::merge(&mut nodes, &replica.state, &theirs.state);
        let mut overlay = Overlay::new(&replica.nodes);
        let merged = merge(&mut overlay, &replica.state, &theirs.state).expect("fetched trees are readable");
        assert_eq!(merged.state.root, whole);
        check_changes(&replica.shown(), &shown(&nodes, whole), merged.changes);
        known.keep(&mut self.rng, &mut nodes, &overlay, whole);
        replica.nodes = nodes;
        replica.seen = replica.seen.max(merged.newest);
        replica.state = merged.state;
    }
}

impl Known {
    /// Summarises what an overlay has come to, compares that, and keeps most of it.
    fn keep(&mut self, rng: &mut Rng, nodes: &mut Mem, overlay: &Overlay<'_>, root: Option<Digest>) {
        records(overlay, root);
        let mut new = NewContent::default();
        let sum = summarize(overlay, self, root, &mut new).expect("own trees are readable");
        let mut whole = Mem::new();
        assert_eq!(sum, whole::summarize(nodes, root, &mut whole));
        assert!(
            new.nodes.keys().all(|digest| whole.contains_key(digest)),
            "no content node is written in vain"
        );
        nodes.extend(
            new.nodes
                .into_iter()
                .map(|(digest, bytes)| (digest, bytes.into())),
        );
        for digest in whole.keys() {
            assert!(nodes.contains_key(digest), "every content node is there");
        }
        self.0.extend(new.summaries);
        if rng.percent(5) {
            self.0.retain(|_, _| rng.percent(70));
        }
    }
}

#[test]
fn edits_merges_and_summaries_are_those_of_whole_directories() {
    run_seeds("large", 24, |seed| {
        let mut world = World::new(seed);
        let all = world.names.clone();
        for at in &all {
            if world.rng.percent(80) {
                let value = world.content();
                let replica = &mut world.replicas[0].0;
                let batch = replica.import(&path(at), value, false, 1_600_000_000_000);
                replica.apply(&batch);
            }
        }
        world.pull(1, 0);
        for _ in 0..30 {
            let i = world.rng.below(3);
            match world.rng.below(3) {
                0 => world.pull(i, (i + 1) % 3),
                _ => world.edit(i),
            }
        }
    });
}

#[test]
fn one_save_among_100_000_files_is_edited_summarised_and_merged_by_a_few_nodes() {
    let mut replica = Replica::new(1, 1_700_000_000_000);
    let mut entries = Vec::new();
    for at in names(100_000, |_| true) {
        let made = replica
            .import(&RelPath::root().join(&at), file("old"), false, 0)
            .add;
        entries.push(StateEntry {
            name: at,
            records: made.into_iter().map(|(_, record)| record).collect(),
            child: None,
        });
    }
    let top = tree::write(&entries, &mut |digest, bytes| {
        replica.nodes.insert(digest, bytes.into());
    });
    replica.state.root = Some(top);
    let before = replica.state.clone();
    let mut content = NewContent::default();
    let nothing = Known(HashMap::new());
    summarize(&Overlay::new(&replica.nodes), &nothing, before.root, &mut content).expect("readable");
    replica.nodes.extend(
        content
            .nodes
            .into_iter()
            .map(|(digest, bytes)| (digest, bytes.into())),
    );
    let known = Known(content.summaries);

    let at = entries[50_000].name.clone();
    let record = replica
        .import(&RelPath::root().join(&at), file("new"), false, 0)
        .add
        .remove(0)
        .1;
    let mut edits = Edits::default();
    let edit = edits.dir(&RelPath::root());
    edit.kill(&at, [entries[50_000].records[0].dot]);
    edit.add.push((at, record));
    let counting = Counting(&replica.nodes, Cell::new(0));
    let mut overlay = Overlay::new(&counting);
    let (root, changes) = edit::apply(&mut overlay, before.root, edits).expect("readable");
    assert_eq!(changes.len(), 1);
    let (read, written) = (counting.1.take(), overlay.new.len());
    assert!(
        read <= 20 && written <= 8,
        "{read} and {written} nodes for the edit"
    );
    let mut content = NewContent::default();
    summarize(&overlay, &known, root, &mut content).expect("readable");
    let (read, written) = (counting.1.take(), content.nodes.len());
    assert!(
        read <= 30 && written <= 8,
        "{read} and {written} nodes for the summary"
    );

    let after = State {
        root,
        vector: replica.state.vector.clone(),
    };
    let mut merging = Overlay::new(&counting);
    merging.new = overlay.new;
    let merged = merge(&mut merging, &before, &after).expect("readable");
    assert_eq!((merged.state, merged.changes), (after, changes));
    let read = counting.1.take();
    assert!(read <= 40, "{read} nodes for the merge");
}
