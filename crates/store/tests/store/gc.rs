//! Collecting: random commits, merges that rely on what they saw, dropped generations and sweeps in any order.
//! What anything reaches is there afterwards, and after a whole gc nothing else is. Crashes are in `crash`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, Hlc, ReplicaId};
use alike_core::path::Name;
use alike_core::record::{ExecMark, Record, Value};
use alike_core::state::{State, StateEntry};
use alike_core::tree::{self, Nodes};
use alike_core::view::{Summaries, Summary};
use alike_store::*;

use crate::fixture::*;
use crate::model::Lcg;

/// Every node of a content tree; fails where one is missing.
pub(crate) fn content(see: &Snapshot, digest: Digest, out: &mut BTreeSet<Digest>) {
    let entries: Vec<NamedEntry> = nodes(see, digest, out);
    for entry in entries {
        if let Entry::Dir { digest } = entry.entry {
            content(see, digest, out);
        }
    }
}

/// Every node of a state tree and of the content trees that summaries name for it.
pub(crate) fn state(see: &Snapshot, digest: Digest, out: &mut BTreeSet<Digest>) {
    if let Some(summary) = see.summary(&digest).unwrap() {
        content(see, summary.root, out);
    }
    let entries: Vec<StateEntry> = nodes(see, digest, out);
    entries
        .into_iter()
        .filter_map(|entry| entry.child)
        .for_each(|child| state(see, child, out));
}

/// The entries of a directory; adds its nodes.
fn nodes<T: tree::Item>(see: &Snapshot, digest: Digest, out: &mut BTreeSet<Digest>) -> Vec<T> {
    out.insert(digest);
    let bytes = see
        .node(&digest)
        .unwrap()
        .unwrap_or_else(|| panic!("node {digest} is missing"));
    match tree::decode::<T>(&bytes).unwrap() {
        tree::Node::Leaf(entries) => entries,
        tree::Node::Inner(_, shards) => shards.into_iter().flat_map(|s| nodes(see, s.1, out)).collect(),
    }
}

const DOT: Dot = Dot {
    replica: ReplicaId(1),
    seq: 1,
};

/// A small world of directories, so that trees come back and are shared.
fn commit(random: &mut Lcg, number: u64, generation: bool) -> Commit {
    let mut commit = Commit::default();
    let name = |n: usize| Name::new(format!("{n}").as_bytes()).unwrap();
    let (mut entries, mut states) = (Vec::new(), Vec::new());
    for dir in 0..random.below(3) {
        let files = if random.below(12) == 0 {
            1_500
        } else {
            random.below(3)
        };
        let salt = random.below(3) as u8;
        let mut members = Vec::new();
        let mut records = Vec::new();
        for file in 0..files {
            let name = Name::new(format!("{file:04}").as_bytes()).unwrap();
            let digest = Digest::of(&[salt]);
            members.push(NamedEntry {
                name: name.clone(),
                entry: Entry::File {
                    digest,
                    size: 1,
                    exec: false,
                },
            });
            records.push(StateEntry {
                name,
                records: vec![Record {
                    dot: DOT,
                    hlc: Hlc::from_millis(1),
                    value: Value::File { digest, size: 1 },
                    exec: Some(ExecMark {
                        hlc: Hlc::from_millis(1),
                        dot: DOT,
                        on: false,
                    }),
                    mtime: 0,
                    prev: None,
                    relocated: false,
                    imported: false,
                }],
                child: None,
            });
        }
        let digest = tree::write(&members, &mut |d, b| commit.nodes.push((d, b.into())));
        entries.push(NamedEntry {
            name: name(dir),
            entry: Entry::Dir { digest },
        });
        let child = tree::write(&records, &mut |d, b| commit.nodes.push((d, b.into())));
        let root = digest;
        commit.summaries.push((
            child,
            Summary {
                root,
                ..Summary::empty()
            },
        ));
        states.push(StateEntry {
            name: name(dir),
            records: Vec::new(),
            child: Some(child),
        });
    }
    let root = tree::write(&entries, &mut |d, b| commit.nodes.push((d, b.into())));
    let state = tree::write(&states, &mut |d, b| commit.nodes.push((d, b.into())));
    let summary = Summary {
        root,
        ..Summary::empty()
    };
    commit.summaries.push((state, summary));
    commit.head = Some(Head {
        state: State {
            root: Some(state),
            ..State::default()
        },
        summary,
        generation: number,
        ..Head::default()
    });
    commit.generation = generation.then(|| Generation {
        root,
        state: Some(state),
        ..crate::fixture::generation(number)
    });
    commit
}

/// A directory that has a summary is whole, and while no sweep is half done every node that is there.
fn assert_whole(see: &Snapshot, written: &BTreeSet<Digest>, states: &BTreeSet<Digest>) {
    for digest in states {
        if see.summary(digest).unwrap().is_some() {
            state(see, *digest, &mut BTreeSet::new());
        }
    }
    for digest in written {
        if !see.is_half_swept().unwrap() && see.has_node(digest).unwrap() {
            match tree::decode::<StateEntry>(&see.node(digest).unwrap().unwrap()) {
                Ok(_) if states.contains(digest) => state(see, *digest, &mut BTreeSet::new()),
                _ => {}
            }
        }
    }
}

/// Leaves out of a commit what the database has, as a pull and a merge do.
fn thin(see: &Snapshot, commit: &mut Commit) {
    // What is there may be in parts.
    if see.is_half_swept().unwrap() {
        return;
    }
    let roots: Vec<Digest> = commit
        .head
        .iter()
        .flat_map(|head| [Some(head.summary.root), head.state.root])
        .flatten()
        .collect();
    // The two at the top are what such a commit makes anew.
    commit
        .nodes
        .retain(|(digest, _)| roots.contains(digest) || !see.has_node(digest).unwrap());
    commit
        .summaries
        .retain(|(digest, _)| see.summary(digest).unwrap().is_none());
}

fn reached(see: &Snapshot, folders: &[FolderKey]) -> BTreeSet<Digest> {
    let mut out: BTreeSet<Digest> = [tree::empty::<NamedEntry>(), tree::empty::<StateEntry>()].into();
    for folder in folders {
        let head = see.head(*folder).unwrap();
        content(see, head.summary.root, &mut out);
        head.state.root.into_iter().for_each(|s| state(see, s, &mut out));
        see.mark_dropped(&|_, _| true).unwrap();
        for generation in see.generations(*folder, usize::MAX).unwrap() {
            content(see, generation.root, &mut out);
            generation.state.into_iter().for_each(|s| state(see, s, &mut out));
        }
    }
    out
}

#[test]
fn what_anything_reaches_stays_and_the_rest_goes() {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("ALIKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ALIKE_CASES").unwrap_or(12),
    };
    let mut archived = 0;
    for seed in seeds.clone() {
        println!("ALIKE_SEED={seed}");
        let mut random = Lcg(seed);
        let fixture = fixture();
        let store = &fixture.store;
        let folders = [fixture.folder, store.add_folder(new_folder(2)).unwrap().key];
        let mut numbers = BTreeMap::from(folders.map(|f| (f, 0)));
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        // State trees.
        let mut seen: BTreeSet<Digest> = BTreeSet::new();
        let mut gc: Option<(Marks, Sweep)> = None;
        let mut archiving = Archiving::in_blocks_of(300, 4_000);
        // A merge that has looked at the database, and will commit on that.
        let mut merging: Option<(Lease, FolderKey, Commit)> = None;
        for step in 0..60 {
            let folder = folders[random.below(2)];
            match random.below(11) {
                0..=2 => {
                    let n = numbers.get_mut(&folder).unwrap();
                    *n += 1;
                    let generation = random.below(2) == 0;
                    let commit = commit(&mut random, *n, generation);
                    written.extend(commit.nodes.iter().map(|n| n.0));
                    seen.extend(commit.summaries.iter().map(|s| s.0));
                    store.commit(folder, commit).unwrap();
                }
                3 if merging.is_none() => {
                    let lease = store.lease();
                    let mut commit = commit(&mut random, 0, false);
                    written.extend(commit.nodes.iter().map(|n| n.0));
                    seen.extend(commit.summaries.iter().map(|s| s.0));
                    thin(&fixture.see(), &mut commit);
                    merging = Some((lease, folder, commit));
                }
                3 | 4 => {
                    if let Some((_lease, folder, commit)) = merging.take() {
                        store.commit(folder, commit).unwrap();
                    }
                }
                5 => {
                    let n = numbers[&folder];
                    let some: Vec<u64> = (1..=n).filter(|_| random.below(2) == 0).collect();
                    let newest = fixture.see().generations(folder, 1).unwrap();
                    store.drop_generations(folder, &some).unwrap();
                    assert_eq!(fixture.see().generations(folder, 1).unwrap(), newest);
                }
                // In the middle of everything else.
                8..=10 => {
                    store.archive(&mut archiving).unwrap();
                    if archiving.is_done() {
                        archived += archiving.moved;
                        archiving = Archiving::in_blocks_of(300, 4_000);
                    }
                }
                _ => {
                    let (mut marks, mut sweep) = gc.take().unwrap_or_else(|| {
                        (fixture.see().mark(&|_, _| true).unwrap(), Sweep::in_steps_of(9))
                    });
                    let swept = store.sweep(&mut marks, &mut sweep, Duration::ZERO).unwrap();
                    assert_eq!(swept, merging.is_none(), "never while somebody holds a lease");
                    if !sweep.is_done() {
                        gc = Some((marks, sweep));
                    }
                }
            }
            reached(&fixture.see(), &folders);
            if step % 5 == 0 {
                assert_whole(&fixture.see(), &written, &seen);
            }
        }
        if let Some((_lease, folder, commit)) = merging.take() {
            store.commit(folder, commit).unwrap();
        }
        let gone = fixture.see().dropped().unwrap();
        store
            .forget_dropped(&store.alone(Duration::ZERO).unwrap(), &gone)
            .unwrap();
        let mut marks = fixture.see().mark(&|_, _| true).unwrap();
        let foreseen = fixture.see().unmarked(&marks).unwrap();
        let mut sweep = Sweep::default();
        while !sweep.is_done() {
            assert!(store.sweep(&mut marks, &mut sweep, Duration::ZERO).unwrap());
        }
        assert_eq!((sweep.removed, sweep.freed), foreseen, "a dry run says what goes");
        let see = fixture.see();
        let kept = reached(&see, &folders);
        for digest in &written {
            assert_eq!(see.has_node(digest).unwrap(), kept.contains(digest), "{digest}");
            assert_eq!(marks.has_node(digest), kept.contains(digest), "{digest}");
        }
    }
    assert!(archived > 0 || seeds.count() == 1, "some of them are archived");
}

#[test]
fn blobs_of_the_past_the_present_the_disk_and_intents_are_reached() {
    let fixture = fixture();
    let (old, new, on_disk) = ([0], [1], [2]);
    let mut random = Lcg(0);
    let file = |content: &[u8]| NamedEntry {
        name: Name::new(b"f").unwrap(),
        entry: Entry::File {
            digest: Digest::of(content),
            size: 1,
            exec: false,
        },
    };
    for (n, bytes) in [(1, &old), (2, &new)] {
        let mut commit = commit(&mut random, n, false);
        let root = tree::write(&[file(bytes)], &mut |d, b| commit.nodes.push((d, b.into())));
        commit.generation = Some(Generation {
            root,
            ..crate::fixture::generation(n)
        });
        fixture.commit(commit);
    }
    fixture.commit(put(&[(b"p", &crate::fixture::file(&on_disk))]));
    let (before, after) = ([3], [4]);
    fixture.commit(Commit {
        intents_put: vec![Intent {
            path: path(b"q"),
            before: Some(crate::fixture::file(&before).mat),
            before_fingerprint: None,
            after: Some(crate::fixture::file(&after).mat.value),
            after_exec: false,
            dots: Vec::new(),
            temp: None,
        }],
        ..Commit::default()
    });
    let all = fixture.see().mark(&|_, _| true).unwrap();
    let reached = [old, new, on_disk, before, after];
    assert!(reached.iter().all(|c| all.has_blob(&Digest::of(c))));
    assert!(!all.has_blob(&Digest::of(b"never")));
    assert_eq!(all.generations(), 2);
    let newest = fixture.see().mark(&|_, number| number == 2).unwrap();
    assert!(!newest.has_blob(&Digest::of(&old)));
    assert!(newest.has_blob(&Digest::of(&new)));
    // The newest generation stays, whoever wants it dropped.
    assert_eq!(
        fixture
            .store
            .drop_generations(fixture.folder, &[1, 2, 3])
            .unwrap(),
        1
    );
    let left = fixture.see().generations(fixture.folder, 9).unwrap();
    assert_eq!(left.iter().map(|g| g.number).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_is_held_outlives_its_generation_and_what_went_is_not_held() {
    let fixture = fixture();
    let store = &fixture.store;
    let mut roots = Vec::new();
    for n in [1, 2] {
        let link = NamedEntry {
            name: Name::new(b"l").unwrap(),
            entry: Entry::Symlink {
                target: Box::new([n]),
            },
        };
        let mut commit = Commit::default();
        let root = tree::write(&[link], &mut |d, b| commit.nodes.push((d, b.into())));
        commit.generation = Some(Generation {
            root,
            ..crate::fixture::generation(n.into())
        });
        roots.push(root);
        fixture.commit(commit);
    }
    let first = fixture.see().generation(fixture.folder, 1).unwrap().unwrap();
    let collect = || {
        let see = fixture.see();
        let alone = store.alone(Duration::ZERO).unwrap();
        store.forget_dropped(&alone, &see.dropped().unwrap()).unwrap();
        drop(alone);
        let mut marks = see.mark(&|_, _| true).unwrap();
        let mut sweep = Sweep::default();
        while !sweep.is_done() {
            assert!(store.sweep(&mut marks, &mut sweep, Duration::ZERO).unwrap());
        }
        roots
            .iter()
            .map(|root| fixture.see().has_node(root).unwrap())
            .collect::<Vec<_>>()
    };
    let hold = store.hold(fixture.folder, &first).unwrap().expect("it is there");
    assert_eq!(store.drop_generations(fixture.folder, &[1]).unwrap(), 1);
    assert_eq!(collect(), [true, true]);
    assert_eq!(fixture.see().dropped().unwrap(), [(fixture.folder, 1)]);
    assert!(store.hold(fixture.folder, &first).unwrap().is_none());
    drop(hold);
    assert_eq!(collect(), [false, true]);
    assert_eq!(fixture.see().dropped().unwrap(), []);
}
