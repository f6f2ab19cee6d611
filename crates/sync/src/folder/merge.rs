//! From a peer's state to one commit: the merged HEAD and what is left to do on disk. Never fetches anything;
//! the nodes come with the event.

use alike_core::merge;
use alike_core::state::State;
use alike_core::tree::Overlay;
use alike_store::Reason;

use super::Folder;
use super::commit::Draft;
use crate::error::Error;
use crate::fetch::NewNodes;

impl Folder {
    /// Merges a peer's state into HEAD.
    pub(super) fn merge(&mut self, theirs: State, new: NewNodes, from: [u8; 32]) -> Result<(), Error> {
        // Dots that this device would give out next were given out before, by it or by a copy of it. Whatever is
        // done from here on would be taken for something that the others have seen.
        let own = self.place.row.replica;
        if theirs.vector.get(own) > self.head.seq {
            return Err(Error::Rewound);
        }
        let store = self.place.store.clone();
        let snapshot = store.snapshot()?;
        let mut nodes = Overlay::new(&snapshot);
        nodes.new = new;
        let merged = merge::merge(&mut nodes, &self.head.state, &theirs)?;
        if merged.state == self.head.state {
            return Ok(());
        }
        self.hold_merge(from, theirs.root, &merged.changes)?;
        let before = (self.head.clone(), self.since_generation);
        // Clocks run ahead together: what is written here next is newer than all that was seen.
        self.head.hlc = self.head.hlc.max(merged.newest);
        self.head.state = merged.state;
        self.since_generation.add(&merged.changes);
        self.view.remote.add(&merged.changes);
        let result = (|| {
            let mut draft = Draft::new(&snapshot, self);
            for change in &merged.changes {
                draft.settle(&change.path, change.after.as_ref())?;
            }
            let commit = draft.into_commit();
            self.settled(&commit);
            let mut commit = self.finish(&snapshot, nodes.new, commit)?;
            commit.generation = self.generation(Reason::Peer, from);
            commit.head = Some(self.head.clone());
            store.commit(self.place.key, commit)?;
            Ok(())
        })();
        if result.is_err() {
            (self.head, self.since_generation) = before;
        }
        result
    }
}
