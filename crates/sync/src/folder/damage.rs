//! Bit rot: files whose content is not what it was when it was hashed, though their fingerprints say that nobody has
//! touched them. Never published; said by `status` until the file is repaired, edited or removed. Good content is put
//! in place here, checked against the fingerprint of what is damaged. Never looks for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::{Commit, IndexRow, Snapshot};

use super::{Folder, Place, Problem};
use crate::apply::is_young;
use crate::disk::{Buffer, Content, Expected, is_unreadable};
use crate::error::Error;
use crate::scan::Finding;

/// A damaged file.
#[derive(Clone, Debug)]
struct Damage {
    /// What the index says of it.
    row: IndexRow,
    /// What its content is now; `None`: the disk cannot read it.
    found: Option<Digest>,
}

/// The damaged files of a folder that are known.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<BTreeMap<RelPath, Damage>>);

impl Damaged {
    fn files(&self) -> MutexGuard<'_, BTreeMap<RelPath, Damage>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Is this file known to be damaged?
    pub(crate) fn holds(&self, path: &RelPath) -> bool {
        self.files().contains_key(path)
    }

    /// All of them, with what the index says.
    pub(crate) fn rows(&self) -> Vec<(RelPath, IndexRow)> {
        let files = self.files();
        files
            .iter()
            .map(|(path, damage)| (path.clone(), damage.row.clone()))
            .collect()
    }

    /// It was read again, and is good.
    pub(crate) fn is_good(&self, path: &RelPath) {
        self.files().remove(path);
    }

    /// What `status` says of them.
    pub(super) fn problems(&self, limit: usize) -> Vec<(RelPath, Problem)> {
        let files = self.files();
        let problem = |damage: &Damage| {
            Problem {
            reason: match damage.found {
                Some(_) => "its content has changed although nobody has written to it: the disk has damaged it",
                None => "the disk cannot read it any more",
            }
            .to_owned(),
            hint: match damage.found {
                Some(_) => {
                    "`sync verify --repair` brings its content back; if you changed it yourself, `touch` it: then it \
                     counts as an edit"
                }
                None => "`sync verify --repair` brings its content back; and look at the disk",
            }
            .to_owned(),
        }
        };
        let some = files.iter().take(limit);
        some.map(|(path, damage)| (path.clone(), problem(damage)))
            .collect()
    }
}

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
                self.damaged.files().remove(&path);
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
        let damage = Damage { row, found };
        if self.place.damaged.files().insert(path.clone(), damage).is_none() {
            tracing::warn!(folder = %self.place.row.name, %path, "its content is damaged");
        }
        Ok(())
    }

    /// Is a finding nothing but damage that is known, under another fingerprint: was the file opened for writing,
    /// renamed back and forth, given another mode? Its row as it is now. Another time of change is an edit.
    pub(super) fn is_damage(&self, finding: &Finding) -> Option<IndexRow> {
        let mut files = self.place.damaged.files();
        let damage = files.get_mut(&finding.path)?;
        let (seen, print) = finding.seen.as_ref()?;
        let Value::File { digest, .. } = seen.value else {
            return None;
        };
        let before = damage.row.fingerprint?;
        let same = damage.found == Some(digest)
            && (before.ino, before.mtime_ns) == (print.ino, print.mtime_ns)
            && finding
                .base
                .as_ref()
                .is_some_and(|base| base.mat == damage.row.mat)
            && seen.exec == damage.row.mat.exec;
        same.then(|| {
            damage.row.fingerprint = Some(*print);
            damage.row.racy = finding.racy;
            damage.row.clone()
        })
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
        let known = place.damaged.files().get(path).map(|damage| damage.row.clone());
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
        let print = match place.root.replace(temp, path, &expect) {
            Ok(print) => print,
            Err(error) => return refuse(error.to_string()),
        };
        place.root.sync_all().map_err(io)?;
        row.fingerprint = Some(print);
        row.racy = is_young(&print, place.root.keeps_fine_times());
        let commit = Commit {
            index_put: vec![(path.clone(), row)],
            ..Commit::default()
        };
        place.store.commit(place.key, commit)?;
        tracing::info!(folder = %place.row.name, %path, "repaired");
        Ok(())
    }
}
