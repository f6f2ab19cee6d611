//! The damaged files of a folder that are known, also after a restart: a file in the state directory has them. Losing
//! it costs that they have to be found again. Never reads one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_store::{Fingerprint, IndexRow};
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::hint;

/// The first byte of the file.
const VERSION: u8 = 1;

/// A damaged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Damage {
    /// What the index says of it.
    pub(super) row: IndexRow,
    /// What its content is now; `None`: the disk cannot read it.
    pub(super) found: Option<Digest>,
}

/// The damaged files that are known.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    files: Mutex<BTreeMap<RelPath, Damage>>,
    file: PathBuf,
}

impl Damaged {
    /// Those that `file` has.
    pub(crate) fn load(file: PathBuf) -> Damaged {
        Damaged {
            files: Mutex::new(hint::load(&file, VERSION)),
            file,
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<RelPath, Damage>> {
        self.files.lock().expect("nobody panics with it")
    }

    /// Is this file known to be damaged?
    pub(crate) fn holds(&self, path: &RelPath) -> bool {
        self.files().contains_key(path)
    }

    /// All of them, with what the index says.
    pub(crate) fn rows(&self) -> Vec<(RelPath, IndexRow)> {
        let files = self.files();
        let rows = files.iter().map(|(path, damage)| (path, damage.row.clone()));
        rows.map(|(path, row)| (path.clone(), row)).collect()
    }

    /// Was a file with this content found damaged before, here or under the name that it had then? What the index said
    /// of it.
    pub(super) fn same(
        &self,
        path: &RelPath,
        row: Option<&IndexRow>,
        found: Digest,
        print: &Fingerprint,
    ) -> Option<IndexRow> {
        let files = self.files();
        let damage = match row {
            Some(row) => files.get(path).filter(|d| d.row.mat.value == row.mat.value)?,
            None => files.values().find(|damage| damage.is_same(found, print))?,
        };
        damage.is_same(found, print).then(|| damage.row.clone())
    }

    pub(super) fn get(&self, path: &RelPath) -> Option<Damage> {
        self.files().get(path).cloned()
    }

    /// It is damaged. Is that news?
    pub(super) fn note(&self, path: RelPath, damage: Damage) -> bool {
        let mut files = self.files();
        let before = files.insert(path.clone(), damage.clone());
        if before.as_ref() != Some(&damage) {
            self.save(&files);
        }
        before.is_none()
    }

    /// It is damaged no more: it was read again, edited or removed.
    pub(crate) fn is_good(&self, path: &RelPath) {
        let mut files = self.files();
        if files.remove(path).is_some() {
            self.save(&files);
        }
    }

    fn save(&self, files: &BTreeMap<RelPath, Damage>) {
        if files.is_empty() {
            hint::remove(&self.file);
        } else {
            hint::save(&self.file, VERSION, files);
        }
    }

    /// What `status` says of them.
    pub(crate) fn problems(&self, limit: usize) -> Vec<(RelPath, Problem)> {
        let files = self.files();
        let some = files.iter().take(limit);
        some.map(|(path, damage)| (path.clone(), problem(damage.found.is_some())))
            .collect()
    }
}

/// What to say of a damaged file, that the disk can still read or not.
fn problem(is_readable: bool) -> Problem {
    let (reason, hint) = if is_readable {
        (
            "its content has changed although nobody has written to it: the disk has damaged it",
            "`sync verify --repair` brings its content back; if you changed it yourself, `touch` it: then it counts as \
             an edit",
        )
    } else {
        (
            "the disk cannot read it any more",
            "`sync verify --repair` brings its content back; and look at the disk",
        )
    };
    Problem {
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    }
}

impl Damage {
    /// Is this the same file with the same damage?
    fn is_same(&self, found: Digest, print: &Fingerprint) -> bool {
        let before = self.row.fingerprint;
        self.found == Some(found) && before.is_some_and(|before| before.is_same_edit(print))
    }
}

#[cfg(test)]
mod tests {
    use alike_core::observe::Mat;
    use alike_core::record::Value;

    use super::*;

    #[test]
    fn what_is_damaged_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("f1");
        let damaged = Damaged::load(file.clone());
        let path = RelPath::parse(b"a/b").expect("a path");
        let (digest, size) = (Digest::of(b"x"), 1);
        let row = IndexRow {
            mat: Mat {
                value: Value::File { digest, size },
                exec: false,
                dots: Vec::new(),
            },
            fingerprint: None,
            racy: false,
        };
        let damage = Damage {
            row,
            found: Some(Digest::of(b"y")),
        };
        assert!(damaged.note(path.clone(), damage.clone()));
        assert!(!damaged.note(path.clone(), damage.clone()), "no news");
        let again = Damaged::load(file.clone());
        assert_eq!(again.get(&path), Some(damage));
        again.is_good(&path);
        assert!(!again.holds(&path) && !file.exists());
        std::fs::write(&file, [VERSION, 7, 7]).expect("written");
        assert!(
            Damaged::load(file).rows().is_empty(),
            "what makes no sense is none"
        );
    }
}
