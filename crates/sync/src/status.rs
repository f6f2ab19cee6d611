//! The shape of `sync status --json`: a contract (scripts rely on the names). Never computes anything.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything `sync status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// alike's version.
    pub version: String,
    /// This device.
    pub device: DeviceStatus,
    /// All folders, by name.
    pub folders: Vec<FolderStatus>,
    /// Bytes of small files' contents that are kept in the state directory, for all folders.
    #[serde(default)]
    pub packed_bytes: u64,
    /// What reading everything again in the background has come to.
    #[serde(default)]
    pub scrub: ScrubStatus,
}

/// What is read again and compared in the background, a little at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// In how many days everything is read once; `None`: only by `sync verify`.
    pub every_days: Option<f64>,
    /// When everything had been read last (RFC 3339); `None` if never.
    pub last_round: Option<String>,
    /// When the round began that is under way, or was last; `None` if none has.
    pub began: Option<String>,
    /// Things read since then.
    pub checked: u64,
}

/// Who this device is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its id (64 hex digits: its public key).
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderState {
    /// Everything is done.
    Idle,
    /// Looking at the disk.
    Scanning,
    /// Fetching or applying.
    Syncing,
    /// Paused by a person.
    Paused,
    /// A mass change waits for `sync accept` or `sync reject`.
    Held,
    /// The root is missing or is not the one that was shared: nothing is sent, nothing applied.
    Frozen,
    /// Cannot go on; see the problems.
    Error,
}

/// How much is left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Paths.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// Its id (hex).
    pub id: String,
    /// Its name.
    pub name: String,
    /// Absolute path; see [`json_text`] for one that is not UTF-8.
    pub path: Value,
    /// What it is doing.
    pub state: FolderState,
    /// 64 hex digits.
    pub root: String,
    /// Number of the newest generation.
    pub generation: u64,
    /// Files and symlinks.
    pub files: u64,
    /// Directories below the root.
    pub dirs: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What this device still has to fetch and apply.
    pub pending: Pending,
    /// Conflict copies.
    pub conflicts: u64,
    /// Are changes seen as they happen (`false`: by periodic scans only)?
    pub watching: bool,
    /// What is wrong, path by path.
    pub problems: Vec<ProblemStatus>,
    /// Content bytes received since the engine started.
    pub received_bytes: u64,
    /// Content bytes sent since the engine started.
    pub sent_bytes: u64,
    /// Bytes of earlier versions in `.alike/objects`, as counted a minute ago at most. Those that share bytes with a file
    /// are counted whole, unless all of them are in the folder.
    #[serde(default)]
    pub history_bytes: u64,
    /// The devices of this folder.
    pub peers: Vec<PeerStatus>,
}

/// One path that could not be synced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProblemStatus {
    /// Relative to the folder; see [`json_text`].
    pub path: Value,
    /// What is the matter.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

/// One device of a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id (hex).
    pub id: String,
    /// Its name.
    pub name: String,
    /// Is there a connection now?
    pub connected: bool,
    /// Does it have our root, on its disk?
    pub in_sync: bool,
    /// Its root (64 hex digits), empty if never heard.
    pub root: String,
    /// `direct`, `relay` or `none`.
    pub path: String,
    /// Round-trip time; `None` when not connected.
    pub rtt_ms: Option<f64>,
    /// `read-write` or `read-only`.
    pub access: String,
    /// What it still has to fetch and apply.
    pub pending: Pending,
    /// RFC 3339; `None` if never.
    pub last_seen: Option<String>,
}

/// A name as JSON: a string where it is UTF-8, otherwise `{"bytes":"hex"}`.
pub fn json_text(name: &[u8]) -> Value {
    match std::str::from_utf8(name) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => {
            let hex: String = name.iter().map(|b| format!("{b:02x}")).collect();
            serde_json::json!({ "bytes": hex })
        }
    }
}

/// A moment, given in milliseconds since 1970, as RFC 3339.
pub(crate) fn rfc3339(millis: u64) -> String {
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(time).to_string()
}
