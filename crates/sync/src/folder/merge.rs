//! From a peer's state to one commit: the merged HEAD and what is left to do on disk. Never fetches anything;
//! the nodes come with the event.

use alike_core::merge;
use alike_core::state::State;
use alike_core::tree::Overlay;
use alike_store::Reason;

use super::Folder;
use super::commit::Draft;
use crate::error::Error;
use crate::failpoint::point;
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
        self.or_as_before(|folder| {
            // Clocks run ahead together: what is written here next is newer than all that was seen.
            folder.head.hlc = folder.head.hlc.max(merged.newest);
            folder.head.state = merged.state;
            folder.since_generation.add(&merged.changes);
            folder.view.remote.add(&merged.changes);
            let mut draft = Draft::new(&snapshot, folder);
            for change in &merged.changes {
                draft.settle(&change.path, change.after.as_ref())?;
            }
            let commit = draft.into_commit();
            folder.settled(&commit);
            let mut commit = folder.finish(&snapshot, nodes.new, commit)?;
            commit.generation = folder.generation(Reason::Peer, from);
            commit.head = Some(folder.head.clone());
            point("commit.merge");
            store.commit(folder.place.key, commit)?;
            point("commit.merge.done");
            Ok(())
        })
    }
}
