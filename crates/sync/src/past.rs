//! Looking at a folder's past: generations, the versions of a path, what differs. Wants a database and no engine;
//! waits for the disk, so the engine does it beside its loop. Never changes anything.

mod content;
mod diff;
mod elsewhere;
mod log;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use alike_store::{FolderKey, FolderRow, Generation, Snapshot, Store, StoreError};
use serde_json::Value;

use crate::config::Config;
use crate::control::PastRequest;
use crate::disk::Root;
use crate::error::Error;
use crate::folder::Place;
use crate::{endpoint, named};

pub(crate) use diff::diff;
pub(crate) use elsewhere::elsewhere;
pub(crate) use log::{generations, versions};

/// A folder whose past is looked at.
pub(crate) struct Past {
    pub(crate) store: Arc<Store>,
    pub(crate) row: FolderRow,
    /// `None`: the folder cannot be used now; then only the database is asked what is here.
    pub(crate) place: Option<Arc<Place>>,
    pub(crate) names: Names,
}

/// What devices are called.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<[u8; 32], String>);

impl Names {
    /// This device's and those of all that it is paired with.
    pub(crate) fn new(store: &Store, own: [u8; 32], name: &str) -> Result<Names, Error> {
        let rows = store.devices()?.into_iter().map(|row| (row.id, row.name));
        Ok(Names(rows.chain([(own, name.to_owned())]).collect()))
    }

    /// A device's name; the beginning of its id if it is none of ours (any more).
    fn of(&self, device: &[u8; 32]) -> String {
        match self.0.get(device) {
            Some(name) => name.clone(),
            None => device[..5].iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Answers `log` and `diff` while no engine runs. What is not on this device counts as nowhere.
pub fn offline(config: &Config, request: &PastRequest) -> Result<Value, Error> {
    let (folder, path) = match request {
        PastRequest::Log { folder, path, .. } => (folder, path.as_deref()),
        PastRequest::Diff { folder, .. } => (folder, None),
        PastRequest::Restore { .. }
        | PastRequest::Checkout { .. }
        | PastRequest::Pin { .. }
        | PastRequest::Gc { .. }
        | PastRequest::Verify { .. } => return Err(Error::Refused("this needs an engine".into())),
    };
    let home = &config.home;
    let rows = match is_there(home) {
        true => Some(open(home)?),
        // Asking makes no state directory.
        false => None,
    };
    let Some((store, rows)) = rows else {
        return Err(named::folder(&[], folder).expect_err("there is none"));
    };
    let row = named::folder_of(&rows.iter().collect::<Vec<_>>(), folder, path)?.clone();
    let own = endpoint::device_key(home)?.public();
    let place = Root::open(&row.path)
        .ok()
        .filter(|root| root.check(&row.marker).is_ok())
        .map(|root| {
            Arc::new(Place::new(
                row.clone(),
                root,
                store.clone(),
                home.join("outboards"),
            ))
        });
    let past = Past {
        names: Names::new(&store, *own.as_bytes(), &config.name)?,
        store,
        row,
        place,
    };
    let nowhere = HashSet::new();
    match request {
        PastRequest::Log { limit, path, .. } => {
            Ok(look(&past, *limit, path.as_deref(), &folder.cwd)?.judged(&nowhere))
        }
        PastRequest::Diff { from, to, .. } => json(&diff(&past, from, to.as_deref())?),
        _ => unreachable!("refused above"),
    }
}

fn is_there(home: &Path) -> bool {
    home.join(alike_store::DATABASE).exists()
}

fn open(home: &Path) -> Result<(Arc<Store>, Vec<FolderRow>), Error> {
    match Store::open(home) {
        Ok(store) => {
            let rows = store.folders()?;
            Ok((Arc::new(store), rows))
        }
        Err(StoreError::InUse { .. }) => Err(Error::Refused(format!(
            "the state directory {} is in use, but no engine answers: one is starting or ending; try again in a moment",
            home.display()
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The generations, or the versions of what a person calls `path`; what is not here has still to be looked for elsewhere.
pub(crate) fn look(
    past: &Past,
    limit: Option<usize>,
    path: Option<&Path>,
    cwd: &Path,
) -> Result<content::Listing, Error> {
    let limit = limit.unwrap_or(usize::MAX);
    match path {
        None => generations(past, limit),
        Some(typed) => versions(past, limit, &named::path_in(&past.row, cwd, typed)?),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Value, Error> {
    Ok(serde_json::to_value(value).expect("answers are plain data"))
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
