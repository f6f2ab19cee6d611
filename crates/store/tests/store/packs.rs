//! Packs: what is in them after commits, crashes in the middle and sweeps. Never looks into a pack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::record::Value;
use alike_store::*;

use crate::fixture::*;
use crate::model::Lcg;

fn file(content: &[u8]) -> Value {
    Value::File {
        digest: Digest::of(content),
        size: content.len() as u64,
    }
}

fn put(fixture: &Fixture, name: &str, content: &[u8]) {
    fixture.store.pack(&Digest::of(content), content).unwrap();
    fixture.commit(Commit {
        index_put: vec![(path(name.as_bytes()), row(file(content)))],
        ..Commit::default()
    });
}

fn packed(fixture: &Fixture, content: &[u8]) -> Option<Vec<u8>> {
    fixture.store.packed(&Digest::of(content)).unwrap()
}

/// Lets go of these; nothing in here is reached by a tree.
fn sweep(store: &Store, gone: &BTreeSet<Digest>) -> PackSweep {
    let mut marks = Marks::default();
    let mut sweep = PackSweep::default();
    while !sweep.is_done() {
        let goes = |_: &Marks, digest: &Digest, _| gone.contains(digest);
        assert!(
            store
                .sweep_packs(&mut marks, &goes, &mut sweep, Duration::ZERO)
                .unwrap()
        );
    }
    sweep
}

#[test]
fn a_content_counts_once_a_commit_names_it() {
    let fixture = fixture();
    fixture.store.pack(&Digest::of(b"one"), b"one").unwrap();
    assert_eq!(packed(&fixture, b"one"), None);
    put(&fixture, "a", b"two");
    assert_eq!(packed(&fixture, b"two").unwrap(), b"two");
    put(&fixture, "b", b"one");
    let bytes = fixture.store.packs_bytes();
    put(&fixture, "c", b"one");
    assert_eq!(fixture.store.packs_bytes(), bytes, "packed once");
    let large = vec![1; MAX_PACKED + 1];
    put(&fixture, "large", &large);
    put(&fixture, "empty", b"");
    assert_eq!((packed(&fixture, &large), packed(&fixture, b"")), (None, None));
    let fixture = fixture.reopen();
    assert_eq!(packed(&fixture, b"one").unwrap(), b"one");
    assert_eq!(packed(&fixture, b"two").unwrap(), b"two");
    put(&fixture, "d", b"three");
    assert_eq!(packed(&fixture, b"three").unwrap(), b"three");
}

/// A pack that was read from is held open; what is checked is what has its name on the disk.
#[test]
fn a_pack_that_somebody_removes_is_found() {
    let fixture = fixture();
    put(&fixture, "a", b"here");
    assert_eq!(packed(&fixture, b"here").unwrap(), b"here");
    std::fs::remove_dir_all(fixture.dir.path().join("state/packs")).unwrap();
    let mut good = Vec::new();
    let mut look = |_: &Digest, _, is_good| {
        good.push(is_good);
        true
    };
    fixture.store.check_packs(&mut look).unwrap();
    assert_eq!(good, [false]);
    assert_eq!(packed(&fixture, b"here"), None);
}

#[test]
fn a_damaged_content_is_none_and_is_found() {
    let fixture = fixture();
    put(&fixture, "a", b"good");
    put(&fixture, "b", b"spoilt");
    let dir = fixture.dir.path().join("state/packs");
    let pack = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    assert_eq!(packed(&fixture, b"good").unwrap(), b"good");
    assert_eq!(packed(&fixture, b"spoilt"), None);
    let mut bad = Vec::new();
    let mut look = |digest: &Digest, _, good: bool| {
        bad.extend((!good).then_some(*digest));
        true
    };
    fixture.store.check_packs(&mut look).unwrap();
    assert_eq!(bad, [Digest::of(b"spoilt")]);
}

/// Random contents are packed, let go of, and swept, with the store closed in between: what is kept is there.
#[test]
fn what_is_kept_outlives_every_sweep() {
    for seed in 0..20 {
        let mut random = Lcg(seed);
        let mut fixture = fixture();
        let mut kept: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        for step in 0..60 {
            let len = random.below(3000);
            let content: Vec<u8> = (0..=len).map(|i| (i ^ random.below(256)) as u8).collect();
            let digest = Digest::of(&content);
            match random.below(10) {
                0..7 => {
                    put(&fixture, &format!("f{step}"), &content);
                    kept.insert(digest, content);
                }
                7 => fixture.store.pack(&digest, &content).unwrap(),
                8 => {
                    let all: Vec<Digest> = kept.keys().copied().collect();
                    let gone: BTreeSet<Digest> = all.into_iter().filter(|_| random.below(3) > 0).collect();
                    kept.retain(|digest, _| !gone.contains(digest));
                    let before = fixture.store.packs_bytes();
                    let (contents, _) = fixture.store.packs_waste(&|d, _| gone.contains(d)).unwrap();
                    let swept = sweep(&fixture.store, &gone);
                    assert_eq!(swept.removed, contents, "seed {seed}");
                    assert_eq!(swept.freed, before - fixture.store.packs_bytes(), "seed {seed}");
                    assert!(gone.iter().all(|d| fixture.store.packed(d).unwrap().is_none()));
                    let live: u64 = kept.values().map(|c| c.len() as u64 + 36).sum();
                    assert!(fixture.store.packs_bytes() <= 2 * live + 200_000, "seed {seed}");
                }
                _ => fixture = fixture.reopen(),
            }
            for (digest, content) in &kept {
                let found = fixture.store.packed(digest).unwrap();
                assert_eq!(found.as_ref(), Some(content), "seed {seed}, step {step}");
            }
        }
    }
}

/// Whoever has hashed a file commits it a little later, or fails to and tries again; sweeps in between leave him his pack.
#[test]
fn sweeps_between_hashing_and_committing_cost_nothing() {
    let fixture = fixture();
    put(&fixture, "old", b"old");
    fixture.store.pack(&Digest::of(b"new"), b"new").unwrap();
    fixture.store.pack(&Digest::of(b"old"), b"old").unwrap();
    let row = |content: &[u8]| Commit {
        index_put: vec![(path(b"f"), row(file(content)))],
        ..Commit::default()
    };
    for _ in 0..3 {
        assert!(fixture.store.commit(FolderKey(99), row(b"new")).is_err());
        let swept = sweep(&fixture.store, &[Digest::of(b"old")].into());
        assert_eq!((swept.removed, swept.spared), (0, 1));
    }
    fixture.commit(row(b"new"));
    fixture.commit(row(b"old"));
    assert_eq!(packed(&fixture, b"new").unwrap(), b"new");
    assert_eq!(packed(&fixture, b"old").unwrap(), b"old");
    // Committed, it can go.
    assert_eq!(sweep(&fixture.store, &[Digest::of(b"old")].into()).removed, 1);
    assert_eq!(packed(&fixture, b"new").unwrap(), b"new");
    // What is committed while a collection is under way stays until the next.
    let fixture = fixture.reopen();
    let collecting = fixture.store.collecting();
    fixture.commit(row(b"new"));
    assert_eq!(sweep(&fixture.store, &[Digest::of(b"new")].into()).removed, 0);
    drop(collecting);
    assert_eq!(sweep(&fixture.store, &[Digest::of(b"new")].into()).removed, 1);
    assert_eq!(fixture.store.packs_bytes(), 0);
}

/// A pack that a commit is about to name has no row yet.
#[test]
fn sweeps_beside_commits_leave_them_their_packs() {
    let fixture = fixture();
    let content = |n: usize| format!("content {n}").into_bytes();
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| (0..100).for_each(|n| put(&fixture, &format!("f{n}"), &content(n))));
        while !commits.is_finished() {
            sweep(&fixture.store, &BTreeSet::new());
        }
    });
    for n in 0..100 {
        assert_eq!(packed(&fixture, &content(n)), Some(content(n)), "{n}");
    }
}

#[test]
fn pins_are_of_generations_that_are_there() {
    let fixture = fixture();
    let generation = |n| Commit {
        generation: Some(crate::fixture::generation(n)),
        ..Commit::default()
    };
    (1..=3).for_each(|n| fixture.commit(generation(n)));
    let folder = fixture.folder;
    assert!(fixture.store.pin(folder, 1, true).unwrap());
    assert!(!fixture.store.pin(folder, 9, true).unwrap());
    assert_eq!(fixture.see().pins(folder).unwrap(), BTreeSet::from([1]));
    assert_eq!(fixture.store.drop_generations(folder, &[1, 2]).unwrap(), 1);
    assert!(fixture.see().generation(folder, 1).unwrap().is_some());
    assert!(fixture.store.pin(folder, 1, false).unwrap());
    assert_eq!(fixture.store.drop_generations(folder, &[1]).unwrap(), 1);
    assert!(fixture.see().pins(folder).unwrap().is_empty());
}
