//! `sync restore` and `sync checkout`: what is missing here is fetched first; then the folder's thread, or a blocking
//! thread, does the work.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::entry::Entry;
use alike_core::path::RelPath;
use alike_store::Generation;

use super::Engine;
use super::folders::{OpenFolder, Slot};
use super::past::find_generation;
use super::socket::Responder;
use crate::blobs;
use crate::checkout;
use crate::control::{CheckedOut, CheckoutProgress, FolderRef, Restored};
use crate::error::Error;
use crate::fetch::{Source, obtain};
use crate::folder::{FolderEvent, Place, Wish, ask};
use crate::status::json_text;

/// Files after which a checkout says how far it is.
const TELL_EVERY: u64 = 200;

impl Engine {
    fn open_one(&self, wanted: &FolderRef) -> Result<&OpenFolder, Error> {
        let key = self.find_folder(wanted)?;
        match &self.folders[&key] {
            Slot::Open(folder) => Ok(folder),
            Slot::Closed(closed) => Err(Error::Refused(closed.reason.clone())),
        }
    }

    pub(super) fn restore(
        &self,
        wanted: &FolderRef,
        generation: &str,
        paths: &[PathBuf],
        responder: Responder,
    ) -> Result<(), Error> {
        let folder = self.open_one(wanted)?;
        let name = folder.row.name.clone();
        let refuse = |why: String| Err(Error::Refused(format!("the folder “{name}” {why}")));
        let view = folder.thread.view.borrow().clone();
        if let Some(reason) = view.frozen.or(view.broken.map(|broken| broken.reason)) {
            return refuse(format!("cannot be changed now: {reason}"));
        }
        if !view.held.is_empty() {
            return refuse("holds a removal: answer it first with `sync accept` or `sync reject`".into());
        }
        if folder.row.paused {
            return refuse("is paused: `sync resume` first".into());
        }
        let mut grants = folder.grants.values().peekable();
        if grants.peek().is_some() && grants.all(|grant| grant.receive_only) {
            return refuse(
                "is read-only on this device: restore it on a device that may write, or use `sync checkout`"
                    .into(),
            );
        }
        let snapshot = self.store.snapshot()?;
        let generation = find_generation(&snapshot, folder.row.key, generation)?;
        let paths = paths
            .iter()
            .map(|path| inside(&folder.row.path, &wanted.cwd, path))
            .collect::<Result<Vec<_>, Error>>()?;
        let wish = Wish {
            generation,
            paths: if paths.iter().any(RelPath::is_root) {
                Vec::new()
            } else {
                paths
            },
            missing: BTreeSet::new(),
        };
        let (place, sources) = (folder.place.clone(), folder.puller.sources());
        let inbox = folder.thread.events.clone();
        tokio::spawn(async move {
            // What it needs is not let go of before it is done.
            let lease = place.store.lease();
            match prepared(&place, wish, &sources).await {
                Ok(wish) => {
                    let number = wish.generation.number;
                    let missing = wish
                        .missing
                        .iter()
                        .map(|path| json_text(path.as_bytes()))
                        .collect();
                    let wish = Box::new(wish);
                    match ask(&inbox, |reply| FolderEvent::Restore { wish, reply }).await {
                        Some(Ok((changed, removed))) => responder.done(&Restored {
                            folder: name,
                            generation: number,
                            changed,
                            removed,
                            missing,
                        }),
                        Some(Err(error)) => responder.failed(error, false),
                        None => responder.failed("the folder has stopped; `sync status` says why", false),
                    }
                }
                Err(error) => responder.failed(error, false),
            }
            drop(lease);
        });
        Ok(())
    }

    pub(super) fn checkout(
        &self,
        wanted: &FolderRef,
        generation: &str,
        dir: PathBuf,
        responder: Responder,
    ) -> Result<(), Error> {
        let folder = self.open_one(wanted)?;
        let around = |slot: &&Slot| dir.starts_with(&slot.row().path) || slot.row().path.starts_with(&dir);
        if let Some(slot) = self.folders.values().find(around) {
            return Err(Error::Refused(format!(
                "{} is in or around the folder “{}”, and would be synced: name a directory elsewhere",
                dir.display(),
                slot.row().name
            )));
        }
        checkout::check_target(&dir)?;
        let generation = find_generation(&self.store.snapshot()?, folder.row.key, generation)?;
        let (place, sources) = (folder.place.clone(), folder.puller.sources());
        tokio::spawn(async move {
            // What it needs is not let go of before it is done.
            let lease = place.store.lease();
            match checked_out(place, generation, dir, &sources, &responder).await {
                Ok(done) => responder.done(&done),
                Err(error) => responder.failed(error, false),
            }
            drop(lease);
        });
        Ok(())
    }
}

/// Fetches what is not here; what nobody has is noted as missing.
async fn prepared(place: &Arc<Place>, mut wish: Wish, sources: &[Source]) -> Result<Wish, Error> {
    let here = place.clone();
    let (wish_back, absent) = tokio::task::spawn_blocking(move || {
        let snapshot = here.store.snapshot()?;
        let now = snapshot.head(here.key)?.summary.root;
        let mut absent: HashMap<Digest, (u64, Vec<RelPath>)> = HashMap::new();
        let all = wish.differences(&snapshot, now)?;
        if let Some(path) = wish
            .paths
            .iter()
            .find(|path| !all.iter().any(|d| d.path.is_within(path)))
            && !is_there(&snapshot, now, path)?
            && !is_there(&snapshot, wish.generation.root, path)?
        {
            return Err(Error::Refused(format!(
                "“{path}” is neither in generation {} nor in the folder",
                wish.generation.number
            )));
        }
        for difference in all {
            if let Some(Entry::File { digest, size, .. }) = difference.after
                && size > 0
                && !blobs::has(&here, &snapshot, &digest)
            {
                absent
                    .entry(digest)
                    .or_insert((size, Vec::new()))
                    .1
                    .push(difference.path);
            }
        }
        Ok((wish, absent))
    })
    .await
    .map_err(|e| Error::Refused(e.to_string()))??;
    wish = wish_back;
    let wanted = absent
        .iter()
        .map(|(digest, (size, _))| (*digest, *size))
        .collect();
    let missing: HashSet<Digest> = obtain(place, wanted, sources)
        .await?
        .into_iter()
        .map(|(d, _)| d)
        .collect();
    for (digest, (_, paths)) in absent {
        if missing.contains(&digest) {
            wish.missing.extend(paths);
        }
    }
    Ok(wish)
}

/// Is there anything at a path of a content tree?
fn is_there(snapshot: &alike_store::Snapshot, root: Digest, path: &RelPath) -> Result<bool, Error> {
    let mut at = root;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let entries = alike_core::tree::read::<alike_core::entry::NamedEntry>(snapshot, at)?;
        match entries
            .into_iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.entry)
        {
            None => return Ok(false),
            Some(_) if names.peek().is_none() => return Ok(true),
            Some(Entry::Dir { digest }) => at = digest,
            Some(_) => return Ok(false),
        }
    }
    Ok(true)
}

async fn checked_out(
    place: Arc<Place>,
    generation: Generation,
    dir: PathBuf,
    sources: &[Source],
    responder: &Responder,
) -> Result<CheckedOut, Error> {
    let (here, root) = (place.clone(), generation.root);
    let absent = tokio::task::spawn_blocking(move || {
        let snapshot = here.store.snapshot()?;
        let mut all = checkout::contents(&snapshot, root)?;
        all.retain(|(digest, size)| *size > 0 && !blobs::has(&here, &snapshot, digest));
        Ok::<_, Error>(all)
    })
    .await
    .map_err(|e| Error::Refused(e.to_string()))??;
    obtain(&place, absent, sources).await?;
    let told = responder.clone();
    let number = generation.number;
    let written = tokio::task::spawn_blocking(move || {
        let mut progress = |files: u64| {
            if files.is_multiple_of(TELL_EVERY) {
                told.event(&CheckoutProgress { files });
            }
            !told.is_gone()
        };
        checkout::write(&place, &generation, &dir, &mut progress)
    })
    .await
    .map_err(|e| Error::Refused(e.to_string()))??;
    Ok(CheckedOut {
        generation: number,
        root: root.to_hex(),
        files: written.files,
        bytes: written.bytes,
        missing: written
            .missing
            .iter()
            .map(|path| json_text(path.as_bytes()))
            .collect(),
    })
}

/// A path that a person named, as one of the folder's: absolute, or below where he stands if that is in the folder, or
/// below the folder.
pub(super) fn inside(root: &Path, cwd: &Path, path: &Path) -> Result<RelPath, Error> {
    use std::os::unix::ffi::OsStrExt;
    let refuse = |why: &str| Err(Error::Refused(format!("{}: {why}", path.display())));
    let real = std::fs::canonicalize(cwd).unwrap_or_else(|_| cwd.to_owned());
    let base = if real.starts_with(root) {
        real
    } else {
        root.to_owned()
    };
    let mut whole = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    // The way to the folder may have been named through links.
    let found = whole.strip_prefix(root).map(Path::to_owned).or_else(|_| {
        let parent = whole.parent().and_then(|parent| parent.canonicalize().ok());
        let name = whole.file_name().unwrap_or_default();
        parent
            .map(|p| p.join(name))
            .unwrap_or_default()
            .strip_prefix(root)
            .map(Path::to_owned)
    });
    match found {
        Ok(rest) if rest.as_os_str().is_empty() => Ok(RelPath::root()),
        Ok(rest) => RelPath::parse(rest.as_os_str().as_bytes()).or_else(|e| refuse(&e.to_string())),
        Err(_) => refuse("that is not in the folder"),
    }
}
