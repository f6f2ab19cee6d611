//! What the simulation found, each told as short as it can be. Never random.

use std::collections::HashSet;
use std::rc::Rc;

use alike_core::claim::Claims;
use alike_core::path::RelPath;
use alike_core::state::State;
use tokio::sync::oneshot;

use super::machine::Machine;
use super::rng::Rng;
use super::{CURRENT, Sim};
use crate::apply::{Stage, gather};
use crate::folder::{FolderEvent, FolderView};

/// Two machines that run and are not connected.
pub(super) struct Two(Rc<Sim>);

impl std::ops::Deref for Two {
    type Target = Sim;
    fn deref(&self) -> &Sim {
        &self.0
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        for machine in &self.0.machines {
            machine.medium.kill();
            drop(machine.process.borrow_mut().take());
        }
        CURRENT.with(|c| *c.borrow_mut() = None);
    }
}

pub(super) fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).expect("a path")
}

fn two(exchange: bool) -> Two {
    two_of(|machines| machines.iter_mut().for_each(|m| m.ways.exchange = exchange))
}

/// Two machines, changed before they start.
pub(super) fn two_of(change: impl FnOnce(&mut [Machine])) -> Two {
    let mut rng = Rng::new(7);
    let mut machines: Vec<Machine> = (0..2).map(|id| Machine::new(id, true, &mut rng)).collect();
    for machine in &mut machines {
        machine.skew.set(0);
    }
    change(&mut machines);
    // What a machine is made of draws numbers of its own: a new quality must not change what follows.
    let sim = Rc::new(Sim::of(Rng::new(7), machines));
    CURRENT.with(|c| *c.borrow_mut() = Some(sim.clone()));
    for machine in 0..2 {
        sim.start(machine);
    }
    Two(sim)
}

impl Two {
    pub(super) fn put(&self, machine: usize, path: &str, text: &str) {
        self.catch_up(machine);
        self.pass(1_000_000_000);
        self.save(machine, &rel(path), text.as_bytes().to_vec(), true);
        self.machines[machine].hands.borrow_mut().clear();
        // Now and then a save keeps an old time; who wins here is not to hang on that.
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let node = disk.at(&rel(path)).expect("just saved");
        disk.alter(node, now, |a| a.mtime = now);
    }

    pub(super) fn look(&self, machine: usize) {
        self.scan(machine, true);
        self.on(machine, || {
            if let Some(process) = self.process(machine) {
                self.pass_on_gone(machine, &process);
            }
            while self.folder_step(machine) {}
        });
    }

    /// Everything that is said arrives, and what is said there is merged; nothing is applied.
    pub(super) fn merge(&self) {
        self.connect(0, 1);
        while self.deliver() {}
        for machine in 0..2 {
            for _ in 0..3 {
                self.pull(machine);
                self.on(machine, || while self.folder_step(machine) {});
            }
        }
    }

    pub(super) fn rest(&self) {
        for _ in 0..6 {
            self.round();
        }
        self.check();
        self.check_idempotence();
    }
}

/// HEAD had moved the file to a conflict name already, for a directory of a peer. The user who then made a
/// directory of it himself has overwritten it: its copy must not wait for ever for bytes that nobody has.
#[test]
fn a_file_that_became_a_directory_on_both_sides_leaves_no_copy_that_nobody_has() {
    let sim = two(true);
    sim.put(0, "n", "only here");
    sim.put(1, "n/m", "below");
    sim.look(0);
    sim.look(1);
    sim.merge();
    sim.mkdirs(0, &rel("n"), true);
    sim.look(0);
    sim.rest();
    assert_eq!(sim.machines[0].tree().len(), 2);
}

/// Where names cannot be exchanged, the old version is moved away before the new one is put there. Whoever saves
/// in between has not overwritten the old one.
#[test]
fn a_save_in_the_gap_of_a_replace_in_steps_overwrites_nothing() {
    let sim = two(false);
    sim.put(0, "a", "first");
    sim.look(0);
    sim.rest();
    sim.put(1, "a", "edited there");
    sim.put(0, "a", "edited here, later");
    sim.look(0);
    sim.look(1);
    sim.merge();
    let in_the_gap = |sim: &Sim| sim.machines[1].disk.borrow().at(&rel("a")).is_none();
    let save = |sim: &Sim| {
        sim.catch_up(1);
        sim.save(1, &rel("a"), b"in the gap".to_vec(), false);
    };
    sim.script
        .borrow_mut()
        .push((Box::new(in_the_gap), Box::new(save)));
    sim.rest();
    assert!(sim.script.borrow().is_empty(), "there was a gap");
    assert_eq!(sim.machines[0].tree().len(), 3, "all three versions are there");
}

/// A directory that is moved while it is read: what is written in it from then on was never at its old path.
#[test]
fn what_is_written_in_a_directory_that_moved_is_not_found_at_its_old_path() {
    for at in 0..60 {
        let sim = two(true);
        sim.put(0, "d/z", "old");
        sim.look(0);
        sim.put(0, "d/z", "newer");
        let left = std::cell::Cell::new(at);
        let due = move |_: &Sim| {
            left.set(left.get() - 1);
            left.get() < 0
        };
        let move_it = |sim: &Sim| {
            sim.catch_up(0);
            sim.rename(0, &rel("d"), &rel("e"));
            sim.save(0, &rel("e/z"), b"written there".to_vec(), false);
        };
        sim.script.borrow_mut().push((Box::new(due), Box::new(move_it)));
        sim.look(0);
        let process = sim.process(0).expect("it runs");
        sim.check_mat(0, &process);
        if at % 10 == 0 {
            sim.rest();
        }
    }
}

/// A directory went that others had removed, after its user had removed the last member: no scan looked for what the
/// index had below it, and the member stayed to be removed for ever.
#[test]
fn what_the_index_has_in_a_directory_that_went_goes_with_it() {
    let sim = two(true);
    sim.put(0, "d/f", "a file");
    sim.look(0);
    sim.rest();
    sim.remove(0, &rel("d"));
    sim.look(0);
    sim.merge();
    sim.catch_up(1);
    sim.remove(1, &rel("d/f"));
    sim.machines[1].disk.borrow_mut().hints.clear();
    sim.plan(1, 10);
    sim.on(1, || while sim.folder_step(1) {});
    sim.process(1).expect("it runs").dirty.borrow_mut().clear();
    sim.rest();
    assert!(sim.machines[1].tree().is_empty());
}

/// Both are about the folder as a whole; the one must not hide the other, nor take it away when it ends.
#[test]
fn two_histories_and_changes_that_are_not_seen_are_said_side_by_side() {
    let sim = two(true);
    sim.put(0, "a", "one");
    sim.put(1, "b", "two");
    sim.look(0);
    sim.look(1);
    sim.rest();
    let view = || -> FolderView { sim.process(0).expect("it runs").view.borrow().clone() };
    let said = || -> Vec<String> {
        view()
            .troubles
            .into_iter()
            .map(|problem| problem.reason)
            .collect()
    };
    let told = |event| {
        sim.process(0)
            .expect("it runs")
            .inbox
            .borrow_mut()
            .push_back(event);
        sim.on(0, || while sim.folder_step(0) {});
    };
    let merge = |claims: Claims| {
        let state = view().head.state;
        let theirs = State {
            root: state.root,
            vector: claims.vector(),
        };
        told(FolderEvent::Merge {
            theirs,
            claims,
            nodes: Default::default(),
            from: [9; 32],
            settled: true,
            reply: oneshot::channel().0,
        });
    };
    // What a peer would say that knows another history of the second machine.
    let genuine = view().claims;
    let own = sim
        .process(1)
        .expect("it runs")
        .view
        .borrow()
        .own
        .expect("it has one");
    let mut other = genuine.clone();
    let mut claim = genuine.get(own).expect("it wrote something").clone();
    claim.chain.0[0] ^= 1;
    other.remove(own);
    other.take(own, claim);
    merge(other);
    assert!(
        said()[0].contains("put back from a backup or copied"),
        "{:?}",
        said()
    );
    told(FolderEvent::Watching(Err("no watches left".into())));
    assert!(
        said().len() == 2 && said()[1].contains("no watches left"),
        "{:?}",
        said()
    );
    told(FolderEvent::Watching(Ok(())));
    assert_eq!(said().len(), 1);
    told(FolderEvent::Watching(Err("no watches left".into())));
    merge(genuine);
    assert!(
        said().len() == 1 && said()[0].contains("no watches left"),
        "{:?}",
        said()
    );
}

/// Directories sort with their siblings, before all that is in any of them. One that came to HEAD after that place was
/// passed was not made before its files were fetched, and these were thrown away, thousands of them.
#[test]
fn a_directory_that_was_passed_is_planned_with_what_is_in_it() {
    let sim = two(true);
    sim.put(0, "a/b/f", "one");
    sim.put(0, "a/b/g", "two");
    sim.put(0, "x/f", "three");
    sim.look(0);
    sim.look(1);
    sim.merge();
    let process = sim.process(1).expect("it runs");
    let plan = |after: &str| -> Vec<String> {
        let stage = Some(Stage::Come);
        let planned = gather(&process.place, stage, Some(&rel(after)), 10, &HashSet::new());
        let items = planned.expect("it is planned").items;
        items.iter().map(|item| item.path.to_string()).collect()
    };
    sim.on(1, || {
        assert_eq!(plan("A"), ["a", "x", "a/b", "a/b/f", "a/b/g", "x/f"]);
        assert_eq!(plan("b"), ["x", "a", "a/b", "a/b/f", "a/b/g", "x/f"]);
        assert_eq!(plan("a/b"), ["a", "a/b", "a/b/f", "a/b/g", "x", "x/f"]);
    });
    sim.rest();
    assert_eq!(sim.machines[1].tree().len(), 6);
}
