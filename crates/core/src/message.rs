//! What devices say to each other: message types, their byte form (postcard in length-prefixed frames) and
//! their limits, which hold before anything is allocated. Never sends anything. See docs/protocol.md.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::claim::Claims;
use crate::digest::Digest;
use crate::ids::FolderId;
use crate::subtree::{GROUP, Subtree};

/// The protocol between paired devices.
pub const ALPN: &[u8] = b"alike/5";
/// The protocol by which a ticket's holder becomes a paired device.
pub const PAIR_ALPN: &[u8] = b"alike-pair/1";

/// Longest frame of a message.
pub const MAX_FRAME: usize = 1 << 20;
/// Longest tree node that is accepted from a peer: 1,024 entries with long names and a few versions each.
pub const MAX_NODE: usize = 8 << 20;
/// Longest part of an answer with nodes, before it is compressed.
pub const MAX_NODES_PART: usize = 2 * MAX_NODE;
/// Most nodes in one request for them.
pub const MAX_NODES: usize = 4096;
/// Most blobs in one request.
pub const MAX_BLOBS: usize = 1024;
/// Most digests in one question of what is here.
pub const MAX_HAVE: usize = 4096;
/// Blobs up to this size travel whole, many to a stream; bigger ones as verified ranges.
pub const SMALL_BLOB: u64 = 1 << 20;
/// Most runs of groups in one request for a big blob's content.
pub const MAX_RUNS: usize = 1024;
/// Most subtrees in one request for what is below them.
pub const MAX_SUBTREES: usize = 1024;
/// Most values in the answer: 2 MiB.
pub const MAX_VALUES: u64 = 65_536;
/// Most chunks in a list of them: 10 MiB.
pub const MAX_CHUNKS: u32 = 1 << 19;
/// Largest blob of which there are lists of chunks, and whose tree is compared with another version's.
pub const MAX_DELTA: u64 = 256 << 30;
/// Longest name of a device or a folder.
pub const MAX_LABEL: usize = 255;
/// Most replicas of which a state may know.
pub const MAX_REPLICAS: usize = 4096;

/// On the one control stream of a connection, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first message, both ways.
    Hello(Hello),
    /// A folder's state changed here, or the connection is new.
    Announce(Announce),
    /// The sender takes part in this folder from now on, and wants to hear the receiver's state.
    Ask(FolderId),
    /// Somebody waits for the folder: look at the disk, announce, then answer with [`Message::Flushed`].
    Flush {
        /// Which folder.
        folder: FolderId,
        /// To know the answer by.
        wait: u64,
    },
    /// Everything that was saved before the [`Message::Flush`] has been announced.
    Flushed {
        /// Which folder.
        folder: FolderId,
        /// As asked.
        wait: u64,
    },
    /// The sender no longer syncs this folder with the receiver (paused, forgotten).
    Withdraw(FolderId),
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Random, one a run of the engine: tells a restart from a second connection.
    pub boot: u64,
    /// The device's name.
    pub name: String,
}

/// A folder's state, as far as others need to know it before they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Which folder.
    pub folder: FolderId,
    /// Root of the state tree.
    pub state: Option<Digest>,
    /// What the state has seen, as the authors signed it.
    pub claims: Claims,
    /// The sender has looked at what the receiver claims on this connection. Before that nobody pulls from it: it
    /// might find that it was put back from a backup, and that its newest writes are under dots that were used before.
    pub heard: bool,
    /// Root of the content tree.
    pub root: Digest,
    /// Paths that are not on the sender's disk yet; at least 1 while the sender does not know what new rules of what
    /// is left out mean for its disk.
    pub pending_files: u64,
    /// Bytes that are not on the sender's disk yet.
    pub pending_bytes: u64,
    /// No more is known to come soon: the state is a generation of its own. What goes on belongs to one generation.
    pub settled: bool,
}

/// Tree nodes that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// One.
    Node(Digest),
    /// Children of one, in order, as [`children`](crate::state::children) has them: whoever has just got it need not name them all.
    Below {
        /// Whose.
        parent: Digest,
        /// From this one on.
        first: u32,
        /// So many; at least one.
        count: u32,
    },
}

impl Wanted {
    /// How many nodes.
    pub fn count(&self) -> usize {
        match self {
            Wanted::Node(_) => 1,
            Wanted::Below { count, .. } => *count as usize,
        }
    }
}

/// The first frame of a request stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// State tree nodes; answered in parts of at most [`MAX_NODES_PART`] bytes, compressed, in which they are in order, each
    /// `u32` length (little endian; [`MISSING`]) and bytes.
    Nodes {
        /// Of which folder.
        folder: FolderId,
        /// At most [`MAX_NODES`] in all.
        nodes: Vec<Wanted>,
    },
    /// Small blobs; answered in order, each `u32` length (little endian; [`MISSING`]) and bytes.
    Blobs {
        /// Of which folder.
        folder: FolderId,
        /// At most [`MAX_BLOBS`].
        digests: Vec<Digest>,
    },
    /// Parts of a big blob; answered by one byte (1 = follows, 0 = missing) and the bao encoding of them.
    Ranges {
        /// Of which folder.
        folder: FolderId,
        /// Which blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// First group of 16 KiB and the one behind the last, ascending, at most [`MAX_RUNS`].
        runs: Vec<(u64, u64)>,
    },
    /// Whose content is here? Answered by one byte a digest, in order: 1 = it is, 0 = it is not. Not a promise: whoever
    /// then asks for the content may hear otherwise.
    Have {
        /// Of which folder.
        folder: FolderId,
        /// At most [`MAX_HAVE`].
        digests: Vec<Digest>,
    },
    /// Inner hashes of a big blob; answered by one byte (1 = follows, 0 = missing) and the 32-byte values of the nodes of
    /// at most `most` groups below each subtree, in order. Each joins to the value that the asker knows already.
    Values {
        /// Of which folder.
        folder: FolderId,
        /// Which blob.
        digest: Digest,
        /// Its size; at most [`MAX_DELTA`].
        size: u64,
        /// Groups of a node in the answer at most.
        most: u64,
        /// At most [`MAX_SUBTREES`], each of more than `most` groups, with at most [`MAX_VALUES`] below them.
        subtrees: Vec<Subtree>,
    },
    /// How a part of a big blob is cut by content; answered by one byte (1 = follows, 0 = missing), the first chunk's offset
    /// (`u64`), the number of chunks (`u32`, at most [`MAX_CHUNKS`]), and for each its length (`u32`) and the first 16 bytes of
    /// its BLAKE3. A hint: it may be wrong.
    Chunks {
        /// Of which folder.
        folder: FolderId,
        /// Which blob.
        digest: Digest,
        /// Its size; at most [`MAX_DELTA`].
        size: u64,
        /// First byte.
        start: u64,
        /// Number of bytes.
        len: u64,
    },
}

/// In place of a length: the thing is not (or no longer) here.
pub const MISSING: u32 = u32::MAX;

/// From the ticket's holder, first on the pairing stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRequest {
    /// Which ticket.
    pub ticket: [u8; 8],
    /// Keyed hash of this connection's exported key material: proves the secret without telling it.
    pub proof: [u8; 32],
    /// The device's name.
    pub name: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairReply {
    /// Both are paired once the holder confirms by closing its side.
    Welcome {
        /// The device's name.
        name: String,
        /// The folder.
        folder: FolderId,
        /// Its name.
        folder_name: String,
        /// May the holder's changes come back?
        read_only: bool,
    },
    /// No.
    Refused(Refusal),
}

/// Why a ticket does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// All its uses are used up.
    #[error("the ticket has been used already; ask for a new one (`sync share`)")]
    Used,
    /// Its time is over.
    #[error("the ticket has expired; ask for a new one (`sync share`)")]
    Expired,
    /// Its maker took it back.
    #[error("the ticket has been revoked; ask for a new one (`sync share`)")]
    Revoked,
    /// Not known, or the proof is wrong.
    #[error("the other device does not know this ticket; ask for a new one (`sync share`)")]
    Unknown,
    /// Its folder is no longer tracked.
    #[error("the ticket's folder is no longer shared by the other device")]
    FolderGone,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not the byte form of this type.
    #[error("malformed message")]
    Malformed,
    /// Over a named limit.
    #[error("message over the limit of {0}")]
    Limit(&'static str),
}

/// Checked after decoding: postcard has bounded the allocation by the frame, this bounds the meaning.
pub trait Bounded: DeserializeOwned {
    /// Within the limits?
    fn check(&self) -> Result<(), MessageError>;
}

fn label(text: &str) -> Result<(), MessageError> {
    if text.len() > MAX_LABEL {
        Err(MessageError::Limit("names"))
    } else {
        Ok(())
    }
}

impl Message {
    /// The folder that it is about.
    pub fn folder(&self) -> Option<FolderId> {
        match self {
            Message::Hello(_) => None,
            Message::Announce(announce) => Some(announce.folder),
            Message::Ask(folder) | Message::Withdraw(folder) => Some(*folder),
            Message::Flush { folder, .. } | Message::Flushed { folder, .. } => Some(*folder),
        }
    }
}

impl Bounded for Message {
    fn check(&self) -> Result<(), MessageError> {
        match self {
            Message::Hello(hello) => label(&hello.name),
            Message::Announce(a) if a.claims.len() > MAX_REPLICAS => Err(MessageError::Limit("replicas")),
            Message::Announce(a) if a.claims.iter().any(|(_, claim)| claim.seq == 0 && !claim.ended) => {
                Err(MessageError::Malformed)
            }
            Message::Announce(_)
            | Message::Ask(_)
            | Message::Flush { .. }
            | Message::Flushed { .. }
            | Message::Withdraw(_) => Ok(()),
        }
    }
}

impl Bounded for Request {
    fn check(&self) -> Result<(), MessageError> {
        match self {
            Request::Nodes { nodes, .. }
                if nodes.iter().map(Wanted::count).fold(0, usize::saturating_add) > MAX_NODES =>
            {
                Err(MessageError::Limit("nodes"))
            }
            Request::Nodes { nodes, .. } if nodes.iter().any(|wanted| wanted.count() == 0) => {
                Err(MessageError::Malformed)
            }
            Request::Blobs { digests, .. } if digests.len() > MAX_BLOBS => Err(MessageError::Limit("blobs")),
            Request::Ranges { runs, .. } if runs.len() > MAX_RUNS => Err(MessageError::Limit("runs")),
            Request::Ranges { size, runs, .. } if !are_runs(runs, *size) => Err(MessageError::Malformed),
            Request::Values { size, .. } | Request::Chunks { size, .. } if *size > MAX_DELTA => {
                Err(MessageError::Limit("a blob's size"))
            }
            Request::Values { subtrees, .. } if subtrees.len() > MAX_SUBTREES => {
                Err(MessageError::Limit("subtrees"))
            }
            Request::Values {
                size, most, subtrees, ..
            } => {
                let asks = |node: &Subtree| node.is_of(*size) && node.groups() > *most;
                if *most == 0 || !subtrees.iter().all(asks) {
                    return Err(MessageError::Malformed);
                }
                let bound = subtrees.iter().map(|node| node.count(*most));
                if bound.fold(0, u64::saturating_add) > MAX_VALUES {
                    return Err(MessageError::Limit("values"));
                }
                Ok(())
            }
            Request::Chunks { size, start, len, .. }
                if *len == 0 || start.checked_add(*len).is_none_or(|end| end > *size) =>
            {
                Err(MessageError::Malformed)
            }
            Request::Have { digests, .. } if digests.len() > MAX_HAVE => Err(MessageError::Limit("digests")),
            Request::Nodes { .. }
            | Request::Blobs { .. }
            | Request::Ranges { .. }
            | Request::Have { .. }
            | Request::Chunks { .. } => Ok(()),
        }
    }
}

/// Are these ascending, apart from each other, and within a blob of `size`?
fn are_runs(runs: &[(u64, u64)], size: u64) -> bool {
    let mut last = 0;
    runs.iter().all(|(first, end)| {
        let fits = (*first >= last) && first < end;
        last = *end;
        fits
    }) && last <= size.div_ceil(GROUP)
}

impl Bounded for PairRequest {
    fn check(&self) -> Result<(), MessageError> {
        label(&self.name)
    }
}

impl Bounded for PairReply {
    fn check(&self) -> Result<(), MessageError> {
        match self {
            PairReply::Welcome {
                name, folder_name, ..
            } => label(name).and(label(folder_name)),
            PairReply::Refused(_) => Ok(()),
        }
    }
}

/// The bytes of a message, without its length.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("messages are plain data")
}

/// Reads a message; nothing may be left over.
pub fn decode<T: Bounded>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > MAX_FRAME {
        return Err(MessageError::Limit("frame"));
    }
    let (message, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| MessageError::Malformed)?;
    if !rest.is_empty() {
        return Err(MessageError::Malformed);
    }
    message.check()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_leftovers_are_refused() {
        let folder = FolderId([7; 16]);
        let request = Request::Nodes {
            folder,
            nodes: vec![Wanted::Node(Digest::of(b"x")); 3],
        };
        let bytes = encode(&request);
        assert_eq!(decode::<Request>(&bytes), Ok(request));
        assert!(decode::<Request>(&[&bytes[..], b"\0"].concat()).is_err());
        assert!(decode::<Request>(&bytes[..bytes.len() - 1]).is_err());
        let many = Request::Blobs {
            folder,
            digests: vec![Digest::of(b"x"); MAX_BLOBS + 1],
        };
        assert_eq!(
            decode::<Request>(&encode(&many)),
            Err(MessageError::Limit("blobs"))
        );
        let digest = Digest::of(b"x");
        let size = 1 << 20;
        let ranges = |runs: &[(u64, u64)]| {
            let runs = runs.to_vec();
            let request = Request::Ranges {
                folder,
                digest,
                size,
                runs,
            };
            decode::<Request>(&encode(&request)).is_ok()
        };
        assert!(ranges(&[(1, 2), (2, 3), (60, 64)]));
        for wrong in [
            &[(1, 1)][..],
            &[(0, 65)],
            &[(3, 4), (2, 3)],
            &[(0, 2), (1, 3)],
            &[(2, u64::MAX)],
        ] {
            assert!(!ranges(wrong), "{wrong:?}");
        }
        assert!(!ranges(&vec![(0, 1); MAX_RUNS + 1]));
        let values = |size, most, subtrees: &[Subtree]| {
            let subtrees = subtrees.to_vec();
            let request = Request::Values {
                folder,
                digest,
                size,
                most,
                subtrees,
            };
            decode::<Request>(&encode(&request)).is_ok()
        };
        let whole = Subtree::whole(size);
        assert!(values(size, 1, &[whole; 3]) && !values(size, 64, &[whole]));
        assert!(!values(size, 0, &[whole]) && !values(size, 1, &[Subtree { first: 1, end: 3 }]));
        assert!(!values(size, 1, &[whole; MAX_SUBTREES + 1]) && values(size, 1, &[whole; MAX_SUBTREES]));
        let huge = Subtree::whole(MAX_DELTA);
        assert!(!values(MAX_DELTA, 1, &[huge]) && values(MAX_DELTA, 1 << 20, &[huge]));
        assert!(!values(MAX_DELTA + 1, 1 << 20, &[Subtree::whole(MAX_DELTA + 1)]));
        let chunks = |start, len| {
            let request = Request::Chunks {
                folder,
                digest,
                size,
                start,
                len,
            };
            decode::<Request>(&encode(&request)).is_ok()
        };
        assert!(chunks(1, size - 1) && !chunks(1, size) && !chunks(0, 0) && !chunks(u64::MAX, 2));
        assert!(
            decode::<Message>(&encode(&Message::Hello(Hello {
                boot: 1,
                name: "x".repeat(256)
            })))
            .is_err()
        );
    }
}
