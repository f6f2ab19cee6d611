//! One machine: its disk, the medium of its database, and the process that runs on it, if one does. Never
//! decides what happens next.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};

use alike_core::claim::replica_id;
use alike_core::digest::Digest;
use alike_core::ids::FolderId;
use alike_core::message::Announce;
use alike_core::path::RelPath;
use alike_core::session::Session;
use alike_store::{NewFolder, Replica, Store};
use tokio::sync::{oneshot, watch};

use super::disk::{Disk, Oid, Tree};
use super::medium::Medium;
use super::rng::Rng;
use super::{EPOCH, End, Ended, Sim};
use crate::apply::{Item, Outcome};
use crate::claims::Signer;
use crate::disk::Root;
use crate::error::Error;
use crate::folder::scanner::ScanInput;
use crate::folder::{Folder, FolderEvent, FolderView, Place};
use crate::scan::Finding;

const YEAR: i64 = 365 * 24 * 3600 * 1_000_000_000;
const MARKER: [u8; 16] = [9; 16];

/// Which calls a machine's kernel has.
pub(super) struct Ways {
    pub(super) openat2: bool,
    pub(super) no_replace: bool,
    pub(super) exchange: bool,
    /// Can it tell who has a file open for writing?
    pub(super) leases: bool,
    /// Do files keep exec bits? Where they do not, none is executable.
    pub(super) exec: bool,
    /// Can two files share their bytes?
    pub(super) clones: bool,
}

pub(super) struct Machine {
    pub(super) id: usize,
    pub(super) disk: RefCell<Disk>,
    pub(super) ways: Ways,
    pub(super) medium: Medium,
    /// How far its wall clock is off (ns).
    pub(super) skew: Cell<i64>,
    pub(super) process: RefCell<Option<Rc<Process>>>,
    /// Files that somebody's program holds open for writing.
    pub(super) hands: RefCell<Vec<Oid>>,
    /// Did a process end in the middle of something?
    pub(super) fell: Cell<bool>,
    /// Was the power cut at any time?
    pub(super) had_no_power: Cell<bool>,
    /// Is it in the folder's circle by now?
    pub(super) paired: Cell<bool>,
}

/// What a peer asked of whom, and what is still to come of it.
pub(super) struct Fetch {
    pub(super) root: Option<Digest>,
    pub(super) items: Vec<Item>,
    pub(super) peer: usize,
}

/// What was asked of the folder's thread, and what it will say.
type Waiting<Q, A> = RefCell<Vec<(Q, oneshot::Receiver<A>)>>;

/// A running engine, as far as one folder goes.
pub(super) struct Process {
    pub(super) place: Arc<Place>,
    pub(super) folder: RefCell<Option<Folder>>,
    pub(super) view: watch::Receiver<FolderView>,
    pub(super) rescan: mpsc::Receiver<ScanInput>,
    pub(super) inbox: RefCell<VecDeque<FolderEvent>>,
    pub(super) dirty: RefCell<BTreeSet<RelPath>>,
    pub(super) full_due: Cell<bool>,
    pub(super) gone: RefCell<(BTreeMap<RelPath, Finding>, bool)>,
    pub(super) sessions: RefCell<BTreeMap<usize, Session>>,
    pub(super) announced: RefCell<Option<Announce>>,
    pub(super) pulls: RefCell<Vec<(usize, Announce)>>,
    pub(super) merging: Waiting<usize, Result<(), Error>>,
    pub(super) failed: RefCell<BTreeSet<usize>>,
    pub(super) fetching: RefCell<BTreeSet<RelPath>>,
    pub(super) fetches: RefCell<Vec<Fetch>>,
    pub(super) applying: Waiting<Vec<RelPath>, Vec<Outcome>>,
    /// The folder's thread ended with an error.
    pub(super) broken: Cell<bool>,
}

/// An empty database with its tables, made once.
fn blank_database() -> &'static [u8] {
    static BLANK: OnceLock<Vec<u8>> = OnceLock::new();
    BLANK.get_or_init(|| {
        let medium = Medium::default();
        drop(Store::with_backend(medium.open(), &PathBuf::from("blank")).expect("memory does not fail"));
        medium.bytes()
    })
}

/// A machine's key.
fn signer(id: usize) -> Signer {
    Signer::new(iroh::SecretKey::from_bytes(&[id as u8 + 1; 32]))
}

impl Machine {
    /// The machines of a history: how many, and what they are like.
    pub(super) fn some(rng: &mut Rng) -> Vec<Machine> {
        let count = match std::env::var("ALIKE_SIM_DEVICES")
            .ok()
            .and_then(|n| n.parse().ok())
        {
            Some(count) => count,
            None => rng.pick(&[2, 2, 3, 3, 4]),
        };
        let late = rng.percent(40);
        (0..count)
            .map(|id| Machine::new(id, id == 0 || !late, rng))
            .collect()
    }

    pub(super) fn new(id: usize, paired: bool, rng: &mut Rng) -> Machine {
        let skew = rng.pick(&[0, 0, 0, 1_000_000_000, 3600 * 1_000_000_000, YEAR, 5 * YEAR]);
        let skew = if rng.percent(50) { skew } else { -skew } + rng.below(1_000_000) as i64;
        let medium = Medium::with(blank_database());
        let store = Store::with_backend(medium.open(), &PathBuf::from("new")).expect("memory does not fail");
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&rng.next().to_le_bytes());
        let replica = Replica {
            id: replica_id(&signer(id).device(), FolderId([1; 16]), &nonce),
            nonce,
        };
        let added = store.add_folder(NewFolder {
            id: FolderId([1; 16]),
            name: format!("m{id}"),
            path: PathBuf::from(format!("/machine{id}/folder")),
            replica,
            marker: MARKER,
            root_dev: 77,
            root_ino: 4,
            created_ms: 1,
        });
        added.expect("memory does not fail");
        drop(store);
        let exchange = rng.percent(85);
        Machine {
            id,
            disk: RefCell::new(Disk::new(EPOCH + skew - YEAR, MARKER)),
            ways: Ways {
                openat2: rng.percent(80),
                no_replace: exchange || rng.percent(50),
                exchange,
                leases: rng.percent(75),
                exec: true,
                clones: id.is_multiple_of(2),
            },
            medium,
            skew: Cell::new(skew),
            process: RefCell::new(None),
            hands: RefCell::default(),
            fell: Cell::new(false),
            had_no_power: Cell::new(false),
            paired: Cell::new(paired),
        }
    }

    pub(super) fn running(&self) -> Option<Rc<Process>> {
        self.process.borrow().clone()
    }

    pub(super) fn tree(&self) -> Tree {
        self.disk.borrow_mut().tree()
    }

    /// The device id, as others know it.
    pub(super) fn device(&self) -> [u8; 32] {
        signer(self.id).device()
    }
}

impl Sim {
    /// Runs a piece of a machine's work. Whatever it was, the process may not be there any more afterwards.
    pub(super) fn on(&self, machine: usize, work: impl FnOnce()) {
        let before = self.acting.replace(machine);
        let weather = self.weather.get();
        if weather.ends > 0 && self.rng(|r| r.permille(weather.ends)) {
            let end = if self.rng(|r| r.percent(50)) {
                End::Kill
            } else {
                End::PowerCut
            };
            let after = self.rng(|r| r.pick(&[3, 10, 30, 100, 300]));
            let after = self.rng(|r| r.below(after)) as u32;
            self.fuse.set(Some((after, end)));
        }
        let done = catch_unwind(AssertUnwindSafe(work));
        self.fuse.set(None);
        self.scanning.set(false);
        if self.dying.get().is_some() {
            self.meddled.set(false);
        }
        if let Err(panic) = done
            && !panic.is::<Ended>()
        {
            resume_unwind(panic);
        }
        if let Some(end) = self.dying.take() {
            self.machines[machine].fell.set(true);
            self.bury(machine, end);
        }
        self.acting.set(before);
    }

    /// A process starts: opens the database, recovers, looks at everything.
    pub(super) fn start(&self, machine: usize) {
        if self.machines[machine].process.borrow().is_some() {
            return;
        }
        self.on(machine, || self.start_inside(machine));
    }

    fn start_inside(&self, machine: usize) {
        let here = &self.machines[machine];
        let opened = Store::with_backend(here.medium.open(), &PathBuf::from("database"));
        let store = match opened {
            Ok(store) => Arc::new(store),
            Err(error) => {
                assert!(
                    self.dying.get().is_some(),
                    "the database cannot be opened: {error}"
                );
                return;
            }
        };
        let Ok(mut folders) = store.folders() else {
            assert!(self.dying.get().is_some(), "the database cannot be read");
            return;
        };
        let row = folders.remove(0);
        let root = match Root::open(&row.path) {
            Ok(root) => root,
            Err(error) => {
                self.note(format_args!("m{machine}: does not start: {error}"));
                return;
            }
        };
        if let Err(reason) = root.check(&row.marker) {
            self.note(format_args!("m{machine}: does not start: {reason}"));
            return;
        }
        let place = Arc::new(Place::new(row, root, store, PathBuf::from("/nowhere")));
        let (rescan_to, rescan) = mpsc::channel();
        let intents = place
            .store
            .snapshot()
            .and_then(|s| s.intents(place.key))
            .unwrap_or_default();
        for intent in &intents {
            self.note(format_args!(
                "m{machine}: an apply of {} was cut short",
                intent.path
            ));
            self.books.borrow_mut().doubt(&intent.path);
        }
        let (folder, view) = match Folder::open(place.clone(), signer(machine), rescan_to) {
            Ok(opened) => opened,
            Err(error) => {
                self.note(format_args!("m{machine}: does not start: {error}"));
                return;
            }
        };
        let process = Process {
            place,
            folder: RefCell::new(Some(folder)),
            view,
            rescan,
            inbox: RefCell::default(),
            dirty: RefCell::default(),
            full_due: Cell::new(true),
            gone: RefCell::default(),
            sessions: RefCell::default(),
            announced: RefCell::new(None),
            pulls: RefCell::default(),
            merging: RefCell::default(),
            failed: RefCell::default(),
            fetching: RefCell::default(),
            fetches: RefCell::default(),
            applying: RefCell::default(),
            broken: Cell::new(false),
        };
        here.disk.borrow_mut().hints.clear();
        *here.process.borrow_mut() = Some(Rc::new(process));
        self.note(format_args!("m{machine}: starts"));
    }

    /// A process ends between two pieces of work; all it had in memory is gone.
    pub(super) fn stop(&self, machine: usize) {
        if self.machines[machine].process.borrow().is_some() {
            self.note(format_args!("m{machine}: stops"));
            self.bury(machine, End::Kill);
        }
    }

    pub(super) fn bury(&self, machine: usize, end: End) {
        let here = &self.machines[machine];
        here.medium.kill();
        let process = here.process.borrow_mut().take();
        drop(process);
        self.handles.borrow_mut().retain(|_, (at, _)| *at != machine);
        self.cut_off(machine);
        if end == End::PowerCut {
            self.power_cut(machine);
        }
    }

    fn power_cut(&self, machine: usize) {
        let here = &self.machines[machine];
        here.had_no_power.set(true);
        self.catch_up(machine);
        let before = here.tree();
        let prints = here.disk.borrow().prints();
        here.hands.borrow_mut().clear();
        {
            let mut rng = self.rng.borrow_mut();
            here.disk.borrow_mut().power_cut(&mut rng);
            here.medium.power_cut(&mut rng);
        }
        let after = here.tree();
        self.catch_up(machine);
        let changed = self.books.borrow_mut().power_cut(machine, &before, &after);
        for path in changed {
            self.note(format_args!("m{machine}: the power cut changed {path}"));
        }
        for (path, print) in here.disk.borrow().prints() {
            if prints.get(&path).is_some_and(|before| *before != print) {
                self.books.borrow_mut().times_went_back(machine, &path);
            }
        }
        self.check_durable(machine, (&before, &prints), &after);
    }
}
