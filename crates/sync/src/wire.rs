//! Frames on a stream: a length, then that many bytes, never more than the limit. Never knows what is in them.

mod packed;

use std::time::Duration;

use alike_core::message::{self, Bounded, MAX_FRAME};
use iroh::endpoint::{RecvStream, SendStream};
use serde::Serialize;

pub(crate) use packed::{pack, read_part};

/// Why the wire failed. The connection is to be given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The stream or the connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side broke the protocol.
    #[error("the other device broke the protocol: {0}")]
    Protocol(String),
}

impl WireError {
    pub(crate) fn lost(error: impl std::fmt::Display) -> Self {
        WireError::Lost(error.to_string())
    }

    pub(crate) fn protocol(error: impl std::fmt::Display) -> Self {
        WireError::Protocol(error.to_string())
    }
}

/// Sends one message as a frame.
pub(crate) async fn send<T: Serialize>(stream: &mut SendStream, message: &T) -> Result<(), WireError> {
    let bytes = message::encode(message);
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame.extend_from_slice(&bytes);
    stream.write_all(&frame).await.map_err(WireError::lost)
}

/// Receives one message; `None` at a clean end of the stream.
pub(crate) async fn recv<T: Bounded>(stream: &mut RecvStream) -> Result<Option<T>, WireError> {
    let mut len = [0u8; 4];
    let mut have = 0;
    while have < len.len() {
        match stream.read(&mut len[have..]).await.map_err(WireError::lost)? {
            Some(n) => have += n,
            None if have == 0 => return Ok(None),
            None => return Err(WireError::Lost("the stream ended inside a message".into())),
        }
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(WireError::Protocol(format!("a message of {len} bytes")));
    }
    let bytes = read_vec(stream, len).await?;
    message::decode(&bytes).map(Some).map_err(WireError::protocol)
}

/// Reads exactly `len` bytes. The caller has checked `len` against a limit.
pub(crate) async fn read_vec(stream: &mut RecvStream, len: usize) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.map_err(WireError::lost)?;
    Ok(bytes)
}

/// An answer that does not go on for this long is given up: a stalled peer must not stall a folder.
const STALLED: Duration = Duration::from_secs(60);

/// The same for every part of an answer to a request.
pub(crate) async fn in_time<T>(read: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    match tokio::time::timeout(STALLED, read).await {
        Ok(result) => result,
        Err(_) => Err(WireError::lost("the answer does not go on")),
    }
}

/// Reads a little-endian `u32`.
pub(crate) async fn read_u32(stream: &mut RecvStream) -> Result<u32, WireError> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).await.map_err(WireError::lost)?;
    Ok(u32::from_le_bytes(bytes))
}
