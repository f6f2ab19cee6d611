//! Content for the past: blobs that no path waits for, fetched from connected peers into the folder's displaced
//! versions, verified. Never touches a path of the folder.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::message::SMALL_BLOB;
use tokio::sync::mpsc;

use super::{Source, big, blocking, net};
use crate::error::Error;
use crate::folder::Place;

/// Blobs on one request stream at most, and bytes.
const REQUEST: (usize, u64) = (256, 8 << 20);

/// Gets what it can of `wanted` (digest and size, each once); returns what nobody had.
pub(crate) async fn obtain(
    place: &Arc<Place>,
    wanted: Vec<(Digest, u64)>,
    sources: &[Source],
) -> Result<Vec<(Digest, u64)>, Error> {
    let (large, mut small): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, size)| *size > SMALL_BLOB);
    for source in sources {
        if small.is_empty() {
            break;
        }
        let mut missing = Vec::new();
        let mut rest = small.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(_, size): &&(Digest, u64)| {
                bytes += size;
                bytes <= REQUEST.1
            };
            let count = rest.iter().take(REQUEST.0).take_while(fits).count().max(1);
            let (part, more) = rest.split_at(count);
            rest = more;
            missing.extend(ask(place, part, source).await?);
        }
        small = missing;
    }
    let mut missing = small;
    for (digest, size) in large {
        match big::pieces_kept(place, (digest, size), sources).await {
            Ok(true) => {}
            Ok(false) => missing.push((digest, size)),
            Err(error) => {
                tracing::warn!(folder = %place.row.name, %digest, "fetching for the past: {error}");
                missing.push((digest, size));
            }
        }
    }
    Ok(missing)
}

/// One request: keeps what arrives and is right, returns the rest.
async fn ask(
    place: &Arc<Place>,
    wants: &[(Digest, u64)],
    source: &Source,
) -> Result<Vec<(Digest, u64)>, Error> {
    let (out, mut arrived) = mpsc::channel::<(usize, Option<Vec<u8>>)>(16);
    let mut got = vec![false; wants.len()];
    let keep = async {
        let mut kept = Vec::new();
        while let Some((at, bytes)) = arrived.recv().await {
            let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == wants[at].0) else {
                continue;
            };
            let (place, digest) = (place.clone(), wants[at].0);
            let done = blocking(move || Ok(place.root.keep_content(&digest, &bytes))).await?;
            match done {
                Ok(()) => kept.push(at),
                Err(error) => {
                    tracing::warn!(peer = %source.device.fmt_short(), "keeping what was fetched for the past: {error}");
                }
            }
        }
        Ok::<_, Error>(kept)
    };
    let (result, kept) = tokio::join!(net::blobs(&source.connection, place, wants, out), keep);
    if let Err(error) = result {
        tracing::debug!(peer = %source.device.fmt_short(), "fetching for the past: {error}");
    }
    for at in kept? {
        got[at] = true;
    }
    Ok(wants
        .iter()
        .zip(got)
        .filter(|(_, got)| !got)
        .map(|(want, _)| *want)
        .collect())
}
