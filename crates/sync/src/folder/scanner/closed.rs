//! Files that programs have closed after they had them open for writing, on file systems where what is written by way of
//! a shared memory map may leave the fingerprint as it was. The kernel tells its end by this alone, so these files are
//! hashed whatever their fingerprints say, and what is found counts as an edit. Never looks at one itself.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use alike_core::path::RelPath;

/// So many are remembered; of more, what a memory map wrote is found by `sync verify` at the latest.
const MAX: usize = 200_000;

/// A file over this many bytes that is closed again and again is not hashed each time.
const BIG: u64 = 64 << 20;
/// But so that this many bytes a second are read of it: one of 50 GiB every 53 minutes.
const RATE: u64 = 16 << 20;

/// The files that were closed and not looked at since.
#[derive(Debug, Default)]
pub(super) struct Closed {
    files: HashSet<RelPath>,
    /// When a big one may be hashed again without a change that shows.
    resting: HashMap<RelPath, Instant>,
}

impl Closed {
    pub(super) fn add(&mut self, path: RelPath) {
        if self.files.len() < MAX {
            self.files.insert(path);
        }
    }

    /// Takes out what a look at these paths, or at everything, concerns.
    pub(super) fn take(&mut self, at: &[RelPath], full: bool) -> HashSet<RelPath> {
        if full {
            return std::mem::take(&mut self.files);
        }
        at.iter().filter_map(|path| self.files.take(path)).collect()
    }

    /// Of what was taken out, puts back what was hashed only lately, until a later look.
    pub(super) fn spare(
        &mut self,
        taken: &mut HashSet<RelPath>,
        size: impl Fn(&RelPath) -> u64,
        now: Instant,
    ) {
        self.resting.retain(|_, until| *until > now);
        taken.retain(|path| {
            if self.resting.contains_key(path) {
                self.add(path.clone());
                return false;
            }
            let size = size(path);
            if size > BIG {
                let until = now + Duration::from_secs(size / RATE);
                self.resting.insert(path.clone(), until);
            }
            true
        });
    }

    /// A look is over, and has not come to an end with those.
    pub(super) fn put_back(&mut self, paths: impl Iterator<Item = RelPath>) {
        paths.for_each(|path| self.add(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_file_waits_for_a_look_that_reads_it() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).expect("a path");
        let mut closed = Closed::default();
        closed.add(path("a"));
        closed.add(path("b"));
        assert!(closed.take(&[path("c")], false).is_empty());
        assert_eq!(closed.take(&[path("a")], false), HashSet::from([path("a")]));
        assert!(closed.take(&[path("a")], false).is_empty());
        closed.put_back([path("a")].into_iter());
        assert_eq!(closed.take(&[], true), HashSet::from([path("a"), path("b")]));
    }

    #[test]
    fn a_big_file_that_is_closed_again_and_again_is_hashed_now_and_then() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).expect("a path");
        let size = |of: &RelPath| if *of == path("disk image") { 50 << 30 } else { BIG };
        let mut closed = Closed::default();
        let begin = Instant::now();
        let mut hashed = HashMap::new();
        for second in 0..2 * 3600 {
            closed.add(path("disk image"));
            closed.add(path("small"));
            let mut taken = closed.take(&[path("disk image"), path("small")], second % 2 == 0);
            closed.spare(&mut taken, size, begin + Duration::from_secs(second));
            for path in taken {
                *hashed.entry(path).or_insert(0) += 1;
            }
        }
        assert_eq!(hashed[&path("disk image")], 3);
        assert_eq!(hashed[&path("small")], 2 * 3600);
        assert_eq!(closed.take(&[], true), HashSet::from([path("disk image")]));
    }
}
