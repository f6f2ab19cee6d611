//! Findings on their way out: in batches, in order. Never reorders, never keeps one for long.

use std::sync::Mutex;
use std::time::Duration;

use super::Found;
use crate::clock::steady;
use crate::failpoint::point;

/// Findings in one batch at most: one commit's worth.
const BATCH: usize = 256;
/// How long a finding waits for others.
const WAIT: Duration = Duration::from_millis(100);

pub(super) struct Batches<'a> {
    out: &'a (dyn Fn(Vec<Found>) + Sync),
    /// Held while `out` runs, so that batches leave in the order in which they were begun.
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    found: Vec<Found>,
    since: Option<Duration>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(out: &'a (dyn Fn(Vec<Found>) + Sync)) -> Self {
        Batches {
            out,
            open: Mutex::default(),
        }
    }

    pub(super) fn push(&self, found: Found) {
        let mut open = self.open.lock().expect("`out` does not panic");
        open.found.push(found);
        let since = *open.since.get_or_insert_with(steady);
        if open.found.len() >= BATCH || steady().saturating_sub(since) >= WAIT {
            self.send(&mut open);
        }
    }

    /// Lets a batch go that has waited long enough.
    pub(super) fn tick(&self) {
        if let Ok(mut open) = self.open.try_lock()
            && open
                .since
                .is_some_and(|since| steady().saturating_sub(since) >= WAIT)
        {
            self.send(&mut open);
        }
    }

    pub(super) fn flush(&self) {
        self.send(&mut self.open.lock().expect("`out` does not panic"));
    }

    fn send(&self, open: &mut Open) {
        open.since = None;
        if !open.found.is_empty() {
            point("scan.batch");
            (self.out)(std::mem::take(&mut open.found));
            point("scan.batch.sent");
        }
    }
}
