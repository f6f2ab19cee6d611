//! The background scrub: everything is read again and compared in about a month, a little every hour, at low priority,
//! while nothing else is to be done. What is damaged is said by `status`, as after `sync verify`; repairing is asked for.
//! How far it has come is in the state directory. Never repairs, and never changes a file.

mod pace;
mod state;

use std::sync::Arc;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_store::{FolderKey, Head, IndexRow};

use super::rotten::Thing;
use super::{NODES, PAGE, Part, Run};
use crate::clock::now_ms;
use crate::disk::Buffer;
use crate::error::Error;
use crate::folder::{Checked, check};

pub(crate) use pace::Busy;
use pace::Pace;
use pace::on_battery;
use state::At;
pub(crate) use state::Scrub;

/// Bytes that reading the smallest thing counts as: a disk that turns takes as long for it as for these.
const LEAST: u64 = 64 << 10;
/// A batch is at least this much (bytes): a small folder is read in one go, and then nobody wakes for a month.
const MIN_BATCH: u64 = 64 << 20;
/// A round has this many batches, if they are not more than an hour apart then.
const BATCHES: u32 = 720;
/// Batches are this far apart at most …
const MOST: Duration = Duration::from_secs(3600);
/// … and at least.
const AT_LEAST: Duration = Duration::from_millis(200);

/// How far apart the batches of a round are.
pub(crate) fn every(round: Duration) -> Duration {
    (round / BATCHES).clamp(AT_LEAST, MOST)
}

/// A batch.
pub(crate) struct Batch {
    /// What is read; nothing is repaired.
    pub(crate) run: Run,
    pub(crate) scrub: Arc<Scrub>,
    /// In how long all is to be read once.
    pub(crate) round: Duration,
    pub(crate) busy: Busy,
}

/// The batch is over.
struct Over;

type Step = Result<Result<(), Over>, Error>;

/// What a batch has and may still do.
struct Work<'a> {
    pace: Pace<'a>,
    buffer: Buffer,
    left: u64,
}

impl Work<'_> {
    fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes.max(LEAST));
    }
}

impl Batch {
    /// Reads a part of all there is.
    pub(crate) fn run(self) {
        if on_battery() {
            return;
        }
        self.scrub.begin(now_ms());
        let (stop, cut) = (self.run.stop.clone(), self.scrub.state().cut);
        let mut work = Work {
            pace: Pace::new(&stop, &self.busy, cut),
            buffer: Buffer::new(),
            left: self.budget(),
        };
        let result = self
            .run
            .rotten
            .forget_gone(&self.run.store, &self.run.parts)
            .map_err(Error::from)
            .and_then(|()| self.go_on(&mut work));
        match result {
            Ok(Ok(())) => {
                let checked = self.scrub.end(now_ms());
                tracing::info!("everything was read again and compared: {checked} things");
            }
            Ok(Err(Over)) => {}
            Err(error) => tracing::warn!("reading everything again: {error}"),
        }
        self.scrub.save(&self.run.rotten);
    }

    /// Bytes that this batch reads, for the round to end in time.
    fn budget(&self) -> u64 {
        let mut total = self.run.store.packs_bytes();
        for part in &self.run.parts {
            let head = self.run.store.snapshot().and_then(|s| s.head(part.place.key));
            if let Ok(Head { summary, .. }) = head {
                let files = summary.files.saturating_mul(LEAST);
                total = total.saturating_add(summary.bytes).saturating_add(files);
            }
            total = total.saturating_add(part.place.counted_history());
        }
        let share = every(self.round).as_secs_f64() / self.round.as_secs_f64();
        MIN_BATCH.max((total as f64 * share * 1.2) as u64)
    }

    /// `Ok(Ok(()))`: the round is over.
    fn go_on(&self, work: &mut Work<'_>) -> Step {
        loop {
            let at = self.scrub.state().at.clone();
            let next = match at {
                At::Begin => self.next_folder(None),
                At::Files(key, after) => match self.part(key) {
                    Some(part) => match self.files(part, after, work)? {
                        Ok(()) => At::Objects(key, None),
                        Err(Over) => return Ok(Err(Over)),
                    },
                    None => self.next_folder(Some(key)),
                },
                At::Objects(key, after) => match self.part(key) {
                    Some(part) => match self.objects(part, after, work)? {
                        Ok(()) => self.next_folder(Some(key)),
                        Err(Over) => return Ok(Err(Over)),
                    },
                    None => self.next_folder(Some(key)),
                },
                At::Packs(after) => match self.packs(after, work)? {
                    Ok(()) => At::Nodes(None),
                    Err(Over) => return Ok(Err(Over)),
                },
                At::Nodes(after) => match self.nodes(after, work)? {
                    Ok(()) => return Ok(Ok(())),
                    Err(Over) => return Ok(Err(Over)),
                },
            };
            self.scrub.at(next, 0);
        }
    }

    /// The folder after that one: the keys of those that come later are higher.
    fn next_folder(&self, after: Option<FolderKey>) -> At {
        let keys = self.run.parts.iter().map(|part| part.place.key);
        let next = keys.filter(|key| after.is_none_or(|after| *key > after)).min();
        next.map_or(At::Packs(None), |key| At::Files(key, None))
    }

    /// The folder, if it is there.
    fn part(&self, key: FolderKey) -> Option<&Part> {
        let part = self.run.parts.iter().find(|part| part.place.key == key)?;
        let is_there = part.place.root.check(&part.place.row.marker).is_ok();
        is_there.then_some(part)
    }

    fn files(&self, part: &Part, mut after: Option<RelPath>, work: &mut Work<'_>) -> Step {
        let place = &*part.place;
        let mut suspects = Vec::new();
        let over = loop {
            let rows = self
                .run
                .store
                .snapshot()?
                .index_after(place.key, after.as_ref(), PAGE)?;
            if rows.is_empty() {
                break false;
            }
            let mut over = false;
            for (path, row) in rows {
                over = work.left == 0 || self.file(part, &path, &row, work, &mut suspects).is_err();
                if over {
                    break;
                }
                self.scrub.at(At::Files(place.key, Some(path.clone())), 1);
                after = Some(path);
            }
            self.scrub.save_now_and_then(&self.run.rotten);
            if over {
                break true;
            }
        };
        self.run.confirm(part, &suspects)?;
        Ok(if over { Err(Over) } else { Ok(()) })
    }

    fn file(
        &self,
        part: &Part,
        path: &RelPath,
        row: &IndexRow,
        work: &mut Work<'_>,
        suspects: &mut Vec<RelPath>,
    ) -> Result<(), Over> {
        if super::content_of(row).is_none() {
            return work.pace.tick(0).then_some(()).ok_or(Over);
        }
        let place = &*part.place;
        place.root.forget_pages(path);
        let checked = check(place, path, row, &mut work.buffer, &mut |bytes| {
            work.pace.tick(bytes)
        });
        place.root.forget_pages(path);
        match checked {
            Checked::Good => place.damaged.is_good(path),
            Checked::Damaged(_) => suspects.push(path.clone()),
            Checked::Open => {}
            Checked::Stopped => {
                self.scrub.cut_off();
                return Err(Over);
            }
        }
        work.spend(row.mat.value.size());
        work.pace.tick(LEAST).then_some(()).ok_or(Over)
    }

    fn objects(&self, part: &Part, after: Option<Digest>, work: &mut Work<'_>) -> Step {
        let place = &*part.place;
        let failed = |e: std::io::Error| Error::Refused(format!("{}: .alike/objects: {e}", place.row.name));
        let all = place.displaced().map_err(failed)?.into_iter();
        let mut all: Vec<(Digest, u64)> = all
            .map(|object| (object.digest, object.bytes))
            .filter(|(digest, _)| after.is_none_or(|after| *digest > after))
            .collect();
        all.sort_unstable();
        for (digest, bytes) in all {
            if work.left == 0 {
                return Ok(Err(Over));
            }
            place.root.forget_object_pages(&digest);
            let good = place
                .root
                .is_object_good(&digest, &mut work.buffer, &mut |bytes| work.pace.tick(bytes));
            place.root.forget_object_pages(&digest);
            if let Some(good) = good.map_err(failed)? {
                self.run.rotten.note(Thing::Object(place.key, digest), good);
            }
            if !work.pace.tick(LEAST) {
                self.scrub.cut_off();
                return Ok(Err(Over));
            }
            work.spend(bytes);
            self.scrub.at(At::Objects(place.key, Some(digest)), 1);
            self.scrub.save_now_and_then(&self.run.rotten);
        }
        Ok(Ok(()))
    }

    fn packs(&self, mut after: Option<Digest>, work: &mut Work<'_>) -> Step {
        loop {
            if work.left == 0 {
                return Ok(Err(Over));
            }
            let mut read = 0;
            let last = self
                .run
                .store
                .check_packed(after.as_ref(), PAGE, &mut |digest, bytes, good| {
                    self.run.rotten.note(Thing::Packed(*digest), good);
                    work.spend(bytes);
                    read += 1;
                    work.pace.tick(bytes.max(LEAST))
                })?;
            let Some(last) = last else {
                return Ok(if work.pace.tick(0) { Ok(()) } else { Err(Over) });
            };
            if !work.pace.tick(0) {
                return Ok(Err(Over));
            }
            after = Some(last);
            self.scrub.at(At::Packs(after), read);
            self.scrub.save_now_and_then(&self.run.rotten);
        }
    }

    fn nodes(&self, mut after: Option<Digest>, work: &mut Work<'_>) -> Step {
        loop {
            let checked = self.run.store.snapshot()?.check_nodes(after.as_ref(), NODES)?;
            for digest in checked.damaged {
                self.run.rotten.note(Thing::Node(digest), false);
            }
            after = checked.last;
            self.scrub.at(At::Nodes(after), checked.checked);
            if after.is_none() {
                return Ok(Ok(()));
            }
            if !work.pace.tick(LEAST * 4) {
                return Ok(Err(Over));
            }
        }
    }
}
