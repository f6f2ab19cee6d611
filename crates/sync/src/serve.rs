//! Answers a peer's requests: tree nodes, small blobs, ranges of big ones, what is here. Serves only folders the peer is
//! granted, and only bytes that it has verified. Never changes anything.

mod parents;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use alike_core::digest::Digest;
use alike_core::ids::FolderId;
use alike_core::message::{MAX_NODE, MISSING, Request};
use alike_core::subtree::Subtree;
use alike_core::tree::Nodes;
use alike_store::Snapshot;
use bytes::Bytes;
use iroh::EndpointId;
use iroh::endpoint::{RecvStream, SendStream};
use tokio::sync::mpsc;

use crate::disk::Buffer;
use crate::failpoint::{may_fail, point};
use crate::folder::{Checked, FolderEvent, Inbox, Place, check};
use crate::outboard::{self, Outboard};
use crate::wire::{self, WireError};
use crate::{blobs, chunks};

use parents::Parents;

/// Blobs are read this many bytes ahead of the wire, in groups.
const READ_AHEAD: usize = 256 << 10;
/// Bytes of tree nodes that are compressed together.
const PACKED: usize = 1 << 20;
/// Groups waiting between the disk and the wire.
const GROUPS: usize = 16;

/// What is served to whom: written by the engine, read by request tasks.
#[derive(Debug, Default)]
pub(crate) struct Served(RwLock<ServedFolders>);

/// Folders and the devices that may ask for what is in them.
pub(crate) type ServedFolders = HashMap<FolderId, ServedFolder>;

/// A folder, who may ask, and whom to tell that a file is not what the index says.
#[derive(Clone, Debug)]
pub(crate) struct ServedFolder {
    pub(crate) place: Arc<Place>,
    pub(crate) devices: HashSet<EndpointId>,
    pub(crate) events: Inbox,
}

impl Served {
    pub(crate) fn replace(&self, table: ServedFolders) {
        *self.0.write().expect("the table's lock is never poisoned") = table;
    }

    fn folder(&self, id: &FolderId, device: &EndpointId) -> Option<ServedFolder> {
        let table = self.0.read().expect("the table's lock is never poisoned");
        table.get(id).filter(|f| f.devices.contains(device)).cloned()
    }
}

/// Answers one request stream.
pub(crate) async fn answer(
    device: EndpointId,
    mut send: SendStream,
    mut recv: RecvStream,
    served: &Served,
) -> Result<(), WireError> {
    let Some(request) = wire::recv::<Request>(&mut recv).await? else {
        return Ok(());
    };
    let folder = match &request {
        Request::Nodes { folder, .. }
        | Request::Blobs { folder, .. }
        | Request::Ranges { folder, .. }
        | Request::Have { folder, .. }
        | Request::Values { folder, .. }
        | Request::Chunks { folder, .. } => folder,
    };
    let Some(ServedFolder { place, events, .. }) = served.folder(folder, &device) else {
        // Not shared with this device, or paused: the stream's early end says "not from here".
        let _ = send.reset(0u32.into());
        return Ok(());
    };
    let (out, mut ready) = mpsc::channel::<Bytes>(GROUPS);
    let counted = place.clone();
    let counts = !matches!(request, Request::Nodes { .. } | Request::Have { .. });
    let produce = tokio::task::spawn_blocking(move || produce(&place, &events, request, &out));
    while let Some(bytes) = ready.recv().await {
        if counts {
            counted
                .traffic
                .sent
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        send.write_chunk(bytes).await.map_err(WireError::lost)?;
    }
    match produce.await.map_err(WireError::lost)? {
        Ok(()) => {
            let _ = send.finish();
        }
        Err(error) => {
            tracing::debug!("serving: {error}");
            let _ = send.reset(1u32.into());
        }
    }
    Ok(())
}

/// Content bytes, and what is told of content, since the engine started.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Reads what was asked for, on a blocking thread; `out` carries it to the wire.
fn produce(place: &Place, events: &Inbox, request: Request, out: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let snapshot = place.store.snapshot().map_err(io::Error::other)?;
    match request {
        Request::Nodes { nodes, .. } => {
            let mut group = Group::new(out).packed();
            let mut parents = Parents::default();
            for digest in nodes.iter().flat_map(|wanted| parents.named(&snapshot, wanted)) {
                point("serve.nodes");
                let node = match digest {
                    Some(digest) => snapshot.node(&digest).map_err(io::Error::other)?,
                    None => None,
                };
                group.put(node.as_deref().filter(|bytes| bytes.len() <= MAX_NODE))?;
            }
            group.flush()
        }
        Request::Blobs { digests, .. } => {
            let mut group = Group::new(out);
            for digest in digests {
                point("serve.blobs");
                let blob = blobs::read_small(place, &snapshot, &digest);
                if blob.is_none() {
                    suspect(place, &snapshot, &digest, events);
                }
                group.put(blob.as_deref())?;
            }
            group.flush()
        }
        Request::Have { digests, .. } => {
            let here = digests
                .iter()
                .map(|digest| u8::from(blobs::has(place, &snapshot, digest)));
            out.blocking_send(here.collect::<Vec<u8>>().into())
                .map_err(stopped)
        }
        Request::Ranges {
            digest, size, runs, ..
        } => {
            let found = send_ranges(place, &snapshot, (&digest, size), &runs, out)?;
            if !found {
                suspect(place, &snapshot, &digest, events);
            }
            Ok(())
        }
        Request::Values {
            digest,
            size,
            most,
            subtrees,
            ..
        } => send_values(place, &snapshot, (&digest, size), most, &subtrees, out),
        Request::Chunks {
            digest,
            size,
            start,
            len,
            ..
        } => send_chunks(place, &snapshot, (&digest, size), start, len, out),
    }
}

/// Length-prefixed things, gathered to chunks worth sending.
struct Group<'a> {
    bytes: Vec<u8>,
    /// So many at once.
    most: usize,
    packed: bool,
    out: &'a mpsc::Sender<Bytes>,
}

impl<'a> Group<'a> {
    fn new(out: &'a mpsc::Sender<Bytes>) -> Self {
        Group {
            bytes: Vec::new(),
            most: READ_AHEAD,
            packed: false,
            out,
        }
    }

    /// Each chunk is compressed.
    fn packed(mut self) -> Self {
        (self.most, self.packed) = (PACKED, true);
        self
    }

    fn put(&mut self, thing: Option<&[u8]>) -> io::Result<()> {
        let (len, bytes) = match thing {
            Some(bytes) => (bytes.len() as u32, bytes),
            None => (MISSING, &[][..]),
        };
        // Before it is too much: a buffer that has to grow is copied, and twice as large.
        if self.bytes.len() + 4 + bytes.len() > self.most {
            self.flush()?;
            self.bytes.reserve(self.most);
        }
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        may_fail("serve.part")?;
        let chunk = if self.packed { wire::pack(&bytes)? } else { bytes };
        self.out.blocking_send(chunk.into()).map_err(stopped)
    }
}

fn stopped<T>(_: T) -> io::Error {
    io::Error::other("the peer stopped listening")
}

/// A peer wants content that the index says is here, but is not: those files were changed and not looked at yet, or
/// they are damaged.
fn suspect(place: &Place, snapshot: &Snapshot, digest: &Digest, events: &Inbox) {
    for event in suspects(place, snapshot, digest) {
        // A full queue means that much is going on; the peer asks again.
        let _ = events.try_send(event);
    }
}

/// What is the matter with the files that should have this content.
pub(crate) fn suspects(place: &Place, snapshot: &Snapshot, digest: &Digest) -> Vec<FolderEvent> {
    let mut events = Vec::new();
    for (key, path) in snapshot.blob_places(digest, blobs::PLACES).unwrap_or_default() {
        let Ok(Some(row)) = snapshot.index(key, &path) else {
            continue;
        };
        // What could not be read may be by now.
        if key != place.key || (place.damaged.holds(&path) && !row.racy) {
            continue;
        }
        match check(place, &path, &row, &mut Buffer::new(), &mut |_| true) {
            Checked::Damaged(found) => events.push(FolderEvent::Damaged(path, Box::new(row), found)),
            Checked::Open => events.push(FolderEvent::Suspect(path)),
            Checked::Good | Checked::Stopped => {}
        }
    }
    events
}

/// A file that should have this content, and its outboard.
fn open_big(
    place: &Place,
    snapshot: &Snapshot,
    digest: &Digest,
    size: u64,
) -> io::Result<Option<(File, Outboard)>> {
    for file in blobs::files(place, snapshot, digest) {
        if file.metadata()?.len() == size
            && let Some(tree) = outboard::load_or_make(&place.outboards, &file, size, digest)?
        {
            return Ok(Some((file, tree)));
        }
    }
    Ok(None)
}

/// Says whether the answer follows.
fn say(follows: bool, out: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let byte: &[u8] = if follows { &[1] } else { &[0] };
    out.blocking_send(Bytes::from_static(byte)).map_err(stopped)
}

fn send_ranges(
    place: &Place,
    snapshot: &Snapshot,
    (digest, size): (&Digest, u64),
    runs: &[(u64, u64)],
    out: &mpsc::Sender<Bytes>,
) -> io::Result<bool> {
    let found = open_big(place, snapshot, digest, size)?;
    say(found.is_some(), out)?;
    let Some((file, tree)) = found else {
        return Ok(false);
    };
    let mut writer = ToWire {
        bytes: Vec::with_capacity(READ_AHEAD),
        out,
    };
    point("serve.range");
    let sent = outboard::encode(&file, &tree, &outboard::groups(runs), &mut writer);
    if sent
        .as_ref()
        .is_err_and(|e| e.kind() == io::ErrorKind::InvalidData)
    {
        // The file or the outboard is not what it was: hash the whole file again when next asked.
        outboard::forget(&place.outboards, digest);
    }
    sent.and_then(|_| io::Write::flush(&mut writer)).map(|()| true)
}

/// Inner hashes of a big blob. Whoever does not get them asks for all of it.
fn send_values(
    place: &Place,
    snapshot: &Snapshot,
    (digest, size): (&Digest, u64),
    most: u64,
    subtrees: &[Subtree],
    out: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let Some((_, tree)) = open_big(place, snapshot, digest, size)? else {
        return say(false, out);
    };
    say(true, out)?;
    let mut writer = ToWire {
        bytes: Vec::with_capacity(READ_AHEAD),
        out,
    };
    point("serve.values");
    for subtree in subtrees {
        let Some(values) = tree.values(*subtree, most)? else {
            outboard::forget(&place.outboards, digest);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a damaged outboard"));
        };
        io::Write::write_all(&mut writer, values.as_flattened())?;
    }
    io::Write::flush(&mut writer)
}

/// How a part of a big blob is cut.
fn send_chunks(
    place: &Place,
    snapshot: &Snapshot,
    (digest, size): (&Digest, u64),
    start: u64,
    len: u64,
    out: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let Some((file, _)) = open_big(place, snapshot, digest, size)? else {
        return say(false, out);
    };
    say(true, out)?;
    point("serve.chunks");
    let (first, entries) = chunks::list(&place.outboards, &file, (digest, size), start, len)?;
    let count = (entries.len() / chunks::ENTRY) as u32;
    let mut answer = Vec::with_capacity(12 + entries.len());
    answer.extend(first.to_le_bytes());
    answer.extend(count.to_le_bytes());
    answer.extend(entries);
    out.blocking_send(answer.into()).map_err(stopped)
}

/// Gathers small writes to chunks worth sending.
struct ToWire<'a> {
    bytes: Vec<u8>,
    out: &'a mpsc::Sender<Bytes>,
}

impl io::Write for ToWire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > READ_AHEAD {
            self.flush()?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(READ_AHEAD));
        if bytes.is_empty() {
            return Ok(());
        }
        may_fail("serve.part")?;
        self.out.blocking_send(bytes.into()).map_err(stopped)
    }
}
