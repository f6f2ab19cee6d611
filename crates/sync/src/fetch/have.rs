//! Which groups of a big file are here already. Never touches the file.

use alike_core::message::MAX_RUNS;
use alike_core::subtree::{GROUP, Subtree};

/// Bytes asked for in one request.
const PIECE: u64 = 16 << 20;

/// What one request asks for: runs of groups, ascending (the first, and the one behind the last).
pub(super) type Piece = Vec<(u64, u64)>;

/// Adds a run behind those that are there; one that goes on where the last one ends makes that longer.
pub(super) fn add_run(runs: &mut Piece, first: u64, end: u64) {
    match runs.last_mut() {
        Some((_, last)) if *last == first => *last = end,
        _ => runs.push((first, end)),
    }
}

/// One bit a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Have {
    size: u64,
    bits: Vec<u8>,
}

impl Have {
    /// Nothing of a file of `size` bytes.
    pub(super) fn nothing(size: u64) -> Have {
        let bytes = Subtree::whole(size).groups().div_ceil(8);
        Have {
            size,
            bits: vec![0; bytes as usize],
        }
    }

    /// As [`Have::notes`] told it.
    pub(super) fn from_notes(size: u64, notes: Vec<u8>) -> Have {
        let mut have = Have::nothing(size);
        if notes.len() == have.bits.len() {
            have.bits = notes;
        }
        have
    }

    pub(super) fn notes(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn holds(&self, group: u64) -> bool {
        self.bits[(group / 8) as usize] & (1 << (group % 8)) != 0
    }

    /// All of these groups?
    pub(super) fn holds_all(&self, of: Subtree) -> bool {
        (of.first..of.end).all(|group| self.holds(group))
    }

    /// They are here from now on; returns the bytes of those that were not.
    pub(super) fn add(&mut self, first: u64, end: u64) -> u64 {
        let mut added = 0;
        for group in first..end {
            if !self.holds(group) {
                self.bits[(group / 8) as usize] |= 1 << (group % 8);
                added += self.bytes_of(group);
            }
        }
        added
    }

    /// Bytes that are here.
    pub(super) fn bytes(&self) -> u64 {
        let held = self.groups().filter(|group| self.holds(*group));
        held.map(|group| self.bytes_of(group)).sum()
    }

    /// What is missing, in pieces that are worth a request.
    pub(super) fn missing(&self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut piece, mut groups) = (Piece::new(), 0);
        for group in self.groups().filter(|group| !self.holds(*group)) {
            let goes_on = piece.last().is_some_and(|(_, end)| *end == group);
            if groups * GROUP >= PIECE || (!goes_on && piece.len() == MAX_RUNS) {
                pieces.push(std::mem::take(&mut piece));
                groups = 0;
            }
            add_run(&mut piece, group, group + 1);
            groups += 1;
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
        pieces
    }

    /// What of a piece is missing still.
    pub(super) fn missing_of(&self, piece: Piece) -> Piece {
        let mut rest = Piece::new();
        let groups = piece.into_iter().flat_map(|(first, end)| first..end);
        for group in groups.filter(|group| !self.holds(*group)) {
            add_run(&mut rest, group, group + 1);
        }
        rest
    }

    fn groups(&self) -> std::ops::Range<u64> {
        0..Subtree::whole(self.size).groups()
    }

    fn bytes_of(&self, group: u64) -> u64 {
        GROUP.min(self.size - group * GROUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_in_pieces() {
        let size = (40 << 20) + 5;
        let mut have = Have::nothing(size);
        assert_eq!(
            have.missing(),
            [vec![(0, 1024)], vec![(1024, 2048)], vec![(2048, 2561)]]
        );
        assert_eq!(have.add(10, 2500), 2490 * GROUP);
        assert_eq!(have.add(2560, 2561), 5);
        assert_eq!(have.add(2559, 2561), GROUP);
        assert_eq!(have.missing(), [vec![(0, 10), (2500, 2559)]]);
        assert_eq!(have.bytes(), 2491 * GROUP + 5);
        let read = Have::from_notes(size, have.notes().to_vec());
        assert_eq!(read, have);
        assert_eq!(Have::from_notes(size, vec![1; 3]), Have::nothing(size));
        assert_eq!(
            have.missing_of(vec![(5, 20), (2490, 2502), (2560, 2561)]),
            [(5, 10), (2500, 2502)]
        );
        have.add(0, 2561);
        assert!(have.missing().is_empty() && have.bytes() == size);
    }

    #[test]
    fn many_small_gaps_stay_within_the_limit_of_a_request() {
        let size = 5000 * GROUP;
        let mut have = Have::nothing(size);
        for group in (0..5000).step_by(2) {
            have.add(group, group + 1);
        }
        let pieces = have.missing();
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_RUNS));
        assert_eq!(pieces.concat().len(), 2500);
    }
}
