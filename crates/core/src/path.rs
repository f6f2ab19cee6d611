//! Names and paths: the one place where a name is checked. Everything past this module is one safe component
//! (`Name`) or a `/`-joined list of them (`RelPath`); bytes, not text. Never looks at a file system.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes (every file system alike runs on has this limit).
pub const MAX_NAME: usize = 255;
/// Longest path, in bytes (Linux's PATH_MAX).
pub const MAX_PATH: usize = 4096;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 256;
/// The directory in a folder's root that is alike's own.
pub const OWN_DIR: &str = ".alike";

/// Why bytes are no name or path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes.
    #[error("the name is empty")]
    Empty,
    /// Over [`MAX_NAME`] or [`MAX_PATH`].
    #[error("the name or path is too long")]
    TooLong,
    /// `.` or `..`.
    #[error("the name is . or ..")]
    Dots,
    /// Contains `/` or NUL.
    #[error("the name contains a slash or a NUL byte")]
    Separator,
    /// `.alike` in any case or Unicode form.
    #[error("the name is reserved for alike")]
    Reserved,
    /// Over [`MAX_DEPTH`].
    #[error("the path is nested too deeply")]
    TooDeep,
}

/// One component of a path: 1–255 bytes, no `/`, no NUL, not `.`, `..` or `.alike`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        match bytes {
            [] => return Err(PathError::Empty),
            b"." | b".." => return Err(PathError::Dots),
            _ => {}
        }
        if bytes.len() > MAX_NAME {
            return Err(PathError::TooLong);
        }
        if bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(PathError::Separator);
        }
        if is_reserved(bytes) {
            return Err(PathError::Reserved);
        }
        Ok(Name(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Is this `.alike`, as some file system or other might spell it: other case, full-width letters, or with
/// code points in it that file systems ignore?
fn is_reserved(bytes: &[u8]) -> bool {
    if bytes.eq_ignore_ascii_case(OWN_DIR.as_bytes()) {
        return true;
    }
    if bytes.is_ascii() {
        return false;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let folded: String = text
        .chars()
        .filter(|c| !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
            other => other,
        })
        .flat_map(char::to_lowercase)
        .collect();
    folded == OWN_DIR
}

impl TryFrom<Vec<u8>> for Name {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Name::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Vec<u8> {
        name.0.into_vec()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A path relative to the folder's root: names joined by `/`; empty = the root itself.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// The folder's root.
    pub fn root() -> Self {
        RelPath(Vec::new())
    }

    /// Checks every component.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            let mut depth = 0;
            for part in bytes.split(|&b| b == b'/') {
                Name::new(part)?;
                depth += 1;
            }
            if depth > MAX_DEPTH {
                return Err(PathError::TooDeep);
            }
        }
        Ok(RelPath(bytes.to_vec()))
    }

    /// `self/name`. Length and depth are checked where trees are decoded and walked ([`RelPath::fits`]).
    pub fn join(&self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        RelPath(bytes)
    }

    /// Is the path within [`MAX_PATH`] and [`MAX_DEPTH`]?
    pub fn fits(&self) -> bool {
        self.0.len() <= MAX_PATH && self.depth() <= MAX_DEPTH
    }

    /// Number of components; 0 = the root.
    pub fn depth(&self) -> usize {
        if self.is_root() {
            0
        } else {
            self.0.iter().filter(|&&b| b == b'/').count() + 1
        }
    }

    /// Is this the root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, `/`-joined, no leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Directory and name; `None` for the root.
    pub fn split(&self) -> Option<(RelPath, Name)> {
        if self.is_root() {
            return None;
        }
        let (dir, name) = match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((RelPath(dir.to_vec()), Name(name.into())))
    }

    /// The directory it is in; `None` for the root.
    pub fn parent(&self) -> Option<RelPath> {
        self.split().map(|(dir, _)| dir)
    }

    /// The directories it is in, the nearest first and the root last; none for the root.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> + use<> {
        std::iter::successors(self.parent(), RelPath::parent)
    }

    /// All components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0
            .split(|&b| b == b'/')
            .filter(|part| !part.is_empty())
            .map(|part| Name(part.into()))
    }

    /// Is it `dir` itself or below it?
    pub fn is_within(&self, dir: &RelPath) -> bool {
        dir.is_root()
            || self
                .0
                .strip_prefix(&dir.0[..])
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl TryFrom<Vec<u8>> for RelPath {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        RelPath::parse(&bytes)
    }
}

impl From<RelPath> for Vec<u8> {
    fn from(path: RelPath) -> Vec<u8> {
        path.0
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_names_are_refused() {
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"a/b",
            b"a\0b",
            b".alike",
            b".ALIKE",
            ".al\u{200d}ike".as_bytes(),
        ] {
            assert!(Name::new(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert_eq!(Name::new(".ａｌｉｋｅ".as_bytes()), Err(PathError::Reserved));
        assert!(Name::new(&[b'x'; 256]).is_err());
        for good in [
            &b"a"[..],
            b"...",
            b"\xff\xfe",
            b" ",
            b"-rf",
            b"new\nline",
            &[b'x'; 255],
            b".alike2",
        ] {
            assert!(Name::new(good).is_ok(), "{}", good.escape_ascii());
        }
    }

    #[test]
    fn paths_split_and_join() {
        let path = RelPath::parse(b"a/b/c").unwrap();
        let (dir, name) = path.split().unwrap();
        assert_eq!((dir.as_bytes(), name.as_bytes()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(dir.join(&name), path);
        assert_eq!(path.depth(), 3);
        assert!(path.is_within(&dir) && path.is_within(&RelPath::root()) && path.is_within(&path));
        assert!(!RelPath::parse(b"a/bc").unwrap().is_within(&dir));
        assert!(RelPath::parse(b"a//b").is_err() && RelPath::parse(b"/a").is_err());
        assert!(RelPath::parse(b"a/../b").is_err());
        assert!(RelPath::root().split().is_none() && RelPath::root().ancestors().next().is_none());
        let above: Vec<_> = path.ancestors().collect();
        assert_eq!(above, [dir, RelPath::parse(b"a").unwrap(), RelPath::root()]);
    }
}
