//! Asking one peer: for the nodes of its state, for small blobs, for ranges of big ones. Everything is
//! verified as it arrives. Never decides what is wanted.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alike_core::digest::Digest;
use alike_core::ids::{FolderId, Vector};
use alike_core::message::{MAX_NODE, MAX_NODES, MAX_NODES_PART, MISSING, Request, SMALL_BLOB, Wanted};
use alike_core::path::MAX_DEPTH;
use alike_core::record::Record;
use alike_core::state::{self, StateEntry};
use alike_core::subtree::GROUP;
use alike_core::tree::{self, Node, Nodes, Overlay};
use alike_core::view::Summaries;
use alike_store::Store;
use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream};
use tokio::sync::mpsc;

use super::have::{Piece, add_run};
use super::weigh::Scales;
use crate::failpoint::point;
use crate::folder::Place;
use crate::outboard;
use crate::wire::{self, WireError};

/// Most bytes of new tree nodes taken in one pull (a folder of about 20 million files).
const MAX_STATE: usize = 2 << 30;
/// Chunks of a range that are handed over at once at most: a chunk is what one datagram brought.
const CHUNKS: usize = 128;
/// So often handed over, and waiting between the wire and the disk.
const WAITING: usize = 16;

/// The nodes of a peer's state that this device lacks.
pub(crate) type NewNodes = HashMap<Digest, Arc<[u8]>>;

/// A node of a peer's state, and how it can be named by one that is here already: whose child it is, and which one.
type Named = (Digest, Option<(Digest, u32)>);

/// Walks the peer's state tree from `root`, level by level, fetching what the store lacks. `ours`: the root of this device's.
pub(crate) async fn state(
    connection: &Connection,
    store: &Arc<Store>,
    (folder, ours): (FolderId, Option<Digest>),
    root: Option<Digest>,
    claimed: &Vector,
) -> Result<NewNodes, WireError> {
    let snapshot = store.snapshot().map_err(WireError::lost)?;
    let mut new = NewNodes::new();
    let mut dirs: HashSet<Digest> = root.into_iter().collect();
    let mut level: Vec<Named> = root.map(|root| (root, None)).into_iter().collect();
    let mut room = MAX_STATE;
    // A node that is here has all below it, unless a collection is half done or was cut off; a directory with a summary
    // even then.
    let half = snapshot.is_half_swept().map_err(WireError::lost)?;
    point("fetch.state");
    let mut rounds = 0;
    loop {
        let mut seen = HashSet::new();
        let (mut missing, mut doubtful) = (Vec::new(), Vec::new());
        for (digest, below) in level {
            if new.contains_key(&digest) || !seen.insert(digest) {
                continue;
            }
            if !snapshot.has_node(&digest).map_err(WireError::lost)? {
                missing.push((digest, below));
            } else if half && snapshot.summary(&digest).map_err(WireError::lost)?.is_none() {
                doubtful.push(digest);
            }
        }
        if missing.is_empty() && doubtful.is_empty() {
            break;
        }
        rounds += 1;
        // A directory takes one round, plus one for each level of its shards.
        if rounds > 4 * MAX_DEPTH {
            return Err(WireError::protocol("a tree that is too deep"));
        }
        level = Vec::new();
        let mut take = |digest: Digest, node: Arc<[u8]>| {
            let decoded = tree::decode::<StateEntry>(&node).map_err(WireError::protocol)?;
            let children = state::children(&decoded);
            if let Node::Leaf(entries) = decoded {
                if !entries.iter().all(|entry| is_covered(entry, claimed)) {
                    return Err(WireError::protocol(
                        "a write that its author has not claimed to have made",
                    ));
                }
                dirs.extend(&children);
            }
            level.extend((0..).zip(children).map(|(n, child)| (child, Some((digest, n)))));
            new.insert(digest, node);
            Ok(())
        };
        for digest in doubtful {
            let node = snapshot.node(&digest).map_err(WireError::lost)?;
            take(digest, node.expect("a snapshot does not change"))?;
        }
        for ask in missing.chunks(MAX_NODES) {
            for ((digest, _), node) in ask.iter().zip(nodes(connection, folder, ask, &mut room).await?) {
                take(*digest, node)?;
            }
            point("fetch.nodes");
        }
    }
    let mut all = Overlay::new(&snapshot);
    all.new = new;
    let mut scales = Scales::new(&all, &snapshot);
    if let Some(root) = root {
        scales.weigh(root, ours, 0)?;
    }
    for dir in dirs {
        scales.weigh(dir, None, 0)?;
    }
    Ok(all.new)
}

/// Was everything in an entry written by somebody who says so?
fn is_covered(entry: &StateEntry, seen: &Vector) -> bool {
    let covered =
        |record: &Record| seen.covers(record.dot) && record.exec.is_none_or(|mark| seen.covers(mark.dot));
    entry.records.iter().all(covered)
}

async fn nodes(
    connection: &Connection,
    folder: FolderId,
    ask: &[Named],
    room: &mut usize,
) -> Result<Vec<Arc<[u8]>>, WireError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::lost)?;
    wire::send(
        &mut send,
        &Request::Nodes {
            folder,
            nodes: wanted(ask),
        },
    )
    .await?;
    let _ = send.finish();
    let mut out = Vec::with_capacity(ask.len());
    let mut part = Vec::new();
    let mut rest = &part[..];
    for (digest, _) in ask {
        if rest.is_empty() {
            part = wire::read_part(&mut recv, MAX_NODES_PART).await?;
            rest = &part;
        }
        let node = one_node(&mut rest)?;
        *room = (*room)
            .checked_sub(node.len())
            .ok_or_else(|| WireError::protocol("a state that is too large"))?;
        if tree::node_digest::<StateEntry>(node) != *digest {
            return Err(WireError::protocol("a tree node that does not match its digest"));
        }
        out.push(node.into());
    }
    if !rest.is_empty() {
        return Err(WireError::protocol("more tree nodes than were asked for"));
    }
    Ok(out)
}

/// The request's form of these: children that follow each other are named by their parent.
fn wanted(ask: &[Named]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (digest, below) in ask {
        match (*below, wanted.last_mut()) {
            (
                Some((parent, n)),
                Some(Wanted::Below {
                    parent: last,
                    first,
                    count,
                }),
            ) if *last == parent && *first + *count == n => {
                *count += 1;
            }
            (Some((parent, first)), _) => wanted.push(Wanted::Below {
                parent,
                first,
                count: 1,
            }),
            (None, _) => wanted.push(Wanted::Node(*digest)),
        }
    }
    wanted
}

/// The next node of a part of an answer.
fn one_node<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let cut = || WireError::protocol("an answer that ends inside a tree node");
    let (len, after) = rest.split_first_chunk().ok_or_else(cut)?;
    let len = u32::from_le_bytes(*len);
    if len == MISSING {
        return Err(WireError::lost("the peer no longer has this state"));
    }
    if len as usize > MAX_NODE {
        return Err(WireError::protocol("a tree node over the limit"));
    }
    let (node, after) = after.split_at_checked(len as usize).ok_or_else(cut)?;
    *rest = after;
    Ok(node)
}

/// How many blobs of these sizes, from the first one, go into one request of so many blobs and bytes at most. At least one.
pub(super) fn in_one_request(sizes: impl Iterator<Item = u64>, (blobs, bytes): (usize, u64)) -> usize {
    let mut sum = 0;
    let fits = sizes.take(blobs).take_while(|size| {
        sum += size;
        sum <= bytes
    });
    fits.count().max(1)
}

/// Fetches small blobs on one stream, in order; `out` gets the index and the bytes (not verified yet), or
/// `None` for what the peer does not have.
pub(crate) async fn blobs(
    connection: &Connection,
    place: &Place,
    wants: &[(Digest, u64)],
    out: mpsc::Sender<(usize, Option<Vec<u8>>)>,
) -> Result<(), WireError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::lost)?;
    let digests = wants.iter().map(|w| w.0).collect();
    wire::send(
        &mut send,
        &Request::Blobs {
            folder: place.id,
            digests,
        },
    )
    .await?;
    let _ = send.finish();
    for (i, (_, size)) in wants.iter().enumerate() {
        let len = wire::in_time(wire::read_u32(&mut recv)).await?;
        if len == MISSING {
            let _ = out.send((i, None)).await;
            continue;
        }
        if u64::from(len) != *size || u64::from(len) > SMALL_BLOB {
            return Err(WireError::protocol("a blob of another size than its record says"));
        }
        let bytes = wire::in_time(wire::read_vec(&mut recv, len as usize)).await?;
        place
            .traffic
            .received
            .fetch_add(u64::from(len), Ordering::Relaxed);
        let _ = out.send((i, Some(bytes))).await;
    }
    Ok(())
}

/// Fetches runs of groups of a big blob into `file`, verified as they arrive; `arrived` gets those that are in it,
/// also where an error is the end. `false`: the peer does not have it.
pub(crate) async fn ranges(
    connection: &Connection,
    place: &Place,
    (digest, size): (Digest, u64),
    runs: Piece,
    file: std::fs::File,
    arrived: &mut Piece,
) -> Result<bool, WireError> {
    let groups = outboard::groups(&runs);
    let request = Request::Ranges {
        folder: place.id,
        digest,
        size,
        runs,
    };
    let Some(mut recv) = ask(connection, &request).await? else {
        return Ok(false);
    };
    let (chunks, ready) = mpsc::channel::<Vec<Bytes>>(WAITING);
    // Verifying and writing stay off the network's threads: a receiver that mixes them starves QUIC.
    let decode = tokio::task::spawn_blocking(move || {
        let mut reader = FromWire {
            chunk: Bytes::new(),
            chunks: Vec::new().into_iter(),
            ready,
        };
        let mut there = Vec::new();
        let mut wrote = |at: u64, len: u64| add_run(&mut there, at / GROUP, (at + len).div_ceil(GROUP));
        let end = outboard::decode(&digest, size, &groups, &mut reader, &file, &mut wrote);
        (there, end)
    });
    let sent = pass_on(&mut recv, chunks, place).await;
    let (there, end) = decode.await.map_err(WireError::lost)?;
    arrived.extend(there);
    match end {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(WireError::protocol(e)),
        // Of a stream that broke off, the reason is what counts.
        Err(e) => Err(sent.err().unwrap_or_else(|| WireError::lost(e))),
    }
}

/// Passes a stream's bytes on, up to its end or to that of the one who takes them: all that is there at once, for
/// waking him costs more than a chunk.
async fn pass_on(
    recv: &mut RecvStream,
    chunks: mpsc::Sender<Vec<Bytes>>,
    place: &Place,
) -> Result<(), WireError> {
    let mut some = [const { Bytes::new() }; CHUNKS];
    let mut read = async || {
        let read = recv.read_many_chunks(&mut some).await.map_err(WireError::lost)?;
        Ok(read.map(|n| some[..n].iter_mut().map(std::mem::take).collect::<Vec<_>>()))
    };
    while let Some(chunk) = wire::in_time(read()).await? {
        let bytes: usize = chunk.iter().map(Bytes::len).sum();
        place.traffic.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if chunks.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends a request whose answer begins with a byte that tells whether the rest follows; `None`: it does not.
pub(super) async fn ask(connection: &Connection, request: &Request) -> Result<Option<RecvStream>, WireError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::lost)?;
    wire::send(&mut send, request).await?;
    let _ = send.finish();
    let mut follows = [0];
    wire::in_time(async { recv.read_exact(&mut follows).await.map_err(WireError::lost) }).await?;
    Ok((follows[0] != 0).then_some(recv))
}

/// Which of these contents the peer has, in order; at most [`alike_core::message::MAX_HAVE`].
pub(crate) async fn have(
    connection: &Connection,
    folder: FolderId,
    digests: &[Digest],
) -> Result<Vec<bool>, WireError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(WireError::lost)?;
    let count = digests.len();
    let digests = digests.to_vec();
    wire::send(&mut send, &Request::Have { folder, digests }).await?;
    let _ = send.finish();
    let answer = wire::in_time(wire::read_vec(&mut recv, count)).await?;
    if answer.iter().any(|byte| *byte > 1) {
        return Err(WireError::protocol("an answer that is neither yes nor no"));
    }
    Ok(answer.into_iter().map(|byte| byte == 1).collect())
}

/// A blocking reader over chunks from the wire.
struct FromWire {
    chunk: Bytes,
    chunks: std::vec::IntoIter<Bytes>,
    ready: mpsc::Receiver<Vec<Bytes>>,
}

impl io::Read for FromWire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if let Some(chunk) = self.chunks.next() {
                self.chunk = chunk;
            } else if let Some(chunks) = self.ready.blocking_recv() {
                self.chunks = chunks.into_iter();
            } else {
                return Ok(0);
            }
        }
        let n = out.len().min(self.chunk.len());
        out[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_follow_each_other_are_one_request() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        let below = |parent, first, count| Wanted::Below { parent, first, count };
        let child = |parent, n: u32| (Digest::of(&n.to_le_bytes()), Some((parent, n)));
        let ask = [
            (c, None),
            child(a, 0),
            child(a, 1),
            child(a, 3),
            child(b, 4),
            child(b, 5),
        ];
        let expected = [Wanted::Node(c), below(a, 0, 2), below(a, 3, 1), below(b, 4, 2)];
        assert_eq!(wanted(&ask), expected);
        let count: usize = expected.iter().map(Wanted::count).sum();
        assert_eq!(count, ask.len());
    }

    #[test]
    fn a_node_is_taken_whole_or_not_at_all() {
        let part = [&3u32.to_le_bytes()[..], b"abc", &MISSING.to_le_bytes()].concat();
        let mut rest = &part[..];
        assert_eq!(one_node(&mut rest).unwrap(), b"abc");
        assert!(matches!(one_node(&mut rest), Err(WireError::Lost(_))));
        for cut in 0..7 {
            assert!(matches!(one_node(&mut &part[..cut]), Err(WireError::Protocol(_))));
        }
        let long = (MAX_NODE as u32 + 1).to_le_bytes();
        assert!(matches!(one_node(&mut &long[..]), Err(WireError::Protocol(_))));
    }
}
