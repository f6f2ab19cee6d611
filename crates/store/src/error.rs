//! What can go wrong in the store, said with the database's path and what to do. Never prints, never retries.

use std::io;
use std::path::{Path, PathBuf};

use alike_core::digest::Digest;
use alike_core::path::RelPath;

use crate::folders::FolderKey;

/// Why the store could not do what it was asked. Nothing of the failed transaction is kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the database open (or this one, twice).
    #[error(
        "the database {path} is in use by another process: stop that one first, or use another state directory"
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Others than its owner may enter the state directory.
    #[error("the state directory {path} is open to other users (mode {mode:03o}): run `chmod 700` on it")]
    Permissions {
        /// The state directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The database is of another version than this program writes.
    #[error("the database {path} has format version {found}, this program knows version {known}: {}", version_hint(*.found, *.known))]
    Version {
        /// The database.
        path: PathBuf,
        /// The version in the database.
        found: u64,
        /// The version that this program reads and writes.
        known: u64,
    },
    /// The database holds what this program never writes.
    #[error(
        "the database {path} is damaged ({what}): move it away, start again, and add the folders again: on a device that has \
         one, `sync share` it, and here `sync pair TICKET` into the directory as it is. No file of yours is in the database"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found, and where.
        what: String,
    },
    /// Little room is left on the database's file system: nothing was tried, so that the database stays whole.
    #[error("only {free} bytes are free for the database {path}: free some space, it goes on by itself")]
    NoRoom {
        /// The database.
        path: PathBuf,
        /// Bytes free on its file system.
        free: u64,
    },
    /// The room on the database's file system gave out in the middle of a transaction, of which nothing is kept.
    /// The database stays closed until opened again.
    #[error("no room left for the database {path}: free some space")]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// There is no such folder (any more).
    #[error("the database {path} has no folder with key {}", .folder.0)]
    NoFolder {
        /// The database.
        path: PathBuf,
        /// The folder asked for.
        folder: FolderKey,
    },
    /// A commit names a tree that is neither in it nor in the database: a mistake of the caller.
    #[error("refused to write to the database {path}: the tree {digest} that it would name is not there")]
    MissingTree {
        /// The database.
        path: PathBuf,
        /// The tree's digest.
        digest: Digest,
    },
    /// A commit names a path over the limits of [`RelPath::fits`]: a mistake of the caller.
    #[error("refused to write to the database {path}: a path of {} bytes is too long or too deep", .name.as_bytes().len())]
    PathLimit {
        /// The database.
        path: PathBuf,
        /// The path refused.
        name: RelPath,
    },
    /// The state directory or the database file could not be made or looked at.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database failed otherwise. After an I/O error it stays closed until opened again.
    #[error("the database {path} failed: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
}

impl StoreError {
    /// Did the database's medium fail, so that it has to be opened again before anything else works?
    pub fn needs_reopening(&self) -> bool {
        matches!(self, StoreError::Full { .. } | StoreError::Database { .. })
    }
}

fn version_hint(found: u64, known: u64) -> &'static str {
    if found > known {
        "update alike on this device"
    } else {
        "open it with the older alike that wrote it, or move it away and add the folders again"
    }
}

/// A [`StoreError`] that does not know its database's path yet.
#[derive(Debug)]
pub(crate) enum Fault {
    Database(Box<redb::Error>),
    Corrupt(String),
    Version(u64),
    NoFolder(FolderKey),
    MissingTree(Digest),
    PathLimit(RelPath),
}

impl Fault {
    /// Does redb do nothing more after this until it is opened again?
    pub(crate) fn ends_all(&self) -> bool {
        matches!(self, Fault::Database(e) if matches!(**e, redb::Error::Io(_) | redb::Error::PreviousIo))
    }

    /// The public error, of the database at `path`.
    pub(crate) fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Fault::Corrupt(what) => StoreError::Corrupt { path, what },
            Fault::Version(found) => StoreError::Version {
                path,
                found,
                known: crate::schema::VERSION,
            },
            Fault::NoFolder(folder) => StoreError::NoFolder { path, folder },
            Fault::MissingTree(digest) => StoreError::MissingTree { path, digest },
            Fault::PathLimit(name) => StoreError::PathLimit { path, name },
            Fault::Database(source) => match *source {
                redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                    StoreError::InUse { path }
                }
                redb::Error::Corrupted(what) => StoreError::Corrupt { path, what },
                redb::Error::UpgradeRequired(version) => StoreError::Corrupt {
                    path,
                    what: format!("redb file format {version}"),
                },
                // What redb says of a file that is no database of its own.
                redb::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => StoreError::Corrupt {
                    path,
                    what: e.to_string(),
                },
                redb::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => StoreError::Corrupt {
                    path,
                    what: "it names what is not in it".to_owned(),
                },
                redb::Error::Io(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                    ) =>
                {
                    StoreError::Full { path }
                }
                other => StoreError::Database {
                    path,
                    source: Box::new(other),
                },
            },
        }
    }
}

macro_rules! from_redb {
    ($($error:ident)*) => {$(
        impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Fault::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(StorageError TableError TransactionError CommitError DatabaseError);
