//! Work to do: HEAD against MAT, one operation a path, and what each expects to find on disk; and the rail that
//! asks a person before very much goes at once. Never does it.

use crate::observe::Mat;
use crate::record::Value;
use crate::view::Shown;

/// What to do at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Disk is as it should be; only the dots are to be remembered.
    Adopt,
    /// A directory where nothing is expected.
    Mkdir,
    /// A file or symlink where nothing is expected.
    Create,
    /// A file or symlink over the file or symlink of MAT.
    Replace,
    /// The same content, another exec bit.
    SetExec,
    /// The file or symlink of MAT goes (into the store).
    Remove,
    /// The directory of MAT goes, once it is empty.
    Rmdir,
    /// The file or symlink of MAT goes, then a directory is made.
    RemoveThenMkdir,
    /// The directory of MAT goes, once it is empty; then a file or symlink is made.
    RmdirThenCreate,
    /// Nothing is there and nothing should be.
    Nothing,
}

impl Op {
    /// Does it need content that may have to be fetched?
    pub fn needs_content(&self) -> bool {
        matches!(self, Op::Create | Op::Replace | Op::RmdirThenCreate)
    }

    /// Is there a directory afterwards that was not there before?
    pub fn makes_dir(&self) -> bool {
        matches!(self, Op::Mkdir | Op::RemoveThenMkdir)
    }
}

/// The operation that turns `mat` into `head`.
pub fn plan(head: Option<&Shown>, mat: Option<&Mat>) -> Op {
    let is_dir = |value: &Value| *value == Value::Dir;
    match (head, mat) {
        (None, None) => Op::Nothing,
        (None, Some(mat)) if is_dir(&mat.value) => Op::Rmdir,
        (None, Some(_)) => Op::Remove,
        (Some(head), None) if is_dir(&head.value) => Op::Mkdir,
        (Some(_), None) => Op::Create,
        (Some(head), Some(mat)) if head.value == mat.value => {
            if head.is_exec() == mat.exec {
                Op::Adopt
            } else {
                Op::SetExec
            }
        }
        (Some(head), Some(mat)) => match (is_dir(&head.value), is_dir(&mat.value)) {
            (true, false) => Op::RemoveThenMkdir,
            (false, true) => Op::RmdirThenCreate,
            (false, false) => Op::Replace,
            (true, true) => Op::Adopt,
        },
    }
}

/// A folder with fewer files is too small for its half to mean anything.
const MASS_FROM: u64 = 10;
/// More files than this going at once are many, whatever their share.
const MASS_FILES: u64 = 1000;
/// A folder of so few files may be emptied without a question: somebody deleted his one or two files.
const MASS_EMPTIED: u64 = 3;

/// Do so many of a folder's files go at once that a person should be asked first? `gone` of `files`; files that
/// only moved do not count.
pub fn is_mass_removal(files: u64, gone: u64) -> bool {
    let emptied = gone >= MASS_EMPTIED && gone >= files;
    let many = files >= MASS_FROM && (gone > MASS_FILES || gone > files / 2);
    emptied || many
}

#[cfg(test)]
mod tests {
    use super::is_mass_removal;

    #[test]
    fn a_mass_removal_is_more_than_half_or_more_than_a_thousand_or_all() {
        for (files, gone, mass) in [
            (0, 0, false),
            (1, 1, false),
            (2, 2, false),
            (3, 3, true),
            (9, 8, false),
            (9, 9, true),
            (10, 5, false),
            (10, 6, true),
            (11, 5, false),
            (11, 6, true),
            (5_000, 1_000, false),
            (5_000, 1_001, true),
            (1_500, 750, false),
            (1_500, 751, true),
        ] {
            assert_eq!(is_mass_removal(files, gone), mass, "{gone} of {files}");
        }
    }
}
