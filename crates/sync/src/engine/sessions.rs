//! The exchange of states: each folder with each connected device. The decisions are `core::session`'s; here
//! its outputs are carried out.

use std::collections::VecDeque;

use alike_core::ids::FolderId;
use alike_core::message::{Announce, Message};
use alike_core::session::{Input, Output, Session};
use alike_core::state::State;
use alike_store::{FolderKey, StoreError};
use iroh::EndpointId;
use tokio::time::{Duration, Instant};

use super::folders::Slot;
use super::{Engine, Event};
use crate::error::Error;
use crate::failpoint::task_point;
use crate::fetch::{self, Source};
use crate::folder::{FolderEvent, ask, is_doubtful, tell};

/// Messages of a peer about a folder that wait while a doubt is settled: one wait of a person's is two.
const MAX_IN_DOUBT: usize = 256;

/// A pull that failed is tried again after this long.
const PULL_RETRY: Duration = Duration::from_secs(2);

impl Engine {
    /// A device is connected: every folder it takes part in begins to talk.
    pub(super) fn sessions_up(&mut self, device: EndpointId) {
        for key in self.folders_of(device) {
            self.begin_session(key, device, false);
        }
    }

    /// A connection is gone.
    pub(super) fn sessions_down(&mut self, device: EndpointId) {
        for key in self.folders_of(device) {
            self.input(key, device, Input::Disconnected);
            self.update_sources(key);
        }
    }

    /// Begins (or begins anew) to talk about a folder. `late`: the connection was up before the folder was
    /// ready for it, so what the peer said is lost, and it is asked to say it again.
    pub(super) fn begin_session(&mut self, key: FolderKey, device: EndpointId, late: bool) {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        if folder.row.paused {
            return;
        }
        let id = folder.row.id;
        let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) else {
            return;
        };
        if late {
            link.send(Message::Ask(id));
        }
        if let Some(ours) = self.announcement(key) {
            self.input(key, device, Input::Ours(ours));
        }
        self.input(key, device, Input::Connected);
        self.ask_to_flush(key, device);
        self.update_sources(key);
    }

    /// A peer said something.
    pub(super) fn said(&mut self, device: EndpointId, link: usize, message: Message) {
        let Some(known) = self.devices.get_mut(&device) else {
            return;
        };
        if known.link.as_ref().is_none_or(|l| l.id != link) {
            return;
        }
        known.row.last_seen_ms = Some(crate::folder::now_ms());
        if let Some(waiting) = message
            .folder()
            .and_then(|folder| known.in_doubt.get_mut(&folder))
        {
            // Of what it says it has, only the last word counts.
            if let (Some(last @ Message::Announce(_)), Message::Announce(_)) = (waiting.back_mut(), &message)
            {
                *last = message;
            } else if waiting.len() < MAX_IN_DOUBT {
                waiting.push_back(message);
            } else if let Some(link) = &known.link {
                link.close("too much at once");
            }
            return;
        }
        let (folder, input) = match message {
            Message::Announce(announce) if !self.settle_first(device, link, &announce) => return,
            Message::Announce(announce) => (announce.folder, Input::Theirs(announce)),
            Message::Ask(folder) => (folder, Input::Asked),
            Message::Withdraw(folder) => (folder, Input::Withdrawn),
            Message::Flush { folder, wait } => {
                self.flush_for(folder, device, wait);
                return;
            }
            Message::Flushed { folder, wait } => {
                self.peer_flushed(folder, device, wait);
                return;
            }
            Message::Hello(_) => return,
        };
        let key = self
            .folders
            .iter()
            .find(|(_, slot)| slot.row().id == folder)
            .map(|(key, _)| *key);
        if let Some(key) = key.filter(|key| self.folders_of(device).contains(key)) {
            let had = self.peer_pending(key, device);
            // What the folder made of the peer's word is in the view by now, but its event may still be on the way: a
            // state from before must not go out as one that has heard the peer.
            if let (Input::Theirs(_), Some(ours)) = (&input, self.announcement(key)) {
                self.input(key, device, Input::Ours(ours));
            }
            self.input(key, device, input);
            if self.peer_pending(key, device) != had {
                // It has content now that it lacked before (or the reverse): others may be waiting for it.
                self.update_sources(key);
            }
        }
    }

    /// Is what a peer knows of this device's own writes what this device knows of them? Otherwise its folder takes
    /// another id first; only then has the peer been heard, and pulls from here.
    fn settle_first(&mut self, device: EndpointId, link: usize, announce: &Announce) -> bool {
        let of = |slot: &&Slot| slot.row().id == announce.folder;
        let Some(Slot::Open(folder)) = self.folders.values().find(of) else {
            return true;
        };
        if !folder.grants.contains_key(&device) {
            return true;
        }
        let Some(own) = folder.thread.view.borrow().own else {
            return true;
        };
        let inbox = folder.thread.events.clone();
        let (claims, from) = (announce.claims.clone(), *device.as_bytes());
        let snapshot = self.store.snapshot().map_err(Error::from);
        match snapshot.and_then(|s| is_doubtful(&s, folder.row.key, own, &announce.claims)) {
            Ok(false) => {
                // Worth knowing, not worth waiting for: it is asked again with every word of the peer.
                let _ = inbox.try_send(FolderEvent::Heard {
                    claims,
                    from,
                    reply: None,
                });
                return true;
            }
            Ok(true) => {}
            Err(error) => tracing::warn!(peer = %device.fmt_short(), "looking at its claims: {error}"),
        }
        let (events, folder) = (self.events.clone(), announce.folder);
        if let Some(known) = self.devices.get_mut(&device) {
            let waiting = VecDeque::from([Message::Announce(announce.clone())]);
            known.in_doubt.insert(folder, waiting);
        }
        tokio::spawn(async move {
            let heard = |reply| FolderEvent::Heard {
                claims,
                from,
                reply: Some(reply),
            };
            match ask(&inbox, heard).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(peer = %device.fmt_short(), "taking another replica id: {error}");
                    tokio::time::sleep(PULL_RETRY).await;
                }
                // The folder is opened again soon, if it can be.
                None => tokio::time::sleep(PULL_RETRY).await,
            }
            task_point("engine.settled").await;
            let settled = Event::Settled { device, link, folder };
            let _ = events.send(settled).await;
        });
        false
    }

    /// What a peer said of a folder is not in doubt any more (or is looked at again): it is heard, in the order in which
    /// it was said.
    pub(super) fn settled(&mut self, device: EndpointId, link: usize, folder: FolderId) {
        let Some(known) = self.devices.get_mut(&device) else {
            return;
        };
        if known.link.as_ref().is_none_or(|l| l.id != link) {
            return;
        }
        for message in known.in_doubt.remove(&folder).unwrap_or_default() {
            self.said(device, link, message);
        }
    }

    fn peer_pending(&self, key: FolderKey, device: EndpointId) -> Option<u64> {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return None;
        };
        folder.sessions.get(&device)?.theirs().map(|t| t.pending_files)
    }

    /// Tells every session of a folder how things stand here.
    pub(super) fn announce(&mut self, key: FolderKey) {
        let Some(ours) = self.announcement(key) else {
            return;
        };
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        let devices: Vec<EndpointId> = folder.sessions.keys().copied().collect();
        for device in devices {
            self.input(key, device, Input::Ours(ours.clone()));
        }
    }

    fn announcement(&self, key: FolderKey) -> Option<Announce> {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return None;
        };
        let view = folder.thread.view.borrow();
        Some(Announce {
            folder: folder.row.id,
            state: view.head.state.root,
            claims: view.claims.clone(),
            heard: false,
            root: view.head.summary.root,
            pending_files: view.to_do(),
            pending_bytes: folder.pending_bytes(&view),
            settled: view.settled,
        })
    }

    pub(super) fn input(&mut self, key: FolderKey, device: EndpointId, input: Input) {
        let Some(Slot::Open(folder)) = self.folders.get_mut(&key) else {
            return;
        };
        if folder.row.paused && !matches!(input, Input::Disconnected | Input::PullEnded { .. }) {
            return;
        }
        let Some(grant) = folder.grants.get(&device) else {
            return;
        };
        let may_write = !grant.read_only;
        let is_gone = matches!(input, Input::Disconnected);
        // It may settle while its state is still on the way here: then the end of the pull is what closes it.
        let is_said = matches!(input, Input::Theirs(_) | Input::PullEnded { merged: true });
        let outputs = folder.sessions.entry(device).or_default().handle(input);
        let has_more = |s: &Session| s.is_pulling() || s.theirs().is_some_and(|t| !t.settled);
        folder
            .puller
            .set_settled(!folder.sessions.values().any(|s| s.is_connected() && has_more(s)));
        let session = &folder.sessions[&device];
        let from = *device.as_bytes();
        let said = session.theirs().filter(|_| is_said);
        // While its newer state is on its way here, what is held of it stays so: only the merge can tell.
        let to_check = said.map(|theirs| theirs.state).filter(|_| !session.is_pulling());
        let closes = said
            .filter(|theirs| theirs.settled)
            .map(|theirs| FolderEvent::PeerSettled {
                from,
                state: theirs.state,
            });
        if let Some(event) = closes.or_else(|| is_gone.then_some(FolderEvent::PeerLeft(from))) {
            let inbox = folder.thread.events.clone();
            tokio::spawn(async move { tell(&inbox, event).await });
        }
        if let Some(state) = to_check {
            self.check_held(key, device, state);
        }
        for output in outputs {
            let Some(Slot::Open(folder)) = self.folders.get_mut(&key) else {
                return;
            };
            match output {
                Output::Send(announce) => {
                    if let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) {
                        link.send(Message::Announce(announce));
                    }
                }
                Output::Pull(theirs) if may_write => self.pull(key, device, theirs),
                // A device that may only read: whatever it has, nothing of it comes here.
                Output::Pull(_) => {
                    let session = folder.sessions.get_mut(&device).expect("it gave the output");
                    session.handle(Input::PullEnded { merged: false });
                }
            }
        }
    }

    /// Fetches a peer's state and has it merged, in a task of its own.
    fn pull(&self, key: FolderKey, device: EndpointId, announce: Announce) {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        let Some(link) = self.devices.get(&device).and_then(|d| d.link.as_ref()) else {
            return;
        };
        let (connection, store, events) = (link.connection.clone(), self.store.clone(), self.events.clone());
        let (place, inbox) = (folder.place.clone(), folder.thread.events.clone());
        let ours = folder.thread.view.borrow().head.state.root;
        tokio::spawn(async move {
            // The nodes that are not fetched because they are here stay here until the merge has named them.
            let _lease = store.lease();
            let merged = match fetch::state(
                &connection,
                &store,
                (place.id, ours),
                announce.state,
                &announce.claims.vector(),
            )
            .await
            {
                Ok(nodes) => {
                    task_point("fetch.state.done").await;
                    let theirs = State {
                        root: announce.state,
                        vector: announce.claims.vector(),
                    };
                    let (claims, settled) = (announce.claims, announce.settled);
                    let from = *device.as_bytes();
                    let merge = |reply| FolderEvent::Merge {
                        theirs,
                        claims,
                        nodes,
                        from,
                        settled,
                        reply,
                    };
                    match ask(&inbox, merge).await {
                        Some(Ok(())) => true,
                        // The folder says so itself.
                        Some(Err(
                            error @ (Error::Held { .. }
                            | Error::Parted(_)
                            | Error::Void
                            | Error::Store(StoreError::NoRoom { .. })),
                        )) => {
                            tracing::debug!(peer = %device.fmt_short(), "{error}");
                            false
                        }
                        Some(Err(error)) => {
                            tracing::warn!(peer = %device.fmt_short(), "merging: {error}");
                            false
                        }
                        None => false,
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %device.fmt_short(), "pulling a state: {error}");
                    if let crate::wire::WireError::Protocol(what) = error {
                        tracing::warn!(peer = %device.fmt_short(), "{what}");
                        connection.close(crate::endpoint::CLOSE_PROTOCOL.into(), what.as_bytes());
                    }
                    false
                }
            };
            let _ = events
                .send(Event::PullEnded {
                    folder: key,
                    device,
                    merged,
                })
                .await;
        });
    }

    pub(super) fn pull_ended(&mut self, key: FolderKey, device: EndpointId, merged: bool) {
        // The merge is in the view by now, but its event may still be on the way: the session must compare
        // the peer's next word with what is true.
        if let Some(ours) = self.announcement(key) {
            self.input(key, device, Input::Ours(ours));
        }
        self.input(key, device, Input::PullEnded { merged });
        // A held state is asked for again when a person has answered, or when the peer moves on.
        let again = !merged && !self.holds(key, device);
        if let (true, Some(Slot::Open(folder))) = (again, self.folders.get_mut(&key)) {
            folder.retries.insert(device, Instant::now() + PULL_RETRY);
        }
    }

    /// Tries failed pulls again whose time has come.
    pub(super) fn retry_pulls(&mut self, key: FolderKey, now: Instant) {
        let Some(Slot::Open(folder)) = self.folders.get_mut(&key) else {
            return;
        };
        let due: Vec<EndpointId> = folder
            .retries
            .extract_if(|_, at| *at <= now)
            .map(|(d, _)| d)
            .collect();
        for device in due {
            self.input(key, device, Input::Retry);
        }
    }

    /// Whom the folder's content can be asked of: connected, taking part; those with all of it first.
    pub(super) fn update_sources(&mut self, key: FolderKey) {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        let mut sources: Vec<(u64, Source)> = Vec::new();
        for (device, session) in &folder.sessions {
            if !session.is_connected() {
                continue;
            }
            let Some(link) = self.devices.get(device).and_then(|d| d.link.as_ref()) else {
                continue;
            };
            let lacks = session.theirs().map_or(u64::MAX, |t| t.pending_files);
            sources.push((
                lacks,
                Source {
                    device: *device,
                    connection: link.connection.clone(),
                },
            ));
        }
        sources.sort_by_key(|(lacks, _)| *lacks);
        folder
            .puller
            .set_sources(sources.into_iter().map(|(_, s)| s).collect());
    }

    /// Folders that a device takes part in.
    pub(super) fn folders_of(&self, device: EndpointId) -> Vec<FolderKey> {
        let takes_part = |slot: &Slot| match slot {
            Slot::Open(folder) => folder.grants.contains_key(&device),
            Slot::Closed(_) => false,
        };
        self.folders
            .iter()
            .filter(|(_, slot)| takes_part(slot))
            .map(|(key, _)| *key)
            .collect()
    }
}
