//! One sweep over what is pending, with all its stages busy at once: planned, fetched, made durable, applied. Never
//! touches a path of the folder itself.

use alike_core::digest::Digest;
use tokio::sync::mpsc;

use super::big::BigFiles;
use super::room::Refused;
use super::{Pass, Source, Worker, is_big, small};
use crate::apply::{Item, Planned, Ready, Stage};
use crate::error::Error;
use crate::folder::{FolderEvent, ask};

/// Paths in one batch: so many at least, and at most. The more there is to do, the larger; but saves of this device
/// wait for the batch that is applied.
const PATHS: (u64, u64) = (1000, 2000);
/// Batches that are durable and wait to be applied.
const DURABLE: usize = 2;

/// What was planned, and is not all here yet.
struct Batch {
    root: Option<Digest>,
    sources: Vec<Source>,
    ready: Vec<Ready>,
    wanted: Vec<Item>,
}

impl Worker {
    /// Goes once through what is pending in a stage: while one batch is applied, the next one is made durable, the one
    /// after that is fetched, and another one planned. Ends where HEAD is not `only` that any more; returns what it was
    /// at first.
    pub(super) async fn sweep(
        &self,
        stage: Stage,
        only: Option<Option<Digest>>,
        big: &mut BigFiles,
        refused: &mut Refused,
    ) -> Result<(Pass, Option<Option<Digest>>), Error> {
        let (to_fetch, mut planned) = mpsc::channel::<Batch>(1);
        let (to_sync, mut fetched) = mpsc::channel::<(Option<Digest>, Vec<Ready>)>(1);
        let (to_apply, mut durable) = mpsc::channel::<(Option<Digest>, Vec<Ready>, bool)>(DURABLE);
        let mut pass = Pass::default();
        let mut first = None;
        let plan = async {
            let to_fetch = to_fetch;
            let mut after = None;
            let at_most = self.batch_size().await?;
            loop {
                let skip = big.under_way();
                let parkings = self.place.parked.parkings();
                let Planned { root, items, last } = self.plan(stage, after.take(), at_most, skip).await?;
                let Some(last) = last.filter(|_| !*self.paused.borrow()) else {
                    break;
                };
                first.get_or_insert(root);
                if only.is_some_and(|only| only != root) {
                    pass.again = true;
                    break;
                }
                after = Some(last);
                pass.planned += items.len();
                let items = self.closed(items, &mut pass.soon).await?;
                let items = self.fit(items, big.remaining(), refused).await?;
                let (large, small): (Vec<Item>, Vec<Item>) = items.into_iter().partition(is_big);
                let sources = self.sources.borrow().clone();
                let more = self.more_comes();
                let large = small::local(&self.place, large, more).await?;
                for item in large.rest {
                    big.begin(item, root, &sources);
                }
                let small = small::local(&self.place, small, more).await?;
                pass.later |= small.later + large.later > 0;
                if self.place.parked.parkings() != parkings {
                    // That nobody need wait for it is news.
                    let _ = ask(&self.folder, FolderEvent::Barrier).await;
                }
                let mut ready = small.ready;
                ready.extend(large.ready);
                let batch = Batch {
                    root,
                    sources,
                    ready,
                    wanted: small.rest,
                };
                if to_fetch.send(batch).await.is_err() {
                    break;
                }
            }
            Ok::<(), Error>(())
        };
        let fetch = async {
            let to_sync = to_sync;
            while let Some(batch) = planned.recv().await {
                let mut ready = small::fetched(&self.place, batch.wanted, &batch.sources).await?;
                ready.extend(batch.ready);
                if !ready.is_empty() && to_sync.send((batch.root, ready)).await.is_err() {
                    break;
                }
            }
            Ok::<(), Error>(())
        };
        let sync = async {
            let to_apply = to_apply;
            while let Some((root, batch)) = fetched.recv().await {
                let (batch, durable) = self.make_durable(batch).await?;
                if to_apply.send((root, batch, durable)).await.is_err() {
                    break;
                }
            }
            Ok::<(), Error>(())
        };
        let apply = async {
            let mut done = 0;
            while let Some((root, batch, durable)) = durable.recv().await {
                done += self.apply(root, batch, durable).await;
            }
            done
        };
        let (planned, fetched, synced, done) = tokio::join!(plan, fetch, sync, apply);
        planned.and(fetched).and(synced)?;
        pass.done = done;
        Ok((pass, first))
    }

    async fn batch_size(&self) -> Result<usize, Error> {
        let place = self.place.clone();
        super::blocking(move || {
            let (files, _) = place.store.snapshot()?.pending_total(place.key)?;
            Ok((files / 8).clamp(PATHS.0, PATHS.1) as usize)
        })
        .await
    }
}
