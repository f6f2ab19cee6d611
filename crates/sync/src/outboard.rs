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
    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.pairs.tree.size()
    }
}

/// Where the outboard of `digest` is kept in `dir`.
pub(crate) fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{digest}.obao"))
}

/// Hashes the first `size` bytes of `file` from its start, and keeps the outboard in `store` in the same
/// pass. Returns the digest and the bytes read; fewer than `size` bytes there are an `UnexpectedEof`.
pub(crate) fn hash_with_outboard(file: &File, size: u64, store: Option<&Path>) -> io::Result<(Digest, u64)> {
    let digest = hash_reader(&mut FromStart { file, at: 0 }, size, store)?;
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
    let source = BufReader::with_capacity(BUFFER, source);
    let digest = digest_of(outboard_post_order(source, tree, &mut out)?);
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
/// One that was kept is not verified here, nor is the file: [`encode_range`] verifies each piece. If that says
/// `InvalidData`, [`forget`] the outboard and ask again: then the whole file is hashed.
pub(crate) fn load_or_make(
    dir: &Path,
    file: &File,
    size: u64,
    digest: &Digest,
) -> io::Result<Option<Outboard>> {
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
pub(crate) fn forget(dir: &Path, digest: &Digest) {
    if let Err(e) = fs::remove_file(path_of(dir, digest))
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%digest, error = %e, "an outboard could not be removed");
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

/// Writes the groups that `len` bytes from `start` touch to `out`, each verified before it is written. An
/// error of kind `InvalidData` means that the file or the outboard is not what the digest says; what was
/// written before it is good.
pub(crate) fn encode_range(
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
pub(crate) fn decode_range(
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
pub(crate) fn decode_range_with(
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    struct Case {
        dir: tempfile::TempDir,
        file: File,
        content: Vec<u8>,
        digest: Digest,
    }

    fn case(size: u64) -> Case {
        let content: Vec<u8> = (0..size).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let digest = Digest::of(&content);
        Case {
            dir,
            file,
            content,
            digest,
        }
    }

    impl Case {
        fn size(&self) -> u64 {
            self.content.len() as u64
        }

        fn outboard(&self) -> Outboard {
            load_or_make(self.dir.path(), &self.file, self.size(), &self.digest)
                .unwrap()
                .unwrap()
        }

        fn encode(&self, start: u64, len: u64) -> io::Result<Vec<u8>> {
            let mut out = Vec::new();
            encode_range(&self.file, &self.outboard(), start, len, &mut out)?;
            Ok(out)
        }

        /// Decodes into a new file; the bytes written, how it ended, and the file's content.
        fn decode(&self, start: u64, len: u64, encoded: &[u8]) -> (u64, io::Result<()>, Vec<u8>) {
            let file = tempfile::tempfile().unwrap();
            file.set_len(self.size()).unwrap();
            let mut bytes = 0;
            let mut input = encoded;
            let mut wrote = |_, n| bytes += n;
            let end = decode_range_with(
                &self.digest,
                self.size(),
                start,
                len,
                &mut input,
                &file,
                &mut wrote,
            );
            assert!(end.is_err() || input.is_empty());
            let mut content = vec![0; self.content.len()];
            file.read_exact_at(&mut content, 0).unwrap();
            (bytes, end, content)
        }
    }

    const SIZES: [u64; 9] = [0, 1, 16_383, 16_384, 16_385, MIB - 1, MIB, MIB + 1, 5 * MIB + 17];

    #[test]
    fn digests_are_plain_blake3_and_outboards_are_kept() {
        for size in SIZES {
            let case = case(size);
            let kept = case.dir.path();
            let (digest, read) = hash_with_outboard(&case.file, size, None).unwrap();
            assert_eq!((digest, read), (case.digest, size));
            let (digest, _) = hash_with_outboard(&case.file, size, Some(kept)).unwrap();
            assert_eq!(digest, case.digest);
            let bytes = fs::metadata(path_of(kept, &digest)).unwrap().len();
            assert_eq!(bytes, size.div_ceil(GROUP_BYTES).saturating_sub(1) * 64, "{size}");
            assert_eq!(fs::read_dir(kept).unwrap().count(), 1);
            let error = hash_with_outboard(&case.file, size + 1, Some(kept)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(fs::read_dir(kept).unwrap().count(), 1);
        }
    }

    #[test]
    fn ranges_arrive_whole() {
        for size in SIZES {
            let case = case(size);
            let middle = size / 2;
            for (start, len) in [
                (0, size),
                (0, 1),
                (middle, 1),
                (middle, 100_000),
                (size.saturating_sub(1), 1),
                (0, u64::MAX),
            ] {
                let encoded = case.encode(start, len).unwrap();
                let (bytes, end, content) = case.decode(start, len, &encoded);
                end.unwrap();
                let end = start.saturating_add(len).min(size);
                let range = start as usize..end as usize;
                assert_eq!(
                    content[range.clone()],
                    case.content[range],
                    "{size} {start} {len}"
                );
                let groups = if end > start {
                    end.div_ceil(GROUP_BYTES) - start / GROUP_BYTES
                } else {
                    0
                };
                assert!(
                    bytes <= groups * GROUP_BYTES && bytes >= end - start,
                    "{size} {start} {len} {bytes}"
                );
            }
            assert_eq!(case.encode(size + GROUP_BYTES, 1).unwrap(), b"");
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let case = case(5 * MIB + 17);
        let file = tempfile::tempfile().unwrap();
        let mut at = 0;
        while at < case.size() {
            let encoded = case.encode(at, 700_000).unwrap();
            let mut input = &encoded[..];
            decode_range(&case.digest, case.size(), at, 700_000, &mut input, &file).unwrap();
            at += 700_000;
        }
        assert_eq!(
            hash_with_outboard(&file, case.size(), None).unwrap().0,
            case.digest
        );
    }

    #[test]
    fn damaged_content_is_not_sent() {
        let case = case(5 * MIB + 17);
        case.outboard();
        case.file.write_all_at(b"!", 2 * MIB).unwrap();
        let mut sent = Vec::new();
        let error = encode_range(&case.file, &case.outboard(), 0, u64::MAX, &mut sent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (bytes, end, _) = case.decode(0, u64::MAX, &sent);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(bytes, 2 * MIB);
        // Other ranges still are.
        case.encode(3 * MIB, MIB).unwrap();
        case.file.set_len(MIB).unwrap();
        assert_eq!(
            case.encode(3 * MIB, 1).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        forget(case.dir.path(), &case.digest);
        assert!(
            load_or_make(case.dir.path(), &case.file, case.size(), &case.digest)
                .unwrap()
                .is_none()
        );
        assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn other_content_has_no_outboard() {
        for size in [1, MIB, 2 * MIB] {
            let case = case(size);
            case.file.write_all_at(b"!", size / 2).unwrap();
            assert!(
                load_or_make(case.dir.path(), &case.file, size, &case.digest)
                    .unwrap()
                    .is_none()
            );
            assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_damaged_outboard_is_noticed_and_made_again() {
        let case = case(5 * MIB + 17);
        case.outboard();
        let path = path_of(case.dir.path(), &case.digest);
        let kept = File::options().write(true).open(&path).unwrap();
        let length = kept.metadata().unwrap().len();
        kept.write_all_at(b"!", length - 1).unwrap();
        assert_eq!(case.encode(0, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        forget(case.dir.path(), &case.digest);
        case.encode(0, 1).unwrap();
        // One that was cut off is not taken at all.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
        case.encode(0, 1).unwrap();
    }

    #[test]
    fn what_arrives_damaged_stops_at_its_group() {
        let case = case(5 * MIB + 17);
        let encoded = case.encode(0, u64::MAX).unwrap();
        for at in [0, 64, encoded.len() / 2, encoded.len() - 1] {
            let mut bad = encoded.clone();
            bad[at] ^= 1;
            let (bytes, end, content) = case.decode(0, u64::MAX, &bad);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData, "{at}");
            assert!(
                bytes <= at as u64
                    && bytes + 2 * GROUP_BYTES + 2048
                        > at as u64 * 99 / 100 - 20_000.min(at as u64 * 99 / 100)
            );
            let bytes = bytes as usize;
            assert_eq!(content[..bytes], case.content[..bytes]);
            assert!(content[bytes..].iter().all(|&b| b == 0), "{at}");
        }
        let (bytes, end, _) = case.decode(0, u64::MAX, &encoded[..encoded.len() / 2]);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(bytes > 2 * MIB);
    }

    #[test]
    fn a_false_size_does_not_verify() {
        let case = case(MIB);
        let encoded = case.encode(0, MIB).unwrap();
        let file = tempfile::tempfile().unwrap();
        for size in [1, MIB - 1, MIB + 1, 1 << 40, u64::MAX] {
            assert!(
                decode_range(&case.digest, size, 0, u64::MAX, &mut &encoded[..], &file).is_err(),
                "{size}"
            );
        }
    }

    #[test]
    fn what_was_cut_off_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("temp-1-1"), "x").unwrap();
        fs::write(dir.path().join("kept.obao"), "x").unwrap();
        clear_temps(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
