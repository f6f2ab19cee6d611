//! The puller of one folder: takes what is pending, gets the content (from this very disk where it is, else
//! from a peer), and hands it to the folder's thread, while the next batch is on its way. Never touches a path
//! of the folder itself.

mod base;
mod big;
mod delta;
mod have;
mod moving;
pub(crate) mod net;
mod obtain;
mod room;
pub(crate) mod small;
mod sweep;
mod told;
mod weigh;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;
use alike_core::message::SMALL_BLOB;
use alike_core::path::RelPath;
use alike_core::record::Value;
use iroh::EndpointId;
use iroh::endpoint::Connection;
use tokio::sync::{Notify, mpsc, watch};

use crate::apply::{Item, Outcome, Planned, Ready, Stage, gather, make_durable};
use crate::disk::Room;
use crate::error::Error;
use crate::failpoint::point;
use crate::folder::{FolderEvent, Inbox, Place, ask, tell};
use crate::wire::WireError;

use room::{Budget, Refused};

pub(crate) use big::PREFIX as BIG_TEMP;
pub(crate) use net::{NewNodes, state};
pub(crate) use obtain::obtain;

/// Big files under way at once.
const BIG_FILES: usize = 2;
/// Pause before what could not be done is tried again: first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What may be possible soon is tried this often at least.
const SOON: Duration = Duration::from_secs(2);

/// What may be about to move is not copied while a peer is known to have more soon, for so long at most.
const UNSETTLED: Duration = Duration::from_secs(10);
/// … and looked at again this often meanwhile.
const LATER: Duration = Duration::from_millis(500);

/// What goes is put off so often in a row, should HEAD change all the time.
const PUT_OFF: u32 = 8;

/// What is parked is tried this often, should nobody have noticed that it is possible by now.
const PARKED_AGAIN: Duration = Duration::from_secs(60);

/// A peer that content of the folder can be asked of.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) device: EndpointId,
    pub(crate) connection: Connection,
}

/// The ways to a running puller.
#[derive(Debug)]
pub(crate) struct Puller {
    kick: Arc<Notify>,
    sources: watch::Sender<Vec<Source>>,
    unsettled: watch::Sender<Option<Instant>>,
    paused: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Puller {
    pub(crate) fn start(place: Arc<Place>, folder: Inbox, paused: bool) -> Self {
        let kick = Arc::new(Notify::new());
        let (sources, from) = watch::channel(Vec::new());
        let (unsettle, unsettled) = watch::channel(None);
        let (pause, is_paused) = watch::channel(paused);
        let worker = Worker {
            place,
            folder,
            sources: from,
            unsettled,
            paused: is_paused,
            kick: kick.clone(),
            full: AtomicBool::new(false),
            put_off: AtomicU32::new(0),
        };
        let task = tokio::spawn(worker.run());
        Puller {
            kick,
            sources,
            unsettled: unsettle,
            paused: pause,
            task,
        }
    }

    /// There may be something to do.
    pub(crate) fn kick(&self) {
        self.kick.notify_one();
    }

    /// Whom to ask from now on.
    pub(crate) fn set_sources(&self, sources: Vec<Source>) {
        self.sources.send_replace(sources);
        self.kick();
    }

    /// Is no peer known to have more soon?
    pub(crate) fn set_settled(&self, settled: bool) {
        let news = self.unsettled.send_if_modified(|since| {
            let news = since.is_none() != settled;
            if news {
                *since = (!settled).then(Instant::now);
            }
            news
        });
        if news && settled {
            self.kick();
        }
    }

    /// Who is asked now.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.sources.borrow().clone()
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
        self.kick();
    }

    /// Ends it, wherever it is; what has not been handed to the folder's thread is fetched again.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Fetches one blob from a peer into a file, verified. `false`: the peer does not have it.
pub(crate) async fn one(
    source: &Source,
    place: &Arc<Place>,
    (digest, size): (Digest, u64),
    file: std::fs::File,
) -> Result<bool, WireError> {
    if size > SMALL_BLOB {
        let all = crate::outboard::all_groups(size).to_vec();
        let mut arrived = Vec::new();
        return net::ranges(&source.connection, place, (digest, size), all, file, &mut arrived).await;
    }
    let (out, mut arrived) = mpsc::channel(1);
    net::blobs(&source.connection, place, &[(digest, size)], out).await?;
    let Some((_, Some(bytes))) = arrived.recv().await else {
        return Ok(false);
    };
    if Digest::of(&bytes) != digest {
        return Err(WireError::protocol("a blob that does not match its digest"));
    }
    std::io::Write::write_all(&mut &file, &bytes).map_err(WireError::lost)?;
    Ok(true)
}

struct Worker {
    place: Arc<Place>,
    folder: Inbox,
    sources: watch::Receiver<Vec<Source>>,
    /// Since when one of them is known to have more soon.
    unsettled: watch::Receiver<Option<Instant>>,
    paused: watch::Receiver<bool>,
    kick: Arc<Notify>,
    /// Was there too little room the last time?
    full: AtomicBool,
    /// How often what goes was put off in a row, because HEAD had changed.
    put_off: AtomicU32,
}

/// What a pass came to.
#[derive(Default)]
struct Pass {
    planned: usize,
    done: usize,
    /// Something was left out that may be possible soon: there was no room, or a program had it open for writing.
    soon: bool,
    /// Something was left out that may move here soon.
    later: bool,
    /// HEAD has changed meanwhile: what comes first is to be looked at again.
    again: bool,
}

impl Pass {
    fn add(&mut self, other: Pass) {
        self.planned += other.planned;
        self.done += other.done;
        self.soon |= other.soon;
        self.later |= other.later;
        self.again |= other.again;
    }
}

impl Worker {
    async fn run(self) {
        let mut retry = RETRY.0;
        let mut big = big::BigFiles::new(self.place.clone(), BIG_FILES);
        loop {
            let pass = if *self.paused.borrow() {
                Ok(Pass::default())
            } else {
                self.pass(&mut big).await
            };
            let again = match pass {
                Ok(pass) if pass.done > 0 || pass.again => {
                    retry = RETRY.0;
                    // What was blocked may have come free.
                    true
                }
                Ok(pass) => {
                    if pass.soon || pass.later {
                        retry = retry.min(SOON);
                    }
                    if pass.later {
                        self.until_settled().await;
                    }
                    if pass.planned == 0 && big.is_idle() {
                        big.clear();
                        retry = RETRY.0;
                        tokio::select! {
                            () = self.kick.notified() => {}
                            ready = big.next() => { self.apply_big(ready).await; }
                            () = tokio::time::sleep(PARKED_AGAIN), if !self.place.parked.is_empty() => {
                                tell(&self.folder, FolderEvent::TryParked).await;
                            }
                        }
                        continue;
                    }
                    false
                }
                Err(error) => {
                    tracing::warn!(folder = %self.place.row.name, "{error}");
                    false
                }
            };
            if again {
                continue;
            }
            tokio::select! {
                () = self.kick.notified() => {}
                ready = big.next() => {
                    if self.apply_big(ready).await {
                        retry = RETRY.0;
                    }
                }
                () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY.1),
            }
        }
    }

    /// Goes once through everything that is pending: first what comes, so that files can move there before they go.
    async fn pass(&self, big: &mut big::BigFiles) -> Result<Pass, Error> {
        // Who cannot remember what is on disk must not put more there.
        if self.place.store.check_room().is_err() {
            tell(&self.folder, FolderEvent::CheckRoom).await;
            return Ok(Pass {
                soon: true,
                planned: 1,
                ..Pass::default()
            });
        }
        let mut refused = Refused::default();
        let (mut pass, root) = self.sweep(Stage::Come, None, big, &mut refused).await?;
        // What comes may be about to move from where something goes: also what only HEAD knows by now that was not
        // looked at yet. But not for ever.
        if pass.later {
            pass.soon = true;
        } else {
            let often = self.put_off.load(Ordering::Relaxed) >= PUT_OFF;
            let (go, _) = self
                .sweep(Stage::Go, root.filter(|_| !often), big, &mut refused)
                .await?;
            match go.again {
                true => self.put_off.fetch_add(1, Ordering::Relaxed),
                false => self.put_off.swap(0, Ordering::Relaxed),
            };
            pass.add(go);
        }
        let full = refused.text();
        pass.soon |= full.is_some();
        self.say_full(full).await;
        Ok(pass)
    }

    /// Leaves out what a program has open for writing: it could not be replaced, and need not be fetched yet.
    async fn closed(&self, items: Vec<Item>, any: &mut bool) -> Result<Vec<Item>, Error> {
        let place = self.place.clone();
        let (open, items): (Vec<Item>, Vec<Item>) = blocking(move || {
            let open = |item: &Item| item.displaces_file() && place.root.is_being_written(&item.path);
            Ok(items.into_iter().partition(open))
        })
        .await?;
        if !open.is_empty() {
            *any = true;
            let paths = open.into_iter().map(|item| item.path).collect();
            tell(&self.folder, FolderEvent::BeingWritten(paths)).await;
        }
        Ok(items)
    }

    /// Leaves out what there is no room for; `claimed` bytes are on their way already.
    async fn fit(&self, items: Vec<Item>, claimed: u64, all: &mut Refused) -> Result<Vec<Item>, Error> {
        let place = self.place.clone();
        let claimed = claimed.saturating_sub(self.place.partial.load(Ordering::Relaxed));
        let (items, refused) = blocking(move || {
            // Where nobody can tell, it is tried.
            let room = place.root.room().unwrap_or(Room { free: 0, total: 0 });
            let mut budget = Budget::new(room, claimed);
            let fits = |item: &Item| budget.take(item, big::arrived(&place, item));
            let items: Vec<Item> = items.into_iter().filter(fits).collect();
            Ok((items, budget.refused))
        })
        .await?;
        all.add(&refused);
        Ok(items)
    }

    /// Tells the folder whether there is room, if that is news.
    async fn say_full(&self, full: Option<String>) {
        if self.full.swap(full.is_some(), Ordering::Relaxed) || full.is_some() {
            tell(&self.folder, FolderEvent::DiskFull(full)).await;
        }
    }

    async fn plan(
        &self,
        stage: Stage,
        after: Option<RelPath>,
        at_most: usize,
        skip: HashSet<RelPath>,
    ) -> Result<Planned, Error> {
        let place = self.place.clone();
        blocking(move || gather(&place, Some(stage), after.as_ref(), at_most, &skip)).await
    }

    /// Is a peer known to have more soon? Not for ever: one whose user is always writing never says that this is all.
    fn more_comes(&self) -> bool {
        self.unsettled
            .borrow()
            .is_some_and(|since| since.elapsed() < UNSETTLED)
    }

    /// Waits until no peer is known to have more soon, but not for long: something else may have come.
    async fn until_settled(&self) {
        let mut unsettled = self.unsettled.clone();
        let settled = unsettled.wait_for(Option::is_none);
        let _ = tokio::time::timeout(LATER, settled).await;
    }

    /// Makes the content of a batch durable here, so that the folder's thread, which has saves of this device to commit
    /// too, need not wait for it. `false` if that failed: then it is tried there, and told.
    async fn make_durable(&self, batch: Vec<Ready>) -> Result<(Vec<Ready>, bool), Error> {
        let place = self.place.clone();
        blocking(move || {
            let durable = make_durable(&place.root, batch.iter());
            if let Err(source) = &durable {
                let path = place.root.path().display();
                tracing::warn!(folder = %place.row.name, "{path} cannot be made durable ({source}): tried again");
            }
            Ok((batch, durable.is_ok()))
        })
        .await
    }

    /// Hands a batch to the folder's thread; returns how many items were done.
    async fn apply(&self, planned: Option<Digest>, ready: Vec<Ready>, durable: bool) -> usize {
        point("fetch.ready");
        let apply = |reply| FolderEvent::Apply {
            planned,
            ready,
            durable,
            reply,
        };
        let outcomes = ask(&self.folder, apply).await.unwrap_or_default();
        outcomes.iter().filter(|o| **o == Outcome::Done).count()
    }

    /// Applies a big file, if it is complete. Was it? If nobody had it, there is no hurry to ask again.
    async fn apply_big(&self, done: big::Arrived) -> bool {
        let bytes = done.bytes;
        let complete = done.ready.is_some();
        if let Some((root, ready)) = done.ready
            && let Ok((ready, durable)) = self.make_durable(vec![ready]).await
        {
            self.apply(root, ready, durable).await;
        }
        self.place.partial.fetch_sub(bytes, Ordering::Relaxed);
        if complete {
            self.kick.notify_one();
        }
        complete
    }
}

fn is_big(item: &Item) -> bool {
    let size = match &item.head {
        Some(head) => match head.value {
            Value::File { size, .. } => size,
            Value::Dir | Value::Symlink { .. } => 0,
        },
        None => 0,
    };
    item.op.needs_content() && size > SMALL_BLOB
}

/// Runs disk work off the network's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Refused("the engine is stopping".into())),
    }
}
