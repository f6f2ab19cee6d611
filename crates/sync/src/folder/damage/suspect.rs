//! Is a changed content an edit, or damage that nobody has found yet? See docs/decisions/0004. Never decides at the
//! first look: what a program wrote may be heard of a moment later.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::{Fingerprint, IndexRow, Snapshot};

use super::Folder;
use crate::error::Error;
use crate::scan::{Finding, Wrote};

/// So many files that have come at once, with contents that nobody knows, are not renames.
const MAX_MOVED: usize = 256;
/// A file that was made so lately is not an old one.
const JUST_BORN: Duration = Duration::from_secs(2);
/// A time without a fraction of a second may have been set: by an archive, a camera, a build that wants its times equal.
const SECOND: i64 = 1_000_000_000;

/// What a scan has found, in the light of what was there.
pub(in crate::folder) enum Judged {
    /// Somebody changed it.
    Edit,
    /// Nobody seems to have: it is looked at once more.
    LookAgain,
    /// Nobody has. What its row in the index said, and what its content is now.
    Damage(Box<IndexRow>, Digest),
}

/// Files that were looked at once.
#[derive(Debug, Default)]
pub(in crate::folder) struct Suspects(HashMap<RelPath, Suspect>);

#[derive(Debug)]
struct Suspect {
    print: Fingerprint,
    found: Digest,
    was: IndexRow,
}

impl Folder {
    /// Decides. `moved`: the rows of files that seem to have been renamed to where they are found.
    pub(in crate::folder) fn judge(
        &mut self,
        finding: &Finding,
        row: Option<&IndexRow>,
        moved: &HashMap<RelPath, IndexRow>,
    ) -> Judged {
        let Some((found, print)) = content(finding) else {
            return Judged::Edit;
        };
        let path = &finding.path;
        if let Some(known) = self.place.damaged.same(path, row, found, &print) {
            return Judged::Damage(Box::new(known), found);
        }
        let first = self.suspects.0.remove(path);
        let first = first.filter(|first| first.print == print && first.found == found);
        let was = match (row, &first) {
            (Some(row), _) => (finding.wrote == Wrote::No && is_suspect(found, &print, row)).then_some(row),
            // What it was before a rename may be gone from the index by now.
            (None, Some(first)) => (finding.wrote != Wrote::Yes).then_some(&first.was),
            (None, None) => moved.get(path),
        };
        // What a program writes through a map may show only when it is done.
        let hides = || self.place.root.maps_show_after().is_none() && self.place.root.may_be_written(path);
        let Some(was) = was.filter(|_| !hides()).cloned() else {
            return Judged::Edit;
        };
        if first.is_some() {
            return Judged::Damage(Box::new(was), found);
        }
        let suspect = Suspect { print, found, was };
        self.suspects.0.insert(path.clone(), suspect);
        Judged::LookAgain
    }

    /// Of what was found where nothing was before: old files with contents that nobody knows, that the index knows under
    /// other paths with others. With the rows of those.
    pub(in crate::folder) fn moved(
        &self,
        snapshot: &Snapshot,
        changed: &[Finding],
    ) -> Result<HashMap<RelPath, IndexRow>, Error> {
        if !self.head.scanned {
            return Ok(HashMap::new());
        }
        let mut wanted = Vec::new();
        for finding in changed.iter().filter(|f| f.base.is_none()) {
            let Some((found, print)) = content(finding).filter(|_| finding.wrote != Wrote::Yes) else {
                continue;
            };
            if !snapshot.blob_places(&found, 1)?.is_empty() {
                continue;
            }
            let file = self.place.root.open_file(&finding.path);
            let born = file.and_then(|file| file.metadata()?.created()).ok();
            if born.is_none_or(|born| born + JUST_BORN < SystemTime::now()) {
                wanted.push((&finding.path, found, print, born));
            }
            if wanted.len() > MAX_MOVED {
                return Ok(HashMap::new());
            }
        }
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let inodes: HashSet<u64> = wanted.iter().map(|(_, _, print, _)| print.ino).collect();
        let rows = snapshot.index_of_inodes(self.place.key, &inodes)?;
        let row_of = |(path, found, print, born): (&RelPath, Digest, Fingerprint, Option<SystemTime>)| {
            let mut rows = rows.iter();
            let row = rows.find(|row| is_suspect(found, &print, row) && is_older(born, &print, row));
            row.map(|row| (path.clone(), row.clone()))
        };
        Ok(wanted.into_iter().filter_map(row_of).collect())
    }
}

fn content(finding: &Finding) -> Option<(Digest, Fingerprint)> {
    let (seen, print) = finding.seen.as_ref()?;
    match seen.value {
        Value::File { digest, .. } => Some((digest, *print)),
        Value::Dir | Value::Symlink { .. } => None,
    }
}

/// Has the content of a file changed, and nothing that an edit changes? `was`: what the index said of it.
fn is_suspect(found: Digest, print: &Fingerprint, was: &IndexRow) -> bool {
    let Value::File { digest, .. } = was.mat.value else {
        return false;
    };
    digest != found && !was.racy && was.fingerprint.is_some_and(|before| before.is_same_edit(print))
}

/// Was a file there already when the index knew its inode under another path? The number may be another's by now, and the
/// time of its last edit the same one, if somebody sets the times of all files alike.
fn is_older(born: Option<SystemTime>, print: &Fingerprint, was: &IndexRow) -> bool {
    let (Some(born), Some(before)) = (born, was.fingerprint) else {
        return print.mtime_ns % SECOND != 0;
    };
    let born = born.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    born.as_nanos() <= u128::try_from(before.ctime_ns).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alike_core::observe::Mat;

    use super::*;

    #[test]
    fn only_what_nobody_can_have_written_is_suspect() {
        let (was, print) = (row(), row().fingerprint.expect("it has one"));
        let two = Digest::of(b"two");
        let other_mode = Fingerprint {
            ctime_ns: 99 * SECOND,
            mode: 0o100600,
            ..print
        };
        assert!(is_suspect(two, &print, &was) && is_suspect(two, &other_mode, &was));
        assert!(!is_suspect(Digest::of(b"one"), &other_mode, &was));
        for touched in [
            Fingerprint { mtime_ns: 6, ..print },
            Fingerprint { size: 4, ..print },
            Fingerprint { ino: 8, ..print },
        ] {
            assert!(!is_suspect(two, &touched, &was), "{touched:?}");
        }
        let racy = IndexRow {
            racy: true,
            ..was.clone()
        };
        assert!(!is_suspect(two, &other_mode, &racy));
    }

    #[test]
    fn a_number_of_an_inode_that_was_given_out_again_is_not_the_old_file() {
        let (was, print) = (row(), row().fingerprint.expect("it has one"));
        let born = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        assert!(is_older(born(5), &print, &was) && is_older(born(9), &print, &was));
        assert!(!is_older(born(10), &print, &was));
        // Where nobody can tell, a time that may have been set says nothing.
        assert!(is_older(None, &print, &was));
        let whole = Fingerprint {
            mtime_ns: 5 * SECOND,
            ..print
        };
        assert!(!is_older(None, &whole, &was));
    }

    fn row() -> IndexRow {
        let digest = Digest::of(b"one");
        IndexRow {
            mat: Mat {
                value: Value::File { digest, size: 3 },
                exec: false,
                dots: Vec::new(),
            },
            fingerprint: Some(Fingerprint {
                ino: 7,
                size: 3,
                mtime_ns: 5 * SECOND + 1,
                ctime_ns: 9 * SECOND,
                mode: 0o100644,
            }),
            racy: false,
        }
    }
}
