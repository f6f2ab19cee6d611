//! Claims: what a device says, and signs, of a replica of its own. A vector that travels is made of them, so nobody
//! can say that writes were seen which their author has not made yet. Never signs or verifies; `sync` has the keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{FolderId, ReplicaId, Vector};

const REPLICA: &str = "alike replica id, version 1";
const CHAIN: &[u8; 32] = b"alike chain of writes, version 1";
const SIGNED: &[u8] = b"alike claim, version 2\n";

/// The id of the replica that `device` begins in `folder` with `nonce`: nobody else can have it.
pub fn replica_id(device: &[u8; 32], folder: FolderId, nonce: &[u8; 16]) -> ReplicaId {
    let mut hasher = blake3::Hasher::new_derive_key(REPLICA);
    hasher.update(device).update(&folder.0).update(nonce);
    let hash = hasher.finalize();
    ReplicaId(u64::from_le_bytes(
        hash.as_bytes()[..8].try_into().expect("eight bytes"),
    ))
}

/// The chain of a replica that has written nothing.
pub const NO_CHAIN: Digest = Digest([0; 32]);

/// The chain of a replica's commits, one link on: two histories of one replica differ in it from where they part.
pub fn link(before: Digest, seq: u64, root: Option<Digest>) -> Digest {
    let mut bytes = Vec::with_capacity(73);
    bytes.extend_from_slice(&before.0);
    bytes.extend_from_slice(&seq.to_le_bytes());
    if let Some(root) = root {
        bytes.extend_from_slice(&root.0);
    }
    Digest::keyed(CHAIN, &bytes)
}

/// “I have made so many writes, and this is their history.”
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Whose replica it is: the device's public key.
    pub device: [u8; 32],
    /// What the replica's id was made with.
    pub nonce: [u8; 16],
    /// Its last write; not 0, but for one that ended before the first.
    pub seq: u64,
    /// The chain up to there.
    pub chain: Digest,
    /// The replica ends there: what was written after it, by a copy of its device or in a future that was taken back, has
    /// other names by now, or is to get them from whoever has it.
    pub ended: bool,
    /// Ed25519 over [`signed_bytes`], by `device`; its two halves.
    pub signature: [[u8; 32]; 2],
}

/// What is signed of a claim.
pub fn signed_bytes(folder: FolderId, replica: ReplicaId, seq: u64, chain: &Digest, ended: bool) -> Vec<u8> {
    let mut bytes = SIGNED.to_vec();
    bytes.extend_from_slice(&folder.0);
    bytes.extend_from_slice(&replica.0.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&chain.0);
    bytes.push(ended.into());
    bytes
}

impl Claim {
    /// Does it count, where `other` is known of the same replica? The newer one does; but an end is the last word, and of
    /// two ends the earlier one.
    pub fn outranks(&self, other: &Claim) -> bool {
        match (self.ended, other.ended) {
            (true, true) => self.seq < other.seq,
            (false, false) => self.seq > other.seq,
            (ended, _) => ended,
        }
    }

    /// Is it of the same length, and another history? Where one of the two is an end nobody need wonder.
    pub fn is_parted_from(&self, other: &Claim) -> bool {
        !self.ended && !other.ended && self.seq == other.seq && self.chain != other.chain
    }
}

/// The newest claim of each replica: a vector with its proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims(BTreeMap<ReplicaId, Claim>);

impl Claims {
    /// What they come to.
    pub fn vector(&self) -> Vector {
        let mut vector = Vector::default();
        for (&replica, claim) in &self.0 {
            vector.advance(replica, claim.seq);
        }
        vector
    }

    /// The claim of a replica.
    pub fn get(&self, replica: ReplicaId) -> Option<&Claim> {
        self.0.get(&replica)
    }

    /// Takes a claim, if it outranks the one that is here.
    pub fn take(&mut self, replica: ReplicaId, claim: Claim) {
        if self.0.get(&replica).is_none_or(|known| claim.outranks(known)) {
            self.0.insert(replica, claim);
        }
    }

    /// Drops what is known of a replica.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.0.remove(&replica);
    }

    /// Drops those for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(ReplicaId, &Claim) -> bool) {
        self.0.retain(|replica, claim| keep(*replica, claim));
    }

    /// All of them, by replica.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Claim)> {
        self.0.iter().map(|(&replica, claim)| (replica, claim))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A replica of which the two know different histories of one length: its device was put back from a backup, or
    /// copied, and nothing that it wrote since can be told apart by its dots.
    pub fn parted_from<'a>(&'a self, other: &'a Claims) -> Option<(ReplicaId, &'a Claim)> {
        self.iter()
            .find(|(replica, claim)| other.get(*replica).is_some_and(|o| o.is_parted_from(claim)))
    }

    /// Ends that `other` does not know.
    pub fn ends_unknown_to<'a>(&'a self, other: &'a Claims) -> impl Iterator<Item = (ReplicaId, &'a Claim)> {
        self.iter().filter(|(replica, claim)| {
            claim.ended && other.get(*replica).is_none_or(|known| claim.outranks(known))
        })
    }

    /// Does `other` count writes that came after an end?
    pub fn void_some_of(&self, other: &Claims) -> bool {
        let after = |(replica, claim): (ReplicaId, &Claim)| {
            claim.ended && other.get(replica).is_some_and(|known| known.seq > claim.seq)
        };
        self.iter().any(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(seq: u64, chain: &[u8]) -> Claim {
        Claim {
            device: [1; 32],
            nonce: [2; 16],
            seq,
            chain: Digest::of(chain),
            ended: false,
            signature: [[0; 32]; 2],
        }
    }

    #[test]
    fn an_id_belongs_to_one_device_folder_and_nonce() {
        let id = replica_id(&[1; 32], FolderId([2; 16]), &[3; 16]);
        assert_eq!(id, replica_id(&[1; 32], FolderId([2; 16]), &[3; 16]));
        assert_ne!(id, replica_id(&[9; 32], FolderId([2; 16]), &[3; 16]));
        assert_ne!(id, replica_id(&[1; 32], FolderId([9; 16]), &[3; 16]));
        assert_ne!(id, replica_id(&[1; 32], FolderId([2; 16]), &[9; 16]));
    }

    #[test]
    fn histories_that_part_never_have_one_chain_again() {
        let (a, b) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let same = |x, y| link(link(NO_CHAIN, 1, x), 2, a) == link(link(NO_CHAIN, 1, y), 2, a);
        assert!(same(a, a) && !same(a, b) && !same(None, a));
        assert_ne!(link(NO_CHAIN, 1, a), link(NO_CHAIN, 2, a));
    }

    #[test]
    fn the_newest_claim_counts_and_forks_are_seen() {
        let (one, two) = (ReplicaId(1), ReplicaId(2));
        let mut claims = Claims::default();
        claims.take(one, claim(3, b"x"));
        claims.take(one, claim(2, b"y"));
        claims.take(two, claim(5, b"z"));
        assert_eq!((claims.vector().get(one), claims.vector().get(two)), (3, 5));
        let mut other = claims.clone();
        assert_eq!(claims.parted_from(&other), None);
        other.take(one, claim(4, b"w"));
        assert_eq!(claims.parted_from(&other), None);
        other.remove(one);
        other.take(one, claim(3, b"w"));
        assert_eq!(claims.parted_from(&other).map(|(r, _)| r), Some(one));
    }

    #[test]
    fn an_end_is_the_last_word_and_the_earlier_one_counts() {
        let one = ReplicaId(1);
        let end = |seq| Claim {
            ended: true,
            ..claim(seq, b"x")
        };
        let (mut claims, mut other) = (Claims::default(), Claims::default());
        claims.take(one, claim(7, b"x"));
        other.take(one, claim(7, b"y"));
        assert!(claims.parted_from(&other).is_some());
        other.take(one, end(5));
        assert_eq!(claims.parted_from(&other), None);
        assert_eq!(other.ends_unknown_to(&claims).count(), 1);
        assert!(other.void_some_of(&claims) && !claims.void_some_of(&other));
        for unimpressive in [claim(9, b"x"), end(6), end(5)] {
            other.take(one, unimpressive);
        }
        assert_eq!(other.get(one), Some(&end(5)));
        other.take(one, end(0));
        assert!(other.vector().is_empty());
        claims.take(one, end(0));
        assert_eq!(claims.ends_unknown_to(&other).count(), 0);
        assert!(!other.void_some_of(&claims));
    }
}
