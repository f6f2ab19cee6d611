//! Work to do: HEAD against MAT, one operation a path, and what each expects to find on disk. Never does it.

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
