//! What is on disk (index), what is wanted there and not fetched yet (pending), what was begun (intents), and
//! where a blob's bytes are (blobs). Never looks at the disk.

use std::collections::HashSet;

use alike_core::digest::Digest;
use alike_core::ids::Dot;
use alike_core::observe::Mat;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, StoreError};
use crate::folders::FolderKey;
use crate::keys::{self, Span};
use crate::schema::{BLOBS, INDEX, INTENTS, PENDING, PENDING_TOTALS};
use crate::snapshot::Snapshot;
use crate::value;

/// What tells that a file was not touched since it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
}

impl Fingerprint {
    /// The same file, of the same size and with the same time of its last edit? What else tells of it changes with its
    /// mode, its names, and how many of those there are.
    pub fn is_same_edit(&self, other: &Fingerprint) -> bool {
        (self.ino, self.size, self.mtime_ns) == (other.ino, other.size, other.mtime_ns)
    }
}

/// MAT at one path, and what to recognise it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRow {
    /// What was put or seen there.
    pub mat: Mat,
    /// How it looked then; `None` = it must be looked at again.
    pub fingerprint: Option<Fingerprint>,
    /// Written too shortly before it was read for its times to prove anything: hash it again next time.
    pub racy: bool,
}

impl IndexRow {
    /// The digest of the file; `None` for what is no file.
    fn blob(&self) -> Option<Digest> {
        match self.mat.value {
            Value::File { digest, .. } => Some(digest),
            Value::Dir | Value::Symlink { .. } => None,
        }
    }
}

/// An operation on one path that is about to be done on disk; redone or dropped after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Where.
    pub path: RelPath,
    /// What is there before; `None` = nothing.
    pub before: Option<Mat>,
    /// How that looks, if it was looked at.
    pub before_fingerprint: Option<Fingerprint>,
    /// What shall be there; `None` = nothing.
    pub after: Option<Value>,
    /// The exec bit it shall have.
    pub after_exec: bool,
    /// The records that it will be the materialisation of.
    pub dots: Vec<Dot>,
    /// Name of the temporary file in `.alike/tmp`, if one is used.
    pub temp: Option<Vec<u8>>,
}

/// Rows in key order; rows of one path stay in the order given, so that the last one wins.
fn sorted<T>(rows: &[T], path: impl Fn(&T) -> &RelPath) -> Result<Vec<&T>, Fault> {
    let mut order = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let path = path(row);
        if !path.fits() {
            return Err(Fault::PathLimit(path.clone()));
        }
        order.push((keys::parts(path), at));
    }
    order.sort_unstable();
    Ok(order.into_iter().map(|(_, at)| &rows[at]).collect())
}

/// Removes, then puts index rows, and keeps the blobs table exact.
pub(crate) fn change_index(
    tx: &WriteTransaction,
    folder: FolderKey,
    remove: &[RelPath],
    put: &[(RelPath, IndexRow)],
) -> Result<(), Fault> {
    let mut table = tx.open_table(INDEX)?;
    let mut moves: Vec<Move<'_>> = Vec::new();
    let (mut key, mut buffer) = (Vec::new(), Vec::new());
    for path in sorted(remove, |p| p)? {
        keys::path_key_into(folder, path, &mut key);
        if let Some(old) = table.remove(key.as_slice())? {
            moves.extend(old_blob(old.value())?.map(|digest| (digest, path, false)));
        }
    }
    for (path, row) in sorted(put, |p| &p.0)? {
        keys::path_key_into(folder, path, &mut key);
        value::encode_into(row, &mut buffer);
        let old = match table.insert(key.as_slice(), buffer.as_slice())? {
            Some(old) => old_blob(old.value())?,
            None => None,
        };
        let new = row.blob();
        if old != new {
            moves.extend(old.map(|digest| (digest, path, false)));
            moves.extend(new.map(|digest| (digest, path, true)));
        }
    }
    move_blobs(tx, folder, moves)
}

/// A blob that is at a path now (`true`), or is not any more.
type Move<'a> = (Digest, &'a RelPath, bool);

fn old_blob(bytes: &[u8]) -> Result<Option<Digest>, Fault> {
    Ok(value::decode::<IndexRow>("index", bytes)?.blob())
}

fn move_blobs(tx: &WriteTransaction, folder: FolderKey, mut moves: Vec<Move<'_>>) -> Result<(), Fault> {
    if moves.is_empty() {
        return Ok(());
    }
    // Stable: of several moves of one blob at one path the last one counts.
    moves.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut table = tx.open_table(BLOBS)?;
    let mut key = Vec::new();
    for (at, (digest, path, here)) in moves.iter().enumerate() {
        if moves
            .get(at + 1)
            .is_some_and(|next| (next.0, next.1) == (*digest, path))
        {
            continue;
        }
        keys::blob_key_into(digest, folder, path, &mut key);
        if *here {
            table.insert(key.as_slice(), ())?;
        } else {
            table.remove(key.as_slice())?;
        }
    }
    Ok(())
}

/// Removes, then puts pending rows, and keeps the totals exact.
pub(crate) fn change_pending(
    tx: &WriteTransaction,
    folder: FolderKey,
    remove: &[RelPath],
    put: &[(RelPath, u64)],
) -> Result<(), Fault> {
    let mut table = tx.open_table(PENDING)?;
    let mut totals = tx.open_table(PENDING_TOTALS)?;
    let before = totals.get(folder.0)?.map(|t| t.value()).unwrap_or_default();
    let (mut files, mut bytes) = before;
    let wrong = || Fault::Corrupt("the totals of table pending are too small".to_owned());
    let mut key = Vec::new();
    for path in sorted(remove, |p| p)? {
        keys::path_key_into(folder, path, &mut key);
        if let Some(old) = table.remove(key.as_slice())? {
            files = files.checked_sub(1).ok_or_else(wrong)?;
            bytes = bytes.checked_sub(old.value().into()).ok_or_else(wrong)?;
        }
    }
    for (path, size) in sorted(put, |p| &p.0)? {
        keys::path_key_into(folder, path, &mut key);
        match table.insert(key.as_slice(), size)? {
            Some(old) => bytes = bytes.checked_sub(old.value().into()).ok_or_else(wrong)?,
            None => files += 1,
        }
        bytes += u128::from(*size);
    }
    if (files, bytes) != before {
        totals.insert(folder.0, (files, bytes))?;
    }
    Ok(())
}

/// Removes, then puts intents.
pub(crate) fn change_intents(
    tx: &WriteTransaction,
    folder: FolderKey,
    remove: &[RelPath],
    put: &[Intent],
) -> Result<(), Fault> {
    let mut table = tx.open_table(INTENTS)?;
    let (mut key, mut buffer) = (Vec::new(), Vec::new());
    for path in sorted(remove, |p| p)? {
        keys::path_key_into(folder, path, &mut key);
        table.remove(key.as_slice())?;
    }
    for intent in sorted(put, |i| &i.path)? {
        keys::path_key_into(folder, &intent.path, &mut key);
        value::encode_into(intent, &mut buffer);
        table.insert(key.as_slice(), buffer.as_slice())?;
    }
    Ok(())
}

impl Snapshot {
    /// What was put or seen at `path`.
    pub fn index(&self, folder: FolderKey, path: &RelPath) -> Result<Option<IndexRow>, StoreError> {
        self.run(|| {
            let row = self.index.get(keys::path_key(folder, path).as_slice())?;
            row.map(|bytes| value::decode("index", bytes.value())).transpose()
        })
    }

    /// The direct members of `dir`, sorted by name.
    pub fn index_dir(&self, folder: FolderKey, dir: &RelPath) -> Result<Vec<(Name, IndexRow)>, StoreError> {
        self.run(|| {
            let mut rows = Vec::new();
            for row in self.index.range::<&[u8]>(Span::members(folder, dir).bounds())? {
                let (key, bytes) = row?;
                rows.push((
                    keys::name_of(key.value(), dir)?,
                    value::decode("index", bytes.value())?,
                ));
            }
            Ok(rows)
        })
    }

    /// Everything in `dir` at any depth, without `dir` itself. Sorted by (directory, name): parents come before
    /// what is in them.
    pub fn index_below(
        &self,
        folder: FolderKey,
        dir: &RelPath,
    ) -> Result<Vec<(RelPath, IndexRow)>, StoreError> {
        self.run(|| {
            let mut rows = Vec::new();
            for span in Span::below(folder, dir) {
                for row in self.index.range::<&[u8]>(span.bounds())? {
                    let (key, bytes) = row?;
                    rows.push((
                        keys::path_of(key.value())?,
                        value::decode("index", bytes.value())?,
                    ));
                }
            }
            Ok(rows)
        })
    }

    /// At most `limit` rows, sorted by (directory, name), strictly after `after`.
    pub fn index_after(
        &self,
        folder: FolderKey,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, IndexRow)>, StoreError> {
        self.run(|| {
            let span = match after {
                Some(path) => Span::after(folder, path),
                None => Span::folder(folder),
            };
            let mut rows = Vec::new();
            for row in self.index.range::<&[u8]>(span.bounds())?.take(limit) {
                let (key, bytes) = row?;
                rows.push((
                    keys::path_of(key.value())?,
                    value::decode("index", bytes.value())?,
                ));
            }
            Ok(rows)
        })
    }

    /// The rows of files with these inode numbers. Reads all rows of the folder.
    pub fn index_of_inodes(
        &self,
        folder: FolderKey,
        inodes: &HashSet<u64>,
    ) -> Result<Vec<IndexRow>, StoreError> {
        self.run(|| {
            let mut rows = Vec::new();
            for row in self.index.range::<&[u8]>(Span::folder(folder).bounds())? {
                let row: IndexRow = value::decode("index", row?.1.value())?;
                if row.fingerprint.is_some_and(|print| inodes.contains(&print.ino)) {
                    rows.push(row);
                }
            }
            Ok(rows)
        })
    }

    /// At most `limit` pending paths and their bytes, sorted by (directory, name), strictly after `after`.
    pub fn pending(
        &self,
        folder: FolderKey,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, u64)>, StoreError> {
        self.run(|| {
            let span = match after {
                Some(path) => Span::after(folder, path),
                None => Span::folder(folder),
            };
            let mut rows = Vec::new();
            for row in self.pending.range::<&[u8]>(span.bounds())?.take(limit) {
                let (key, bytes) = row?;
                rows.push((keys::path_of(key.value())?, bytes.value()));
            }
            Ok(rows)
        })
    }

    /// The pending paths in `dir` at any depth, without `dir` itself.
    pub fn pending_below(&self, folder: FolderKey, dir: &RelPath) -> Result<Vec<RelPath>, StoreError> {
        self.run(|| {
            let mut paths = Vec::new();
            for span in Span::below(folder, dir) {
                for row in self.pending.range::<&[u8]>(span.bounds())? {
                    paths.push(keys::path_of(row?.0.value())?);
                }
            }
            Ok(paths)
        })
    }

    /// Number of pending paths and their bytes, without counting them. Bytes end at `u64::MAX`.
    pub fn pending_total(&self, folder: FolderKey) -> Result<(u64, u64), StoreError> {
        self.run(|| {
            let total = self.pending_totals.get(folder.0)?.map(|row| row.value());
            let (files, bytes) = total.unwrap_or_default();
            Ok((files, u64::try_from(bytes).unwrap_or(u64::MAX)))
        })
    }

    /// Is `path` pending?
    pub fn is_pending(&self, folder: FolderKey, path: &RelPath) -> Result<bool, StoreError> {
        self.run(|| {
            Ok(self
                .pending
                .get(keys::path_key(folder, path).as_slice())?
                .is_some())
        })
    }

    /// All operations that were begun.
    pub fn intents(&self, folder: FolderKey) -> Result<Vec<Intent>, StoreError> {
        self.run(|| {
            let mut intents = Vec::new();
            for row in self.intents.range::<&[u8]>(Span::folder(folder).bounds())? {
                intents.push(value::decode("intents", row?.1.value())?);
            }
            Ok(intents)
        })
    }

    /// At most `limit` places where the index has a file with this content, in any folder.
    pub fn blob_places(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<(FolderKey, RelPath)>, StoreError> {
        self.run(|| {
            let mut places = Vec::new();
            for row in self
                .blobs
                .range::<&[u8]>(Span::blob(digest).bounds())?
                .take(limit)
            {
                places.push(keys::blob_place(row?.0.value())?);
            }
            Ok(places)
        })
    }
}
