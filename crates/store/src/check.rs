//! Are tree nodes what their digests say? Never repairs one.

use std::ops::Bound;

use alike_core::digest::Digest;

use crate::archive::is_node;
use crate::error::StoreError;
use crate::snapshot::Snapshot;

/// What a look at some tree nodes came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesChecked {
    /// How many were looked at.
    pub checked: u64,
    /// Those that are not what their digests say. Of archived ones the first eight bytes of the digest are known, the
    /// others are 0.
    pub damaged: Vec<Digest>,
    /// The last one looked at, where the next look begins; `None`: there are no more.
    pub last: Option<Digest>,
}

impl Snapshot {
    /// Compares at most `limit` tree nodes with their digests, those after `after`; with the last of them, all blocks of
    /// the archive with their checksums.
    pub fn check_nodes(&self, after: Option<&Digest>, limit: usize) -> Result<NodesChecked, StoreError> {
        self.run(|| {
            let from = after.map_or(Bound::Unbounded, |digest| Bound::Excluded(&digest.0));
            let mut done = NodesChecked::default();
            for row in self
                .trees
                .nodes
                .range::<&[u8; 32]>((from, Bound::Unbounded))?
                .take(limit)
            {
                let (key, bytes) = row?;
                let digest = Digest(*key.value());
                done.checked += 1;
                if !is_node(&digest, bytes.value()) {
                    done.damaged.push(digest);
                }
                done.last = Some(digest);
            }
            if done.checked < limit as u64 {
                let (checked, damaged) = self.check_archive()?;
                done.checked += checked;
                done.damaged.extend(damaged);
                done.last = None;
            }
            Ok(done)
        })
    }
}
