//! `sync restore` and `sync checkout`: what is neither here nor, for a restore, on a connected device is fetched or missing;
//! then the folder's thread, or a blocking thread, does the work.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use alike_core::diff::look_up;
use alike_core::digest::Digest;
use alike_core::entry::Entry;
use alike_core::path::RelPath;
use alike_store::{FolderKey, Generation, Hold};

use super::Engine;
use super::folders::{OpenFolder, Slot};
use super::past::{beside, find_generation};
use super::socket::Responder;
use crate::blobs;
use crate::checkout;
use crate::control::{CheckedOut, FolderRef, PastProgress, Restored};
use crate::error::Error;
use crate::fetch::{Source, obtain};
use crate::folder::{FolderEvent, Inbox, Place, Wish, ask};
use crate::named;
use crate::past::elsewhere;
use crate::status::json_text;

/// Files after which a checkout says how far it is, and fetched bytes.
const TELL_EVERY: (u64, u64) = (200, 1 << 20);

impl Engine {
    fn open_one(&self, wanted: &FolderRef) -> Result<&OpenFolder, Error> {
        let key = self.find_folder(wanted)?;
        match &self.folders[&key] {
            Slot::Open(folder) => Ok(folder),
            Slot::Closed(closed) => Err(Error::Refused(closed.reason.clone())),
        }
    }

    /// Finds a generation; nothing of it is let go of while the hold lives.
    fn held(&self, key: FolderKey, wanted: &str) -> Result<(Generation, Hold), Error> {
        let generation = find_generation(&self.store.snapshot()?, key, wanted)?;
        let hold = self.store.hold(key, &generation)?.ok_or_else(|| {
            Error::Refused(format!("generation {} is not there any more", generation.number))
        })?;
        Ok((generation, hold))
    }

    pub(super) fn restore(
        &self,
        wanted: &FolderRef,
        generation: &str,
        paths: &[PathBuf],
        responder: Responder,
    ) -> Result<(), Error> {
        let key = named::folder_of(&self.folder_rows(), wanted, paths.first().map(PathBuf::as_path))?.key;
        let folder = match &self.folders[&key] {
            Slot::Open(folder) => folder,
            Slot::Closed(closed) => return Err(Error::Refused(closed.reason.clone())),
        };
        let refuse = |why: String| Err(Error::Refused(format!("the folder “{}” {why}", folder.row.name)));
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
        let (generation, hold) = self.held(key, generation)?;
        let paths = paths
            .iter()
            .map(|path| named::path_in(&folder.row, &wanted.cwd, path))
            .collect::<Result<Vec<_>, Error>>()?;
        let whole = paths.iter().any(RelPath::is_root);
        let wish = Wish {
            generation,
            _hold: hold,
            paths: if whole { Vec::new() } else { paths },
            missing: BTreeSet::new(),
        };
        let (place, sources) = (folder.place.clone(), folder.puller.sources());
        let inbox = folder.thread.events.clone();
        tokio::spawn(async move {
            tokio::select! {
                done = restored(&place, wish, &sources, &inbox, &responder) => match done {
                    Ok(done) => responder.done(&done),
                    Err(error) => responder.failed(error, false),
                },
                // Nobody wants it any more. What the folder's thread has been asked for, it does.
                () = responder.gone() => {}
            }
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
        let (generation, hold) = self.held(folder.row.key, generation)?;
        let (place, sources) = (folder.place.clone(), folder.puller.sources());
        tokio::spawn(async move {
            match checked_out(place, generation, dir, &sources, &responder).await {
                Ok(done) => responder.done(&done),
                Err(error) => responder.failed(error, false),
            }
            drop(hold);
        });
        Ok(())
    }
}

/// Finds out what nobody has, and lets the folder's thread do the rest: what others have the puller gets, as always.
async fn restored(
    place: &Arc<Place>,
    wish: Wish,
    sources: &[Source],
    inbox: &Inbox,
    responder: &Responder,
) -> Result<Restored, Error> {
    let here = place.clone();
    let (mut wish, absent) = beside(move || absent(&here, wish)).await?;
    let wanted: Vec<Digest> = absent.keys().copied().collect();
    let peers = sources.iter().map(|source| source.connection.clone()).collect();
    let found = elsewhere(peers, place.id, wanted).await;
    // A device that did not answer in time may have it all the same.
    let unsure = absent
        .iter()
        .filter(|(digest, _)| !found.contains(*digest))
        .map(|(digest, (size, _))| (*digest, *size))
        .collect();
    for (digest, _) in obtain(place, unsure, sources, &mut telling(responder)).await? {
        wish.missing.extend(absent[&digest].1.iter().cloned());
    }
    let generation = wish.generation.number;
    let missing = texts(&wish.missing);
    let wish = Box::new(wish);
    match ask(inbox, |reply| FolderEvent::Restore { wish, reply }).await {
        Some(done) => done.map(|(changed, removed)| Restored {
            folder: place.row.name.clone(),
            generation,
            changed,
            removed,
            missing,
        }),
        None => Err(Error::Refused(
            "the folder has stopped; `sync status` says why".into(),
        )),
    }
}

fn texts<'a>(paths: impl IntoIterator<Item = &'a RelPath>) -> Vec<serde_json::Value> {
    let texts = paths.into_iter().map(|path| json_text(path.as_bytes()));
    texts.collect()
}

/// Tells the command of bytes as they are fetched.
fn telling(responder: &Responder) -> impl FnMut(u64) + Send + use<> {
    let responder = responder.clone();
    let (mut fetched, mut told) = (0, 0);
    move |more| {
        fetched += more;
        if fetched >= told + TELL_EVERY.1 {
            told = fetched;
            responder.event(&PastProgress { fetched, files: 0 });
        }
    }
}

/// The contents that a restore needs, by digest: their sizes, and where they belong.
type Wanted = HashMap<Digest, (u64, Vec<RelPath>)>;

/// What a restore needs and is not here.
fn absent(place: &Place, wish: Wish) -> Result<(Wish, Wanted), Error> {
    let snapshot = place.store.snapshot()?;
    let now = snapshot.head(place.key)?.summary.root;
    let all = wish.differences(place, &snapshot, now)?;
    for path in &wish.paths {
        if !all.iter().any(|d| d.path.is_within(path))
            && look_up(&snapshot, now, path)?.is_none()
            && look_up(&snapshot, wish.generation.root, path)?.is_none()
        {
            return Err(Error::Refused(format!(
                "“{path}” is neither in generation {} nor in the folder",
                wish.generation.number
            )));
        }
    }
    let mut wanted = Wanted::new();
    for difference in all {
        if let Some(Entry::File { digest, size, .. }) = difference.after {
            let of = wanted.entry(digest).or_insert((size, Vec::new()));
            of.1.push(difference.path);
        }
    }
    wanted.retain(|digest, (size, _)| !blobs::is_here(place, &snapshot, digest, *size));
    Ok((wish, wanted))
}

async fn checked_out(
    place: Arc<Place>,
    generation: Generation,
    dir: PathBuf,
    sources: &[Source],
    responder: &Responder,
) -> Result<CheckedOut, Error> {
    let (here, root) = (place.clone(), generation.root);
    let absent = beside(move || {
        let snapshot = here.store.snapshot()?;
        let mut all = checkout::contents(&snapshot, root)?;
        all.retain(|(digest, size)| !blobs::is_here(&here, &snapshot, digest, *size));
        Ok(all)
    });
    let absent = absent.await?;
    let mut arrived = telling(responder);
    tokio::select! {
        got = obtain(&place, absent, sources, &mut arrived) => drop(got?),
        () = responder.gone() => return Err(checkout::ended()),
    }
    let told = responder.clone();
    let number = generation.number;
    let written = beside(move || {
        let mut progress = |files: u64| {
            if files.is_multiple_of(TELL_EVERY.0) {
                told.event(&PastProgress { fetched: 0, files });
            }
            !told.is_gone()
        };
        checkout::write(&place, &generation, &dir, &mut progress)
    });
    let written = written.await?;
    Ok(CheckedOut {
        generation: number,
        root: root.to_hex(),
        files: written.files,
        bytes: written.bytes,
        missing: texts(&written.missing),
    })
}
