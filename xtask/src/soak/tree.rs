//! What is in a folder: a snapshot to compare with others. Never changes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::ledger::Digest;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file: its content and whether it may be executed.
    File { digest: Digest, exec: bool },
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Link(Vec<u8>),
}

/// A node and, for files and links, its modification time in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) node: Node,
    pub(crate) mtime: Option<i128>,
}

/// Everything below `dir` by path, without alike's own directory.
pub(crate) fn snapshot(dir: &Path) -> Result<BTreeMap<Vec<u8>, Found>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry?.path();
            if next == dir && path.file_name() == Some(".alike".as_ref()) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).with_context(|| format!("look at {}", path.display()))?;
            let relative = path.strip_prefix(dir)?.as_os_str().as_bytes().to_vec();
            let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let mtime = Some(time).filter(|_| !meta.is_dir());
            let node = if meta.is_dir() {
                open.push(path);
                Node::Dir
            } else if meta.is_symlink() {
                Node::Link(fs::read_link(&path)?.as_os_str().as_bytes().to_vec())
            } else {
                let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                Node::File {
                    digest: *blake3::hash(&bytes).as_bytes(),
                    exec: meta.mode() & 0o100 != 0,
                }
            };
            all.insert(relative, Found { node, mtime });
        }
    }
    Ok(all)
}

/// Files below `dir` that have `needle` in them.
pub(crate) fn grep(dir: &Path, needle: &[u8]) -> Vec<String> {
    let mut hits = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_file()
                && fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|w| w == needle))
            {
                hits.push(path.display().to_string());
            }
        }
    }
    hits
}
