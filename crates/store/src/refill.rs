//! Tables written anew in the order of their keys: where keys come in any order, as digests do, pages are a good half full;
//! written in order they are nearly full. Never changes a row.

use redb::{Key, ReadableTable, ReadableTableMetadata, TableDefinition, TableStats, Value, WriteTransaction};

use crate::error::Fault;
use crate::schema::{ARCHIVED, BLOBS, INDEX, NODES, PACKED, SUMMARIES};

/// Where a table is written to, before it takes the other's place in the same transaction.
const NEW: &str = "refilled";
/// It is done for a table in whose pages so many bytes are empty, and such a part of what is in them (a divisor).
const WORTH: (u64, u64) = (256 << 10, 4);

/// Writes those tables anew for which it is worth it. Was there any?
pub(crate) fn refill(tx: &WriteTransaction) -> Result<bool, Fault> {
    let done = [
        table(tx, NODES)?,
        table(tx, SUMMARIES)?,
        table(tx, ARCHIVED)?,
        table(tx, INDEX)?,
        table(tx, BLOBS)?,
        table(tx, PACKED)?,
    ];
    Ok(done.contains(&true))
}

fn table<K: Key + 'static, V: Value + 'static>(
    tx: &WriteTransaction,
    old: TableDefinition<'static, K, V>,
) -> Result<bool, Fault> {
    let new = TableDefinition::<K, V>::new(NEW);
    {
        let from = tx.open_table(old)?;
        if !is_worth_it(&from.stats()?) {
            return Ok(false);
        }
        let mut to = tx.open_table(new)?;
        for row in from.iter()? {
            let (key, value) = row?;
            to.insert(key.value(), value.value())?;
        }
    }
    tx.delete_table(old)?;
    tx.rename_table(new, old)?;
    Ok(true)
}

fn is_worth_it(stats: &TableStats) -> bool {
    let empty = stats.fragmented_bytes();
    empty >= WORTH.0 && empty >= stats.stored_bytes() / WORTH.1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::trees::put_nodes;
    use alike_core::digest::Digest;

    #[test]
    fn rows_that_came_in_any_order_take_less_and_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        for round in 0..40_u32 {
            let nodes: Vec<(Digest, Arc<[u8]>)> = (0..100_u32)
                .map(|n| {
                    let bytes = [round.to_le_bytes(), n.to_le_bytes()].concat().repeat(50);
                    (Digest::of(&bytes), bytes.into())
                })
                .collect();
            store.write(|tx| put_nodes(tx, &nodes)).unwrap();
        }
        let rows = || {
            let all = store.write(|tx| {
                let table = tx.open_table(NODES)?;
                let rows = table
                    .iter()?
                    .map(|row| row.map(|(k, v)| (*k.value(), v.value().to_vec())));
                Ok((
                    rows.collect::<Result<Vec<_>, _>>()?,
                    table.stats()?.fragmented_bytes(),
                ))
            });
            all.unwrap()
        };
        let (before, empty) = rows();
        assert!(before.len() > 4000);
        assert!(store.compact().unwrap());
        let (after, now) = rows();
        assert!(before == after, "no row is another one");
        assert!(now < empty / 2, "{empty} bytes were empty, {now} are now");
        let len = std::fs::metadata(store.path()).unwrap().len();
        drop(store);
        // Nothing more to do, and what was done lasts.
        let store = Store::open(&dir.path().join("state")).unwrap();
        assert!(store.compact().unwrap());
        assert!(std::fs::metadata(store.path()).unwrap().len() <= len);
    }
}
