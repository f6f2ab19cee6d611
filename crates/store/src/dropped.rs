//! Generations that were let go of, until all that only they reached is gone: a collection that is cut off
//! goes on where it was. Nobody else sees them.

use redb::ReadableTable;

use crate::error::{Fault, StoreError};
use crate::folders::FolderKey;
use crate::gc::{Marks, Root, summary_in};
use crate::generations::Generation;
use crate::leases::Alone;
use crate::schema::{DROPPED, GENERATIONS, PINS};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::value;

impl Snapshot {
    /// Generations that were let go of, and of which something may be left.
    pub fn dropped(&self) -> Result<Vec<(FolderKey, u64)>, StoreError> {
        self.run(|| {
            let mut found = Vec::new();
            for row in self.dropped.iter()? {
                let (folder, number) = row?.0.value();
                found.push((FolderKey(folder), number));
            }
            Ok(found)
        })
    }

    /// Marks what the generations reach that were let go of, and those that `goes` names.
    pub fn mark_dropped(&self, goes: &dyn Fn(FolderKey, u64) -> bool) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        self.mark_dropped_too(&mut marks, goes)?;
        Ok(marks)
    }

    /// The same, into marks of other things.
    pub(crate) fn mark_dropped_too(
        &self,
        marks: &mut Marks,
        goes: &dyn Fn(FolderKey, u64) -> bool,
    ) -> Result<(), StoreError> {
        self.run(|| {
            let mut roots = dropped_roots(&self.dropped)?;
            for row in self.generations.iter()? {
                let (key, bytes) = row?;
                let (folder, number) = key.value();
                if goes(FolderKey(folder), number) {
                    roots.extend(Root::of_generation(bytes.value())?);
                }
            }
            marks.walk(
                (&|d| self.trees.get(d), &|d| summary_in(&self.summaries, d)),
                roots,
            )
        })
    }
}

/// The trees of generations that were let go of.
pub(crate) fn dropped_roots(
    dropped: &impl ReadableTable<(u32, u64), &'static [u8]>,
) -> Result<Vec<Root>, Fault> {
    let mut roots = Vec::new();
    for row in dropped.iter()? {
        roots.extend(Root::of_generation(row?.1.value())?);
    }
    Ok(roots)
}

impl Store {
    /// Lets go of generations of a folder; what they alone reach is for a collection, which is told of them until
    /// [`Store::forget_dropped`]. Not of the newest: it says what HEAD was last. How many were there?
    pub fn drop_generations(&self, folder: FolderKey, numbers: &[u64]) -> Result<u64, StoreError> {
        self.write_anyway(|tx| {
            let mut table = tx.open_table(GENERATIONS)?;
            let newest = table
                .range((folder.0, 0)..=(folder.0, u64::MAX))?
                .next_back()
                .transpose()?
                .map(|row| row.0.value().1);
            let pins = tx.open_table(PINS)?;
            let mut gone = tx.open_table(DROPPED)?;
            let mut dropped = 0;
            for number in numbers.iter().filter(|n| Some(**n) != newest) {
                let key = (folder.0, *number);
                // Pinned since somebody decided.
                if pins.get(key)?.is_some() {
                    continue;
                }
                if let Some(row) = table.remove(key)? {
                    gone.insert(key, row.value())?;
                    dropped += 1;
                }
            }
            Ok(dropped)
        })
    }

    /// Of these generations nothing is left but tree nodes. One that somebody reads stays for the next time.
    pub fn forget_dropped(&self, alone: &Alone<'_>, dropped: &[(FolderKey, u64)]) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            let mut table = tx.open_table(DROPPED)?;
            for (folder, number) in dropped {
                if !alone.is_held(*folder, *number) {
                    table.remove((folder.0, *number))?;
                }
            }
            Ok(())
        })
    }
}

impl Root {
    /// The trees of a generation's row.
    pub(crate) fn of_generation(row: &[u8]) -> Result<impl Iterator<Item = Root> + use<>, Fault> {
        let generation: Generation = value::decode("generations", row)?;
        let state = generation.state.map(Root::State);
        Ok([Root::Content(generation.root)].into_iter().chain(state))
    }
}
