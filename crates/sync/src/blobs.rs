//! The one answer to "who here has the bytes of this digest": a live file of the folder, a displaced version, or a
//! pack.
//! Serving, fetching and the past all ask here. Never trusts what it finds: whoever gets bytes gets them verified,
//! or verifies them. Never asks a peer.

use std::fs::File;
use std::io::Read;

use alike_core::digest::Digest;
use alike_core::message::SMALL_BLOB;
use alike_store::Snapshot;

use crate::disk::Shards;
use crate::error::Error;
use crate::folder::Place;

/// How many live files of one content are tried.
pub(crate) const PLACES: usize = 8;

/// Every file that should hold this content: where the index says, then the displaced version. Whether one does is
/// for the reader to verify.
pub(crate) fn files<'a>(
    place: &'a Place,
    snapshot: &'a Snapshot,
    digest: &'a Digest,
) -> impl Iterator<Item = File> + 'a {
    let live = snapshot.blob_places(digest, PLACES).unwrap_or_default();
    live.into_iter()
        .filter(|(key, path)| *key == place.key && !place.damaged.holds(path))
        .filter_map(|(_, path)| place.root.open_file(&path).ok())
        .chain(std::iter::once_with(|| place.root.open_object(digest).ok().flatten()).flatten())
}

/// Is this content on this device, as far as names and the index tell?
pub(crate) fn has(place: &Place, snapshot: &Snapshot, digest: &Digest) -> bool {
    let lives = |places: Vec<(alike_store::FolderKey, _)>| {
        let is_here = |(key, path): &(_, _)| *key == place.key && !place.damaged.holds(path);
        places.iter().any(is_here)
    };
    snapshot.blob_places(digest, PLACES).is_ok_and(lives)
        || snapshot.is_packed(digest).unwrap_or(false)
        || place.root.open_object(digest).is_ok_and(|file| file.is_some())
}

/// The same, more strictly, as far as can be told without reading: not where a file has changed since it was looked at, and
/// not a displaced version of another size.
pub(crate) fn is_here(place: &Place, snapshot: &Snapshot, digest: &Digest, size: u64) -> bool {
    let is_object = || {
        let object = place.root.open_object(digest).ok().flatten();
        object.is_some_and(|file| file.metadata().is_ok_and(|meta| meta.len() == size))
    };
    let lives = || {
        let places = snapshot.blob_places(digest, PLACES).unwrap_or_default();
        let mut own = places.into_iter().filter(|(key, _)| *key == place.key);
        own.any(|(key, path)| {
            let row = snapshot.index(key, &path).ok().flatten();
            let known = row.and_then(|row| row.fingerprint);
            known.is_some() && known == place.root.stat(&path).ok().flatten().map(|stat| stat.fingerprint)
        })
    };
    size == 0 || snapshot.is_packed(digest).unwrap_or(false) || is_object() || lives()
}

/// A small blob from wherever it lives, verified; `None` if it is nowhere any more.
pub(crate) fn read_small(place: &Place, snapshot: &Snapshot, digest: &Digest) -> Option<Vec<u8>> {
    for file in files(place, snapshot, digest) {
        let Ok(meta) = file.metadata() else { continue };
        if meta.len() > SMALL_BLOB {
            continue;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
        let read = file.take(SMALL_BLOB + 1).read_to_end(&mut bytes);
        if read.is_ok() && Digest::of(&bytes) == *digest {
            return Some(bytes);
        }
    }
    place.store.packed(digest).ok().flatten()
}

/// A new temporary file of the folder with this content, verified; `None` if it is nowhere here.
pub(crate) fn to_temp(
    place: &Place,
    snapshot: &Snapshot,
    shards: &Shards,
    digest: &Digest,
    size: u64,
) -> Result<Option<Vec<u8>>, Error> {
    if size == 0 {
        return Ok(place.root.temp_file().ok().map(|(name, _)| name));
    }
    for (key, path) in snapshot.blob_places(digest, PLACES)? {
        if key != place.key {
            continue;
        }
        let Some(fingerprint) = snapshot.index(key, &path)?.and_then(|row| row.fingerprint) else {
            continue;
        };
        if let Ok(Some(temp)) = place.root.temp_from_local(&path, &fingerprint, digest) {
            return Ok(Some(temp));
        }
    }
    if shards.may_hold(digest)
        && let Ok(Some(temp)) = place.root.temp_from_object(digest)
    {
        return Ok(Some(temp));
    }
    Ok(match place.store.packed(digest)? {
        Some(content) => place.root.temp_of(&content).ok(),
        None => None,
    })
}
