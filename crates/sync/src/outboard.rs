//! Outboards: the inner hashes of large files, kept beside them, so that any range of a file can be sent and
//! received verified. Never decides what is sent; an outboard that is lost or damaged is only made again.
//!
//! An outboard file is bao's post-order tree of hash pairs over groups of 16 KiB, without a length. A range on
//! the wire is bao's pre-order encoding of the groups it touches.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use alike_core::digest::Digest;
use bao_tree::io::BaoContentItem;
use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, encode_ranges_validated, outboard_post_order};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};

/// Groups of 2^4 chunks of 1 KiB: 16 KiB, so an outboard is 0.4 % of its file.
const GROUP: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes of a group.
pub(crate) const GROUP_BYTES: u64 = 16 * 1024;
/// Bytes read at once.
const BUFFER: usize = 256 * 1024;
/// Largest file there can be (Linux's limit), so that arithmetic on sizes cannot overflow.
const MAX_SIZE: u64 = i64::MAX as u64;

/// The inner hashes of one file.
#[derive(Debug)]
pub struct Outboard {
    pairs: PostOrderOutboard<Pairs>,
}

/// Where the hash pairs are.
#[derive(Debug)]
enum Pairs {
    Memory(Vec<u8>),
    File(File),
}

impl bao_tree::io::sync::ReadAt for Pairs {
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Pairs::Memory(bytes) => bytes.read_at(pos, buf),
            Pairs::File(file) => bao_tree::io::sync::ReadAt::read_at(file, pos, buf),
        }
    }
}

impl Outboard {
    /// The digest of the file.
    pub fn digest(&self) -> Digest {
        Digest(*self.pairs.root.as_bytes())
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.pairs.tree.size()
    }
}

/// Where the outboard of `digest` is kept in `dir`.
pub fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{digest}.obao"))
}

/// Hashes the first `size` bytes of `file` from its start, and keeps the outboard in `store` in the same
/// pass. Returns the digest and the bytes read; fewer than `size` bytes there are an `UnexpectedEof`.
pub fn hash_with_outboard(file: &File, size: u64, store: Option<&Path>) -> io::Result<(Digest, u64)> {
    let digest = hash_reader(&mut FromStart { file, at: 0 }, size, store)?;
    Ok((digest, size))
}

/// The same for a reader.
pub(crate) fn hash_reader(source: &mut dyn Read, size: u64, store: Option<&Path>) -> io::Result<Digest> {
    let source = BufReader::with_capacity(BUFFER, source);
    let tree = tree_of(size)?;
    let Some(dir) = store else {
        return Ok(digest_of(outboard_post_order(source, tree, io::sink())?));
    };
    let temp = Temp::new(dir)?;
    let mut out = BufWriter::with_capacity(64 * 1024, File::create_new(&temp.0)?);
    let digest = digest_of(outboard_post_order(source, tree, &mut out)?);
    out.into_inner().map_err(|e| e.into_error())?;
    fs::rename(&temp.0, path_of(dir, &digest))?;
    Ok(digest)
}

/// The outboard of `file`: the one kept in `dir`, or else a new one, which is kept there if the file is large
/// enough to need one. `None` if the first `size` bytes of the file do not hash to `digest`.
///
/// One that was kept is not verified here, nor is the file: [`encode_range`] verifies each piece. If that says
/// `InvalidData`, [`forget`] the outboard and ask again: then the whole file is hashed.
pub fn load_or_make(dir: &Path, file: &File, size: u64, digest: &Digest) -> io::Result<Option<Outboard>> {
    let tree = tree_of(size)?;
    let outboard = |data| Outboard {
        pairs: PostOrderOutboard {
            root: blake3::Hash::from_bytes(digest.0),
            tree,
            data,
        },
    };
    let path = path_of(dir, digest);
    match File::open(&path) {
        Ok(kept) if kept.metadata()?.len() == tree.outboard_size() => {
            return Ok(Some(outboard(Pairs::File(kept))));
        }
        Ok(_) => fs::remove_file(&path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let source = &mut FromStart { file, at: 0 };
    if size <= crate::disk::OUTBOARD_FROM {
        let mut pairs = Vec::new();
        let made = match outboard_post_order(BufReader::with_capacity(BUFFER, source), tree, &mut pairs) {
            Ok(root) => digest_of(root),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        };
        return Ok((made == *digest).then(|| outboard(Pairs::Memory(pairs))));
    }
    match hash_reader(source, size, Some(dir)) {
        Ok(made) if made == *digest => Ok(Some(outboard(Pairs::File(File::open(&path)?)))),
        Ok(other) => {
            forget(dir, &other);
            Ok(None)
        }
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes a kept outboard: it is damaged, or its content is gone.
pub fn forget(dir: &Path, digest: &Digest) {
    if let Err(e) = fs::remove_file(path_of(dir, digest))
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%digest, error = %e, "an outboard could not be removed");
    }
}

/// Removes what writing outboards left behind when it was cut off. Not while anything else uses `dir`.
pub fn clear_temps(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMP_PREFIX.as_bytes())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes the groups that `len` bytes from `start` touch to `out`, each verified before it is written. An
/// error of kind `InvalidData` means that the file or the outboard is not what the digest says; what was
/// written before it is good.
pub fn encode_range(
    file: &File,
    outboard: &Outboard,
    start: u64,
    len: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let ranges = groups(outboard.size(), start, len);
    match encode_ranges_validated(file, &outboard.pairs, &ranges, out) {
        Ok(()) => Ok(()),
        // A file that was cut off is as wrong as one that was overwritten.
        Err(bao_tree::io::EncodeError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(io::Error::new(io::ErrorKind::InvalidData, e))
        }
        Err(e) => Err(e.into()),
    }
}

/// Reads what [`encode_range`] wrote for the same range, verifies each group as it arrives, and writes it at
/// its place in `file`. Returns the bytes of content written. Stops at the first group that does not verify
/// (`InvalidData`); reads nothing past the range.
pub fn decode_range(
    digest: &Digest,
    size: u64,
    start: u64,
    len: u64,
    input: &mut dyn Read,
    file: &File,
) -> io::Result<u64> {
    let mut bytes = 0;
    decode_range_with(digest, size, start, len, input, file, &mut |_, n| bytes += n)?;
    Ok(bytes)
}

/// The same; `wrote(offset, bytes)` is called for every group that is in the file, in ascending order, so
/// that a range that was cut off can be resumed behind the last one.
pub fn decode_range_with(
    digest: &Digest,
    size: u64,
    start: u64,
    len: u64,
    input: &mut dyn Read,
    file: &File,
    wrote: &mut dyn FnMut(u64, u64),
) -> io::Result<()> {
    let ranges = groups(size, start, len);
    let root = blake3::Hash::from_bytes(digest.0);
    for item in DecodeResponseIter::new(root, tree_of(size)?, input, &ranges) {
        let item = item.map_err(|e| match e {
            bao_tree::io::DecodeError::ParentHashMismatch(_)
            | bao_tree::io::DecodeError::LeafHashMismatch(_) => {
                io::Error::new(io::ErrorKind::InvalidData, "content does not match its digest")
            }
            other => other.into(),
        })?;
        if let BaoContentItem::Leaf(leaf) = item {
            file.write_all_at(&leaf.data, leaf.offset)?;
            wrote(leaf.offset, leaf.data.len() as u64);
        }
    }
    Ok(())
}

/// The whole groups that a range touches, in chunks of 1 KiB, within the file.
fn groups(size: u64, start: u64, len: u64) -> ChunkRanges {
    let per_group = GROUP_BYTES / 1024;
    let end = start.saturating_add(len).min(size);
    let first = start / GROUP_BYTES * per_group;
    let last = end.div_ceil(GROUP_BYTES).max(1) * per_group;
    if first >= last || (start >= size && size > 0) || (len == 0 && size > 0) {
        return ChunkRanges::empty();
    }
    ChunkRanges::from(ChunkNum(first)..ChunkNum(last))
}

fn tree_of(size: u64) -> io::Result<BaoTree> {
    if size > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no file is that large",
        ));
    }
    Ok(BaoTree::new(size, GROUP))
}

fn digest_of(hash: blake3::Hash) -> Digest {
    Digest(*hash.as_bytes())
}

/// Reads a file from its start, wherever its cursor is.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = bao_tree::io::sync::ReadAt::read_at(self.file, self.at, buf)?;
        self.at += got as u64;
        Ok(got)
    }
}

const TEMP_PREFIX: &str = "temp-";

/// A file of ours that goes away unless it is put in place.
struct Temp(PathBuf);

impl Temp {
    fn new(dir: &Path) -> io::Result<Temp> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = rustix::process::getpid().as_raw_nonzero();
        let path = dir.join(format!("{TEMP_PREFIX}{pid}-{n}"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(Temp(path)),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Nothing but space is lost if it stays.
        let _ = fs::remove_file(&self.0);
    }
}
