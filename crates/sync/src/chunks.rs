//! Where a big file's content falls into chunks by itself, so that what an insertion has moved is found again. A list of chunks is
//! a hint: it decides what is tried, never what a file is. The list of a served file is kept beside its outboard.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use alike_core::digest::Digest;
use alike_core::message::{MAX_CHUNKS, MAX_DELTA};
use fastcdc::v2020::FastCDC;

use crate::outboard::FromStart;

/// Bytes of a chunk's digest: enough to look it up, what is found is verified.
pub(crate) const HASH: usize = 16;
/// Bytes of a list's entry: the length (`u32`, little endian) and the digest.
pub(crate) const ENTRY: usize = 4 + HASH;
/// A file is cut into about so many chunks (the limits below allow for an eighth of it to eight times as many) …
const ABOUT: u64 = 16 * 1024;
/// … of this many bytes on the average.
const AVERAGE: (u64, u64) = (16 * 1024, 4 * 1024 * 1024);
/// The shortest chunk is this part of the average, the longest this multiple.
const SPREAD: usize = 4;
/// Bytes between reading and hashing, each time.
const BUFFER: usize = 4 * 1024 * 1024;

/// A piece of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) len: u32,
    pub(crate) hash: [u8; HASH],
}

impl Chunk {
    pub(crate) fn from_entry(entry: &[u8; ENTRY]) -> Chunk {
        let (len, hash) = entry.split_at(4);
        Chunk {
            len: u32::from_le_bytes(len.try_into().expect("four bytes")),
            hash: hash.try_into().expect("the rest"),
        }
    }

    fn to_entry(self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&self.len.to_le_bytes());
        entry[4..].copy_from_slice(&self.hash);
        entry
    }
}

/// How long chunks are on the average in a file of this size, and in versions that it is compared with.
fn average(size: u64) -> usize {
    (size / ABOUT).next_power_of_two().clamp(AVERAGE.0, AVERAGE.1) as usize
}

/// Cuts the first `size` bytes of `file` as a file of `like` bytes is cut, and calls `each` for every chunk, in order.
pub(crate) fn cut(file: &File, size: u64, like: u64, each: &mut dyn FnMut(Chunk)) -> io::Result<()> {
    let average = average(like);
    let (min, max) = (average / SPREAD, average * SPREAD);
    // Hashing has a thread of its own.
    let (cut, to_hash) = mpsc::sync_channel::<(Vec<u8>, Vec<usize>)>(1);
    let (hashed, chunks) = mpsc::channel::<Chunk>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (bytes, lens) in to_hash {
                let mut rest = &bytes[..];
                for len in lens {
                    let (chunk, more) = rest.split_at(len);
                    rest = more;
                    let digest = Digest::of(chunk);
                    let chunk = Chunk {
                        len: len as u32,
                        hash: digest.0[..HASH].try_into().expect("the first half"),
                    };
                    if hashed.send(chunk).is_err() {
                        return;
                    }
                }
            }
        });
        let mut source = FromStart::new(file).take(size);
        let mut bytes: Vec<u8> = Vec::new();
        let mut read = 0;
        loop {
            // A chunk is never cut where the buffer ends.
            let want = BUFFER.max(2 * max) - bytes.len();
            let got = source.by_ref().take(want as u64).read_to_end(&mut bytes)?;
            read += got as u64;
            let at_end = got < want;
            let cutter = FastCDC::new(&bytes, min, average, max);
            let (mut at, mut lens) = (0, Vec::new());
            while at < bytes.len() && (at_end || bytes.len() - at >= max) {
                let (_, end) = cutter.cut(at, bytes.len() - at);
                lens.push(end - at);
                at = end;
            }
            let rest = bytes[at..].to_vec();
            if cut.send((std::mem::replace(&mut bytes, rest), lens)).is_err() {
                break;
            }
            chunks.try_iter().for_each(&mut *each);
            if at_end {
                break;
            }
        }
        drop(cut);
        chunks.iter().for_each(each);
        if read < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    })
}

/// Where a file's content is, by the digests of its chunks.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<[u8; HASH], (u64, u32)>);

impl Index {
    /// Of the first `size` bytes of `file`, or what there is of them, cut as a file of `like` bytes is cut.
    pub(crate) fn of(file: &File, size: u64, like: u64) -> io::Result<Index> {
        let (mut index, mut at) = (HashMap::new(), 0);
        let cut = cut(file, size, like, &mut |chunk| {
            if index.len() < MAX_CHUNKS as usize {
                index.entry(chunk.hash).or_insert((at, chunk.len));
            }
            at += u64::from(chunk.len);
        });
        if let Err(e) = cut
            && e.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(e);
        }
        Ok(Index(index))
    }

    /// Where this chunk should be.
    pub(crate) fn find(&self, chunk: &Chunk) -> Option<u64> {
        let (at, len) = self.0.get(&chunk.hash)?;
        (*len == chunk.len).then_some(*at)
    }
}

/// Where the list of chunks of `digest` is kept in `dir`.
pub(crate) fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(format!("{digest}.chunks"))
}

/// One file is cut at a time, whoever asks.
static CUTTING: Mutex<()> = Mutex::new(());

/// The chunks of a served file that `len` bytes from `start` touch: where the first begins, and their entries. They are of what is in
/// the file now, or was when the list was made.
pub(crate) fn list(
    dir: &Path,
    file: &File,
    (digest, size): (&Digest, u64),
    start: u64,
    len: u64,
) -> io::Result<(u64, Vec<u8>)> {
    let entries = kept(dir, file, digest, size)?;
    let (mut at, mut first, mut touched) = (0, None, 0..0);
    for (i, entry) in entries.chunks_exact(ENTRY).enumerate() {
        let begin = at;
        at += u64::from(Chunk::from_entry(entry.try_into().expect("exact")).len);
        if at > start && begin < start + len {
            first.get_or_insert(begin);
            if touched.is_empty() {
                touched.start = i * ENTRY;
            }
            touched.end = (i + 1) * ENTRY;
        }
    }
    Ok((first.unwrap_or(start), entries[touched].to_vec()))
}

fn kept(dir: &Path, file: &File, digest: &Digest, size: u64) -> io::Result<Vec<u8>> {
    if size > MAX_DELTA {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too large for a list",
        ));
    }
    let _turn = CUTTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = path_of(dir, digest);
    let whole = |entries: &[u8]| {
        let lens = entries.chunks_exact(ENTRY).map(|entry| {
            let chunk = Chunk::from_entry(entry.try_into().expect("exact"));
            u64::from(chunk.len)
        });
        entries.len().is_multiple_of(ENTRY)
            && entries.len() / ENTRY <= MAX_CHUNKS as usize
            && lens.sum::<u64>() == size
    };
    if let Ok(entries) = fs::read(&path)
        && whole(&entries)
    {
        return Ok(entries);
    }
    let mut entries = Vec::new();
    cut(file, size, size, &mut |chunk| entries.extend(chunk.to_entry()))?;
    let temp = crate::outboard::Temp::new(dir)?;
    File::create_new(temp.path())?.write_all(&entries)?;
    fs::rename(temp.path(), &path)?;
    Ok(entries)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes that no part of repeats.
    pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let seed = seed.to_le_bytes();
        blake3::Hasher::new()
            .update(&seed)
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    pub(crate) fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn all(content: &[u8], like: u64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let size = content.len() as u64;
        cut(&file_of(content), size, like, &mut |chunk| chunks.push(chunk)).unwrap();
        chunks
    }

    #[test]
    fn chunks_cover_the_file_within_their_limits() {
        for len in [0, 1, 5_000, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 12_345] {
            for like in [1 << 20, 1 << 30] {
                let content = noise(1, len);
                let (mut at, average) = (0, average(like));
                let chunks = all(&content, like);
                for (i, chunk) in chunks.iter().enumerate() {
                    let len = chunk.len as usize;
                    assert!(len <= average * SPREAD && len > 0);
                    assert!(len >= average / SPREAD || i + 1 == chunks.len());
                    assert_eq!(chunk.hash, Digest::of(&content[at..at + len]).0[..HASH]);
                    at += len;
                }
                assert_eq!(at, content.len());
            }
        }
        // Nothing in it to cut at.
        assert!(
            all(&vec![0; BUFFER], 1 << 20)
                .iter()
                .all(|chunk| chunk.len == 64 * 1024)
        );
    }

    #[test]
    fn an_insertion_moves_chunks_and_changes_few() {
        let before = noise(2, 6 << 20);
        let after = [&noise(3, 4096), &before[..]].concat();
        let index = Index::of(&file_of(&before), before.len() as u64, after.len() as u64).unwrap();
        let chunks = all(&after, after.len() as u64);
        let unknown: u32 = chunks
            .iter()
            .filter(|c| index.find(c).is_none())
            .map(|c| c.len)
            .sum();
        assert!(unknown < 256 << 10, "{unknown} bytes are unknown");
        let (mut at, mut moved) = (0, 0);
        for chunk in &chunks {
            if let Some(found) = index.find(chunk) {
                assert_eq!(found + 4096, at);
                moved += chunk.len;
            }
            at += u64::from(chunk.len);
        }
        assert_eq!(moved + unknown, after.len() as u32);
    }

    #[test]
    fn a_list_is_kept_and_made_again_if_it_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let content = noise(4, 2 << 20);
        let (file, size, digest) = (file_of(&content), content.len() as u64, Digest::of(&content));
        let (start, whole) = list(dir.path(), &file, (&digest, size), 0, size).unwrap();
        assert_eq!((start, whole.len()), (0, all(&content, size).len() * ENTRY));
        let (start, part) = list(dir.path(), &file, (&digest, size), 1 << 20, 1).unwrap();
        assert_eq!(part.len(), ENTRY);
        assert!(start <= 1 << 20 && whole.windows(ENTRY).any(|entry| entry == part));
        // The kept list, not the file.
        file.set_len(0).unwrap();
        assert_eq!(
            list(dir.path(), &file, (&digest, size), 0, size).unwrap().1,
            whole
        );
        fs::write(path_of(dir.path(), &digest), &whole[ENTRY..]).unwrap();
        assert!(list(dir.path(), &file, (&digest, size), 0, size).is_err());
        let again = file_of(&content);
        assert_eq!(
            list(dir.path(), &again, (&digest, size), 0, size).unwrap().1,
            whole
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn lists_stay_within_the_limit() {
        for size in [1u64 << 20, 1 << 30, 5 << 30, 100 << 30, MAX_DELTA] {
            let most = size / (average(size) / SPREAD) as u64 + 1;
            assert!(most <= u64::from(MAX_CHUNKS), "{size}");
        }
    }
}
