//! Two paths in one step: a file goes from where it is to be removed to where its content is wanted. Never decides
//! which two.

use alike_core::path::RelPath;
use alike_core::view::Shown;
use alike_store::Commit;

use super::{Item, Outcome, leaves_out, materialised};
use crate::disk::NotRelocated;
use crate::folder::Folder;
use crate::ignore::Asker;

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
        if place.parked.holds(&from.path)
            || place.parked.holds_above(&from.path)
            || leaves_out(rules, &from.path, None, Some(row))
        {
            // It stays: then its content is copied.
            return Outcome::Stale;
        }
        let expected = self.expected(&from.path, row);
        let head = head.expect("a file is wanted");
        match place.root.relocate(&from.path, &expected, path) {
            Ok(fingerprint) => {
                for done in [path, &from.path] {
                    self.apply_problems.remove(done);
                    place.parked.forget(done);
                    commit.pending_remove.push(done.clone());
                }
                let row = materialised(head, Some(fingerprint), place.root.keeps_fine_times());
                commit.index_put.push((path.clone(), row));
                commit.index_remove.push(from.path.clone());
                place.parked.name_is_free(&from.path);
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
