//! Claims: what a device says, and signs, of a replica of its own. A vector that travels is made of them, so nobody
//! can say that writes were seen which their author has not made yet. Never signs or verifies; `sync` has the keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{FolderId, ReplicaId, Vector};

const REPLICA: &str = "alike replica id, version 1";
const CHAIN: &[u8; 32] = b"alike chain of writes, version 1";
const SIGNED: &[u8] = b"alike claim, version 1\n";

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
    /// Its last write; not 0.
    pub seq: u64,
    /// The chain up to there.
    pub chain: Digest,
    /// Ed25519 over [`signed_bytes`], by `device`; its two halves.
    pub signature: [[u8; 32]; 2],
}

/// What is signed of a claim.
pub fn signed_bytes(folder: FolderId, replica: ReplicaId, seq: u64, chain: &Digest) -> Vec<u8> {
    let mut bytes = SIGNED.to_vec();
    bytes.extend_from_slice(&folder.0);
    bytes.extend_from_slice(&replica.0.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&chain.0);
    bytes
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

    /// Takes a claim, if it is newer than the one that is here.
    pub fn take(&mut self, replica: ReplicaId, claim: Claim) {
        if self.0.get(&replica).is_none_or(|known| known.seq < claim.seq) {
            self.0.insert(replica, claim);
        }
    }

    /// Drops what is known of a replica.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.0.remove(&replica);
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
        self.iter().find(|(replica, claim)| {
            other
                .get(*replica)
                .is_some_and(|o| o.seq == claim.seq && o.chain != claim.chain)
        })
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
}
