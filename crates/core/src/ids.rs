//! Who wrote, and when: replica ids, dots, version vectors and the hybrid logical clock. Never reads a clock.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One incarnation of one folder on one device, made by [`crate::claim::replica_id`]: never reused after doubt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One local write of one path: the `seq`-th of `replica`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who.
    pub replica: ReplicaId,
    /// The how-manieth, from 1.
    pub seq: u64,
}

/// What has been seen of every replica: all its dots up to and including `seq`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector(BTreeMap<ReplicaId, u64>);

impl Vector {
    /// Was this dot seen here?
    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.replica) >= dot.seq
    }

    /// The newest seq seen of `replica`; 0 if none.
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.0.get(&replica).copied().unwrap_or(0)
    }

    /// Advances the entry of `replica` to at least `seq`.
    pub fn advance(&mut self, replica: ReplicaId, seq: u64) {
        // Nothing seen is no entry: what is equal compares as equal.
        if seq == 0 {
            return;
        }
        let entry = self.0.entry(replica).or_default();
        *entry = (*entry).max(seq);
    }

    /// Takes the entry of `replica` back to `seq`: what is known of it after that is in doubt.
    pub fn cut(&mut self, replica: ReplicaId, seq: u64) {
        self.0.remove(&replica);
        self.advance(replica, seq);
    }

    /// The componentwise maximum.
    pub fn join(&mut self, other: &Vector) {
        for (&replica, &seq) in &other.0 {
            self.advance(replica, seq);
        }
    }

    /// Has everything that `self` saw been seen by `other`?
    pub fn is_covered_by(&self, other: &Vector) -> bool {
        self.0.iter().all(|(&replica, &seq)| other.get(replica) >= seq)
    }

    /// How many replicas are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing seen of anybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
/// It decides only which version keeps the path in a true conflict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The wall clock alone; times before 1970 count as 1970.
    pub fn from_millis(millis: u64) -> Self {
        Hlc(millis.min(u64::MAX >> 16) << 16)
    }

    /// `max(wall clock, largest seen + 1)`.
    pub fn next(self, now_millis: u64) -> Self {
        Hlc::from_millis(now_millis).max(Hlc(self.0.saturating_add(1)))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }
}

/// The id of a folder: random, the same on all its devices, never told to the unpaired.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FolderId(pub [u8; 16]);

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_back_never_makes_time_go_back() {
        let first = Hlc::default().next(5_000);
        let second = first.next(1_000);
        assert!(second > first);
        assert_eq!(second.millis(), 5_000);
        assert_eq!(Hlc(u64::MAX).next(0), Hlc(u64::MAX));
    }

    #[test]
    fn having_seen_nothing_of_a_replica_is_no_difference() {
        let mut vector = Vector::default();
        vector.advance(ReplicaId(1), 0);
        assert_eq!(vector, Vector::default());
    }

    #[test]
    fn joining_covers_both() {
        let dot = |r, seq| Dot {
            replica: ReplicaId(r),
            seq,
        };
        let mut a = Vector::default();
        a.advance(ReplicaId(1), 3);
        let mut b = Vector::default();
        b.advance(ReplicaId(2), 1);
        assert!(!a.is_covered_by(&b));
        b.join(&a);
        assert!(a.is_covered_by(&b) && b.covers(dot(1, 3)) && b.covers(dot(2, 1)) && !b.covers(dot(2, 2)));
    }
}
