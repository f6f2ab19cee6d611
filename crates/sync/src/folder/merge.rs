//! From a peer's state to one commit: the merged HEAD and what is left to do on disk. Never fetches anything;
//! the nodes come with the event.

use alike_core::claim::Claims;
use alike_core::digest::Digest;
use alike_core::merge;
use alike_core::path::RelPath;
use alike_core::state::State;
use alike_core::tree::Overlay;
use alike_store::Reason;

use super::commit::Draft;
use super::{Folder, Problem};
use crate::error::Error;
use crate::failpoint::point;
use crate::fetch::NewNodes;

impl Folder {
    /// Merges a peer's state into HEAD.
    pub(super) fn merge(
        &mut self,
        theirs: State,
        claims: &Claims,
        new: NewNodes,
        from: [u8; 32],
    ) -> Result<(), Error> {
        // Dots that this device would give out next may have been given out before, by it or by a copy of it. Whatever
        // is done under them would be taken for something that the others have seen.
        self.heard(claims, from)?;
        self.refuse_parted(claims)?;
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
            for (replica, claim) in claims.iter().filter(|(replica, _)| *replica != folder.own.id) {
                folder.head.claims.take(replica, claim.clone());
            }
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

    /// Of two histories of one replica only its device can tell which writes are which: until it has given its newest
    /// ones other dots, nothing is taken from who knows the other history.
    fn refuse_parted(&mut self, claims: &Claims) -> Result<(), Error> {
        let at = RelPath::root();
        let Some((replica, claim)) = self.head.claims.parted_from(claims) else {
            if std::mem::take(&mut self.parted) {
                self.apply_problems.remove(&at);
            }
            return Ok(());
        };
        let device = Digest(claim.device).to_hex();
        let error = Error::Parted(device[..10].to_owned());
        tracing::debug!(?replica, "{error}");
        let problem = Problem {
            reason: error.to_string(),
            hint:
                "connect that device with all the others: it then gives its newest writes new names by itself"
                    .into(),
        };
        self.apply_problems.insert(at, problem);
        self.parted = true;
        Err(error)
    }
}
