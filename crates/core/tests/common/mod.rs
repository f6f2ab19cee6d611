//! What the tests of `core` share: a seeded generator, and replicas in memory with the writes a user can make.
//! Never asserts anything about the model; the tests do.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod oracle;
pub(crate) mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::ids::{Dot, Hlc, ReplicaId};
use alike_core::merge::{Merged, merge};
use alike_core::path::{Name, RelPath};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::state::{State, StateEntry, read_dir};
use alike_core::tree::{self, Node, Nodes, NodesError, Overlay};
use alike_core::view::{Change, NewContent, Shown, Summaries, Summary, summarize, view};

/// SplitMix64: one seed, one history.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// Runs `history` for every seed on two threads; a failure names its seed. `ALIKE_CASES` changes how many,
/// `ALIKE_SEED` runs one seed alone.
pub(crate) fn run_seeds(test: &str, cases: u64, history: impl Fn(u64) + Sync) {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    let one = |seed: u64| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| history(seed))) {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            resume_unwind(Box::new(format!("{test} fails with ALIKE_SEED={seed}: {text}")));
        }
    };
    if let Some(seed) = number("ALIKE_SEED") {
        return history(seed);
    }
    let cases = number("ALIKE_CASES").unwrap_or(cases);
    let failed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|t| scope.spawn(move || (t..cases).step_by(2).for_each(one)))
            .collect();
        let ends: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        ends.into_iter().find_map(Result::err)
    });
    if let Some(panic) = failed {
        match panic.downcast::<String>() {
            Ok(text) => panic!("{text}"),
            Err(other) => resume_unwind(other),
        }
    }
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("test paths are good")
}

pub(crate) fn text(path: &RelPath) -> String {
    String::from_utf8(path.as_bytes().to_vec()).expect("test paths are text")
}

/// All directories above, outermost first, without the root.
pub(crate) fn above(path: &RelPath) -> Vec<RelPath> {
    let mut out = Vec::new();
    let mut at = path.parent();
    while let Some(dir) = at.filter(|d| !d.is_root()) {
        at = dir.parent();
        out.push(dir);
    }
    out.reverse();
    out
}

/// The content named by a short text.
pub(crate) fn file(content: &str) -> Value {
    Value::File {
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
    }
}

pub(crate) fn link(target: &str) -> Value {
    Value::Symlink {
        target: target.as_bytes().into(),
    }
}

pub(crate) type Mem = HashMap<Digest, Arc<[u8]>>;

/// Nothing is known already.
pub(crate) struct NoSummaries;

impl Summaries for NoSummaries {
    fn summary(&self, _: &Digest) -> Result<Option<Summary>, NodesError> {
        Ok(None)
    }
}

/// Every name that is shown, with its path.
pub(crate) fn shown(nodes: &dyn Nodes, root: Option<Digest>) -> BTreeMap<RelPath, Shown> {
    fn walk(nodes: &dyn Nodes, dir: Option<Digest>, at: &RelPath, out: &mut BTreeMap<RelPath, Shown>) {
        for item in view(&read_dir(nodes, dir).expect("own trees are readable")) {
            let path = at.join(&item.name);
            walk(nodes, item.child, &path, out);
            assert!(out.insert(path, item).is_none(), "one thing a path");
        }
    }
    let mut out = BTreeMap::new();
    walk(nodes, root, &RelPath::root(), &mut out);
    out
}

/// Every live record, with its home path.
pub(crate) fn records(nodes: &dyn Nodes, root: Option<Digest>) -> BTreeMap<Dot, (RelPath, Record)> {
    fn walk(
        nodes: &dyn Nodes,
        dir: Option<Digest>,
        at: &RelPath,
        out: &mut BTreeMap<Dot, (RelPath, Record)>,
    ) {
        for entry in read_dir(nodes, dir).expect("own trees are readable") {
            let path = at.join(&entry.name);
            assert!(
                entry.child.is_some() || !entry.records.is_empty(),
                "no name without anything"
            );
            walk(nodes, entry.child, &path, out);
            for record in entry.records {
                assert!(
                    out.insert(record.dot, (path.clone(), record)).is_none(),
                    "one home a dot"
                );
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(nodes, root, &RelPath::root(), &mut out);
    out
}

/// One local event: what goes, what comes, which exec bits are set. Directories are those of the paths.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    pub(crate) kill: Vec<(RelPath, Dot)>,
    pub(crate) add: Vec<(RelPath, Record)>,
    pub(crate) exec: Vec<(RelPath, Dot, ExecMark)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.kill.is_empty() && self.add.is_empty() && self.exec.is_empty()
    }

    pub(crate) fn edits(&self) -> Edits {
        let parts = |path: &RelPath| path.split().expect("not the root");
        let mut edits = Edits::default();
        for (path, dot) in &self.kill {
            let (dir, name) = parts(path);
            edits.dir(&dir).kill(&name, [*dot]);
        }
        for (path, record) in &self.add {
            let (dir, name) = parts(path);
            edits.dir(&dir).add.push((name, record.clone()));
        }
        for (path, dot, mark) in &self.exec {
            let (dir, name) = parts(path);
            edits.dir(&dir).mark(&name, [*dot], *mark);
        }
        edits
    }
}

/// One replica: a state over nodes of its own, a clock, and what was seen of clocks.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) state: State,
    pub(crate) nodes: Mem,
    pub(crate) seen: Hlc,
    pub(crate) now: u64,
}

impl Replica {
    pub(crate) fn new(id: u64, now: u64) -> Self {
        Replica {
            id: ReplicaId(id),
            seq: 0,
            state: State::default(),
            nodes: Mem::new(),
            seen: Hlc::default(),
            now,
        }
    }

    pub(crate) fn dot(&mut self) -> Dot {
        self.seq += 1;
        self.state.vector.advance(self.id, self.seq);
        Dot {
            replica: self.id,
            seq: self.seq,
        }
    }

    pub(crate) fn tick(&mut self) -> Hlc {
        self.seen = self.seen.next(self.now);
        self.seen
    }

    pub(crate) fn shown(&self) -> BTreeMap<RelPath, Shown> {
        shown(&self.nodes, self.state.root)
    }

    pub(crate) fn records(&self) -> BTreeMap<Dot, (RelPath, Record)> {
        records(&self.nodes, self.state.root)
    }

    pub(crate) fn summary(&self) -> Summary {
        summarize(
            &Overlay::new(&self.nodes),
            &NoSummaries,
            self.state.root,
            &mut NewContent::default(),
        )
        .expect("own trees are readable")
    }

    /// Applies a batch; returns what `edit` says has changed.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Vec<Change> {
        let mut overlay = Overlay::new(&self.nodes);
        let (root, changes) =
            edit::apply(&mut overlay, self.state.root, batch.edits()).expect("own trees are readable");
        let new = overlay.new;
        self.nodes.extend(new);
        self.state.root = root;
        changes
    }

    /// Copies what is missing here of the other's state tree.
    pub(crate) fn fetch(&mut self, other: &Replica) {
        let mut todo: Vec<Digest> = other.state.root.into_iter().collect();
        while let Some(digest) = todo.pop() {
            if self.nodes.contains_key(&digest) {
                continue;
            }
            let bytes = other.nodes[&digest].clone();
            match tree::decode::<StateEntry>(&bytes).expect("own nodes decode") {
                Node::Leaf(entries) => todo.extend(entries.iter().filter_map(|e| e.child)),
                Node::Inner(_, children) => todo.extend(children.iter().map(|c| c.1)),
            }
            self.nodes.insert(digest, bytes);
        }
    }

    /// The merge of two states whose nodes are all here, without committing it.
    pub(crate) fn merged(&mut self, ours: &State, theirs: &State) -> Merged {
        let mut overlay = Overlay::new(&self.nodes);
        let merged = merge(&mut overlay, ours, theirs).expect("fetched trees are readable");
        let new = overlay.new;
        self.nodes.extend(new);
        merged
    }

    /// Fetches and merges.
    pub(crate) fn pull(&mut self, other: &Replica) -> Vec<Change> {
        self.fetch(other);
        let ours = self.state.clone();
        let merged = self.merged(&ours, &other.state);
        self.state = merged.state;
        self.seen = self.seen.max(merged.newest);
        merged.changes
    }

    /// A write of `value` at `at`, over whatever is shown there (also a directory with all it holds, or a file
    /// where a directory is needed). Nothing if that changes nothing.
    pub(crate) fn write(&mut self, at: &RelPath, value: Value, exec: bool) -> Batch {
        let shown = self.shown();
        let mut batch = Batch::default();
        self.plan_write(&shown, at, value, exec, &mut batch);
        batch
    }

    fn plan_write(
        &mut self,
        shown: &BTreeMap<RelPath, Shown>,
        at: &RelPath,
        value: Value,
        exec: bool,
        batch: &mut Batch,
    ) {
        let old = shown.get(at);
        let is_file = matches!(value, Value::File { .. });
        let exec = exec && is_file;
        if old.is_some_and(|o| o.value == value && o.is_exec() == exec) {
            return;
        }
        for dir in above(at) {
            if let Some(file) = shown.get(&dir).filter(|s| s.value != Value::Dir) {
                batch.kill.extend(file.dots.iter().map(|&d| (dir.clone(), d)));
            }
        }
        for (path, item) in shown.iter().filter(|(p, _)| p.is_within(at)) {
            batch.kill.extend(item.dots.iter().map(|&d| (path.clone(), d)));
        }
        let (dot, hlc) = (self.dot(), self.tick());
        let own = ExecMark { hlc, dot, on: exec };
        let kept = old.and_then(|o| o.exec).filter(|mark| mark.on == exec);
        let record = Record {
            dot,
            hlc,
            exec: is_file.then(|| kept.unwrap_or(own)),
            mtime: if value == Value::Dir {
                0
            } else {
                self.now as i64 * 1_000_000
            },
            prev: old.and_then(|o| o.value.key()),
            value,
            relocated: false,
            imported: false,
        };
        batch.add.push((at.clone(), record));
    }

    /// A file of the first scan: nobody's edit.
    pub(crate) fn import(&mut self, at: &RelPath, value: Value, exec: bool, mtime_millis: u64) -> Batch {
        let dot = self.dot();
        let hlc = Hlc::from_millis(mtime_millis.min(self.now));
        self.seen = self.seen.max(hlc);
        let record = Record {
            dot,
            hlc,
            exec: matches!(value, Value::File { .. }).then_some(ExecMark { hlc, dot, on: exec }),
            mtime: if value == Value::Dir {
                0
            } else {
                mtime_millis as i64 * 1_000_000
            },
            value,
            prev: None,
            relocated: false,
            imported: true,
        };
        Batch {
            add: vec![(at.clone(), record)],
            ..Batch::default()
        }
    }

    /// Deletes what is shown at `at`, and everything below.
    pub(crate) fn delete(&mut self, at: &RelPath) -> Batch {
        let mut batch = Batch::default();
        for (path, item) in self.shown().iter().filter(|(p, _)| p.is_within(at)) {
            batch.kill.extend(item.dots.iter().map(|&d| (path.clone(), d)));
        }
        self.dot();
        batch
    }

    /// Moves what is shown at `from`, and everything below, to `to`.
    pub(crate) fn rename(&mut self, from: &RelPath, to: &RelPath) -> Batch {
        let shown = self.shown();
        let mut batch = self.delete(from);
        for (path, item) in shown.iter().filter(|(p, _)| p.is_within(from)) {
            if item.value == Value::Dir && item.dots.is_empty() {
                continue;
            }
            let rest = &path.as_bytes()[from.as_bytes().len()..];
            let at = RelPath::parse(&[to.as_bytes(), rest].concat()).expect("short");
            self.plan_write(&shown, &at, item.value.clone(), item.is_exec(), &mut batch);
        }
        batch
    }

    /// Sets or clears the exec bit.
    pub(crate) fn chmod(&mut self, at: &RelPath, on: bool) -> Batch {
        let item = self.shown().remove(at).expect("chmod of what is there");
        let (dot, hlc) = (self.dot(), self.tick());
        let mark = ExecMark { hlc, dot, on };
        Batch {
            exec: item.dots.iter().map(|&d| (at.clone(), d, mark)).collect(),
            ..Batch::default()
        }
    }
}

/// The name alone.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("test names are good")
}

/// The changes that were reported are exactly the differences of the views.
pub(crate) fn check_changes(
    before: &BTreeMap<RelPath, Shown>,
    after: &BTreeMap<RelPath, Shown>,
    changes: Vec<Change>,
) {
    let bare = |item: Option<&Shown>| {
        item.cloned().map(|mut s| {
            s.child = None;
            s
        })
    };
    let mut told: BTreeMap<RelPath, (Option<Shown>, Option<Shown>)> = BTreeMap::new();
    for change in changes {
        let both = (bare(change.before.as_ref()), bare(change.after.as_ref()));
        assert!(
            told.insert(change.path.clone(), both).is_none(),
            "{} once",
            change.path
        );
    }
    let paths: BTreeSet<&RelPath> = before.keys().chain(after.keys()).collect();
    for at in paths {
        let (old, new) = (before.get(at), after.get(at));
        let same = match (old, new) {
            (Some(a), Some(b)) => a.looks_like(b) && a.dots == b.dots,
            _ => false,
        };
        let told = told.remove(at);
        assert_eq!(told.is_some(), !same, "{at} changed, or not");
        if let Some(told) = told {
            assert_eq!(told, (bare(old), bare(new)), "the change of {at}");
        }
    }
    assert!(told.is_empty(), "changes out of nowhere: {told:?}");
}
