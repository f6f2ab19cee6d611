//! Tree nodes and summaries: stored by digest, shared by all folders and generations. Never decodes a node.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::tree::{Nodes, NodesError};
use alike_core::view::{Summaries, Summary};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::archive::{Blocks, NodeTables, is_node};
use crate::error::{Fault, StoreError};
use crate::schema::{NODES, SUMMARIES};
use crate::snapshot::Snapshot;
use crate::value;

/// Writes the nodes that are not there yet, in key order.
pub(crate) fn put_nodes(tx: &WriteTransaction, nodes: &[(Digest, Arc<[u8]>)]) -> Result<(), Fault> {
    let mut table = tx.open_table(NODES)?;
    for (digest, bytes) in by_digest(nodes) {
        put_new(&mut table, digest, bytes)?;
    }
    Ok(())
}

/// Writes the summaries that are not there yet, in key order; their content trees must be there.
pub(crate) fn put_summaries(tx: &WriteTransaction, summaries: &[(Digest, Summary)]) -> Result<(), Fault> {
    let nodes = NodeTables::open(tx, &Blocks::default())?;
    let mut table = tx.open_table(SUMMARIES)?;
    let mut buffer = Vec::new();
    for (digest, summary) in by_digest(summaries) {
        nodes.must_exist(&summary.root)?;
        value::encode_into(summary, &mut buffer);
        put_new(&mut table, digest, &buffer)?;
    }
    Ok(())
}

fn by_digest<T>(rows: &[(Digest, T)]) -> Vec<&(Digest, T)> {
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|row| row.0);
    sorted
}

/// A digest stands for one value, so a row that is there is never written again.
fn put_new(
    table: &mut Table<'_, &'static [u8; 32], &'static [u8]>,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), Fault> {
    if table.get(&digest.0)?.is_none() {
        table.insert(&digest.0, bytes)?;
    }
    Ok(())
}

impl Snapshot {
    /// Is this tree node here?
    pub fn has_node(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.run(|| self.trees.has(digest))
    }

    /// Is there a row for this tree node, damaged or not? Of an archived one the first eight bytes of the digest say it.
    pub fn names_node(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.run(|| self.trees.names(digest))
    }
}

impl Nodes for Snapshot {
    fn node(&self, digest: &Digest) -> Result<Option<Arc<[u8]>>, NodesError> {
        self.run(|| {
            let Some(bytes) = self.trees.nodes.get(&digest.0)? else {
                return Ok(self.trees.archived(digest)?.map(Arc::from));
            };
            // A damaged node would be taken for what somebody wrote, and go on to other devices.
            if !is_node(digest, bytes.value()) {
                return Err(Fault::Corrupt(format!("tree node {digest}")));
            }
            Ok(Some(bytes.value().into()))
        })
        .map_err(|e| NodesError(e.to_string()))
    }
}

impl Summaries for Snapshot {
    fn summary(&self, state: &Digest) -> Result<Option<Summary>, NodesError> {
        self.run(|| {
            let row = self.summaries.get(&state.0)?;
            row.map(|bytes| value::decode("summaries", bytes.value()))
                .transpose()
        })
        .map_err(|e| NodesError(e.to_string()))
    }
}
