//! Trees of files: made the same from the same numbers each time, counted, compared.

use std::fs::{self, File, FileTimes};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

/// What engines put into a folder's root for themselves.
const MARKERS: &[&str] = &[".alike", ".stfolder"];
/// The first file's time; each next one is a second and some nanoseconds later.
const FIRST_TIME: u64 = 1_700_000_000;
/// Differences that are told of.
const TOLD: usize = 5;
/// Read, written and compared in pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// A tree of many small files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) files: usize,
    pub(super) per_dir: usize,
    /// Least and most bytes of a file.
    pub(super) size: (usize, usize),
}

/// How precise modification times are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    Nanoseconds,
    Seconds,
}

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) files: u64,
    pub(super) links: u64,
    pub(super) dirs: u64,
    pub(super) bytes: u64,
}

/// Random bytes that are the same for the same number.
pub(super) struct Bytes(blake3::OutputReader);

impl Bytes {
    pub(super) fn new(seed: u64) -> Bytes {
        Bytes(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }

    pub(super) fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// One of `low..=high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }
}

/// Where the file of this number is in the tree.
pub(super) fn name(spec: &Spec, file: usize) -> PathBuf {
    PathBuf::from(format!("d{:04}/f{file:07}", file / spec.per_dir))
}

/// Makes the tree at `dir`, on all cores.
pub(super) fn make(dir: &Path, spec: &Spec) -> Result<()> {
    fs::create_dir_all(dir)?;
    let threads = std::thread::available_parallelism()?.get();
    let dirs = spec.files.div_ceil(spec.per_dir);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || (n..dirs).step_by(threads).try_for_each(|d| fill(dir, spec, d))))
            .collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().expect("filling a directory does not panic"))
    })
}

/// Makes one directory of the tree.
fn fill(dir: &Path, spec: &Spec, number: usize) -> Result<()> {
    let first = number * spec.per_dir;
    fs::create_dir(dir.join(name(spec, first)).parent().context("a directory")?)?;
    let mut bytes = Bytes::new(number as u64);
    for file in first..(first + spec.per_dir).min(spec.files) {
        let mut content = vec![0; bytes.between(spec.size.0, spec.size.1)];
        bytes.fill(&mut content);
        let path = dir.join(name(spec, file));
        let mut made = File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
        made.write_all(&content)?;
        set_time(&made, file)?;
    }
    Ok(())
}

/// One file of so many random bytes.
pub(super) fn make_big(path: &Path, size: u64, seed: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut bytes = Bytes::new(seed);
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        bytes.fill(&mut piece[..length]);
        file.write_all(&piece[..length])?;
        left -= length as u64;
    }
    set_time(&file, 0)
}

/// A time long ago, so that nobody takes the file for one that is being written.
fn set_time(file: &File, number: usize) -> Result<()> {
    let time = Duration::new(
        FIRST_TIME + number as u64,
        (number % 1_000_000) as u32 * 1_000 + 7,
    );
    Ok(file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + time))?)
}

/// Copies a tree with modes and times; at most so many files and links, if that is given.
pub(super) fn copy(from: &Path, to: &Path, mut most: Option<usize>) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for (name, kind) in entries(&from.join(&dir))? {
            let (here, there) = (from.join(&dir).join(&name), to.join(&dir).join(&name));
            if kind.is_dir() {
                fs::create_dir(&there)?;
                fs::set_permissions(&there, fs::metadata(&here)?.permissions())?;
                open.push(dir.join(&name));
                continue;
            }
            match &mut most {
                Some(0) => return Ok(()),
                Some(left) => *left -= 1,
                None => {}
            }
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&here)?, &there)?;
            } else if kind.is_file() {
                fs::copy(&here, &there).with_context(|| format!("copy {}", here.display()))?;
                let time = fs::metadata(&here)?.modified()?;
                File::options()
                    .write(true)
                    .open(&there)
                    .and_then(|f| f.set_modified(time))
                    .or_else(|e| if is_read_only(&there) { Ok(()) } else { Err(e) })?;
            }
        }
    }
    Ok(())
}

/// Only root can open these for writing.
fn is_read_only(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o200 == 0)
}

/// What is in a directory, sorted, without what engines put there.
fn entries(dir: &Path) -> Result<Vec<(std::ffi::OsString, fs::FileType)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if !MARKERS.iter().any(|m| entry.file_name() == **m) {
            all.push((entry.file_name(), entry.file_type()?));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// Counts a tree.
pub(super) fn weigh(tree: &Path) -> Result<Weight> {
    let mut sum = Weight::default();
    let mut open = vec![tree.to_path_buf()];
    while let Some(dir) = open.pop() {
        for (name, kind) in entries(&dir)? {
            let path = dir.join(name);
            if kind.is_dir() {
                sum.dirs += 1;
                open.push(path);
            } else if kind.is_symlink() {
                sum.links += 1;
            } else {
                sum.files += 1;
                // One that goes meanwhile weighs nothing: also counted while somebody works here.
                sum.bytes += fs::symlink_metadata(path).map_or(0, |m| m.len());
            }
        }
    }
    Ok(sum)
}

/// How much of a tree has arrived, in per cent of its files.
pub(super) fn arrived(from: &Path, to: &Path) -> Result<f64> {
    let mut sum = (0_u64, 0_u64);
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for (name, kind) in entries(&from.join(&dir))? {
            let path = dir.join(name);
            if kind.is_dir() {
                open.push(path);
            } else {
                sum.0 += 1;
                let size = |tree: &Path| fs::symlink_metadata(tree.join(&path)).map(|m| m.len()).ok();
                sum.1 += u64::from(size(to).is_some() && size(to) == size(from));
            }
        }
    }
    Ok(100.0 * sum.1 as f64 / (sum.0.max(1)) as f64)
}

/// Removes what engines left in a tree's root.
pub(super) fn clean(tree: &Path) -> Result<()> {
    for marker in MARKERS {
        let path = tree.join(marker);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

/// Fails unless both hold the same: names, kinds, modes, bytes, targets of links, times of files.
pub(super) fn compare(one: &Path, other: &Path, grain: Grain) -> Result<()> {
    let mut differ = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let names = entries(&one.join(&dir))?;
        if names != entries(&other.join(&dir))? {
            differ.push(format!("{}: other names or kinds", other.join(&dir).display()));
        }
        for (name, kind) in names {
            let path = dir.join(name);
            let (here, there) = (one.join(&path), other.join(&path));
            if let Some(why) = difference(&here, &there, kind, grain)? {
                differ.push(format!("{}: {why}", there.display()));
            }
            if kind.is_dir() && there.is_dir() {
                open.push(path);
            }
        }
        if differ.len() > TOLD {
            break;
        }
    }
    if !differ.is_empty() {
        bail!("the trees are not equal: {}", differ.join("; "));
    }
    Ok(())
}

fn difference(one: &Path, other: &Path, kind: fs::FileType, grain: Grain) -> Result<Option<&'static str>> {
    let a = fs::symlink_metadata(one)?;
    let Ok(b) = fs::symlink_metadata(other) else {
        return Ok(Some("missing"));
    };
    if kind.is_symlink() {
        return Ok((fs::read_link(one)? != fs::read_link(other)?).then_some("another target"));
    }
    if a.mode() != b.mode() {
        return Ok(Some("another mode"));
    }
    if kind.is_dir() {
        return Ok(None);
    }
    let nanoseconds = grain == Grain::Nanoseconds && a.mtime_nsec() != b.mtime_nsec();
    if a.mtime() != b.mtime() || nanoseconds {
        return Ok(Some("another time"));
    }
    if a.len() != b.len() || !same_bytes(one, other)? {
        return Ok(Some("other bytes"));
    }
    Ok(None)
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let length = read_full(&mut one, &mut a)?;
        if length != read_full(&mut other, &mut b)? || a[..length] != b[..length] {
            return Ok(false);
        }
        if length < PIECE {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

/// Has `other` the size and the time of `one`? What everybody who replaces files whole can be waited for by.
pub(super) fn looks_same(one: &Path, other: &Path, grain: Grain) -> bool {
    let (Ok(a), Ok(b)) = (fs::metadata(one), fs::metadata(other)) else {
        return false;
    };
    let times = match grain {
        Grain::Nanoseconds => a.mtime_nsec() == b.mtime_nsec(),
        Grain::Seconds => true,
    };
    a.len() == b.len() && a.mtime() == b.mtime() && times
}

/// Writes into a file where it is.
pub(super) fn overwrite(path: &Path, at: u64, bytes: &[u8]) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    // A clock that ticks every few milliseconds could give it the time that it had.
    Ok(file.set_modified(SystemTime::now())?)
}

/// Replaces a file by one with `bytes` before its content, as programs do that save: beside it, then renamed.
pub(super) fn put_in_front(path: &Path, bytes: &[u8], aside: &Path) -> Result<()> {
    let mut new = File::create(aside)?;
    new.write_all(bytes)?;
    std::io::copy(&mut File::open(path)?, &mut new)?;
    drop(new);
    Ok(fs::rename(aside, path)?)
}

/// How many names a directory has; none if it is not there.
pub(super) fn names_in(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// The tree that a person gave.
pub(super) fn given(tree: &Path) -> Result<PathBuf> {
    let tree = fs::canonicalize(tree).with_context(|| format!("the tree {}", tree.display()))?;
    ensure!(tree.is_dir(), "{} is not a directory", tree.display());
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        files: 25,
        per_dir: 10,
        size: (1, 100),
    };

    #[test]
    fn trees_of_one_spec_are_equal_until_something_changes() {
        let place = tempfile::tempdir().expect("a directory");
        let (a, b, c) = (
            place.path().join("a"),
            place.path().join("b"),
            place.path().join("c"),
        );
        make(&a, &SPEC).expect("made");
        make(&b, &SPEC).expect("made");
        copy(&a, &c, None).expect("copied");
        fs::create_dir(b.join(".alike")).expect("made");
        compare(&a, &b, Grain::Nanoseconds).expect("equal");
        compare(&a, &c, Grain::Nanoseconds).expect("equal");
        let weight = weigh(&a).expect("counted");
        assert_eq!((weight.files, weight.dirs), (25, 3));
        let file = b.join(name(&SPEC, 24));
        let before = fs::metadata(&file).and_then(|m| m.modified()).expect("there");
        overwrite(&file, 0, b"other").expect("written");
        File::options()
            .write(true)
            .open(&file)
            .and_then(|f| f.set_modified(before))
            .expect("set");
        let error = compare(&a, &b, Grain::Seconds).expect_err("other bytes");
        assert!(error.to_string().contains("other bytes"), "{error}");
        fs::set_permissions(c.join("d0000"), fs::Permissions::from_mode(0o700)).expect("set");
        let error = compare(&a, &c, Grain::Seconds).expect_err("other mode");
        assert!(error.to_string().contains("another mode"), "{error}");
        fs::remove_file(&file).expect("there");
        assert!(compare(&a, &b, Grain::Seconds).is_err());
        assert_eq!(arrived(&a, &b).expect("counted"), 96.0);
    }
}
