//! The local socket between the `sync` command and the engine: its requests, its replies, and the client.
//! Never decides anything; never used between devices.
//!
//! Wire form: one JSON object a line. The client sends one [`Request`]; the engine answers with any number
//! of [`Reply::Event`] lines and ends with exactly one [`Reply::Done`] or [`Reply::Failed`].

mod past;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::status::StatusReport;

pub use past::{
    CheckedOut, Collected, DiffEntry, LogEntry, PastProgress, PastRequest, Pinned, Restored, Verified,
    VerifyProgress, VersionEntry,
};

/// The socket's file name inside the state directory.
pub const SOCKET: &str = "control.sock";

/// What the command asks of the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Is anybody there? Answered with [`Pong`].
    Ping,
    /// Track `dir` (absolute path) if it is not tracked, without a ticket. Answered with [`Tracked`].
    Track {
        /// Absolute path of the directory.
        #[serde(with = "path_text")]
        dir: PathBuf,
        /// Name of the folder; default: the directory's name.
        name: Option<String>,
    },
    /// Track `dir` (absolute) if it is not tracked, and make a ticket. Answered with [`Shared`].
    Share {
        /// Absolute path of the directory.
        #[serde(with = "path_text")]
        dir: PathBuf,
        /// Name of the folder; default: the directory's name.
        name: Option<String>,
        /// The pairing device may only read.
        read_only: bool,
        /// Seconds until the ticket expires.
        expires_secs: u64,
        /// How many devices may use the ticket.
        uses: u32,
    },
    /// Pair with the device that made `ticket`. Answered with [`Paired`] once both sides know each other.
    Pair {
        /// The ticket's text.
        ticket: String,
        /// Absolute path; `None` = `default_parent` joined with the folder's name.
        #[serde(with = "path_text::option")]
        dir: Option<PathBuf>,
        /// The command's working directory (absolute).
        #[serde(with = "path_text")]
        default_parent: PathBuf,
    },
    /// Answered with a [`StatusReport`].
    Status,
    /// As `Status`, but one [`Reply::Event`] holding a [`StatusReport`] at every change (at most 5 a second);
    /// never done by itself.
    WatchStatus,
    /// One [`Reply::Event`] holding an [`Event`] for everything that happens; never done by itself.
    Events,
    /// Return when the folder is idle and every connected peer has the same root. Answered with [`Waited`].
    Wait {
        /// Which folder.
        folder: FolderRef,
        /// Give up after this many milliseconds.
        timeout_ms: u64,
    },
    /// Answered with `Vec<DeviceInfo>`.
    Devices,
    /// Forget a device; closes its connections at once. Answered with [`Named`].
    Unpair {
        /// Name or unique id prefix.
        device: String,
    },
    /// Stop tracking a folder, leaving every file where it is. Answered with [`Named`].
    Forget {
        /// Which folder.
        folder: FolderRef,
    },
    /// Answered with `Vec<ConflictInfo>`.
    Conflicts {
        /// Which folder.
        folder: FolderRef,
    },
    /// Settle one conflict copy. Answered with [`Resolved`].
    Resolve {
        /// Absolute path of the copy, or of its original if that has one copy only.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// What stays.
        keep: Keep,
    },
    /// Let a held mass removal through. Answered with [`Answered`].
    Accept {
        /// Which folder.
        folder: FolderRef,
    },
    /// Put back what a held mass removal took away. Answered with [`Answered`].
    Reject {
        /// Which folder.
        folder: FolderRef,
    },
    /// Pause a folder or a device. Answered with [`Named`].
    Pause {
        /// A folder or a device; `FolderRef { name: None, .. }` = the folder around cwd or the only one.
        target: FolderRef,
    },
    /// The reverse of `Pause`.
    Resume {
        /// As in `Pause`.
        target: FolderRef,
    },
    /// Answered with `Vec<TicketInfo>`.
    Tickets,
    /// Revoke a ticket. Answered with [`Named`].
    Revoke {
        /// The ticket's id or a unique prefix of it.
        ticket: String,
    },
    /// About a folder's past.
    Past(PastRequest),
    /// End the engine. `Done` is sent when everything is closed, just before the process exits.
    Stop,
}

/// How a person names a folder: by name, unique id prefix or path; nothing = around `cwd`, or the only one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FolderRef {
    /// What was typed.
    pub name: Option<String>,
    /// The command's working directory (absolute).
    #[serde(with = "path_text")]
    pub cwd: PathBuf,
}

/// One line from the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Something on the way to the end: progress, an event, a status.
    Event {
        /// What it is depends on the request.
        value: Value,
    },
    /// The end: it worked.
    Done {
        /// What it is depends on the request.
        value: Value,
    },
    /// The end: it did not. `message` says what, where and what to do.
    Failed {
        /// For a person to read.
        message: String,
        /// Only the wait ran out of time (exit code 3).
        timeout: bool,
    },
}

/// Answer to [`Request::Ping`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// The engine's version.
    pub version: String,
    /// The engine's process id.
    pub pid: u32,
}

/// Answer to [`Request::Track`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tracked {
    /// The folder's id (hex).
    pub folder_id: String,
    /// The folder's name.
    pub name: String,
    /// Where it is.
    #[serde(with = "path_text")]
    pub path: PathBuf,
}

/// Answer to [`Request::Share`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shared {
    /// The folder.
    pub folder: Tracked,
    /// The ticket's text, to be typed on the other device.
    pub ticket: String,
    /// The ticket's id, for `sync revoke`.
    pub ticket_id: String,
    /// When it expires (RFC 3339).
    pub expires: String,
    /// How many devices may use it.
    pub uses: u32,
}

/// Answer to [`Request::Pair`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paired {
    /// The folder as it is on this device.
    pub folder: Tracked,
    /// The other device's id (hex).
    pub device_id: String,
    /// The other device's name.
    pub device_name: String,
    /// `read-write` or `read-only`: what this device may do.
    pub access: String,
}

/// Answer to [`Request::Wait`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waited {
    /// The common root (64 hex digits).
    pub root: String,
    /// The folder's name.
    pub folder: String,
}

/// What stays of a conflict; the rest goes to the displaced versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What has the name.
    Original,
    /// The copy's content, under the original's name.
    Copy,
    /// Both, as two files like any others.
    Both,
}

/// One conflict copy. The names of the fields are those of `sync conflicts --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The copy, relative to the folder; see [`crate::status::json_text`].
    pub path: Value,
    /// What it is a copy of.
    pub original: Value,
    /// Of the copy's content (64 hex digits); of a link's target for a symbolic link.
    pub digest: String,
    /// Bytes of the copy.
    pub size: u64,
    /// When the copy's content was written (RFC 3339).
    pub time: String,
    /// Which device wrote it; empty if that is not known.
    pub device: String,
    /// What the original is now: `file`, `symlink`, `dir` or `gone`.
    pub original_kind: String,
    /// Bytes of the original.
    pub original_size: u64,
    /// When the original's content was written (RFC 3339); `None` if it is no file or link.
    pub original_time: Option<String>,
    /// Which device wrote it; empty if that is not known.
    pub original_device: String,
}

/// Answer to [`Request::Resolve`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolved {
    /// The copy that was settled, relative to the folder.
    pub copy: Value,
    /// What it was a copy of.
    pub original: Value,
}

/// Answer to [`Request::Accept`] and [`Request::Reject`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The folder's name.
    pub folder: String,
    /// What was held, in words.
    pub held: Vec<String>,
}

/// Answer to requests that act on one named thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    /// What it was: `folder`, `device`, `ticket`.
    pub kind: String,
    /// Its name (or id).
    pub name: String,
}

/// One device that this one is paired with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its id (hex).
    pub id: String,
    /// Its name.
    pub name: String,
    /// Is there a connection now?
    pub connected: bool,
    /// Is syncing with it paused?
    pub paused: bool,
    /// `direct`, `relay` or `none`.
    pub path: String,
    /// Last time it was seen (RFC 3339), if ever.
    pub last_seen: Option<String>,
    /// Names of the folders it takes part in.
    pub folders: Vec<String>,
}

/// A ticket that can still be used, or could be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketInfo {
    /// Its id (hex).
    pub id: String,
    /// The folder's name.
    pub folder: String,
    /// `read-write` or `read-only`.
    pub access: String,
    /// When it expires (RFC 3339).
    pub expires: String,
    /// Uses left.
    pub uses_left: u32,
}

/// One line of `sync watch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, with milliseconds.
    pub time: String,
    /// `started`, `scanned`, `changed`, `received`, `conflict`, `connected`, `disconnected`, `paired`,
    /// `in_sync`, `problem`, `stopped`.
    pub event: String,
    /// The folder's name, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The device's name, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// For a person to read.
    pub message: String,
}

/// Why a request did not get its `Done`.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no engine runs for {} (start one with `sync watch`, `sync share` or `sync pair`)", .0.display())]
    NoEngine(PathBuf),
    /// The engine refused or failed.
    #[error("{message}")]
    Failed {
        /// What, where, what to do.
        message: String,
        /// Only the wait ran out of time.
        timeout: bool,
    },
    /// The connection broke.
    #[error("the engine went away before it answered: {0}")]
    Broken(String),
}

/// Sends `request` to the engine of the state directory `home` and returns the value of its `Done`.
/// `on_event` sees each `Event` value as it arrives and may end the call early by returning `false`
/// (the result is then `Value::Null`).
pub fn call(
    home: &Path,
    request: &Request,
    mut on_event: impl FnMut(Value) -> bool,
) -> Result<Value, ClientError> {
    let mut stream = connect(home).map_err(|_| ClientError::NoEngine(home.to_path_buf()))?;
    let broken = |e: std::io::Error| ClientError::Broken(e.to_string());
    let mut line = serde_json::to_vec(request).expect("requests are plain data");
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(broken)?;
        match serde_json::from_str(&line).map_err(|e| ClientError::Broken(e.to_string()))? {
            Reply::Event { value } => {
                if !on_event(value) {
                    return Ok(Value::Null);
                }
            }
            Reply::Done { value } => return Ok(value),
            Reply::Failed { message, timeout } => return Err(ClientError::Failed { message, timeout }),
        }
    }
    Err(ClientError::Broken("connection closed".into()))
}

/// As [`call`], for requests whose answer has a known type and whose events do not matter.
pub fn ask<T: serde::de::DeserializeOwned>(home: &Path, request: &Request) -> Result<T, ClientError> {
    let value = call(home, request, |_| true)?;
    serde_json::from_value(value).map_err(|e| ClientError::Broken(e.to_string()))
}

/// The status of the engine of `home`.
pub fn status(home: &Path) -> Result<StatusReport, ClientError> {
    ask(home, &Request::Status)
}

/// Connects to the socket through a directory handle: the path of a state directory may be longer than the
/// 108 bytes that a socket address holds.
fn connect(home: &Path) -> std::io::Result<UnixStream> {
    let dir = std::fs::File::open(home)?;
    UnixStream::connect(socket_path(&dir))
}

/// A short path to the socket in the opened state directory; valid while `dir` is open.
pub(crate) fn socket_path(dir: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Paths on the wire: a string, or `{"bytes":"hex"}` for one that is not UTF-8 (serde itself refuses those).
mod path_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wire {
        Text(String),
        Bytes { bytes: String },
    }

    impl Wire {
        fn path<E: Error>(self) -> Result<PathBuf, E> {
            let hex = match self {
                Wire::Text(text) => return Ok(PathBuf::from(text)),
                Wire::Bytes { bytes } => bytes,
            };
            let digits = hex.as_bytes().chunks(2);
            let bytes: Option<Vec<u8>> = digits
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
                .collect();
            bytes
                .map(|b| OsString::from_vec(b).into())
                .ok_or_else(|| E::custom("a path's bytes are not hex"))
        }
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        crate::status::json_text(path.as_os_str().as_bytes()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Wire::deserialize(from)?.path()
    }

    pub(super) mod list {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            paths: &[PathBuf],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(
                paths
                    .iter()
                    .map(|p| crate::status::json_text(p.as_os_str().as_bytes())),
            )
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<PathBuf>, D::Error> {
            Vec::<Wire>::deserialize(from)?
                .into_iter()
                .map(Wire::path)
                .collect()
        }
    }

    pub(super) mod option {
        use super::*;

        pub(in super::super) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            path.as_ref()
                .map(|p| crate::status::json_text(p.as_os_str().as_bytes()))
                .serialize(to)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            Option::<Wire>::deserialize(from)?.map(Wire::path).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_path_that_is_not_utf8_survives_the_wire() {
        for name in [&b"/home/caf\xe9"[..], b"/plain"] {
            let dir = PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()));
            let request = Request::Pair {
                ticket: "t".into(),
                dir: Some(dir.clone()),
                default_parent: dir.clone(),
            };
            let line = serde_json::to_string(&request).expect("plain data");
            let Request::Pair {
                dir: Some(back),
                default_parent,
                ..
            } = serde_json::from_str(&line).expect("what was written")
            else {
                panic!("another request came back: {line}");
            };
            assert_eq!((back, default_parent), (dir.clone(), dir));
        }
    }
}
