//! Letting go of packed contents, and writing packs anew of which half is waste. In steps, between which anything else
//! may happen. Never removes a pack that a commit, past or in flight, names.

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use alike_core::digest::Digest;
use redb::ReadableTable;

use super::{HEADER, PackPlace, Packs, io_error};
use crate::error::StoreError;
use crate::gc::{Marks, mark_in};
use crate::leases::Alone;
use crate::schema::PACKED;
use crate::store::Store;

/// Rows changed in one transaction at most …
const MAX_ROWS: usize = 5_000;
/// … and rows that one of a sweep looks at.
const LOOK: usize = 50_000;

/// How far a sweep of the packs has come, and what it came to.
#[derive(Debug, Default)]
pub struct PackSweep {
    at: PackStage,
    /// Contents that went.
    pub removed: u64,
    /// Contents that would have gone, but for what is being committed just now.
    pub spared: u64,
    /// Bytes by which the packs became shorter.
    pub freed: u64,
}

#[derive(Debug, Default)]
enum PackStage {
    #[default]
    Begin,
    /// Rows above this digest are still to be looked at.
    Rows(Option<[u8; 32]>),
    /// Packs to be written anew, with what lives in them.
    Packs(Vec<(u32, Live)>),
    Done,
}

/// What rows name of a pack.
type Live = Vec<(Digest, PackPlace)>;

impl PackSweep {
    /// Has everything been looked at?
    pub fn is_done(&self) -> bool {
        matches!(self.at, PackStage::Done)
    }
}

impl Store {
    /// One step of letting go of packed contents that `goes` names (by digest, and seconds since their pack was written
    /// to) and nothing reaches, and of writing packs anew of which half is waste. `false`: somebody has held a lease for
    /// all of `patience`; nothing was done.
    pub fn sweep_packs(
        &self,
        marks: &mut Marks,
        goes: &dyn Fn(&Marks, &Digest, u64) -> bool,
        sweep: &mut PackSweep,
        patience: Duration,
    ) -> Result<bool, StoreError> {
        let Some(packs) = &self.packs else {
            sweep.at = PackStage::Done;
            return Ok(true);
        };
        let io = |source| io_error("sweeping", &packs.dir, source);
        match &mut sweep.at {
            PackStage::Begin => sweep.at = PackStage::Rows(None),
            PackStage::Rows(from) => {
                let Some(alone) = self.alone(patience) else {
                    return Ok(false);
                };
                let (last, removed, spared) = self.let_go(packs, &alone, marks, goes, *from)?;
                sweep.removed += removed;
                sweep.spared += spared;
                sweep.at = match last {
                    Some(last) => PackStage::Rows(Some(last)),
                    None => PackStage::Packs(self.wasteful(packs)?),
                };
            }
            PackStage::Packs(left) => match left.pop() {
                Some((number, live)) => {
                    let before = self.packs_bytes();
                    self.pack_again(packs, &live)?;
                    packs.remove(number).map_err(io)?;
                    sweep.freed += before.saturating_sub(self.packs_bytes());
                }
                None => sweep.at = PackStage::Done,
            },
            PackStage::Done => {}
        }
        Ok(true)
    }

    /// Removes rows after `from` that nobody needs; in one transaction, which sees for itself what is reached. Where it
    /// ended (`None`: at the end), how many went, and how many were spared.
    fn let_go(
        &self,
        packs: &Packs,
        alone: &Alone<'_>,
        marks: &mut Marks,
        goes: &dyn Fn(&Marks, &Digest, u64) -> bool,
        from: Option<[u8; 32]>,
    ) -> Result<(Option<[u8; 32]>, u64, u64), StoreError> {
        let mut ages: HashMap<u32, u64> = HashMap::new();
        self.write_anyway(|tx| {
            mark_in(tx, &self.blocks, alone, marks)?;
            let mut table = tx.open_table(PACKED)?;
            // Nobody finds out now that a content is here.
            let state = packs.state();
            let lower = from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut gone, mut last, mut spared) = (Vec::new(), None, 0);
            for (looked, row) in table.range::<&[u8; 32]>((lower, Bound::Unbounded))?.enumerate() {
                if looked == LOOK || gone.len() == MAX_ROWS {
                    break;
                }
                let (key, place) = row?;
                let digest = Digest(*key.value());
                last = Some(digest.0);
                let pack = place.value().0;
                let age = *ages.entry(pack).or_insert_with(|| packs.age(pack));
                if !goes(marks, &digest, age) {
                    continue;
                }
                if state.relied.contains_key(&digest) || state.lately.contains(&digest) {
                    spared += 1;
                } else {
                    gone.push(digest);
                }
            }
            for digest in &gone {
                table.remove(&digest.0)?;
            }
            let more = match &last {
                Some(last) => {
                    let rest = (Bound::Excluded(last), Bound::Unbounded);
                    table.range::<&[u8; 32]>(rest)?.next().is_some()
                }
                None => false,
            };
            Ok((last.filter(|_| more), gone.len() as u64, spared))
        })
    }

    /// Packs of which half is waste or more, with what lives in them.
    fn wasteful(&self, packs: &Packs) -> Result<Vec<(u32, Live)>, StoreError> {
        // Before the rows: a commit that ends in between has named its pack by then.
        let all = packs
            .settle()
            .map_err(|source| io_error("sweeping", &packs.dir, source))?;
        let mut live: HashMap<u32, Live> = HashMap::new();
        let snapshot = self.snapshot()?;
        snapshot.run(|| {
            for row in snapshot.packed.iter()? {
                let (key, place) = row?;
                let place = place.value();
                live.entry(place.0)
                    .or_default()
                    .push((Digest(*key.value()), place));
            }
            Ok(())
        })?;
        let with_live = all.into_iter().map(|(number, len)| {
            let live = live.remove(&number).unwrap_or_default();
            let bytes: u64 = live.iter().map(|(_, place)| u64::from(place.2) + HEADER).sum();
            (number, live, bytes * 2 <= len)
        });
        Ok(with_live
            .filter(|(_, _, wasteful)| *wasteful)
            .map(|(number, live, _)| (number, live))
            .collect())
    }

    /// What [`Store::sweep_packs`] would let go of: contents, and their bytes.
    pub fn packs_waste(&self, goes: &dyn Fn(&Digest, u64) -> bool) -> Result<(u64, u64), StoreError> {
        let Some(packs) = &self.packs else {
            return Ok((0, 0));
        };
        let mut ages: HashMap<u32, u64> = HashMap::new();
        let snapshot = self.snapshot()?;
        snapshot.run(|| {
            let (mut contents, mut bytes) = (0, 0);
            for row in snapshot.packed.iter()? {
                let (key, place) = row?;
                let (number, _, len) = place.value();
                let age = *ages.entry(number).or_insert_with(|| packs.age(number));
                if goes(&Digest(*key.value()), age) {
                    contents += 1;
                    bytes += u64::from(len) + HEADER;
                }
            }
            Ok((contents, bytes))
        })
    }

    /// Appends contents once more, and lets their rows name that. One that is damaged loses its row.
    fn pack_again(&self, packs: &Packs, live: &[(Digest, PackPlace)]) -> Result<(), StoreError> {
        let io = |source| io_error("writing anew a pack in", &packs.dir, source);
        let mut moved = Vec::with_capacity(live.len());
        for (digest, place) in live {
            let content = packs.read(digest, *place).map_err(io)?;
            let to = match content {
                Some(content) => Some(packs.append(&mut packs.state(), digest, &content).map_err(io)?),
                None => None,
            };
            moved.push((digest, *place, to));
        }
        packs.sync(&mut packs.state()).map_err(io)?;
        for part in moved.chunks(MAX_ROWS) {
            self.write_anyway(|tx| {
                let mut table = tx.open_table(PACKED)?;
                for (digest, from, to) in part {
                    if table.get(&digest.0)?.map(|row| row.value()) != Some(*from) {
                        continue;
                    }
                    match to {
                        Some(to) => drop(table.insert(&digest.0, *to)?),
                        None => drop(table.remove(&digest.0)?),
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
