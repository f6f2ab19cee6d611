//! `sync verify`: which folders are read, and by whom. One run at a time: the next one waits for the one before, which
//! ends when its command has gone away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Engine;
use super::folders::Slot;
use super::socket::Responder;
use crate::control::FolderRef;
use crate::error::Error;
use crate::verify::{Part, Positions, Run, lower_priority};

/// The run that began last.
#[derive(Default)]
pub(super) struct Verifying {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    positions: Positions,
}

impl Verifying {
    /// Ends it; what it has read by now is remembered for as long as the engine runs.
    pub(super) async fn close(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Engine {
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
        let run = Run {
            store: self.store.clone(),
            parts,
            unavailable,
            repair,
            positions: self.verifying.positions.clone(),
            stop: self.verifying.stop.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let before = self.verifying.thread.take();
        let thread = std::thread::Builder::new()
            .name("verify".into())
            .spawn(move || {
                if let Some(before) = before {
                    let _ = before.join();
                }
                lower_priority();
                let result = run.run(&|| responder.is_gone(), &|progress| responder.event(&progress));
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
}
