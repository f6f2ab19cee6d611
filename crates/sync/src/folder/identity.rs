//! Who this device is in the folder, and what it does when that is in doubt: it goes on under a new id, and what
//! others may know under its old dots differently gets new ones. Never reuses an id; see docs/architecture.md.

use std::collections::HashMap;

use alike_core::claim::{Claims, NO_CHAIN};
use alike_core::digest::Digest;
use alike_core::edit;
use alike_core::ids::{Dot, ReplicaId};
use alike_core::path::RelPath;
use alike_core::tree::Overlay;
use alike_store::{Commit, Replica, Snapshot};

use super::Folder;
use crate::disk::Witness;
use crate::error::Error;

/// What somebody's knowledge of this replica says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It is of our history.
    Fits,
    /// It is from too long ago to be told.
    TooOld,
    /// It is of another history of this replica, or of a future of ours that we know nothing of.
    Other,
}

/// Compares what is known elsewhere with our chain up to `last`.
fn compare(
    snapshot: &Snapshot,
    folder: alike_store::FolderKey,
    last: u64,
    (seq, chain): (u64, Digest),
) -> Result<Word, Error> {
    if seq > last {
        return Ok(Word::Other);
    }
    Ok(match snapshot.chain(folder, seq)? {
        Some(ours) if ours == chain => Word::Fits,
        Some(_) => Word::Other,
        None if snapshot.chain_start(folder)?.is_some_and(|start| seq < start) => Word::TooOld,
        None => Word::Other,
    })
}

/// Does a peer know of another history of the replica `own` than we do? Also if it may only be that `own` is ours no more.
pub(crate) fn is_doubtful(
    snapshot: &Snapshot,
    folder: alike_store::FolderKey,
    own: ReplicaId,
    claims: &Claims,
) -> Result<bool, Error> {
    // The folder has just taken another id, and its view does not show it yet.
    if snapshot.replica(folder)? != Some(own) {
        return Ok(true);
    }
    let Some(claim) = claims.get(own) else {
        return Ok(false);
    };
    if claim.ended {
        return Ok(true);
    }
    let last = snapshot.head(folder)?.seq;
    Ok(compare(snapshot, folder, last, (claim.seq, claim.chain))? == Word::Other)
}

impl Folder {
    /// What the folder itself remembers of this replica may be more than the database knows: then that was put back from
    /// a backup. Nothing was written since, so a new id is all it takes.
    pub(super) fn check_witness(&mut self) -> Result<(), Error> {
        let Some(witness) = self.place.root.witness() else {
            return Ok(());
        };
        if witness.replica != self.own.id {
            return Ok(());
        }
        let snapshot = self.place.store.snapshot()?;
        let known = (witness.seq, witness.chain);
        if compare(&snapshot, self.place.key, self.head.seq, known)? != Word::Other {
            return Ok(());
        }
        drop(snapshot);
        tracing::warn!(
            folder = %self.place.row.name,
            "the state directory is older than the folder: this device goes on under a new replica id"
        );
        let fresh = self.signer.begin(self.place.id)?;
        self.or_as_before(|folder| {
            let (old, seq, chain) = (folder.own, folder.head.seq, folder.head.chain);
            folder.begin_as(fresh, old, (seq, chain), false);
            let commit = Commit {
                replica: Some(fresh),
                head: Some(folder.head.clone()),
                ..Commit::default()
            };
            folder.place.store.commit(folder.place.key, commit)?;
            Ok(())
        })
    }

    /// HEAD goes on under another id. Of the old one, what it made up to `kept` counts; and nothing else, if it `ended`.
    fn begin_as(&mut self, fresh: Replica, old: Replica, kept: (u64, Digest), ended: bool) {
        self.head.claims.remove(old.id);
        if let Some((id, claim)) = self.signer.claim(self.place.id, old, kept, ended) {
            self.head.claims.take(id, claim);
        }
        self.head.seq = 0;
        self.head.chain = NO_CHAIN;
        self.head.confirmed.clear();
        self.own = fresh;
    }

    /// A peer shows what it knows of this replica. Where that is not our history, a backup was put back, or a copy of
    /// this device is at work: what was written since they parted gets dots that nobody can have seen.
    pub(super) fn heard(&mut self, claims: &Claims, from: [u8; 32]) -> Result<(), Error> {
        let Some(claim) = claims.get(self.own.id) else {
            return Ok(());
        };
        let snapshot = self.place.store.snapshot()?;
        let known = (claim.seq, claim.chain);
        let word = compare(&snapshot, self.place.key, self.head.seq, known)?;
        let confirmed = self.head.confirmed.get(&from).copied().unwrap_or(0);
        match word {
            // A copy of this device has ended the id that both go by.
            Word::Fits if claim.ended => self.redot(&snapshot, claim.seq),
            _ if claim.ended => self.redot(&snapshot, confirmed.min(claim.seq)),
            Word::TooOld => Ok(()),
            Word::Fits => {
                // Written down with the next commit: what is not is only confirmed once more.
                let confirmed = self.head.confirmed.entry(from).or_default();
                *confirmed = (*confirmed).max(claim.seq);
                Ok(())
            }
            // What the peer has confirmed before is its own history too.
            Word::Other => self.redot(&snapshot, confirmed),
        }
    }

    /// Gives all that this replica wrote after its write `kept` new dots, under a new id. The old one ends there.
    fn redot(&mut self, snapshot: &Snapshot, kept: u64) -> Result<(), Error> {
        let kept = match snapshot.chain(self.place.key, kept)? {
            Some(chain) => (kept, chain),
            None => (0, NO_CHAIN),
        };
        tracing::warn!(
            folder = %self.place.row.name,
            "a peer knows other writes of this device: its state directory was put back from a backup, or a copy of it runs \
             elsewhere. It goes on under a new replica id, with all that it wrote after write {}",
            kept.0
        );
        let (old, fresh) = (self.own, self.signer.begin(self.place.id)?);
        self.or_as_before(|folder| {
            folder.begin_as(fresh, old, kept, true);
            folder.head.state.vector.cut(old.id, kept.0);
            let void = |dot: Dot| dot.replica == old.id && dot.seq > kept.0;
            folder.rename_writes(snapshot, void, Some(fresh))
        })
    }

    /// Where a replica has ended, what came after that is made this device's own: nobody else may have it.
    pub(super) fn take_ends(&mut self, claims: &Claims) -> Result<(), Error> {
        let mut ends = claims.clone();
        let own = self.own.id;
        let vector = &self.head.state.vector;
        // What is not known up to its end comes with the merge.
        ends.retain(|replica, claim| {
            let known = self.head.claims.get(replica);
            claim.ended
                && replica != own
                && vector.get(replica) >= claim.seq
                && known.is_none_or(|known| claim.outranks(known))
        });
        if ends.is_empty() {
            return Ok(());
        }
        let snapshot = self.place.store.snapshot()?;
        let void = |dot: Dot| ends.get(dot.replica).is_some_and(|end| dot.seq > end.seq);
        self.or_as_before(|folder| {
            for (replica, end) in ends.iter() {
                folder.head.state.vector.cut(replica, end.seq);
                folder.head.claims.take(replica, end.clone());
            }
            folder.rename_writes(&snapshot, void, None)
        })
    }

    /// Gives the writes that are `void` new dots of this device's, and commits.
    fn rename_writes(
        &mut self,
        snapshot: &Snapshot,
        void: impl Fn(Dot) -> bool,
        replica: Option<Replica>,
    ) -> Result<(), Error> {
        let (key, own) = (self.place.key, self.own.id);
        let mut known: HashMap<Dot, Dot> = HashMap::new();
        let mut seq = self.head.seq;
        let mut renew = |dot: Dot| {
            void(dot).then(|| {
                *known.entry(dot).or_insert_with(|| {
                    seq += 1;
                    Dot { replica: own, seq }
                })
            })
        };
        let mut nodes = Overlay::new(snapshot);
        let (root, changes) = edit::redot(&mut nodes, self.head.state.root, &mut renew)?;
        // Also where HEAD has no such record any more: the dot may be another write's by now.
        let mut rows = Vec::new();
        for (path, mut row) in snapshot.index_below(key, &RelPath::root())? {
            if renew_all(&mut row.mat.dots, &mut renew) {
                rows.push((path, Some(row)));
            }
        }
        let mut intents = snapshot.intents(key)?;
        intents.retain_mut(|intent| {
            let before = intent.before.as_mut().map(|mat| &mut mat.dots);
            let before = before.is_some_and(|dots| renew_all(dots, &mut renew));
            renew_all(&mut intent.dots, &mut renew) | before
        });
        self.head.seq = seq;
        let mut commit = self.edited(snapshot, nodes, root, changes, rows)?;
        commit.intents_put = intents;
        commit.replica = replica;
        commit.head = Some(self.head.clone());
        self.place.store.clone().commit(key, commit)?;
        Ok(())
    }

    /// The claims to announce: what is known of the others, and this device's own.
    pub(super) fn claims(&self) -> Claims {
        let mut claims = self.head.claims.clone();
        let seq = self.head.state.vector.get(self.own.id);
        let known = self.view.claims.get(self.own.id);
        let own = match known.filter(|c| c.seq == seq && c.chain == self.head.chain && !c.ended) {
            Some(claim) => Some((self.own.id, claim.clone())),
            None => self
                .signer
                .claim(self.place.id, self.own, (seq, self.head.chain), false),
        };
        if let Some((id, claim)) = own {
            claims.take(id, claim);
        }
        claims
    }

    /// Leaves in the folder what a database that is put back from a backup would not know. A hint: without it the next
    /// peer says so.
    pub(super) fn leave_witness(&mut self) {
        let witness = Witness {
            replica: self.own.id,
            seq: self.head.state.vector.get(self.own.id),
            chain: self.head.chain,
        };
        if witness.seq == 0 || self.left.as_ref() == Some(&witness) {
            return;
        }
        if let Err(error) = self.place.root.leave_witness(&witness) {
            tracing::debug!(folder = %self.place.row.name, "no witness: {error}");
        }
        self.left = Some(witness);
    }
}

/// Gives dots their new names. Were there any?
fn renew_all(dots: &mut Vec<Dot>, renew: &mut impl FnMut(Dot) -> Option<Dot>) -> bool {
    let before = dots.clone();
    for dot in dots.iter_mut() {
        *dot = renew(*dot).unwrap_or(*dot);
    }
    dots.sort_unstable();
    dots.dedup();
    *dots != before
}
