//! Tests of outboards.

use std::os::unix::fs::FileExt;

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
        encode(
            &self.file,
            &self.outboard(),
            &touched(self.size(), start, len),
            &mut out,
        )?;
        Ok(out)
    }

    /// Decodes into a new file; the bytes written, how it ended, and the file's content.
    fn decode(&self, start: u64, len: u64, encoded: &[u8]) -> (u64, io::Result<()>, Vec<u8>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(self.size()).unwrap();
        let mut bytes = 0;
        let mut input = encoded;
        let mut wrote = |_, n| bytes += n;
        let end = decode(
            &self.digest,
            self.size(),
            &touched(self.size(), start, len),
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

/// The whole groups that a range touches.
fn touched(size: u64, start: u64, len: u64) -> ChunkRanges {
    let end = start.saturating_add(len).min(size);
    let runs = [(start / GROUP, end.div_ceil(GROUP).max(1))];
    if runs[0].0 >= runs[0].1 || (start >= size && size > 0) || (len == 0 && size > 0) {
        return ChunkRanges::empty();
    }
    groups(&runs)
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
        assert_eq!(bytes, size.div_ceil(GROUP).saturating_sub(1) * 64, "{size}");
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
                end.div_ceil(GROUP) - start / GROUP
            } else {
                0
            };
            assert!(
                bytes <= groups * GROUP && bytes >= end - start,
                "{size} {start} {len} {bytes}"
            );
        }
        assert_eq!(case.encode(size + GROUP, 1).unwrap(), b"");
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
        decode(
            &case.digest,
            case.size(),
            &touched(case.size(), at, 700_000),
            &mut input,
            &file,
            &mut |_, _| (),
        )
        .unwrap();
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
    let error = encode(
        &case.file,
        &case.outboard(),
        &touched(case.size(), 0, u64::MAX),
        &mut sent,
    )
    .unwrap_err();
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
                && bytes + 2 * GROUP + 2048 > at as u64 * 99 / 100 - 20_000.min(at as u64 * 99 / 100)
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
            decode(
                &case.digest,
                size,
                &groups(&all_groups(case.size())),
                &mut &encoded[..],
                &file,
                &mut |_, _| (),
            )
            .is_err(),
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

#[test]
fn values_are_those_of_the_content_and_verified() {
    for size in [MIB + 1, 5 * MIB + 17, 4 * MIB] {
        let case = case(size);
        let outboard = case.outboard();
        let whole = Subtree::whole(size);
        let value = |node: &Subtree| {
            let (start, len) = node.extent(size);
            subtree::value_of(&case.content[start as usize..(start + len) as usize], start)
        };
        for most in [1, 16, 64] {
            let all = outboard.values(whole, most).unwrap().unwrap();
            assert_eq!(all, whole.below(most).iter().map(value).collect::<Vec<_>>());
            assert!(whole.joins(most, &all, None, &case.digest));
            for node in whole.below(16) {
                let below = outboard.values(node, most).unwrap().unwrap();
                assert!(node.joins(most, &below, Some(&value(&node)), &case.digest));
            }
        }
        assert!(outboard.values(Subtree { first: 1, end: 3 }, 1).is_err());
        // One bit of a pair: nothing below it, and nothing that it is below of, is told.
        let path = path_of(case.dir.path(), &case.digest);
        let kept = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        kept.read_exact_at(&mut byte, 0).unwrap();
        kept.write_all_at(&[byte[0] ^ 1], 0).unwrap();
        assert_eq!(outboard.values(whole, 1).unwrap(), None);
        assert_eq!(outboard.values(Subtree { first: 0, end: 2 }, 1).unwrap(), None);
        assert!(
            outboard
                .values(Subtree { first: 2, end: 4 }, 1)
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn values_for_a_longer_file_are_of_what_is_full_here() {
    for size in [2 * MIB, 2 * MIB + 5] {
        let case = case(size);
        let outboard = case.outboard();
        let (whole, longer) = (Subtree { first: 0, end: 128 }, 6 * MIB);
        let first = &case.content[..2 << 20];
        assert_eq!(
            outboard.value_for(whole, longer).unwrap(),
            Some(subtree::value_of(first, 0))
        );
        assert_eq!(
            outboard
                .value_for(Subtree { first: 128, end: 129 }, longer)
                .unwrap(),
            None
        );
        assert_eq!(
            outboard
                .value_for(Subtree { first: 0, end: 256 }, longer)
                .unwrap(),
            None
        );
        let last = Subtree { first: 128, end: 129 };
        if last.is_of(size) {
            assert!(outboard.value_for(last, size).unwrap().is_some());
        }
    }
}

#[test]
fn zeros_leave_holes_and_overwrite_what_is_there() {
    use std::os::unix::fs::MetadataExt;
    let file = tempfile::tempfile().unwrap();
    file.set_len(MIB).unwrap();
    let mut bytes = vec![0; 5 * GROUP as usize];
    put(&file, &bytes, 0).unwrap();
    assert_eq!(file.metadata().unwrap().blocks(), 0);
    bytes[2 * GROUP as usize + 5] = 1;
    put(&file, &bytes, GROUP).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 <= 2 * GROUP);
    let mut read = vec![9; bytes.len()];
    file.read_exact_at(&mut read, GROUP).unwrap();
    assert_eq!(read, bytes);
    put(&file, &[0; 100], 3 * GROUP).unwrap();
    file.read_exact_at(&mut read[..100], 3 * GROUP).unwrap();
    assert_eq!(read[..100], [0; 100]);
    // At the end of the file they make it longer.
    put(&file, &[0; 100], MIB).unwrap();
    assert_eq!(file.metadata().unwrap().len(), MIB + 100);
}

/// Groups that are zero stay holes, whatever is around them, and what is around them is written at its place.
#[test]
fn holes_among_what_arrives_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let size = 4 * MIB + 17;
    let mut content = vec![0; size as usize];
    let mut fill = |groups: std::ops::Range<u64>| {
        for at in groups.start * GROUP..(groups.end * GROUP).min(size) {
            content[at as usize] = (at % 251) as u8 + 1;
        }
    };
    // More than is written at once; single ones; the short last one.
    for groups in [1..70, 71..72, 73..74, 200..256, 256..257] {
        fill(groups);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let case = Case {
        dir: tempfile::tempdir().unwrap(),
        file,
        digest: Digest::of(&content),
        content,
    };
    let runs = [(0, 72), (74, 76), (100, 230), (250, 257)];
    let (groups, mut encoded) = (groups(&runs), Vec::new());
    encode(&case.file, &case.outboard(), &groups, &mut encoded).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let mut wrote = Vec::new();
    decode(
        &case.digest,
        size,
        &groups,
        &mut &encoded[..],
        &file,
        &mut |at, len| {
            wrote.push((at, at + len));
        },
    )
    .unwrap();
    assert!(wrote.is_sorted());
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (at, end) in wrote {
        match joined.last_mut() {
            Some(last) if last.1 == at => last.1 = end,
            _ => joined.push((at, end)),
        }
    }
    assert_eq!(
        joined,
        runs.map(|(first, end)| (first * GROUP, (end * GROUP).min(size)))
    );
    let mut read = vec![0; size as usize];
    file.read_exact_at(&mut read, 0).unwrap();
    for (first, end) in runs {
        let range = (first * GROUP) as usize..((end * GROUP).min(size)) as usize;
        assert!(read[range.clone()] == case.content[range], "{first}");
    }
    let full = (1..70).len() + 1 + (200..230).len() + (250..257).len();
    assert!(file.metadata().unwrap().blocks() * 512 <= full as u64 * GROUP);
}

/// Gives so many bytes, then an error or nothing.
struct Broken(u64, Option<io::ErrorKind>);

impl Read for Broken {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return self.1.map_or(Ok(0), |kind| Err(kind.into()));
        }
        let n = self.0.min(out.len() as u64);
        self.0 -= n;
        out[..n as usize].fill(7);
        Ok(n as usize)
    }
}

#[test]
fn why_a_file_could_not_be_hashed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for given in [0, 1, MIB, 5 * MIB - 1] {
        for kind in [None, Some(io::ErrorKind::PermissionDenied)] {
            let error = hash_reader(&mut Broken(given, kind), 5 * MIB, Some(dir.path())).unwrap_err();
            let expected = kind.unwrap_or(io::ErrorKind::UnexpectedEof);
            assert_eq!(error.kind(), expected, "{given}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
    // That there is no room for the outboard, too; and nobody waits for what nobody reads.
    let full = |_: &mut dyn Read| Err::<(), _>(io::ErrorKind::StorageFull.into());
    let error = read_ahead(&mut Broken(64 * MIB, None), 64 * MIB, full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
