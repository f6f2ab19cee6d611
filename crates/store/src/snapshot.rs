//! `Snapshot`: one moment of the database, for any number of threads. Never writes. What can be read is in the
//! modules of the tables.

use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use crate::archive::{Blocks, InSnapshot};
use crate::error::{Fault, StoreError};
use crate::medium::Medium;
use crate::schema;

/// One moment of the database. While it lives, pages that were replaced since are not reused: keep it for one
/// turn, not for ever.
pub struct Snapshot {
    medium: Arc<Medium>,
    pub(crate) meta: ReadOnlyTable<&'static str, u64>,
    pub(crate) trees: InSnapshot,
    pub(crate) summaries: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    pub(crate) folders: ReadOnlyTable<u32, &'static [u8]>,
    pub(crate) heads: ReadOnlyTable<u32, &'static [u8]>,
    pub(crate) chain: ReadOnlyTable<(u32, u64), &'static [u8; 32]>,
    pub(crate) index: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) blobs: ReadOnlyTable<&'static [u8], ()>,
    pub(crate) pending: ReadOnlyTable<&'static [u8], u64>,
    pub(crate) pending_totals: ReadOnlyTable<u32, (u64, u128)>,
    pub(crate) intents: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(crate) generations: ReadOnlyTable<(u32, u64), &'static [u8]>,
    pub(crate) dropped: ReadOnlyTable<(u32, u64), &'static [u8]>,
    pub(crate) pins: ReadOnlyTable<(u32, u64), ()>,
    pub(crate) packed: ReadOnlyTable<&'static [u8; 32], (u32, u64, u32)>,
}

impl Snapshot {
    pub(crate) fn open(db: &Database, medium: &Arc<Medium>, blocks: &Blocks) -> Result<Self, Fault> {
        // The tables keep the transaction alive.
        let tx = db.begin_read()?;
        Ok(Snapshot {
            medium: medium.clone(),
            meta: tx.open_table(schema::META)?,
            trees: InSnapshot::of(&tx, blocks)?,
            summaries: tx.open_table(schema::SUMMARIES)?,
            folders: tx.open_table(schema::FOLDERS)?,
            heads: tx.open_table(schema::HEADS)?,
            chain: tx.open_table(schema::CHAIN)?,
            index: tx.open_table(schema::INDEX)?,
            blobs: tx.open_table(schema::BLOBS)?,
            pending: tx.open_table(schema::PENDING)?,
            pending_totals: tx.open_table(schema::PENDING_TOTALS)?,
            intents: tx.open_table(schema::INTENTS)?,
            generations: tx.open_table(schema::GENERATIONS)?,
            dropped: tx.open_table(schema::DROPPED)?,
            pins: tx.open_table(schema::PINS)?,
            packed: tx.open_table(schema::PACKED)?,
        })
    }

    /// Reads, and says of which database an error is.
    pub(crate) fn run<T>(&self, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, StoreError> {
        read().map_err(|fault| self.medium.error(fault))
    }
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Snapshot>();
    shared::<crate::Store>();
};
