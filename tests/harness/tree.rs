//! Trees of files as the tests see them: making, snapshotting, comparing. Never runs `sync`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A regular file: BLAKE3 of its content, and whether its owner may execute it.
    File { digest: String, exec: bool },
    /// A directory.
    Dir,
    /// A symlink, and the bytes it holds.
    Link(Vec<u8>),
}

/// Everything below `dir` by path bytes, without alike's own directory in the root.
#[track_caller]
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut all = BTreeMap::new();
    walk(dir, &mut |path, meta| {
        let node = if meta.is_dir() {
            Node::Dir
        } else if meta.is_symlink() {
            Node::Link(read(path, fs::read_link(path)).as_os_str().as_bytes().to_vec())
        } else {
            let digest = blake3::hash(&read(path, fs::read(path))).to_hex().to_string();
            Node::File {
                digest,
                exec: meta.mode() & 0o100 != 0,
            }
        };
        all.insert(relative(dir, path), node);
    });
    all
}

/// Paths below `dir`, for people to read in an assertion.
#[track_caller]
pub(crate) fn names(dir: &Path) -> Vec<String> {
    snapshot(dir)
        .keys()
        .map(|path| path.escape_ascii().to_string())
        .collect()
}

/// Bytes of the files below a directory; 0 if it is not there.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => bytes_below(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}

/// When the last of all files below `dir` got its name.
pub(crate) fn newest_move_below(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?;
    entries
        .map(|entry| entry.unwrap())
        .filter_map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => newest_move_below(&entry.path()),
            meta => {
                let (secs, nanos) = (meta.ctime() as u64, meta.ctime_nsec() as u64);
                Some(UNIX_EPOCH + Duration::from_secs(secs) + Duration::from_nanos(nanos))
            }
        })
        .max()
}

/// Inode numbers of everything below `dir`: equal numbers show that nothing was written anew.
#[track_caller]
pub(crate) fn inodes(dir: &Path) -> BTreeMap<Vec<u8>, u64> {
    let mut all = BTreeMap::new();
    walk(dir, &mut |path, meta| {
        all.insert(relative(dir, path), meta.ino());
    });
    all
}

/// Modification times of the files below `dir`: seconds and nanoseconds.
#[track_caller]
pub(crate) fn mtimes(dir: &Path) -> BTreeMap<Vec<u8>, (i64, i64)> {
    let mut all = BTreeMap::new();
    walk(dir, &mut |path, meta| {
        if meta.is_file() {
            all.insert(relative(dir, path), (meta.mtime(), meta.mtime_nsec()));
        }
    });
    all
}

/// Fails, listing the paths that differ.
#[track_caller]
pub(crate) fn assert_same_tree(a: &Path, b: &Path) {
    let (left, right) = (snapshot(a), snapshot(b));
    if left == right {
        return;
    }
    let mut diff = String::new();
    let mut paths: Vec<_> = left.keys().chain(right.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths
        .into_iter()
        .filter(|p| left.get(*p) != right.get(*p))
        .take(40)
    {
        let _ = writeln!(
            diff,
            "  {}: {:?} | {:?}",
            path.escape_ascii(),
            left.get(path),
            right.get(path)
        );
    }
    panic!(
        "{} and {} differ (left | right):\n{diff}",
        a.display(),
        b.display()
    );
}

/// Writes a file, making the directories above it.
#[track_caller]
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let parent = path.parent().expect("test files have a parent");
    fs::create_dir_all(parent).unwrap_or_else(|e| panic!("mkdir -p {}: {e}", parent.display()));
    fs::write(path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// Adds to the end of a file.
#[track_caller]
pub(crate) fn append(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let mut file = fs::File::options()
        .append(true)
        .open(path.as_ref())
        .expect("open for appending");
    file.write_all(content.as_ref()).expect("append");
}

/// The content of a file as text, or a marker that no test writes if there is none.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    match fs::read(path.as_ref()) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => format!("<{e}>"),
    }
}

/// Bytes that do not compress and are the same in every run for the same `seed`.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// The name that a losing content gets beside `name`.
pub(crate) fn conflict_name(name: &str, losing: &[u8]) -> String {
    let digits = &blake3::hash(losing).to_hex()[..8];
    match name.rsplit_once('.') {
        Some((stem, ext)) => format!("{stem} (conflict {digits}).{ext}"),
        None => format!("{name} (conflict {digits})"),
    }
}

/// Sets when a file was modified, in seconds since 1970.
#[track_caller]
pub(crate) fn set_mtime(path: impl AsRef<Path>, seconds: u64) {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let file = fs::File::options().write(true).open(path.as_ref()).expect("open");
    file.set_modified(time).expect("set the time");
}

/// `chmod`.
#[track_caller]
pub(crate) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path.as_ref(), fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Sets a mode for as long as it lives, so that the temporary directory can be removed whatever happens.
pub(crate) struct ModeGuard {
    path: PathBuf,
    before: u32,
}

impl ModeGuard {
    /// Sets `mode` on `path`.
    pub(crate) fn set(path: impl Into<PathBuf>, mode: u32) -> Self {
        let path = path.into();
        let before = fs::metadata(&path).expect("stat").mode() & 0o7777;
        set_mode(&path, mode);
        Self { path, before }
    }
}

impl Drop for ModeGuard {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.path, fs::Permissions::from_mode(self.before));
    }
}

fn relative(dir: &Path, path: &Path) -> Vec<u8> {
    path.strip_prefix(dir)
        .expect("walked from dir")
        .as_os_str()
        .as_bytes()
        .to_vec()
}

#[track_caller]
fn walk(root: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in read(&dir, fs::read_dir(&dir)) {
            let path = entry
                .unwrap_or_else(|e| panic!("list {}: {e}", dir.display()))
                .path();
            if path.parent() == Some(root) && path.file_name().is_some_and(|n| n == ".alike") {
                continue;
            }
            let meta = read(&path, fs::symlink_metadata(&path));
            visit(&path, &meta);
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
}

#[track_caller]
fn read<T>(path: &Path, result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}
