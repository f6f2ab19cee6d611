//! When to look at the disk: hints from the watcher, debounced per path; scans of everything at the start, on
//! overflow and now and then. A thread of its own; findings go to the folder's thread. Never commits anything.

mod closed;
mod dirty;
pub(crate) mod gone;
pub(crate) mod hot;
mod thread;
mod written;

pub(crate) use thread::ScannerThread;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::StoreError;
use tokio::sync::{oneshot, watch};

use super::{FolderEvent, Inbox, Place};
use crate::scan::{Finding, Found, Scan, Target};
use crate::watch::{Hint, Watch, WatchError};

/// After a look, none for as long as it took, at most this.
const MAX_REST: Duration = Duration::from_millis(250);
/// Everything is looked at this often, should a hint have been missed.
const FULL_SCAN: Duration = Duration::from_secs(3600);
/// … or this often when the system gives no more watches.
const FULL_SCAN_BLIND: Duration = Duration::from_secs(60);
/// … or this often while what is gone waits for a person's answer: it may be back.
const FULL_SCAN_HELD: Duration = Duration::from_secs(20);
/// … but after changes meanwhile not before this long after the last time.
const HELD_REST: Duration = Duration::from_secs(3);
/// A look at everything that cannot help yet is put off for so long.
const LATER: Duration = Duration::from_secs(3);
/// How often a frozen folder is looked at again.
const FROZEN_RETRY: Duration = Duration::from_secs(2);
/// More dirty paths than this become one scan of everything.
const MAX_DIRTY: usize = 50_000;
/// A barrier whose cookie does not come back this long (no watcher) falls back to a scan of everything.
const COOKIE_TIMEOUT: Duration = Duration::from_secs(5);

/// What reaches the scanner.
#[derive(Debug)]
pub(crate) enum ScanInput {
    /// From the watcher.
    Hint(Hint),
    /// The folder's thread wants a path looked at again.
    Rescan(RelPath),
    /// Answered when everything that was saved before is committed.
    Barrier(oneshot::Sender<()>),
    /// Everything has to be looked at again.
    Full,
    /// … after a while.
    Later,
    /// A mass removal waits for an answer, or not any more.
    Held(bool),
    /// Stop looking, or start again.
    Pause(bool),
    /// The end.
    Stop,
}

/// What the scanner is doing, for `status` and `wait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// A scan is running.
    pub(crate) scanning: bool,
    /// Paths wait to be looked at.
    pub(crate) dirty: bool,
    /// The first look at everything since the start is over.
    pub(crate) complete: bool,
}

struct Waiting {
    cookie: u64,
    since: Instant,
    reply: oneshot::Sender<()>,
}

struct Scanner {
    place: Arc<Place>,
    input: mpsc::Sender<ScanInput>,
    folder: Inbox,
    publish: watch::Sender<Activity>,
    activity: Activity,
    stop: Arc<AtomicBool>,
    watch: Option<Watch>,
    dirty: dirty::Dirty,
    closed: closed::Closed,
    written: written::Written,
    /// What a program writes through a memory map shows in the times of files here.
    maps_show: bool,
    never_quiet: hot::Hot,
    full_due: Option<Instant>,
    /// No look before then, but for a barrier: in a storm of hints, commits get larger rather than more.
    rest_until: Instant,
    last_full: Instant,
    barriers: Vec<Waiting>,
    gone: gone::Gone,
    /// A mass removal waits for an answer.
    held: bool,
    next_cookie: u64,
    paused: bool,
    frozen: bool,
    /// The system gives no more watches.
    blind: bool,
}

impl Scanner {
    fn new(
        place: Arc<Place>,
        input: mpsc::Sender<ScanInput>,
        folder: Inbox,
        publish: watch::Sender<Activity>,
        stop: Arc<AtomicBool>,
        paused: bool,
    ) -> Scanner {
        Scanner {
            maps_show: place.root.maps_show_after().is_some(),
            place,
            input,
            folder,
            publish,
            activity: Activity {
                dirty: true,
                ..Activity::default()
            },
            stop,
            watch: None,
            dirty: dirty::Dirty::default(),
            closed: closed::Closed::default(),
            written: written::Written::default(),
            never_quiet: hot::Hot::default(),
            full_due: Some(Instant::now()),
            rest_until: Instant::now(),
            last_full: Instant::now(),
            barriers: Vec::new(),
            gone: gone::Gone::default(),
            held: false,
            next_cookie: 0,
            paused,
            frozen: false,
            blind: false,
        }
    }

    fn run(&mut self, inbox: &mpsc::Receiver<ScanInput>) {
        self.open_watch();
        loop {
            self.show();
            let wait = self.next_due().saturating_duration_since(Instant::now());
            match inbox.recv_timeout(wait) {
                Ok(ScanInput::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(input) => {
                    self.take(input);
                    // Everything that is already there, so that one scan serves a burst.
                    while let Ok(input) = inbox.try_recv() {
                        if matches!(input, ScanInput::Stop) {
                            return;
                        }
                        self.take(input);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.paused {
                self.turn();
            }
        }
    }

    fn open_watch(&mut self) {
        let input = self.input.clone();
        let watch = Watch::new(&self.place.root, move |hint| {
            let _ = input.send(ScanInput::Hint(hint));
        });
        match watch {
            Ok(watch) => self.watch = Some(watch),
            Err(reason) => self.go_blind(reason),
        }
    }

    fn go_blind(&mut self, reason: String) {
        self.blind = true;
        self.written.lost();
        let _ = self.folder.send(FolderEvent::Watching(Err(reason)));
    }

    fn take(&mut self, input: ScanInput) {
        let now = Instant::now();
        match input {
            ScanInput::Hint(Hint::Dirty(path)) => self.dirty.mark(path, now),
            ScanInput::Hint(Hint::Written(path)) => {
                self.written.add(path.clone(), now);
                self.dirty.mark(path, now);
            }
            ScanInput::Hint(Hint::Closed(path)) => {
                if !self.maps_show {
                    self.closed.add(path.clone());
                    self.written.add(path.clone(), now);
                }
                self.dirty.mark(path, now);
            }
            ScanInput::Rescan(path) => self.dirty.mark(path, now),
            ScanInput::Hint(Hint::Overflow) => {
                self.written.lost();
                self.full_due = Some(now);
            }
            ScanInput::Full => self.full_due = Some(now),
            ScanInput::Later => {
                let at = now + LATER;
                self.full_due = Some(self.full_due.map_or(at, |due| due.min(at)));
            }
            ScanInput::Held(held) => self.held = held,
            ScanInput::Hint(Hint::Failed(reason)) => {
                self.go_blind(reason);
                self.full_due = Some(now);
            }
            ScanInput::Hint(Hint::Cookie(n)) => {
                // The watcher reports in order: everything before the cookie is marked by now.
                if self.barriers.iter().any(|b| b.cookie <= n) {
                    self.flush();
                }
                let passed: Vec<_> = self.barriers.extract_if(.., |b| b.cookie <= n).collect();
                passed.into_iter().for_each(|barrier| self.answer(barrier.reply));
            }
            ScanInput::Barrier(reply) => self.begin_barrier(reply, now),
            ScanInput::Pause(paused) => {
                if self.paused && !paused {
                    self.full_due = Some(now);
                }
                self.paused = paused;
            }
            ScanInput::Stop => {}
        }
        if self.dirty.len() > MAX_DIRTY {
            self.dirty.clear();
            self.full_due = Some(now);
        }
    }

    fn begin_barrier(&mut self, reply: oneshot::Sender<()>, now: Instant) {
        if self.paused || self.frozen {
            let _ = self.folder.send(FolderEvent::Barrier(reply));
            return;
        }
        self.next_cookie += 1;
        let cookie = self.next_cookie;
        let sent = !self.blind && self.watch.as_ref().is_some_and(|w| w.cookie(cookie).is_ok());
        if sent {
            self.barriers.push(Waiting {
                cookie,
                since: now,
                reply,
            });
        } else {
            self.full_due = Some(now);
            self.flush();
            self.answer(reply);
        }
    }

    /// When everything is looked at again, whatever the hints say.
    fn next_full(&self) -> Instant {
        let every = if self.held {
            FULL_SCAN_HELD
        } else if self.blind {
            FULL_SCAN_BLIND
        } else {
            FULL_SCAN
        };
        self.last_full + every
    }

    /// When there is something to do at the latest.
    fn next_due(&self) -> Instant {
        let mut due = self.next_full();
        if let Some(full) = self.full_due {
            due = due.min(full);
        }
        if self.paused {
            return due.max(Instant::now() + Duration::from_secs(60));
        }
        if let Some(first) = self.dirty.next() {
            due = due.min(first.max(self.rest_until));
        }
        if let Some(first) = self.barriers.iter().map(|b| b.since + COOKIE_TIMEOUT).min() {
            due = due.min(first);
        }
        if let Some(gone) = self.gone.due() {
            due = due.min(gone);
        }
        if self.frozen {
            due.max(Instant::now() + FROZEN_RETRY)
        } else {
            due
        }
    }

    /// Does what is due.
    fn turn(&mut self) {
        let now = Instant::now();
        if let Err(reason) = self.place.root.check(&self.place.row.marker) {
            if !self.frozen {
                tracing::warn!(folder = %self.place.row.name, "{reason}");
                let _ = self.folder.send(FolderEvent::Frozen(Some(reason)));
            }
            self.frozen = true;
            self.full_due = Some(now);
            return;
        }
        if std::mem::take(&mut self.frozen) {
            let _ = self.folder.send(FolderEvent::Frozen(None));
            self.written.lost();
            self.open_watch();
            self.full_due = Some(now);
        }
        let late: Vec<_> = self
            .barriers
            .extract_if(.., |b| b.since + COOKIE_TIMEOUT <= now)
            .collect();
        if !late.is_empty() {
            self.full_due = Some(now);
        }
        if self.full_due.is_some_and(|due| due <= now) || self.next_full() <= now {
            self.full();
        }
        if self.rest_until <= now || !late.is_empty() {
            self.scan_due(now);
        }
        self.pass_on_gone_in_time();
        late.into_iter().for_each(|barrier| self.answer(barrier.reply));
    }

    fn full(&mut self) {
        self.full_due = None;
        self.dirty.clear();
        let began = Instant::now();
        let complete = self.scan(vec![Target::Tree(RelPath::root())], true);
        self.last_full = Instant::now();
        if complete {
            if !self.blind {
                self.written.looked_at_everything(began);
            }
            self.activity.complete = true;
        } else if !self.stop.load(Ordering::Relaxed) {
            self.full_due = Some(Instant::now() + FROZEN_RETRY);
        }
    }

    /// Looks at everything marked, due or not.
    fn flush(&mut self) {
        if self.full_due.take().is_some() {
            self.full();
        }
        self.scan_due(Instant::now() + dirty::MAX_BACKOFF);
    }

    fn scan_due(&mut self, now: Instant) {
        let due = self.dirty.take(now, Instant::now());
        if due.is_empty() {
            return;
        }
        if self.held && self.full_due.is_none() {
            // Somebody may be putting back what is gone: only a look at everything shows it.
            self.full_due = Some(self.last_full + HELD_REST);
        }
        if !self.scan(due.into_iter().map(Target::Path).collect(), false) {
            // Whatever kept it from looking: these paths are not forgotten.
            self.full_due = Some(Instant::now() + FROZEN_RETRY);
        }
    }

    /// One run of the scan. Returns whether it saw everything it was to look at.
    fn scan(&mut self, targets: Vec<Target>, full: bool) -> bool {
        let began = Instant::now();
        self.activity.scanning = true;
        self.show();
        let paths = targets
            .iter()
            .map(|(Target::Path(p) | Target::Tree(p))| p.clone())
            .collect();
        let _ = self.folder.send(FolderEvent::ScanBegins(paths));
        let complete = self.scan_targets(targets, full);
        if self.gone.due().is_none() && !self.gone.is_empty() {
            self.pass_on_gone();
        }
        let _ = self.folder.send(FolderEvent::ScanEnds {
            full: full && complete,
            more: !self.gone.is_empty(),
        });
        let _ = self.folder.send(FolderEvent::Rules);
        self.activity.scanning = false;
        let now = Instant::now();
        self.rest_until = now + (now - began).min(MAX_REST);
        complete
    }

    fn scan_targets(&mut self, targets: Vec<Target>, full: bool) -> bool {
        let busy: Mutex<Vec<RelPath>> = Mutex::new(Vec::new());
        let newly: Mutex<HashSet<RelPath>> = Mutex::new(HashSet::new());
        let no_watches: Mutex<Option<String>> = Mutex::new(None);
        let gone: Mutex<Vec<Finding>> = Mutex::new(Vec::new());
        let at: Vec<RelPath> = targets
            .iter()
            .map(|(Target::Path(p) | Target::Tree(p))| p.clone())
            .collect();
        // What was found or applied before must be committed: a look compares the disk with the index, and one
        // that is behind would take what is new in both for what is new in neither. What happens after this
        // gives hints of its own.
        if !self.committed() {
            return false;
        }
        let mut closed = self.closed.take(&at, full);
        if let Err(error) = self.spare_closed(&mut closed) {
            tracing::error!("scan: {error}");
            return false;
        }
        let result = {
            let stop = &self.stop;
            let watch = &self.watch;
            let on_dir = |dir: &RelPath| {
                let Some(watch) = watch else { return };
                match watch.add(dir) {
                    Ok(false) => {}
                    Ok(true) => {
                        newly.lock().expect("never poisoned").insert(dir.clone());
                    }
                    // The scan itself says what is the matter with them.
                    Err(WatchError::Gone | WatchError::Denied) => {}
                    Err(error) => *no_watches.lock().expect("never poisoned") = Some(error.to_string()),
                }
            };
            let scan = Scan {
                root: &self.place.root,
                store: &self.place.store,
                folder: self.place.key,
                on_dir: &on_dir,
                cancelled: &|| stop.load(Ordering::Relaxed),
                keep_outboards: Some(&self.place.outboards),
                keep_small: &|digest, content| self.place.keep_small(digest, content),
                ignore: &self.place.ignore,
                closed: &closed,
                wrote: &|path| self.written.wrote(path),
            };
            let folder = &self.folder;
            scan.run(targets, &|mut batch: Vec<Found>| {
                for found in batch.extract_if(.., |f| matches!(f, Found::Changed(f) if gone::is_gone(f))) {
                    if let Found::Changed(finding) = found {
                        gone.lock().expect("never poisoned").push(finding);
                    }
                }
                for found in &batch {
                    if let Found::Busy(path) = found {
                        busy.lock().expect("never poisoned").push(path.clone());
                    }
                }
                let _ = folder.send(FolderEvent::Found(batch));
            })
        };
        if let Some(reason) = no_watches.into_inner().expect("never poisoned")
            && !self.blind
        {
            self.go_blind(reason);
        }
        let busy = busy.into_inner().expect("never poisoned");
        let now = Instant::now();
        let complete = full && result.as_ref().is_ok_and(|report| report.complete);
        self.gone
            .add(gone.into_inner().expect("never poisoned"), complete, now);
        let looked = result.as_ref().is_ok_and(|report| report.complete);
        let unread = closed.into_iter().filter(|path| !looked || busy.contains(path));
        self.closed.put_back(unread);
        if looked {
            self.never_quiet.looked(&at, &busy, now);
        }
        if let Some(paths) = self.never_quiet.news(now) {
            let _ = self.folder.send(FolderEvent::NeverQuiet(paths));
        }
        for path in busy {
            self.dirty.mark_busy(path, now);
        }
        match result {
            Ok(report) => {
                if let Some(watch) = &self.watch {
                    report.gone_dirs.iter().for_each(|dir| watch.remove_below(dir));
                }
                if !full {
                    self.look_below(newly.into_inner().expect("never poisoned"), now);
                }
                report.complete
            }
            Err(error) => {
                tracing::warn!(folder = %self.place.row.name, "scan: {error}");
                false
            }
        }
    }

    /// Leaves out of what was closed after writing what is not to be hashed again so soon.
    fn spare_closed(&mut self, closed: &mut HashSet<RelPath>) -> Result<(), StoreError> {
        let snapshot = self.place.store.snapshot()?;
        let size = |path: &RelPath| match snapshot.index(self.place.key, path) {
            Ok(Some(row)) => row.mat.value.size(),
            _ => 0,
        };
        self.closed.spare(closed, size, Instant::now());
        Ok(())
    }

    /// Waits until the folder's thread has done everything that was sent to it. `false`: it has ended.
    fn committed(&self) -> bool {
        let (reply, done) = oneshot::channel();
        self.folder.send(FolderEvent::Barrier(reply)).is_ok() && done.blocking_recv().is_ok()
    }

    /// Directories that the index knew but nobody watched (they were just made by an apply, or could not be
    /// read before) may have members like that: those are looked at next, each once.
    fn look_below(&mut self, newly: HashSet<RelPath>, now: Instant) {
        let Ok(snapshot) = self.place.store.snapshot() else {
            return;
        };
        let mut below = Vec::new();
        for dir in newly {
            for (name, row) in snapshot.index_dir(self.place.key, &dir).unwrap_or_default() {
                let path = dir.join(&name);
                if row.mat.value == Value::Dir && !self.watch.as_ref().is_some_and(|w| w.is_watched(&path)) {
                    below.push(path);
                }
            }
        }
        below.into_iter().for_each(|path| self.dirty.mark(path, now));
    }

    fn show(&mut self) {
        self.activity.dirty = self.full_due.is_some_and(|_| !self.frozen)
            || self.place.ignore.is_settling()
            || !self.barriers.is_empty()
            || !self.gone.is_empty()
            || self.dirty.counts();
        self.publish.send_if_modified(|shown| {
            let changed = *shown != self.activity;
            *shown = self.activity;
            changed
        });
    }
}
