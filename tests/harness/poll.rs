//! Waiting for something to become true, with a deadline. Holds the only sleep of the test suite.

use std::time::{Duration, Instant};

/// Longer than anything that works takes on a slow, busy machine: reaching it means it does not work.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Returns as soon as `check` is true; fails the test, naming `what`, when it is not within `limit`.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut check: impl FnMut() -> bool) {
    if poll(limit, || check().then_some(())).is_none() {
        panic!("not within {limit:?}: {what}");
    }
}

/// The first `Some` of `check`, or `None` at the deadline. `check` runs at least twice.
pub(crate) fn poll<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let last = start.elapsed() >= limit;
        if let Some(found) = check() {
            return Some(found);
        }
        if last {
            return None;
        }
        std::thread::sleep(STEP); // tidy: the only sleep
    }
}
