//! Outboards: the inner hashes of large files, kept beside them, so that any range of a file can be sent and
//! received verified. Never decides what is sent; an outboard that is lost or damaged is only made again.
//!
//! An outboard file is bao's post-order tree of hash pairs over groups of 16 KiB, without a length. A range on
//! the wire is bao's pre-order encoding of the groups it touches.

mod ahead;
mod write;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use alike_core::digest::Digest;
use alike_core::subtree::{self, GROUP, Subtree, Value};
use bao_tree::io::BaoContentItem;
use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, encode_ranges_validated, outboard_post_order};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};

use ahead::read_ahead;
use write::Gathered;
pub(crate) use write::put;

/// Groups of 2^4 chunks of 1 KiB: 16 KiB, so an outboard is 0.4 % of its file.
const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes read at once.
const BUFFER: usize = 256 * 1024;
/// Largest file there can be (Linux's limit), so that arithmetic on sizes cannot overflow.
const MAX_SIZE: u64 = i64::MAX as u64;

/// The inner hashes of one file.
#[derive(Debug)]
pub(crate) struct Outboard {
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
    fn new(digest: &Digest, tree: BaoTree, data: Pairs) -> Outboard {
        let root = blake3::Hash::from_bytes(digest.0);
        Outboard {
            pairs: PostOrderOutboard { root, tree, data },
        }
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.pairs.tree.size()
    }

    /// The same, read into memory if it is at most `limit` bytes.
    pub(crate) fn in_memory(mut self, limit: u64) -> io::Result<Outboard> {
        if let Pairs::File(file) = &self.pairs.data
            && self.pairs.tree.outboard_size() <= limit
        {
            let mut bytes = Vec::new();
            FromStart::new(file).take(limit).read_to_end(&mut bytes)?;
            self.pairs.data = Pairs::Memory(bytes);
        }
        Ok(self)
    }

    /// The values of the nodes of at most `most` groups below `of`, a node of this tree, each verified against the file's
    /// digest; `None` if the outboard is damaged.
    pub(crate) fn values(&self, of: Subtree, most: u64) -> io::Result<Option<Vec<Value>>> {
        let mut at = Node {
            subtree: Subtree::whole(self.size()),
            before: 0,
            value: None,
        };
        while at.subtree != of {
            let Some(right) = at.subtree.towards(of) else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "no node of the tree"));
            };
            match self.halves(&at)? {
                Some(halves) => at = if right { halves.1 } else { halves.0 },
                None => return Ok(None),
            }
        }
        let mut values = Vec::new();
        let mut rest = vec![at];
        while let Some(next) = rest.pop() {
            match next.value {
                Some(value) if next.subtree.groups() <= most => values.push(value),
                _ => match self.halves(&next)? {
                    Some((left, right)) => rest.extend([right, left]),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(values))
    }

    /// The value of a subtree of another, perhaps longer, file, if it can only be this: it is full here, or it ends with both.
    pub(crate) fn value_for(&self, of: Subtree, size: u64) -> io::Result<Option<Value>> {
        let whole = Subtree::whole(self.size());
        let is_full = of.groups().is_power_of_two() && of.end.saturating_mul(GROUP) <= self.size();
        if !is_full && (size != self.size() || of == whole) {
            return Ok(None);
        }
        if of == whole {
            // Here it is all of the file; there it is not.
            let halves = self.values(of, whole.groups().div_ceil(2).next_power_of_two())?;
            return Ok(halves.and_then(|halves| match halves[..] {
                [left, right] => Some(subtree::join(&left, &right)),
                _ => None,
            }));
        }
        Ok(self
            .values(of, of.groups())?
            .and_then(|values| values.first().copied()))
    }

    /// The two nodes below one of more than one group; `None` if they are not what its value says.
    fn halves(&self, of: &Node) -> io::Result<Option<(Node, Node)>> {
        let Some((left, right)) = of.subtree.halves() else {
            return Ok(None);
        };
        let mut pair = [0; 64];
        // Post-order: the pairs below come first.
        let at = (of.before + of.subtree.groups() - 2) * 64;
        let read = bao_tree::io::sync::ReadAt::read_exact_at(&self.pairs.data, at, &mut pair);
        match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let half = |bytes: &[u8]| <Value>::try_from(bytes).expect("half of a pair");
        let (l, r) = (half(&pair[..32]), half(&pair[32..]));
        let is_right = match of.value {
            Some(value) => subtree::join(&l, &r) == value,
            None => subtree::join_root(&l, &r).0 == *self.pairs.root.as_bytes(),
        };
        let node = |subtree: Subtree, before, value| Node {
            subtree,
            before,
            value: Some(value),
        };
        let halves = (
            node(left, of.before, l),
            node(right, of.before + left.groups() - 1, r),
        );
        Ok(is_right.then_some(halves))
    }
}

/// A node on the way down.
struct Node {
    subtree: Subtree,
    /// Pairs in the outboard before those of this node.
    before: u64,
    /// `None` for all of the file, whose digest is known.
    value: Option<Value>,
}

/// Where the outboard of `digest` is kept in `dir`.
pub(crate) fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{digest}.obao"))
}

/// Hashes the first `size` bytes of `file` from its start, and keeps the outboard in `store` in the same
/// pass. Returns the digest and the bytes read; fewer than `size` bytes there are an `UnexpectedEof`.
pub(crate) fn hash_with_outboard(file: &File, size: u64, store: Option<&Path>) -> io::Result<(Digest, u64)> {
    let digest = hash_reader(&mut FromStart::new(file), size, store)?;
    Ok((digest, size))
}

/// The same for a reader.
pub(crate) fn hash_reader(source: &mut dyn Read, size: u64, store: Option<&Path>) -> io::Result<Digest> {
    let tree = tree_of(size)?;
    let Some(dir) = store else {
        return hash_plain(source, size);
    };
    let temp = Temp::new(dir)?;
    let mut out = BufWriter::with_capacity(64 * 1024, File::create_new(&temp.0)?);
    let hash = |source: &mut dyn Read| outboard_post_order(source, tree, &mut out);
    let digest = digest_of(read_ahead(source, size, hash)?);
    out.into_inner().map_err(|e| e.into_error())?;
    fs::rename(&temp.0, path_of(dir, &digest))?;
    Ok(digest)
}

fn hash_plain(source: &mut dyn Read, size: u64) -> io::Result<Digest> {
    let mut buffer = vec![0; size.min(BUFFER as u64) as usize];
    let mut hasher = blake3::Hasher::new();
    let mut left = size;
    while left > 0 {
        let part = &mut buffer[..left.min(BUFFER as u64) as usize];
        source.read_exact(part)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    Ok(digest_of(hasher.finalize()))
}

/// The outboard of `file`: the one kept in `dir`, or else a new one, which is kept there if the file is large
/// enough to need one. `None` if the first `size` bytes of the file do not hash to `digest`.
///
/// One that was kept is not verified here, nor is the file: [`encode`] verifies each piece. If that says
/// `InvalidData`, [`forget`] the outboard and ask again: then the whole file is hashed.
pub(crate) fn load_or_make(
    dir: &Path,
    file: &File,
    size: u64,
    digest: &Digest,
) -> io::Result<Option<Outboard>> {
    if let Some(kept) = kept(dir, size, digest)? {
        return Ok(Some(kept));
    }
    // Several requests for one file come at once; one of them hashes it.
    let _turn = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(kept) = kept(dir, size, digest)? {
        return Ok(Some(kept));
    }
    let tree = tree_of(size)?;
    let source = &mut FromStart::new(file);
    if size <= crate::disk::OUTBOARD_FROM {
        let mut pairs = Vec::new();
        let made = match outboard_post_order(BufReader::with_capacity(BUFFER, source), tree, &mut pairs) {
            Ok(root) => digest_of(root),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        };
        return Ok((made == *digest).then(|| Outboard::new(digest, tree, Pairs::Memory(pairs))));
    }
    match hash_reader(source, size, Some(dir)) {
        Ok(made) if made == *digest => kept(dir, size, digest),
        Ok(other) => {
            forget(dir, &other);
            Ok(None)
        }
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

static MAKING: Mutex<()> = Mutex::new(());

/// The outboard that is kept in `dir`; not verified.
pub(crate) fn kept(dir: &Path, size: u64, digest: &Digest) -> io::Result<Option<Outboard>> {
    let (path, tree) = (path_of(dir, digest), tree_of(size)?);
    match File::open(&path) {
        Ok(kept) if kept.metadata()?.len() == tree.outboard_size() => {
            Ok(Some(Outboard::new(digest, tree, Pairs::File(kept))))
        }
        Ok(_) => fs::remove_file(path).map(|()| None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The outboard of what is in the first `size` bytes of `file`, whatever that is; kept in `dir`.
pub(crate) fn of_file(dir: &Path, file: &File, size: u64) -> io::Result<Outboard> {
    let digest = hash_reader(&mut FromStart::new(file), size, Some(dir))?;
    kept(dir, size, &digest)?.ok_or_else(|| io::Error::other("an outboard went away"))
}

/// Removes a kept outboard, and the list of chunks with it: one is damaged, or their content is gone.
pub(crate) fn forget(dir: &Path, digest: &Digest) {
    for path in [path_of(dir, digest), crate::chunks::path_of(dir, digest)] {
        if let Err(e) = fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%digest, error = %e, "an outboard could not be removed");
        }
    }
}

/// Removes what writing outboards left behind when it was cut off. Not while anything else uses `dir`.
pub(crate) fn clear_temps(dir: &Path) -> io::Result<()> {
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

/// Writes these groups to `out`, each verified before it is written. An
/// error of kind `InvalidData` means that the file or the outboard is not what the digest says; what was
/// written before it is good.
pub(crate) fn encode(
    file: &File,
    outboard: &Outboard,
    groups: &ChunkRanges,
    out: &mut dyn Write,
) -> io::Result<()> {
    match encode_ranges_validated(file, &outboard.pairs, groups, out) {
        Ok(()) => Ok(()),
        // A file that was cut off is as wrong as one that was overwritten.
        Err(bao_tree::io::EncodeError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(io::Error::new(io::ErrorKind::InvalidData, e))
        }
        Err(e) => Err(e.into()),
    }
}

/// Reads what [`encode`] wrote for the same groups, verifies each as it arrives, and writes it at
/// its place in `file`. `wrote(offset, bytes)` is called for groups that are in the file, in ascending order: all that verified,
/// also where an error is the end. Stops at the first group that does not verify (`InvalidData`); reads nothing past them.
pub(crate) fn decode(
    digest: &Digest,
    size: u64,
    groups: &ChunkRanges,
    input: &mut dyn Read,
    file: &File,
    wrote: &mut dyn FnMut(u64, u64),
) -> io::Result<()> {
    let root = blake3::Hash::from_bytes(digest.0);
    let mut gathered = Gathered::new(file, wrote);
    let mut items = DecodeResponseIter::new(root, tree_of(size)?, input, groups);
    let end = items.try_for_each(|item| match item {
        Ok(BaoContentItem::Leaf(leaf)) => gathered.add(leaf.offset, leaf.data),
        Ok(BaoContentItem::Parent(_)) => Ok(()),
        Err(
            bao_tree::io::DecodeError::ParentHashMismatch(_) | bao_tree::io::DecodeError::LeafHashMismatch(_),
        ) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "content does not match its digest",
        )),
        Err(other) => Err(other.into()),
    });
    let written = gathered.write();
    end.and(written)
}

/// Runs of whole groups (the first, and the one behind the last; ascending).
pub(crate) fn groups(runs: &[(u64, u64)]) -> ChunkRanges {
    let per_group = GROUP / 1024;
    let mut all = ChunkRanges::empty();
    for (first, end) in runs {
        all |= ChunkRanges::from(ChunkNum(first * per_group)..ChunkNum(end * per_group));
    }
    all
}

/// All of a file.
pub(crate) fn all_groups(size: u64) -> [(u64, u64); 1] {
    [(0, Subtree::whole(size).end)]
}

fn tree_of(size: u64) -> io::Result<BaoTree> {
    if size > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no file is that large",
        ));
    }
    Ok(BaoTree::new(size, BLOCK))
}

fn digest_of(hash: blake3::Hash) -> Digest {
    Digest(*hash.as_bytes())
}

/// Reads a file from its start, wherever its cursor is.
pub(crate) struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> FromStart<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        FromStart { file, at: 0 }
    }
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
pub(crate) struct Temp(PathBuf);

impl Temp {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn new(dir: &Path) -> io::Result<Temp> {
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

#[cfg(test)]
mod tests;
