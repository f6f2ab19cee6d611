//! Files that are never quiet for long enough to be read whole: since when, and which of them a person should hear
//! of. Never decides when to look again.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use alike_core::path::RelPath;

use crate::folder::Problem;

/// A file that nobody could read whole for so long is reported.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// What `status` says of such a file.
pub(crate) fn problem(path: &RelPath) -> (RelPath, Problem) {
    let problem = Problem {
        reason: "is being written all the time; it is taken when it is quiet".to_owned(),
        hint: "nothing, if that is what it is for: nobody waits for it; or let its program pause, or keep it elsewhere"
            .to_owned(),
    };
    (path.clone(), problem)
}

/// What could not be read because it kept changing.
#[derive(Debug, Default)]
pub(super) struct Hot {
    since: HashMap<RelPath, Instant>,
    told: BTreeSet<RelPath>,
}

impl Hot {
    /// A look is over: it was at these paths (at everything, if the root is among them), and these kept changing.
    pub(super) fn looked(&mut self, at: &[RelPath], busy: &[RelPath], now: Instant) {
        let busy: BTreeSet<&RelPath> = busy.iter().collect();
        self.since
            .retain(|path, _| busy.contains(path) || !at.iter().any(|at| path.is_within(at)));
        for path in busy {
            self.since.entry(path.clone()).or_insert(now);
        }
    }

    /// Those to be reported by now, if they are not those of the last time.
    pub(super) fn news(&mut self, now: Instant) -> Option<BTreeSet<RelPath>> {
        let long = |since: &Instant| now.saturating_duration_since(*since) >= REPORT_AFTER;
        let report: BTreeSet<RelPath> = self
            .since
            .iter()
            .filter(|(_, since)| long(since))
            .map(|(path, _)| path.clone())
            .collect();
        if report == self.told {
            return None;
        }
        self.told.clone_from(&report);
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_for_long_is_reported_once_and_until_it_was_read() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).expect("a path");
        let (log, other) = (path("logs/log"), path("logs/other"));
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut hot = Hot::default();
        hot.looked(std::slice::from_ref(&log), std::slice::from_ref(&log), start);
        assert_eq!(hot.news(at(9)), None, "not yet");
        hot.looked(&[RelPath::root()], &[log.clone(), other.clone()], at(9));
        assert_eq!(hot.news(at(10)), Some(BTreeSet::from([log.clone()])));
        hot.looked(std::slice::from_ref(&log), std::slice::from_ref(&log), at(11));
        assert_eq!(hot.news(at(11)), None, "said already");
        hot.looked(std::slice::from_ref(&other), &[], at(12));
        assert_eq!(hot.news(at(30)), None, "the other was read in time");
        hot.looked(std::slice::from_ref(&log), &[], at(31));
        assert_eq!(hot.news(at(31)), Some(BTreeSet::new()), "it was read");
        assert_eq!(hot.news(at(60)), None);
    }
}
