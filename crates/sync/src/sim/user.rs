//! The people: they write, save as editors do, append, rename, remove, turn one kind of thing into another, set
//! modes and times, and keep files open while alike moves them about. Never look at what alike thinks.

use alike_core::path::RelPath;
use alike_core::record::Value;

use super::disk::{Kind, Oid};
use super::rng::Rng;
use super::{EPOCH, Sim};

const NAMES: [&str; 12] = [
    "a",
    "b",
    "c.txt",
    "d",
    "d/x",
    "d/y.tar.gz",
    "d/e",
    "d/e/z",
    "n",
    "n/m",
    "a/q",
    "d/e/f/g",
];

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).expect("a path")
}

impl Sim {
    /// Writes down what became visible on a disk since the last time.
    pub(super) fn catch_up(&self, machine: usize) {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let touched = std::mem::take(&mut disk.touched);
        let mut books = self.books.borrow_mut();
        for node in touched {
            if !disk.nodes.contains_key(&node) {
                continue;
            }
            let mut all = vec![node];
            if disk.kind(node) == Kind::Dir {
                all.extend(disk.below(node));
            }
            for node in all {
                if let (Some(path), Some(value)) = (disk.path_of(node), disk.value(node))
                    && !path.is_root()
                {
                    books.appeared(machine, &path, &value);
                }
            }
        }
    }

    pub(super) fn fresh_bytes(&self) -> Vec<u8> {
        let mut books = self.books.borrow_mut();
        let mut rng = self.rng.borrow_mut();
        let n = books.names.len();
        let mut text = format!("content {n}");
        if rng.percent(30) {
            text.push_str(&"~".repeat(rng.below(60)));
        }
        let value = Value::File {
            digest: alike_core::digest::Digest::of(text.as_bytes()),
            size: 0,
        };
        books
            .names
            .insert(value.key().expect("a file"), format!("content {n}"));
        text.into_bytes()
    }

    /// Mostly new bytes; now and then those of some other file, anywhere.
    fn some_bytes(&self) -> Vec<u8> {
        if self.rng(|r| r.percent(90)) {
            return self.fresh_bytes();
        }
        let from = self.rng(|r| r.below(self.machines.len()));
        let disk = self.machines[from].disk.borrow();
        let files: Vec<Oid> = disk
            .below(disk.folder)
            .into_iter()
            .filter(|n| disk.kind(*n) == Kind::File && disk.path_of(*n).is_some())
            .collect();
        if files.is_empty() {
            drop(disk);
            return self.fresh_bytes();
        }
        let file = self.rng(|r| r.pick(&files));
        disk.bytes(file).to_vec()
    }

    fn paths(&self, machine: usize) -> Vec<RelPath> {
        let disk = self.machines[machine].disk.borrow();
        let mut paths: Vec<RelPath> = disk
            .below(disk.folder)
            .into_iter()
            .filter_map(|n| disk.path_of(n))
            .collect();
        paths.sort();
        paths
    }

    fn any_path(&self, machine: usize) -> RelPath {
        let paths = self.paths(machine);
        if !paths.is_empty() && self.rng(|r| r.percent(50)) {
            return self.rng(|r| r.pick(&paths));
        }
        rel(self.rng(|r| r.pick(&NAMES)))
    }

    /// Everything at and below a path is overwritten or removed.
    fn displace(&self, machine: usize, path: &RelPath) {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let Some(node) = disk.at(path) else { return };
        let mut books = self.books.borrow_mut();
        for node in std::iter::once(node).chain(disk.below(node)) {
            if let (Some(path), Some(value)) = (disk.path_of(node), disk.value(node)) {
                books.displaced(machine, &path, &value);
            }
        }
    }

    pub(super) fn remove(&self, machine: usize, path: &RelPath) {
        self.displace(machine, path);
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let (dir, name) = path.split().expect("not the root");
        let Some(dir) = disk.at(&dir) else { return };
        disk.unlink_all(dir, name.as_bytes(), now);
    }

    /// Makes a directory and those above it; what is in the way goes, if `force`.
    pub(super) fn mkdirs(&self, machine: usize, path: &RelPath, force: bool) -> bool {
        let mut at = RelPath::root();
        for name in path.components() {
            let parent = at.clone();
            at = at.join(&name);
            let now = self.file_time(machine);
            let there = {
                let disk = self.machines[machine].disk.borrow();
                disk.at(&at).map(|n| disk.kind(n))
            };
            match there {
                Some(Kind::Dir) => continue,
                Some(_) if !force => return false,
                Some(_) => self.remove(machine, &at),
                None => {}
            }
            let mut disk = self.machines[machine].disk.borrow_mut();
            let dir = disk.at(&parent).expect("just made");
            let made = disk.make(Kind::Dir, 0o755, now, Vec::new());
            disk.link(dir, name.as_bytes(), made, now);
            drop(disk);
            self.books.borrow_mut().written(machine, &at, &Value::Dir);
        }
        true
    }

    fn mark_public(&self, machine: usize, node: Oid) {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let node = disk.nodes.get_mut(&node).expect("it is there");
        node.public = true;
        node.fresh = false;
    }

    /// Writes a file: into the one that is there, or a new one in its place, as editors do.
    pub(super) fn save(&self, machine: usize, path: &RelPath, bytes: Vec<u8>, force: bool) {
        let Some((dir, name)) = path.split() else { return };
        if !self.mkdirs(machine, &dir, force) {
            return;
        }
        let there = {
            let disk = self.machines[machine].disk.borrow();
            disk.at(path).map(|n| (n, disk.kind(n)))
        };
        if matches!(there, Some((_, Kind::Dir))) {
            if !force {
                return;
            }
            self.remove(machine, path);
        } else {
            self.displace(machine, path);
        }
        let now = self.file_time(machine);
        let in_place = self.rng(|r| r.percent(50));
        let exec = self.rng(|r| r.percent(10));
        let mut disk = self.machines[machine].disk.borrow_mut();
        let node = match there {
            Some((node, Kind::File)) if in_place => node,
            _ => {
                let mode = if exec { 0o755 } else { 0o644 };
                let made = disk.make(Kind::File, mode, now, Vec::new());
                let dir = disk.at(&dir).expect("just made");
                disk.write(made, bytes.clone(), now);
                disk.link(dir, name.as_bytes(), made, now);
                made
            }
        };
        disk.write(node, bytes, now);
        let value = disk.value(node).expect("a file");
        drop(disk);
        self.mark_public(machine, node);
        self.books.borrow_mut().written(machine, path, &value);
        let what = self.books.borrow().name(&value.key().expect("a file"));
        let hex = value.key().expect("a file").to_hex();
        self.note(format_args!(
            "m{machine}: user writes {what:?} ({}) to {path}",
            &hex[..8]
        ));
        if self.rng(|r| r.percent(10)) {
            // As `cp -p` and archives do.
            let age = self.rng(|r| r.pick(&[-20, -1, 0, 30])) * 365 * 24 * 3600 * 1_000_000_000;
            let now = self.file_time(machine);
            self.machines[machine]
                .disk
                .borrow_mut()
                .alter(node, now, |a| a.mtime = EPOCH + age + 17);
        }
        if self.rng(|r| r.percent(15)) {
            self.machines[machine].disk.borrow_mut().sync_file(node);
        }
        if self.rng(|r| r.percent(8)) {
            self.machines[machine]
                .disk
                .borrow_mut()
                .nodes
                .get_mut(&node)
                .expect("it is there")
                .held = true;
            self.machines[machine].hands.borrow_mut().push(node);
        }
    }

    fn symlink(&self, machine: usize, path: &RelPath, force: bool) {
        let Some((dir, name)) = path.split() else { return };
        if !self.mkdirs(machine, &dir, force) {
            return;
        }
        let is_dir = {
            let disk = self.machines[machine].disk.borrow();
            disk.at(path).is_some_and(|n| disk.kind(n) == Kind::Dir)
        };
        if is_dir && !force {
            return;
        }
        self.remove(machine, path);
        let now = self.file_time(machine);
        let n = self.books.borrow().names.len();
        // Most lead out of the folder: whoever follows one is caught.
        let target = match self.rng(|r| r.below(3)) {
            0 => format!("../outside/secret?{n}"),
            1 => format!("../outside/./{n}"),
            _ => format!("target {n}"),
        };
        let mut disk = self.machines[machine].disk.borrow_mut();
        let made = disk.make(Kind::Symlink, 0o777, now, target.clone().into_bytes());
        let dir = disk.at(&dir).expect("just made");
        disk.link(dir, name.as_bytes(), made, now);
        let value = disk.value(made).expect("a link");
        drop(disk);
        let mut books = self.books.borrow_mut();
        books
            .names
            .insert(value.key().expect("a link"), format!("link {n}"));
        books.written(machine, path, &value);
        drop(books);
        self.note(format_args!("m{machine}: user makes link {n} at {path}"));
    }

    pub(super) fn rename(&self, machine: usize, from: &RelPath, to: &RelPath) {
        if from.is_within(to) || to.is_within(from) {
            return;
        }
        let (Some((dir, name)), Some((new_dir, new_name))) = (from.split(), to.split()) else {
            return;
        };
        let clash = {
            let disk = self.machines[machine].disk.borrow();
            let (Some(node), at) = (disk.at(from), disk.at(to)) else {
                return;
            };
            // The same under another spelling, where case does not count.
            let at = at.filter(|at| *at != node);
            let mix = at.is_some_and(|at| disk.kind(at) == Kind::Dir) || disk.kind(node) == Kind::Dir;
            at.is_some() && mix
        };
        if clash || !self.mkdirs(machine, &new_dir, false) {
            return;
        }
        self.displace(machine, to);
        self.displace(machine, from);
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let (dir, new_dir) = (
            disk.at(&dir).expect("it holds it"),
            disk.at(&new_dir).expect("just made"),
        );
        disk.rename(dir, name.as_bytes(), new_dir, new_name.as_bytes(), now);
        let node = disk.at(to).expect("just renamed");
        let moved: Vec<Oid> = std::iter::once(node).chain(disk.below(node)).collect();
        let mut found = Vec::new();
        for node in moved {
            if let (Some(path), Some(value)) = (disk.path_of(node), disk.value(node)) {
                found.push((path, value));
            }
        }
        drop(disk);
        for (path, value) in found {
            self.books.borrow_mut().written(machine, &path, &value);
        }
        self.note(format_args!("m{machine}: user renames {from} to {to}"));
    }

    fn fifo(&self, machine: usize, path: &RelPath) {
        let is_dir = {
            let disk = self.machines[machine].disk.borrow();
            disk.at(path).is_none_or(|n| disk.kind(n) == Kind::Dir)
        };
        let Some((dir, name)) = path.split().filter(|_| !is_dir) else {
            return;
        };
        self.remove(machine, path);
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let made = disk.make(Kind::Fifo, 0o644, now, Vec::new());
        let dir = disk.at(&dir).expect("something was in it");
        disk.link(dir, name.as_bytes(), made, now);
        drop(disk);
        self.note(format_args!("m{machine}: user makes a pipe of {path}"));
    }

    /// Somebody writes through a descriptor he has had for a while, wherever the file is now.
    fn write_by_hand(&self, machine: usize) {
        let hands = self.machines[machine].hands.borrow().clone();
        if hands.is_empty() {
            return;
        }
        let node = self.rng(|r| r.pick(&hands));
        let path = self.machines[machine].disk.borrow().path_of(node);
        let linked = self.is_linked(&self.machines[machine].disk.borrow(), node);
        if let Some(path) = &path {
            self.displace(machine, path);
        }
        let bytes = self.fresh_bytes();
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let here = &self.machines[machine];
        assert!(
            path.is_some() || !linked || !here.ways.leases || here.fell.get(),
            "m{machine}: a file that a program has open for writing was displaced"
        );
        if path.is_none() {
            // What alike had kept is gone by this, and perhaps the last of it.
            let old = disk.digest(node);
            let mut books = self.books.borrow_mut();
            books.excuse(&old);
            books.strays.retain(|stray| *stray != (machine, old));
        }
        disk.write(node, bytes, now);
        let value = disk.value(node).expect("a file");
        drop(disk);
        self.mark_public(machine, node);
        let key = value.key().expect("a file");
        let mut books = self.books.borrow_mut();
        match &path {
            Some(path) => books.written(machine, path, &value),
            None if linked => books.strays.push((machine, key)),
            None => {}
        }
        let what = books.name(&key);
        drop(books);
        let at = path.map_or("a displaced file".to_owned(), |p| p.to_string());
        self.note(format_args!("m{machine}: user writes {what:?} by hand to {at}"));
        if self.rng(|r| r.percent(50)) {
            self.machines[machine].hands.borrow_mut().retain(|n| *n != node);
        }
    }

    fn set_mode(&self, machine: usize, mode: fn(u32) -> u32, what: &str) {
        let files: Vec<RelPath> = {
            let disk = self.machines[machine].disk.borrow();
            let is_file = |p: &RelPath| disk.at(p).is_some_and(|n| disk.kind(n) == Kind::File);
            self.paths(machine).into_iter().filter(is_file).collect()
        };
        if files.is_empty() {
            return;
        }
        let path = self.rng(|r| r.pick(&files));
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        let node = disk.at(&path).expect("listed");
        disk.alter(node, now, |a| a.mode = mode(a.mode));
        drop(disk);
        self.note(format_args!("m{machine}: user {what} {path}"));
    }

    /// One thing that one user does.
    pub(super) fn user(&self, machine: usize) {
        self.catch_up(machine);
        let path = self.any_path(machine);
        let paths = self.paths(machine);
        let force = self.rng(|r| r.percent(15));
        match self.rng(|r| r.below(100)) {
            0..42 => {
                let bytes = self.some_bytes();
                self.save(machine, &path, bytes, force);
            }
            42..47 => {
                self.mkdirs(machine, &path, force);
                self.note(format_args!("m{machine}: user makes the directory {path}"));
            }
            47..63 if !paths.is_empty() => {
                let path = self.rng(|r| r.pick(&paths));
                self.note(format_args!("m{machine}: user removes {path}"));
                self.remove(machine, &path);
            }
            63..77 if !paths.is_empty() => {
                let from = self.rng(|r| r.pick(&paths));
                self.rename(machine, &from, &path);
            }
            77..81 => self.symlink(machine, &path, force),
            81..85 => self.set_mode(machine, |m| m ^ 0o111, "flips the exec bit of"),
            85..87 => self.set_mode(machine, |m| m, "touches"),
            87..88 => self.set_mode(machine, |m| m & !0o444, "makes unreadable"),
            88..89 => self.fifo(machine, &path),
            89..95 => self.write_by_hand(machine),
            _ => {
                // Appends.
                let bytes = {
                    let disk = self.machines[machine].disk.borrow();
                    disk.at(&path)
                        .filter(|n| disk.kind(*n) == Kind::File)
                        .map(|n| disk.bytes(n).to_vec())
                };
                if let Some(mut bytes) = bytes {
                    bytes.extend_from_slice(&self.fresh_bytes());
                    let digest = alike_core::digest::Digest::of(&bytes);
                    self.books
                        .borrow_mut()
                        .names
                        .insert(digest, format!("appended {path}"));
                    self.save(machine, &path, bytes, false);
                }
            }
        }
        self.catch_up(machine);
    }

    /// Writes other bytes of the same number into the file that was written last.
    pub(super) fn save_again(&self, machine: usize) {
        self.catch_up(machine);
        let Some(last) = self.books.borrow().last_write(machine) else {
            return;
        };
        let node = {
            let disk = self.machines[machine].disk.borrow();
            disk.at(&last).filter(|n| disk.kind(*n) == Kind::File)
        };
        let Some(node) = node else { return };
        let mut bytes = self.machines[machine].disk.borrow().bytes(node).to_vec();
        let mark = format!("{:x}", self.rng(Rng::next)).into_bytes();
        let room = bytes.len().min(mark.len());
        bytes[..room].copy_from_slice(&mark[..room]);
        self.displace(machine, &last);
        let now = self.file_time(machine);
        let mut disk = self.machines[machine].disk.borrow_mut();
        disk.write(node, bytes, now);
        let value = disk.value(node).expect("a file");
        drop(disk);
        self.mark_public(machine, node);
        self.books.borrow_mut().written(machine, &last, &value);
        self.note(format_args!("m{machine}: user saves {last} again at once"));
        self.catch_up(machine);
    }

    /// Puts away what would keep a folder from ever being equal: pipes, and files that nobody may read.
    pub(super) fn tidy_up(&self, machine: usize) {
        self.machines[machine].hands.borrow_mut().clear();
        for path in self.paths(machine) {
            let found = {
                let disk = self.machines[machine].disk.borrow();
                disk.at(&path).map(|n| (n, disk.kind(n)))
            };
            let now = self.file_time(machine);
            match found {
                Some((_, Kind::Fifo)) => self.remove(machine, &path),
                Some((node, Kind::File)) => {
                    let mut disk = self.machines[machine].disk.borrow_mut();
                    if disk.nodes[&node].attr.mode & 0o400 == 0 {
                        disk.alter(node, now, |a| a.mode |= 0o444);
                    }
                }
                _ => {}
            }
        }
    }

    /// What each machine has before alike comes: much of it the same, some of it not.
    pub(super) fn populate(&self) {
        if self.rng(|r| r.percent(30)) {
            return;
        }
        let same: Vec<Vec<u8>> = (0..5).map(|_| self.fresh_bytes()).collect();
        for machine in 0..self.machines.len() {
            if self.rng(|r| r.percent(30)) {
                continue;
            }
            for (k, path) in ["a", "b", "d/x", "d/e/z", "c.txt"].iter().enumerate() {
                if self.rng(|r| r.percent(60)) {
                    let bytes = if self.rng(|r| r.percent(60)) {
                        same[k].clone()
                    } else {
                        self.fresh_bytes()
                    };
                    self.save(machine, &rel(path), bytes, false);
                }
            }
        }
    }
}
