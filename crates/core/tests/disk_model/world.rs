//! All devices of one history: how they begin, what happens to them in which order, and how they come to rest.
//! Never judges the outcome.

use std::cell::RefCell;
use std::collections::BTreeMap;

use alike_core::path::RelPath;
use alike_core::record::Value;

use crate::common::{Replica, Rng, file, link, path};
use crate::device::{Crash, Device};
use crate::log::Log;

pub(crate) const YEAR: u64 = 365 * 24 * 3600 * 1000;
pub(crate) const NOW: u64 = 56 * YEAR;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) devices: Vec<Device>,
    pub(crate) log: Log,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
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

    pub(crate) fn content(&mut self) -> Value {
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

    fn pull(&mut self, i: usize, j: usize) {
        if i == j || !self.devices[i].paired || !self.devices[j].paired {
            return;
        }
        let theirs = self.devices[j].head.clone();
        self.devices[i].head.pull(&theirs);
    }

    pub(crate) fn step(&mut self) {
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

    pub(crate) fn settle(&mut self) {
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
}
