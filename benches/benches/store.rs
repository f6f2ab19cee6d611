//! The index in the database by itself, on the disk of `TMPDIR`: commits, durable ones, and reads.

use std::path::PathBuf;

use alike_core::digest::Digest;
use alike_core::ids::{Dot, FolderId, ReplicaId};
use alike_core::observe::Mat;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::{Commit, Fingerprint, FolderKey, IndexRow, NewFolder, Replica, Store};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const FILES: u64 = 100_000;

fn path(number: u64) -> RelPath {
    let path = format!("directory-{:03}/file-{number:06}.txt", number / 1_000);
    RelPath::parse(path.as_bytes()).expect("a good path")
}

fn row(number: u64) -> IndexRow {
    IndexRow {
        mat: Mat {
            value: Value::File {
                digest: Digest::of(&number.to_le_bytes()),
                size: 5_000,
            },
            exec: false,
            dots: vec![Dot {
                replica: ReplicaId(1),
                seq: number + 1,
            }],
        },
        fingerprint: Some(Fingerprint {
            ino: number,
            size: 5_000,
            mtime_ns: 1_700_000_000_000_000_000,
            ctime_ns: 1_700_000_000_000_000_000,
            mode: 0o100_644,
        }),
        racy: false,
    }
}

fn rows(numbers: impl Iterator<Item = u64>) -> Commit {
    Commit {
        index_put: numbers.map(|n| (path(n), row(n))).collect(),
        ..Commit::default()
    }
}

/// A store with a folder that has so many files.
fn store(files: u64) -> (tempfile::TempDir, Store, FolderKey) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("state")).expect("a new store");
    let folder = NewFolder {
        id: FolderId([1; 16]),
        name: "bench".to_owned(),
        path: PathBuf::from("/bench"),
        replica: Replica {
            id: ReplicaId(1),
            nonce: [1; 16],
        },
        marker: [1; 16],
        root_dev: 1,
        root_ino: 1,
        created_ms: 1,
    };
    let folder = store.add_folder(folder).expect("the first folder").key;
    store.commit(folder, rows(0..files)).expect("a disk that works");
    (dir, store, folder)
}

fn commits(c: &mut Criterion) {
    let (_dir, store, folder) = store(FILES);
    for count in [1, 1_000] {
        c.bench_function(&format!("index, commit {count} of 100,000 rows"), |b| {
            b.iter_batched(
                || rows((0..count).map(|n| n * 97 % FILES)),
                |commit| store.commit(folder, commit).expect("a disk that works"),
                BatchSize::LargeInput,
            )
        });
    }
}

fn first(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.sample_size(10);
    group.bench_function("commit 100,000 rows into nothing", |b| {
        b.iter_batched(
            || (self::store(0), rows(0..FILES)),
            |((dir, store, folder), commit)| {
                store.commit(folder, commit).expect("a disk that works");
                (dir, store)
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    let (_dir, store, folder) = store(FILES);
    let snapshot = store.snapshot().expect("a disk that works");
    let mut number = 0;
    c.bench_function("index, read one row", |b| {
        b.iter(|| {
            number = (number + 7_919) % FILES;
            snapshot.index(folder, &path(number)).expect("a disk that works")
        })
    });
    let dir = RelPath::parse(b"directory-007").expect("a good path");
    c.bench_function("index, read a directory of 1,000", |b| {
        b.iter(|| snapshot.index_dir(folder, &dir).expect("a disk that works"))
    });
    c.bench_function("index, read all 100,000", |b| {
        b.iter(|| {
            snapshot
                .index_below(folder, &RelPath::root())
                .expect("a disk that works")
        })
    });
}

criterion_group!(benches, commits, first, reads);
criterion_main!(benches);
