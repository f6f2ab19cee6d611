//! The byte-level grammar of stored and sent trees: minimal varints and length-checked reads. Decoding
//! rejects anything that encoding would not have written. Never allocates by a length it has not checked.

use crate::digest::Digest;
use crate::path::{Name, PathError};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Ends too early.
    #[error("the bytes end too early")]
    Short,
    /// Decodes, but is not what encoding writes.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    /// A name that is none.
    #[error("bad name: {0}")]
    Name(#[from] PathError),
    /// Over a named limit.
    #[error("over the limit: {0}")]
    Limit(&'static str),
}

/// Reads from a slice, front to back.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if self.0.len() < n {
            return Err(DecodeError::Short);
        }
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// LEB128, in its shortest form.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(DecodeError::NotCanonical("varint over 64 bits"));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::NotCanonical("varint is not minimal"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical("varint over 64 bits"))
    }

    /// Bytes with their length before them, at most `max`.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        if len > max as u64 {
            return Err(DecodeError::Limit(what));
        }
        self.take(len as usize)
    }

    /// A digest.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest(self.take(32)?.try_into().expect("took 32 bytes")))
    }

    /// A checked name.
    pub fn name(&mut self) -> Result<Name, DecodeError> {
        Ok(Name::new(self.bytes(crate::path::MAX_NAME, "name length")?)?)
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::NotCanonical("trailing bytes"))
        }
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Signed to unsigned, small magnitudes small.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_minimal() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.end(), Ok(()));
        }
        assert!(Reader(&[0x80, 0x00]).varint().is_err());
        assert!(Reader(&[0xff; 10]).varint().is_err());
        assert!(Reader(&[0x80]).varint().is_err());
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
