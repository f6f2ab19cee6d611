//! What one folder's commits put there is what its snapshots show. Never removes a folder.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::entry::NamedEntry;
use alike_core::ids::Vector;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_core::state::State;
use alike_core::tree::{self, Nodes};
use alike_core::view::{Summaries, Summary};
use alike_store::*;

use crate::fixture::*;

#[test]
fn reopening_finds_everything() {
    let fixture = fixture();
    let (commit, head) = full_commit();
    fixture.commit(commit.clone());
    fixture.store.set_folder_paused(fixture.folder, true).unwrap();
    let (device, grant, ticket) = (device(2), grant(fixture.folder, 2), ticket(fixture.folder, 3));
    fixture.store.pair(&device, &grant, Some(&ticket)).unwrap();
    let before = all_of(&fixture, fixture.folder);

    let fixture = fixture.reopen();
    let see = fixture.see();
    let folder = fixture.folder;
    assert_eq!(all_of(&fixture, folder), before);
    assert_eq!(see.head(folder).unwrap(), head);
    for (p, r) in &commit.index_put {
        assert_eq!(see.index(folder, p).unwrap().as_ref(), Some(r), "{p}");
    }
    assert_eq!(see.intents(folder).unwrap(), commit.intents_put);
    assert_eq!(see.generation(folder, 3).unwrap(), commit.generation);
    assert_eq!(see.generation(folder, 2).unwrap(), None);
    let (state, summary) = commit.summaries[0];
    assert_eq!(see.summary(&state).unwrap(), Some(summary));
    for (digest, bytes) in &commit.nodes {
        assert_eq!(see.node(digest).unwrap().as_ref(), Some(bytes));
    }
    assert!(!see.has_node(&Digest::of(b"")).unwrap() && see.node(&Digest::of(b"")).unwrap().is_none());
    assert!(see.has_node(&tree::empty::<NamedEntry>()).unwrap());
    let new = new_folder(1);
    let expected = FolderRow {
        key: folder,
        id: new.id,
        name: new.name,
        path: new.path,
        replica: new.replica,
        marker: new.marker,
        root_dev: new.root_dev,
        root_ino: new.root_ino,
        paused: true,
        created_ms: new.created_ms,
    };
    assert_eq!(fixture.store.folders().unwrap(), [expected]);
    assert_eq!(fixture.store.devices().unwrap(), [device]);
    assert_eq!(fixture.store.grants().unwrap(), [grant]);
    assert_eq!(fixture.store.tickets().unwrap(), [ticket]);
}

#[test]
fn a_new_folder_is_empty() {
    let fixture = fixture();
    assert_eq!(fixture.see().head(fixture.folder).unwrap(), Head::default());
    assert_eq!(fixture.see().pending_total(fixture.folder).unwrap(), (0, 0));
    fixture.commit(Commit {
        head: Some(Head::default()),
        generation: Some(generation(1)),
        ..Commit::default()
    });
}

#[test]
fn an_open_snapshot_does_not_see_later_commits() {
    let fixture = fixture();
    let before = fixture.see();
    fixture.commit(put(&[(b"a", &file(b"1"))]));
    assert_eq!(before.index(fixture.folder, &path(b"a")).unwrap(), None);
    assert!(
        fixture
            .see()
            .index(fixture.folder, &path(b"a"))
            .unwrap()
            .is_some()
    );
}

#[test]
fn one_snapshot_serves_many_threads() {
    let fixture = fixture();
    let rows: Vec<_> = (0..2_000)
        .map(|i| (path(format!("{}/{i}", i % 7).as_bytes()), file(&[i as u8])))
        .collect();
    fixture.commit(Commit {
        index_put: rows.clone(),
        ..Commit::default()
    });
    let see = Arc::new(fixture.see());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (p, r) in &rows {
                    assert_eq!(see.index(fixture.folder, p).unwrap().as_ref(), Some(r));
                }
            });
        }
        for i in 0..5 {
            fixture.commit(put(&[(b"0/0", &file(&[i]))]));
        }
    });
}

#[test]
fn directories_are_told_from_names_that_look_like_them() {
    let fixture = fixture();
    let names: [&[u8]; 14] = [
        b"a",
        b"a-b",
        b"a/b",
        b"a.b",
        b"a/b/c",
        b"a/b-c",
        b"a0",
        b"a/\x01",
        b"\x01",
        b"\x01/\xff",
        b"\xff",
        b"\xff/\xff",
        b"a/.x",
        b"a/-",
    ];
    let other = fixture.store.add_folder(new_folder(2)).unwrap().key;
    let rows = names.map(|n| (path(n), file(n)));
    for folder in [fixture.folder, other] {
        let commit = Commit {
            index_put: rows.to_vec(),
            ..Commit::default()
        };
        fixture.store.commit(folder, commit).unwrap();
    }
    let see = fixture.see();
    let dir = |d: &[u8]| -> Vec<Vec<u8>> {
        let rows = see
            .index_dir(fixture.folder, &RelPath::parse(d).unwrap())
            .unwrap();
        rows.into_iter().map(|(n, _)| n.as_bytes().to_vec()).collect()
    };
    let below = |d: &[u8]| -> Vec<Vec<u8>> {
        let rows = see
            .index_below(fixture.folder, &RelPath::parse(d).unwrap())
            .unwrap();
        rows.into_iter().map(|(p, _)| p.as_bytes().to_vec()).collect()
    };
    assert_eq!(dir(b""), [&b"\x01"[..], b"a", b"a-b", b"a.b", b"a0", b"\xff"]);
    assert_eq!(dir(b"a"), [&b"\x01"[..], b"-", b".x", b"b", b"b-c"]);
    assert_eq!(dir(b"a/b"), [b"c"]);
    assert_eq!(dir(b"a-b"), Vec::<Vec<u8>>::new());
    assert_eq!(dir(b"\xff"), [b"\xff"]);
    assert_eq!(below(b"").len(), names.len());
    let in_a: [&[u8]; 6] = [b"a/\x01", b"a/-", b"a/.x", b"a/b", b"a/b-c", b"a/b/c"];
    assert_eq!(below(b"a"), in_a);
    assert_eq!(below(b"\x01"), [b"\x01/\xff"]);
}

#[test]
fn blobs_follow_the_index() {
    let fixture = fixture();
    let places = |content: &[u8]| -> Vec<Vec<u8>> {
        let places = fixture.see().blob_places(&Digest::of(content), 10).unwrap();
        places.iter().map(|p| p.1.as_bytes().to_vec()).collect()
    };
    let (one, two) = (file(b"one"), file(b"two"));
    fixture.commit(put(&[(b"x/b", &one), (b"a", &one), (b"d", &row(Value::Dir))]));
    assert_eq!(places(b"one"), [&b"a"[..], b"x/b"]);
    assert_eq!(
        fixture.see().blob_places(&Digest::of(b"one"), 1).unwrap(),
        [(fixture.folder, path(b"a"))]
    );
    // Other content, and the same content with another fingerprint.
    let touched = IndexRow {
        fingerprint: None,
        ..one.clone()
    };
    fixture.commit(put(&[(b"a", &two), (b"x/b", &touched)]));
    assert_eq!(places(b"one"), [b"x/b"]);
    assert_eq!(places(b"two"), [b"a"]);
    // A file becomes a directory; removed and put at once; put twice; removing what is not there.
    fixture.commit(Commit {
        index_remove: vec![path(b"x/b"), path(b"x/b"), path(b"nothing")],
        ..put(&[
            (b"a", &row(Value::Dir)),
            (b"x/b", &one),
            (b"c", &two),
            (b"c", &one),
            (b"c", &two),
        ])
    });
    assert_eq!(places(b"one"), [b"x/b"]);
    assert_eq!(places(b"two"), [b"c"]);
    fixture.commit(Commit {
        index_remove: vec![path(b"c"), path(b"x/b"), path(b"a")],
        ..Commit::default()
    });
    assert_eq!((places(b"one").len(), places(b"two").len()), (0, 0));
}

#[test]
fn pending_totals_are_exact() {
    let fixture = fixture();
    let total = || fixture.see().pending_total(fixture.folder).unwrap();
    let change = |remove: &[&[u8]], put: &[(&[u8], u64)]| {
        fixture.commit(Commit {
            pending_remove: remove.iter().map(|p| path(p)).collect(),
            pending_put: put.iter().map(|(p, n)| (path(p), *n)).collect(),
            ..Commit::default()
        });
    };
    change(&[], &[(b"a", 10), (b"a", 7), (b"b", 1)]);
    assert_eq!(total(), (2, 8));
    change(&[], &[(b"a", 9)]);
    assert_eq!(total(), (2, 10));
    change(&[b"c", b"b", b"b"], &[]);
    assert_eq!(total(), (1, 9));
    change(&[b"a"], &[(b"a", 3)]);
    assert_eq!(total(), (1, 3));
    // Sizes that a peer made up.
    change(&[], &[(b"x", u64::MAX), (b"y", u64::MAX)]);
    assert_eq!(total(), (3, u64::MAX));
    change(&[b"x", b"y"], &[]);
    assert_eq!(total(), (1, 3));
    change(&[b"a"], &[]);
    assert_eq!(total(), (0, 0));
}

#[test]
fn generations_come_newest_first() {
    let fixture = fixture();
    let other = fixture.store.add_folder(new_folder(2)).unwrap().key;
    for number in [1, 2, 256, 300] {
        for folder in [fixture.folder, other] {
            let commit = Commit {
                generation: Some(generation(number)),
                ..Commit::default()
            };
            fixture.store.commit(folder, commit).unwrap();
        }
    }
    let found = fixture.see().generations(fixture.folder, 3).unwrap();
    assert_eq!(found, [generation(300), generation(256), generation(2)]);
}

#[test]
fn nothing_names_a_tree_that_is_not_there() {
    let fixture = fixture();
    let missing = Digest::of(b"nowhere");
    let gone = Summary {
        root: missing,
        ..Summary::empty()
    };
    let head = |state, summary| Head {
        state: State {
            root: state,
            vector: Vector::default(),
        },
        summary,
        ..Head::default()
    };
    for commit in [
        Commit {
            generation: Some(Generation {
                root: missing,
                ..generation(1)
            }),
            ..Commit::default()
        },
        Commit {
            generation: Some(Generation {
                state: Some(missing),
                ..generation(1)
            }),
            ..Commit::default()
        },
        Commit {
            head: Some(head(Some(missing), Summary::empty())),
            ..Commit::default()
        },
        Commit {
            head: Some(head(None, gone)),
            ..Commit::default()
        },
        Commit {
            summaries: vec![(Digest::of(b"state"), gone)],
            ..Commit::default()
        },
    ] {
        // Nothing else of such a commit is kept either.
        let commit = Commit {
            nodes: vec![(Digest::of(b"n"), b"n"[..].into())],
            ..commit
        };
        let error = fixture.store.commit(fixture.folder, commit).unwrap_err();
        assert!(matches!(error, StoreError::MissingTree { digest, .. } if digest == missing));
        assert!(!fixture.see().has_node(&Digest::of(b"n")).unwrap());
    }
}

#[test]
fn a_path_that_could_not_be_read_back_is_not_written() {
    let fixture = fixture();
    let name = Name::new(b"x").unwrap();
    let deep = (0..300).fold(RelPath::root(), |dir, _| dir.join(&name));
    let commit = Commit {
        pending_put: vec![(deep, 1)],
        ..Commit::default()
    };
    let error = fixture.store.commit(fixture.folder, commit).unwrap_err();
    assert!(matches!(error, StoreError::PathLimit { .. }), "{error}");
}

#[test]
fn the_latest_snapshot_is_never_older_than_the_question() {
    let fixture = fixture();
    let latest = fixture.store.latest();
    let total = || latest.snapshot().unwrap().pending_total(fixture.folder).unwrap();
    let old = latest.snapshot().unwrap();
    assert!(std::sync::Arc::ptr_eq(&old, &latest.snapshot().unwrap()));
    for n in 1..4 {
        fixture.commit(Commit {
            pending_put: vec![(path(b"a"), n)],
            ..Commit::default()
        });
        if n == 2 {
            latest.let_go();
        }
        assert_eq!(total(), (1, n));
    }
    assert_eq!(old.pending_total(fixture.folder).unwrap(), (0, 0));
    latest.let_go();
    assert!(std::sync::Arc::ptr_eq(
        &latest.snapshot().unwrap(),
        &latest.snapshot().unwrap()
    ));
}
