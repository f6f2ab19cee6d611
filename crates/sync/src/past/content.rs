//! Which of the past's contents are on this device, told for a list of trees that hardly differ: only what differs from
//! one to the next is looked at. Never asks another device.

use std::collections::{HashMap, HashSet};

use alike_core::diff::{Difference, look_up};
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::RelPath;
use alike_core::tree;
use alike_store::Snapshot;
use serde_json::Value;

use super::{Past, json};
use crate::blobs;
use crate::control::{LogEntry, VersionEntry};
use crate::error::Error;

/// Files whose content is not here, by path: how that changes from one tree to the next older one. `None`: what the
/// path is then is here.
type Step = Vec<(RelPath, Option<Digest>)>;

/// What is to be answered, newest first, but for where the contents are.
pub(crate) struct Listing {
    pub(super) entries: Entries,
    /// One an entry.
    pub(super) steps: Vec<Step>,
}

/// What is listed.
pub(super) enum Entries {
    Generations(Vec<LogEntry>),
    Versions(Vec<VersionEntry>),
}

impl Listing {
    /// What is not here, each once.
    pub(crate) fn missing(&self) -> Vec<Digest> {
        let all = self.steps.iter().flatten().filter_map(|(_, digest)| *digest);
        let distinct: HashSet<Digest> = all.collect();
        distinct.into_iter().collect()
    }

    /// The answer, once it is known which of it others have.
    pub(crate) fn judged(self, elsewhere: &HashSet<Digest>) -> Value {
        let words = words(&self.steps, elsewhere);
        let answer = match self.entries {
            Entries::Generations(mut list) => {
                for (entry, word) in list.iter_mut().zip(words) {
                    entry.content = word.into();
                }
                json(&list)
            }
            Entries::Versions(mut list) => {
                for (entry, word) in list.iter_mut().zip(words) {
                    entry.content = word.into();
                }
                json(&list)
            }
        };
        answer.expect("answers are plain data")
    }
}

fn words(steps: &[Step], elsewhere: &HashSet<Digest>) -> Vec<&'static str> {
    let mut missing: HashMap<&RelPath, Digest> = HashMap::new();
    let mut nowhere = 0usize;
    let is_nowhere = |digest: &Digest| usize::from(!elsewhere.contains(digest));
    let mut words = Vec::with_capacity(steps.len());
    for step in steps {
        for (path, digest) in step {
            let was = match digest {
                Some(digest) => missing.insert(path, *digest),
                None => missing.remove(path),
            };
            nowhere += digest.as_ref().map_or(0, is_nowhere);
            nowhere -= was.as_ref().map_or(0, is_nowhere);
        }
        words.push(match (missing.is_empty(), nowhere) {
            (true, _) => "complete",
            (false, 0) => "remote",
            (false, _) => "partial",
        });
    }
    words
}

/// Looks for contents on this device.
pub(super) struct Content<'a> {
    past: &'a Past,
    snapshot: &'a Snapshot,
    known: HashMap<Digest, bool>,
}

impl<'a> Content<'a> {
    pub(super) fn new(past: &'a Past, snapshot: &'a Snapshot) -> Content<'a> {
        Content {
            past,
            snapshot,
            known: HashMap::new(),
        }
    }

    /// What is not here of HEAD, in `dir` or at it: what is still to come, unless it is here under another name.
    pub(super) fn of_head(&mut self, root: Digest, dir: &RelPath) -> Result<Step, Error> {
        let mut step = Step::new();
        let mut last: Option<(RelPath, Option<Entry>)> = None;
        for (path, _) in self.snapshot.pending(self.past.row.key, None, usize::MAX)? {
            let Some((parent, name)) = path.split().filter(|_| path.is_within(dir)) else {
                continue;
            };
            // They come sorted by directory.
            if last.as_ref().is_none_or(|(at, _)| *at != parent) {
                let found = look_up(self.snapshot, root, &parent)?;
                last = Some((parent, found));
            }
            let Some((_, Some(Entry::Dir { digest }))) = &last else {
                continue;
            };
            let found = tree::find::<NamedEntry>(self.snapshot, *digest, &name)?;
            if let Some(lacks) = self.lacks(found.map(|found| found.entry).as_ref()) {
                step.push((path, Some(lacks)));
            }
        }
        Ok(step)
    }

    /// From one tree to the next older one, by how they differ (before: the older one).
    pub(super) fn step(&mut self, differences: Vec<Difference>) -> Step {
        let mut step = Step::new();
        for Difference { path, before, .. } in differences {
            let lacks = self.lacks(before.as_ref());
            step.push((path, lacks));
        }
        step
    }

    /// The content that is not here.
    fn lacks(&mut self, entry: Option<&Entry>) -> Option<Digest> {
        let Some(Entry::File { digest, size, .. }) = entry else {
            return None;
        };
        (*size > 0 && !self.is_here(digest)).then_some(*digest)
    }

    fn is_here(&mut self, digest: &Digest) -> bool {
        let (past, snapshot) = (self.past, self.snapshot);
        *self.known.entry(*digest).or_insert_with(|| match &past.place {
            Some(place) => blobs::has(place, snapshot, digest),
            None => snapshot
                .blob_places(digest, blobs::PLACES)
                .is_ok_and(|places| places.iter().any(|(key, _)| *key == past.row.key)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_followed_path_by_path_into_the_past() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let path = |text: &str| RelPath::parse(text.as_bytes()).expect("fine");
        let (x, y) = (digest("x"), digest("y"));
        let steps = vec![
            vec![],
            vec![(path("a"), Some(x))],
            vec![(path("b"), Some(x))],
            vec![(path("a"), Some(y)), (path("c"), None)],
            vec![(path("a"), None)],
            vec![(path("b"), None)],
        ];
        let words = |elsewhere: &[Digest]| words(&steps, &elsewhere.iter().copied().collect()).join(" ");
        assert_eq!(words(&[x]), "complete remote remote partial remote complete");
        assert_eq!(words(&[x, y]), "complete remote remote remote remote complete");
        assert_eq!(words(&[]), "complete partial partial partial partial complete");
        assert_eq!(words(&[y]), "complete partial partial partial partial complete");
    }
}
