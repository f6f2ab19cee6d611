//! A store in a temporary directory, and values to put into it. Never tests anything by itself.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use alike_core::claim::Claims;
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, FolderId, Hlc, ReplicaId, Vector};
use alike_core::observe::Mat;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_core::state::{State, StateEntry};
use alike_core::tree;
use alike_core::view::Summary;
use alike_store::*;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) folder: FolderKey,
}

pub(crate) fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let folder = store.add_folder(new_folder(1)).unwrap().key;
    Fixture { dir, store, folder }
}

impl Fixture {
    pub(crate) fn reopen(self) -> Fixture {
        let Fixture { dir, store, folder } = self;
        drop(store);
        let store = Store::open(&dir.path().join("state")).unwrap();
        Fixture { dir, store, folder }
    }

    pub(crate) fn commit(&self, commit: Commit) {
        self.store.commit(self.folder, commit).unwrap();
    }

    pub(crate) fn see(&self) -> Snapshot {
        self.store.snapshot().unwrap()
    }
}

pub(crate) fn new_folder(n: u8) -> NewFolder {
    NewFolder {
        id: FolderId([n; 16]),
        name: format!("folder {n}"),
        path: PathBuf::from(std::ffi::OsStr::from_bytes(b"/home/\xff\xfe/\n")),
        replica: Replica {
            id: ReplicaId(u64::from(n)),
            nonce: [n; 16],
        },
        marker: [n; 16],
        root_dev: 5,
        root_ino: u64::MAX,
        created_ms: 1_700_000_000_000,
    }
}

pub(crate) fn path(bytes: &[u8]) -> RelPath {
    RelPath::parse(bytes).unwrap()
}

pub(crate) fn row(value: Value) -> IndexRow {
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

pub(crate) fn file(content: &[u8]) -> IndexRow {
    row(Value::File {
        digest: Digest::of(content),
        size: content.len() as u64,
    })
}

pub(crate) fn put(rows: &[(&[u8], &IndexRow)]) -> Commit {
    Commit {
        index_put: rows.iter().map(|(p, r)| (path(p), (*r).clone())).collect(),
        ..Commit::default()
    }
}

pub(crate) fn generation(number: u64) -> Generation {
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

pub(crate) fn device(n: u8) -> DeviceRow {
    DeviceRow {
        id: [n; 32],
        name: format!("device {n}"),
        addrs: vec![0, 255, n],
        paused: false,
        last_seen_ms: Some(3),
        paired_ms: 1,
    }
}

pub(crate) fn grant(folder: FolderKey, n: u8) -> Grant {
    Grant {
        folder,
        device: [n; 32],
        read_only: true,
        receive_only: false,
    }
}

pub(crate) fn ticket(folder: FolderKey, n: u8) -> TicketRow {
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

/// Everything that can be read of one folder, to compare.
pub(crate) fn all_of(fixture: &Fixture, folder: FolderKey) -> impl PartialEq + std::fmt::Debug + use<> {
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
pub(crate) fn full_commit() -> (Commit, Head) {
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
        chain: Digest::of(b"chain"),
        claims: Claims::default(),
        confirmed: Default::default(),
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
