//! What is asked about a folder's past: which part of the engine answers. Never looks itself.

use std::sync::Arc;

use alike_store::FolderKey;
use iroh::endpoint::Connection;

use super::Engine;
use super::folders::Slot;
use super::socket::Responder;
use crate::control::PastRequest;
use crate::error::Error;
use crate::named;
use crate::past::{self, Names, Past, elsewhere};

pub(crate) use crate::past::find_generation;

impl Engine {
    pub(super) fn past(&mut self, request: PastRequest, responder: Responder) -> Result<(), Error> {
        match request {
            PastRequest::Restore {
                folder,
                generation,
                paths,
            } => self.restore(&folder, &generation, &paths, responder),
            PastRequest::Checkout {
                folder,
                generation,
                dir,
            } => self.checkout(&folder, &generation, dir, responder),
            PastRequest::Pin {
                folder,
                generation,
                keep,
            } => self.pin(&folder, &generation, keep, &responder),
            PastRequest::Gc {
                folder,
                keep,
                older_than_secs,
                dry_run,
            } => self.gc(&folder, keep, older_than_secs, dry_run, responder),
            PastRequest::Log { folder, limit, path } => {
                let key = named::folder_of(&self.folder_rows(), &folder, path.as_deref())?.key;
                let (past, peers) = (self.past_of(key)?, self.connections_of(key));
                let id = past.row.id;
                tokio::spawn(async move {
                    let look = move || past::look(&past, limit, path.as_deref(), &folder.cwd);
                    match beside(look).await {
                        Ok(listing) => {
                            let found = elsewhere(peers, id, listing.missing()).await;
                            responder.done(&listing.judged(&found));
                        }
                        Err(error) => responder.failed(error, false),
                    }
                });
                Ok(())
            }
            PastRequest::Diff { folder, from, to } => {
                let past = self.past_of(self.find_folder(&folder)?)?;
                tokio::spawn(async move {
                    match beside(move || past::diff(&past, &from, to.as_deref())).await {
                        Ok(list) => responder.done(&list),
                        Err(error) => responder.failed(error, false),
                    }
                });
                Ok(())
            }
            PastRequest::Verify { folder, repair } => self.verify(&folder, repair, responder),
        }
    }

    /// What looking at a folder's past wants of the engine.
    fn past_of(&self, key: FolderKey) -> Result<Past, Error> {
        let slot = &self.folders[&key];
        let place = match slot {
            Slot::Open(folder) => Some(folder.place.clone()),
            Slot::Closed(_) => None,
        };
        Ok(Past {
            store: Arc::clone(&self.store),
            row: slot.row().clone(),
            place,
            names: Names::new(&self.store, *self.endpoint.id().as_bytes(), &self.config.name)?,
        })
    }

    /// The connections to all devices that take part in a folder now.
    fn connections_of(&self, key: FolderKey) -> Vec<Connection> {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return Vec::new();
        };
        let sessions = folder.sessions.iter().filter(|(_, session)| session.takes_part());
        sessions
            .filter_map(|(device, _)| self.devices.get(device)?.link.as_ref())
            .map(|link| link.connection.clone())
            .collect()
    }
}

/// Runs what waits for the disk beside the loop.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::Refused(format!("looking at the past failed: {e}"))))
}
