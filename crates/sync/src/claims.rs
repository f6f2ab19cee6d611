//! Signing what this device claims of its replicas, and verifying what others claim of theirs. Never decides what
//! a claim that does not fit means; the folder does.

use std::collections::HashMap;

use alike_core::claim::{Claim, Claims, replica_id, signed_bytes};
use alike_core::digest::Digest;
use alike_core::ids::{FolderId, ReplicaId};
use alike_core::message::Announce;
use alike_store::Replica;
use iroh::{PublicKey, SecretKey, Signature};

use crate::error::Error;

/// Folders of which a connection remembers what was verified; a device shares a few.
const MAX_KNOWN: usize = 256;

/// The device's key, for what it claims.
#[derive(Clone, Debug)]
pub(crate) struct Signer(SecretKey);

impl Signer {
    pub(crate) fn new(key: SecretKey) -> Self {
        Signer(key)
    }

    /// The device.
    pub(crate) fn device(&self) -> [u8; 32] {
        *self.0.public().as_bytes()
    }

    /// A replica that never was before.
    pub(crate) fn begin(&self, folder: FolderId) -> Result<Replica, Error> {
        let mut nonce = [0; 16];
        random(&mut nonce)?;
        Ok(Replica {
            id: replica_id(&self.device(), folder, &nonce),
            nonce,
        })
    }

    /// The claim of having made `seq` writes as `replica`, and no more than that if it `ended`; `None` for none at all.
    pub(crate) fn claim(
        &self,
        folder: FolderId,
        replica: Replica,
        (seq, chain): (u64, Digest),
        ended: bool,
    ) -> Option<(ReplicaId, Claim)> {
        if seq == 0 && !ended {
            return None;
        }
        let signature = self
            .0
            .sign(&signed_bytes(folder, replica.id, seq, &chain, ended))
            .to_bytes();
        let (one, two) = signature.split_at(32);
        let claim = Claim {
            device: self.device(),
            nonce: replica.nonce,
            seq,
            chain,
            ended,
            signature: [
                one.try_into().expect("half of it"),
                two.try_into().expect("half of it"),
            ],
        };
        Some((replica.id, claim))
    }
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    #[cfg(test)]
    if let Some(sim) = crate::sim::current() {
        sim.fill(bytes);
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|e| Error::Refused(format!("no random numbers: {e}")))
}

/// Is this claim its device's own word on that replica?
pub(crate) fn is_genuine(folder: FolderId, replica: ReplicaId, claim: &Claim) -> bool {
    if (claim.seq == 0 && !claim.ended) || replica_id(&claim.device, folder, &claim.nonce) != replica {
        return false;
    }
    let Ok(key) = PublicKey::from_bytes(&claim.device) else {
        return false;
    };
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&claim.signature[0]);
    signature[32..].copy_from_slice(&claim.signature[1]);
    let bytes = signed_bytes(folder, replica, claim.seq, &claim.chain, claim.ended);
    key.verify(&bytes, &Signature::from_bytes(&signature)).is_ok()
}

/// What was verified on a connection: most of what is announced was announced before.
#[derive(Debug, Default)]
pub(crate) struct Verified(HashMap<FolderId, Claims>);

impl Verified {
    /// Is everything in it genuine?
    pub(crate) fn check(&mut self, announce: &Announce) -> bool {
        let folder = announce.folder;
        let known = self.0.get(&folder);
        let genuine = announce.claims.iter().all(|(replica, claim)| {
            known.and_then(|k| k.get(replica)) == Some(claim) || is_genuine(folder, replica, claim)
        });
        if genuine {
            if self.0.len() >= MAX_KNOWN {
                self.0.clear();
            }
            self.0.insert(folder, announce.claims.clone());
        }
        genuine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: FolderId = FolderId([7; 16]);

    fn announce(claims: Claims) -> Announce {
        Announce {
            folder: FOLDER,
            state: None,
            claims,
            heard: true,
            root: Digest::of(b""),
            pending_files: 0,
            pending_bytes: 0,
            settled: true,
        }
    }

    fn signer(n: u8) -> Signer {
        Signer::new(SecretKey::from_bytes(&[n; 32]))
    }

    #[test]
    fn only_the_devices_own_word_counts() {
        let (victim, liar) = (signer(1), signer(2));
        let replica = victim.begin(FOLDER).unwrap();
        let (id, claim) = victim
            .claim(FOLDER, replica, (5, Digest::of(b"chain")), false)
            .unwrap();
        assert!(is_genuine(FOLDER, id, &claim));
        assert!(
            victim
                .claim(FOLDER, replica, (0, Digest::of(b"chain")), false)
                .is_none()
        );
        // Ahead of its owner, with another history, of another folder, of another replica.
        let forged = |change: fn(&mut Claim)| {
            let mut forged = claim.clone();
            change(&mut forged);
            is_genuine(FOLDER, id, &forged)
        };
        assert!(!forged(|c| c.seq = 6));
        assert!(!forged(|c| c.seq = 0));
        assert!(!forged(|c| c.chain = Digest::of(b"other")));
        assert!(!forged(|c| c.ended = true));
        assert!(!forged(|c| c.nonce[0] ^= 1));
        assert!(!forged(|c| c.signature[1][0] ^= 1));
        assert!(!forged(|c| c.device = [2; 32]));
        assert!(!is_genuine(FolderId([8; 16]), id, &claim));
        assert!(!is_genuine(FOLDER, ReplicaId(id.0 ^ 1), &claim));
        // Signed by somebody else in the victim's name, or as somebody else's replica.
        let (_, mut other) = liar
            .claim(FOLDER, replica, (9, Digest::of(b"chain")), false)
            .unwrap();
        assert!(!is_genuine(FOLDER, id, &other));
        other.device = victim.device();
        assert!(!is_genuine(FOLDER, id, &other));
    }

    #[test]
    fn what_was_verified_before_does_not_vouch_for_anything_else() {
        let device = signer(1);
        let replica = device.begin(FOLDER).unwrap();
        let (id, claim) = device
            .claim(FOLDER, replica, (5, Digest::of(b"chain")), false)
            .unwrap();
        let mut verified = Verified::default();
        let mut claims = Claims::default();
        claims.take(id, claim.clone());
        assert!(verified.check(&announce(claims.clone())));
        assert!(verified.check(&announce(claims.clone())));
        let ahead = Claim { seq: 6, ..claim };
        claims.take(id, ahead);
        assert!(!verified.check(&announce(claims.clone())));
        assert!(!verified.check(&announce(claims)));
    }
}
