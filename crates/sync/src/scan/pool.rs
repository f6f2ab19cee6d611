//! Jobs and the threads that do them. Never knows what a job is about.

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Threads at least: hashing and walking overlap even on one core, since both wait for the disk.
const MIN_THREADS: usize = 2;
/// Threads at most: more than this only fight over the disk.
const MAX_THREADS: usize = 4;
/// What the calling thread does alone before others are started: a saved file needs no threads.
const ALONE: usize = 16;
/// And for how long.
const ALONE_TIME: Duration = Duration::from_millis(2);

/// What is still to be done.
pub(crate) struct Pool<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    /// Last in, first out: a tree is walked in depth, so that few directories are waiting at any time.
    short: Vec<J>,
    /// Jobs that take long; at most every other thread does them while there are others.
    long: Vec<J>,
    running: usize,
    stopped: bool,
}

impl<J: Send> Pool<J> {
    pub(crate) fn new() -> Self {
        Pool {
            state: Mutex::new(State {
                short: Vec::new(),
                long: Vec::new(),
                running: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, job: J) {
        self.state.lock().expect("not poisoned").short.push(job);
        self.changed.notify_one();
    }

    pub(crate) fn push_long(&self, job: J) {
        self.state.lock().expect("not poisoned").long.push(job);
        self.changed.notify_one();
    }

    /// No more jobs are begun.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        state.stopped = true;
        state.short.clear();
        state.long.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Does all jobs, and those that they push, and returns when none is left. Each thread makes a `W`.
    pub(crate) fn run<W>(&self, worker: &(dyn Fn() -> W + Sync), work: &(dyn Fn(&mut W, J) + Sync)) {
        let mut own = worker();
        let begun = Instant::now();
        for done in 0.. {
            if (done >= ALONE || begun.elapsed() > ALONE_TIME) && !stays_alone() {
                break;
            }
            match self.try_next() {
                Some(job) => self.work(&mut own, job, work),
                None => break,
            }
        }
        let state = self.state.lock().expect("not poisoned");
        if state.short.is_empty() && state.long.is_empty() {
            return;
        }
        drop(state);
        let threads = thread::available_parallelism().map_or(MIN_THREADS, usize::from);
        thread::scope(|scope| {
            for i in 1..threads.clamp(MIN_THREADS, MAX_THREADS) {
                scope.spawn(move || {
                    let mut own = worker();
                    while let Some(job) = self.next(i % 2 == 1) {
                        self.work(&mut own, job, work);
                    }
                });
            }
            while let Some(job) = self.next(false) {
                self.work(&mut own, job, work);
            }
        });
    }

    fn work<W>(&self, own: &mut W, job: J, work: &(dyn Fn(&mut W, J) + Sync)) {
        // Also when a job panics, the others must not wait for it for ever.
        struct Done<'a, J>(&'a Pool<J>);
        impl<J> Drop for Done<'_, J> {
            fn drop(&mut self) {
                let mut state = self.0.state.lock().expect("not poisoned");
                state.running -= 1;
                let idle = state.running == 0;
                drop(state);
                if idle {
                    self.0.changed.notify_all();
                }
            }
        }
        let _done = Done(self);
        work(own, job);
    }

    /// A short job if there is one at once; long ones are not for a thread that is alone.
    fn try_next(&self) -> Option<J> {
        let mut state = self.state.lock().expect("not poisoned");
        let job = state.short.pop()?;
        state.running += 1;
        Some(job)
    }

    /// Waits for a job; `None` when there will be none.
    fn next(&self, likes_long: bool) -> Option<J> {
        let mut state = self.state.lock().expect("not poisoned");
        loop {
            if state.stopped {
                return None;
            }
            let job = if likes_long {
                state.long.pop().or_else(|| state.short.pop())
            } else {
                state.short.pop().or_else(|| state.long.pop())
            };
            if let Some(job) = job {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).expect("not poisoned");
        }
    }
}

/// A simulated machine has one core, and its history must not hang on a scheduler.
fn stays_alone() -> bool {
    #[cfg(test)]
    if crate::sim::current().is_some() {
        return true;
    }
    false
}
