//! `.alike/witness`: how far the replica that this folder belongs to had come, kept apart from the database. Never
//! decides what it means.

use std::fs::File;
use std::io::{Read, Write};

use alike_core::digest::Digest;
use alike_core::ids::ReplicaId;
use alike_core::path::OWN_DIR;
use rustix::fs::{Mode, OFlags};

use super::{Root, sys};

const WITNESS: &str = "witness";
/// Always this long, so that it is written in one piece over the one before.
const LEN: usize = 16 + 1 + 16 + 1 + 64 + 1;

/// A replica had made so many writes, with this chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) replica: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) chain: Digest,
}

impl Root {
    /// What the folder remembers; `None` if nothing that can be read.
    pub(crate) fn witness(&self) -> Option<Witness> {
        let own = self.own_dir(OWN_DIR).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&own, WITNESS, flags, Mode::empty()).ok()?);
        let mut text = Vec::with_capacity(LEN + 1);
        file.take(LEN as u64 + 1).read_to_end(&mut text).ok()?;
        parse(&text)
    }

    /// Makes the folder remember it. It is a hint: neither synced, nor missed where it cannot be written.
    pub(crate) fn leave_witness(&self, witness: &Witness) -> std::io::Result<()> {
        let own = self.own_dir(OWN_DIR)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(sys::openat(&own, WITNESS, flags, Mode::RUSR | Mode::WUSR)?);
        let Witness { replica, seq, chain } = witness;
        file.write_all(format!("{:016x} {seq:016x} {chain}\n", replica.0).as_bytes())
    }
}

fn parse(text: &[u8]) -> Option<Witness> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() == LEN)?;
    let mut words = text.trim_end().split(' ');
    let witness = Witness {
        replica: ReplicaId(u64::from_str_radix(words.next()?, 16).ok()?),
        seq: u64::from_str_radix(words.next()?, 16).ok()?,
        chain: Digest::from_hex(words.next()?)?,
    };
    words.next().is_none().then_some(witness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_read_as_it_was_left_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.witness(), None);
        root.ensure_own_dir([1; 16]).unwrap();
        assert_eq!(root.witness(), None);
        for seq in [u64::MAX, 7] {
            let witness = Witness {
                replica: ReplicaId(5),
                seq,
                chain: Digest::of(b"chain"),
            };
            root.leave_witness(&witness).unwrap();
            assert_eq!(root.witness(), Some(witness));
        }
        let path = dir.path().join(".alike/witness");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..40]).unwrap();
        assert_eq!(root.witness(), None);
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(root.witness(), None);
    }
}
