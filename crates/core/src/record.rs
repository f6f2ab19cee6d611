//! `Record`: one write event of one path, with its causality. Its home path is its place in the state tree.
//! Never knows other records; `merge` and `conflict` do.

use crate::codec::{DecodeError, Reader, put_bytes, put_varint, unzigzag, zigzag};
use crate::digest::Digest;
use crate::ids::{Dot, Hlc, ReplicaId};
use crate::path::MAX_PATH;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// A regular file.
    File {
        /// BLAKE3 of its content.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// A directory (its members have records of their own).
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: Box<[u8]>,
    },
}

impl Value {
    /// Names the content: equal keys are twins, different ones conflict. `None` for directories.
    pub fn key(&self) -> Option<Digest> {
        match self {
            Value::File { digest, .. } => Some(*digest),
            Value::Symlink { target } => Some(Digest::keyed(b"alike symlink target, version 1 ", target)),
            Value::Dir => None,
        }
    }

    /// Bytes of content to transfer.
    pub fn size(&self) -> u64 {
        match self {
            Value::File { size, .. } => *size,
            Value::Dir | Value::Symlink { .. } => 0,
        }
    }
}

/// The exec bit with its own causality: the newest wins, independent of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecMark {
    /// When it was set or cleared.
    pub hlc: Hlc,
    /// By which write.
    pub dot: Dot,
    /// Executable?
    pub on: bool,
}

/// One write event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which write.
    pub dot: Dot,
    /// When.
    pub hlc: Hlc,
    /// What.
    pub value: Value,
    /// The exec bit; `Some` for files exactly.
    pub exec: Option<ExecMark>,
    /// Modification time in nanoseconds since 1970; 0 for directories.
    pub mtime: i64,
    /// Key of the content that this write replaced.
    pub prev: Option<Digest>,
    /// Lost a conflict: shown at its conflict name, for ever.
    pub relocated: bool,
    /// Came from the first scan of a folder: nobody's edit.
    pub imported: bool,
}

/// Largest file, in bytes (16 TiB, ext4's limit): sizes come from peers, and memory is reserved by them.
pub const MAX_FILE: u64 = 1 << 44;

const KIND_FILE: u8 = 0;
const KIND_DIR: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const RELOCATED: u8 = 1 << 2;
const IMPORTED: u8 = 1 << 3;
const HAS_PREV: u8 = 1 << 4;
const EXEC_ON: u8 = 1 << 5;
const EXEC_OWN: u8 = 1 << 6;

impl Record {
    /// Newest = greatest.
    pub fn age_key(&self) -> (Hlc, Dot) {
        (self.hlc, self.dot)
    }

    /// Is the file executable? `false` for what is no file.
    pub fn is_exec(&self) -> bool {
        self.exec.is_some_and(|mark| mark.on)
    }

    /// Appends the canonical form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let own_mark = self.exec.is_some_and(|m| m.dot == self.dot && m.hlc == self.hlc);
        let mut flags = match self.value {
            Value::File { .. } => KIND_FILE,
            Value::Dir => KIND_DIR,
            Value::Symlink { .. } => KIND_SYMLINK,
        };
        for (bit, set) in [
            (RELOCATED, self.relocated),
            (IMPORTED, self.imported),
            (HAS_PREV, self.prev.is_some()),
            (EXEC_ON, self.is_exec()),
            (EXEC_OWN, own_mark),
        ] {
            if set {
                flags |= bit;
            }
        }
        out.push(flags);
        put_dot(out, self.dot);
        put_varint(out, self.hlc.0);
        match &self.value {
            Value::File { digest, size } => {
                out.extend_from_slice(&digest.0);
                put_varint(out, *size);
                put_varint(out, zigzag(self.mtime));
            }
            Value::Dir => {}
            Value::Symlink { target } => {
                put_bytes(out, target);
                put_varint(out, zigzag(self.mtime));
            }
        }
        if let Some(prev) = &self.prev {
            out.extend_from_slice(&prev.0);
        }
        if let (Some(mark), false) = (&self.exec, own_mark) {
            put_dot(out, mark.dot);
            put_varint(out, mark.hlc.0);
        }
    }

    /// Reads the canonical form.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.byte()?;
        let dot = get_dot(reader)?;
        let hlc = Hlc(reader.varint()?);
        let mut mtime = 0;
        let value = match flags & 3 {
            KIND_FILE => {
                let value = Value::File {
                    digest: reader.digest()?,
                    size: reader.varint()?,
                };
                if value.size() > MAX_FILE {
                    return Err(DecodeError::Limit("size of a file"));
                }
                mtime = unzigzag(reader.varint()?);
                value
            }
            KIND_DIR => Value::Dir,
            KIND_SYMLINK => {
                let target = reader.bytes(MAX_PATH, "symlink target")?.into();
                mtime = unzigzag(reader.varint()?);
                Value::Symlink { target }
            }
            _ => return Err(DecodeError::NotCanonical("unknown kind of record")),
        };
        let is_file = matches!(value, Value::File { .. });
        if flags & 0x80 != 0 || (!is_file && flags & (EXEC_ON | EXEC_OWN) != 0) {
            return Err(DecodeError::NotCanonical("unknown flags of a record"));
        }
        let prev = if flags & HAS_PREV != 0 {
            Some(reader.digest()?)
        } else {
            None
        };
        let on = flags & EXEC_ON != 0;
        let exec = if !is_file {
            None
        } else if flags & EXEC_OWN != 0 {
            Some(ExecMark { hlc, dot, on })
        } else {
            let mark_dot = get_dot(reader)?;
            let mark = ExecMark {
                dot: mark_dot,
                hlc: Hlc(reader.varint()?),
                on,
            };
            if mark.dot == dot && mark.hlc == hlc {
                return Err(DecodeError::NotCanonical("own exec mark written out"));
            }
            Some(mark)
        };
        let (relocated, imported) = (flags & RELOCATED != 0, flags & IMPORTED != 0);
        Ok(Record {
            dot,
            hlc,
            value,
            exec,
            mtime,
            prev,
            relocated,
            imported,
        })
    }
}

fn put_dot(out: &mut Vec<u8>, dot: Dot) {
    out.extend_from_slice(&dot.replica.0.to_le_bytes());
    put_varint(out, dot.seq);
}

fn get_dot(reader: &mut Reader<'_>) -> Result<Dot, DecodeError> {
    let replica = ReplicaId(u64::from_le_bytes(
        reader.take(8)?.try_into().expect("took 8 bytes"),
    ));
    let seq = reader.varint()?;
    if seq == 0 {
        return Err(DecodeError::NotCanonical("seq 0"));
    }
    Ok(Dot { replica, seq })
}
