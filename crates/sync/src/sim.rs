//! A simulation of everything in one thread: machines with the real folder code, and in the place of disk, network,
//! clock and people a generator of misfortune. One seed is one history, for ever. Never touches a real file.
//!
//! What is real: `core`, `store`, `folder`, `apply`, `scan`, `disk` (all but the kernel), the making of temporary
//! files in `fetch`, the reading of blobs in `serve`. What is not: see `docs/testing.md`.

mod books;
pub(crate) mod calls;
mod check;
mod disk;
mod foreign;
mod machine;
pub(crate) mod medium;
mod net;
mod regressions;
pub(crate) mod rng;
mod run;
mod user;
mod work;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, Stat};
use rustix::io::Errno;

use books::Books;
use disk::{Disk, Kind, Oid};
use machine::Machine;
use net::Net;
use rng::Rng;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Sim>>> = const { RefCell::new(None) };
}

/// The simulation that this thread is in.
pub(crate) fn current() -> Option<Rc<Sim>> {
    CURRENT.with(|c| c.borrow().clone())
}

/// How a process ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The process alone: what it wrote is there.
    Kill,
    /// The machine: what was not synced may be gone.
    PowerCut,
}

/// What is thrown when a process ends in the middle of something.
struct Ended;

/// How much goes wrong, while it does.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// A user may act between any two system calls (chance in 1000).
    meddling: usize,
    /// A system call may fail (chance in 1000).
    errors: usize,
    /// A step of a process may end it (chance in 1000).
    ends: usize,
}

type Condition = Box<dyn Fn(&Sim) -> bool>;
type Act = Box<dyn FnOnce(&Sim)>;

pub(crate) struct Sim {
    rng: RefCell<Rng>,
    /// Nanoseconds since the beginning.
    time: Cell<u64>,
    machines: Vec<Machine>,
    /// Whose clock is read.
    acting: Cell<usize>,
    books: RefCell<Books>,
    net: RefCell<Net>,
    /// What the descriptors of this thread mean.
    handles: RefCell<HashMap<RawFd, (usize, Oid)>>,
    nothing: OwnedFd,
    blank: Stat,
    weather: Cell<Weather>,
    /// What happens as soon as something is so, between two system calls.
    script: RefCell<Vec<(Condition, Act)>>,
    /// Something happens between two system calls: nothing else does.
    meddled: Cell<bool>,
    /// A scan runs: the folder's thread may do something meanwhile.
    scanning: Cell<bool>,
    /// After so many more points, the acting process ends.
    fuse: Cell<Option<(u32, End)>>,
    /// Looks are going on at which nothing happens.
    quiet: Cell<bool>,
    dying: Cell<Option<End>>,
    /// The last call was a move: what fails now leaves it half done.
    moved: Cell<bool>,
    step: Cell<u64>,
    log: RefCell<Vec<String>>,
    digest: Cell<u64>,
}

/// What the wall clocks said when the simulation began (2026).
const EPOCH: i64 = 1_790_000_000_000_000_000;
/// How coarse the kernel stamps files.
const TICK: u64 = 4_000_000;

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::new(seed);
        let machines = Machine::some(&mut rng);
        Sim::of(rng, machines)
    }

    fn of(mut rng: Rng, machines: Vec<Machine>) -> Sim {
        let nothing = rustix::fs::memfd_create("nothing", MemfdFlags::CLOEXEC).expect("memory");
        let blank = rustix::fs::fstat(&nothing).expect("it is open");
        Sim {
            time: Cell::new(rng.next() % 1_000_000_000),
            net: RefCell::new(Net::default()),
            books: RefCell::new(Books::new(machines.len())),
            rng: RefCell::new(rng),
            machines,
            acting: Cell::new(0),
            handles: RefCell::default(),
            nothing,
            blank,
            weather: Cell::default(),
            script: RefCell::default(),
            meddled: Cell::new(false),
            scanning: Cell::new(false),
            fuse: Cell::new(None),
            quiet: Cell::new(false),
            dying: Cell::new(None),
            moved: Cell::new(false),
            step: Cell::new(0),
            log: RefCell::default(),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
        }
    }

    // Time.

    fn pass(&self, ns: u64) {
        self.time.set(self.time.get() + ns);
    }

    /// The acting machine's wall clock, in nanoseconds since 1970.
    pub(crate) fn wall(&self) -> i64 {
        EPOCH + self.time.get() as i64 + self.machines[self.acting.get()].skew.get()
    }

    pub(crate) fn steady(&self) -> Duration {
        Duration::from_nanos(self.time.get())
    }

    /// What a machine's kernel stamps on files now.
    fn file_time(&self, machine: usize) -> i64 {
        let tick = self.time.get() / TICK * TICK;
        EPOCH + tick as i64 + self.machines[machine].skew.get()
    }

    // What happened.

    fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:5} {what}", self.step.get());
        self.mix(line.as_bytes());
        self.log.borrow_mut().push(line);
    }

    fn mix(&self, bytes: &[u8]) {
        let mut digest = self.digest.get();
        for byte in bytes {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.digest.set(digest);
    }

    /// Random bytes, as the system would give them.
    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.rng(Rng::next).to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    fn rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    // Between two system calls.

    /// Something may happen before the call `what` on `machine` does.
    fn point(&self, machine: usize, what: &'static str) -> Result<(), Errno> {
        if self.quiet.get() {
            return Ok(());
        }
        self.mix(what.as_bytes());
        let nap = self.rng(|r| {
            if r.percent(3) {
                r.below(3_000_000)
            } else {
                r.below(40_000)
            }
        });
        self.pass(nap as u64);
        self.burn(machine, what);
        if self.dying.get().is_some() {
            resume_unwind(Box::new(Ended));
        }
        self.follow_script();
        let weather = self.weather.get();
        // The moves are where a save must not get lost.
        let moves = matches!(what, "exchange" | "rename" | "linkat");
        let meddling = weather.meddling * if moves { 10 } else { 1 };
        if meddling > 0 && !self.meddled.get() && self.rng(|r| r.permille(meddling)) {
            self.meddled.set(true);
            self.meddle(machine, what);
            self.meddled.set(false);
        }
        let errors = weather.errors * if self.moved.replace(moves) { 15 } else { 1 };
        if errors > 0 && self.rng(|r| r.permille(errors)) {
            let errors = match what {
                "openat to make" | "mkdirat" | "symlinkat" | "rename" | "exchange" | "linkat" => {
                    &[Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::DQUOT][..]
                }
                "fstat" | "stat" | "syncfs" | "fsync" => &[Errno::IO][..],
                _ => &[Errno::IO, Errno::ACCESS][..],
            };
            let errno = self.rng(|r| r.pick(errors));
            self.note(format_args!("m{machine}: {what} fails: {errno:?}"));
            return Err(errno);
        }
        Ok(())
    }

    fn follow_script(&self) {
        let script = self.script.borrow();
        let Some(due) = script.iter().position(|(condition, _)| condition(self)) else {
            return;
        };
        drop(script);
        let (_, act) = self.script.borrow_mut().remove(due);
        act(self);
    }

    fn burn(&self, machine: usize, what: &'static str) {
        if let Some((left, end)) = self.fuse.get() {
            if left == 0 {
                self.note(format_args!("m{machine}: {end:?} before {what}"));
                self.fuse.set(None);
                self.dying.set(Some(end));
            } else {
                self.fuse.set(Some((left - 1, end)));
            }
        }
    }

    /// A database is not unwound: it is told that nothing works any more.
    fn on_medium(&self, what: &'static str) -> std::io::Result<()> {
        self.mix(what.as_bytes());
        self.burn(self.acting.get(), what);
        if self.dying.get().is_some() {
            return Err(std::io::Error::other("the machine is going down"));
        }
        Ok(())
    }

    // What alike must never do, wherever it is.

    fn may_change(&self, disk: &Disk, dir: Oid, what: &str) {
        assert!(
            disk.is_inside(dir),
            "alike would {what} a directory outside the folder"
        );
    }

    fn may_write(&self, disk: &Disk, node: Oid, what: &str) {
        assert!(
            !disk.nodes[&node].public,
            "alike would {what} a file that is somebody's: {:?}",
            disk.path_of(node)
        );
    }

    fn may_unlink(&self, disk: &Disk, node: Oid) {
        let found = &disk.nodes[&node];
        if found.attr.kind != Kind::File || !found.public || found.fresh {
            return;
        }
        let bytes = disk.bytes(node);
        let kept = |(oid, other): (&Oid, &disk::Node)| {
            *oid != node && other.attr.kind == Kind::File && disk.is_inside(*oid) && disk.bytes(*oid) == bytes
        };
        assert!(
            bytes.is_empty() || disk.links(node) > 1 || disk.nodes.iter().any(kept),
            "alike would throw away the only copy of {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }

    fn is_linked(&self, disk: &Disk, dir: Oid) -> bool {
        dir == disk::TOP || disk.parent(dir).is_some()
    }
}
