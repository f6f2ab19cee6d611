//! What a scan no longer found, until it is known how much it is: a directory that is being deleted is gone in
//! one piece, not in as many as there were looks at it. Never decides what much is; the folder's thread does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use alike_core::path::RelPath;
use alike_core::record::Value;
use tokio::sync::oneshot;

use super::super::FolderEvent;
use super::Scanner;
use crate::scan::Finding;

/// Passed on when no more came for this long …
const QUIET: Duration = Duration::from_millis(300);
/// … or after this long, should there be no end of them.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Is it about something that is not there any more: a path, or a directory whose place another thing took?
pub(crate) fn is_gone(finding: &Finding) -> bool {
    let was_dir = finding
        .base
        .as_ref()
        .is_some_and(|row| row.mat.value == Value::Dir);
    match &finding.seen {
        None => true,
        Some((seen, _)) => was_dir && seen.value != Value::Dir,
    }
}

/// What is gone and not passed on yet.
#[derive(Default)]
pub(super) struct Gone {
    findings: BTreeMap<RelPath, Finding>,
    /// A look at everything ended: this is all that is gone.
    full: bool,
    times: Option<(Instant, Instant)>,
    /// Answered when it is passed on.
    waiting: Vec<oneshot::Sender<()>>,
}

/// What is to be passed on now.
pub(super) struct Passed {
    pub(super) findings: Vec<Finding>,
    pub(super) full: bool,
    pub(super) waiting: Vec<oneshot::Sender<()>>,
}

impl Gone {
    /// Takes what a scan came to. `full`: it looked at everything.
    pub(super) fn add(&mut self, findings: Vec<Finding>, full: bool, now: Instant) {
        self.full |= full;
        if findings.is_empty() {
            return;
        }
        for finding in findings {
            self.findings.insert(finding.path.clone(), finding);
        }
        let began = self.times.map_or(now, |(began, _)| began);
        self.times = Some((began, now));
    }

    /// When to pass it on; `None` = now, if there is anything.
    pub(super) fn due(&self) -> Option<Instant> {
        self.times
            .map(|(began, last)| (last + QUIET).min(began + MAX_DELAY))
    }

    /// Is nothing waiting?
    pub(super) fn is_empty(&self) -> bool {
        self.findings.is_empty() && !self.full
    }

    /// Answers when what is gone by now is passed on.
    pub(super) fn wait(&mut self, reply: oneshot::Sender<()>) {
        self.waiting.push(reply);
    }

    /// Empties it.
    pub(super) fn take(&mut self) -> Passed {
        let Gone {
            findings,
            full,
            waiting,
            times: _,
        } = std::mem::take(self);
        Passed {
            findings: findings.into_values().collect(),
            full,
            waiting,
        }
    }
}

impl Scanner {
    /// Answers a barrier when everything that was found before it is committed.
    pub(super) fn answer(&mut self, reply: oneshot::Sender<()>) {
        if self.gone.is_empty() {
            let _ = self.folder.send(FolderEvent::Barrier(reply));
        } else {
            self.gone.wait(reply);
        }
    }

    /// Passes on what is gone if nothing more of it has come for long enough: the end of what began with a scan.
    pub(super) fn pass_on_gone_in_time(&mut self) {
        if self.gone.due().is_some_and(|due| due <= Instant::now()) {
            self.pass_on_gone();
            let (full, more) = (false, false);
            let _ = self.folder.send(FolderEvent::ScanEnds { full, more });
        }
    }

    /// Hands what is gone to the folder's thread, in one piece.
    pub(super) fn pass_on_gone(&mut self) {
        let Passed {
            mut findings,
            full,
            waiting,
        } = self.gone.take();
        // It waited for more of its kind; some of it may be there again, or be another thing by now.
        let root = &self.place.root;
        let back: Vec<_> = findings.extract_if(.., |f| !f.is_still_so(root)).collect();
        let now = Instant::now();
        back.into_iter().for_each(|f| self.dirty.mark(f.path, now));
        if self.place.root.check(&self.place.row.marker).is_err() {
            // An empty mount point looks as if everything was gone.
            self.full_due = Some(Instant::now());
        } else {
            let _ = self.folder.send(FolderEvent::Gone { findings, full });
        }
        for reply in waiting {
            let _ = self.folder.send(FolderEvent::Barrier(reply));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str) -> Finding {
        Finding {
            path: RelPath::parse(name.as_bytes()).expect("a path"),
            seen: None,
            racy: false,
            base: None,
            mtime: 0,
            wrote: crate::scan::Wrote::Unknown,
            unreadable: false,
        }
    }

    fn findings(from: usize, to: usize) -> Vec<Finding> {
        (from..to).map(|n| finding(&format!("f{n:03}"))).collect()
    }

    #[test]
    fn what_goes_little_by_little_is_passed_on_in_one_piece() {
        let now = Instant::now();
        let mut gone = Gone::default();
        gone.add(findings(0, 1), false, now);
        assert_eq!(gone.due(), Some(now + QUIET));
        let later = now + Duration::from_millis(200);
        gone.add(findings(1, 20), false, later);
        assert_eq!(gone.due(), Some(later + QUIET));
        assert_eq!(gone.take().findings.len(), 20);
        assert!(gone.is_empty() && gone.due().is_none());
    }

    #[test]
    fn there_is_an_end_to_waiting_for_more() {
        let now = Instant::now();
        let mut gone = Gone::default();
        for n in 0..100 {
            gone.add(findings(n * 20, n * 20 + 20), false, now + n as u32 * QUIET / 2);
        }
        assert_eq!(gone.due(), Some(now + MAX_DELAY));
    }

    #[test]
    fn a_complete_look_without_any_is_news_too() {
        let mut gone = Gone::default();
        gone.add(Vec::new(), true, Instant::now());
        assert!(!gone.is_empty() && gone.due().is_none());
        assert!(gone.take().full);
    }
}
