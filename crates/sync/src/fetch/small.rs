//! Making batches of small items ready: content that is on this disk already is copied, the rest comes from
//! peers, many blobs to a stream, verified and written to temporary files on blocking threads.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::record::Value;
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::moving::{Moving, Way};
use super::{Source, blocking, net};
use crate::apply::{Item, Ready};
use crate::blobs;
use crate::disk::{Dir, Root};
use crate::error::Error;
use crate::failpoint::point;
use crate::folder::{Place, Why};

/// Blobs on one request stream at most, and bytes.
const REQUEST: (usize, u64) = (512, 16 << 20);
/// Requests under way at once.
const REQUESTS: usize = 2;
/// Blobs written together on one blocking thread, and bytes.
const WRITE: (usize, usize) = (64, 1 << 20);
/// Groups being written at once.
const WRITERS: usize = 3;

/// Items by where their content is.
#[derive(Default)]
pub(crate) struct Local {
    /// Those that need none, or have it here.
    pub(crate) ready: Vec<Ready>,
    /// Those whose content is not on this disk.
    pub(crate) rest: Vec<Item>,
    /// How many were left out, for their files may be about to move here.
    pub(crate) later: usize,
}

/// Splits off the items whose content is on this disk: those are ready. `more`: HEAD is known to change soon.
pub(super) async fn local(place: &Arc<Place>, items: Vec<Item>, more: bool) -> Result<Local, Error> {
    if items.is_empty() {
        return Ok(Local::default());
    }
    let place = place.clone();
    blocking(move || make_local(&place, items, more)).await
}

/// The same, at once.
pub(crate) fn make_local(place: &Place, items: Vec<Item>, more: bool) -> Result<Local, Error> {
    let snapshot = place.store.snapshot()?;
    let mut moving = Moving::new(place, &snapshot, more)?;
    let shards = place.root.shards();
    let Local {
        mut ready,
        mut rest,
        mut later,
    } = Local::default();
    for item in items {
        if !item.op.needs_content() {
            ready.push(Ready::new(item, None));
            continue;
        }
        let head = item.head.clone().expect("content is for something");
        let temp = match &head.value {
            Value::Symlink { target } => match place.root.temp_symlink(target, head.mtime) {
                Ok(temp) => Some(temp),
                Err(error) => {
                    // As FAT says it.
                    let errno = Errno::from_io_error(&error);
                    if matches!(errno, Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS)) {
                        let why = Why::Unsupported("this file system has no symbolic links".to_owned());
                        place.parked.park(item.path.clone(), 0, why);
                    }
                    None
                }
            },
            Value::Dir => None,
            Value::File { digest, size } => {
                match moving.way(&item, digest, *size)? {
                    Way::Moved(from) => {
                        let moved = Some(from);
                        let temp = None;
                        ready.push(Ready { item, temp, moved });
                        continue;
                    }
                    Way::Later => {
                        later += 1;
                        continue;
                    }
                    Way::Copied => {}
                }
                let temp = blobs::to_temp(place, &snapshot, &shards, digest, *size)?;
                temp.filter(|temp| {
                    point("fetch.local");
                    finish(&place.root, temp, head.is_exec(), head.mtime)
                })
            }
        };
        match (temp, &head.value) {
            (Some(temp), _) => ready.push(Ready::new(item, Some(temp))),
            (None, Value::File { .. }) => rest.push(item),
            // A link that cannot be made here now stays pending; there is nothing to fetch for it.
            (None, Value::Symlink { .. } | Value::Dir) => {}
        }
    }
    Ok(Local { ready, rest, later })
}

fn finish(root: &Root, temp: &[u8], exec: bool, mtime: i64) -> bool {
    let done = root
        .temp_named(temp, false)
        .and_then(|file| Root::finish_temp(&file, exec, mtime));
    if done.is_err() {
        root.remove_temp(temp);
    }
    done.is_ok()
}

/// Gets what is on no disk here; what is nowhere to be had now is left out, and stays pending.
pub(super) async fn fetched(
    place: &Arc<Place>,
    mut wanted: Vec<Item>,
    sources: &[Source],
) -> Result<Vec<Ready>, Error> {
    let mut ready = Vec::new();
    for source in sources {
        if wanted.is_empty() {
            break;
        }
        let mut missing = Vec::new();
        // While the answer to one request is written, the next one is on the wire.
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < REQUESTS && !wanted.is_empty() {
                let count = net::in_one_request(wanted.iter().map(|item| size_of(item).1), REQUEST);
                let rest = wanted.split_off(count);
                let part = std::mem::replace(&mut wanted, rest);
                asked.spawn(ask(place.clone(), part, source.clone()));
            }
            let Some(answer) = asked.join_next().await else {
                break;
            };
            let answer = answer.map_err(|error| Error::Refused(error.to_string()))?;
            let (made, unmade, alive) = answer?;
            ready.extend(made);
            missing.extend(unmade);
            if !alive {
                missing.append(&mut wanted);
            }
        }
        wanted = missing;
    }
    Ok(ready)
}

fn size_of(item: &Item) -> (Digest, u64) {
    match item.head.as_ref().map(|h| &h.value) {
        Some(Value::File { digest, size }) => (*digest, *size),
        _ => unreachable!("only files are fetched"),
    }
}

/// One request stream: what arrived whole and right, what did not, and whether the peer is worth asking more.
async fn ask(
    place: Arc<Place>,
    items: Vec<Item>,
    source: Source,
) -> Result<(Vec<Ready>, Vec<Item>, bool), Error> {
    let wants: Vec<(Digest, u64)> = items.iter().map(size_of).collect();
    let mut slots: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    let mut group: Vec<(Item, Vec<u8>)> = Vec::new();
    let mut group_bytes = 0;
    let mut writers: JoinSet<Result<Written, Error>> = JoinSet::new();
    let mut written = Written::default();
    let mut missing = Vec::new();
    let mut failed: Option<Error> = None;
    let (out, mut arrived) = mpsc::channel::<(usize, Option<Vec<u8>>)>(WRITE.0);
    let gather = async {
        while let Some((i, bytes)) = arrived.recv().await {
            let item = slots[i].take().expect("each index comes once");
            let Some(bytes) = bytes else {
                missing.push(item);
                continue;
            };
            group_bytes += bytes.len();
            group.push((item, bytes));
            if group.len() >= WRITE.0 || group_bytes >= WRITE.1 {
                group_bytes = 0;
                while writers.len() >= WRITERS {
                    take(writers.join_next().await, &mut written, &mut failed);
                }
                let (place, group) = (place.clone(), std::mem::take(&mut group));
                writers.spawn(blocking(move || Ok(write(&place, group))));
            }
        }
    };
    let (result, ()) = tokio::join!(net::blobs(&source.connection, &place, &wants, out), gather);
    if !group.is_empty() {
        let place = place.clone();
        writers.spawn(blocking(move || Ok(write(&place, group))));
    }
    while let Some(done) = writers.join_next().await {
        take(Some(done), &mut written, &mut failed);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if let Err(error) = &result {
        tracing::debug!(peer = %source.device.fmt_short(), "fetching: {error}");
    }
    if written.wrong > 0 {
        tracing::warn!(peer = %source.device.fmt_short(), "sent {} blobs that do not match their digests", written.wrong);
    }
    missing.extend(slots.into_iter().flatten());
    missing.extend(written.unmade);
    Ok((written.ready, missing, result.is_ok() && written.wrong == 0))
}

/// What came of a group of blobs.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) ready: Vec<Ready>,
    pub(crate) unmade: Vec<Item>,
    pub(crate) wrong: usize,
}

fn take(
    done: Option<Result<Result<Written, Error>, tokio::task::JoinError>>,
    all: &mut Written,
    failed: &mut Option<Error>,
) {
    match done {
        Some(Ok(Ok(part))) => {
            all.ready.extend(part.ready);
            all.unmade.extend(part.unmade);
            all.wrong += part.wrong;
        }
        Some(Ok(Err(error))) => *failed = Some(error),
        Some(Err(error)) => *failed = Some(Error::Refused(error.to_string())),
        None => {}
    }
}

/// Verifies blobs and writes them to temporary files.
pub(crate) fn write(place: &Place, group: Vec<(Item, Vec<u8>)>) -> Written {
    point("fetch.small.arrived");
    let mut out = Written::default();
    let tmp = place.root.tmp().ok();
    for (item, bytes) in group {
        if Digest::of(&bytes) != size_of(&item).0 {
            out.wrong += 1;
            out.unmade.push(item);
            continue;
        }
        let head = item.head.as_ref().expect("content is for something");
        place.keep_small(&size_of(&item).0, &bytes);
        match write_one(&place.root, tmp.as_deref(), &bytes, head.is_exec(), head.mtime) {
            Ok(temp) => out.ready.push(Ready::new(item, Some(temp))),
            Err(error) => {
                tracing::warn!(folder = %place.row.name, path = %item.path, "writing: {error}");
                out.unmade.push(item);
            }
        }
    }
    point("fetch.small.written");
    out
}

fn write_one(
    root: &Root,
    tmp: Option<&Dir>,
    bytes: &[u8],
    exec: bool,
    mtime: i64,
) -> std::io::Result<Vec<u8>> {
    let (name, mut file) = match tmp.map(|tmp| root.temp_file_in(tmp)) {
        Some(Ok(made)) => made,
        // Somebody may have taken that directory away.
        Some(Err(_)) | None => root.temp_file()?,
    };
    let written =
        std::io::Write::write_all(&mut file, bytes).and_then(|()| Root::finish_temp(&file, exec, mtime));
    match written {
        Ok(()) => Ok(name),
        Err(error) => {
            root.remove_temp(&name);
            Err(error)
        }
    }
}
