//! What an engine's threads do, one piece at a time: scan, commit, plan, fetch, apply. It stands for `scanner`,
//! the folder thread's loop and `fetch::Worker`; what they call is real. Never decides when.

use std::collections::HashSet;
use std::rc::Rc;

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::session::{Input, Output};
use tokio::sync::oneshot;

use super::machine::{Fetch, Process};
use super::{Sim, current};
use crate::apply::{Planned, Stage, gather};
use crate::blobs;
use crate::error::Error;
use crate::fetch::small::{self, Local};
use crate::folder::FolderEvent;
use crate::folder::scanner::{ScanInput, gone};
use crate::scan::{Finding, Found, Scan, Target, Wrote};
use crate::serve;

/// Is it about something that is not there any more?
fn is_gone(found: &Found) -> bool {
    matches!(found, Found::Changed(finding) if gone::is_gone(finding))
}

impl Sim {
    pub(super) fn process(&self, machine: usize) -> Option<Rc<Process>> {
        self.machines[machine].running().filter(|p| !p.broken.get())
    }

    /// The watcher's hints reach the scanner.
    pub(super) fn hints(&self, machine: usize) {
        let hints = std::mem::take(&mut self.machines[machine].disk.borrow_mut().hints);
        if let Some(process) = self.process(machine) {
            process.dirty.borrow_mut().extend(hints);
        }
    }

    /// A look at some paths, or at everything.
    pub(super) fn scan(&self, machine: usize, full: bool) {
        self.hints(machine);
        let Some(process) = self.process(machine) else {
            return;
        };
        let mut targets = Vec::new();
        let mut paths = Vec::new();
        if full {
            process.full_due.set(false);
            process.dirty.borrow_mut().clear();
            targets.push(Target::Tree(RelPath::root()));
            paths.push(RelPath::root());
        } else {
            let all: Vec<RelPath> = process.dirty.borrow().iter().cloned().collect();
            let few = self.rng(|r| r.percent(30));
            for path in all {
                if !few || self.rng(|r| r.percent(50)) {
                    process.dirty.borrow_mut().remove(&path);
                    targets.push(Target::Path(path.clone()));
                    paths.push(path);
                }
            }
        }
        if targets.is_empty() {
            return;
        }
        self.note(format_args!("m{machine}: looks at {paths:?}"));
        self.on(machine, || {
            self.scan_inside(machine, &process, targets, paths, full)
        });
    }

    fn scan_inside(
        &self,
        machine: usize,
        process: &Process,
        targets: Vec<Target>,
        paths: Vec<RelPath>,
        full: bool,
    ) {
        // As `Scanner::committed` waits for.
        while self.folder_step(machine) {}
        if process.broken.get() {
            return;
        }
        process
            .inbox
            .borrow_mut()
            .push_back(FolderEvent::ScanBegins(paths));
        let scan = Scan {
            root: &process.place.root,
            store: &process.place.store,
            folder: process.place.key,
            on_dir: &|_| {},
            cancelled: &|| false,
            keep_outboards: None,
            keep_small: &|_, _| {},
            ignore: &process.place.ignore,
            closed: &HashSet::new(),
            // Nobody watches, and people here set times back as they like.
            wrote: &|_| Wrote::Yes,
        };
        self.scanning.set(true);
        let result = scan.run(targets, &move |batch| {
            let sim = current().expect("a scan stays on its thread");
            sim.found(machine, batch);
        });
        self.scanning.set(false);
        let complete = full && result.as_ref().is_ok_and(|report| report.complete);
        if let Err(error) = &result {
            self.note(format_args!("m{machine}: the scan fails: {error}"));
            process.full_due.set(true);
        }
        process.gone.borrow_mut().1 |= complete;
        let ends = FolderEvent::ScanEnds {
            full: complete,
            more: false,
        };
        process.inbox.borrow_mut().push_back(ends);
        process.inbox.borrow_mut().push_back(FolderEvent::Rules);
        if self.rng(|r| r.percent(60)) {
            self.pass_on_gone(machine, process);
        }
    }

    fn found(&self, machine: usize, batch: Vec<Found>) {
        let Some(process) = self.machines[machine].running() else {
            return;
        };
        let mut passed = Vec::new();
        for found in batch {
            match found {
                Found::Changed(finding) if is_gone(&Found::Changed(finding.clone())) => {
                    process.gone.borrow_mut().0.insert(finding.path.clone(), finding);
                }
                other => {
                    if let Found::Busy(path) = &other {
                        process.dirty.borrow_mut().insert(path.clone());
                    }
                    passed.push(other);
                }
            }
        }
        process.inbox.borrow_mut().push_back(FolderEvent::Found(passed));
    }

    /// As `Scanner::pass_on_gone` does.
    pub(super) fn pass_on_gone(&self, machine: usize, process: &Process) {
        let (findings, full) = std::mem::take(&mut *process.gone.borrow_mut());
        if findings.is_empty() && !full {
            return;
        }
        let root = &process.place.root;
        let mut gone: Vec<Finding> = Vec::new();
        for (path, finding) in findings {
            if !finding.is_still_so(root) {
                process.dirty.borrow_mut().insert(path);
            } else {
                gone.push(finding);
            }
        }
        if root.check(&process.place.row.marker).is_err() {
            process.full_due.set(true);
            return;
        }
        self.note(format_args!(
            "m{machine}: gone: {:?}",
            gone.iter().map(|f| &f.path).collect::<Vec<_>>()
        ));
        process
            .inbox
            .borrow_mut()
            .push_back(FolderEvent::Gone { findings: gone, full });
    }

    /// The folder's thread takes its next event. `false`: there is none, or it is busy.
    pub(super) fn folder_step(&self, machine: usize) -> bool {
        let Some(process) = self.process(machine) else {
            return false;
        };
        let Some(mut folder) = process.folder.borrow_mut().take() else {
            return false;
        };
        let event = process.inbox.borrow_mut().pop_front();
        let Some(event) = event else {
            *process.folder.borrow_mut() = Some(folder);
            return false;
        };
        let what = name_of(&event);
        let result = folder.handle(event).and_then(|()| folder.publish());
        *process.folder.borrow_mut() = Some(folder);
        if let Err(error) = result {
            self.note(format_args!("m{machine}: {what} breaks the folder: {error}"));
            process.broken.set(true);
            return false;
        }
        self.catch_up(machine);
        self.settle_nodes(machine);
        self.answers(machine, &process);
        if self.rng(|r| r.percent(20)) {
            self.check_mat(machine, &process);
        }
        self.announce(machine, &process);
        true
    }

    fn settle_nodes(&self, machine: usize) {
        let mut disk = self.machines[machine].disk.borrow_mut();
        let fresh: Vec<_> = disk
            .nodes
            .iter()
            .filter(|(_, n)| n.fresh && n.public)
            .map(|(oid, _)| *oid)
            .collect();
        for node in fresh {
            disk.nodes.get_mut(&node).expect("listed").fresh = false;
        }
    }

    /// What the folder's thread said to those who waited for it.
    fn answers(&self, machine: usize, process: &Process) {
        while let Ok(input) = process.rescan.try_recv() {
            match input {
                ScanInput::Rescan(path) => {
                    process.dirty.borrow_mut().insert(path);
                }
                ScanInput::Full | ScanInput::Later => process.full_due.set(true),
                _ => {}
            }
        }
        let mut merged = Vec::new();
        process
            .merging
            .borrow_mut()
            .retain_mut(|(peer, answer)| match answer.try_recv() {
                Ok(result) => {
                    merged.push((*peer, result));
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                Err(oneshot::error::TryRecvError::Closed) => {
                    merged.push((*peer, Err(Error::Refused("gone".into()))));
                    false
                }
            });
        for (peer, result) in merged {
            self.note(format_args!(
                "m{machine}: merged the state of m{peer}: {}",
                result.as_ref().err().map_or("yes".into(), ToString::to_string)
            ));
            self.pull_ended(machine, process, peer, result.is_ok());
        }
        let mut applied = Vec::new();
        process
            .applying
            .borrow_mut()
            .retain_mut(|(paths, answer)| match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => true,
                answer => {
                    applied.push((std::mem::take(paths), answer.ok()));
                    false
                }
            });
        for (paths, outcomes) in applied {
            for (i, path) in paths.into_iter().enumerate() {
                let outcome = outcomes.as_ref().map(|o| o[i]);
                self.note(format_args!("m{machine}: applied {path}: {outcome:?}"));
                process.fetching.borrow_mut().remove(&path);
            }
        }
    }

    /// The sessions hear how things stand here.
    pub(super) fn announce(&self, machine: usize, process: &Process) {
        let ours = self.announcement(process);
        if process.announced.borrow().as_ref() == Some(&ours) {
            return;
        }
        *process.announced.borrow_mut() = Some(ours.clone());
        let peers: Vec<usize> = process.sessions.borrow().keys().copied().collect();
        for peer in peers {
            self.input(machine, process, peer, Input::Ours(ours.clone()));
        }
    }

    pub(super) fn announcement(&self, process: &Process) -> alike_core::message::Announce {
        let view = process.view.borrow();
        alike_core::message::Announce {
            folder: process.place.id,
            state: view.head.state.root,
            claims: view.claims.clone(),
            heard: false,
            root: view.head.summary.root,
            pending_files: view.to_do(),
            pending_bytes: view.pending_bytes,
            settled: view.settled,
        }
    }

    pub(super) fn input(&self, machine: usize, process: &Process, peer: usize, input: Input) {
        let outputs = process
            .sessions
            .borrow_mut()
            .entry(peer)
            .or_default()
            .handle(input);
        for output in outputs {
            match output {
                Output::Send(announce) => self.send(machine, peer, announce),
                Output::Pull(theirs) => process.pulls.borrow_mut().push((peer, theirs)),
            }
        }
    }

    pub(super) fn pull_ended(&self, machine: usize, process: &Process, peer: usize, merged: bool) {
        let ours = self.announcement(process);
        self.input(machine, process, peer, Input::Ours(ours));
        self.input(machine, process, peer, Input::PullEnded { merged });
        if !merged {
            process.failed.borrow_mut().insert(peer);
        }
    }

    /// Plans some of what is pending; what is on this disk is made ready, the rest asked for.
    pub(super) fn plan(&self, machine: usize, at_most: usize) {
        self.plan_stage(machine, at_most, None, false);
    }

    /// The same for one stage, while HEAD is known to change soon, or not.
    pub(super) fn plan_stage(&self, machine: usize, at_most: usize, stage: Option<Stage>, more: bool) {
        let Some(process) = self.process(machine) else {
            return;
        };
        self.on(machine, || {
            let skip: HashSet<RelPath> = process.fetching.borrow().iter().cloned().collect();
            let Ok(Planned { root, items, .. }) = gather(&process.place, stage, None, at_most, &skip) else {
                return;
            };
            if items.is_empty() {
                return;
            }
            for item in &items {
                self.note(format_args!("m{machine}: plans {:?} of {}", item.op, item.path));
                process.fetching.borrow_mut().insert(item.path.clone());
            }
            let asked: Vec<RelPath> = items.iter().map(|i| i.path.clone()).collect();
            let Local { ready, rest, .. } = match small::make_local(&process.place, items, more) {
                Ok(made) => made,
                Err(error) => {
                    self.note(format_args!("m{machine}: making ready fails: {error}"));
                    process.broken.set(true);
                    return;
                }
            };
            for path in asked {
                let under_way =
                    ready.iter().any(|r| r.item.path == path) || rest.iter().any(|i| i.path == path);
                if !under_way {
                    process.fetching.borrow_mut().remove(&path);
                }
            }
            self.hand_over(&process, root, ready);
            if !rest.is_empty() {
                self.ask(machine, &process, root, rest);
            }
        });
    }

    fn hand_over(
        &self,
        process: &Process,
        planned: Option<alike_core::digest::Digest>,
        ready: Vec<crate::apply::Ready>,
    ) {
        if ready.is_empty() {
            return;
        }
        let (reply, answer) = oneshot::channel();
        let paths = ready.iter().map(|r| r.item.path.clone()).collect();
        process.applying.borrow_mut().push((paths, answer));
        process.inbox.borrow_mut().push_back(FolderEvent::Apply {
            planned,
            ready,
            durable: false,
            reply,
        });
    }

    fn ask(
        &self,
        machine: usize,
        process: &Process,
        root: Option<alike_core::digest::Digest>,
        items: Vec<crate::apply::Item>,
    ) {
        let peers: Vec<usize> = (0..self.machines.len())
            .filter(|p| self.is_up(machine, *p))
            .collect();
        if peers.is_empty() {
            for item in items {
                process.fetching.borrow_mut().remove(&item.path);
            }
            return;
        }
        let peer = self.rng(|r| r.pick(&peers));
        process.fetches.borrow_mut().push(Fetch { root, items, peer });
    }

    /// A peer answers a request for blobs: with all, some, or wrong ones; or not at all.
    pub(super) fn fetch(&self, machine: usize) {
        let Some(process) = self.process(machine) else {
            return;
        };
        let count = process.fetches.borrow().len();
        if count == 0 {
            return;
        }
        let which = self.rng(|r| r.below(count));
        let Fetch { root, items, peer } = process.fetches.borrow_mut().remove(which);
        let mut group = Vec::new();
        for item in items {
            let Some(Value::File { digest, .. }) = item.head.as_ref().map(|h| &h.value).cloned() else {
                continue;
            };
            let lost = self.weather.get().errors > 0 && self.rng(|r| r.percent(5));
            let bytes = if lost || !self.is_up(machine, peer) {
                None
            } else {
                self.serve(peer, &digest)
            };
            match bytes {
                Some(mut bytes) => {
                    if self.weather.get().errors > 0 && self.rng(|r| r.percent(1)) {
                        bytes.push(b'?');
                    }
                    group.push((item, bytes));
                }
                None => {
                    process.fetching.borrow_mut().remove(&item.path);
                }
            }
        }
        // Serving may have ended the peer, and nothing else.
        let Some(process) = self.process(machine).filter(|p| Rc::ptr_eq(p, &process)) else {
            return;
        };
        self.on(machine, || {
            let written = small::write(&process.place, group);
            for item in written.unmade {
                process.fetching.borrow_mut().remove(&item.path);
            }
            self.hand_over(&process, root, written.ready);
        });
    }

    fn serve(&self, peer: usize, digest: &alike_core::digest::Digest) -> Option<Vec<u8>> {
        let process = self.process(peer)?;
        let mut found = None;
        self.on(peer, || {
            let Ok(snapshot) = process.place.store.snapshot() else {
                return;
            };
            found = blobs::read_small(&process.place, &snapshot, digest);
            if found.is_none() {
                for event in serve::suspects(&process.place, &snapshot, digest) {
                    self.note(format_args!("m{peer}: {event:?}"));
                    process.inbox.borrow_mut().push_back(event);
                }
            }
        });
        found
    }
}

fn name_of(event: &FolderEvent) -> &'static str {
    match event {
        FolderEvent::Merge { .. } => "a merge",
        FolderEvent::Apply { .. } => "an apply",
        _ => "a finding",
    }
}
