//! Which files programs have written to lately, as far as the watcher tells: a content that has changed while the
//! watcher saw nobody write, under the same time of change, is damage rather than an edit. Never looks at a file.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use alike_core::path::RelPath;

use crate::scan::Wrote;

/// So many are remembered.
const MAX: usize = 200_000;
/// And at least for so long: what a look found may be dropped for many reasons, and is looked at again.
const KEEP: Duration = Duration::from_secs(600);

/// The files that were written to.
#[derive(Debug)]
pub(super) struct Written {
    files: HashMap<RelPath, Instant>,
    /// Since when there may be others.
    lost: Option<Instant>,
}

impl Default for Written {
    /// Before the watcher has begun.
    fn default() -> Written {
        Written {
            files: HashMap::new(),
            lost: Some(Instant::now()),
        }
    }
}

impl Written {
    pub(super) fn add(&mut self, path: RelPath, now: Instant) {
        if self.files.len() < MAX || self.files.contains_key(&path) {
            self.files.insert(path, now);
        } else {
            self.lost();
        }
    }

    /// The watcher has not told all.
    pub(super) fn lost(&mut self) {
        self.lost = Some(Instant::now());
    }

    /// All there is was looked at, from then on. What was written before that has been found.
    pub(super) fn looked_at_everything(&mut self, began: Instant) {
        self.files.retain(|_, at| *at + KEEP > began);
        if self.lost.is_some_and(|lost| lost < began) {
            self.lost = None;
        }
    }

    pub(super) fn wrote(&self, path: &RelPath) -> Wrote {
        if self.files.contains_key(path) {
            Wrote::Yes
        } else if self.lost.is_some() {
            Wrote::Unknown
        } else {
            Wrote::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(n: usize) -> RelPath {
        RelPath::parse(format!("f{n}").as_bytes()).expect("a path")
    }

    #[test]
    fn who_has_not_watched_does_not_know() {
        let mut written = Written::default();
        let began = Instant::now();
        assert_eq!(written.wrote(&path(1)), Wrote::Unknown);
        written.add(path(1), began);
        assert_eq!(written.wrote(&path(1)), Wrote::Yes);
        written.looked_at_everything(began);
        assert_eq!(
            (written.wrote(&path(1)), written.wrote(&path(2))),
            (Wrote::Yes, Wrote::No)
        );
        written.lost();
        // That look began too early.
        written.looked_at_everything(began);
        assert_eq!(written.wrote(&path(2)), Wrote::Unknown);
        let later = Instant::now() + KEEP * 2;
        written.looked_at_everything(later);
        assert_eq!(written.wrote(&path(1)), Wrote::No, "forgotten after a while");
        for n in 0..=MAX {
            written.add(path(n), later);
        }
        assert_eq!(written.wrote(&path(MAX)), Wrote::Unknown, "too many to remember");
    }
}
