//! What one peer tells about a big file's new version: inner hashes, and lists of chunks. Never verifies, but for the limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::message::{MAX_CHUNKS, Request};
use alike_core::subtree::{Subtree, Value};
use iroh::endpoint::{Connection, RecvStream};

use super::delta::Teller;
use super::net;
use crate::chunks::{Chunk, ENTRY};
use crate::folder::Place;
use crate::wire::{self, WireError};

/// A peer that has to read a file to tell of its chunks may take this long to begin.
const PREPARES: Duration = Duration::from_secs(600);

/// A peer, asked about one file.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) place: Arc<Place>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Peer {
    async fn ask(&self, request: &Request) -> Result<Option<RecvStream>, WireError> {
        net::ask(&self.connection, request).await
    }

    async fn read(&self, from: &mut RecvStream, len: usize) -> Result<Vec<u8>, WireError> {
        let bytes = wire::in_time(wire::read_vec(from, len)).await?;
        let received = &self.place.traffic.received;
        received.fetch_add(len as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Teller for Peer {
    async fn values(&self, of: &[Subtree], most: u64) -> Result<Option<Vec<Vec<Value>>>, WireError> {
        let request = Request::Values {
            folder: self.place.id,
            digest: self.digest,
            size: self.size,
            most,
            subtrees: of.to_vec(),
        };
        let Some(mut answer) = self.ask(&request).await? else {
            return Ok(None);
        };
        let mut all = Vec::with_capacity(of.len());
        for node in of {
            // Bounded: whoever asks keeps to `MAX_VALUES`.
            let bytes = self.read(&mut answer, node.count(most) as usize * 32).await?;
            let values = bytes.as_chunks::<32>().0;
            all.push(values.to_vec());
        }
        Ok(Some(all))
    }

    async fn chunks(&self, start: u64, len: u64) -> Result<Option<(u64, Vec<Chunk>)>, WireError> {
        let request = Request::Chunks {
            folder: self.place.id,
            digest: self.digest,
            size: self.size,
            start,
            len,
        };
        let Some(mut answer) = self.ask(&request).await? else {
            return Ok(None);
        };
        let head = tokio::time::timeout(PREPARES, wire::read_vec(&mut answer, 12)).await;
        let head = head.map_err(WireError::lost)??;
        let first = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
        let count = u32::from_le_bytes(head[8..].try_into().expect("four bytes"));
        if count > MAX_CHUNKS {
            return Err(WireError::protocol("a list of too many chunks"));
        }
        let mut chunks = Vec::new();
        let mut left = count as usize;
        while left > 0 {
            // In parts, so that no more is allocated than comes.
            let part = left.min(4096);
            let bytes = self.read(&mut answer, part * ENTRY).await?;
            chunks.extend(bytes.as_chunks::<ENTRY>().0.iter().map(Chunk::from_entry));
            left -= part;
        }
        Ok(Some((first, chunks)))
    }
}
