//! What users do to the disks of the model: write, delete, rename, make directories, set exec bits. Never scans
//! and never sees HEAD.

use alike_core::path::RelPath;
use alike_core::record::Value;

use crate::common::{Rng, above, path};
use crate::device::Node;
use crate::log::bytes_of;
use crate::world::{NOW, World, YEAR};

const NAMES: [&str; 8] = ["a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "a/q"];

impl World {
    /// A user overwrites or deletes what is at a path, or below it.
    fn displace(&mut self, i: usize, at: &RelPath) {
        let disk = &mut self.devices[i].disk;
        let within: Vec<RelPath> = disk.keys().filter(|p| p.is_within(at)).cloned().collect();
        for path in within {
            let node = disk.remove(&path).expect("listed");
            self.log.gone.extend(bytes_of(&node.value));
        }
    }

    pub(crate) fn mkdir(&mut self, i: usize, at: &RelPath) {
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

    pub(crate) fn put(&mut self, i: usize, at: &RelPath, value: Value) {
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

    pub(crate) fn user(&mut self, i: usize) {
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
}
