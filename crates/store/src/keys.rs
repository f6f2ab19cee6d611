//! Keys that hold paths, and the ranges of a directory. Never reads a table.
//!
//! A path's key is `folder ++ directory ++ 0x00 ++ name`, the root's is `folder` alone. Names hold no NUL, so a
//! key has one NUL after the folder, and
//! - the direct members of `d` are the keys that begin with `d 0x00`;
//! - what lies deeper in `d` are the keys that begin with `d /`;
//! - between the two may lie others (`d-x`, `d.x`), so "below `d`" is two ranges, for the root one;
//! - a directory sorts before all that is in it, because NUL sorts before every byte of a name and before `/`.

use std::ops::Bound;

use alike_core::digest::Digest;
use alike_core::path::{Name, RelPath};

use crate::error::Fault;
use crate::folders::FolderKey;

/// Bytes of a folder in a key.
const FOLDER: usize = 4;
/// Bytes of a digest in a key.
const DIGEST: usize = 32;

/// A range of keys.
#[derive(Debug)]
pub(crate) struct Span {
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
}

impl Span {
    /// As redb takes it.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.lower.as_ref().map(Vec::as_slice),
            self.upper.as_ref().map(Vec::as_slice),
        )
    }

    /// All keys that begin with `prefix`.
    pub(crate) fn prefix(prefix: Vec<u8>) -> Self {
        let mut end = prefix.clone();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let upper = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(end)
            }
            None => Bound::Unbounded,
        };
        Span {
            lower: Bound::Included(prefix),
            upper,
        }
    }

    /// Everything of a folder.
    pub(crate) fn folder(folder: FolderKey) -> Self {
        Span::prefix(folder.0.to_be_bytes().to_vec())
    }

    /// Everything of a folder that comes after `path` in key order.
    pub(crate) fn after(folder: FolderKey, path: &RelPath) -> Self {
        Span {
            lower: Bound::Excluded(path_key(folder, path)),
            ..Span::folder(folder)
        }
    }

    /// The direct members of `dir`.
    pub(crate) fn members(folder: FolderKey, dir: &RelPath) -> Self {
        Span::prefix(dir_prefix(folder, dir, 0))
    }

    /// Everything in `dir` at any depth, without `dir` itself, in key order.
    pub(crate) fn below(folder: FolderKey, dir: &RelPath) -> Vec<Self> {
        if dir.is_root() {
            return vec![Span::after(folder, dir)];
        }
        vec![
            Span::members(folder, dir),
            Span::prefix(dir_prefix(folder, dir, b'/')),
        ]
    }

    /// All places of a blob.
    pub(crate) fn blob(digest: &Digest) -> Self {
        Span::prefix(digest.0.to_vec())
    }
}

fn dir_prefix(folder: FolderKey, dir: &RelPath, end: u8) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(FOLDER + dir.as_bytes().len() + 1);
    prefix.extend_from_slice(&folder.0.to_be_bytes());
    prefix.extend_from_slice(dir.as_bytes());
    prefix.push(end);
    prefix
}

/// Directory and name of `path`, the order of keys; `None` for the root, which comes first.
pub(crate) fn parts(path: &RelPath) -> Option<(&[u8], &[u8])> {
    let bytes = path.as_bytes();
    if bytes.is_empty() {
        return None;
    }
    Some(match bytes.iter().rposition(|&b| b == b'/') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&[], bytes),
    })
}

/// Writes the key of `path` into `out`, replacing what was there.
pub(crate) fn path_key_into(folder: FolderKey, path: &RelPath, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&folder.0.to_be_bytes());
    if let Some((dir, name)) = parts(path) {
        out.extend_from_slice(dir);
        out.push(0);
        out.extend_from_slice(name);
    }
}

/// The key of `path`.
pub(crate) fn path_key(folder: FolderKey, path: &RelPath) -> Vec<u8> {
    let mut key = Vec::with_capacity(FOLDER + 1 + path.as_bytes().len());
    path_key_into(folder, path, &mut key);
    key
}

/// The path of a key, checked.
pub(crate) fn path_of(key: &[u8]) -> Result<RelPath, Fault> {
    let rest = key.get(FOLDER..).ok_or_else(|| damaged(key))?;
    if rest.is_empty() {
        return Ok(RelPath::root());
    }
    let at = rest.iter().position(|&b| b == 0).ok_or_else(|| damaged(key))?;
    let (dir, name) = (&rest[..at], &rest[at + 1..]);
    if name.is_empty() || name.contains(&b'/') {
        return Err(damaged(key));
    }
    if dir.is_empty() {
        return RelPath::parse(name).map_err(|_| damaged(key));
    }
    let mut path = rest.to_vec();
    path[at] = b'/';
    RelPath::try_from(path).map_err(|_| damaged(key))
}

/// The name of a key that begins with the `prefix` bytes of its directory, checked.
pub(crate) fn name_of(key: &[u8], dir: &RelPath) -> Result<Name, Fault> {
    let name = key.get(FOLDER + dir.as_bytes().len() + 1..);
    Name::new(name.unwrap_or_default()).map_err(|_| damaged(key))
}

/// Writes the key of a blob's place into `out`, replacing what was there.
pub(crate) fn blob_key_into(digest: &Digest, folder: FolderKey, path: &RelPath, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&digest.0);
    out.extend_from_slice(&folder.0.to_be_bytes());
    out.extend_from_slice(path.as_bytes());
}

/// Folder and path of a blob's place, checked.
pub(crate) fn blob_place(key: &[u8]) -> Result<(FolderKey, RelPath), Fault> {
    let folder = blob_folder(key).ok_or_else(|| damaged(key))?;
    let path = RelPath::parse(&key[DIGEST + FOLDER..]).map_err(|_| damaged(key))?;
    Ok((folder, path))
}

/// The folder of a blob's place.
pub(crate) fn blob_folder(key: &[u8]) -> Option<FolderKey> {
    let bytes = key.get(DIGEST..DIGEST + FOLDER)?;
    Some(FolderKey(u32::from_be_bytes(
        bytes.try_into().expect("four bytes"),
    )))
}

fn damaged(key: &[u8]) -> Fault {
    Fault::Corrupt(format!("the key {}", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::parse(bytes).unwrap()
    }

    fn has(spans: &[Span], key: &[u8]) -> bool {
        use std::ops::RangeBounds;
        spans.iter().any(|s| {
            let (lower, upper) = s.bounds();
            (lower, upper).contains(&key)
        })
    }

    #[test]
    fn keys_keep_paths_and_put_parents_first() {
        let all = [
            &b""[..],
            b"\x01",
            b"a",
            b"a/\x01",
            b"a-b",
            b"a.b",
            b"a0",
            b"a/b",
            b"a/b/c",
            b"\xff",
            b"\xff/\xff",
        ];
        for folder in [FolderKey(0), FolderKey(7), FolderKey(u32::MAX)] {
            for a in all.map(path) {
                assert_eq!(path_of(&path_key(folder, &a)).unwrap(), a);
                for b in all.map(path) {
                    let (ka, kb) = (path_key(folder, &a), path_key(folder, &b));
                    assert_eq!(ka.cmp(&kb), parts(&a).cmp(&parts(&b)), "{a} {b}");
                    let below = b.is_within(&a) && a != b;
                    assert!(!below || ka < kb, "{a} before {b}");
                    assert_eq!(has(&Span::below(folder, &a), &kb), below, "{b} below {a}");
                    let member = b.parent().as_ref() == Some(&a);
                    assert_eq!(has(&[Span::members(folder, &a)], &kb), member, "{b} in {a}");
                    assert_eq!(has(&[Span::after(folder, &a)], &kb), ka < kb);
                    let other = path_key(FolderKey(folder.0 ^ 1), &b);
                    assert!(!has(&Span::below(folder, &a), &other) && !has(&[Span::folder(folder)], &other));
                }
            }
        }
    }

    #[test]
    fn other_keys_are_damage() {
        for bad in [
            &b"abc"[..],
            b"\0\0\0\0a",
            b"\0\0\0\0a\0",
            b"\0\0\0\0a\0b\0c",
            b"\0\0\0\0\0..",
            b"\0\0\0\0\0",
            b"\0\0\0\0\0a/b",
        ] {
            assert!(path_of(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
