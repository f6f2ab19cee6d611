//! A file system in memory as Linux shows it, and as its medium keeps it: what is visible at once, what survives
//! a power cut. Never decides what goes wrong; whoever calls it does.
//!
//! Names and attributes are journalled: a power cut keeps a prefix of what was not synced. Bytes of files are
//! not: what was not synced may be there, or the old bytes, or a beginning of the new ones, or zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::path::{Name, OWN_DIR, RelPath};
use alike_core::record::Value;

use super::rng::Rng;

/// Names one file or directory for ever, unlike its inode number.
pub(super) type Oid = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
}

/// What the journal keeps of an inode.
#[derive(Clone, Debug)]
pub(super) struct Attr {
    pub(super) kind: Kind,
    pub(super) ino: u64,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) target: Vec<u8>,
}

/// A file's bytes.
#[derive(Debug)]
enum Data {
    Bytes(Arc<[u8]>),
    /// Being written through a descriptor that was handed out.
    Open(OwnedFd),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attr: Attr,
    data: Data,
    digest: Option<Digest>,
    pub(super) entries: BTreeMap<Vec<u8>, Oid>,
    pub(super) up: Option<(Oid, Vec<u8>)>,
    links: u32,
    /// A user could see it, or wrote it: its bytes are not alike's to throw away.
    pub(super) public: bool,
    /// alike made it in the apply that is going on.
    pub(super) fresh: bool,
    /// Somebody holds it open: its number is not given out again.
    pub(super) held: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Entry(Oid, Vec<u8>, Option<Oid>),
    Attr(Oid, Attr),
}

#[derive(Clone, Debug)]
struct Kept {
    attr: Attr,
    entries: BTreeMap<Vec<u8>, Oid>,
}

/// What users see in a folder: value and exec bit by path.
pub(super) type Tree = BTreeMap<RelPath, (Value, bool)>;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) nodes: BTreeMap<Oid, Node>,
    next: Oid,
    next_ino: u64,
    free: BTreeSet<u64>,
    kept: BTreeMap<Oid, Kept>,
    synced: BTreeMap<Oid, Arc<[u8]>>,
    journal: Vec<Vec<Change>>,
    /// What became visible or changed since somebody last asked.
    pub(super) touched: BTreeSet<Oid>,
    /// Paths of the folder that a watcher would have reported.
    pub(super) hints: BTreeSet<RelPath>,
    pub(super) folder: Oid,
    /// Does case not count in names?
    pub(super) folds: bool,
}

/// The directory that holds everything.
pub(super) const TOP: Oid = 1;

impl Disk {
    /// An empty folder, with `.alike` and its marker, all of it durable.
    pub(super) fn new(now: i64, marker: [u8; 16]) -> Self {
        let mut disk = Disk {
            nodes: BTreeMap::new(),
            next: TOP,
            next_ino: 2,
            free: BTreeSet::new(),
            kept: BTreeMap::new(),
            synced: BTreeMap::new(),
            journal: Vec::new(),
            touched: BTreeSet::new(),
            hints: BTreeSet::new(),
            folder: 0,
            folds: false,
        };
        let top = disk.make(Kind::Dir, 0o755, now, Vec::new());
        assert_eq!(top, TOP);
        disk.kept.insert(
            TOP,
            Kept {
                attr: disk.nodes[&TOP].attr.clone(),
                entries: BTreeMap::new(),
            },
        );
        let dir = |disk: &mut Disk, up, name: &[u8]| {
            let made = disk.make(Kind::Dir, 0o755, now, Vec::new());
            disk.link(up, name, made, now);
            made
        };
        let folder = dir(&mut disk, TOP, b"folder");
        disk.folder = folder;
        let outside = dir(&mut disk, TOP, b"outside");
        let secret = disk.make(Kind::File, 0o600, now, Vec::new());
        disk.write(secret, b"not yours".to_vec(), now);
        disk.link(outside, b"secret", secret, now);
        let own = dir(&mut disk, folder, OWN_DIR.as_bytes());
        dir(&mut disk, own, b"tmp");
        dir(&mut disk, own, b"objects");
        let mut text: String = marker.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        let file = disk.make(Kind::File, 0o600, now, Vec::new());
        disk.write(file, text.into_bytes(), now);
        disk.link(own, b"marker", file, now);
        disk.sync();
        disk
    }

    // What is.

    pub(super) fn child(&self, dir: Oid, name: &[u8]) -> Option<Oid> {
        self.nodes[&dir].entries.get(&self.spelled(dir, name)).copied()
    }

    /// How a name is listed, if it is.
    fn spelled(&self, dir: Oid, name: &[u8]) -> Vec<u8> {
        let entries = &self.nodes[&dir].entries;
        if !self.folds || entries.contains_key(name) {
            return name.to_vec();
        }
        let mut same = entries.keys().filter(|listed| listed.eq_ignore_ascii_case(name));
        same.next().map_or_else(|| name.to_vec(), Clone::clone)
    }

    pub(super) fn at(&self, path: &RelPath) -> Option<Oid> {
        path.components()
            .try_fold(self.folder, |at, name| self.child(at, name.as_bytes()))
    }

    pub(super) fn kind(&self, node: Oid) -> Kind {
        self.nodes[&node].attr.kind
    }

    /// Its path, if it is in the folder, not alike's own, and still has a name.
    pub(super) fn path_of(&self, node: Oid) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = node;
        while at != self.folder {
            let (up, name) = self.nodes[&at].up.as_ref()?;
            names.push(&name[..]);
            at = *up;
        }
        names.reverse();
        if names.first() == Some(&OWN_DIR.as_bytes()) {
            return None;
        }
        RelPath::parse(&names.join(&b'/')).ok()
    }

    pub(super) fn parent(&self, node: Oid) -> Option<Oid> {
        self.nodes[&node].up.as_ref().map(|(dir, _)| *dir)
    }

    pub(super) fn links(&self, node: Oid) -> u32 {
        self.nodes[&node].links
    }

    /// Is it below the folder's root, or the root itself?
    pub(super) fn is_inside(&self, node: Oid) -> bool {
        let mut at = node;
        while at != self.folder {
            match &self.nodes[&at].up {
                Some((up, _)) => at = *up,
                None => return false,
            }
        }
        true
    }

    pub(super) fn bytes(&self, node: Oid) -> Arc<[u8]> {
        match &self.nodes[&node].data {
            Data::Bytes(bytes) => bytes.clone(),
            Data::Open(fd) => read_all(fd).into(),
        }
    }

    pub(super) fn digest(&mut self, node: Oid) -> Digest {
        if let Some(digest) = self.nodes[&node].digest {
            return digest;
        }
        let digest = Digest::of(&self.bytes(node));
        let found = self.nodes.get_mut(&node).expect("it is there");
        if matches!(found.data, Data::Bytes(_)) {
            found.digest = Some(digest);
        }
        digest
    }

    pub(super) fn value(&mut self, node: Oid) -> Option<Value> {
        match self.kind(node) {
            Kind::Dir => Some(Value::Dir),
            Kind::Symlink => Some(Value::Symlink {
                target: self.nodes[&node].attr.target.clone().into(),
            }),
            Kind::Fifo => None,
            Kind::File => {
                let size = self.bytes(node).len() as u64;
                Some(Value::File {
                    digest: self.digest(node),
                    size,
                })
            }
        }
    }

    pub(super) fn is_exec(&self, node: Oid) -> bool {
        let attr = &self.nodes[&node].attr;
        attr.kind == Kind::File && attr.mode & 0o100 != 0
    }

    /// Everything below a directory, itself left out.
    pub(super) fn below(&self, dir: Oid) -> Vec<Oid> {
        let mut found = Vec::new();
        let mut todo = vec![dir];
        while let Some(at) = todo.pop() {
            for &child in self.nodes[&at].entries.values() {
                found.push(child);
                todo.push(child);
            }
        }
        found
    }

    /// What users see in the folder.
    pub(super) fn tree(&mut self) -> Tree {
        let mut tree = Tree::new();
        for node in self.below(self.folder) {
            if let (Some(path), Some(value)) = (self.path_of(node), self.value(node)) {
                let exec = self.is_exec(node);
                tree.insert(path, (value, exec));
            }
        }
        tree
    }

    /// Inode, mtime and ctime of everything that users see: what tells whether it was changed.
    pub(super) fn prints(&self) -> BTreeMap<RelPath, (u64, i64, i64)> {
        let of = |node: Oid| {
            let attr = &self.nodes[&node].attr;
            Some((self.path_of(node)?, (attr.ino, attr.mtime, attr.ctime)))
        };
        self.below(self.folder).into_iter().filter_map(of).collect()
    }

    // What is done to it.

    fn log(&mut self, changes: Vec<Change>) {
        self.journal.push(changes);
    }

    fn attr_change(&self, node: Oid) -> Change {
        Change::Attr(node, self.nodes[&node].attr.clone())
    }

    pub(super) fn make(&mut self, kind: Kind, mode: u32, now: i64, target: Vec<u8>) -> Oid {
        let ino = self.free.pop_first().unwrap_or_else(|| {
            self.next_ino += 1;
            self.next_ino
        });
        let attr = Attr {
            kind,
            ino,
            mode,
            mtime: now,
            ctime: now,
            target,
        };
        let node = self.next;
        self.next += 1;
        self.nodes.insert(
            node,
            Node {
                attr,
                data: Data::Bytes(Arc::new([])),
                digest: None,
                entries: BTreeMap::new(),
                up: None,
                links: 0,
                public: false,
                fresh: false,
                held: false,
            },
        );
        let change = self.attr_change(node);
        self.log(vec![change]);
        node
    }

    fn set(&mut self, dir: Oid, name: &[u8], node: Option<Oid>, now: i64, changes: &mut Vec<Change>) {
        let name = &self.spelled(dir, name)[..];
        let entries = &mut self.nodes.get_mut(&dir).expect("it is there").entries;
        let old = match node {
            Some(node) => entries.insert(name.to_vec(), node),
            None => entries.remove(name),
        };
        changes.push(Change::Entry(dir, name.to_vec(), node));
        if let Some(old) = old {
            let gone = self.nodes.get_mut(&old).expect("it is there");
            gone.links -= 1;
            gone.attr.ctime = now;
            if gone
                .up
                .as_ref()
                .is_some_and(|(at, called)| *at == dir && called[..] == *name)
            {
                gone.up = None;
            }
        }
        if let Some(node) = node {
            let new = self.nodes.get_mut(&node).expect("it is there");
            new.links += 1;
            new.up = Some((dir, name.to_vec()));
            new.attr.ctime = now;
            changes.push(self.attr_change(node));
            self.touched.insert(node);
        }
        let above = &mut self.nodes.get_mut(&dir).expect("it is there").attr;
        above.mtime = now;
        above.ctime = now;
        changes.push(self.attr_change(dir));
        let above = if dir == self.folder {
            Some(RelPath::root())
        } else {
            self.path_of(dir)
        };
        if let (Some(above), Ok(name)) = (above, Name::new(name)) {
            self.hints.insert(above.join(&name));
            if let Some(node) = node {
                self.nodes.get_mut(&node).expect("it is there").public = true;
            }
        }
    }

    fn forget_if_unlinked(&mut self, node: Option<Oid>) {
        if let Some(node) = node
            && let Some(found) = self.nodes.get(&node)
            && found.links == 0
            && !found.held
        {
            self.free.insert(found.attr.ino);
        }
    }

    /// Gives a node a name, in place of what has it.
    pub(super) fn link(&mut self, dir: Oid, name: &[u8], node: Oid, now: i64) {
        let old = self.child(dir, name);
        let mut changes = Vec::new();
        self.set(dir, name, Some(node), now, &mut changes);
        self.log(changes);
        self.forget_if_unlinked(old);
    }

    pub(super) fn unlink(&mut self, dir: Oid, name: &[u8], now: i64) {
        let old = self.child(dir, name);
        let mut changes = Vec::new();
        self.set(dir, name, None, now, &mut changes);
        self.log(changes);
        self.forget_if_unlinked(old);
    }

    /// Removes whatever has the name, and all below it.
    pub(super) fn unlink_all(&mut self, dir: Oid, name: &[u8], now: i64) {
        let Some(node) = self.child(dir, name) else { return };
        for child in self.nodes[&node].entries.keys().cloned().collect::<Vec<_>>() {
            self.unlink_all(node, &child, now);
        }
        self.unlink(dir, name, now);
    }

    pub(super) fn rename(&mut self, from: Oid, name: &[u8], to: Oid, new: &[u8], now: i64) {
        let node = self.child(from, name).expect("the caller looked");
        let old = self.child(to, new);
        let mut changes = Vec::new();
        self.set(from, name, None, now, &mut changes);
        self.set(to, new, Some(node), now, &mut changes);
        self.log(changes);
        self.forget_if_unlinked(old);
    }

    pub(super) fn exchange(&mut self, from: Oid, name: &[u8], to: Oid, new: &[u8], now: i64) {
        let a = self.child(from, name).expect("the caller looked");
        let b = self.child(to, new).expect("the caller looked");
        let (name, new) = (&self.spelled(from, name)[..], &self.spelled(to, new)[..]);
        let mut changes = Vec::new();
        self.set(from, name, Some(b), now, &mut changes);
        self.set(to, new, Some(a), now, &mut changes);
        self.nodes.get_mut(&a).expect("it is there").up = Some((to, new.to_vec()));
        self.nodes.get_mut(&b).expect("it is there").up = Some((from, name.to_vec()));
        self.log(changes);
    }

    pub(super) fn write(&mut self, node: Oid, bytes: Vec<u8>, now: i64) {
        let found = self.nodes.get_mut(&node).expect("it is there");
        found.data = Data::Bytes(bytes.into());
        found.digest = None;
        found.attr.mtime = now;
        found.attr.ctime = now;
        self.attr_written(node);
    }

    /// Changes attributes; `change` sets what it likes, ctime follows.
    pub(super) fn alter(&mut self, node: Oid, now: i64, change: impl FnOnce(&mut Attr)) {
        let found = self.nodes.get_mut(&node).expect("it is there");
        change(&mut found.attr);
        found.attr.ctime = now;
        self.attr_written(node);
    }

    fn attr_written(&mut self, node: Oid) {
        let change = self.attr_change(node);
        self.log(vec![change]);
        self.touched.insert(node);
        if let Some(path) = self.path_of(node) {
            self.hints.insert(path);
        }
    }

    /// From now on its bytes are what is written through `fd`.
    pub(super) fn written_through(&mut self, node: Oid, fd: OwnedFd) {
        let found = self.nodes.get_mut(&node).expect("it is there");
        found.data = Data::Open(fd);
        found.digest = None;
    }

    /// Nobody writes to it any more.
    pub(super) fn settle(&mut self, node: Oid) {
        let bytes = self.bytes(node);
        self.nodes.get_mut(&node).expect("it is there").data = Data::Bytes(bytes);
    }

    // What lasts.

    /// Makes everything durable.
    pub(super) fn sync(&mut self) {
        for changes in std::mem::take(&mut self.journal) {
            self.keep(changes);
        }
        let files: Vec<Oid> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.attr.kind == Kind::File && (n.links > 0 || n.held))
            .map(|(oid, _)| *oid)
            .collect();
        for file in files {
            let bytes = self.bytes(file);
            self.synced.insert(file, bytes);
        }
    }

    /// Makes one file durable, and with it all names given so far.
    pub(super) fn sync_file(&mut self, node: Oid) {
        for changes in std::mem::take(&mut self.journal) {
            self.keep(changes);
        }
        let bytes = self.bytes(node);
        self.synced.insert(node, bytes);
    }

    fn keep(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Entry(dir, name, node) => {
                    let entries = &mut self.kept.get_mut(&dir).expect("made before").entries;
                    match node {
                        Some(node) => entries.insert(name, node),
                        None => entries.remove(&name),
                    };
                }
                Change::Attr(node, attr) => match self.kept.get_mut(&node) {
                    Some(kept) => kept.attr = attr,
                    None => {
                        self.kept.insert(
                            node,
                            Kept {
                                attr,
                                entries: BTreeMap::new(),
                            },
                        );
                    }
                },
            }
        }
    }

    /// The power goes: what is left when it is back.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        let journal = std::mem::take(&mut self.journal);
        let left = if rng.percent(30) {
            0
        } else {
            rng.below(journal.len() + 1)
        };
        for changes in journal.into_iter().take(left) {
            self.keep(changes);
        }
        let mut reached = BTreeSet::from([TOP]);
        let mut todo = vec![TOP];
        let mut ups = BTreeMap::new();
        while let Some(dir) = todo.pop() {
            for (name, &node) in &self.kept[&dir].entries {
                ups.insert(node, (dir, name.clone()));
                if reached.insert(node) {
                    todo.push(node);
                }
            }
        }
        let mut nodes = BTreeMap::new();
        for oid in &reached {
            let kept = &self.kept[oid];
            let mut node = self.nodes.remove(oid).expect("nodes are never forgotten");
            if kept.attr.kind == Kind::File {
                let old = self.synced.get(oid).cloned();
                let new = match &node.data {
                    Data::Bytes(bytes) => bytes.clone(),
                    Data::Open(fd) => read_all(fd).into(),
                };
                if old.as_ref() != Some(&new) {
                    node.data = Data::Bytes(torn(old, new, rng));
                    node.digest = None;
                } else {
                    node.data = Data::Bytes(new);
                }
            }
            node.attr = kept.attr.clone();
            node.entries = kept.entries.clone();
            node.up = ups.get(oid).cloned();
            node.links = 1;
            node.held = false;
            nodes.insert(*oid, node);
        }
        let used: BTreeSet<u64> = nodes.values().map(|n| n.attr.ino).collect();
        self.free = (3..=self.next_ino).filter(|ino| !used.contains(ino)).collect();
        self.nodes = nodes;
        self.kept.retain(|oid, _| reached.contains(oid));
        self.hints.clear();
        self.touched = reached;
        // What is found after it is on the medium.
        self.sync();
    }
}

/// What a power cut leaves of bytes that were not synced.
fn torn(old: Option<Arc<[u8]>>, new: Arc<[u8]>, rng: &mut Rng) -> Arc<[u8]> {
    match (rng.below(5), old) {
        (0 | 1, _) => new,
        (2, Some(old)) => old,
        (3, _) => vec![0; new.len()].into(),
        (_, _) => new[..rng.below(new.len() + 1)].into(),
    }
}

fn read_all(fd: &OwnedFd) -> Vec<u8> {
    let size = rustix::fs::fstat(fd).expect("a file in memory").st_size as usize;
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let got = rustix::io::pread(fd, &mut bytes[at..], at as u64).expect("a file in memory");
        assert!(got > 0, "a file in memory is as long as it says");
        at += got;
    }
    bytes
}
