//! What is damaged beside live files, for `status`: displaced versions, packed contents, tree nodes. Until it is found good,
//! or gone. Never reads it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use alike_core::digest::Digest;
use alike_store::{DATABASE, FolderKey, Store, StoreError};
use serde::{Deserialize, Serialize};

use super::Part;
use crate::folder::Problem;

/// Something that has a digest and is not what that says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Thing {
    /// A displaced version of a folder.
    Object(FolderKey, Digest),
    /// A content in a pack.
    Packed(Digest),
    /// A tree node in the database.
    Node(Digest),
}

impl Thing {
    /// What it is called, in answers and in `status`.
    pub(crate) fn name(&self) -> String {
        match self {
            Thing::Object(_, digest) => {
                let hex = digest.to_hex();
                format!(".alike/objects/{}/{hex}", &hex[..2])
            }
            Thing::Packed(digest) => format!("packs#{digest}"),
            Thing::Node(digest) => format!("{DATABASE}#{digest}"),
        }
    }

    /// What to say of it.
    pub(crate) fn problem(&self) -> Problem {
        let (reason, hint) = match self {
            Thing::Object(..) => (
                "the disk has damaged this earlier version",
                "`sync verify --repair` brings it back, if this device or a connected one has its content",
            ),
            Thing::Packed(_) => (
                "the disk has damaged an earlier content of a small file, in the state directory",
                "`sync verify --repair` brings it back, if this device or a connected one has it",
            ),
            Thing::Node(_) => (
                "the disk has damaged the database",
                "`sync stop`, move alike.redb out of the state directory, start again and add the folders again, as the \
                 README says; no file of yours is in it",
            ),
        };
        Problem {
            reason: reason.to_owned(),
            hint: hint.to_owned(),
        }
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Rotten(Mutex<BTreeSet<Thing>>);

impl Rotten {
    pub(super) fn new(things: BTreeSet<Thing>) -> Rotten {
        Rotten(Mutex::new(things))
    }

    fn things(&self) -> MutexGuard<'_, BTreeSet<Thing>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// It was read.
    pub(super) fn note(&self, thing: Thing, is_good: bool) {
        let mut things = self.things();
        if is_good {
            things.remove(&thing);
        } else if things.insert(thing) {
            tracing::warn!("{}: damaged", thing.name());
        }
    }

    pub(super) fn all(&self) -> BTreeSet<Thing> {
        self.things().clone()
    }

    /// Those that `status` tells of with a folder.
    pub(crate) fn of(&self, folder: FolderKey) -> Vec<Thing> {
        let things = self.things();
        let is_of = |thing: &&Thing| !matches!(thing, Thing::Object(key, _) if *key != folder);
        things.iter().filter(is_of).copied().collect()
    }

    /// Forgets what is not there any more.
    pub(super) fn forget_gone(&self, store: &Store, parts: &[Part]) -> Result<(), StoreError> {
        let snapshot = store.snapshot()?;
        for thing in self.all() {
            let is_there = match thing {
                Thing::Object(key, digest) => {
                    let part = parts.iter().find(|part| part.place.key == key);
                    // Nobody can tell of a folder that is not there.
                    part.is_none_or(|part| part.place.is_displaced(&snapshot, &digest))
                }
                Thing::Packed(digest) => snapshot.is_packed(&digest)?,
                Thing::Node(digest) => snapshot.names_node(&digest)?,
            };
            if !is_there {
                self.things().remove(&thing);
            }
        }
        Ok(())
    }
}
