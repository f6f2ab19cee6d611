//! Files that programs have closed after they had them open for writing. What is written by way of a shared memory map
//! may leave the fingerprint as it was; the kernel tells its end by this alone, so these files are hashed whatever
//! their fingerprints say, and what is found counts as an edit. Never looks at one itself.

use std::collections::HashSet;

use alike_core::path::RelPath;

/// So many are remembered; of more, what a memory map wrote is found by `sync verify` at the latest.
const MAX: usize = 200_000;

/// The files that were closed and not looked at since.
#[derive(Debug, Default)]
pub(super) struct Closed(HashSet<RelPath>);

impl Closed {
    pub(super) fn add(&mut self, path: RelPath) {
        if self.0.len() < MAX {
            self.0.insert(path);
        }
    }

    /// Takes out what a look at these paths, or at everything, concerns.
    pub(super) fn take(&mut self, at: &[RelPath], full: bool) -> HashSet<RelPath> {
        if full {
            return std::mem::take(&mut self.0);
        }
        at.iter().filter_map(|path| self.0.take(path)).collect()
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
}
