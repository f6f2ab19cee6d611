//! `sync verify`, and the scrub by itself: which folders are read, and by whom. One run at a time: the next `sync verify`
//! waits for the one before, which ends when its command has gone away; the scrub waits for the next hour.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use alike_store::FolderKey;

use super::folders::Slot;
use super::socket::Responder;
use super::{Engine, Event};
use crate::control::FolderRef;
use crate::error::Error;
use crate::folder::now_ms;
use crate::status::{ScrubStatus, rfc3339};
use crate::verify::{Batch, Busy, Part, Positions, Rotten, Run, Scrub, every, lower_priority};

/// The first batch after a start does not come sooner than this, if it need not.
const AFTER_START: Duration = Duration::from_secs(10 * 60);

/// The run that began last, and what all have found.
pub(super) struct Verifying {
    thread: Option<JoinHandle<()>>,
    scrubbing: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    positions: Positions,
    scrub: Arc<Scrub>,
    pub(super) rotten: Arc<Rotten>,
}

impl Verifying {
    pub(super) fn new(home: &Path) -> Verifying {
        let (scrub, rotten) = Scrub::load(home);
        Verifying {
            thread: None,
            scrubbing: None,
            stop: Arc::default(),
            positions: Positions::default(),
            scrub: Arc::new(scrub),
            rotten: Arc::new(rotten),
        }
    }

    /// Ends it; what a run has read by now is remembered for as long as the engine runs, how far the scrub is for good.
    pub(super) async fn close(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in [self.thread.take(), self.scrubbing.take()].into_iter().flatten() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Does a thread read now?
    fn is_reading(&self) -> bool {
        let threads = [&self.thread, &self.scrubbing];
        threads.into_iter().flatten().any(|thread| !thread.is_finished())
    }
}

impl Engine {
    /// What is to be read of these folders; the names of those that are not there.
    fn run(&self, keys: Vec<FolderKey>, repair: bool) -> Run {
        let (mut parts, mut unavailable) = (Vec::new(), Vec::new());
        for key in keys {
            match &self.folders[&key] {
                Slot::Open(folder) => parts.push(Part {
                    place: folder.place.clone(),
                    events: folder.thread.events.clone(),
                    scanner: folder.scanner.input.clone(),
                    sources: folder.puller.sources(),
                }),
                Slot::Closed(folder) => unavailable.push(folder.row.name.clone()),
            }
        }
        Run {
            store: self.store.clone(),
            parts,
            unavailable,
            repair,
            positions: self.verifying.positions.clone(),
            rotten: self.verifying.rotten.clone(),
            stop: self.verifying.stop.clone(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    pub(super) fn verify(
        &mut self,
        wanted: &FolderRef,
        repair: bool,
        responder: Responder,
    ) -> Result<(), Error> {
        let keys = match wanted.name {
            Some(_) => vec![self.find_folder(wanted)?],
            None => self.folders.keys().copied().collect(),
        };
        let run = self.run(keys, repair);
        let (scrub, rotten) = (self.verifying.scrub.clone(), self.verifying.rotten.clone());
        let before = self.verifying.thread.take();
        let thread = std::thread::Builder::new()
            .name("verify".into())
            .spawn(move || {
                if let Some(before) = before {
                    let _ = before.join();
                }
                lower_priority();
                let result = run.run(&|| responder.is_gone(), &|progress| responder.event(&progress));
                scrub.save(&rotten);
                match result {
                    Ok(Some(done)) => responder.done(&done),
                    Ok(None) => responder.failed("the engine was stopped", false),
                    Err(error) => responder.failed(error, false),
                }
            })
            .map_err(|e| Error::Refused(format!("cannot start a thread: {e}")))?;
        self.verifying.thread = Some(thread);
        Ok(())
    }

    /// Asks for a batch now and then, as long as the engine lives.
    pub(super) fn scrub_by_itself(&self) {
        let Some(round) = self.config.scrub else { return };
        let events = self.events.downgrade();
        tokio::spawn(async move {
            let every = every(round);
            tokio::time::sleep(every.min(AFTER_START)).await;
            while let Some(events) = events.upgrade() {
                if events.send(Event::Scrub).await.is_err() {
                    return;
                }
                drop(events);
                tokio::time::sleep(every).await;
            }
        });
    }

    /// A batch, if nobody reads just now.
    pub(super) fn scrub_now(&mut self) {
        let Some(round) = self.config.scrub else { return };
        if self.verifying.is_reading() || !self.verifying.scrub.is_due(round, now_ms()) {
            return;
        }
        let open = self.folders.values().filter_map(|slot| match slot {
            Slot::Open(folder) => Some((folder.place.clone(), folder.scanner.activity.clone())),
            Slot::Closed(_) => None,
        });
        let batch = Batch {
            busy: Busy::new(open.collect()),
            run: self.run(self.folders.keys().copied().collect(), false),
            scrub: self.verifying.scrub.clone(),
            round,
        };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || {
            lower_priority();
            batch.run();
        });
        match thread {
            Ok(thread) => self.verifying.scrubbing = Some(thread),
            Err(error) => tracing::warn!("cannot start a thread: {error}"),
        }
    }

    pub(super) fn scrub_status(&self) -> ScrubStatus {
        let state = self.verifying.scrub.state();
        ScrubStatus {
            every_days: self.config.scrub.map(|round| round.as_secs_f64() / 86_400.0),
            last_round: state.ended_ms.map(rfc3339),
            began: (state.began_ms > 0).then(|| rfc3339(state.began_ms)),
            checked: state.checked,
        }
    }
}
