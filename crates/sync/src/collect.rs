//! Letting go of the past that nobody keeps: generations by the policy, then what only they reached: tree nodes,
//! packed contents, displaced versions. Never removes what a head, a kept generation, the index or an intent reaches,
//! and nothing young that no generation ever had: that may be somebody's only copy of a save.

use std::sync::Arc;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::retention::{Policy, expired};
use alike_store::{FolderKey, Marks, Store, Sweep};

use crate::control::Collected;
use crate::disk::Object;
use crate::error::Error;
use crate::folder::{Place, now_ms};

/// What no generation ever had is kept this long after it was displaced or packed (seconds).
const UNNAMED: u64 = 30 * 24 * 60 * 60;
/// Displaced versions that are removed while nobody else can take hold of any.
const STEP: usize = 500;
/// How long somebody else's turn is waited for between two tries, and how often at most.
const TURN: (Duration, u32) = (Duration::from_millis(5), 2_000);
/// The database is compacted if so many bytes of it, and so large a part (a divisor), are free.
const WORTH: (u64, u64) = (8 << 20, 3);

/// What is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// What the policy says.
    Policy(Policy),
    /// A person's word: all but the newest so many, all older than so many milliseconds, or what is both.
    Asked {
        keep: Option<u64>,
        older_ms: Option<u64>,
    },
}

impl Wanted {
    fn expired(&self, all: &[(u64, u64)], pinned: &dyn Fn(u64) -> bool, now: u64) -> Vec<u64> {
        match *self {
            Wanted::Policy(policy) => expired(all, pinned, now, &policy),
            Wanted::Asked { keep, older_ms } => {
                let policy = Policy {
                    newest: keep.unwrap_or(1),
                    all_ms: older_ms.unwrap_or(0),
                    daily_ms: 0,
                    monthly: false,
                };
                expired(all, pinned, now, &policy)
            }
        }
    }
}

/// Collects in one go; other things go on meanwhile. `wanted`: of which folders generations may go. `places`: all
/// folders that are open, for what they have displaced.
pub(crate) fn collect(
    store: &Arc<Store>,
    places: &[Arc<Place>],
    wanted: &[(FolderKey, Wanted)],
    dry_run: bool,
) -> Result<Collected, Error> {
    let snapshot = store.snapshot()?;
    let mut going: Vec<(FolderKey, Vec<u64>)> = Vec::new();
    let mut kept_generations = 0;
    for (key, wanted) in wanted {
        let all = snapshot.generations(*key, usize::MAX)?;
        let times: Vec<(u64, u64)> = all.iter().map(|g| (g.number, g.time_ms)).collect();
        let pins = snapshot.pins(*key)?;
        let gone = wanted.expired(&times, &|number| pins.contains(&number), now_ms());
        kept_generations += (times.len() - gone.len()) as u64;
        going.push((*key, gone));
    }
    let goes =
        |key: FolderKey, number: u64| going.iter().any(|(k, gone)| *k == key && gone.contains(&number));
    // What the generations reach that go: of that, nothing need be kept for its youth.
    let mut dropped = Marks::default();
    if going.iter().any(|(_, gone)| !gone.is_empty()) {
        snapshot.mark_more(&mut dropped, &goes)?;
    }
    let mut marks = snapshot.mark(&|key, number| !goes(key, number))?;
    let mut done = Collected {
        removed_objects: 0,
        freed_bytes: 0,
        kept_generations,
        removed_generations: going.iter().map(|(_, gone)| gone.len() as u64).sum(),
    };
    if dry_run {
        let (rows, bytes) = snapshot.unmarked(&marks)?;
        drop(snapshot);
        let (contents, packed) = store.packs_waste(&|digest, age| is_waste(&marks, &dropped, digest, age))?;
        done.removed_objects += rows + contents;
        done.freed_bytes += bytes + packed;
        for place in places {
            let waste = displaced_waste(place, &marks, &dropped)?;
            done.removed_objects += waste.len() as u64;
            done.freed_bytes += waste.iter().map(|object| object.bytes).sum::<u64>();
        }
        return Ok(done);
    }
    drop(snapshot);
    for (key, gone) in &going {
        if !gone.is_empty() {
            store.drop_generations(*key, gone)?;
        }
    }
    let mut sweep = Sweep::default();
    let mut waits = 0;
    while !sweep.is_done() {
        if !store.sweep(&mut marks, &mut sweep)? {
            wait_a_turn(&mut waits)?;
        }
    }
    done.removed_objects += sweep.removed;
    let before = database_bytes(store);
    if sweep.removed > 0 && (dropped.generations() > 0 || worth_compacting(store)?) {
        compact(store)?;
    }
    done.freed_bytes += before.saturating_sub(database_bytes(store));
    // Marks hold what was reached when the sweep ended; what came to be since is new, or is marked below.
    let packs = store.sweep_packs(&|digest, age| is_waste(&marks, &dropped, digest, age))?;
    done.removed_objects += packs.removed;
    done.freed_bytes += packs.freed;
    for place in places {
        let (removed, freed) = displaced(store, place, &mut marks, &dropped)?;
        place.count_history();
        done.removed_objects += removed;
        done.freed_bytes += freed;
    }
    Ok(done)
}

/// Does nobody need a content any more that was displaced or packed so many seconds ago?
fn is_waste(marks: &Marks, dropped: &Marks, digest: &Digest, age: u64) -> bool {
    !marks.has_blob(digest) && (dropped.has_blob(digest) || age > UNNAMED)
}

/// The displaced versions of one folder that nobody needs.
fn displaced_waste(place: &Place, marks: &Marks, dropped: &Marks) -> Result<Vec<Object>, Error> {
    let mut waste = Vec::new();
    let listed = place.root.each_object(&mut |object| {
        if is_waste(marks, dropped, &object.digest, object.age) {
            waste.push(*object);
        }
        true
    });
    listed.map_err(|source| at(place, source))?;
    Ok(waste)
}

/// Removes displaced versions of one folder. In short steps, before each of which is marked what has come to be
/// reached since, and during which nobody begins to reach anything.
fn displaced(store: &Store, place: &Place, marks: &mut Marks, dropped: &Marks) -> Result<(u64, u64), Error> {
    let waste = displaced_waste(place, marks, dropped)?;
    let (mut removed, mut freed, mut waits) = (0, 0, 0);
    for part in waste.chunks(STEP) {
        let alone = loop {
            match store.alone() {
                Some(alone) => break alone,
                None => wait_a_turn(&mut waits)?,
            }
        };
        store.snapshot()?.mark_more(marks, &|_, _| true)?;
        for object in part.iter().filter(|object| !marks.has_blob(&object.digest)) {
            let gone = place.root.remove_object(&object.digest);
            if gone.map_err(|source| at(place, source))? {
                removed += 1;
                freed += object.bytes;
            }
        }
        drop(alone);
    }
    Ok((removed, freed))
}

fn at(place: &Place, source: std::io::Error) -> Error {
    Error::Displaced {
        path: place.root.path().to_owned(),
        source,
    }
}

fn wait_a_turn(waits: &mut u32) -> Result<(), Error> {
    *waits += 1;
    if *waits > TURN.1 {
        return Err(Error::Refused(
            "something that needs the past is still under way; what is left is collected the next time"
                .into(),
        ));
    }
    // Nobody is told when a lease ends: turns are short.
    std::thread::sleep(TURN.0);
    Ok(())
}

fn database_bytes(store: &Store) -> u64 {
    std::fs::metadata(store.path()).map_or(0, |meta| meta.len())
}

fn worth_compacting(store: &Store) -> Result<bool, Error> {
    let free = store.free_bytes()?;
    Ok(free >= WORTH.0 && free >= database_bytes(store) / WORTH.1)
}

fn compact(store: &Store) -> Result<(), Error> {
    let mut waits = 0;
    while !store.compact()? {
        if wait_a_turn(&mut waits).is_err() {
            tracing::info!("the database is compacted another time: somebody reads it all the time");
            break;
        }
    }
    Ok(())
}
