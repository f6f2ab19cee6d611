//! The store from outside: what is written is read, after a reopen too, and what must be refused is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, FolderId, Hlc, ReplicaId, Vector};
use alike_core::observe::Mat;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_core::state::{State, StateEntry};
use alike_core::tree::{self, Nodes};
use alike_core::view::{Summaries, Summary};
use alike_store::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    folder: FolderKey,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let folder = store.add_folder(new_folder(1)).unwrap().key;
    Fixture { dir, store, folder }
}

impl Fixture {
    fn reopen(self) -> Fixture {
        let Fixture { dir, store, folder } = self;
        drop(store);
        let store = Store::open(&dir.path().join("state")).unwrap();
        Fixture { dir, store, folder }
    }

    fn commit(&self, commit: Commit) {
        self.store.commit(self.folder, commit).unwrap();
    }

    fn see(&self) -> Snapshot {
        self.store.snapshot().unwrap()
    }
}

/// A temporary directory that the store takes, whatever the umask is.
fn private_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    dir
}

fn new_folder(n: u8) -> NewFolder {
    NewFolder {
        id: FolderId([n; 16]),
        name: format!("folder {n}"),
        path: PathBuf::from(std::ffi::OsStr::from_bytes(b"/home/\xff\xfe/\n")),
        replica: ReplicaId(u64::from(n)),
        marker: [n; 16],
        root_dev: 5,
        root_ino: u64::MAX,
        created_ms: 1_700_000_000_000,
    }
}

fn path(bytes: &[u8]) -> RelPath {
    RelPath::parse(bytes).unwrap()
}

fn row(value: Value) -> IndexRow {
    IndexRow {
        mat: Mat {
            value,
            exec: true,
            dots: vec![Dot {
                replica: ReplicaId(9),
                seq: 3,
            }],
        },
        fingerprint: Some(Fingerprint {
            ino: 1,
            size: 2,
            mtime_ns: -3,
            ctime_ns: i64::MAX,
            mode: 0o100_755,
        }),
        racy: true,
    }
}

fn file(content: &[u8]) -> IndexRow {
    row(Value::File {
        digest: Digest::of(content),
        size: content.len() as u64,
    })
}

fn put(rows: &[(&[u8], &IndexRow)]) -> Commit {
    Commit {
        index_put: rows.iter().map(|(p, r)| (path(p), (*r).clone())).collect(),
        ..Commit::default()
    }
}

fn generation(number: u64) -> Generation {
    Generation {
        number,
        root: Summary::empty().root,
        state: None,
        time_ms: 7,
        reason: Reason::Restore,
        device: [4; 32],
        added: 1,
        changed: 2,
        removed: 3,
    }
}

fn device(n: u8) -> DeviceRow {
    DeviceRow {
        id: [n; 32],
        name: format!("device {n}"),
        addrs: vec![0, 255, n],
        paused: false,
        last_seen_ms: Some(3),
        paired_ms: 1,
    }
}

fn grant(folder: FolderKey, n: u8) -> Grant {
    Grant {
        folder,
        device: [n; 32],
        read_only: true,
        receive_only: false,
    }
}

fn ticket(folder: FolderKey, n: u8) -> TicketRow {
    TicketRow {
        id: [n; 8],
        secret: [n; 16],
        folder,
        read_only: true,
        expires_ms: 9,
        uses_left: 1,
        failures: 0,
        revoked: false,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything that can be read of one folder, to compare.
fn all_of(fixture: &Fixture, folder: FolderKey) -> impl PartialEq + std::fmt::Debug + use<> {
    let see = fixture.see();
    let root = RelPath::root();
    (
        see.head(folder).unwrap(),
        see.index_below(folder, &root).unwrap(),
        see.pending(folder, None, usize::MAX).unwrap(),
        see.pending_total(folder).unwrap(),
        see.intents(folder).unwrap(),
        see.generations(folder, usize::MAX).unwrap(),
        (
            see.blob_places(&Digest::of(b"one"), usize::MAX)
                .unwrap()
                .into_iter()
                .filter(|p| p.0 == folder)
                .collect::<Vec<_>>(),
            fixture
                .store
                .grants()
                .unwrap()
                .into_iter()
                .filter(|g| g.folder == folder)
                .collect::<Vec<_>>(),
            fixture
                .store
                .tickets()
                .unwrap()
                .into_iter()
                .filter(|t| t.folder == folder)
                .collect::<Vec<_>>(),
        ),
    )
}

/// A commit with something for every table, and the head it sets.
fn full_commit() -> (Commit, Head) {
    let mut commit = Commit::default();
    let entry = NamedEntry {
        name: Name::new(b"a").unwrap(),
        entry: Entry::File {
            digest: Digest::of(b"one"),
            size: 3,
            exec: false,
        },
    };
    let root = tree::write(&[entry], &mut |d, b| commit.nodes.push((d, b.into())));
    let child = StateEntry {
        name: Name::new(b"a").unwrap(),
        records: Vec::new(),
        child: Some(tree::empty::<StateEntry>()),
    };
    let state = tree::write(&[child], &mut |d, b| commit.nodes.push((d, b.into())));
    let summary = Summary {
        root,
        files: 1,
        ..Summary::empty()
    };
    commit.summaries.push((state, summary));
    let mut vector = Vector::default();
    vector.advance(ReplicaId(1), 12);
    vector.advance(ReplicaId(u64::MAX), u64::MAX);
    let head = Head {
        state: State {
            root: Some(state),
            vector,
        },
        summary,
        hlc: Hlc(99),
        seq: 12,
        generation: 3,
        scanned: true,
    };
    commit.head = Some(head.clone());
    commit.generation = Some(Generation {
        root,
        state: Some(state),
        ..generation(3)
    });
    commit.index_put = vec![
        (path(b"d"), row(Value::Dir)),
        (path(b"d/one"), file(b"one")),
        (
            path(b"d/\xff"),
            row(Value::Symlink {
                target: b"\xfe"[..].into(),
            }),
        ),
        (
            path(b"z"),
            IndexRow {
                fingerprint: None,
                ..file(b"one")
            },
        ),
    ];
    commit.pending_put = vec![(path(b"p"), 10), (path(b"d/q"), 5)];
    commit.intents_put = vec![Intent {
        path: path(b"d/\xfd"),
        before: Some(file(b"x").mat),
        before_fingerprint: file(b"x").fingerprint,
        after: Some(Value::Dir),
        after_exec: true,
        dots: file(b"x").mat.dots,
        temp: Some(b"\xff1".to_vec()),
    }];
    (commit, head)
}

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
fn removing_a_folder_leaves_the_others_whole() {
    let fixture = fixture();
    let mut keys = vec![fixture.folder];
    keys.extend((2..=3).map(|n| fixture.store.add_folder(new_folder(n)).unwrap().key));
    fixture.store.put_device(&device(1)).unwrap();
    fixture.store.put_device(&device(0xff)).unwrap();
    for (n, &key) in keys.iter().enumerate() {
        fixture.store.commit(key, full_commit().0).unwrap();
        fixture.store.put_grant(&grant(key, 1)).unwrap();
        fixture.store.put_grant(&grant(key, 0xff)).unwrap();
        fixture.store.put_ticket(&ticket(key, n as u8)).unwrap();
    }
    let before = (all_of(&fixture, keys[0]), all_of(&fixture, keys[2]));
    fixture.store.remove_folder(keys[1]).unwrap();
    fixture.store.remove_folder(keys[1]).unwrap();
    assert_eq!((all_of(&fixture, keys[0]), all_of(&fixture, keys[2])), before);
    let see = fixture.see();
    assert_eq!(see.head(keys[1]).unwrap(), Head::default());
    assert!(see.index_below(keys[1], &RelPath::root()).unwrap().is_empty());
    assert!(see.pending(keys[1], None, 9).unwrap().is_empty());
    assert_eq!(see.pending_total(keys[1]).unwrap(), (0, 0));
    assert!(see.intents(keys[1]).unwrap().is_empty());
    assert!(see.generations(keys[1], 9).unwrap().is_empty());
    assert!(
        see.blob_places(&Digest::of(b"one"), 99)
            .unwrap()
            .iter()
            .all(|p| p.0 != keys[1])
    );
    assert_eq!(fixture.store.grants().unwrap().len(), 4);
    assert_eq!(fixture.store.tickets().unwrap().len(), 2);
    // Nothing can be written for it any more, and its key does not come back.
    let no_folder = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::NoFolder { folder, .. }) if folder == keys[1]));
    };
    no_folder(fixture.store.commit(keys[1], full_commit().0));
    no_folder(fixture.store.set_folder_paused(keys[1], true));
    no_folder(fixture.store.put_grant(&grant(keys[1], 1)));
    no_folder(fixture.store.put_ticket(&ticket(keys[1], 9)));
    no_folder(fixture.store.pair(&device(8), &grant(keys[1], 8), None));
    assert_eq!(fixture.store.devices().unwrap().len(), 2);
    fixture.store.remove_folder(keys[2]).unwrap();
    let fixture = fixture.reopen();
    assert!(fixture.store.add_folder(new_folder(4)).unwrap().key > keys[2]);
}

#[test]
fn removing_a_device_takes_its_grants() {
    let fixture = fixture();
    for n in [1, 2] {
        fixture
            .store
            .pair(&device(n), &grant(fixture.folder, n), None)
            .unwrap();
    }
    fixture.store.remove_device(&[1; 32]).unwrap();
    assert_eq!(fixture.store.devices().unwrap(), [device(2)]);
    assert_eq!(fixture.store.grants().unwrap(), [grant(fixture.folder, 2)]);
    fixture.store.remove_grant(fixture.folder, &[2; 32]).unwrap();
    assert!(fixture.store.grants().unwrap().is_empty());
}

#[test]
fn a_ticket_is_spent_and_removed() {
    let fixture = fixture();
    fixture.store.put_ticket(&ticket(fixture.folder, 1)).unwrap();
    let spent = TicketRow {
        uses_left: 0,
        ..ticket(fixture.folder, 1)
    };
    fixture
        .store
        .pair(&device(1), &grant(fixture.folder, 1), Some(&spent))
        .unwrap();
    assert!(!format!("{spent:?}").contains("secret"));
    assert_eq!(fixture.store.tickets().unwrap(), [spent]);
    fixture.store.remove_ticket(&[1; 8]).unwrap();
    assert!(fixture.store.tickets().unwrap().is_empty());
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
fn a_second_open_is_refused_and_says_why() {
    let fixture = fixture();
    let error = Store::open(&fixture.dir.path().join("state")).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("alike.redb"), "{error}");
    // The refused open must not have taken the lock from the first.
    let error = Store::open(&fixture.dir.path().join("state")).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    fixture.reopen();
}

#[test]
fn only_the_owner_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    drop(Store::open(&state).unwrap());
    let database = state.join(DATABASE);
    assert_eq!((mode(&state), mode(&database)), (0o700, 0o600));
    fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&state).unwrap());
    assert_eq!(mode(&database), 0o600);
    for loose in [0o750, 0o701, 0o777] {
        fs::set_permissions(&state, Permissions::from_mode(loose)).unwrap();
        let error = Store::open(&state).err().unwrap();
        assert!(
            matches!(error, StoreError::Permissions { mode, .. } if mode == loose),
            "{error}"
        );
        assert_eq!(mode(&state), loose);
    }
}

#[test]
fn another_version_is_refused() {
    let fixture = fixture();
    let state = fixture.dir.path().join("state");
    drop(fixture.store);
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    for other in [VERSION + 1, 0] {
        let db = redb::Database::create(state.join(DATABASE)).unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(META).unwrap().insert("version", other).unwrap();
        tx.commit().unwrap();
        drop(db);
        let error = Store::open(&state).err().unwrap();
        assert!(
            matches!(error, StoreError::Version { found, known: VERSION, .. } if found == other),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_database_of_ours_is_refused() {
    let dir = private_dir();
    let database = dir.path().join(DATABASE);
    fs::write(&database, "not a database".repeat(1_000)).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    fs::remove_file(&database).unwrap();
    let db = redb::Database::create(&database).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(redb::TableDefinition::<u64, u64>::new("theirs"))
        .unwrap();
    tx.commit().unwrap();
    drop(db);
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_crash_between_making_the_file_and_filling_it_is_healed() {
    let dir = private_dir();
    fs::write(dir.path().join(DATABASE), "").unwrap();
    drop(Store::open(dir.path()).unwrap());
    fs::remove_file(dir.path().join(DATABASE)).unwrap();
    drop(redb::Database::create(dir.path().join(DATABASE)).unwrap());
    drop(Store::open(dir.path()).unwrap());
}

/// Knuth's MMIX generator: the same histories in every run of one seed.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn path(&mut self) -> RelPath {
        const NAMES: [&[u8]; 9] = [
            b"a",
            b"a-",
            b"a.",
            b"a0",
            b"b",
            b"\x01",
            b"\xff",
            b"\xfe\xff",
            b" ",
        ];
        (0..1 + self.below(4)).fold(RelPath::root(), |dir, _| {
            dir.join(&Name::new(NAMES[self.below(NAMES.len())]).unwrap())
        })
    }

    fn row(&mut self) -> IndexRow {
        match self.below(5) {
            0 => row(Value::Dir),
            n => file(&[n as u8]),
        }
    }
}

/// The order of keys: by directory, then by name.
fn key_order(path: &RelPath) -> (RelPath, Name) {
    path.split().unwrap()
}

#[derive(Default)]
struct Model {
    index: BTreeMap<RelPath, IndexRow>,
    pending: BTreeMap<RelPath, u64>,
}

impl Model {
    fn below<T: Clone>(rows: &BTreeMap<RelPath, T>, dir: &RelPath) -> Vec<(RelPath, T)> {
        let mut found: Vec<_> = rows
            .iter()
            .filter(|(p, _)| p.is_within(dir) && *p != dir)
            .map(|(p, r)| (p.clone(), r.clone()))
            .collect();
        found.sort_by_key(|(p, _)| key_order(p));
        found
    }

    fn check(&self, folder: FolderKey, see: &Snapshot, dir: &RelPath, what: &str) {
        let below = Self::below(&self.index, dir);
        assert_eq!(
            see.index_below(folder, dir).unwrap(),
            below,
            "{what}: below {dir}"
        );
        let members: Vec<_> = below
            .iter()
            .filter(|(p, _)| p.parent().as_ref() == Some(dir))
            .map(|(p, r)| (p.split().unwrap().1, r.clone()))
            .collect();
        assert_eq!(see.index_dir(folder, dir).unwrap(), members, "{what}: in {dir}");
        assert_eq!(
            see.index(folder, dir).unwrap().as_ref(),
            self.index.get(dir),
            "{what}: {dir}"
        );
        let pending: Vec<_> = Self::below(&self.pending, dir)
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        assert_eq!(
            see.pending_below(folder, dir).unwrap(),
            pending,
            "{what}: pending below {dir}"
        );
        assert_eq!(
            see.is_pending(folder, dir).unwrap(),
            self.pending.contains_key(dir),
            "{what}: {dir}"
        );
    }

    fn check_whole(&self, folder: FolderKey, see: &Snapshot, page: usize, what: &str) {
        let expected = Self::below(&self.pending, &RelPath::root());
        let mut found: Vec<(RelPath, u64)> = Vec::new();
        loop {
            let after = found.last().map(|l| l.0.clone());
            let more = see.pending(folder, after.as_ref(), page).unwrap();
            assert!(more.len() <= page, "{what}");
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        assert_eq!(found, expected, "{what}: pages of {page}");
        let total = (self.pending.len() as u64, self.pending.values().sum());
        assert_eq!(see.pending_total(folder).unwrap(), total, "{what}: totals");
        for content in 1..5u8 {
            let digest = Digest::of(&[content]);
            let places = see.blob_places(&digest, usize::MAX).unwrap().into_iter();
            let places: BTreeSet<_> = places.filter(|p| p.0 == folder).map(|p| p.1).collect();
            let expected: BTreeSet<_> = self
                .index
                .iter()
                .filter(|(_, r)| matches!(r.mat.value, Value::File { digest: d, .. } if d == digest))
                .map(|(p, _)| p.clone())
                .collect();
            assert_eq!(places, expected, "{what}: places of {content}");
        }
    }
}

#[test]
fn random_histories_match_a_model() {
    for seed in 1..=12u64 {
        let mut random = Lcg(seed);
        let fixture = fixture();
        let other = fixture.store.add_folder(new_folder(2)).unwrap().key;
        let mut models = [(fixture.folder, Model::default()), (other, Model::default())];
        for step in 0..25 {
            let what = format!("seed {seed}, step {step}");
            let (folder, model) = &mut models[random.below(2)];
            let mut commit = Commit::default();
            for _ in 0..random.below(12) {
                commit.index_remove.push(random.path());
                commit.pending_remove.push(random.path());
            }
            for _ in 0..random.below(40) {
                commit.index_put.push((random.path(), random.row()));
                commit
                    .pending_put
                    .push((random.path(), random.below(1_000) as u64));
            }
            model.index.retain(|p, _| !commit.index_remove.contains(p));
            model.pending.retain(|p, _| !commit.pending_remove.contains(p));
            model.index.extend(commit.index_put.iter().cloned());
            model.pending.extend(commit.pending_put.iter().cloned());
            fixture.store.commit(*folder, commit).unwrap();
            let see = fixture.see();
            for (folder, model) in &models {
                model.check(*folder, &see, &RelPath::root(), &what);
                for _ in 0..6 {
                    model.check(*folder, &see, &random.path(), &what);
                }
                model.check_whole(*folder, &see, 1 + random.below(9), &what);
            }
        }
    }
}
