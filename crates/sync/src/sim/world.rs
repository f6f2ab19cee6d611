//! The order of events: what happens next, what happens in between, and how everything comes to rest. Never
//! judges the outcome.

use alike_core::digest::Digest;
use alike_core::message::Announce;
use tokio::sync::oneshot;

use super::disk::Tree;
use super::{Sim, Weather};
use crate::apply::Stage;
use crate::folder::FolderEvent;

/// Rounds in which everything must have come to rest.
const ROUNDS: usize = 60;

impl Sim {
    /// Users on a machine act while alike is in the middle of something there; or its other threads do.
    pub(super) fn meddle(&self, machine: usize, before: &'static str) {
        if self.scanning.get() && self.rng(|r| r.percent(40)) {
            self.note(format_args!("m{machine}: while it looks:"));
            self.folder_step(machine);
            return;
        }
        self.note(format_args!("m{machine}: before {before}:"));
        // Mostly where it hurts.
        let at_work: Vec<_> = match self.process(machine) {
            Some(process) => process.fetching.borrow().iter().cloned().collect(),
            None => Vec::new(),
        };
        if !at_work.is_empty() && self.rng(|r| r.percent(60)) {
            let path = self.rng(|r| r.pick(&at_work));
            self.catch_up(machine);
            let bytes = self.fresh_bytes();
            self.save(machine, &path, bytes, false);
            self.catch_up(machine);
            return;
        }
        for _ in 0..self.rng(|r| r.range(1, 2)) {
            self.user(machine);
        }
    }

    /// One step of a history.
    pub(super) fn turn(&self) {
        self.step.set(self.step.get() + 1);
        let count = self.machines.len();
        let machine = self.rng(|r| r.below(count));
        let peer = self.rng(|r| r.below(count));
        let nap = self.rng(|r| r.pick(&[1_000, 100_000, 2_000_000, 15_000_000, 400_000_000, 20_000_000_000]));
        self.pass(nap);
        match self.rng(|r| r.below(1000)) {
            0..180 => self.user(machine),
            // Saved, looked at and saved again in one tick of the clock that stamps files.
            180..190 => {
                self.user(machine);
                self.scan(machine, false);
                self.save_again(machine);
            }
            190..300 => self.scan(machine, false),
            300..340 => self.scan(machine, true),
            340..520 => {
                for _ in 0..self.rng(|r| r.range(1, 3)) {
                    self.on(machine, || {
                        self.folder_step(machine);
                    });
                }
            }
            520..620 => {
                for _ in 0..self.rng(|r| r.range(1, 4)) {
                    self.deliver();
                }
            }
            620..700 => self.pull(machine),
            700..790 => {
                let at_most = self.rng(|r| r.pick(&[1, 2, 5, 100]));
                let stage = self.rng(|r| r.pick(&[Some(Stage::Come), Some(Stage::Go), None, None]));
                let more = self.rng(|r| r.percent(20));
                self.plan_stage(machine, at_most, stage, more);
            }
            790..870 => self.fetch(machine),
            870..900 => self.connect(machine, peer),
            900..908 => self.disconnect(machine, peer),
            908..920 => self.retry(machine),
            920..940 => self.on(machine, || {
                if let Some(process) = self.process(machine) {
                    self.pass_on_gone(machine, &process);
                }
            }),
            940..980 => {
                self.machines[machine]
                    .paired
                    .set(self.machines[machine].paired.get() || self.rng(|r| r.percent(20)));
                self.revive(machine);
            }
            980..984 => self.stop(machine),
            984..988 => {
                let jump = self.rng(|r| {
                    r.pick(&[
                        1_000_000,
                        3_000_000_000,
                        7_200_000_000_000,
                        40_000_000_000_000_000,
                    ])
                });
                let skew = &self.machines[machine].skew;
                skew.set(skew.get() + if self.rng(|r| r.percent(50)) { jump } else { -jump });
                self.note(format_args!("m{machine}: the clock jumps by {jump}"));
            }
            988..992 => {
                // The watcher loses something.
                let mut disk = self.machines[machine].disk.borrow_mut();
                disk.hints.clear();
                drop(disk);
                if let Some(process) = self.process(machine) {
                    process.full_due.set(true);
                }
            }
            _ => self.answer(machine),
        }
    }

    /// A process that is not there, or does not work any more, is started again.
    fn revive(&self, machine: usize) {
        if self.machines[machine].running().is_some_and(|p| p.broken.get()) {
            self.stop(machine);
        }
        self.start(machine);
    }

    /// Somebody lets through what is held.
    fn answer(&self, machine: usize) {
        let Some(process) = self.process(machine) else {
            return;
        };
        if process.view.borrow().held.is_empty() {
            return;
        }
        self.note(format_args!("m{machine}: what is held is accepted"));
        let (reply, _answer) = oneshot::channel();
        process
            .inbox
            .borrow_mut()
            .push_back(FolderEvent::Answer { accept: true, reply });
        let held: Vec<usize> = process.sessions.borrow().keys().copied().collect();
        process.failed.borrow_mut().extend(held);
    }

    /// A whole history, up to the moment in which nothing is left to do.
    pub(super) fn history(&self, steps: u64) {
        self.populate();
        for machine in 0..self.machines.len() {
            self.start(machine);
        }
        let weather = self.rng(|r| match r.below(10) {
            0 | 1 => Weather::default(),
            2..5 => Weather {
                meddling: 15,
                errors: 0,
                ends: 0,
            },
            5 | 6 => Weather {
                meddling: 8,
                errors: 0,
                ends: 40,
            },
            7 => Weather {
                meddling: 0,
                errors: 10,
                ends: 20,
            },
            _ => Weather {
                meddling: 12,
                errors: 6,
                ends: 30,
            },
        });
        self.weather.set(weather);
        for _ in 0..steps {
            self.turn();
        }
        self.weather.set(Weather::default());
        self.settle();
        self.check();
        self.check_idempotence();
    }

    /// Everything works and is connected, nobody does anything any more.
    fn settle(&self) {
        self.step.set(self.step.get() + 1);
        self.note(format_args!("everything works from here on"));
        for machine in 0..self.machines.len() {
            self.tidy_up(machine);
            self.machines[machine].paired.set(true);
            // What an error left undone is left to the next start, now and then.
            if self.rng(|r| r.percent(20)) {
                self.stop(machine);
            }
        }
        let mut last = None;
        for _ in 0..ROUNDS {
            let now = self.round();
            if last.as_ref() == Some(&now) && self.is_at_rest() {
                return;
            }
            last = Some(now);
        }
        panic!("no rest after {ROUNDS} rounds in which nobody did anything");
    }

    fn is_at_rest(&self) -> bool {
        self.is_quiet()
            && (0..self.machines.len()).all(|m| {
                self.process(m).is_some_and(|p| {
                    p.inbox.borrow().is_empty()
                        && p.pulls.borrow().is_empty()
                        && p.fetches.borrow().is_empty()
                        && p.applying.borrow().is_empty()
                        && p.merging.borrow().is_empty()
                        // Rules that settle do so with time.
                        && !p.view.borrow().unlooked
                })
            })
    }

    /// Everybody does everything once.
    pub(super) fn round(&self) -> Vec<(Announce, Tree, Digest)> {
        self.pass(50_000_000);
        let all = 0..self.machines.len();
        for machine in all.clone() {
            self.revive(machine);
            for peer in all.clone() {
                self.connect(machine, peer);
            }
        }
        for machine in all.clone() {
            self.scan(machine, true);
            self.on(machine, || {
                if let Some(process) = self.process(machine) {
                    self.pass_on_gone(machine, &process);
                }
                while self.folder_step(machine) {}
            });
            self.answer(machine);
            self.retry(machine);
            self.run_all(machine);
        }
        while self.deliver() {}
        for machine in all.clone() {
            for _ in 0..4 {
                self.pull(machine);
                self.run_all(machine);
            }
        }
        while self.deliver() {}
        for machine in all.clone() {
            for _ in 0..4 {
                self.plan(machine, 1000);
                self.run_all(machine);
                self.fetch(machine);
                self.run_all(machine);
            }
        }
        while self.deliver() {}
        all.map(|machine| {
            let process = self.process(machine).expect("it was just started");
            let ours = self.announcement(&process);
            let root = ours.root;
            (ours, self.machines[machine].tree(), root)
        })
        .collect()
    }

    fn run_all(&self, machine: usize) {
        self.on(machine, || while self.folder_step(machine) {});
    }
}
