//! `Digest`: the BLAKE3 name of a blob or a tree. Never computes over I/O; callers feed it bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 32 bytes of BLAKE3. For a file it is plain BLAKE3 of the content, so `b3sum` prints the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a blob that is in memory.
    pub fn of(content: &[u8]) -> Self {
        Digest(*blake3::hash(content).as_bytes())
    }

    /// A digest in another domain than file content: `key` separates the domains.
    pub(crate) fn keyed(key: &[u8; 32], content: &[u8]) -> Self {
        Digest(*blake3::keyed_hash(key, content).as_bytes())
    }

    /// Parses 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Digest(bytes))
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string()[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_other_text() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        assert_eq!(Digest::from_hex("af"), None);
        assert_eq!(Digest::from_hex(&"g".repeat(64)), None);
    }
}
