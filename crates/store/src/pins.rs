//! Pins: generations that a person wants kept. Never keeps one that is not there.

use std::collections::BTreeSet;

use redb::ReadableTable;

use crate::error::StoreError;
use crate::folders::FolderKey;
use crate::schema::{GENERATIONS, PINS};
use crate::snapshot::Snapshot;
use crate::store::Store;

impl Snapshot {
    /// The generations of a folder that are kept from gc.
    pub fn pins(&self, folder: FolderKey) -> Result<BTreeSet<u64>, StoreError> {
        self.run(|| {
            let mut found = BTreeSet::new();
            for row in self.pins.range((folder.0, 0)..=(folder.0, u64::MAX))? {
                found.insert(row?.0.value().1);
            }
            Ok(found)
        })
    }
}

impl Store {
    /// Keeps a generation from gc, or not any more. `false`: there is no such generation.
    pub fn pin(&self, folder: FolderKey, generation: u64, keep: bool) -> Result<bool, StoreError> {
        self.write_anyway(|tx| {
            let key = (folder.0, generation);
            if tx.open_table(GENERATIONS)?.get(key)?.is_none() {
                return Ok(false);
            }
            let mut pins = tx.open_table(PINS)?;
            if keep {
                pins.insert(key, ())?;
            } else {
                pins.remove(key)?;
            }
            Ok(true)
        })
    }
}
