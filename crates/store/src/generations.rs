//! Generations: a folder's history, one row a change. History only; never decides what a merge does.

use alike_core::digest::Digest;
use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use crate::archive::{Blocks, NodeTables};
use crate::error::{Fault, StoreError};
use crate::folders::FolderKey;
use crate::schema::GENERATIONS;
use crate::snapshot::Snapshot;
use crate::value;

/// What a folder was at one time, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The how-manieth of its folder.
    pub number: u64,
    /// The content tree.
    pub root: Digest,
    /// The state tree; `None` if nothing lived.
    pub state: Option<Digest>,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Why.
    pub reason: Reason,
    /// Which device's change it was.
    pub device: [u8; 32],
    /// Files added since the one before.
    pub added: u64,
    /// Files changed.
    pub changed: u64,
    /// Files removed.
    pub removed: u64,
}

/// Why there is a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Somebody changed files on this device.
    Local,
    /// A peer's changes arrived.
    Peer,
    /// An older version was restored.
    Restore,
    /// The first scan of the folder.
    Initial,
}

/// Writes a generation; its trees must be there.
pub(crate) fn put(tx: &WriteTransaction, folder: FolderKey, generation: &Generation) -> Result<(), Fault> {
    let nodes = NodeTables::open(tx, &Blocks::default())?;
    nodes.must_exist(&generation.root)?;
    if let Some(state) = &generation.state {
        nodes.must_exist(state)?;
    }
    let mut table = tx.open_table(GENERATIONS)?;
    table.insert(
        (folder.0, generation.number),
        value::encode(generation).as_slice(),
    )?;
    Ok(())
}

impl Snapshot {
    /// At most `limit` generations, the newest first.
    pub fn generations(&self, folder: FolderKey, limit: usize) -> Result<Vec<Generation>, StoreError> {
        self.run(|| {
            let mut found = Vec::new();
            let all = (folder.0, 0)..=(folder.0, u64::MAX);
            for row in self.generations.range(all)?.rev().take(limit) {
                found.push(value::decode("generations", row?.1.value())?);
            }
            Ok(found)
        })
    }

    /// One generation.
    pub fn generation(&self, folder: FolderKey, number: u64) -> Result<Option<Generation>, StoreError> {
        self.run(|| {
            let row = self.generations.get((folder.0, number))?;
            row.map(|bytes| value::decode("generations", bytes.value()))
                .transpose()
        })
    }
}
