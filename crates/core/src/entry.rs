//! One entry of a content tree: what the root digest is made of. Content, name and exec bit; no times, no
//! devices, no causality.

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::digest::Digest;
use crate::path::{MAX_PATH, Name};
use crate::tree::Item;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// BLAKE3 of its content.
        digest: Digest,
        /// Bytes.
        size: u64,
        /// Executable by its owner.
        exec: bool,
    },
    /// A directory.
    Dir {
        /// Digest of its content tree.
        digest: Digest,
    },
    /// A symbolic link; never followed.
    Symlink {
        /// Where it points, as written.
        target: Box<[u8]>,
    },
}

/// A named [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEntry {
    /// The name in its directory.
    pub name: Name,
    /// What it stands for.
    pub entry: Entry,
}

const FILE: u8 = 0;
const FILE_EXEC: u8 = 1;
const DIR: u8 = 2;
const SYMLINK: u8 = 3;

impl Item for NamedEntry {
    const KEY: &'static [u8; 32] = b"alike content tree, version 1   ";

    fn name(&self) -> &Name {
        &self.name
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        match &self.entry {
            Entry::File { digest, size, exec } => {
                out.push(if *exec { FILE_EXEC } else { FILE });
                out.extend_from_slice(&digest.0);
                put_varint(out, *size);
            }
            Entry::Dir { digest } => {
                out.push(DIR);
                out.extend_from_slice(&digest.0);
            }
            Entry::Symlink { target } => {
                out.push(SYMLINK);
                put_bytes(out, target);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = reader.name()?;
        let entry = match reader.byte()? {
            tag @ (FILE | FILE_EXEC) => Entry::File {
                digest: reader.digest()?,
                size: reader.varint()?,
                exec: tag == FILE_EXEC,
            },
            DIR => Entry::Dir {
                digest: reader.digest()?,
            },
            SYMLINK => Entry::Symlink {
                target: reader.bytes(MAX_PATH, "symlink target")?.into(),
            },
            _ => return Err(DecodeError::NotCanonical("unknown kind of entry")),
        };
        Ok(NamedEntry { name, entry })
    }
}
