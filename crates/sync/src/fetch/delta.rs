//! What of a changed big file need not be fetched, because an older version is here. First the trees of both are compared from the
//! top down; what is equal at the same offset is copied. Where little is, something was inserted or removed: then lists of
//! chunks tell where the content has moved to. Everything is verified against the new version's tree; what does not verify
//! is left for those who fetch.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::message::{MAX_SUBTREES, MAX_VALUES};
use alike_core::subtree::{GROUP, Subtree, Value};

use super::base::{Base, Part, Pieces, Target, UNIT};
use super::have::Have;
use crate::chunks::Chunk;
use crate::failpoint::point;
use crate::wire::WireError;

/// Nodes asked for below each one, as long as they are larger than a unit.
const FAN: u64 = 32;
/// Units that are looked into to see whether content is changed in its place, or moved.
const SAMPLE: usize = 32;
/// Content that is looked for at other offsets is worth a look at all of the older version if it is this much (bytes), and this part of
/// the file.
const MOVED: (u64, u64) = (1 << 20, 64);
/// Parts that are copied before the task looks up.
const AT_ONCE: usize = 1024;
/// Units whose groups are compared at once.
const STEP: usize = 512;

/// Who can tell about the new version.
pub(super) trait Teller: Sync {
    /// The values of the nodes of at most `most` groups below each of these, one list each; not verified. `None`: it is not there.
    fn values(
        &self,
        of: &[Subtree],
        most: u64,
    ) -> impl Future<Output = Result<Option<Vec<Vec<Value>>>, WireError>> + Send;

    /// The chunks that these bytes touch, and where the first of them begins. `None`: it is not there.
    fn chunks(
        &self,
        start: u64,
        len: u64,
    ) -> impl Future<Output = Result<Option<(u64, Vec<Chunk>)>, WireError>> + Send;
}

/// What both sides need to be told apart.
pub(super) struct Delta<T> {
    pub(super) teller: T,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) base: Arc<Base>,
    pub(super) target: Arc<Target>,
}

/// How the new version differs from the older one.
#[derive(Default)]
struct Differs {
    /// The same at the same offset.
    equal: Vec<Part>,
    /// Units that differ somewhere.
    units: Vec<Part>,
    /// Behind the older version's end.
    beyond: Vec<Part>,
}

/// Copies what it can; what is in the target then is in `have`. `false`: the teller does not have the file, or says nothing more.
pub(super) async fn copy<T: Teller>(delta: &Delta<T>, have: &mut Have) -> Result<bool, WireError> {
    let Some(differs) = delta.compare(have).await? else {
        return Ok(false);
    };
    point("fetch.big.compared");
    let base = delta.base.clone();
    let units = blocking(move || {
        let units = differs.equal.into_iter().map(|part| base.units(part));
        Ok(units.collect::<std::io::Result<Vec<_>>>()?.concat())
    });
    delta.put(units.await?, in_its_place(), have).await?;
    point("fetch.big.copied");
    let Some(moved) = delta.in_place(differs.units, have).await? else {
        return Ok(false);
    };
    let bytes: u64 = moved.iter().map(|(unit, _)| unit.extent(delta.size).1).sum();
    if bytes < MOVED.0.max(delta.size / MOVED.1) {
        return Ok(true);
    }
    delta.elsewhere(moved, differs.beyond, have).await
}

impl<T: Teller> Delta<T> {
    /// Walks both trees from the top.
    async fn compare(&self, have: &Have) -> Result<Option<Differs>, WireError> {
        let mut differs = Differs::default();
        let mut level: Vec<(Subtree, Option<Value>)> = vec![(Subtree::whole(self.size), None)];
        while !level.is_empty() {
            let largest = level.iter().map(|(node, _)| node.groups()).max().unwrap_or(UNIT);
            let most = (largest.next_power_of_two() / FAN).max(UNIT);
            // Smaller ones, at the right edge, wait for the others.
            let (ask, mut next): (Vec<_>, Vec<_>) =
                level.into_iter().partition(|(node, _)| node.groups() > most);
            let Some(below) = self.below(&ask, most).await? else {
                return Ok(None);
            };
            for (part, is_same) in self.same(below).await? {
                let (node, value) = part;
                if have.holds_all(node) {
                    continue;
                }
                if node.extent(self.size).0 >= self.base.size() {
                    differs.beyond.push(part);
                } else if is_same {
                    differs.equal.push(part);
                } else if node.groups() <= UNIT {
                    differs.units.push(part);
                } else {
                    next.push((node, Some(value)));
                }
            }
            level = next;
        }
        Ok(Some(differs))
    }

    /// Which of these are the same at the same offset of the older version.
    async fn same(&self, parts: Vec<Part>) -> Result<Vec<(Part, bool)>, WireError> {
        let (base, size) = (self.base.clone(), self.size);
        blocking(move || {
            let looked = parts.into_iter().map(|part| (part, base.has(&part, size)));
            Ok(looked.collect())
        })
        .await
    }

    /// The nodes of at most `most` groups below each of `of`, verified.
    async fn below(
        &self,
        of: &[(Subtree, Option<Value>)],
        most: u64,
    ) -> Result<Option<Vec<Part>>, WireError> {
        let mut parts = Vec::new();
        let mut rest = of;
        while !rest.is_empty() {
            let mut values = 0;
            let fits = |(node, _): &&(Subtree, Option<Value>)| {
                values += node.count(most);
                values <= MAX_VALUES
            };
            let count = rest.iter().take(MAX_SUBTREES).take_while(fits).count().max(1);
            let (asked, more) = rest.split_at(count);
            rest = more;
            let nodes: Vec<Subtree> = asked.iter().map(|(node, _)| *node).collect();
            let Some(told) = self.teller.values(&nodes, most).await? else {
                return Ok(None);
            };
            if told.len() != asked.len() {
                return Err(WireError::protocol("values of other nodes than were asked for"));
            }
            for ((node, value), values) in asked.iter().zip(told) {
                if !node.joins(most, &values, value.as_ref(), &self.digest) {
                    return Err(WireError::protocol(
                        "values that do not join to the one above them",
                    ));
                }
                parts.extend(node.below(most).into_iter().zip(values));
            }
        }
        Ok(Some(parts))
    }

    /// Copies the groups of these units that are the same at the same offset; returns the units in which most differ. If a
    /// sample says that most do, the others are returned unseen: the values of all groups would cost more than they spare.
    async fn in_place(&self, units: Vec<Part>, have: &mut Have) -> Result<Option<Vec<Part>>, WireError> {
        let stride = units.len().div_ceil(SAMPLE).max(1);
        let (sample, rest): (Vec<_>, Vec<_>) =
            units.into_iter().enumerate().partition(|(i, _)| i % stride == 0);
        let strip =
            |units: Vec<(usize, Part)>| units.into_iter().map(|(_, unit)| unit).collect::<Vec<Part>>();
        let (sample, mut rest) = (strip(sample), strip(rest));
        let Some(mut moved) = self.groups(&sample, None, have).await? else {
            return Ok(None);
        };
        if 2 * moved.len() > sample.len() {
            moved.append(&mut rest);
        }
        for step in rest.chunks(STEP) {
            match self.groups(step, None, have).await? {
                Some(more) => moved.extend(more),
                None => return Ok(None),
            }
        }
        Ok(Some(moved))
    }

    /// Copies single groups of these units, from the same offset or from where `find` says; returns the units most of
    /// which are not here then.
    async fn groups(
        &self,
        units: &[Part],
        find: Option<&Arc<Find>>,
        have: &mut Have,
    ) -> Result<Option<Vec<Part>>, WireError> {
        let (single, larger): (Vec<Part>, Vec<Part>) = units.iter().partition(|(unit, _)| unit.groups() == 1);
        let ask: Vec<_> = larger.iter().map(|(unit, value)| (*unit, Some(*value))).collect();
        let Some(mut groups) = self.below(&ask, 1).await? else {
            return Ok(None);
        };
        groups.extend(single);
        groups.retain(|(group, _)| !have.holds(group.first));
        match find {
            Some(find) => {
                groups.retain(|(group, _)| {
                    let (at, len) = group.extent(self.size);
                    find(at, len).is_some()
                });
                self.put(groups, find.clone(), have).await?;
            }
            None => {
                let looked = self.same(groups).await?;
                let same = looked
                    .into_iter()
                    .filter(|(_, same)| *same)
                    .map(|(group, _)| group);
                self.put(same.collect(), in_its_place(), have).await?;
            }
        }
        let mut missing = units.to_vec();
        missing.retain(|(unit, _)| {
            let gone = (unit.first..unit.end).filter(|group| !have.holds(*group)).count() as u64;
            2 * gone > unit.groups()
        });
        Ok(Some(missing))
    }

    /// Looks for content at other offsets of the older version.
    async fn elsewhere(
        &self,
        moved: Vec<Part>,
        beyond: Vec<Part>,
        have: &mut Have,
    ) -> Result<bool, WireError> {
        let mut units = moved;
        let (large, small): (Vec<Part>, Vec<Part>) =
            beyond.into_iter().partition(|(node, _)| node.groups() > UNIT);
        units.extend(small);
        let large: Vec<_> = large
            .into_iter()
            .map(|(node, value)| (node, Some(value)))
            .collect();
        match self.below(&large, UNIT).await? {
            Some(below) => units.extend(below),
            None => return Ok(false),
        }
        let start = units.iter().map(|(unit, _)| unit.first).min().unwrap_or(0) * GROUP;
        let end = (units.iter().map(|(unit, _)| unit.end).max().unwrap_or(0) * GROUP).min(self.size);
        let (base, like) = (self.base.clone(), self.size);
        // Both ends cut at the same time.
        let (told, index) = tokio::join!(
            self.teller.chunks(start, end - start),
            blocking(move || base.index(like))
        );
        let (Some((first, chunks)), index) = (told?, index?) else {
            return Ok(false);
        };
        let mut map = Map::default();
        let mut at = first;
        for chunk in &chunks {
            if let Some(found) = index.find(chunk) {
                map.add(at, found, u64::from(chunk.len));
            }
            at = at.saturating_add(u64::from(chunk.len));
        }
        drop(index);
        let map = Arc::new(map);
        let by_map = map.clone();
        let find: Arc<Find> = Arc::new(move |at, len| by_map.find(at, len));
        units.retain(|(unit, _)| !have.holds_all(*unit));
        self.put(units.clone(), find.clone(), have).await?;
        units.retain(|(unit, _)| {
            let (at, len) = unit.extent(self.size);
            !have.holds_all(*unit) && map.touches(at, len)
        });
        for step in units.chunks(STEP) {
            if self.groups(step, Some(&find), have).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies parts from where `find` says.
    async fn put(&self, parts: Vec<Part>, find: Arc<Find>, have: &mut Have) -> Result<(), WireError> {
        let parts = Arc::new(parts);
        // In steps, so that not too much is done for a fetch that was stopped.
        for from in (0..parts.len()).step_by(AT_ONCE) {
            let (base, target) = (self.base.clone(), self.target.clone());
            let (parts, find) = (parts.clone(), find.clone());
            let work = move || {
                let step = &parts[from..parts.len().min(from + AT_ONCE)];
                base.copy(&target, step, &*find)
            };
            for part in blocking(work).await? {
                have.add(part.first, part.end);
            }
        }
        Ok(())
    }
}

/// Runs disk work off the network's threads.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<R> + Send + 'static,
) -> Result<R, WireError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(WireError::lost)?.map_err(WireError::lost)
}

/// At the offset at which it is in the new version.
fn in_its_place() -> Arc<Find> {
    Arc::new(|at, len| Some(vec![(at, len)]))
}

/// Where in the older version so many bytes of the new one are.
type Find = dyn Fn(u64, u64) -> Option<Pieces> + Send + Sync;

/// What content is where in the older version, by its offset in the new one; ascending, apart from each other.
#[derive(Debug, Default)]
struct Map(Vec<Moved>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    at: u64,
    from: u64,
    len: u64,
}

impl Map {
    /// Called with ascending `at`.
    fn add(&mut self, at: u64, from: u64, len: u64) {
        match self.0.last_mut() {
            Some(last) if last.at + last.len == at && last.from + last.len == from => last.len += len,
            _ => self.0.push(Moved { at, from, len }),
        }
    }

    fn find(&self, at: u64, len: u64) -> Option<Pieces> {
        let (mut pieces, mut at, end) = (Pieces::new(), at, at + len);
        let first = self.0.partition_point(|moved| moved.at + moved.len <= at);
        for moved in &self.0[first..] {
            if at == end {
                break;
            }
            let skip = at.checked_sub(moved.at)?;
            let take = (moved.len - skip).min(end - at);
            pieces.push((moved.from + skip, take));
            at += take;
        }
        (at == end).then_some(pieces)
    }

    /// Is some of it here?
    fn touches(&self, at: u64, len: u64) -> bool {
        let first = self.0.partition_point(|moved| moved.at + moved.len <= at);
        self.0.get(first).is_some_and(|moved| moved.at < at + len)
    }
}

#[cfg(test)]
mod tests;
