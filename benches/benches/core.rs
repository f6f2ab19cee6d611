//! `core` by itself: hashing, writing and comparing trees, merging. A folder of 100,000 files in 100 directories.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use alike_core::diff::diff;
use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::ids::{Dot, Hlc, ReplicaId, Vector};
use alike_core::merge::merge;
use alike_core::path::{Name, RelPath};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::state::State;
use alike_core::tree::Overlay;
use alike_core::view::{NewContent, Summary, summarize};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const DIRS: usize = 100;
const FILES: usize = 1_000;

type Map = HashMap<Digest, Arc<[u8]>>;

/// Nothing is known yet.
struct Unknown;

impl alike_core::view::Summaries for Unknown {
    fn summary(&self, _: &Digest) -> Result<Option<Summary>, alike_core::tree::NodesError> {
        Ok(None)
    }
}

fn dir(number: usize) -> RelPath {
    RelPath::parse(format!("directory-{number:03}").as_bytes()).expect("a good path")
}

fn file(number: usize) -> Name {
    Name::new(format!("file-{number:06}.txt").as_bytes()).expect("a good name")
}

/// One write of one file.
fn record(replica: u64, seq: u64) -> Record {
    let dot = Dot {
        replica: ReplicaId(replica),
        seq,
    };
    let hlc = Hlc::from_millis(1_700_000_000_000 + seq);
    let value = Value::File {
        digest: Digest::of(&[replica.to_le_bytes(), seq.to_le_bytes()].concat()),
        size: 5_000,
    };
    Record {
        dot,
        hlc,
        value,
        exec: Some(ExecMark { hlc, dot, on: false }),
        mtime: 1_700_000_000_000_000_000,
        prev: None,
        relocated: false,
        imported: false,
    }
}

/// `state` with one write to each of `files` files in each of `dirs` directories, beginning with file `first`.
fn write(
    nodes: &mut Overlay<'_>,
    state: &State,
    replica: u64,
    (dirs, first, files): (usize, usize, usize),
) -> State {
    let mut edits = Edits::default();
    let mut vector = state.vector.clone();
    let mut seq = vector.get(ReplicaId(replica));
    for number in 0..dirs {
        let edit = edits.dir(&dir(number));
        for name in (first..first + files).map(file) {
            seq += 1;
            edit.add.push((name, record(replica, seq)));
        }
    }
    vector.advance(ReplicaId(replica), seq);
    let (root, _) = edit::apply(nodes, state.root, edits).expect("all nodes are there");
    State { root, vector }
}

fn empty() -> State {
    State {
        root: None,
        vector: Vector::default(),
    }
}

/// The folder, and its nodes.
fn folder() -> (State, Map) {
    let base = Map::new();
    let mut nodes = Overlay::new(&base);
    let state = write(&mut nodes, &empty(), 1, (DIRS, 0, FILES));
    (state, nodes.new)
}

fn hashing(c: &mut Criterion) {
    for (name, length) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("16 MiB", 16 << 20)] {
        let bytes = vec![7; length];
        c.bench_function(&format!("hash {name}"), |b| {
            b.iter(|| Digest::of(black_box(&bytes)))
        });
    }
}

fn trees(c: &mut Criterion) {
    let (state, nodes) = folder();
    c.bench_function("edit, 1,000 new files in one directory", |b| {
        b.iter(|| write(&mut Overlay::new(&nodes), &state, 2, (1, FILES, 1_000)))
    });
    c.bench_function("edit, one new file", |b| {
        b.iter(|| write(&mut Overlay::new(&nodes), &state, 2, (1, FILES, 1)))
    });
    let content = |state: &State, nodes: &Map| {
        let mut new = NewContent::default();
        let summary =
            summarize(&Overlay::new(nodes), &Unknown, state.root, &mut new).expect("all nodes are there");
        (summary.root, new.nodes)
    };
    c.bench_function("content tree of 100,000 files", |b| {
        b.iter(|| content(&state, &nodes))
    });
    let mut changed = Overlay::new(&nodes);
    let one = write(&mut changed, &state, 2, (1, FILES, 1));
    let all: Map = nodes
        .iter()
        .chain(&changed.new)
        .map(|(d, n)| (*d, n.clone()))
        .collect();
    let (before, mut contents) = content(&state, &nodes);
    let (after, more) = content(&one, &all);
    contents.extend(more);
    let contents: Map = contents.into_iter().map(|(d, n)| (d, n.into())).collect();
    c.bench_function("diff, one of 100,000 files", |b| {
        b.iter(|| diff(&contents, before, after).expect("all nodes are there"))
    });
    let nothing = content(&empty(), &Map::new());
    let mut contents = contents;
    contents.extend(nothing.1.into_iter().map(|(d, n)| (d, n.into())));
    c.bench_function("diff, all of 100,000 files", |b| {
        b.iter(|| diff(&contents, nothing.0, before).expect("all nodes are there"))
    });
}

fn merging(c: &mut Criterion) {
    let (state, nodes) = folder();
    for (name, what) in [
        ("one new file", (1, FILES, 1)),
        ("1,000 new files in all directories", (DIRS, FILES, 10)),
    ] {
        let mut changed = Overlay::new(&nodes);
        let theirs = write(&mut changed, &state, 2, what);
        let all: Map = nodes
            .iter()
            .chain(&changed.new)
            .map(|(d, n)| (*d, n.clone()))
            .collect();
        c.bench_function(&format!("merge, {name}"), |b| {
            b.iter(|| merge(&mut Overlay::new(&all), &state, &theirs).expect("all nodes are there"))
        });
    }
    c.bench_function("merge, 100,000 new files into nothing", |b| {
        b.iter_batched_ref(
            || Overlay::new(&nodes),
            |overlay| merge(overlay, &empty(), &state).expect("all nodes are there"),
            BatchSize::LargeInput,
        )
    });
}

criterion_group!(benches, hashing, trees, merging);
criterion_main!(benches);
