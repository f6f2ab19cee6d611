//! Content for the past: blobs that no path waits for, fetched from connected peers into the folder's displaced
//! versions, verified. Never touches a path of the folder.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::message::SMALL_BLOB;
use tokio::sync::mpsc;

use super::room::Budget;
use super::{Source, big, blocking, net};
use crate::disk::Room;
use crate::error::Error;
use crate::folder::Place;

/// Blobs on one request stream at most, and bytes.
const REQUEST: (usize, u64) = (256, 8 << 20);
/// Blobs between the wire and the disk.
const ARRIVED: usize = 16;

/// Gets what it can of `wanted` (digest and size, each once); returns what nobody had. Fails before it asks anybody if
/// there is no room for all of it. `arrived` is told of bytes as they come. May be dropped at any time.
pub(crate) async fn obtain(
    place: &Arc<Place>,
    wanted: Vec<(Digest, u64)>,
    sources: &[Source],
    arrived: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<(Digest, u64)>, Error> {
    if wanted.is_empty() || sources.is_empty() {
        return Ok(wanted);
    }
    // Where nobody can tell, it is tried.
    let room = place.root.room().unwrap_or(Room { free: 0, total: 0 });
    let mut budget = Budget::new(room, 0);
    for (_, size) in &wanted {
        budget.take_bytes(*size);
    }
    if let Some(full) = budget.refused.text() {
        return Err(Error::Refused(format!(
            "what has to be fetched first does not fit: {full}"
        )));
    }
    let (large, mut small): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, size)| *size > SMALL_BLOB);
    for source in sources {
        let mut missing = Vec::new();
        let mut rest = small.as_slice();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(net::in_one_request(rest.iter().map(|want| want.1), REQUEST));
            let (unmade, alive) = ask(place, part, source, arrived).await?;
            missing.extend(unmade);
            rest = more;
            if !alive {
                missing.extend(rest);
                break;
            }
        }
        small = missing;
    }
    let mut missing = small;
    for (digest, size) in large {
        match big::pieces_kept(place, (digest, size), sources, arrived).await {
            Ok(true) => {}
            Ok(false) => missing.push((digest, size)),
            Err(error) => {
                tracing::warn!(folder = %place.row.name, %digest, "fetching for the past: {error}");
                missing.push((digest, size));
            }
        }
    }
    let place = place.clone();
    // A restore that is told to others must not name what a power cut takes away again.
    blocking(move || place.root.sync_all().map_err(|e| Error::Refused(e.to_string()))).await?;
    Ok(missing)
}

/// One request: keeps what arrives and is right, returns the rest, and whether the peer is worth asking more.
async fn ask(
    place: &Arc<Place>,
    wants: &[(Digest, u64)],
    source: &Source,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<(Vec<(Digest, u64)>, bool), Error> {
    let (out, mut arrived) = mpsc::channel::<(usize, Option<Vec<u8>>)>(ARRIVED);
    let mut got = vec![false; wants.len()];
    let mut wrong = 0;
    let keep = async {
        while let Some((at, bytes)) = arrived.recv().await {
            let Some(bytes) = bytes else { continue };
            let (digest, size) = wants[at];
            let here = place.clone();
            let kept = blocking(move || {
                let right = Digest::of(&bytes) == digest;
                Ok(right.then(|| here.root.keep_content(&digest, &bytes)))
            });
            match kept.await? {
                Some(Ok(())) => {
                    got[at] = true;
                    told(size);
                }
                Some(Err(error)) => {
                    tracing::warn!(folder = %place.row.name, "keeping what was fetched for the past: {error}");
                }
                None => wrong += 1,
            }
        }
        Ok::<_, Error>(())
    };
    let (result, kept) = tokio::join!(net::blobs(&source.connection, place, wants, out), keep);
    kept?;
    if let Err(error) = &result {
        tracing::debug!(peer = %source.device.fmt_short(), "fetching for the past: {error}");
    }
    if wrong > 0 {
        tracing::warn!(peer = %source.device.fmt_short(), "sent {wrong} blobs that do not match their digests");
    }
    let unmade = wants.iter().zip(got).filter(|(_, got)| !got);
    Ok((
        unmade.map(|(want, _)| *want).collect(),
        result.is_ok() && wrong == 0,
    ))
}
