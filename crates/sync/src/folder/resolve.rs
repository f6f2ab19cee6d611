//! Settling a conflict copy as a person would: by changing the two files, each move checked against the index. The
//! scan then finds edits like any others. Only keeping both is an edit of HEAD alone.

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::view::{Copy, Shown};
use alike_store::IndexRow;

use super::{Folder, Place};
use crate::control::Keep;
use crate::disk::{Expected, MoveError};
use crate::error::Error;

impl Folder {
    /// Settles a copy that HEAD showed a moment ago.
    pub(super) fn resolve(&mut self, found: &Copy, keep: Keep) -> Result<(), Error> {
        if let Some(reason) = &self.view.frozen {
            return Err(Error::Refused(reason.clone()));
        }
        let copy = found.dir.join(&found.copy.name);
        let name = found.copy.copy_of.as_ref().expect("it is a copy");
        let original = found.dir.join(name);
        match keep {
            Keep::Both => return self.write_again(vec![copy], true),
            Keep::Original => {}
            Keep::Copy => self.copy_over(found, &copy, &original)?,
        }
        let row = self.on_disk(&copy, &found.copy)?;
        let result = self.place.root.remove(&copy, &expected(&self.place, &copy, &row));
        self.dirty(copy.clone());
        result.map_err(|e| failed(&copy, &e))
    }

    /// Puts the copy's content at the original's name.
    fn copy_over(&mut self, found: &Copy, copy: &RelPath, original: &RelPath) -> Result<(), Error> {
        let row = self.on_disk(copy, &found.copy)?;
        let root = &self.place.root;
        let temp = match &row.mat.value {
            Value::File { digest, .. } => {
                let fingerprint = row.fingerprint.ok_or_else(|| changed(copy))?;
                let temp = root
                    .temp_from_local(copy, &fingerprint, digest)
                    .map_err(io(copy))?;
                let temp = temp.ok_or_else(|| changed(copy))?;
                let file = root.temp_named(&temp, false).map_err(io(copy))?;
                crate::disk::Root::finish_temp(&file, row.mat.exec, found.copy.mtime).map_err(io(copy))?;
                temp
            }
            Value::Symlink { target } => root.temp_symlink(target, found.copy.mtime).map_err(io(copy))?,
            Value::Dir => return Err(changed(copy)),
        };
        let result = root.sync_all().map_err(io(original)).and_then(|()| {
            let put = match &found.original {
                None => root.create(&temp, original).map(drop),
                Some(shown) if shown.value == Value::Dir => {
                    return Err(Error::Refused(format!(
                        "{original} is a directory, which the copy cannot replace: move one of them by hand, or \
                         `--keep both`"
                    )));
                }
                Some(shown) => {
                    let row = self.on_disk(original, shown)?;
                    let expect = expected(&self.place, original, &row);
                    root.replace(&temp, original, &expect).map(drop)
                }
            };
            put.map_err(|e| failed(original, &e))
        });
        if result.is_err() {
            self.place.root.remove_temp(&temp);
        }
        self.dirty(original.clone());
        result
    }

    /// What the index says of a path, if that is what HEAD shows there.
    fn on_disk(&self, path: &RelPath, shown: &Shown) -> Result<IndexRow, Error> {
        let row = self.place.store.snapshot()?.index(self.place.key, path)?;
        row.filter(|row| row.mat.value == shown.value)
            .ok_or_else(|| changed(path))
    }
}

fn expected(place: &Place, path: &RelPath, row: &IndexRow) -> Expected {
    Expected {
        fingerprint: row.fingerprint.filter(|_| !row.racy),
        value: row.mat.value.clone(),
        damaged: place.damaged.holds(path),
    }
}

fn changed(path: &RelPath) -> Error {
    Error::Refused(format!(
        "{path} is just being changed or is not on this disk yet; try again when the folder is in sync"
    ))
}

fn failed(path: &RelPath, error: &MoveError) -> Error {
    match error {
        MoveError::Changed => changed(path),
        error => Error::Refused(format!("{path}: {error}")),
    }
}

fn io(path: &RelPath) -> impl Fn(std::io::Error) -> Error {
    let path = path.clone();
    move |e| Error::Refused(format!("{path}: {e}"))
}
