//! What a finding on disk means: the difference of DISK against MAT, in the light of HEAD. Never looks at a
//! disk; the scan does, and commits what it found through here.

use crate::ids::Dot;
use crate::record::Value;
use crate::view::Shown;

/// MAT: what was put or seen on disk at a path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mat {
    /// What.
    pub value: Value,
    /// The exec bit; `false` for what is no file.
    pub exec: bool,
    /// The records it is the materialisation of.
    pub dots: Vec<Dot>,
}

/// What a scan sees at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What.
    pub value: Value,
    /// The exec bit; `false` for what is no file.
    pub exec: bool,
}

/// What to do about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing happened but, perhaps, times.
    Nothing,
    /// Disk already is what HEAD wants: remember it as materialised.
    Adopt,
    /// Somebody wrote it: the old records go, a new one comes.
    Write,
    /// Only the exec bit was changed.
    Exec,
    /// Somebody deleted it: the old records go.
    Delete,
    /// It is gone, and so is its record (replaced or deleted elsewhere): forget it.
    Forget,
}

/// Decides. `head` is what HEAD shows at the path; `lives`: does any of MAT's records still live in HEAD, there
/// or as a conflict copy?
pub fn observe(seen: Option<&Seen>, mat: Option<&Mat>, head: Option<&Shown>, lives: bool) -> Meaning {
    match (seen, mat) {
        (None, None) => Meaning::Nothing,
        // Where HEAD shows a newer version that was never here, there is nothing of ours left to delete: the
        // newer one will be materialised.
        (None, Some(_)) => {
            if lives {
                Meaning::Delete
            } else {
                Meaning::Forget
            }
        }
        (Some(seen), Some(mat)) if seen.value == mat.value && seen.exec == mat.exec => Meaning::Nothing,
        (Some(seen), mat) => {
            if head.is_some_and(|h| h.value == seen.value && h.is_exec() == seen.exec) {
                return Meaning::Adopt;
            }
            match mat {
                Some(mat) if seen.value == mat.value => Meaning::Exec,
                _ => Meaning::Write,
            }
        }
    }
}
