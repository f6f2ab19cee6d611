//! Bit rot: files whose content is not what it was when it was hashed, though their fingerprints say that nobody has
//! written to them. Never published; said by `status` until the file is repaired, edited or removed. Good content is put
//! in place here, checked against the fingerprint of what is damaged. Never looks for it.

mod known;
mod suspect;

pub(crate) use known::Damaged;
pub(super) use suspect::{Judged, Suspects};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::{Commit, IndexRow, Snapshot};

use super::{Folder, Place, Problem};
use crate::apply::is_young;
use crate::disk::{Buffer, Content, Expected, is_unreadable};
use crate::error::Error;
use crate::failpoint::point;

use known::Damage;

/// What a look at the content of a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is what the index says.
    Good,
    /// It is not, under the same fingerprint; what it is, if it can be read.
    Damaged(Option<Digest>),
    /// It is not for us to say: it was changed since, or is just being written. The scan finds out what it is.
    Open,
    /// `tick` said to stop.
    Stopped,
}

/// Reads a file whose row in the index is this, and compares.
pub(crate) fn check(
    place: &Place,
    path: &RelPath,
    row: &IndexRow,
    buffer: &mut Buffer,
    tick: &mut dyn FnMut(u64) -> bool,
) -> Checked {
    let (Value::File { digest, .. }, Some(print), false) = (&row.mat.value, row.fingerprint, row.racy) else {
        return Checked::Open;
    };
    let is_as_it_was = || matches!(place.root.stat(path), Ok(Some(stat)) if stat.fingerprint == print);
    // What a program writes through a shared memory map shows only when it is done.
    if !is_as_it_was() || place.root.is_being_written(path) {
        return Checked::Open;
    }
    let Some((dir, name)) = path.split() else {
        return Checked::Open;
    };
    let read = place
        .root
        .dir(&dir)
        .and_then(|dir| dir.hash(name.as_bytes(), None, buffer, None, tick));
    match read {
        Ok(Content::Stopped) => Checked::Stopped,
        Ok(Content::Is { digest: found, stat }) if stat.fingerprint == print => {
            if found == *digest {
                Checked::Good
            } else if place.root.is_being_written(path) {
                Checked::Open
            } else {
                Checked::Damaged(Some(found))
            }
        }
        Err(e) if is_unreadable(&e) && is_as_it_was() => Checked::Damaged(None),
        Ok(Content::Is { .. } | Content::Changing | Content::Gone) | Err(_) => Checked::Open,
    }
}

/// Does the index say the same of a file's content and fingerprint?
pub(crate) fn is_still(now: Option<&IndexRow>, row: &IndexRow) -> bool {
    now.is_some_and(|now| now.mat.value == row.mat.value && now.fingerprint == row.fingerprint)
}

impl Place {
    /// A file of which the index says something else by now was repaired, edited or removed.
    pub(super) fn forget_damage(&self, snapshot: &Snapshot) -> Result<(), Error> {
        for (path, row) in self.damaged.rows() {
            if !is_still(snapshot.index(self.key, &path)?.as_ref(), &row) {
                self.damaged.is_good(&path);
            }
        }
        Ok(())
    }
}

impl Folder {
    /// Somebody has read a file whose row was this, and found something else.
    pub(super) fn damaged(
        &mut self,
        path: RelPath,
        row: IndexRow,
        found: Option<Digest>,
    ) -> Result<(), Error> {
        let now = self.place.store.snapshot()?.index(self.place.key, &path)?;
        if !is_still(now.as_ref(), &row) {
            self.dirty(path);
            return Ok(());
        }
        self.is_damaged(path, row, found);
        Ok(())
    }

    /// It is, as its row is now.
    pub(super) fn is_damaged(&self, path: RelPath, row: IndexRow, found: Option<Digest>) {
        if self.place.damaged.note(path.clone(), Damage { row, found }) {
            tracing::warn!(folder = %self.place.row.name, %path, "its content is damaged");
        }
    }

    /// Puts good content, in a temporary file, in the place of a damaged file. The state of the folder stays what it is.
    pub(super) fn repair(&mut self, path: &RelPath, temp: &[u8]) -> Result<(), Error> {
        let result = self.put_good(path, temp);
        if result.is_err() {
            self.place.root.remove_temp(temp);
        }
        result
    }

    fn put_good(&mut self, path: &RelPath, temp: &[u8]) -> Result<(), Error> {
        let place = self.place.clone();
        let refuse = |why: String| Err(Error::Refused(format!("{path}: {why}")));
        if let Some(reason) = &self.view.frozen {
            return refuse(reason.clone());
        }
        let known = place.damaged.get(path).map(|damage| damage.row);
        let row = place.store.snapshot()?.index(place.key, path)?;
        let Some(mut row) = row.filter(|row| is_still(known.as_ref(), row)) else {
            return refuse("it was changed meanwhile".into());
        };
        let io = |source| Error::NotDurable {
            path: place.root.path().to_owned(),
            source,
        };
        place.root.sync_all().map_err(io)?;
        let expect = Expected {
            fingerprint: row.fingerprint,
            value: row.mat.value.clone(),
            damaged: true,
        };
        // The one that there is shares what is damaged.
        let clone = place.root.clone_of_temp(temp, row.mat.value.size());
        point("repair.begin");
        let print = match place.root.replace(temp, path, &expect) {
            Ok(print) => print,
            Err(error) => return refuse(error.to_string()),
        };
        if let (Some(clone), Value::File { digest, .. }) = (clone, &row.mat.value) {
            clone.keep(digest);
        }
        point("repair.moved");
        place.root.sync_all().map_err(io)?;
        row.fingerprint = Some(print);
        row.racy = is_young(&print, place.root.keeps_fine_times());
        let commit = Commit {
            index_put: vec![(path.clone(), row)],
            ..Commit::default()
        };
        place.store.commit(place.key, commit)?;
        point("repair.done");
        tracing::info!(folder = %place.row.name, %path, "repaired");
        Ok(())
    }
}
