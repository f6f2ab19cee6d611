//! Paths of HEAD that cannot be put on this disk as HEAD wants them, for a reason that waiting does not mend: a name
//! that the file system does not take, a pipe in the way, a directory that holds what is not synced. They stay in
//! HEAD and pending in the database, but do not count as pending, so that nobody waits for them; `status` says why.
//! They are tried again when HEAD changes there, when a scan looks there or around it, after a start, and now and then.
//! Never decides what is wrong.
//!
//! To park a path: `place.parked.park(path, bytes, Why::…)`, and let the folder's thread publish (it does after each
//! event). A new reason is a new [`Why`], with what `status` says of it, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use alike_core::path::RelPath;

use super::{Place, Problem};
use crate::disk::Kind;

/// Why a path is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// This file system cannot hold it, in words.
    Unsupported(String),
    /// Something that is not synced is where it is to be, or where a directory of it is to be.
    InTheWay {
        /// Where.
        at: RelPath,
        /// What, in words.
        what: String,
    },
    /// This file system takes its name for that of another path that is here.
    NameTaken {
        /// Which one.
        by: RelPath,
    },
    /// It was removed on another device; the directory here holds something that is not synced.
    HoldsStrangers,
    /// It was removed on another device; the directory here holds one that is parked, of which more is said.
    HoldsParked,
    /// It belongs into a directory that is parked, of which more is said.
    Below,
    /// The rules leave it out here; nobody need know.
    Ignored,
}

impl Why {
    /// What `status` says of it, and at which path.
    fn problem(&self, path: &RelPath) -> Option<(RelPath, Problem)> {
        let (at, reason, hint) = match self {
            Why::Unsupported(reason) => (path, reason.clone(), "rename it on a device that can"),
            Why::InTheWay { at, what } => (
                at,
                format!("it is not what it is on the other devices: {what} is in the way"),
                "move or remove it; the rest then follows by itself",
            ),
            Why::NameTaken { by } => (
                path,
                format!("this file system takes its name for that of \"{by}\", which is here already"),
                "rename or remove one of the two, here or on a device that tells them apart",
            ),
            Why::HoldsStrangers => (
                path,
                "was removed on another device, but still holds something that is not synced".to_owned(),
                "move or remove what is in it; the directory then goes by itself",
            ),
            Why::HoldsParked | Why::Below | Why::Ignored => return None,
        };
        let hint = hint.to_owned();
        Some((at.clone(), Problem { reason, hint }))
    }
}

/// The parked paths of a folder, with the bytes that would be to fetch. The folder's thread parks, and its puller
/// what belongs into a parked directory, and leaves them alone.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    paths: Mutex<BTreeMap<RelPath, (u64, Why)>>,
    /// How often something was parked.
    parkings: AtomicU64,
}

impl Parked {
    fn paths(&self) -> std::sync::MutexGuard<'_, BTreeMap<RelPath, (u64, Why)>> {
        self.paths.lock().expect("nobody panics with it")
    }

    /// Parks a path for which `bytes` would be to fetch.
    pub(crate) fn park(&self, path: RelPath, bytes: u64, why: Why) {
        self.paths().insert(path, (bytes, why));
        self.parkings.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was parked: as many as before may be parked after all were released and parked again.
    pub(crate) fn parkings(&self) -> u64 {
        self.parkings.load(Ordering::Relaxed)
    }

    /// Is it parked?
    pub(crate) fn holds(&self, path: &RelPath) -> bool {
        self.paths().contains_key(path)
    }

    /// Is a directory that it belongs into parked, and so not there? Then it cannot be there either.
    pub(crate) fn holds_above(&self, path: &RelPath) -> bool {
        let paths = self.paths();
        let is_missing = |above: &RelPath| match paths.get(above) {
            Some((
                _,
                Why::Unsupported(_)
                | Why::InTheWay { .. }
                | Why::NameTaken { .. }
                | Why::Below
                | Why::Ignored,
            )) => true,
            Some((_, Why::HoldsStrangers | Why::HoldsParked)) | None => false,
        };
        !paths.is_empty() && path.ancestors().any(|above| is_missing(&above))
    }

    /// It is as HEAD wants it, or HEAD wants something else: what is in it, or what it is in, may be possible now.
    pub(crate) fn forget(&self, path: &RelPath) {
        let mut paths = self.paths();
        if paths.is_empty() {
            return;
        }
        paths.remove(path);
        for above in path.ancestors() {
            if matches!(paths.get(&above), Some((_, Why::HoldsParked))) {
                paths.remove(&above);
            }
        }
        let mut start = path.as_bytes().to_vec();
        start.push(b'/');
        let below: Vec<RelPath> = paths
            .range((Bound::Excluded(path.clone()), Bound::Unbounded))
            .map(|(at, _)| at)
            // Between a directory and what is in it come names like `d-x`.
            .take_while(|at| at.as_bytes() <= &start[..] || at.as_bytes().starts_with(&start))
            .filter(|at| at.as_bytes().starts_with(&start))
            .cloned()
            .collect();
        for at in below {
            if matches!(paths.get(&at), Some((_, Why::Below))) {
                paths.remove(&at);
            }
        }
    }

    /// Nothing is called so any more: what this file system takes for the same name may be possible now.
    pub(crate) fn name_is_free(&self, name: &RelPath) {
        let free: Vec<RelPath> = self
            .paths()
            .iter()
            .filter(|(_, (_, why))| matches!(why, Why::NameTaken { by } if by == name))
            .map(|(path, _)| path.clone())
            .collect();
        free.iter().for_each(|path| self.forget(path));
    }

    /// Forgets those of which `may` says that they may be possible now. Returns what was in the way of them.
    pub(super) fn release(&self, may: impl Fn(&RelPath, &Why) -> bool) -> BTreeSet<RelPath> {
        let all: Vec<(RelPath, Why)> = self
            .paths()
            .iter()
            .map(|(path, (_, why))| (path.clone(), why.clone()))
            .collect();
        let mut ways = BTreeSet::new();
        // Without the lock: it looks at the disk.
        for (path, why) in all.into_iter().filter(|(path, why)| may(path, why)) {
            self.forget(&path);
            if let Why::InTheWay { at, .. } = why {
                ways.insert(at);
            }
        }
        ways
    }

    /// Is nothing parked?
    pub(crate) fn is_empty(&self) -> bool {
        self.paths().is_empty()
    }

    /// How many, and bytes.
    pub(crate) fn total(&self) -> (u64, u64) {
        let paths = self.paths();
        (
            paths.len() as u64,
            paths
                .values()
                .fold(0, |sum, (bytes, _)| sum.saturating_add(*bytes)),
        )
    }

    /// What `status` says of them: one problem for a directory and all that belongs into it.
    pub(crate) fn problems(&self, at_most: usize) -> Vec<(RelPath, Problem)> {
        let paths = self.paths();
        let all = paths.iter().filter_map(|(path, (_, why))| why.problem(path));
        all.take(at_most).collect()
    }
}

impl Place {
    /// What keeps a path from being reached that a scan would not take: on the way there, or at it.
    pub(crate) fn in_the_way(&self, path: &RelPath) -> Option<Why> {
        let mut way: Vec<RelPath> = path.ancestors().collect();
        way.reverse();
        way.push(path.clone());
        way.into_iter().find_map(|at| {
            let what = self.stranger_at(&at)?;
            Some(Why::InTheWay { at, what })
        })
    }

    /// Something that is never synced, in words.
    fn stranger_at(&self, path: &RelPath) -> Option<String> {
        let stat = self.root.stat(path).ok()??;
        match stat.kind {
            _ if stat.dev != self.root.identity().0 => Some("another file system".to_owned()),
            Kind::Special(what) => Some(format!("a {what}")),
            Kind::File | Kind::Dir | Kind::Symlink => None,
        }
    }

    /// Somebody looks at these: what is parked at, in or around them may be possible now.
    pub(super) fn release_parked(&self, looked_at: &[RelPath]) {
        self.parked.release(|path, why| {
            let way = match why {
                Why::InTheWay { at, .. } | Why::NameTaken { by: at } => at,
                _ => path,
            };
            let is_near = |at: &RelPath| path.is_within(at) || at.is_within(way);
            looked_at.iter().any(is_near) && self.may_be_possible(path, why)
        });
    }

    /// Nobody has noticed anything; a look tells nevertheless. Returns where the scan should look as well.
    pub(super) fn try_parked(&self) -> BTreeSet<RelPath> {
        self.parked.release(|path, why| match why {
            // A file system learns nothing, and what depends on another comes with it.
            Why::Unsupported(_) | Why::HoldsParked | Why::Below | Why::Ignored => false,
            Why::InTheWay { .. } | Why::NameTaken { .. } | Why::HoldsStrangers => {
                self.may_be_possible(path, why)
            }
        })
    }

    /// Is it worth trying? Making content ready may cost much.
    fn may_be_possible(&self, path: &RelPath, why: &Why) -> bool {
        match why {
            Why::InTheWay { at, .. } => self.stranger_at(at).is_none(),
            Why::NameTaken { .. } => matches!(self.root.taken_by(path), Ok(None)),
            Why::HoldsStrangers => {
                let members = self.root.dir(path).and_then(|dir| dir.entries());
                members.is_ok_and(|members| members.is_empty()) || matches!(self.root.stat(path), Ok(None))
            }
            // Of a change of the rules, who reads them tells.
            Why::Ignored => false,
            Why::Unsupported(_) | Why::HoldsParked | Why::Below => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).expect("a path")
    }

    fn parked(paths: &[(&str, u64, Why)]) -> Parked {
        let parked = Parked::default();
        for (name, bytes, why) in paths {
            parked.park(path(name), *bytes, why.clone());
        }
        parked
    }

    #[test]
    fn what_depends_on_a_path_is_tried_again_with_it() {
        let way = Why::InTheWay {
            at: path("d"),
            what: "a pipe".into(),
        };
        let parked = parked(&[
            ("d", 0, way),
            ("d-x", 0, Why::Below),
            ("d/e", 0, Why::Below),
            ("d/e/f", 0, Why::Below),
            ("d0", 0, Why::Below),
            ("g", 0, Why::HoldsParked),
            ("g/h", 0, Why::HoldsParked),
            ("g/h/i", 0, Why::HoldsStrangers),
        ]);
        assert!(parked.holds_above(&path("d/e")) && !parked.holds_above(&path("d")));
        assert!(!parked.holds_above(&path("g/x")), "that directory is there");
        let said: Vec<_> = parked.problems(9).into_iter().map(|(at, _)| at).collect();
        assert_eq!(
            said,
            [path("d"), path("g/h/i")],
            "one of the top, one of the bottom"
        );
        assert_eq!(parked.total().0, 8);
        parked.forget(&path("g/h/i"));
        // Also where the directory itself was taken out before.
        parked.paths().remove(&path("d"));
        parked.forget(&path("d"));
        assert_eq!(parked.total().0, 2);
        assert!(parked.holds(&path("d-x")) && parked.holds(&path("d0")));
        parked.release(|path, _| path.as_bytes() == b"d0");
        assert_eq!(parked.total().0, 1);
    }
}
