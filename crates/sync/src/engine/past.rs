//! What is asked about a folder's past: which part of the engine answers. Never looks itself.

use alike_store::{FolderKey, Generation, Snapshot};

use super::Engine;
use super::socket::Responder;
use crate::control::PastRequest;
use crate::error::Error;

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
            PastRequest::Log { .. } | PastRequest::Diff { .. } | PastRequest::Verify { .. } => {
                drop(responder);
                Err(Error::Refused("it is not in this version yet".into()))
            }
        }
    }
}

/// Digits of a root that name a generation, at least.
const PREFIX: usize = 6;

/// The generation that a person named: by its number, or by the beginning of its root (then the newest that has it).
pub(crate) fn find_generation(
    snapshot: &Snapshot,
    folder: FolderKey,
    wanted: &str,
) -> Result<Generation, Error> {
    let refuse = |what: String| {
        Err(Error::Refused(format!(
            "{what}; `sync log` lists the generations"
        )))
    };
    if let Ok(number) = wanted.parse::<u64>() {
        if let Some(found) = snapshot.generation(folder, number)? {
            return Ok(found);
        }
        if wanted.len() < PREFIX {
            return refuse(format!("there is no generation {number} (any more)"));
        }
    }
    let is_root = wanted.len() >= PREFIX && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_root {
        return refuse(format!(
            "“{wanted}” names no generation: give its number, or the beginning of its root"
        ));
    }
    let wanted = wanted.to_ascii_lowercase();
    let all = snapshot.generations(folder, usize::MAX)?;
    let mut fitting = all.into_iter().filter(|g| g.root.to_hex().starts_with(&wanted));
    match (fitting.next(), fitting.next()) {
        (None, _) => refuse(format!("no generation has a root that begins with {wanted}")),
        (Some(one), Some(other)) if other.root != one.root => {
            refuse(format!("several generations have roots that begin with {wanted}"))
        }
        (Some(one), _) => Ok(one),
    }
}
