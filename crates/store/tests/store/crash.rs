//! The database after a crash at any moment, and on a medium that fails: it opens, and holds exactly what a
//! whole number of transactions left, none less than were reported done. Never a real disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use alike_store::*;

use crate::fixture::device;
use crate::medium::{Loss, Medium, Op, apply, crash};
use crate::model::Lcg;
use crate::workload::Workload;

/// Calls in one history.
const STEPS: usize = 20;
pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

pub(crate) fn open(medium: &Medium) -> Result<Store, StoreError> {
    Store::with_backend(medium.clone(), Path::new("in memory"))
}

/// An empty store's image. That it is made whole or not at all is the matter of `Store::open`.
fn empty() -> Vec<u8> {
    let medium = Medium::default();
    drop(open(&medium).unwrap());
    medium.seen()
}

/// `ALIKE_CASES` changes how many histories there are, `ALIKE_SEED` runs one alone; a failure names its seed.
pub(crate) fn run_seeds(cases: u64, history: impl Fn(u64)) {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("ALIKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ALIKE_CASES").unwrap_or(cases),
    };
    for seed in seeds {
        let passed = catch_unwind(AssertUnwindSafe(|| history(seed))).is_ok();
        assert!(passed, "run it alone with ALIKE_SEED={seed}");
    }
}

/// A history on a healthy medium: what was done to it, and for every call how many operations there were when
/// it had returned, and what the store held then.
struct History {
    base: Vec<u8>,
    log: Vec<Op>,
    states: Vec<(usize, String)>,
    workload: Workload,
}

fn record(seed: u64) -> History {
    let base = empty();
    let medium = Medium::holding(base.clone());
    let mut workload = Workload::new(seed);
    let store = open(&medium).unwrap();
    let mut states = vec![(0, workload.all(&store).unwrap())];
    for _ in 0..STEPS {
        workload.step(&store).unwrap();
        states.push((medium.count(), workload.all(&store).unwrap()));
    }
    // What closing it does counts too.
    drop(store);
    History {
        base,
        log: medium.log(),
        states,
        workload,
    }
}

impl History {
    /// `image` was left by a crash after `ops` operations.
    fn check(&self, image: Vec<u8>, ops: usize, random: &mut Lcg, what: &str) {
        let medium = Medium::holding(image.clone());
        let store = open(&medium).unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = self.workload.all(&store).unwrap();
        let done = self
            .states
            .iter()
            .rposition(|s| s.0 <= ops)
            .expect("the first is at 0");
        let allowed = &self.states[done..self.states.len().min(done + 2)];
        if !allowed.iter().any(|s| s.1 == found) {
            let which: Vec<_> = (0..self.states.len())
                .filter(|i| self.states[*i].1 == found)
                .collect();
            panic!("{what}: {done} calls had returned, it holds what it held after {which:?}");
        }
        drop(store);
        // And a crash while it recovered from this one.
        if random.below(8) == 0 {
            let log = medium.log();
            let again = random.below(log.len() + 1);
            let image = images(&image, &log, again, Loss::Torn, random);
            let store = open(&Medium::holding(image)).unwrap_or_else(|e| panic!("{what}, then {again}: {e}"));
            assert_eq!(self.workload.all(&store).unwrap(), found, "{what}, then {again}");
        }
    }
}

/// What a crash after `ops` of `log` leaves.
pub(crate) fn images(base: &[u8], log: &[Op], ops: usize, loss: Loss, random: &mut Lcg) -> Vec<u8> {
    let synced = log[..ops]
        .iter()
        .rposition(|op| matches!(op, Op::Sync))
        .map_or(0, |i| i + 1);
    let mut durable = base.to_vec();
    log[..synced].iter().for_each(|op| apply(&mut durable, op));
    crash(&durable, &log[synced..ops], loss, random)
}

#[test]
fn a_crash_leaves_whole_transactions() {
    run_seeds(2, |seed| {
        let history = record(seed);
        let mut random = Lcg(!seed);
        let mut durable = history.base.clone();
        let mut synced = 0;
        for ops in 0..=history.log.len() {
            if ops > 0 && matches!(history.log[ops - 1], Op::Sync) {
                history.log[synced..ops]
                    .iter()
                    .for_each(|op| apply(&mut durable, op));
                synced = ops;
            }
            for loss in [Loss::None, Loss::Some, Loss::Torn, Loss::CutOff] {
                // Nothing is unsynced: nothing can be lost.
                if synced == ops && !matches!(loss, Loss::None) {
                    continue;
                }
                let image = crash(&durable, &history.log[synced..ops], loss, &mut random);
                let what = format!("seed {seed}, crash after operation {ops}, loss {loss:?}");
                history.check(image, ops, &mut random, &what);
            }
        }
    });
}

#[test]
fn a_medium_that_fails_costs_no_more_than_the_call_in_flight() {
    run_seeds(1, |seed| {
        let history = record(seed);
        let mut random = Lcg(!seed);
        for at in 0..history.log.len() {
            let errno = [EIO, ENOSPC][random.below(2)];
            let what = format!("seed {seed}, error {errno} at operation {at}");
            let medium = Medium::holding(history.base.clone());
            let Ok(store) = open(&medium) else {
                panic!("{what}: a good medium")
            };
            let told = Arc::new(AtomicBool::new(false));
            let hears = told.clone();
            store.on_failure(move || hears.store(true, Relaxed));
            medium.fail(at, errno);
            let mut workload = Workload::new(seed);
            let mut done = 0;
            let error = (0..STEPS).find_map(|_| {
                let result = workload.step(&store);
                done += usize::from(result.is_ok());
                result.err()
            });
            assert_eq!(told.load(Relaxed), error.is_some(), "{what}: told of it");
            if let Some(error) = &error {
                let full = matches!(error, StoreError::Full { .. });
                assert_eq!(full, errno == ENOSPC, "{what}: {error}");
                // It stays closed: nothing is written on what is not known.
                let next = store.put_device(&device(0xee));
                assert!(next.is_err(), "{what}: it went on");
            }
            drop(store);
            assert!(medium.has_failed(), "{what}: nothing failed");
            if error.is_none() {
                // It failed after the last call, when the database was closed.
                assert_eq!(done, STEPS, "{what}");
            }
            // The machine stays up and the disk is well again; or it goes down too.
            let log = medium.log();
            let loss = [Loss::Some, Loss::Torn][random.below(2)];
            let down = images(&history.base, &log, log.len(), loss, &mut random);
            for image in [medium.seen(), down] {
                let store = open(&Medium::holding(image)).unwrap_or_else(|e| panic!("{what}: {e}"));
                let found = workload.all(&store).unwrap();
                let allowed = &history.states[done..history.states.len().min(done + 2)];
                assert!(allowed.iter().any(|s| s.1 == found), "{what}: after {done} calls");
            }
        }
    });
}
