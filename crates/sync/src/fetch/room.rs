//! How much may be fetched: a reserve of the folder's file system is left to its user. Never frees anything.

use crate::apply::Item;
use crate::disk::Room;
use crate::units::size;

/// What is left of a file system: a hundredth of it, but this much at least (bytes) …
const RESERVE: u64 = 64 * 1024 * 1024;
const RESERVE_SHARE: u64 = 100;
/// … and of a small one at most this share, or nothing would ever fit. See docs/decisions/0006.
const SMALL_SHARE: u64 = 20;
/// What a file takes beside its content (bytes): its inode, and the end of its last block.
const EACH: u64 = 8 * 1024;

/// What must stay free.
fn reserve(total: u64) -> u64 {
    (total / RESERVE_SHARE).max(RESERVE).min(total / SMALL_SHARE)
}

/// What did not fit.
#[derive(Debug, Default)]
pub(super) struct Refused {
    files: u64,
    bytes: u64,
    /// Room that there was.
    free: u64,
}

impl Refused {
    /// One batch more of the same pass.
    pub(super) fn add(&mut self, more: &Refused) {
        if more.files > 0 {
            self.files += more.files;
            self.bytes = self.bytes.saturating_add(more.bytes);
            self.free = more.free;
        }
    }

    /// In words; `None` for nothing.
    pub(super) fn text(&self) -> Option<String> {
        (self.files > 0).then(|| {
            format!(
                "too little room: {} are free on the folder's disk, {} files of {} do not fit",
                size(self.free),
                self.files,
                size(self.bytes)
            )
        })
    }
}

/// What one batch has room for.
pub(super) struct Budget {
    left: u64,
    pub(super) refused: Refused,
}

impl Budget {
    /// `claimed`: bytes that are on their way already.
    pub(super) fn new(room: Room, claimed: u64) -> Budget {
        let left = if room.total == 0 {
            u64::MAX
        } else {
            room.free
                .saturating_sub(reserve(room.total))
                .saturating_sub(claimed)
        };
        let refused = Refused {
            free: room.free,
            ..Refused::default()
        };
        Budget { left, refused }
    }

    /// Is there room for it? Then it is taken. What needs no content always fits; and `here` bytes of it are on the disk
    /// already.
    pub(super) fn take(&mut self, item: &Item, here: u64) -> bool {
        if !item.op.needs_content() {
            return true;
        }
        let size = item.head.as_ref().map_or(0, |head| head.value.size());
        self.take_bytes(size.saturating_sub(here))
    }

    /// The same for so many bytes of a content.
    pub(super) fn take_bytes(&mut self, need: u64) -> bool {
        match self.left.checked_sub(need.saturating_add(EACH)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.refused.files += 1;
                self.refused.bytes = self.refused.bytes.saturating_add(need);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alike_core::digest::Digest;
    use alike_core::path::{Name, RelPath};
    use alike_core::plan::Op;
    use alike_core::record::Value;
    use alike_core::view::Shown;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn item(op: Op, size: u64) -> Item {
        let value = Value::File {
            digest: Digest::of(b""),
            size,
        };
        let name = Name::new(b"x").expect("a name");
        let head = Shown {
            name,
            value,
            exec: None,
            mtime: 0,
            dots: Vec::new(),
            copy_of: None,
            child: None,
        };
        Item {
            path: RelPath::parse(b"x").expect("a path"),
            op,
            head: Some(head),
            row: None,
        }
    }

    #[test]
    fn a_reserve_stays_and_small_file_systems_are_of_use() {
        assert_eq!(reserve(100 * 1024 * MIB), 1024 * MIB);
        assert_eq!(reserve(2 * 1024 * MIB), 64 * MIB);
        assert_eq!(reserve(40 * MIB), 2 * MIB);
    }

    #[test]
    fn what_does_not_fit_leaves_room_for_what_does() {
        let room = Room {
            free: 30 * MIB,
            total: 40 * MIB,
        };
        let mut budget = Budget::new(room, 4 * MIB);
        assert!(!budget.take(&item(Op::Create, 24 * MIB), 0));
        assert!(budget.take(&item(Op::Create, 20 * MIB), 0));
        assert!(!budget.take(&item(Op::Replace, 4 * MIB), 0));
        assert!(budget.take(&item(Op::Remove, 4 * MIB), 0));
        assert_eq!(
            budget.refused.text().expect("two were"),
            "too little room: 30.0 MiB are free on the folder's disk, 2 files of 28.0 MiB do not fit"
        );
        let mut all = Refused::default();
        assert!(all.text().is_none());
        all.add(&budget.refused);
        all.add(&Refused::default());
        all.add(&budget.refused);
        assert_eq!(
            all.text().expect("four were"),
            "too little room: 30.0 MiB are free on the folder's disk, 4 files of 56.0 MiB do not fit"
        );
        // What has arrived of a big file has its room: otherwise it could be refused for ever, a few bytes before its end.
        let mut budget = Budget::new(room, 0);
        assert!(!budget.take(&item(Op::Create, 35 * MIB), 6 * MIB));
        assert!(budget.take(&item(Op::Create, 35 * MIB), 34 * MIB));
        assert!(budget.take(&item(Op::Create, 20 * MIB), 40 * MIB));
        assert_eq!(
            budget.refused.text().expect("one was"),
            "too little room: 30.0 MiB are free on the folder's disk, 1 files of 29.0 MiB do not fit"
        );
        // A file system that does not say how large it is.
        let mut budget = Budget::new(Room { free: 0, total: 0 }, 0);
        assert!(budget.take(&item(Op::Create, 1 << 40), 0));
    }
}
