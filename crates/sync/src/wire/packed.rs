//! Parts of an answer, compressed: tree nodes repeat much of each other. Each part says how long it is and was, so that
//! nothing is allocated that is over the limit. Never knows what is in them.

use std::io;

use iroh::endpoint::RecvStream;

use super::{WireError, in_time, read_u32, read_vec};

/// How hard zstd tries: its usual level.
const LEVEL: i32 = 3;

/// The form in which a part is sent: its length, the length of what follows (`u32`, little endian), and that. It is as it was
/// where packing does not make it shorter.
pub(crate) fn pack(part: &[u8]) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(part, LEVEL)?;
    let sent = if packed.len() < part.len() { &packed } else { part };
    let mut out = Vec::with_capacity(8 + sent.len());
    for len in [part.len(), sent.len()] {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(sent);
    Ok(out)
}

/// Receives a part of at most `limit` bytes.
pub(crate) async fn read_part(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, WireError> {
    let len = in_time(read_u32(stream)).await? as usize;
    let sent = in_time(read_u32(stream)).await? as usize;
    if len > limit || sent > len {
        return Err(WireError::protocol("a part of an answer that is over the limit"));
    }
    let bytes = in_time(read_vec(stream, sent)).await?;
    unpack(bytes, len)
}

fn unpack(bytes: Vec<u8>, len: usize) -> Result<Vec<u8>, WireError> {
    if bytes.len() == len {
        return Ok(bytes);
    }
    let part = zstd::bulk::decompress(&bytes, len).map_err(WireError::protocol)?;
    if part.len() == len {
        Ok(part)
    } else {
        Err(WireError::protocol(
            "a part of an answer of another length than it says",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(sent: &[u8]) -> Result<Vec<u8>, WireError> {
        let len = |at: usize| u32::from_le_bytes(sent[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(len(4), sent.len() - 8);
        unpack(sent[8..].to_vec(), len(0))
    }

    #[test]
    fn a_part_comes_back_as_it_was() {
        let noise: Vec<u8> = (0..1000u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..8].to_vec())
            .collect();
        for part in [&b""[..], b"a", &[7; 100_000], &noise] {
            let sent = pack(part).unwrap();
            assert!(sent.len() <= 8 + part.len());
            assert_eq!(unpacked(&sent).unwrap(), part);
        }
        assert!(pack(&[7; 100_000]).unwrap().len() < 100);
    }

    #[test]
    fn what_is_not_as_long_as_it_says_is_refused() {
        let sent = pack(&[7; 100_000]).unwrap();
        for len in [99_999, 100_001] {
            assert!(matches!(
                unpack(sent[8..].to_vec(), len),
                Err(WireError::Protocol(_))
            ));
        }
        assert!(matches!(
            unpack(b"no zstd".to_vec(), 100),
            Err(WireError::Protocol(_))
        ));
    }
}
