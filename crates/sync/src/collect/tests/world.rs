//! The folders and the database that a history of collections is about, and ends of the process. Never decides what
//! must be there.

use std::fs;
use std::io::{self, Write as _};
use std::sync::Mutex;

use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::{Dot, FolderId, Hlc, ReplicaId};
use alike_core::observe::Mat;
use alike_core::path::{Name, RelPath};
use alike_core::record::{ExecMark, Record, Value};
use alike_core::state::{State, StateEntry};
use alike_core::tree;
use alike_core::view::Summary;
use alike_store::{Commit, FolderRow, Generation, Head, IndexRow, Intent, NewFolder, Reason, Replica};

use super::mortal::Mortal;
use super::*;
use crate::checkout;
use crate::disk::Root;
use crate::outboard;
use crate::sim::medium::Medium;

pub(super) type Bytes = Vec<u8>;
/// Directory and name → content.
pub(super) type Tree = BTreeMap<(usize, usize), usize>;
type Intended = BTreeMap<(usize, usize), [Option<usize>; 2]>;

/// Too large for a pack: it is kept where it is displaced.
pub(super) fn is_large(id: usize) -> bool {
    id.is_multiple_of(6)
}

fn size(id: usize) -> usize {
    if is_large(id) { 65_540 } else { 40 + 61 * id }
}

pub(super) fn content(id: usize) -> Bytes {
    static KNOWN: Mutex<BTreeMap<usize, Bytes>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    let made = || (0..size(id)).map(|i| (i * 7 + id * 13) as u8).collect();
    known.entry(id).or_insert_with(made).clone()
}

pub(super) fn digest(id: usize) -> Digest {
    static KNOWN: Mutex<BTreeMap<usize, Digest>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    *known.entry(id).or_insert_with(|| Digest::of(&content(id)))
}

/// What was displaced before a collection begins is older than its beginning.
pub(super) fn let_the_clock_tick() {
    let began = now_ns();
    while now_ns() - began < 2 * TICK {
        std::thread::yield_now();
    }
}

pub(super) struct FolderNow {
    pub(super) key: FolderKey,
    pub(super) place: Arc<Place>,
    row: FolderRow,
    /// HEAD.
    pub(super) live: Tree,
    /// The index: what HEAD has and this has not is still to be applied.
    pub(super) disk: Tree,
    /// What intents say is at a path, and is to be there.
    pub(super) intended: Intended,
    pub(super) generations: BTreeMap<u64, Tree>,
    pub(super) pins: BTreeSet<u64>,
    /// All that ever were.
    pub(super) was: BTreeMap<u64, Tree>,
    seq: u64,
}

/// What a commit makes of a folder.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) at: usize,
    pub(super) live: Tree,
    pub(super) disk: Tree,
    pub(super) intended: Intended,
    pub(super) generation: bool,
    /// Contents that rows of the index are written for.
    pub(super) named: BTreeSet<usize>,
}

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) medium: Mortal,
    pub(super) store: Arc<Store>,
    pub(super) folders: Vec<FolderNow>,
    /// A commit in flight.
    pub(super) pending: Option<Change>,
    /// Lengths of the packs when something was committed last.
    packs: BTreeMap<PathBuf, u64>,
}

fn open(medium: &Mortal, home: &Path) -> Arc<Store> {
    let store = Store::with_backend(medium.open(), Path::new("in memory")).expect("the database opens");
    Arc::new(store.with_packs(home))
}

impl World {
    pub(super) fn new(folders: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let medium = Mortal::on(Medium::default());
        let store = open(&medium, dir.path());
        fs::create_dir(dir.path().join("outboards")).unwrap();
        let mut world = World {
            medium,
            store,
            folders: Vec::new(),
            pending: None,
            packs: BTreeMap::new(),
            dir,
        };
        for n in 0..folders {
            let path = world.dir.path().join(format!("folder {n}"));
            fs::create_dir(&path).unwrap();
            let root = Root::open(&path).unwrap();
            root.ensure_own_dir([n as u8; 16]).unwrap();
            let new = NewFolder {
                id: FolderId([n as u8; 16]),
                name: format!("folder {n}"),
                path,
                replica: Replica {
                    id: ReplicaId(1),
                    nonce: [0; 16],
                },
                marker: [n as u8; 16],
                root_dev: 0,
                root_ino: 0,
                created_ms: 0,
            };
            let row = world.store.add_folder(new).unwrap();
            let place = world.place(&row);
            world.folders.push(FolderNow {
                key: row.key,
                place,
                row,
                live: Tree::new(),
                disk: Tree::new(),
                intended: Intended::new(),
                generations: BTreeMap::new(),
                pins: BTreeSet::new(),
                was: BTreeMap::new(),
                seq: 0,
            });
        }
        world
    }

    fn place(&self, row: &FolderRow) -> Arc<Place> {
        let root = Root::open(&row.path).unwrap();
        let outboards = self.dir.path().join("outboards");
        Arc::new(Place::new(row.clone(), root, self.store.clone(), outboards))
    }

    /// The commit that makes a folder's HEAD `tree`, and its index too or else intents; notes what that is.
    pub(super) fn commit(&mut self, at: usize, tree: &Tree, generation: bool, applied: bool) -> Commit {
        let folder = &self.folders[at];
        let mut commit = Commit::default();
        let seq = folder.seq + 1;
        let name = |n: usize| Name::new(format!("{n}").as_bytes()).unwrap();
        let (mut dirs, mut states) = (Vec::new(), Vec::new());
        for dir in 0..4 {
            let (mut files, mut records) = (Vec::new(), Vec::new());
            for ((_, file), id) in tree.range((dir, 0)..(dir + 1, 0)) {
                let (digest, size) = (digest(*id), size(*id) as u64);
                files.push(NamedEntry {
                    name: name(*file),
                    entry: Entry::File {
                        digest,
                        size,
                        exec: false,
                    },
                });
                let dot = Dot {
                    replica: ReplicaId(1),
                    seq: 1 + *id as u64,
                };
                records.push(StateEntry {
                    name: name(*file),
                    records: vec![Record {
                        dot,
                        hlc: Hlc::from_millis(1),
                        value: Value::File { digest, size },
                        exec: Some(ExecMark {
                            hlc: Hlc::from_millis(1),
                            dot,
                            on: false,
                        }),
                        mtime: 0,
                        prev: None,
                        relocated: false,
                        imported: false,
                    }],
                    child: None,
                });
            }
            if files.is_empty() {
                continue;
            }
            let root = tree::write(&files, &mut |d, b| commit.nodes.push((d, b.into())));
            let child = tree::write(&records, &mut |d, b| commit.nodes.push((d, b.into())));
            dirs.push(NamedEntry {
                name: name(dir),
                entry: Entry::Dir { digest: root },
            });
            commit.summaries.push((child, summary(root)));
            states.push(StateEntry {
                name: name(dir),
                records: Vec::new(),
                child: Some(child),
            });
        }
        let root = tree::write(&dirs, &mut |d, b| commit.nodes.push((d, b.into())));
        let state = tree::write(&states, &mut |d, b| commit.nodes.push((d, b.into())));
        commit.summaries.push((state, summary(root)));
        commit.head = Some(Head {
            state: State {
                root: Some(state),
                ..State::default()
            },
            summary: summary(root),
            seq,
            generation: folder.was.len() as u64,
            ..Head::default()
        });
        commit.generation = generation.then(|| Generation {
            number: folder.next(),
            root,
            state: Some(state),
            time_ms: 1_000 * seq,
            reason: Reason::Local,
            device: [0; 32],
            added: 0,
            changed: 0,
            removed: 0,
        });
        let mut change = Change {
            at,
            live: tree.clone(),
            disk: folder.disk.clone(),
            intended: folder.intended.clone(),
            generation,
            named: BTreeSet::new(),
        };
        let path = |p: &(usize, usize)| RelPath::parse(format!("{}/{}", p.0, p.1).as_bytes()).unwrap();
        if !applied {
            let places: BTreeSet<_> = folder.disk.keys().chain(tree.keys()).collect();
            for place in places {
                let [before, after] = [&folder.disk, tree].map(|tree| tree.get(place).copied());
                if before == after {
                    continue;
                }
                change.intended.insert(*place, [before, after]);
                commit.intents_put.push(Intent {
                    path: path(place),
                    before: before.map(mat),
                    before_fingerprint: None,
                    after: after.map(|id| mat(id).value),
                    after_exec: false,
                    dots: Vec::new(),
                    temp: None,
                });
            }
        } else {
            let gone = folder.disk.keys().filter(|at| !tree.contains_key(at));
            commit.index_remove = gone.map(path).collect();
            commit.intents_remove = (0..4).flat_map(|d| (0..4).map(move |f| path(&(d, f)))).collect();
            for (at, id) in tree.iter().filter(|(at, id)| folder.disk.get(at) != Some(id)) {
                change.named.insert(*id);
                let row = IndexRow {
                    mat: mat(*id),
                    fingerprint: None,
                    racy: false,
                };
                commit.index_put.push((path(at), row));
            }
            change.disk = tree.clone();
            change.intended.clear();
        }
        self.pending = Some(change);
        commit
    }

    /// The commit in flight is there.
    pub(super) fn landed(&mut self) {
        let change = self.pending.take().expect("one was in flight");
        let folder = &mut self.folders[change.at];
        if change.generation {
            let number = folder.next();
            folder.generations.insert(number, change.live.clone());
            folder.was.insert(number, change.live.clone());
        }
        (folder.live, folder.disk, folder.intended) = (change.live, change.disk, change.intended);
        folder.seq += 1;
    }

    /// Keeps a content as a version that was displaced.
    pub(super) fn displace(&self, at: usize, id: usize) {
        self.folders[at]
            .place
            .root
            .keep_content(&digest(id), &content(id))
            .unwrap();
    }

    pub(super) fn object(&self, at: usize, id: usize) -> Option<Bytes> {
        let mut file = self.folders[at].place.root.open_object(&digest(id)).unwrap()?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(bytes)
    }

    pub(super) fn outboard(&self, id: usize) {
        let path = outboard::path_of(&self.dir.path().join("outboards"), &digest(id));
        fs::write(path, "hashes").unwrap();
    }

    pub(super) fn outboards(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        for id in 0..CONTENTS {
            let path = outboard::path_of(&self.dir.path().join("outboards"), &digest(id));
            if path.exists() {
                found.insert(id);
            }
        }
        found
    }

    /// All that is kept.
    pub(super) fn kept(&self) -> BTreeSet<Kept> {
        let id_of = |wanted: &Digest| {
            (0..CONTENTS)
                .find(|id| digest(*id) == *wanted)
                .expect("a content")
        };
        let mut found = BTreeSet::new();
        let mut look = |digest: &Digest, _, good: bool| {
            assert!(good, "what is packed can be read");
            found.insert((None, id_of(digest)));
            true
        };
        self.store.check_packs(&mut look).unwrap();
        for (at, folder) in self.folders.iter().enumerate() {
            let mut look = |object: &Object| {
                found.insert((Some(at), id_of(&object.digest)));
                true
            };
            folder.place.root.each_object(&mut look).unwrap();
        }
        found
    }

    /// May a commit to come name it, because somebody has hashed it?
    pub(super) fn is_relied(&self, id: usize) -> bool {
        self.store.is_relied(&digest(id))
    }

    /// What generations had that were let go of, and of which the database still knows.
    pub(super) fn dropped(&self) -> BTreeSet<usize> {
        let all = self.store.snapshot().unwrap().dropped().unwrap();
        let folder = |key| {
            self.folders
                .iter()
                .find(|f| f.key == key)
                .expect("there are no others")
        };
        all.into_iter()
            .flat_map(|(key, number)| folder(key).was[&number].values().copied())
            .collect()
    }

    /// Takes from the database which generations are left: never fewer than must be. What those had that are not.
    pub(super) fn read_generations(&mut self) -> BTreeSet<usize> {
        let mut named = BTreeSet::new();
        let Ok(snapshot) = self.store.snapshot() else {
            return named;
        };
        for folder in &mut self.folders {
            let all = snapshot.generations(folder.key, usize::MAX).unwrap();
            let numbers: BTreeSet<u64> = all.iter().map(|g| g.number).collect();
            let newest = folder.generations.keys().next_back();
            for (number, tree) in &folder.generations {
                if !numbers.contains(number) {
                    assert!(!folder.pins.contains(number), "{number} was pinned");
                    assert_ne!(Some(number), newest, "the newest goes never");
                    named.extend(tree.values());
                }
            }
            folder.generations.retain(|number, _| numbers.contains(number));
            assert_eq!(folder.generations.len(), numbers.len());
            assert_eq!(snapshot.pins(folder.key).unwrap(), folder.pins);
        }
        named
    }

    /// Every tree that must be there is, and is what it was.
    pub(super) fn check(&self) {
        let snapshot = self.store.snapshot().unwrap();
        for folder in &self.folders {
            self.check_tree(&folder.live);
            for (number, tree) in &folder.generations {
                let found = snapshot.generation(folder.key, *number).unwrap();
                assert_eq!(found.unwrap().root, root_of(tree), "generation {number}");
                self.check_tree(tree);
            }
        }
        snapshot.mark(&|_, _| true).unwrap();
        snapshot.mark_dropped(&|_, _| true).unwrap();
    }

    pub(super) fn check_tree(&self, tree: &Tree) {
        let snapshot = self.store.snapshot().unwrap();
        let found = checkout::contents(&snapshot, root_of(tree)).unwrap();
        let found: BTreeSet<Digest> = found.into_iter().map(|found| found.0).collect();
        let meant: BTreeSet<Digest> = tree.values().map(|id| digest(*id)).collect();
        assert_eq!(found, meant);
    }

    /// No node is left that nothing reaches, but for what somebody `held`, and packs are half full at least.
    pub(super) fn assert_no_waste(&self, held: &[(usize, u64)]) {
        let snapshot = self.store.snapshot().unwrap();
        assert!(!snapshot.is_half_swept().unwrap());
        let dropped = snapshot.dropped().unwrap();
        if dropped.is_empty() && held.is_empty() {
            let marks = snapshot.mark(&|_, _| true).unwrap();
            assert_eq!(snapshot.unmarked(&marks).unwrap(), (0, 0));
        }
        let live: u64 = self
            .kept()
            .into_iter()
            .filter(|kept| kept.0.is_none())
            .map(|kept| size(kept.1) as u64 + 36)
            .sum();
        // What was hashed and never committed is thrown away later.
        let fresh: u64 = (0..CONTENTS).map(|id| size(id) as u64 + 36).sum();
        assert!(self.store.packs_bytes() <= 2 * live + 4 * fresh);
    }

    /// What is in packs up to here may be needed.
    pub(super) fn note_packs(&mut self) {
        let Ok(all) = fs::read_dir(self.dir.path().join("packs")) else {
            return;
        };
        self.packs = all
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
            .collect();
    }

    /// The process ends at once; now and then the whole machine. Was a commit in flight, and is it there?
    pub(super) fn crash(&mut self, rng: &mut Rng) -> bool {
        // Cut in the middle of a transaction, what is in the packs is durable, as far as anybody can tell.
        let between = !self.medium.is_dead();
        self.medium.kill();
        let power = rng.percent(60);
        if power {
            self.medium.medium.power_cut(rng);
        }
        if let Ok(all) = fs::read_dir(self.dir.path().join("packs")) {
            for entry in all {
                let path = entry.unwrap().path();
                let len = fs::metadata(&path).unwrap().len();
                let durable = self.packs.get(&path).copied().unwrap_or(0);
                let mut file = fs::File::options().append(true).open(&path).unwrap();
                if power && between && len > durable {
                    file.set_len(durable + rng.below((len - durable) as usize + 1) as u64)
                        .unwrap();
                }
                if power && rng.percent(30) {
                    file.write_all(&vec![0xa5; rng.below(90)]).unwrap();
                }
            }
        }
        self.reopen();
        let Some(change) = &self.pending else {
            return false;
        };
        let folder = &self.folders[change.at];
        let head = self.store.snapshot().unwrap().head(folder.key).unwrap();
        let landed = head.seq == folder.seq + 1;
        let meant = if landed { &change.live } else { &folder.live };
        assert_eq!(head.summary.root, root_of(meant));
        landed
    }

    pub(super) fn reopen(&mut self) {
        self.medium.kill();
        // What the old one still does when it is closed reaches nothing.
        self.medium = Mortal::on(Medium::with(&self.medium.medium.bytes()));
        self.store = open(&self.medium, self.dir.path());
        for at in 0..self.folders.len() {
            let row = self.folders[at].row.clone();
            self.folders[at].place = self.place(&row);
        }
    }
}

impl FolderNow {
    fn next(&self) -> u64 {
        1 + self.was.keys().next_back().copied().unwrap_or(0)
    }
}

fn mat(id: usize) -> Mat {
    Mat {
        value: Value::File {
            digest: digest(id),
            size: size(id) as u64,
        },
        exec: false,
        dots: Vec::new(),
    }
}

fn summary(root: Digest) -> Summary {
    Summary {
        root,
        ..Summary::empty()
    }
}

/// The content tree of this, by a way of its own.
fn root_of(tree: &Tree) -> Digest {
    if tree.is_empty() {
        return Summary::empty().root;
    }
    let name = |n: usize| Name::new(format!("{n}").as_bytes()).unwrap();
    let dirs: BTreeSet<usize> = tree.keys().map(|path| path.0).collect();
    let dirs: Vec<NamedEntry> = dirs
        .into_iter()
        .map(|dir| {
            let files: Vec<NamedEntry> = tree
                .range((dir, 0)..(dir + 1, 0))
                .map(|((_, file), id)| NamedEntry {
                    name: name(*file),
                    entry: Entry::File {
                        digest: digest(*id),
                        size: size(*id) as u64,
                        exec: false,
                    },
                })
                .collect();
            NamedEntry {
                name: name(dir),
                entry: Entry::Dir {
                    digest: tree::write(&files, &mut |_, _| ()),
                },
            }
        })
        .collect();
    tree::write(&dirs, &mut |_, _| ())
}
