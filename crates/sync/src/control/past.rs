//! What a command asks about a folder's past, and the answers. The names of the answers' fields are those of the
//! commands' JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FolderRef, path_text};

/// What the command asks of a folder's past. A generation is named by its number, or by a unique prefix of its root
/// (at least 6 digits).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "past", rename_all = "snake_case")]
pub enum PastRequest {
    /// Answered with `Vec<LogEntry>`, or with `Vec<VersionEntry>` if a path is given.
    Log {
        /// Which folder.
        folder: FolderRef,
        /// How many at most.
        limit: Option<usize>,
        /// Only the versions of what is at this path: absolute, or relative to the folder.
        #[serde(with = "path_text::option")]
        path: Option<PathBuf>,
    },
    /// Answered with `Vec<DiffEntry>`.
    Diff {
        /// Which folder.
        folder: FolderRef,
        /// The generation that is compared.
        from: String,
        /// With which; `None`: with now.
        to: Option<String>,
    },
    /// Answered with [`Restored`]; events with [`PastProgress`] on the way.
    Restore {
        /// Which folder.
        folder: FolderRef,
        /// The generation.
        generation: String,
        /// Absolute, or relative to the folder; none: everything.
        #[serde(with = "path_text::list")]
        paths: Vec<PathBuf>,
    },
    /// Answered with [`CheckedOut`]; events with [`PastProgress`] on the way.
    Checkout {
        /// Which folder.
        folder: FolderRef,
        /// The generation.
        generation: String,
        /// Where to, absolute; it must not exist, or be empty.
        #[serde(with = "path_text")]
        dir: PathBuf,
    },
    /// Keeps a generation from gc, or not any more. Answered with [`Pinned`].
    Pin {
        /// Which folder.
        folder: FolderRef,
        /// The generation.
        generation: String,
        /// Keep it, or not any more.
        keep: bool,
    },
    /// Answered with [`Collected`].
    Gc {
        /// Which folder; no name: all of them.
        folder: FolderRef,
        /// Generations of each folder to keep, the newest; `None`: as configured.
        keep: Option<u64>,
        /// Generations that are older than this many seconds go; `None`: as configured.
        older_than_secs: Option<u64>,
        /// Only tell.
        dry_run: bool,
    },
    /// Answered with [`Verified`]; events with [`VerifyProgress`] on the way.
    Verify {
        /// Which folder; no name: all of them.
        folder: FolderRef,
        /// Get good content for what is damaged.
        repair: bool,
    },
}

/// One generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number.
    pub generation: u64,
    /// Its root (64 hex digits).
    pub root: String,
    /// RFC 3339.
    pub time: String,
    /// `local`, `peer`, `restore` or `initial`.
    pub reason: String,
    /// Name of the device whose change it was.
    pub device: String,
    /// Files added since the one before.
    pub added: u64,
    /// Files changed.
    pub changed: u64,
    /// Files removed.
    pub removed: u64,
    /// `complete`: all content is on this device; `remote`: what is not here is on a connected device; `partial`:
    /// some is on neither.
    pub content: String,
    /// Kept from gc.
    pub pinned: bool,
}

/// One version of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionEntry {
    /// The first generation that had it.
    pub generation: u64,
    /// When that was (RFC 3339).
    pub time: String,
    /// Name of the device whose change it was.
    pub device: String,
    /// `file`, `symlink`, `dir` or `removed`.
    pub kind: String,
    /// Bytes of a file.
    pub size: u64,
    /// Of a file's content (64 hex digits), else empty.
    pub digest: String,
    /// As in [`LogEntry`], for this content.
    pub content: String,
}

/// One path that differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiffEntry {
    /// `added`, `modified`, `removed` or `renamed`.
    pub change: String,
    /// The path, relative to the folder; see [`crate::status::json_text`].
    pub path: Value,
    /// What it was called before, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
}

/// Answer to [`PastRequest::Restore`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The folder's name.
    pub folder: String,
    /// The generation that the folder was made into again.
    pub generation: u64,
    /// Paths that came back or got their old content.
    pub changed: u64,
    /// Paths that went.
    pub removed: u64,
    /// Paths that stay as they are: their content is on no device that is connected now.
    pub missing: Vec<Value>,
}

/// Answer to [`PastRequest::Checkout`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedOut {
    /// The generation.
    pub generation: u64,
    /// Its root (64 hex digits); what was written has it, if nothing is missing.
    pub root: String,
    /// Files and links that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be written: their content is on no device that is connected now.
    pub missing: Vec<Value>,
}

/// How far a restore or a checkout has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastProgress {
    /// Bytes fetched from other devices.
    pub fetched: u64,
    /// Files written, after that.
    pub files: u64,
}

/// Answer to [`PastRequest::Pin`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pinned {
    /// The folder's name.
    pub folder: String,
    /// The generation.
    pub generation: u64,
}

/// Answer to [`PastRequest::Gc`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Collected {
    /// Things that nothing needed: displaced versions, packed contents, tree nodes.
    pub removed_objects: u64,
    /// Bytes given back to the disk.
    pub freed_bytes: u64,
    /// Generations that are left, of the folders asked about.
    pub kept_generations: u64,
    /// Generations that went.
    pub removed_generations: u64,
}

/// Answer to [`PastRequest::Verify`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Things whose digests were compared: files, displaced versions, packed contents, tree nodes.
    pub checked: u64,
    /// What is damaged: files by their path relative to the folder (absolute, if several folders were asked for),
    /// displaced versions below `.alike`, packed contents and tree nodes as `packs#` or `alike.redb#` and their digest.
    pub damaged: Vec<Value>,
    /// What of it is good again.
    pub repaired: Vec<Value>,
    /// Names of folders that could not be looked at: their directories are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<String>,
}

/// How far a verification has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// Things compared so far.
    pub checked: u64,
    /// Bytes read so far.
    pub bytes: u64,
}
