//! How far the scrub has come, in a file of the state directory: it goes on after a restart. Losing the file costs that it
//! begins anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_store::FolderKey;
use serde::{Deserialize, Serialize};

use crate::hint;
use crate::verify::rotten::{Rotten, Thing};

/// Name of the file in the state directory.
const FILE: &str = "scrub";
/// Its first byte.
const VERSION: u8 = 1;
/// It is written this often while a batch runs, and when it ends.
const SAVE: Duration = Duration::from_secs(30);

/// What was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    /// Nothing yet.
    #[default]
    Begin,
    Files(FolderKey, Option<RelPath>),
    Objects(FolderKey, Option<Digest>),
    Packs(Option<Digest>),
    Nodes(Option<Digest>),
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScrubState {
    /// When this round began (ms since 1970); 0: never.
    pub(crate) began_ms: u64,
    /// When the last one ended.
    pub(crate) ended_ms: Option<u64>,
    /// Things that were read in this round.
    pub(crate) checked: u64,
    /// This round is not over.
    pub(super) runs: bool,
    pub(super) at: At,
    /// So often the next thing was begun and cut off.
    pub(super) cut: u32,
}

/// The same, and what is known to be damaged, as it is in the file.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    state: ScrubState,
    rotten: BTreeSet<Thing>,
}

/// How far the scrub has come.
#[derive(Debug)]
pub(crate) struct Scrub {
    state: Mutex<(ScrubState, Instant)>,
    file: PathBuf,
}

impl Scrub {
    /// As the state directory says. Also what is known to be damaged.
    pub(crate) fn load(home: &Path) -> (Scrub, Rotten) {
        let file = home.join(FILE);
        let saved: Saved = hint::load(&file, VERSION);
        let state = Mutex::new((saved.state, Instant::now()));
        (Scrub { state, file }, Rotten::new(saved.rotten))
    }

    fn lock(&self) -> MutexGuard<'_, (ScrubState, Instant)> {
        self.state.lock().expect("nobody panics with it")
    }

    pub(crate) fn state(&self) -> ScrubState {
        self.lock().0.clone()
    }

    /// Is there something to read? Rounds begin this far apart.
    pub(crate) fn is_due(&self, round: Duration, now: u64) -> bool {
        let state = &self.lock().0;
        let round = u64::try_from(round.as_millis()).unwrap_or(u64::MAX);
        // A clock that was set back does not put it off.
        state.runs
            || state.began_ms == 0
            || now >= state.began_ms.saturating_add(round)
            || now < state.began_ms
    }

    /// A batch begins, and with it a round, if the last one is over.
    pub(super) fn begin(&self, now: u64) {
        let state = &mut self.lock().0;
        if !state.runs {
            *state = ScrubState {
                began_ms: now,
                ended_ms: state.ended_ms,
                runs: true,
                ..ScrubState::default()
            };
        }
    }

    /// It has come so far, with so many more things.
    pub(super) fn at(&self, at: At, more: u64) {
        let state = &mut self.lock().0;
        state.at = at;
        state.checked += more;
        state.cut = 0;
    }

    /// What comes next was begun and not ended.
    pub(super) fn cut_off(&self) {
        let state = &mut self.lock().0;
        state.cut = state.cut.saturating_add(1);
    }

    /// The round is over. How many things were read?
    pub(super) fn end(&self, now: u64) -> u64 {
        let state = &mut self.lock().0;
        state.ended_ms = Some(now);
        state.runs = false;
        state.at = At::Begin;
        state.checked
    }

    pub(super) fn save_now_and_then(&self, rotten: &Rotten) {
        if self.lock().1.elapsed() >= SAVE {
            self.save(rotten);
        }
    }

    pub(crate) fn save(&self, rotten: &Rotten) {
        let state = {
            let mut state = self.lock();
            state.1 = Instant::now();
            state.0.clone()
        };
        let saved = Saved {
            state,
            rotten: rotten.all(),
        };
        hint::save(&self.file, VERSION, &saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_after_a_restart_and_the_next_one_begins_in_time() {
        let home = tempfile::tempdir().expect("a directory");
        let (scrub, rotten) = Scrub::load(home.path());
        let round = Duration::from_secs(100);
        assert!(scrub.is_due(round, 5));
        scrub.begin(1_000_000);
        let path = RelPath::parse(b"a/b").expect("a path");
        scrub.at(At::Files(FolderKey(3), Some(path)), 7);
        scrub.cut_off();
        let thing = Thing::Packed(Digest::of(b"x"));
        rotten.note(thing, false);
        scrub.save(&rotten);

        let (again, rotten) = Scrub::load(home.path());
        assert_eq!(again.state(), scrub.state());
        assert_eq!(rotten.of(FolderKey(1)), [thing]);
        again.begin(1_050_000);
        assert_eq!((again.state().began_ms, again.state().checked), (1_000_000, 7));
        assert_eq!(again.end(1_060_000), 7);
        assert!(!again.is_due(round, 1_099_999) && again.is_due(round, 1_100_000));
        assert!(again.is_due(round, 900_000), "the clock was set back");
        again.begin(1_100_000);
        assert_eq!(
            (again.state().checked, again.state().ended_ms),
            (0, Some(1_060_000))
        );
    }
}
