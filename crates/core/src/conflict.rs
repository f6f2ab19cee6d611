//! The closure over the records of one home path, and the names of conflict copies. Every device computes the
//! same, from the records alone: no time, device or counter is in it.

use crate::digest::Digest;
use crate::path::{MAX_NAME, Name};
use crate::record::{Record, Value};

/// What the names of conflict copies have in them, before the digits.
const MARK: &[u8] = b" (conflict ";

/// Settles the records of one home path. `has_children`: does anything live below the same name?
///
/// - an imported record goes when a newer record of the group replaced exactly its content;
/// - the newest content keeps the path, every other is relocated (for ever);
/// - if the name is also a directory, all contents are relocated.
pub fn close(records: &mut Vec<Record>, has_children: bool) {
    if records.len() > 1 {
        loop {
            let doomed: Vec<_> = records
                .iter()
                .filter(|r| {
                    r.imported
                        && r.value != Value::Dir
                        && records.iter().any(|f| {
                            f.value != Value::Dir && f.prev == r.value.key() && f.age_key() > r.age_key()
                        })
                })
                .map(|r| r.dot)
                .collect();
            if doomed.is_empty() {
                break;
            }
            records.retain(|r| !doomed.contains(&r.dot));
        }
    }
    let is_dir = has_children || records.iter().any(|r| r.value == Value::Dir);
    let keeps = records
        .iter()
        .filter(|r| r.value != Value::Dir && !r.relocated)
        .max_by_key(|r| r.age_key())
        .and_then(|r| r.value.key());
    for record in records
        .iter_mut()
        .filter(|r| r.value != Value::Dir && !r.relocated)
    {
        if is_dir || record.value.key() != keeps {
            record.relocated = true;
        }
    }
}

/// `stem (conflict <digits of the content's key>).ext`, cut to [`MAX_NAME`] bytes by shortening the stem.
/// `digits`: 8, or more on a clash, at most 64.
pub fn conflict_name(original: &Name, key: Digest, digits: usize) -> Name {
    let bytes = original.as_bytes();
    // A leading dot belongs to the stem; so does everything when the "extension" is implausibly long.
    let dot = bytes
        .iter()
        .rposition(|&b| b == b'.')
        .filter(|&at| at > 0 && bytes.len() - at <= 32);
    let (stem, ext) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let stem = without_mark(stem);
    let mark = format!(" (conflict {})", &key.to_hex()[..digits.min(64)]);
    let room = MAX_NAME - mark.len() - ext.len();
    let stem = cut_text(stem, room);
    Name::new(&[stem, mark.as_bytes(), ext].concat()).expect("a name with a mark in it is a name")
}

/// Can this be the name of a conflict copy? Every one of [`conflict_name`] can.
pub fn may_be_copy(name: &Name) -> bool {
    name.as_bytes().windows(MARK.len()).any(|w| w == MARK)
}

/// The stem of the original, if this is a conflict copy's.
fn without_mark(stem: &[u8]) -> &[u8] {
    let at = stem.windows(MARK.len()).rposition(|w| w == MARK);
    match at.map(|at| (at, &stem[at + MARK.len()..])) {
        Some((at, [digits @ .., b')']))
            if at > 0 && (8..=64).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit) =>
        {
            &stem[..at]
        }
        _ => stem,
    }
}

/// At most `room` bytes, not cutting a UTF-8 character in two.
fn cut_text(bytes: &[u8], room: usize) -> &[u8] {
    if bytes.len() <= room {
        return bytes;
    }
    let mut end = room;
    while end > room.saturating_sub(3) && (0x80..0xc0).contains(&bytes[end]) {
        end -= 1;
    }
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn conflict_names_keep_the_extension_and_fit() {
        let key = Digest::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        assert_eq!(
            conflict_name(&name("a.txt"), key, 8),
            name("a (conflict 01234567).txt")
        );
        assert_eq!(
            conflict_name(&name("Makefile"), key, 8),
            name("Makefile (conflict 01234567)")
        );
        assert_eq!(
            conflict_name(&name(".profile"), key, 8),
            name(".profile (conflict 01234567)")
        );
        assert_eq!(
            conflict_name(&name("a.tar.gz"), key, 16),
            name("a.tar (conflict 0123456789abcdef).gz")
        );
        for original in [
            "x".repeat(255),
            format!("{}.jpeg", "é".repeat(125)),
            format!("{}.{}", "a".repeat(150), "b".repeat(100)),
        ] {
            for digits in [8, 64] {
                let made = conflict_name(&name(&original), key, digits);
                assert!(made.as_bytes().len() <= 255);
                assert!(std::str::from_utf8(made.as_bytes()).is_ok());
                assert!(may_be_copy(&made));
            }
        }
    }
}
