//! Big files: fetched in pieces, several in flight, from all peers that have them, each piece verified as it
//! arrives; a piece that is durable is not fetched again after a restart. Beside the batches of small files,
//! so that those never wait for a big one.

use std::collections::{HashMap, HashSet};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::subtree::GROUP;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};

use super::base::{Base, Target};
use super::delta::{self, Delta};
use super::have::{Have, Piece};
use super::told::Peer;
use super::{Source, net};
use crate::apply::{Item, Ready};
use crate::disk::Root;
use crate::failpoint::{may_fail, point};
use crate::folder::Place;
use crate::wire::WireError;

/// Begins the names of big files on their way, and of the notes beside them.
pub(crate) const PREFIX: &[u8] = b"big-";
/// Begins the names of those that no path waits for: not cleared when the puller has nothing more to do. Gone at the next
/// start.
const PAST: &[u8] = b"past-";
/// Pieces of one file in flight at once.
const IN_FLIGHT: usize = 3;
/// What files are counted in.
const BLOCK: u64 = 512;
/// Bytes after which what arrived is made durable and noted, if what came before is.
const NOTE_EVERY: u64 = 128 << 20;

/// The big files under way.
pub(super) struct BigFiles {
    place: Arc<Place>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<Arrived>,
    files: HashMap<Id, (RelPath, Digest, u64)>,
    /// May there be files of earlier fetches? Also at the start.
    unclear: bool,
}

/// A big file's fetch has ended.
pub(super) struct Arrived {
    /// What to apply, if it is complete.
    pub(super) ready: Option<(Option<Digest>, Ready)>,
    /// How much it added to the folder's `partial`.
    pub(super) bytes: u64,
}

impl BigFiles {
    pub(super) fn new(place: Arc<Place>, at_once: usize) -> Self {
        BigFiles {
            place,
            slots: Arc::new(Semaphore::new(at_once)),
            tasks: JoinSet::new(),
            files: HashMap::new(),
            unclear: true,
        }
    }

    /// Nothing is wanted any more: what was left of big files whose content changed before it was complete goes.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.unclear)
            && let Err(error) = self.place.root.clear_temps(|name| !name.starts_with(PREFIX))
        {
            tracing::debug!(folder = %self.place.row.name, "clearing .alike/tmp: {error}");
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn under_way(&self) -> HashSet<RelPath> {
        self.files.values().map(|(path, ..)| path.clone()).collect()
    }

    /// Bytes of the files under way, whether they have arrived or not.
    pub(super) fn remaining(&self) -> u64 {
        self.files.values().map(|(.., size)| *size).sum()
    }

    /// Starts fetching; does nothing if no slot is free (the next pass comes back to it).
    pub(super) fn begin(&mut self, item: Item, planned: Option<Digest>, sources: &[Source]) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            return;
        };
        let Some(Value::File { digest, size }) = item.head.as_ref().map(|h| h.value.clone()) else {
            return;
        };
        // Two paths with the same content would share one temporary file: the second is copied later.
        if sources.is_empty() || self.files.values().any(|(_, d, _)| *d == digest) {
            return;
        }
        let path = item.path.clone();
        let (place, sources) = (self.place.clone(), sources.to_vec());
        let task = self.tasks.spawn(async move {
            let _slot = slot;
            fetch(place, item, planned, &sources).await
        });
        self.files.insert(task.id(), (path, digest, size));
        self.unclear = true;
    }

    /// The next fetch that ends; never, if none is under way.
    pub(super) async fn next(&mut self) -> Arrived {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(Ok((id, arrived))) => {
                    self.files.remove(&id);
                    return arrived;
                }
                Some(Err(error)) => {
                    self.files.remove(&error.id());
                    tracing::error!("fetching a big file: {error}");
                }
                None => std::future::pending().await,
            }
        }
    }
}

/// What the disk holds of a big file that is not whole yet, from an earlier fetch.
pub(super) fn arrived(place: &Place, item: &Item) -> u64 {
    let Some(Value::File { digest, .. }) = item.head.as_ref().map(|head| &head.value) else {
        return 0;
    };
    if !super::is_big(item) {
        return 0;
    }
    let file = place.root.temp_named(&temp_name(PREFIX, digest), false);
    file.and_then(|file| file.metadata()).map_or(0, |meta| {
        // It has its length from the beginning, and holes where nothing has arrived.
        meta.len().min(meta.blocks().saturating_mul(BLOCK))
    })
}

async fn fetch(place: Arc<Place>, item: Item, planned: Option<Digest>, sources: &[Source]) -> Arrived {
    let head = item.head.as_ref().expect("content is for something");
    let Value::File { digest, size } = head.value else {
        unreachable!("only files are fetched")
    };
    let (exec, mtime) = (head.is_exec(), head.mtime);
    let mut bytes = 0;
    let name = temp_name(PREFIX, &digest);
    let mut arrived = |more| {
        bytes += more;
        place.partial.fetch_add(more, Ordering::Relaxed);
    };
    let result = pieces(&place, &name, (digest, size), Some(&item), sources, &mut arrived).await;
    let finished = match result {
        Ok(true) => {
            let place = place.clone();
            let finish = move || {
                point("fetch.big.whole");
                let file = place.root.temp_named(&name, false)?;
                Root::finish_temp(&file, exec, mtime)?;
                // Complete: the notes for a resume are no longer needed.
                place.root.remove_temp(&notes_name(&name));
                point("fetch.big.finished");
                Ok::<_, std::io::Error>(name)
            };
            match tokio::task::spawn_blocking(finish).await {
                Ok(Ok(name)) => Some(name),
                Ok(Err(error)) => {
                    tracing::warn!("finishing a big file: {error}");
                    None
                }
                Err(_) => None,
            }
        }
        Ok(false) => None,
        Err(error) => {
            tracing::warn!(folder = %place.row.name, path = %item.path, "fetching: {error}");
            None
        }
    };
    let ready = finished.map(|temp| (planned, Ready::new(item, Some(temp))));
    Arrived { ready, bytes }
}

fn temp_name(prefix: &[u8], digest: &Digest) -> Vec<u8> {
    [prefix, digest.to_hex().as_bytes()].concat()
}

fn notes_name(temp: &[u8]) -> Vec<u8> {
    [temp, b".have"].concat()
}

/// Fetches a big file into the displaced versions. `false`: nobody could give all of it. What arrived of one that was cut off
/// is not fetched again, until the next start.
pub(super) async fn pieces_kept(
    place: &Arc<Place>,
    (digest, size): (Digest, u64),
    sources: &[Source],
    arrived: &mut (dyn FnMut(u64) + Send),
) -> std::io::Result<bool> {
    let name = temp_name(PAST, &digest);
    if !pieces(place, &name, (digest, size), None, sources, arrived).await? {
        return Ok(false);
    }
    let place = place.clone();
    let keep = move || {
        place.root.remove_temp(&notes_name(&name));
        place.root.keep_temp(&name)?;
        // Somebody who wanted it too may have been faster.
        Ok(place.root.open_object(&digest)?.is_some())
    };
    tokio::task::spawn_blocking(keep)
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

/// What was asked for, of which source, what of it is in the file, and how that ended.
type Answer = (Piece, usize, Piece, Result<bool, WireError>);

/// Gets all that is not here yet: from the version that `item` replaces, then in pieces. `false`: nobody could give some of them.
async fn pieces(
    place: &Arc<Place>,
    name: &[u8],
    (digest, size): (Digest, u64),
    item: Option<&Item>,
    sources: &[Source],
    arrived: &mut (dyn FnMut(u64) + Send),
) -> std::io::Result<bool> {
    let file = place.root.temp_named(name, true)?;
    let fresh = file.metadata()?.len() != size;
    if fresh {
        // Those of an earlier one would speak for holes.
        place.root.remove_temp(&notes_name(name));
        file.set_len(size)?;
    }
    point("fetch.big.begin");
    let mut have = if fresh {
        Have::nothing(size)
    } else {
        Have::from_notes(size, read_notes(place, name))
    };
    let noted = have.bytes();
    arrived(noted);
    if let Some(item) = item {
        let target = Target {
            file: file.try_clone()?,
            size,
            may_hold: !fresh,
        };
        from_older(place, item, digest, target, sources, &mut have).await;
        arrived(have.bytes() - noted);
    }
    let mut wanted = have.missing();
    wanted.reverse();
    let mut dead: HashSet<usize> = HashSet::new();
    let mut tasks: JoinSet<Answer> = JoinSet::new();
    // More arrives while what has is made durable.
    let mut noting = Noting::new();
    let mut unnoted = 0;
    let mut turn = 0;
    loop {
        while tasks.len() < IN_FLIGHT && dead.len() < sources.len() && !wanted.is_empty() {
            let piece = wanted.pop().expect("there is one");
            let source = (0..sources.len())
                .map(|k| (turn + k) % sources.len())
                .find(|k| !dead.contains(k))
                .expect("one is alive");
            turn = source + 1;
            let (place, connection) = (place.clone(), sources[source].connection.clone());
            let file = file.try_clone()?;
            tasks.spawn(async move {
                let (blob, mut there) = ((digest, size), Vec::new());
                let got = match may_fail("fetch.big.piece") {
                    Ok(()) => net::ranges(&connection, &place, blob, piece.clone(), file, &mut there).await,
                    Err(error) => Err(WireError::lost(error)),
                };
                (piece, source, there, got)
            });
        }
        let Some(done) = tasks.join_next().await else {
            break;
        };
        let (piece, source, there, got) = done.map_err(std::io::Error::other)?;
        // Also what came before it broke off: a line that never holds for a whole piece gets on all the same.
        for (first, end) in there {
            arrived(have.add(first, end));
            unnoted += end - first;
        }
        if unnoted * GROUP >= NOTE_EVERY && all_noted(&mut noting)? {
            unnoted = 0;
            note(&mut noting, place, name, &file, &have)?;
        }
        if let Ok(true) = got {
            continue;
        }
        if let Err(error) = got {
            tracing::debug!(peer = %sources[source].device.fmt_short(), "a piece: {error}");
        }
        dead.insert(source);
        let rest = have.missing_of(piece);
        wanted.extend((!rest.is_empty()).then_some(rest));
    }
    let complete = wanted.is_empty();
    // What is whole needs no notes, but nobody writes any behind its back.
    end_noting(&mut noting).await?;
    if !complete && unnoted > 0 {
        note(&mut noting, place, name, &file, &have)?;
        end_noting(&mut noting).await?;
    }
    if complete && noted > 0 && !is_whole(&file, digest).await? {
        tracing::warn!(folder = %place.row.name, %digest, "what was noted of a big file is not in it: it is fetched anew");
        place.root.remove_temp(&notes_name(name));
        place.root.remove_temp(name);
        return Ok(false);
    }
    Ok(complete)
}

/// What arrived in this run was verified as it came; of what came before there is a note, and since then the disk has had it.
async fn is_whole(file: &std::fs::File, digest: Digest) -> std::io::Result<bool> {
    let mut file = file.try_clone()?;
    let work = move || {
        file.rewind()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        Ok(hasher.finalize().as_bytes() == &digest.0)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

/// Copies what the version that `item` replaces has of this one. Without that all of it is fetched.
async fn from_older(
    place: &Arc<Place>,
    item: &Item,
    digest: Digest,
    mut target: Target,
    sources: &[Source],
    have: &mut Have,
) {
    let size = target.size;
    let (here, item) = (place.clone(), item.clone());
    let look = move || {
        let snapshot = here.store.snapshot().map_err(std::io::Error::other)?;
        let base = Base::of(&here, &snapshot, &item, size)?;
        if let Some(base) = &base {
            base.share(&mut target)?;
        }
        Ok::<_, std::io::Error>(base.map(|base| (base, target)))
    };
    let (base, target) = match tokio::task::spawn_blocking(look).await {
        Ok(Ok(Some((base, target)))) => (Arc::new(base), Arc::new(target)),
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            tracing::debug!(folder = %place.row.name, "looking at an older version: {error}");
            return;
        }
        Err(_) => return,
    };
    for source in sources {
        let teller = Peer {
            connection: source.connection.clone(),
            place: place.clone(),
            digest,
            size,
        };
        let delta = Delta {
            teller,
            digest,
            size,
            base: base.clone(),
            target: target.clone(),
        };
        match delta::copy(&delta, have).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(peer = %source.device.fmt_short(), "what differs from an older version: {error}");
            }
        }
    }
}

fn read_notes(place: &Place, name: &[u8]) -> Vec<u8> {
    let mut notes = Vec::new();
    if let Ok(mut file) = place.root.temp_named(&notes_name(name), false) {
        let _ = std::io::Read::read_to_end(&mut file, &mut notes);
    }
    notes
}

/// Begins to make the pieces durable, and then to say which they are: never the other way round. One at a time.
fn note(
    noting: &mut Noting,
    place: &Arc<Place>,
    name: &[u8],
    file: &std::fs::File,
    have: &Have,
) -> std::io::Result<()> {
    // What arrives from now on is not in it: it may not be durable when this is done.
    let (place, name, file, have) = (
        place.clone(),
        notes_name(name),
        file.try_clone()?,
        have.notes().to_vec(),
    );
    noting.spawn_blocking(move || {
        file.sync_data()?;
        point("fetch.big.note");
        let mut notes = place.root.temp_named(&name, true)?;
        notes.set_len(0)?;
        notes.write_all(&have)?;
        point("fetch.big.noted");
        Ok(())
    });
    Ok(())
}

type Noting = JoinSet<std::io::Result<()>>;

/// Has what was begun to be noted been noted?
fn all_noted(noting: &mut Noting) -> std::io::Result<bool> {
    while let Some(noted) = noting.try_join_next() {
        noted.map_err(std::io::Error::other)??;
    }
    Ok(noting.is_empty())
}

async fn end_noting(noting: &mut Noting) -> std::io::Result<()> {
    while let Some(noted) = noting.join_next().await {
        noted.map_err(std::io::Error::other)??;
    }
    Ok(())
}
