//! When HEAD becomes a generation: at the end of a burst of changes, not at each commit of it. Never decides what HEAD is.

use alike_core::digest::Digest;
use alike_store::{Generation, Reason, Snapshot};

use super::commit::Counts;
use super::{Folder, now_ms};
use crate::error::Error;

/// A generation that a peer's further changes belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    number: u64,
    from: [u8; 32],
    /// The peer's state that it was made of.
    state: Option<Digest>,
}

impl Folder {
    /// A generation, if content changed since the last one.
    pub(crate) fn generation(&mut self, reason: Reason, device: [u8; 32]) -> Option<Generation> {
        if self.generation_root == Some(self.head.summary.root) {
            return None;
        }
        self.generation_root = Some(self.head.summary.root);
        self.head.generation += 1;
        let Counts {
            added,
            changed,
            removed,
        } = std::mem::take(&mut self.since_generation);
        Some(Generation {
            number: self.head.generation,
            root: self.head.summary.root,
            state: self.head.state.root,
            time_ms: now_ms(),
            reason,
            device,
            added,
            changed,
            removed,
        })
    }

    /// The same, of a peer's changes: they take the place of the newest generation if that was made in the middle of
    /// them. Nobody who waited has seen it: he was answered when the peer had settled.
    pub(super) fn generation_of_peer(
        &mut self,
        snapshot: &Snapshot,
        (from, settled): ([u8; 32], bool),
        state: Option<Digest>,
    ) -> Result<Option<Generation>, Error> {
        let (key, newest) = (self.place.key, self.head.generation);
        let open = self.open_generation.take();
        let before = match open.filter(|open| open.number == newest && open.from == from) {
            // Somebody has named it.
            Some(_) if snapshot.pins(key)?.contains(&newest) => None,
            Some(_) => snapshot.generation(key, newest)?,
            None => None,
        };
        let mut made = self.generation(Reason::Peer, from);
        if let (Some(made), Some(before)) = (&mut made, &before) {
            self.head.generation = before.number;
            made.number = before.number;
            made.added += before.added;
            made.changed += before.changed;
            made.removed += before.removed;
        }
        if !settled && (made.is_some() || before.is_some()) {
            self.open_generation = Some(Open {
                number: self.head.generation,
                from,
                state,
            });
        }
        Ok(made)
    }

    /// What comes next from this peer is a generation of its own, if its newest is of this `state` of the peer (`None`:
    /// of whichever). Was it?
    pub(super) fn close_generation(&mut self, from: [u8; 32], state: Option<Option<Digest>>) -> bool {
        let is_it = |open: &mut Open| open.from == from && state.is_none_or(|state| state == open.state);
        self.open_generation.take_if(is_it).is_some()
    }
}
