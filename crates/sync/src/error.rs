//! What can go wrong for the engine as a whole, told so that a person can act. Never about a single path of a
//! folder: that is a problem (data), not an error.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::disk::DiskError;

/// An operation of the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another engine runs on this state directory.
    #[error("another engine runs on the state directory {}; stop it (`sync stop`) or set ALIKE_HOME", .0.display())]
    InUse(PathBuf),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}: {reason}", path.display())]
    Home {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Displaced versions cannot be looked at, or not be removed.
    #[error("looking through the displaced versions of {} failed: {source}", path.display())]
    Displaced {
        /// The folder's root.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] alike_store::StoreError),
    /// A tree could not be read.
    #[error("the database is incomplete: {0}")]
    Tree(#[from] alike_core::tree::TreeError),
    /// Another engine syncs this very directory.
    #[error("{} is synced by another engine already, with another state directory", .0.display())]
    Taken(PathBuf),
    /// A folder's directory failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was moved could not be made durable: nobody knows what of it is on the disk.
    #[error("{}: making it durable failed: {source}", path.display())]
    NotDurable {
        /// The folder's root.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The address to listen on is taken or is none of ours.
    #[error("cannot listen on {addr}: {reason}; choose another with ALIKE_BIND=ADDR:PORT (port 0 = any)")]
    Bind {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The network could not be set up.
    #[error("cannot set up the network: {0}")]
    Network(String),
    /// A peer knows another history of some device than we do.
    #[error(
        "device {0}… was put back from a backup or copied, and a peer knows other writes of it than this device does: \
         nothing is taken from that peer for now"
    )]
    Parted(String),
    /// A peer counts writes that came after the end of their replica; it will hear of that end.
    #[error("the peer does not know yet that some writes have other names by now")]
    Void,
    /// A peer's state takes away so much that a person is asked first.
    #[error("{gone} of {files} files would go at once: held until `sync accept` or `sync reject`")]
    Held {
        /// Files that would go.
        gone: u64,
        /// Of so many.
        files: u64,
    },
    /// A request was refused; the text says what to do.
    #[error("{0}")]
    Refused(String),
}
