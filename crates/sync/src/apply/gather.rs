//! What is to be done next: pending paths, each with its operation, a directory before what is in it. Never does it.

use std::collections::HashSet;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::plan::{Op, plan};
use alike_store::Snapshot;

use super::Item;
use crate::error::Error;
use crate::folder::{Look, Place, Why, leaves_out};
use crate::ignore::Asker;

/// A batch of planned items and where the next one begins.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    /// HEAD's state tree that it was planned from.
    pub(crate) root: Option<Digest>,
    pub(crate) items: Vec<Item>,
    pub(crate) last: Option<RelPath>,
}

/// In which order things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What comes, so that files can move there before they go.
    Come,
    /// What goes.
    Go,
}

/// Plans the next pending paths after `after`, of one stage or all: at most `limit`, and none in `skip`. In front of
/// them come directories that they are in, if those are pending too, though they be before `after`: HEAD may have
/// got them since that was passed.
pub(crate) fn gather(
    place: &Place,
    stage: Option<Stage>,
    after: Option<&RelPath>,
    limit: usize,
    skip: &HashSet<RelPath>,
) -> Result<Planned, Error> {
    // HEAD may want at another path what was displaced.
    place.root.keep_left();
    let snapshot = place.store.snapshot()?;
    let head = snapshot.head(place.key)?;
    if !head.scanned {
        // Before the folder was looked at once, nobody knows what of all this it holds already.
        return Ok(Planned::default());
    }
    let root = head.state.root;
    let mut planner = Planner {
        place,
        snapshot: &snapshot,
        look: Look::new(&snapshot, root),
        rules: place.rules(),
        skip,
    };
    let mut planned = Planned {
        root,
        ..Planned::default()
    };
    let mut dirs = HashSet::new();
    for (path, bytes) in snapshot.pending(place.key, after, limit)? {
        planned.last = Some(path.clone());
        let Some(item) = planner.item(&path, bytes)? else {
            continue;
        };
        let own = stage_of(&item.op);
        if stage.is_some_and(|stage| stage != own) {
            continue;
        }
        if own == Stage::Come {
            planner.parents(&path, &mut dirs, &mut planned.items)?;
            if item.op.makes_dir() {
                dirs.insert(path);
            }
        }
        planned.items.push(item);
    }
    Ok(planned)
}

fn stage_of(op: &Op) -> Stage {
    match op {
        Op::Remove | Op::Rmdir | Op::RmdirThenCreate => Stage::Go,
        _ => Stage::Come,
    }
}

struct Planner<'a> {
    place: &'a Place,
    snapshot: &'a Snapshot,
    look: Look<'a>,
    rules: Asker<'a>,
    skip: &'a HashSet<RelPath>,
}

impl Planner<'_> {
    /// What is to be done at a pending path, unless that is under way or parked.
    fn item(&mut self, path: &RelPath, bytes: u64) -> Result<Option<Item>, Error> {
        let parked = &self.place.parked;
        if self.skip.contains(path) || parked.holds(path) {
            return Ok(None);
        }
        if parked.holds_above(path) {
            parked.park(path.clone(), bytes, Why::Below);
            return Ok(None);
        }
        let head = self.look.at(path)?.cloned();
        let row = self.snapshot.index(self.place.key, path)?;
        let op = plan(head.as_ref(), row.as_ref().map(|r| &r.mat));
        if leaves_out(&mut self.rules, path, head.as_ref(), row.as_ref()) {
            parked.park(path.clone(), bytes, Why::Ignored);
            return Ok(None);
        }
        let path = path.clone();
        Ok(Some(Item { path, op, head, row }))
    }

    /// Plans the directories above `path` that have to be made, the highest first. `known`: those of this batch that
    /// need no second look.
    fn parents(
        &mut self,
        path: &RelPath,
        known: &mut HashSet<RelPath>,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            if known.contains(&dir) {
                break;
            }
            let is_pending = self.snapshot.is_pending(self.place.key, &dir)?;
            known.insert(dir.clone());
            if !is_pending {
                break;
            }
            missing.push(dir);
        }
        for dir in missing.iter().rev() {
            items.extend(self.item(dir, 0)?.filter(|item| item.op.makes_dir()));
        }
        Ok(())
    }
}
