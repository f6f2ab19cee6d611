//! Two paths in one step: a file goes from where it is to be removed to where its content is wanted. Never decides
//! which two.

use alike_core::path::RelPath;
use alike_core::view::Shown;
use alike_store::{Commit, IndexRow};

use super::{Item, Outcome, leaves_out, materialised};
use crate::disk::NotRelocated;
use crate::folder::{Folder, Place};
use crate::ignore::Asker;

/// Is what is at a path, as the index knows it, parked or left out? Then it does not go, whatever HEAD says.
pub(crate) fn must_stay(place: &Place, rules: &mut Asker<'_>, path: &RelPath, row: &IndexRow) -> bool {
    place.parked.holds(path) || place.parked.holds_above(path) || leaves_out(rules, path, None, Some(row))
}

impl Folder {
    /// Does the removal `from` and the creation of `path`; what happened goes into `commit`.
    pub(super) fn relocate(
        &mut self,
        rules: &mut Asker<'_>,
        from: &Item,
        (path, head): (&RelPath, Option<&Shown>),
        commit: &mut Commit,
    ) -> Outcome {
        let place = self.place.clone();
        let row = from.row.as_ref().expect("a removal is planned over something");
        if must_stay(&place, rules, &from.path, row) {
            // Then its content is copied.
            return Outcome::Stale;
        }
        let expected = self.expected(&from.path, row);
        let head = head.expect("a file is wanted");
        match place.root.relocate(&from.path, &expected, path) {
            Ok(fingerprint) => {
                let row = materialised(head, Some(fingerprint), place.root.keeps_fine_times());
                self.is_done(path, Some(row), commit);
                self.is_done(&from.path, None, commit);
                Outcome::Done
            }
            Err(NotRelocated::Source(error)) => self.not_done((&from.path, 0), false, error, commit),
            Err(NotRelocated::Target { error, displaced }) => {
                if displaced {
                    commit.index_remove.push(from.path.clone());
                    self.dirty(from.path.clone());
                }
                self.not_done((path, head.value.size()), false, error, commit)
            }
        }
    }
}
