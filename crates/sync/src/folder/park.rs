//! Paths of HEAD that cannot be put on this disk as HEAD wants them, for a reason that waiting does not mend: a name
//! that the file system does not take, a pipe in the way, a directory that holds what is not synced. They stay in
//! HEAD and pending in the database, but do not count as pending, so that nobody waits for them. They are tried
//! again when HEAD changes there, when a scan looks there, and after a start. Never decides what is wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;

use alike_core::path::RelPath;

/// The parked paths of a folder. The folder's thread parks, its puller leaves them alone.
#[derive(Debug, Default)]
pub(crate) struct Parked(Mutex<BTreeMap<RelPath, u64>>);

impl Parked {
    fn paths(&self) -> std::sync::MutexGuard<'_, BTreeMap<RelPath, u64>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Parks a path for which `bytes` would be to fetch.
    pub(crate) fn park(&self, path: RelPath, bytes: u64) {
        self.paths().insert(path, bytes);
    }

    /// Is it parked?
    pub(crate) fn holds(&self, path: &RelPath) -> bool {
        self.paths().contains_key(path)
    }

    /// Is a directory that it is in parked? Then it cannot be there either.
    pub(crate) fn holds_above(&self, path: &RelPath) -> bool {
        let paths = self.paths();
        !paths.is_empty()
            && std::iter::successors(path.parent(), RelPath::parent).any(|above| paths.contains_key(&above))
    }

    /// It is as HEAD wants it, or HEAD wants something else.
    pub(crate) fn forget(&self, path: &RelPath) {
        self.paths().remove(path);
    }

    /// Somebody looks at these: what is parked at, in or around them may be possible now.
    pub(crate) fn release(&self, looked_at: &[RelPath]) {
        self.paths().retain(|path, _| {
            !looked_at
                .iter()
                .any(|at| path.is_within(at) || at.is_within(path))
        });
    }

    /// How many, and bytes.
    pub(crate) fn total(&self) -> (u64, u64) {
        let paths = self.paths();
        (
            paths.len() as u64,
            paths.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_is_tried_again_with_all_that_is_around_it() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).expect("a path");
        let parked = Parked::default();
        for (name, bytes) in [("d", 0), ("d/e/f", 5), ("dx", 7)] {
            parked.park(path(name), bytes);
        }
        assert!(parked.holds(&path("d")) && !parked.holds(&path("d/e")));
        assert!(parked.holds_above(&path("d/e")) && !parked.holds_above(&path("d")));
        assert_eq!(parked.total(), (3, 12));
        parked.release(&[path("d/e")]);
        assert_eq!(parked.total(), (1, 7));
        parked.release(&[RelPath::root()]);
        assert_eq!(parked.total(), (0, 0));
    }
}
