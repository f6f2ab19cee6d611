//! Content that is at another path of the folder. Where that path is to go, its file goes to the new one; where it is
//! to stay, that may not be all yet: what was renamed is new first and gone a moment later. Never touches a file.

use std::collections::HashSet;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::plan::Op;
use alike_core::record::Value;
use alike_core::view::Shown;
use alike_store::{IndexRow, Snapshot};

use crate::apply::{Item, must_stay};
use crate::blobs::PLACES;
use crate::error::Error;
use crate::folder::{Look, Place};
use crate::ignore::Asker;

/// How an item gets its content.
pub(super) enum Way {
    /// By moving the file that this removal takes away.
    Moved(Box<Item>),
    /// Perhaps so, when more is known.
    Later,
    /// By a copy.
    Copied,
}

/// Finds out for many items.
pub(super) struct Moving<'a> {
    place: &'a Place,
    snapshot: &'a Snapshot,
    look: Look<'a>,
    rules: Asker<'a>,
    /// What moves already.
    taken: HashSet<RelPath>,
    /// More is known to come.
    more: bool,
}

impl<'a> Moving<'a> {
    pub(super) fn new(place: &'a Place, snapshot: &'a Snapshot, more: bool) -> Result<Self, Error> {
        let head = snapshot.head(place.key)?;
        Ok(Moving {
            place,
            snapshot,
            look: Look::new(snapshot, head.state.root),
            rules: place.rules(),
            taken: HashSet::new(),
            more,
        })
    }

    /// How `item`, which wants this content, gets it if it is in the folder.
    pub(super) fn way(&mut self, item: &Item, digest: &Digest, size: u64) -> Result<Way, Error> {
        let Some(wanted) = item.head.as_ref().filter(|_| item.op == Op::Create && size > 0) else {
            return Ok(Way::Copied);
        };
        let mut stays = false;
        for (key, path) in self.snapshot.blob_places(digest, PLACES)? {
            if key != self.place.key || self.taken.contains(&path) {
                continue;
            }
            let Some(row) = self.snapshot.index(key, &path)? else {
                continue;
            };
            if self.look.at(&path)?.is_some() {
                stays = true;
            } else if self.may_move(&path, &row, wanted) {
                self.taken.insert(path.clone());
                return Ok(Way::Moved(Box::new(Item {
                    path,
                    op: Op::Remove,
                    head: None,
                    row: Some(row),
                })));
            }
        }
        Ok(match stays && self.more {
            true => Way::Later,
            false => Way::Copied,
        })
    }

    /// Is the file at `path` as it is wanted, and free to go?
    fn may_move(&mut self, path: &RelPath, row: &IndexRow, wanted: &Shown) -> bool {
        let is_file = matches!(row.mat.value, Value::File { .. });
        let same_time = row
            .fingerprint
            .is_some_and(|print| print.mtime_ns == wanted.mtime);
        let place = self.place;
        is_file
            && same_time
            && !row.racy
            && row.mat.exec == wanted.is_exec()
            && !place.damaged.holds(path)
            && !must_stay(place, &mut self.rules, path, row)
            && !place.root.is_being_written(path)
    }
}
