//! The network between the machines: links that come and go, announcements in the order of their link, states
//! pulled node by node. Never loses what a connection that stays up has taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::message::Announce;
use alike_core::session::Input;
use alike_core::state::{self, State};
use alike_core::tree::{self, Nodes};
use tokio::sync::oneshot;

use super::Sim;
use crate::fetch::NewNodes;
use crate::folder::FolderEvent;

#[derive(Default)]
pub(super) struct Net {
    /// Links that are up, lower machine first.
    up: BTreeSet<(usize, usize)>,
    /// Announcements on their way, by (from, to).
    on_the_way: BTreeMap<(usize, usize), VecDeque<Announce>>,
    /// Announcements that were sent, ever.
    pub(super) sent: u64,
    pub(super) pulled: u64,
}

fn link(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Sim {
    pub(super) fn is_up(&self, a: usize, b: usize) -> bool {
        a != b && self.net.borrow().up.contains(&link(a, b))
    }

    /// Connects two machines whose engines run and which take part.
    pub(super) fn connect(&self, a: usize, b: usize) {
        if a == b || self.is_up(a, b) || !self.machines[a].paired.get() || !self.machines[b].paired.get() {
            return;
        }
        let (Some(one), Some(two)) = (self.process(a), self.process(b)) else {
            return;
        };
        self.net.borrow_mut().up.insert(link(a, b));
        self.note(format_args!("m{a} and m{b} are connected"));
        for (here, process, peer) in [(a, &one, b), (b, &two, a)] {
            let ours = self.announcement(process);
            self.input(here, process, peer, Input::Ours(ours));
            self.input(here, process, peer, Input::Connected);
        }
    }

    pub(super) fn disconnect(&self, a: usize, b: usize) {
        if !self.is_up(a, b) {
            return;
        }
        let mut net = self.net.borrow_mut();
        net.up.remove(&link(a, b));
        net.on_the_way.remove(&(a, b));
        net.on_the_way.remove(&(b, a));
        drop(net);
        self.note(format_args!("m{a} and m{b} are cut off from each other"));
        for (here, peer) in [(a, b), (b, a)] {
            if let Some(process) = self.machines[here].running() {
                process.pulls.borrow_mut().retain(|(p, _)| *p != peer);
                self.input(here, &process, peer, Input::Disconnected);
            }
        }
    }

    /// A machine went away.
    pub(super) fn cut_off(&self, machine: usize) {
        for peer in 0..self.machines.len() {
            self.disconnect(machine, peer);
        }
    }

    pub(super) fn send(&self, from: usize, to: usize, announce: Announce) {
        if self.is_up(from, to) {
            let mut net = self.net.borrow_mut();
            net.sent += 1;
            net.on_the_way.entry((from, to)).or_default().push_back(announce);
        }
    }

    /// Is nothing on its way?
    pub(super) fn is_quiet(&self) -> bool {
        self.net.borrow().on_the_way.values().all(VecDeque::is_empty)
    }

    /// The first message of some link arrives. `false`: there is none.
    pub(super) fn deliver(&self) -> bool {
        let links: Vec<(usize, usize)> = {
            let net = self.net.borrow();
            net.on_the_way
                .iter()
                .filter(|(_, q)| !q.is_empty())
                .map(|(l, _)| *l)
                .collect()
        };
        if links.is_empty() {
            return false;
        }
        let (from, to) = self.rng(|r| r.pick(&links));
        let message = self
            .net
            .borrow_mut()
            .on_the_way
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front);
        if let (Some(announce), Some(process)) = (message, self.process(to)) {
            self.input(to, &process, from, Input::Theirs(announce));
        }
        true
    }

    /// One of the pulls that were asked for is carried out.
    pub(super) fn pull(&self, machine: usize) {
        let Some(process) = self.process(machine) else {
            return;
        };
        let count = process.pulls.borrow().len();
        if count == 0 {
            return;
        }
        let which = self.rng(|r| r.below(count));
        let (peer, theirs) = process.pulls.borrow_mut().remove(which);
        let fails = self.weather.get().errors > 0 && self.rng(|r| r.percent(8));
        let nodes = if fails || !self.is_up(machine, peer) {
            None
        } else {
            self.nodes_of(machine, peer, theirs.state)
        };
        self.net.borrow_mut().pulled += 1;
        let Some(nodes) = nodes else {
            self.note(format_args!("m{machine}: pulling from m{peer} fails"));
            self.pull_ended(machine, &process, peer, false);
            return;
        };
        let (reply, answer) = oneshot::channel();
        process.merging.borrow_mut().push((peer, answer));
        let settled = theirs.settled;
        let claims = theirs.claims.clone();
        let theirs = State {
            root: theirs.state,
            vector: theirs.claims.vector(),
        };
        let from = self.machines[peer].device();
        process.inbox.borrow_mut().push_back(FolderEvent::Merge {
            theirs,
            claims,
            nodes,
            from,
            settled,
            reply,
        });
    }

    /// As `fetch::net::state`: what of a state is not here.
    fn nodes_of(&self, machine: usize, peer: usize, root: Option<Digest>) -> Option<NewNodes> {
        let (here, there) = (self.process(machine)?, self.process(peer)?);
        let (mine, theirs) = (
            here.place.store.snapshot().ok()?,
            there.place.store.snapshot().ok()?,
        );
        let mut new = NewNodes::new();
        let mut todo: Vec<Digest> = root.into_iter().collect();
        while let Some(digest) = todo.pop() {
            if new.contains_key(&digest) || mine.has_node(&digest).ok()? {
                continue;
            }
            let bytes: Arc<[u8]> = theirs.node(&digest).ok()??;
            let node = tree::decode(&bytes).expect("what a store holds is canonical");
            todo.extend(state::children(&node));
            new.insert(digest, bytes);
        }
        Some(new)
    }

    /// Pulls that failed are tried again.
    pub(super) fn retry(&self, machine: usize) {
        let Some(process) = self.process(machine) else {
            return;
        };
        let failed = std::mem::take(&mut *process.failed.borrow_mut());
        for peer in failed {
            self.input(machine, &process, peer, Input::Retry);
        }
    }
}
