//! Level 2 of the model: devices with HEAD, MAT and DISK, whose users edit, whose scans and applies are cut by
//! crashes, which pair late and disagree about the year. It drives `observe`, `plan`, `view`, `edit` and
//! `merge` as the engine does, and checks what users would miss: bytes, deletions, and quiet without reason.

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use alike_core::digest::Digest;
use alike_core::ids::{Dot, Hlc};
use alike_core::observe::{Mat, Meaning, Seen, observe};
use alike_core::path::RelPath;
use alike_core::plan::{Op, plan};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::view::Shown;
use common::{Batch, Replica, Rng, above, file, link, path, run_seeds};

const NAMES: [&str; 8] = ["a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "a/q"];
const YEAR: u64 = 365 * 24 * 3600 * 1000;
const NOW: u64 = 56 * YEAR;

/// What lies at a path of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    value: Value,
    exec: bool,
    mtime: u64,
}

impl Node {
    fn seen(&self) -> Seen {
        Seen {
            value: self.value.clone(),
            exec: self.exec,
        }
    }
}

type Look = BTreeMap<RelPath, Shown>;

/// Where an apply is cut by a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    /// The intent is committed, nothing else happened.
    BeforeDisk,
    /// What was there is gone, what should come is not there.
    Between,
    /// The disk is done, MAT is not committed.
    AfterDisk,
}

/// All that ever happened, over all devices.
#[derive(Default)]
struct Log {
    made: BTreeMap<Dot, (RelPath, Record)>,
    killed: BTreeSet<Dot>,
    /// For each write of a home, the writes of it that its user had before.
    past: HashMap<Dot, BTreeSet<Dot>>,
    /// Contents ever written, and those that a user overwrote or deleted having them on disk.
    written: BTreeMap<Vec<u8>, String>,
    gone: BTreeSet<Vec<u8>>,
    contents: Vec<String>,
    /// Paths where a crash left in doubt which version a user overwrote.
    doubtful: BTreeSet<RelPath>,
}

impl Log {
    fn past_of(&self, dots: &[Dot]) -> BTreeSet<Dot> {
        dots.iter().flat_map(|d| self.past[d].iter().copied()).collect()
    }
}

struct Device {
    head: Replica,
    disk: BTreeMap<RelPath, Node>,
    mat: BTreeMap<RelPath, Mat>,
    /// What an unfinished apply meant to put there.
    intents: BTreeMap<RelPath, Option<Mat>>,
    /// The writes whose effect has been on this disk, by path.
    known: BTreeMap<RelPath, BTreeSet<Dot>>,
    scanned: bool,
    paired: bool,
    /// Does its scan make a record for every new directory, or for empty ones only?
    explicit_dirs: bool,
    /// What HEAD shows, by its root: computed once.
    looks: RefCell<(Option<Digest>, Rc<Look>)>,
}

impl Device {
    fn shown(&self) -> Rc<Look> {
        let root = self.head.state.root;
        if self.looks.borrow().0 != root {
            *self.looks.borrow_mut() = (root, Rc::new(self.head.shown()));
        }
        self.looks.borrow().1.clone()
    }

    fn is_dir(&self, at: &RelPath) -> bool {
        at.is_root() || self.disk.get(at).is_some_and(|n| n.value == Value::Dir)
    }

    fn holds_something(&self, dir: &RelPath) -> bool {
        self.disk.keys().any(|p| p != dir && p.is_within(dir))
    }

    fn remember(&mut self, at: &RelPath, dots: &[Dot], log: &Log) {
        self.known
            .entry(at.clone())
            .or_default()
            .extend(log.past_of(dots));
    }

    fn commit(&mut self, batch: &Batch, log: &mut Log) {
        let live = self.head.records();
        for (_, dot) in &batch.kill {
            if live.contains_key(dot) {
                log.killed.insert(*dot);
            }
        }
        for (at, record) in &batch.add {
            // What is dead here was seen by whoever writes here.
            let dead: Vec<Dot> = log
                .made
                .iter()
                .filter(|(dot, (home, _))| {
                    home == at && self.head.state.vector.covers(**dot) && !live.contains_key(dot)
                })
                .map(|(dot, _)| *dot)
                .collect();
            let known = self.known.entry(at.clone()).or_default();
            known.extend(dead);
            known.insert(record.dot);
            log.past.insert(record.dot, known.clone());
            log.made.insert(record.dot, (at.clone(), record.clone()));
        }
        self.head.apply(batch);
    }

    /// After a crash: what the apply meant to do has happened, or not, or nobody knows.
    fn recover(&mut self, log: &mut Log) {
        for (at, want) in std::mem::take(&mut self.intents) {
            let seen = self.disk.get(&at).map(Node::seen);
            let is = |mat: Option<&Mat>| {
                seen.as_ref().map(|s| (&s.value, s.exec)) == mat.map(|m| (&m.value, m.exec))
            };
            if is(self.mat.get(&at)) {
                continue;
            }
            if is(want.as_ref()) {
                match want {
                    Some(want) => {
                        self.remember(&at, &want.dots, log);
                        self.mat.insert(at, want);
                    }
                    None => {
                        self.mat.remove(&at);
                    }
                }
                continue;
            }
            // In doubt: never count it as superseding or deleting the old version.
            if seen.is_some() {
                log.doubtful.insert(at.clone());
            }
            self.mat.remove(&at);
        }
    }

    fn scan(&mut self, log: &mut Log) {
        self.recover(log);
        let imported = !self.scanned;
        self.scanned = true;
        let shown = self.shown();
        let mut batch = Batch::default();
        let mut deleted = Vec::new();
        let paths: BTreeSet<RelPath> = self.disk.keys().chain(self.mat.keys()).cloned().collect();
        for at in paths {
            let node = self.disk.get(&at).cloned();
            let seen = node.as_ref().map(Node::seen);
            let mat = self.mat.get(&at).cloned();
            let head = shown.get(&at);
            let lives = mat
                .as_ref()
                .is_some_and(|m| shown.values().any(|s| s.dots.iter().any(|d| m.dots.contains(d))));
            match observe(seen.as_ref(), mat.as_ref(), head, lives) {
                Meaning::Nothing => {}
                Meaning::Adopt => {
                    let head = head.expect("there is something to adopt");
                    self.remember(&at, &head.dots, log);
                    self.mat.insert(at, materialised(head));
                }
                Meaning::Exec => {
                    let head = head.filter(|h| h.exec.is_some());
                    if let Some(head) = head {
                        let (dot, hlc) = (self.head.dot(), self.head.tick());
                        let on = seen.as_ref().expect("it is there").exec;
                        let mark = ExecMark { hlc, dot, on };
                        batch
                            .exec
                            .extend(head.dots.iter().map(|&d| (at.clone(), d, mark)));
                    }
                    self.mat.get_mut(&at).expect("it was there").exec = seen.expect("it is there").exec;
                }
                Meaning::Delete => {
                    let old = mat.expect("it was there").dots;
                    batch.kill.extend(old.into_iter().map(|d| (at.clone(), d)));
                    self.head.dot();
                    self.mat.remove(&at);
                    deleted.push(at);
                }
                Meaning::Forget => {
                    self.mat.remove(&at);
                    deleted.push(at);
                }
                Meaning::Write => {
                    let node = node.expect("it is there");
                    let old = mat.iter().flat_map(|m| m.dots.clone());
                    batch.kill.extend(old.map(|d| (at.clone(), d)));
                    let implied =
                        node.value == Value::Dir && !self.explicit_dirs && self.holds_something(&at);
                    let dots = if implied {
                        self.head.dot();
                        Vec::new()
                    } else {
                        let record = self.record(&node, mat.as_ref(), head, imported);
                        let dot = record.dot;
                        batch.add.push((at.clone(), record));
                        vec![dot]
                    };
                    let (value, exec) = (node.value, node.exec);
                    self.mat.insert(at, Mat { value, exec, dots });
                }
            }
        }
        self.commit(&batch, log);
        self.keep_emptied_dirs(&deleted, log);
    }

    fn record(&mut self, node: &Node, mat: Option<&Mat>, head: Option<&Shown>, imported: bool) -> Record {
        let dot = self.head.dot();
        let hlc = if imported {
            Hlc::from_millis(node.mtime.min(self.head.now))
        } else {
            self.head.tick()
        };
        self.head.seen = self.head.seen.max(hlc);
        let is_file = matches!(node.value, Value::File { .. });
        let own = ExecMark {
            hlc,
            dot,
            on: node.exec,
        };
        let changed = mat.is_none_or(|m| m.exec != node.exec);
        let kept = head.and_then(|h| h.exec).filter(|_| !changed);
        Record {
            dot,
            hlc,
            value: node.value.clone(),
            exec: is_file.then(|| kept.unwrap_or(own)),
            mtime: if node.value == Value::Dir {
                0
            } else {
                node.mtime as i64 * 1_000_000
            },
            prev: mat.and_then(|m| m.value.key()),
            relocated: false,
            imported,
        }
    }

    /// A directory whose last member a user deleted, but not itself, is a directory by a record of its own now.
    fn keep_emptied_dirs(&mut self, deleted: &[RelPath], log: &mut Log) {
        let dirs: BTreeSet<RelPath> = deleted.iter().filter_map(RelPath::parent).collect();
        for dir in dirs {
            if dir.is_root() || !self.is_dir(&dir) || self.shown().contains_key(&dir) {
                continue;
            }
            let node = self.disk[&dir].clone();
            let record = self.record(&node, None, None, false);
            let dots = vec![record.dot];
            let batch = Batch {
                add: vec![(dir.clone(), record)],
                ..Batch::default()
            };
            self.commit(&batch, log);
            let (value, exec) = (Value::Dir, false);
            if self.mat.contains_key(&dir) {
                self.mat.insert(dir, Mat { value, exec, dots });
            }
        }
    }

    fn apply_one(&mut self, at: &RelPath, crash: Crash, log: &Log) {
        if self.intents.contains_key(at) {
            return;
        }
        let (disk, mat) = (self.disk.get(at), self.mat.get(at));
        if disk.map(|n| (&n.value, n.exec)) != mat.map(|m| (&m.value, m.exec)) {
            return;
        }
        let shown = self.shown();
        let head = shown.get(at);
        let op = plan(head, mat);
        let room = at.parent().is_none_or(|dir| self.is_dir(&dir));
        let (removes, makes) = match op {
            Op::Nothing => return,
            Op::Adopt => {
                let head = head.expect("there is something to adopt");
                self.remember(at, &head.dots, log);
                self.mat.insert(at.clone(), materialised(head));
                return;
            }
            Op::Mkdir | Op::Create => (false, true),
            Op::Replace | Op::SetExec => (false, true),
            Op::Remove | Op::Rmdir => (true, false),
            Op::RemoveThenMkdir | Op::RmdirThenCreate => (true, true),
        };
        if (makes && !room) || (matches!(op, Op::Rmdir | Op::RmdirThenCreate) && self.holds_something(at)) {
            return;
        }
        if op == Op::Replace {
            let dirs = [mat.map(|m| &m.value), head.map(|h| &h.value)];
            assert!(
                !dirs.contains(&Some(&Value::Dir)),
                "no directory is replaced in one move: {at}"
            );
        }
        let want = head.map(materialised);
        if crash != Crash::Never {
            self.intents.insert(at.clone(), want.clone());
        }
        if crash == Crash::BeforeDisk {
            return;
        }
        if removes {
            self.disk.remove(at).expect("the plan expects it");
        }
        if crash == Crash::Between && removes {
            return;
        }
        if makes {
            let head = head.expect("something is to be made");
            let mtime = (head.mtime / 1_000_000) as u64;
            let (value, exec) = (head.value.clone(), head.is_exec());
            self.disk.insert(at.clone(), Node { value, exec, mtime });
        }
        if crash != Crash::Never {
            return;
        }
        match want {
            Some(want) => {
                self.remember(at, &want.dots, log);
                self.mat.insert(at.clone(), want);
            }
            None => {
                self.mat.remove(at);
            }
        }
    }

    fn work(&self) -> BTreeSet<RelPath> {
        self.shown()
            .keys()
            .cloned()
            .chain(self.mat.keys().cloned())
            .collect()
    }
}

fn materialised(head: &Shown) -> Mat {
    Mat {
        value: head.value.clone(),
        exec: head.is_exec(),
        dots: head.dots.clone(),
    }
}

/// Names content in the books: digests for files, targets for links.
fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    value.key().map(|key| key.0.to_vec())
}

struct World {
    rng: Rng,
    devices: Vec<Device>,
    log: Log,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.range(2, 4);
        let late = rng.percent(50);
        let mut devices = Vec::new();
        for i in 0..count {
            let skew = rng.pick(&[0, 0, 1000, YEAR, 5 * YEAR]);
            let now = if rng.percent(50) { NOW + skew } else { NOW - skew };
            devices.push(Device {
                head: Replica::new(rng.next(), now),
                disk: BTreeMap::new(),
                mat: BTreeMap::new(),
                intents: BTreeMap::new(),
                known: BTreeMap::new(),
                scanned: false,
                paired: i == 0 || !late,
                explicit_dirs: rng.percent(50),
                looks: RefCell::default(),
            });
        }
        let mut world = World {
            rng,
            devices,
            log: Log::default(),
        };
        let same: Vec<Value> = (0..4).map(|_| world.content()).collect();
        for i in 0..count {
            if world.rng.percent(30) {
                continue;
            }
            for (k, at) in ["a", "b", "d/x", "d/e/z"].iter().enumerate() {
                if world.rng.percent(50) {
                    let value = if world.rng.percent(60) {
                        same[k].clone()
                    } else {
                        world.content()
                    };
                    world.put(i, &path(at), value);
                }
            }
            if world.rng.percent(20) {
                world.mkdir(i, &path("n"));
            }
        }
        world
    }

    fn content(&mut self) -> Value {
        let name = if !self.log.contents.is_empty() && self.rng.percent(12) {
            self.rng.pick(&self.log.contents)
        } else {
            let name = format!("content {}", self.log.contents.len());
            self.log.contents.push(name.clone());
            name
        };
        if self.rng.percent(8) {
            link(&name)
        } else {
            file(&name)
        }
    }

    /// A user overwrites or deletes what is at a path, or below it.
    fn displace(&mut self, i: usize, at: &RelPath) {
        let disk = &mut self.devices[i].disk;
        let within: Vec<RelPath> = disk.keys().filter(|p| p.is_within(at)).cloned().collect();
        for path in within {
            let node = disk.remove(&path).expect("listed");
            self.log.gone.extend(bytes_of(&node.value));
        }
    }

    fn mkdir(&mut self, i: usize, at: &RelPath) {
        let mtime = self.devices[i].head.now;
        for dir in above(at).into_iter().chain([at.clone()]) {
            if !self.devices[i].is_dir(&dir) {
                self.displace(i, &dir);
                let node = Node {
                    value: Value::Dir,
                    exec: false,
                    mtime,
                };
                self.devices[i].disk.insert(dir, node);
            }
        }
    }

    fn put(&mut self, i: usize, at: &RelPath, value: Value) {
        if let Some(dir) = at.parent().filter(|d| !d.is_root()) {
            self.mkdir(i, &dir);
        }
        let old = self.devices[i].disk.get(at).is_some_and(|n| n.exec);
        let is_file = matches!(value, Value::File { .. });
        let exec = is_file && (old != self.rng.percent(15));
        self.displace(i, at);
        if let Some(bytes) = bytes_of(&value) {
            self.log.written.insert(bytes, format!("{value:?} at {at}"));
        }
        let mtime = match self.devices[i].scanned {
            true => self.devices[i].head.now,
            false => self.rng.pick(&[NOW - 20 * YEAR, NOW - YEAR, NOW + 30 * YEAR]),
        };
        self.devices[i]
            .disk
            .insert(at.clone(), Node { value, exec, mtime });
    }

    /// Would a write here turn a file into a directory or back?
    fn is_swap(&self, i: usize, at: &RelPath) -> bool {
        let disk = &self.devices[i].disk;
        disk.get(at).is_some_and(|n| n.value == Value::Dir)
            || above(at)
                .iter()
                .any(|d| disk.get(d).is_some_and(|n| n.value != Value::Dir))
    }

    fn user(&mut self, i: usize) {
        let paths: Vec<RelPath> = self.devices[i].disk.keys().cloned().collect();
        let any = |rng: &mut Rng| match rng.percent(40) && !paths.is_empty() {
            true => rng.pick(&paths),
            false => path(rng.pick(&NAMES)),
        };
        match self.rng.below(100) {
            0..45 => {
                let at = any(&mut self.rng);
                if !self.is_swap(i, &at) || self.rng.percent(25) {
                    let value = self.content();
                    self.put(i, &at, value);
                }
            }
            45..52 => {
                let at = path(self.rng.pick(&["d", "d/e", "a", "n", "n/m"]));
                if !self.devices[i].disk.contains_key(&at) && !self.is_swap(i, &at) || self.rng.percent(25) {
                    self.mkdir(i, &at);
                }
            }
            52..72 if !paths.is_empty() => {
                let at = self.rng.pick(&paths);
                self.displace(i, &at);
            }
            72..88 if !paths.is_empty() => {
                let (from, to) = (self.rng.pick(&paths), any(&mut self.rng));
                self.rename(i, &from, &to);
            }
            _ => {
                let disk = &mut self.devices[i].disk;
                let is_file = |n: &Node| matches!(n.value, Value::File { .. });
                let files: Vec<RelPath> = disk
                    .iter()
                    .filter(|(_, n)| is_file(n))
                    .map(|(p, _)| p.clone())
                    .collect();
                if !files.is_empty() {
                    let node = disk.get_mut(&self.rng.pick(&files)).expect("listed");
                    node.exec = !node.exec;
                }
            }
        }
    }

    fn rename(&mut self, i: usize, from: &RelPath, to: &RelPath) {
        if from.is_within(to) || to.is_within(from) || self.is_swap(i, to) {
            return;
        }
        let moving: Vec<RelPath> = self.devices[i]
            .disk
            .keys()
            .filter(|p| p.is_within(from))
            .cloned()
            .collect();
        if let Some(dir) = to.parent().filter(|d| !d.is_root()) {
            self.mkdir(i, &dir);
        }
        self.displace(i, to);
        let disk = &mut self.devices[i].disk;
        for old in moving {
            let node = disk.remove(&old).expect("listed");
            let rest = &old.as_bytes()[from.as_bytes().len()..];
            let new = RelPath::parse(&[to.as_bytes(), rest].concat()).expect("short");
            disk.insert(new, node);
        }
    }

    fn pull(&mut self, i: usize, j: usize) {
        if i == j || !self.devices[i].paired || !self.devices[j].paired {
            return;
        }
        let theirs = self.devices[j].head.clone();
        self.devices[i].head.pull(&theirs);
    }

    fn step(&mut self) {
        let i = self.rng.below(self.devices.len());
        let j = self.rng.below(self.devices.len());
        self.devices[i].head.now += self.rng.below(1000) as u64;
        match self.rng.below(100) {
            0..40 => self.user(i),
            40..58 => self.devices[i].scan(&mut self.log),
            58..76 => self.pull(i, j),
            76..78 => self.devices[i].paired = true,
            _ => {
                let work: Vec<RelPath> = self.devices[i].work().into_iter().collect();
                if work.is_empty() {
                    return;
                }
                for _ in 0..self.rng.range(1, 4) {
                    let at = self.rng.pick(&work);
                    let crash = match self.rng.below(40) {
                        0 => Crash::BeforeDisk,
                        1 => Crash::Between,
                        2..5 => Crash::AfterDisk,
                        _ => Crash::Never,
                    };
                    self.devices[i].apply_one(&at, crash, &self.log);
                }
            }
        }
    }

    fn settle(&mut self) {
        for device in &mut self.devices {
            device.paired = true;
        }
        for _ in 0..80 {
            let mut quiet = true;
            for i in 0..self.devices.len() {
                let device = &self.devices[i];
                let before = (device.head.state.clone(), device.disk.clone(), device.mat.clone());
                self.devices[i].scan(&mut self.log);
                for j in 0..self.devices.len() {
                    self.pull(i, j);
                }
                for _ in 0..4 {
                    for at in self.devices[i].work() {
                        self.devices[i].apply_one(&at, Crash::Never, &self.log);
                    }
                }
                let device = &self.devices[i];
                quiet &= before == (device.head.state.clone(), device.disk.clone(), device.mat.clone());
            }
            if quiet {
                return;
            }
        }
        panic!("no quiescence");
    }

    fn check(&self) {
        let first = &self.devices[0].head;
        let view = first.shown();
        for device in &self.devices {
            assert_eq!(device.head.state, first.state, "all heads are equal");
            assert_eq!(device.head.shown(), view);
            let disk: BTreeMap<&RelPath, (&Value, bool)> =
                device.disk.iter().map(|(p, n)| (p, (&n.value, n.exec))).collect();
            let wanted: BTreeMap<&RelPath, (&Value, bool)> =
                view.iter().map(|(p, s)| (p, (&s.value, s.is_exec()))).collect();
            assert_eq!(disk, wanted, "every disk shows what HEAD shows");
            let mat: BTreeMap<RelPath, Mat> =
                view.iter().map(|(p, s)| (p.clone(), materialised(s))).collect();
            assert_eq!(device.mat, mat, "MAT is HEAD");
            assert!(device.intents.is_empty());
        }
        let records = first.records();
        self.check_bytes(&view);
        self.check_records(&records);
        self.check_conflicts(&records);
    }

    fn check_bytes(&self, view: &BTreeMap<RelPath, Shown>) {
        let there: BTreeSet<Vec<u8>> = view.values().filter_map(|s| bytes_of(&s.value)).collect();
        for (bytes, what) in &self.log.written {
            assert!(
                there.contains(bytes) || self.log.gone.contains(bytes),
                "bytes lost: {what}"
            );
        }
    }

    fn check_records(&self, records: &BTreeMap<Dot, (RelPath, Record)>) {
        for (dot, (home, old)) in &self.log.made {
            if records.contains_key(dot) {
                assert!(!self.log.killed.contains(dot), "resurrected: {dot:?} at {home}");
                continue;
            }
            let edited = |(at, new): &(RelPath, Record)| {
                at == home && new.prev == old.value.key() && new.age_key() > old.age_key()
            };
            let dominated = old.imported && self.log.made.values().any(edited);
            assert!(
                self.log.killed.contains(dot) || dominated,
                "lost: {dot:?} at {home}"
            );
        }
    }

    /// Where no two writes of a home were concurrent, nothing has been relocated.
    fn check_conflicts(&self, records: &BTreeMap<Dot, (RelPath, Record)>) {
        let past = |dot: &Dot| &self.log.past[dot];
        for (dot, (home, _)) in records.iter().filter(|(_, (_, r))| r.relocated) {
            let doubt = |p: &RelPath| p.is_within(home) || home.is_within(p);
            if self.log.doubtful.iter().any(doubt) {
                continue;
            }
            let concurrent = |(other, (at, _)): (&Dot, &(RelPath, Record))| {
                at.is_within(home)
                    && !past(dot).contains(other)
                    && !past(other).contains(dot)
                    && (at == home || !self.device_knew(dot, other))
            };
            assert!(
                self.log.made.iter().any(concurrent),
                "a conflict out of nothing: {dot:?} at {home}"
            );
        }
    }

    /// Two writes of one device are never concurrent.
    fn device_knew(&self, one: &Dot, other: &Dot) -> bool {
        one.replica == other.replica
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.rng.range(6, 60) {
        world.step();
    }
    world.settle();
    world.check();
}

#[test]
fn devices_converge_on_disk_lose_nothing_and_quarrel_only_with_reason() {
    run_seeds("disk model", 1500, history);
}
