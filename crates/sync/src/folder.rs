//! One folder's truth: a thread that alone changes its HEAD and MAT. Findings, merges and applied plans reach
//! it as events and leave it as one commit each. Never waits for the network.

mod batch;
mod commit;
mod damage;
mod durable;
mod generation;
mod hold;
mod identity;
mod inbox;
mod look;
mod merge;
mod park;
mod place;
mod resolve;
mod restore;
mod rules;
pub(crate) mod scanner;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use alike_core::claim::{Claim, Claims};
use alike_core::ids::ReplicaId;
use alike_core::path::RelPath;
use alike_core::state::State;
use alike_store::{Head, IndexRow, Replica, StoreError};
use tokio::sync::{oneshot, watch};

use crate::apply::{BEING_WRITTEN, Outcome, Ready};
use crate::claims::Signer;
use crate::control::Keep;
use crate::disk::Witness;
use crate::error::Error;
use crate::fetch::NewNodes;
use crate::scan::{Finding, Found};

pub(crate) use crate::clock::now_ms;
pub(crate) use commit::Counts;
use damage::Suspects;
pub(crate) use damage::{Checked, Damaged, check, is_still};
pub(crate) use hold::HeldView;
pub(crate) use identity::is_doubtful;
pub(crate) use inbox::{Inbox, ask, tell};
pub(crate) use look::Look;
pub(crate) use park::{Parked, Why};
pub(crate) use place::{DAMAGED, Place};
pub(crate) use restore::{Done as RestoreDone, Wish};
use rules::NewRules;
pub(crate) use rules::leaves_out;

/// Events waiting for the folder's thread; senders wait when it is full.
const QUEUE: usize = 64;
/// Findings committed in one transaction at most: the store's reserve is for some of these.
const MAX_FINDINGS: usize = 4096;
/// Problems kept for `status`; the rest are counted in the last one.
pub(crate) const MAX_PROBLEMS: usize = 1000;

/// What happens to a folder.
#[derive(Debug)]
pub(crate) enum FolderEvent {
    /// A scan of these paths begins: what was wrong with them may be right now.
    ScanBegins(Vec<RelPath>),
    /// The scan found something.
    Found(Vec<Found>),
    /// The scan no longer found this. `full`: it looked at everything.
    Gone { findings: Vec<Finding>, full: bool },
    /// The scan is over. `full`: it looked at everything. `more`: what is gone follows.
    ScanEnds { full: bool, more: bool },
    /// What a peer knows of all replicas, this one among them. Answered when nothing of it is in doubt any more.
    Heard {
        claims: Claims,
        from: [u8; 32],
        reply: Option<oneshot::Sender<Result<(), Error>>>,
    },
    /// A peer's state and the nodes of it that were not here.
    Merge {
        theirs: State,
        claims: Claims,
        nodes: NewNodes,
        from: [u8; 32],
        settled: bool,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// No more of this peer's changes are known to come soon after this state of it.
    PeerSettled {
        from: [u8; 32],
        state: Option<alike_core::digest::Digest>,
    },
    /// Nothing more is heard of this peer.
    PeerLeft([u8; 32]),
    /// Content is there: do it. `durable`: the temporary files are so already.
    Apply {
        planned: Option<alike_core::digest::Digest>,
        ready: Vec<Ready>,
        durable: bool,
        reply: oneshot::Sender<Vec<Outcome>>,
    },
    /// The file at this path seems not to be what the index says.
    Suspect(RelPath),
    /// The file at this path has another content than the index says, under the same fingerprint.
    Damaged(RelPath, Box<IndexRow>, Option<alike_core::digest::Digest>),
    /// Good content for a damaged file.
    Repair {
        path: RelPath,
        temp: Vec<u8>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// A person settles a conflict copy.
    Resolve {
        copy: Box<alike_core::view::Copy>,
        keep: Keep,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// A person wants the folder, or a part of it, as it was.
    Restore {
        wish: Box<Wish>,
        reply: oneshot::Sender<Result<RestoreDone, Error>>,
    },
    /// A held mass removal: let it through, or put things back.
    Answer {
        accept: bool,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// What this peer did and was held is not its state any more.
    LetGo([u8; 32]),
    /// Answered when everything before it is done.
    Barrier(oneshot::Sender<()>),
    /// The root is not the one that was shared (or is again).
    Frozen(Option<String>),
    /// The database may have too little room.
    CheckRoom,
    /// What is parked may have become possible without anybody noticing.
    TryParked,
    /// The rules of what is not synced may have changed.
    Rules,
    /// Programs have these open for writing: they cannot be replaced now.
    BeingWritten(Vec<RelPath>),
    /// All files here that are written all the time, and have not been read whole for long.
    NeverQuiet(BTreeSet<RelPath>),
    /// Too little room for what is to be fetched; or not any more.
    DiskFull(Option<String>),
    /// The watcher works, or not.
    Watching(Result<(), String>),
    /// The end.
    Stop,
}

/// One path that could not be synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// Why a folder's thread has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) reason: String,
    /// The database has to be opened again; then it may go on.
    pub(crate) reopen: bool,
}

/// The folder as the rest of the engine sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FolderView {
    pub(crate) head: Head,
    /// Who this device is in it; `None` before the folder was opened.
    pub(crate) own: Option<ReplicaId>,
    /// What HEAD has seen, as its authors signed it.
    pub(crate) claims: Claims,
    pub(crate) pending_files: u64,
    pub(crate) pending_bytes: u64,
    /// What new rules no longer leave out has not been looked at: HEAD may be about to change.
    pub(crate) unlooked: bool,
    pub(crate) problems: BTreeMap<RelPath, Problem>,
    /// What is wrong with the folder as a whole.
    pub(crate) troubles: Vec<Problem>,
    pub(crate) frozen: Option<String>,
    /// Mass removals that wait for an answer.
    pub(crate) held: Vec<HeldView>,
    pub(crate) watching: bool,
    /// HEAD is a generation, and no more is known to come soon.
    pub(crate) settled: bool,
    /// Too little room for what is to be fetched.
    pub(crate) disk_full: Option<String>,
    /// Too little room for the database: nothing is taken in until there is more.
    pub(crate) store_full: Option<String>,
    /// The database failed: the folder's thread has ended.
    pub(crate) broken: Option<Broken>,
    /// Counts up with every commit that changed HEAD, by reason: for the event log.
    pub(crate) local: Counts,
    pub(crate) remote: Counts,
}

impl FolderView {
    /// Paths that are still to be seen to here, as peers are told: what is not looked at counts as one.
    pub(crate) fn to_do(&self) -> u64 {
        self.pending_files.max(u64::from(self.unlooked))
    }
}

/// The folder's thread and the ways to it.
#[derive(Debug)]
pub(crate) struct FolderThread {
    pub(crate) events: Inbox,
    pub(crate) view: watch::Receiver<FolderView>,
    thread: Option<JoinHandle<()>>,
}

impl FolderThread {
    /// Recovers from a crash, then starts the thread. `rescan` takes paths that have to be looked at again.
    pub(crate) fn start(place: Arc<Place>, signer: Signer, rescan: RescanSender) -> Result<Self, Error> {
        let (events, inbox) = mpsc::sync_channel(QUEUE);
        let (folder, view) = Folder::open(place, signer, rescan)?;
        let name = format!("folder {}", folder.place.row.name);
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || folder.run(&inbox))
            .map_err(|e| Error::Refused(format!("cannot start a thread: {e}")))?;
        Ok(FolderThread {
            events,
            view,
            thread: Some(thread),
        })
    }

    /// Ends the thread after what is queued.
    pub(crate) fn stop(&mut self) {
        let _ = self.events.send(FolderEvent::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes paths that the scanner has to look at again.
pub(crate) type RescanSender = mpsc::Sender<scanner::ScanInput>;

/// The state behind the thread.
pub(crate) struct Folder {
    pub(crate) place: Arc<Place>,
    pub(crate) device: [u8; 32],
    pub(crate) signer: Signer,
    /// Who this device is in it.
    pub(crate) own: Replica,
    /// What the folder was made to remember of that.
    left: Option<Witness>,
    /// Whose state was refused because some device has two histories: what they claim of it.
    parted: BTreeMap<[u8; 32], (ReplicaId, Claim)>,
    /// Why changes are not seen as they happen.
    unwatched: Option<String>,
    pub(crate) head: Head,
    pub(crate) rescan: RescanSender,
    pub(crate) publish: watch::Sender<FolderView>,
    pub(crate) view: FolderView,
    pub(crate) scan_problems: BTreeMap<RelPath, Problem>,
    pub(crate) apply_problems: BTreeMap<RelPath, Problem>,
    /// Files that are written all the time.
    never_quiet: BTreeSet<RelPath>,
    /// The newest generation, while more of what it is part of is to come.
    open_generation: Option<generation::Open>,
    /// What changed since the last generation was written.
    pub(crate) since_generation: Counts,
    pub(crate) generation_root: Option<alike_core::digest::Digest>,
    hold: hold::Hold,
    /// Findings were dropped since the last look at everything began.
    dropped: bool,
    new_rules: NewRules,
    /// Files that may be damaged.
    suspects: Suspects,
}

impl Folder {
    /// Recovers from a crash. The receiver shows how things stand from then on.
    pub(crate) fn open(
        place: Arc<Place>,
        signer: Signer,
        rescan: RescanSender,
    ) -> Result<(Folder, watch::Receiver<FolderView>), Error> {
        let snapshot = place.store.snapshot()?;
        let head = snapshot.head(place.key)?;
        let newest = snapshot.generations(place.key, 1)?.pop();
        drop(snapshot);
        let (publish, view) = watch::channel(FolderView::default());
        let mut folder = Folder {
            device: signer.device(),
            signer,
            own: place.row.replica,
            left: None,
            parted: BTreeMap::new(),
            unwatched: None,
            place,
            head,
            rescan,
            publish,
            view: FolderView {
                watching: true,
                ..FolderView::default()
            },
            scan_problems: BTreeMap::new(),
            apply_problems: BTreeMap::new(),
            never_quiet: BTreeSet::new(),
            open_generation: None,
            since_generation: Counts::default(),
            generation_root: newest.map(|generation| generation.root),
            hold: hold::Hold::default(),
            dropped: false,
            new_rules: NewRules::default(),
            suspects: Suspects::default(),
        };
        folder.check_witness()?;
        folder.recover()?;
        folder.publish()?;
        Ok((folder, view))
    }

    fn run(mut self, inbox: &mpsc::Receiver<FolderEvent>) {
        let mut next = inbox.recv().ok();
        let store = self.place.store.clone();
        while let Some(event) = next.take() {
            // What a turn sees in the database and builds on is not collected before it has committed.
            let lease = store.lease();
            let result = match event {
                FolderEvent::Stop => return,
                FolderEvent::Found(mut found) => {
                    // Findings that queued up meanwhile go into the same transaction.
                    while found.len() < MAX_FINDINGS {
                        match inbox.try_recv() {
                            Ok(FolderEvent::Found(more)) => found.extend(more),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.found(found)
                }
                other => self.handle(other),
            };
            let result = match result {
                Err(Error::Store(error @ StoreError::NoRoom { .. })) => {
                    self.no_room(&error);
                    Ok(())
                }
                other => other,
            };
            if let Err(error) = result.and_then(|()| self.publish()) {
                let reopen = match &error {
                    Error::Store(error) => error.needs_reopening(),
                    // What was begun is found out again, as after a crash.
                    Error::NotDurable { .. } => true,
                    _ => false,
                };
                let reason = error.to_string();
                tracing::error!(folder = %self.place.row.name, "{reason}");
                self.view.broken = Some(Broken { reason, reopen });
                self.publish.send_replace(self.view.clone());
                return;
            }
            drop(lease);
            if next.is_none() {
                next = inbox.recv().ok();
            }
        }
    }

    /// The database takes nothing more for now. What was found is lost: everything is looked at again later.
    fn no_room(&mut self, error: &StoreError) {
        if self.view.store_full.is_none() {
            tracing::warn!(folder = %self.place.row.name, "{error}");
        }
        self.view.store_full = Some(error.to_string());
        self.dropped = true;
        let _ = self.rescan.send(scanner::ScanInput::Later);
    }

    pub(crate) fn handle(&mut self, event: FolderEvent) -> Result<(), Error> {
        match event {
            FolderEvent::ScanBegins(paths) => {
                if paths.iter().any(RelPath::is_root) {
                    self.dropped = false;
                    self.new_rules.look_begins();
                }
                self.scan_problems
                    .retain(|at, _| !paths.iter().any(|p| at.is_within(p)));
                self.place.release_parked(&paths);
            }
            FolderEvent::Found(found) => self.found(found)?,
            FolderEvent::Gone { findings, full } => {
                self.gone(findings, full)?;
                if full {
                    self.rules_looked_at()?;
                }
            }
            FolderEvent::Resolve { copy, keep, reply } => {
                let result = self.resolve(&copy, keep);
                self.publish()?;
                let _ = reply.send(result);
            }
            FolderEvent::Restore { wish, reply } => {
                let result = self.restore(&wish);
                self.publish()?;
                let _ = reply.send(result);
            }
            FolderEvent::Answer { accept, reply } => {
                let result = if accept {
                    self.accept();
                    Ok(())
                } else {
                    self.reject()
                };
                self.publish()?;
                let _ = reply.send(result);
            }
            FolderEvent::LetGo(device) => {
                self.parted.remove(&device);
                self.let_go(device);
            }
            FolderEvent::PeerSettled { from, state } => {
                if self.close_generation(from, Some(state)) {
                    self.publish()?;
                }
            }
            FolderEvent::PeerLeft(from) => {
                if self.close_generation(from, None) {
                    self.publish()?;
                }
            }
            FolderEvent::ScanEnds { full, more } => {
                let full = full && !self.dropped;
                self.scan_ended(full, more)?;
                if full && self.place.store.check_room().is_ok() {
                    self.view.store_full = None;
                }
            }
            FolderEvent::CheckRoom => self.place.store.check_room()?,
            FolderEvent::TryParked => {
                self.place.ignore.try_unknown(&self.place.root);
                self.rules_changed();
                let ways = self.place.try_parked();
                ways.into_iter().for_each(|at| self.dirty(at));
            }
            FolderEvent::Rules => {
                self.place.ignore.drop_gone(&self.place.root);
                self.rules_changed();
                if self.is_unlooked() != self.view.unlooked {
                    self.publish()?;
                }
            }
            FolderEvent::BeingWritten(paths) => {
                let (reason, hint) = (BEING_WRITTEN.0.to_owned(), BEING_WRITTEN.1.to_owned());
                let problem = Problem { reason, hint };
                let problems = paths.into_iter().map(|path| (path, problem.clone()));
                self.apply_problems.extend(problems);
            }
            FolderEvent::NeverQuiet(paths) => self.never_quiet = paths,
            FolderEvent::DiskFull(state) => self.view.disk_full = state,
            FolderEvent::Heard { claims, from, reply } => {
                let result = self.heard(&claims, from);
                self.publish()?;
                if let Err(Error::Store(error @ StoreError::NoRoom { .. })) = &result {
                    self.no_room(error);
                }
                match reply {
                    Some(reply) => drop(reply.send(result)),
                    // Nobody waits: the next word of the peer is looked at again.
                    None => drop(result),
                }
            }
            FolderEvent::Merge {
                theirs,
                claims,
                nodes,
                from,
                settled,
                reply,
            } => {
                let result = self.merge(theirs, &claims, nodes, (from, settled));
                // Whoever asked sees the merged state when the answer arrives.
                self.publish()?;
                if let Err(Error::Store(error @ StoreError::NoRoom { .. })) = &result {
                    self.no_room(error);
                }
                let _ = reply.send(result);
            }
            FolderEvent::Apply {
                planned,
                ready,
                durable,
                reply,
            } => {
                let outcomes = self.apply(planned, ready, durable)?;
                self.publish()?;
                let _ = reply.send(outcomes);
            }
            FolderEvent::Barrier(reply) => {
                self.publish()?;
                let _ = reply.send(());
            }
            FolderEvent::Suspect(path) => self.dirty(path),
            FolderEvent::Damaged(path, row, found) => self.damaged(path, *row, found)?,
            FolderEvent::Repair { path, temp, reply } => {
                let result = self.repair(&path, &temp);
                self.publish()?;
                let _ = reply.send(result);
            }
            FolderEvent::Frozen(reason) => self.view.frozen = reason,
            FolderEvent::Watching(state) => {
                self.view.watching = state.is_ok();
                self.unwatched = state.err();
            }
            FolderEvent::Stop => {}
        }
        Ok(())
    }

    /// Shows the rest of the engine how things stand.
    pub(crate) fn publish(&mut self) -> Result<(), Error> {
        let snapshot = self.place.store.snapshot()?;
        let (files, bytes) = snapshot.pending_total(self.place.key)?;
        self.place.forget_damage(&snapshot)?;
        self.view.claims = self.claims();
        self.view.own = Some(self.own.id);
        self.view.head = self.head.clone();
        self.view.settled =
            self.open_generation.is_none() && self.generation_root == Some(self.head.summary.root);
        self.leave_witness();
        let parked = self.place.parked.total();
        self.view.pending_files = files.saturating_sub(parked.0);
        self.view.pending_bytes = bytes.saturating_sub(parked.1);
        self.view.unlooked = self.is_unlooked();
        self.view.held = self.hold.view();
        self.view.troubles = self.parted_problems();
        self.view
            .troubles
            .extend(self.unwatched.as_ref().map(|reason| Problem {
                reason: format!("changes are not seen as they happen: {reason}"),
                hint:
                    "raise fs.inotify.max_user_watches; until then the folder is scanned every minute".into(),
            }));
        let problems = self.scan_problems.iter().chain(&self.apply_problems);
        self.view.problems = problems
            .map(|(path, problem)| (path.clone(), problem.clone()))
            .take(MAX_PROBLEMS)
            .chain(
                self.never_quiet
                    .iter()
                    .take(MAX_PROBLEMS)
                    .map(scanner::hot::problem),
            )
            .chain(self.place.parked.problems(MAX_PROBLEMS))
            .chain(self.place.damaged.problems(MAX_PROBLEMS))
            .collect();
        let view = &self.view;
        // Nothing new wakes nobody: an apply that did nothing must not look like news to whoever would try again.
        self.publish.send_if_modified(|shown| {
            let news = shown != view;
            if news {
                shown.clone_from(view);
            }
            news
        });
        Ok(())
    }

    /// Does what changes HEAD and ends in a commit. If that fails HEAD is what the database says, as before.
    pub(crate) fn or_as_before(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let before = (self.head.clone(), self.since_generation, self.generation_root);
        let own = self.own;
        let counts = (self.view.local, self.view.remote);
        let result = change(self);
        if result.is_err() {
            (self.head, self.since_generation, self.generation_root) = before;
            self.own = own;
            (self.view.local, self.view.remote) = counts;
        }
        result
    }

    /// Asks the scanner to look at a path again.
    pub(crate) fn dirty(&self, path: RelPath) {
        let _ = self.rescan.send(scanner::ScanInput::Rescan(path));
    }

    /// The next of this replica's own dots; the vector follows when the edit is committed.
    pub(crate) fn next_dot(&mut self) -> alike_core::ids::Dot {
        self.head.seq += 1;
        alike_core::ids::Dot {
            replica: self.own.id,
            seq: self.head.seq,
        }
    }
}
