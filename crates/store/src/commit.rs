//! One value → one write transaction. Never computes what to write; it keeps the laws between tables: a head,
//! a summary or a generation names only trees that are there, and nothing is written for a folder that is not.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::view::Summary;
use redb::WriteTransaction;

use crate::error::StoreError;
use crate::folders::{self, FolderKey, Head, Replica};
use crate::generations::{self, Generation};
use crate::index::{self, IndexRow, Intent};
use crate::packs;
use crate::store::Store;
use crate::trees;

/// What one turn changes in one folder. All of it becomes durable, or nothing. Where one path is both removed
/// and put, it is put; where it is put twice, the last one counts. The order of rows is of no matter.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// New tree nodes; those that are there already are skipped.
    pub nodes: Vec<(Digest, Arc<[u8]>)>,
    /// New summaries, by state tree; their content trees must be there, or in `nodes`.
    pub summaries: Vec<(Digest, Summary)>,
    /// Who the device is from now on, with a head that begins its chain.
    pub replica: Option<Replica>,
    /// The new head; its trees must be there, or in `nodes`.
    pub head: Option<Head>,
    /// A new generation; its trees must be there, or in `nodes`.
    pub generation: Option<Generation>,
    /// What is on disk now.
    pub index_put: Vec<(RelPath, IndexRow)>,
    /// What is not on disk any more.
    pub index_remove: Vec<RelPath>,
    /// What is to be fetched, with its bytes.
    pub pending_put: Vec<(RelPath, u64)>,
    /// What is not to be fetched any more.
    pub pending_remove: Vec<RelPath>,
    /// What is about to be done on disk.
    pub intents_put: Vec<Intent>,
    /// What was done on disk, or dropped.
    pub intents_remove: Vec<RelPath>,
}

impl Commit {
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        let Commit {
            nodes,
            summaries,
            replica,
            head,
            generation,
            index_put,
            index_remove,
            pending_put,
            pending_remove,
            intents_put,
            intents_remove,
        } = self;
        nodes.is_empty()
            && summaries.is_empty()
            && replica.is_none()
            && head.is_none()
            && generation.is_none()
            && index_put.is_empty()
            && index_remove.is_empty()
            && pending_put.is_empty()
            && pending_remove.is_empty()
            && intents_put.is_empty()
            && intents_remove.is_empty()
    }
}

impl Store {
    /// Writes `commit` in one durable transaction; an empty one costs nothing.
    pub fn commit(&self, folder: FolderKey, commit: Commit) -> Result<(), StoreError> {
        if commit.is_empty() {
            return Ok(());
        }
        // What was done on disk is noted whatever the room: a crash would have to find it out again.
        let done = !commit.intents_remove.is_empty();
        // A content whose pack cannot be made durable has no past; that is no reason not to go on.
        let taken = match &self.packs {
            Some(packs) => {
                let rows = commit.index_put.iter().map(|(_, row)| &row.mat.value);
                let digests = rows.filter_map(|value| match value {
                    Value::File { digest, .. } => Some(digest),
                    Value::Dir | Value::Symlink { .. } => None,
                });
                packs.take_fresh(digests).unwrap_or_default()
            }
            None => packs::Taken::default(),
        };
        let change = |tx: &WriteTransaction| {
            folders::must_exist(tx, folder)?;
            // Trees first: what names them is checked against the transaction itself.
            if !commit.nodes.is_empty() {
                trees::put_nodes(tx, &commit.nodes)?;
            }
            if !commit.summaries.is_empty() {
                trees::put_summaries(tx, &commit.summaries)?;
            }
            if let Some(replica) = commit.replica {
                folders::put_replica(tx, folder, replica)?;
            }
            if let Some(head) = &commit.head {
                folders::put_head(tx, folder, head)?;
            }
            if let Some(generation) = &commit.generation {
                generations::put(tx, folder, generation)?;
            }
            if !(commit.index_put.is_empty() && commit.index_remove.is_empty()) {
                index::change_index(tx, folder, &commit.index_remove, &commit.index_put)?;
            }
            if !(commit.pending_put.is_empty() && commit.pending_remove.is_empty()) {
                index::change_pending(tx, folder, &commit.pending_remove, &commit.pending_put)?;
            }
            if !(commit.intents_put.is_empty() && commit.intents_remove.is_empty()) {
                index::change_intents(tx, folder, &commit.intents_remove, &commit.intents_put)?;
            }
            if !taken.packed.is_empty() {
                packs::put(tx, &taken.packed)?;
            }
            Ok(())
        };
        let written = if done {
            self.write_anyway(change)
        } else {
            self.write(change)
        };
        if let Some(packs) = &self.packs {
            packs.committed(taken, written.is_ok());
        }
        written
    }
}
