//! One device of the disk model: its scans and applies as the engine makes them, and the crashes that cut them.
//! Never edits as a user does, and asserts only what holds in every step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use alike_core::digest::Digest;
use alike_core::ids::{Dot, Hlc};
use alike_core::observe::{Mat, Meaning, Seen, observe};
use alike_core::path::RelPath;
use alike_core::plan::{Op, plan};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::view::Shown;

use crate::common::{Batch, Replica};
use crate::log::Log;

/// What lies at a path of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) exec: bool,
    pub(crate) mtime: u64,
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
pub(crate) enum Crash {
    Never,
    /// The intent is committed, nothing else happened.
    BeforeDisk,
    /// What was there is gone, what should come is not there.
    Between,
    /// The disk is done, MAT is not committed.
    AfterDisk,
}

pub(crate) struct Device {
    pub(crate) head: Replica,
    pub(crate) disk: BTreeMap<RelPath, Node>,
    pub(crate) mat: BTreeMap<RelPath, Mat>,
    /// What an unfinished apply meant to put there.
    pub(crate) intents: BTreeMap<RelPath, Option<Mat>>,
    /// The writes whose effect has been on this disk, by path.
    pub(crate) known: BTreeMap<RelPath, BTreeSet<Dot>>,
    pub(crate) scanned: bool,
    pub(crate) paired: bool,
    /// Does its scan make a record for every new directory, or for empty ones only?
    pub(crate) explicit_dirs: bool,
    /// What HEAD shows, by its root: computed once.
    pub(crate) looks: RefCell<(Option<Digest>, Rc<Look>)>,
}

impl Device {
    fn shown(&self) -> Rc<Look> {
        let root = self.head.state.root;
        if self.looks.borrow().0 != root {
            *self.looks.borrow_mut() = (root, Rc::new(self.head.shown()));
        }
        self.looks.borrow().1.clone()
    }

    pub(crate) fn is_dir(&self, at: &RelPath) -> bool {
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

    pub(crate) fn scan(&mut self, log: &mut Log) {
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

    pub(crate) fn apply_one(&mut self, at: &RelPath, crash: Crash, log: &Log) {
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

    pub(crate) fn work(&self) -> BTreeSet<RelPath> {
        self.shown()
            .keys()
            .cloned()
            .chain(self.mat.keys().cloned())
            .collect()
    }
}

pub(crate) fn materialised(head: &Shown) -> Mat {
    Mat {
        value: head.value.clone(),
        exec: head.is_exec(),
        dots: head.dots.clone(),
    }
}
