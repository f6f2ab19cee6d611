//! Level 1 of the model: random histories of replicas that write and merge, on the real core, step by step
//! against a naive port of the reference model, and against what must be true of any history.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use alike_core::conflict::conflict_name;
use alike_core::ids::{Dot, Vector};
use alike_core::path::RelPath;
use alike_core::record::{ExecMark, Record, Value};
use alike_core::view::Shown;
use common::oracle::Oracle;
use common::{Batch, Replica, Rng, above, check_changes, file, link, path, records, run_seeds, shown};

const NAMES: [&str; 10] = [
    "a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "a/q", "b.txt", "d/e/f/g",
];
const YEAR: u64 = 365 * 24 * 3600 * 1000;
const NOW: u64 = 56 * YEAR;

/// All that ever happened.
#[derive(Default)]
struct Log {
    made: BTreeMap<Dot, (RelPath, Record)>,
    killed: BTreeSet<Dot>,
    marks: BTreeMap<RelPath, Vec<ExecMark>>,
    /// Every time a user said what a record's exec bit is, and what had been seen then.
    said: Vec<(Dot, ExecMark, Vector)>,
    /// Homes that a user deleted without writing there again at once.
    deleted: BTreeSet<RelPath>,
    contents: Vec<String>,
}

struct World {
    rng: Rng,
    replicas: Vec<Replica>,
    oracles: Vec<Oracle>,
    log: Log,
    snapshots: Vec<BTreeMap<RelPath, (Value, bool)>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.range(2, 5);
        let ids: Vec<u64> = (0..count).map(|_| rng.next()).collect();
        let replicas: Vec<Replica> = ids
            .into_iter()
            .map(|id| {
                let skew = rng.pick(&[0, 0, 1, 60_000, YEAR, 10 * YEAR]);
                Replica::new(id, if rng.percent(50) { NOW - skew } else { NOW + skew })
            })
            .collect();
        let mut world = World {
            rng,
            oracles: vec![Oracle::default(); replicas.len()],
            replicas,
            log: Log::default(),
            snapshots: Vec::new(),
        };
        world.populate();
        world
    }

    /// Some replicas start with content of their own, mostly the same.
    fn populate(&mut self) {
        if self.rng.percent(40) {
            return;
        }
        let mut start: BTreeMap<&str, Value> = BTreeMap::new();
        for at in ["a", "b", "d/x", "d/y", "d/e/z", "b.txt"] {
            if self.rng.percent(60) {
                let value = self.content();
                start.insert(at, value);
            }
        }
        for i in 0..self.replicas.len() {
            if self.rng.percent(30) {
                continue;
            }
            for (at, value) in &start {
                if self.rng.percent(15) {
                    continue;
                }
                let value = if self.rng.percent(15) {
                    self.content()
                } else {
                    value.clone()
                };
                let mtime = self.rng.pick(&[NOW - 20 * YEAR, NOW - YEAR, NOW + 30 * YEAR]);
                let exec = self.rng.percent(20);
                let batch = self.replicas[i].import(&path(at), value, exec, mtime);
                self.commit(i, batch);
            }
        }
    }

    fn content(&mut self) -> Value {
        let name = if !self.log.contents.is_empty() && self.rng.percent(20) {
            self.rng.pick(&self.log.contents)
        } else {
            let name = format!("content {}", self.log.contents.len());
            self.log.contents.push(name.clone());
            name
        };
        if self.rng.percent(7) {
            link(&name)
        } else {
            file(&name)
        }
    }

    fn commit(&mut self, i: usize, batch: Batch) {
        let replica = &mut self.replicas[i];
        let live = replica.records();
        let before = replica.shown();
        for (_, dot) in &batch.kill {
            let home = &live.get(dot).expect("users kill what they see").0;
            if !batch.add.iter().any(|(at, _)| at == home) {
                self.log.deleted.insert(home.clone());
            }
            self.log.killed.insert(*dot);
        }
        for (at, record) in &batch.add {
            self.log.made.insert(record.dot, (at.clone(), record.clone()));
            if let Some(mark) = record.exec {
                self.log
                    .said
                    .push((record.dot, mark, replica.state.vector.clone()));
                self.log.marks.entry(at.clone()).or_default().push(mark);
            }
        }
        for (_, dot, mark) in &batch.exec {
            let home = live[dot].0.clone();
            self.log.said.push((*dot, *mark, replica.state.vector.clone()));
            self.log.marks.entry(home).or_default().push(*mark);
        }
        let changes = replica.apply(&batch);
        self.oracles[i].saw(replica.id, replica.seq);
        self.oracles[i].apply(&batch);
        check_changes(&before, &replica.shown(), changes);
        self.compare(i);
    }

    fn compare(&self, i: usize) {
        let replica = &self.replicas[i];
        let records = replica.records();
        self.oracles[i].check_records(&records);
        let shown = replica.shown();
        self.oracles[i].check_shown(&shown);
        let model: BTreeMap<_, _> = self.oracles[i].seen.clone();
        assert_eq!(replica.state.vector.len(), model.len());
        assert!(
            model
                .iter()
                .all(|(&id, &seq)| replica.state.vector.get(id) == seq),
            "vector"
        );
        for (at, item) in &shown {
            let newest = item.dots.iter().filter_map(|d| records[d].1.exec).max();
            assert_eq!(item.exec, newest, "exec bit of {at}");
            if let (Some(home), Some(key)) = (&item.copy_of, item.value.key()) {
                let names = [8, 12, 16].map(|digits| conflict_name(home, key, digits));
                assert!(names.contains(&item.name), "{at} is no conflict name");
            }
            for dir in above(at) {
                assert_eq!(shown[&dir].value, Value::Dir, "{dir} holds {at}");
            }
        }
    }

    fn pull(&mut self, i: usize, j: usize) {
        let theirs = self.replicas[j].clone();
        if self.rng.percent(25) {
            self.check_algebra(i, j);
        }
        let before = self.replicas[i].shown();
        let changes = self.replicas[i].pull(&theirs);
        check_changes(&before, &self.replicas[i].shown(), changes);
        let model = self.oracles[j].clone();
        self.oracles[i].merge(&model);
        self.compare(i);
    }

    /// Merging is commutative and idempotent, in every digest; what lives does not depend on grouping.
    fn check_algebra(&mut self, i: usize, j: usize) {
        let mut scratch = self.replicas[i].clone();
        scratch.fetch(&self.replicas[j]);
        let k = self.rng.below(self.replicas.len());
        scratch.fetch(&self.replicas[k]);
        let (x, y) = (self.replicas[i].state.clone(), self.replicas[j].state.clone());
        let z = self.replicas[k].state.clone();
        let xy = scratch.merged(&x, &y).state;
        let yx = scratch.merged(&y, &x).state;
        assert_eq!(xy, yx, "commutative");
        for other in [&x, &y, &xy] {
            let again = scratch.merged(&xy, other);
            assert_eq!(again.state, xy, "idempotent");
            assert!(again.changes.is_empty(), "nothing changes by nothing new");
            assert_eq!(scratch.merged(other, &xy).state, xy, "idempotent the other way");
        }
        let yz = scratch.merged(&y, &z).state;
        let (left, right) = (scratch.merged(&xy, &z).state, scratch.merged(&x, &yz).state);
        assert_eq!(left.vector, right.vector);
        self.check_same_lives(
            &records(&scratch.nodes, left.root).into_keys().collect(),
            &records(&scratch.nodes, right.root).into_keys().collect(),
        );
    }

    fn step(&mut self) {
        let i = self.rng.below(self.replicas.len());
        self.replicas[i].now += self.rng.below(1000) as u64;
        let shown = self.replicas[i].shown();
        let paths: Vec<RelPath> = shown.keys().cloned().collect();
        let any = |rng: &mut Rng| match rng.percent(30) && !paths.is_empty() {
            true => rng.pick(&paths),
            false => path(rng.pick(&NAMES)),
        };
        let batch = match self.rng.below(100) {
            0..32 => {
                let at = any(&mut self.rng);
                // Type swaps happen, but not all the time.
                if is_swap(&shown, &at, false) && self.rng.percent(60) {
                    return;
                }
                let (value, exec) = (self.content(), self.rng.percent(25));
                self.replicas[i].write(&at, value, exec)
            }
            32..38 => {
                let at = path(self.rng.pick(&["d", "d/e", "a", "n"]));
                if is_swap(&shown, &at, true) && self.rng.percent(60) {
                    return;
                }
                self.replicas[i].write(&at, Value::Dir, false)
            }
            38..50 if !paths.is_empty() => {
                let at = self.rng.pick(&paths);
                self.replicas[i].delete(&at)
            }
            50..60 if !paths.is_empty() => {
                let (from, to) = (self.rng.pick(&paths), any(&mut self.rng));
                if to.is_within(&from) || from.is_within(&to) {
                    return;
                }
                self.replicas[i].rename(&from, &to)
            }
            60..68 => {
                let files: Vec<_> = shown.iter().filter(|(_, s)| s.exec.is_some()).collect();
                if files.is_empty() {
                    return;
                }
                let (at, item) = self.rng.pick(&files);
                self.replicas[i].chmod(at, !item.is_exec())
            }
            68..71 => {
                let snapshot = shown
                    .iter()
                    .filter(|(_, s)| s.value != Value::Dir)
                    .map(|(p, s)| (p.clone(), (s.value.clone(), s.is_exec())));
                self.snapshots.push(snapshot.collect());
                return;
            }
            71..74 if !self.snapshots.is_empty() => return self.restore(i),
            74.. => {
                let j = self.rng.below(self.replicas.len());
                if i != j {
                    self.pull(i, j);
                    if self.rng.percent(50) {
                        self.pull(j, i);
                    }
                }
                return;
            }
            _ => return,
        };
        self.commit(i, batch);
    }

    fn restore(&mut self, i: usize) {
        let snapshot = self.rng.pick(&self.snapshots);
        for (at, item) in self.replicas[i].shown() {
            if item.value != Value::Dir && !snapshot.contains_key(&at) {
                let batch = self.replicas[i].delete(&at);
                self.commit(i, batch);
            }
        }
        for (at, (value, exec)) in snapshot {
            let batch = self.replicas[i].write(&at, value, exec);
            self.commit(i, batch);
        }
    }

    /// Merges all pairs in an order of its own until nothing changes.
    fn settle(&self, order: u64) -> (Vec<Replica>, Vec<Oracle>) {
        let (mut replicas, mut oracles) = (self.replicas.clone(), self.oracles.clone());
        let mut rng = Rng::new(order);
        let mut pairs: Vec<(usize, usize)> = (0..replicas.len())
            .flat_map(|i| (0..replicas.len()).map(move |j| (i, j)))
            .filter(|(i, j)| i != j)
            .collect();
        for _ in 0..60 {
            let mut quiet = true;
            rng.shuffle(&mut pairs);
            for &(i, j) in &pairs {
                let (before, theirs) = (replicas[i].state.clone(), replicas[j].clone());
                replicas[i].pull(&theirs);
                quiet &= before == replicas[i].state;
                let theirs = oracles[j].clone();
                oracles[i].merge(&theirs);
            }
            if quiet {
                return (replicas, oracles);
            }
        }
        panic!("no quiescence");
    }

    fn check_end(&self) {
        let mut live = Vec::new();
        for order in [1, 2] {
            let (replicas, oracles) = self.settle(order);
            let first = &replicas[0];
            let view = first.shown();
            for (replica, oracle) in replicas.iter().zip(&oracles) {
                assert_eq!(replica.state, first.state, "all states are equal");
                assert_eq!(replica.shown(), view, "all views are equal");
                assert_eq!(replica.summary(), first.summary(), "all content roots are equal");
                oracle.check_records(&replica.records());
                oracle.check_shown(&replica.shown());
            }
            let records = first.records();
            self.check_nothing_lost(&records, &oracles);
            self.check_exec(&records);
            live.push(records.into_keys().collect::<BTreeSet<_>>());
        }
        self.check_same_lives(&live[0], &live[1]);
    }

    /// What lives does not depend on the order of merges. One thing may, and it errs to the safe side: an import
    /// that meets the edit of its content goes, one that meets only an edit of that edit stays, as a copy.
    fn check_same_lives(&self, one: &BTreeSet<Dot>, other: &BTreeSet<Dot>) {
        for dot in one.symmetric_difference(other) {
            assert!(
                self.can_be_dominated(dot),
                "{dot:?} lives or not by the order of merges"
            );
        }
    }

    fn can_be_dominated(&self, dot: &Dot) -> bool {
        let (home, old) = &self.log.made[dot];
        let edited = |(at, new): &(RelPath, Record)| {
            at == home && new.prev == old.value.key() && new.age_key() > old.age_key()
        };
        old.imported && self.log.made.values().any(edited)
    }

    fn check_nothing_lost(&self, records: &BTreeMap<Dot, (RelPath, Record)>, oracles: &[Oracle]) {
        let dominated: BTreeSet<Dot> = oracles
            .iter()
            .chain(&self.oracles)
            .flat_map(|o| o.dominated.iter().copied())
            .collect();
        for dot in &dominated {
            assert!(
                self.can_be_dominated(dot),
                "only imports go, and only for an edit of their content"
            );
        }
        for (dot, (home, made)) in &self.log.made {
            match records.get(dot) {
                Some((at, live)) => {
                    assert!(!self.log.killed.contains(dot), "resurrected: {dot:?} at {home}");
                    assert_eq!((at, &live.value), (home, &made.value));
                    assert_eq!(
                        (live.hlc, live.mtime, live.prev),
                        (made.hlc, made.mtime, made.prev)
                    );
                }
                None => assert!(
                    self.log.killed.contains(dot) || dominated.contains(dot),
                    "lost: {dot:?} at {home}"
                ),
            }
        }
    }

    /// Where nobody deleted and nothing was ever in conflict, the newest mark that anybody set is the one.
    fn check_exec(&self, records: &BTreeMap<Dot, (RelPath, Record)>) {
        for (dot, said, seen) in &self.log.said {
            if let Some((home, record)) = records.get(dot) {
                let mark = record.exec.expect("files have one");
                assert!(
                    mark == *said || !seen.covers(mark.dot),
                    "{home} {dot:?}: a user had seen {mark:?} when saying {said:?}"
                );
            }
        }
        for (home, record) in records.values().filter(|(_, r)| r.exec.is_some()) {
            let made = |(at, r): &(RelPath, Record)| at == home && r.exec.is_none();
            // An edit of a conflict copy takes along a mark that another home has too.
            let calm = !home.to_string().contains(" (conflict ")
                && !self.log.deleted.contains(home)
                && !records.values().any(|(at, r)| at == home && r.relocated)
                && !self.log.made.values().any(made);
            if calm && !self.was_in_conflict(home) {
                let newest = self.log.marks.get(home).and_then(|m| m.iter().max());
                assert_eq!(record.exec.as_ref(), newest, "the newest exec mark of {home}");
            }
        }
    }

    /// Could two versions of this home ever have met? Then one that lost may have been edited since.
    fn was_in_conflict(&self, home: &RelPath) -> bool {
        let made: Vec<_> = self.log.made.values().filter(|(at, _)| at == home).collect();
        let writers: BTreeSet<_> = made.iter().map(|(_, r)| r.dot.replica).collect();
        let contents: BTreeSet<_> = made.iter().map(|(_, r)| r.value.key()).collect();
        let below = |(at, _): &&(RelPath, Record)| at != home && at.is_within(home);
        (writers.len() > 1 && contents.len() > 1) || self.log.made.values().any(|m| below(&m))
    }
}

/// Would a write here turn a file into a directory or back?
fn is_swap(shown: &BTreeMap<RelPath, Shown>, at: &RelPath, dir: bool) -> bool {
    shown.get(at).is_some_and(|s| (s.value == Value::Dir) != dir)
        || above(at)
            .iter()
            .any(|d| shown.get(d).is_some_and(|s| s.value != Value::Dir))
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.rng.range(3, 34) {
        world.step();
    }
    world.check_end();
}

#[test]
fn random_histories_converge_lose_nothing_and_follow_the_reference_model() {
    run_seeds("model", 1500, history);
}

/// Large directories are sharded; merging them is the same.
#[test]
fn large_directories_merge_like_small_ones() {
    let mut rng = Rng::new(7);
    let mut a = Replica::new(1, NOW);
    let mut b = Replica::new(2, NOW);
    let mut models = [Oracle::default(), Oracle::default()];
    let mut all = Batch::default();
    for k in 0..1500 {
        all.add.extend(
            a.import(&path(&format!("d/f{k:04}")), file(&format!("{k}")), false, NOW)
                .add,
        );
    }
    a.apply(&all);
    models[0].saw(a.id, a.seq);
    models[0].apply(&all);
    b.pull(&a);
    let model = models[0].clone();
    models[1].merge(&model);
    for round in 0..6 {
        for (replica, model) in [&mut a, &mut b].into_iter().zip(&mut models) {
            let mut batch = Batch::default();
            let shown = replica.shown();
            for _ in 0..200 {
                let at = path(&format!("d/f{:04}", rng.below(2000)));
                if batch.add.iter().any(|(p, _)| *p == at) || batch.kill.iter().any(|(p, _)| *p == at) {
                    continue;
                }
                if let Some(item) = shown.get(&at) {
                    batch.kill.extend(item.dots.iter().map(|&d| (at.clone(), d)));
                }
                if rng.percent(60) {
                    let value = file(&format!("{round} {}", rng.below(3)));
                    let record = replica.import(&at, value, false, NOW).add.remove(0).1;
                    let record = Record {
                        imported: false,
                        hlc: replica.tick(),
                        ..record
                    };
                    batch.add.push((at, record));
                }
            }
            replica.dot();
            replica.apply(&batch);
            model.saw(replica.id, replica.seq);
            model.apply(&batch);
        }
        let before = a.clone();
        a.pull(&b);
        b.pull(&before);
        let old = models[0].clone();
        let new = models[1].clone();
        models[0].merge(&new);
        models[1].merge(&old);
        assert_eq!(a.state, b.state);
        models[0].check_records(&a.records());
        models[1].check_shown(&shown(&b.nodes, b.state.root));
        assert_eq!(a.summary(), b.summary());
    }
}
