//! Paths that wait to be looked at, and when: debounced, and ever more rarely where something is written all the time.
//! Never looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use alike_core::path::RelPath;

/// A path is looked at after this long without a further hint about it.
const QUIET: Duration = Duration::from_millis(40);
/// … or after this long with hints all the time.
const MAX_DELAY: Duration = Duration::from_millis(500);
/// A path that is written again and again is looked at ever more rarely, up to this.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Since when a path waits, and until when.
struct Due {
    first: Instant,
    at: Instant,
}

#[derive(Default)]
pub(super) struct Dirty {
    paths: HashMap<RelPath, Due>,
    /// When a path was last looked at, and how long the next look waits: only paths that keep changing.
    hot: HashMap<RelPath, (Instant, Duration)>,
    /// No path is due before then: a hint costs the same however many wait.
    earliest: Option<Instant>,
}

impl Dirty {
    /// Something was said of a path.
    pub(super) fn mark(&mut self, path: RelPath, now: Instant) {
        let quiet = match self.hot.get(&path) {
            Some((_, backoff)) => *backoff,
            None => QUIET,
        };
        let limit = MAX_DELAY.max(quiet);
        let due = self.paths.entry(path).or_insert(Due { first: now, at: now });
        due.at = (now + quiet).min(due.first + limit);
        let earliest = self.earliest.map_or(due.at, |earliest| earliest.min(due.at));
        self.earliest = Some(earliest);
    }

    /// A path could not be read, for it kept changing.
    pub(super) fn mark_busy(&mut self, path: RelPath, now: Instant) {
        self.hot.entry(path.clone()).or_insert((now, QUIET * 4));
        self.mark(path, now);
    }

    /// Takes out what is due by `until`; it is looked at `now`.
    pub(super) fn take(&mut self, until: Instant, now: Instant) -> Vec<RelPath> {
        if self.earliest.is_none_or(|earliest| until < earliest) {
            return Vec::new();
        }
        let due: Vec<RelPath> = self
            .paths
            .extract_if(|_, due| due.at <= until)
            .map(|(path, _)| path)
            .collect();
        self.earliest = self.paths.values().map(|due| due.at).min();
        if due.is_empty() {
            return due;
        }
        self.hot.retain(|_, (last, backoff)| now < *last + *backoff * 4);
        for path in &due {
            let next = match self.hot.get(path) {
                Some((_, backoff)) => (*backoff * 2).min(MAX_BACKOFF),
                None => QUIET * 2,
            };
            self.hot.insert(path.clone(), (now, next));
        }
        due
    }

    /// When to look again whether something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.earliest
    }

    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Forgets what waits: everything is looked at.
    pub(super) fn clear(&mut self) {
        self.paths.clear();
        self.earliest = None;
    }

    /// Does anything wait that somebody should wait for? A file that is always being written never blocks its folder.
    pub(super) fn counts(&self) -> bool {
        let is_hot = |path| {
            self.hot
                .get(path)
                .is_some_and(|(_, backoff)| *backoff >= MAX_BACKOFF)
        };
        !self.paths.keys().all(is_hot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(name: &str) -> RelPath {
        RelPath::parse(name.as_bytes()).expect("a path")
    }

    #[test]
    fn a_path_is_due_when_it_is_quiet_or_has_waited_for_long() {
        let (mut dirty, now) = (Dirty::default(), Instant::now());
        dirty.mark(rel("a"), now);
        assert!(dirty.take(now, now).is_empty() && dirty.counts());
        let mut at = now;
        while at < now + MAX_DELAY {
            dirty.mark(rel("a"), at);
            assert!(dirty.take(at, at).is_empty());
            at += QUIET / 2;
        }
        dirty.mark(rel("b"), at);
        assert_eq!(dirty.take(now + MAX_DELAY, at), [rel("a")]);
        assert_eq!(dirty.next(), Some(at + QUIET));
        assert_eq!(dirty.take(at + QUIET, at), [rel("b")]);
        assert!(dirty.next().is_none() && !dirty.counts());
    }

    #[test]
    fn what_is_written_all_the_time_is_looked_at_ever_more_rarely_and_waited_for_no_more() {
        let (mut dirty, mut now) = (Dirty::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            dirty.mark(rel("log"), now);
            let due = dirty.next().unwrap();
            waits.push(due - now);
            now = due;
            assert_eq!(dirty.take(now, now), [rel("log")]);
        }
        assert!(
            waits.is_sorted() && waits[0] == QUIET && waits[7] == MAX_BACKOFF,
            "{waits:?}"
        );
        dirty.mark(rel("log"), now);
        assert!(!dirty.counts());
        dirty.mark(rel("other"), now);
        assert!(dirty.counts());
    }
}
