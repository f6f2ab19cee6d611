//! From a peer's state to one commit: the merged HEAD and what is left to do on disk. Never fetches anything;
//! the nodes come with the event.

use alike_core::claim::{Claim, Claims};
use alike_core::digest::Digest;
use alike_core::merge;
use alike_core::state::State;
use alike_core::tree::Overlay;

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
        (from, settled): ([u8; 32], bool),
    ) -> Result<(), Error> {
        // Dots that this device would give out next may have been given out before, by it or by a copy of it. Whatever
        // is done under them would be taken for something that the others have seen.
        self.heard(claims, from)?;
        self.take_ends(claims)?;
        if self.head.claims.void_some_of(claims) {
            return Err(Error::Void);
        }
        self.refuse_parted(claims, from)?;
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
            let mut commit = folder.finish(&snapshot, nodes, commit)?;
            commit.generation = folder.generation_of_peer(&snapshot, (from, settled), theirs.root)?;
            commit.head = Some(folder.head.clone());
            point("commit.merge");
            store.commit(folder.place.key, commit)?;
            point("commit.merge.done");
            Ok(())
        })
    }

    /// Of two histories of one replica only its device can tell which writes are which: until it has ended it, nothing is
    /// taken from who knows the other history.
    fn refuse_parted(&mut self, claims: &Claims, from: [u8; 32]) -> Result<(), Error> {
        self.parted.remove(&from);
        let Some((replica, claim)) = claims.parted_from(&self.head.claims) else {
            return Ok(());
        };
        self.parted.insert(from, (replica, claim.clone()));
        let error = parted(claim);
        tracing::debug!(?replica, "{error}");
        Err(error)
    }

    /// What is said of peers that know another history of some device than this one does, as long as they do.
    pub(super) fn parted_problems(&mut self) -> Vec<Problem> {
        let known = &self.head.claims;
        self.parted
            .retain(|_, (replica, claim)| known.get(*replica).is_some_and(|ours| ours.is_parted_from(claim)));
        let mut problems: Vec<Problem> = Vec::new();
        for (_, claim) in self.parted.values() {
            let problem = Problem {
                reason: parted(claim).to_string(),
                hint: "connect that device with all the others: it then gives its newest writes new names by itself"
                    .into(),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }
}

fn parted(claim: &Claim) -> Error {
    let device = Digest(claim.device).to_hex();
    Error::Parted(device[..10].to_owned())
}
