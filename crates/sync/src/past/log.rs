//! A folder's generations, and the versions of one path in them. Never asks another device.

use alike_core::diff;
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::{Name, RelPath};
use alike_core::tree::{self, Nodes, TreeError};
use alike_store::{Generation, Reason};

use super::Past;
use super::content::{Content, Entries, Listing};
use crate::control::{LogEntry, VersionEntry};
use crate::error::Error;
use crate::status::rfc3339;

/// At most `limit` generations, the newest first.
pub(crate) fn generations(past: &Past, limit: usize) -> Result<Listing, Error> {
    let snapshot = past.store.snapshot()?;
    let mut content = Content::new(past, &snapshot);
    let mut newer = snapshot.head(past.row.key)?.summary.root;
    let pins = snapshot.pins(past.row.key)?;
    let (mut list, mut steps) = (Vec::new(), Vec::new());
    let mut step = content.of_head(newer, &RelPath::root())?;
    for generation in snapshot.generations(past.row.key, limit)? {
        step.extend(content.step(diff::diff(&snapshot, generation.root, newer)?));
        steps.push(std::mem::take(&mut step));
        newer = generation.root;
        list.push(LogEntry {
            generation: generation.number,
            root: generation.root.to_hex(),
            time: rfc3339(generation.time_ms),
            reason: reason(generation.reason).into(),
            device: past.names.of(&generation.device),
            added: generation.added,
            changed: generation.changed,
            removed: generation.removed,
            content: String::new(),
            pinned: pins.contains(&generation.number),
        });
    }
    Ok(Listing {
        entries: Entries::Generations(list),
        steps,
    })
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Local => "local",
        Reason::Peer => "peer",
        Reason::Restore => "restore",
        Reason::Initial => "initial",
    }
}

/// At most `limit` versions of what is at `path`, the newest first.
pub(crate) fn versions(past: &Past, limit: usize, path: &RelPath) -> Result<Listing, Error> {
    let snapshot = past.store.snapshot()?;
    let mut content = Content::new(past, &snapshot);
    let mut trail = Trail::new(path);
    let head = snapshot.head(past.row.key)?.summary.root;
    let mut newer = trail.look(&snapshot, head)?;
    let (mut list, mut steps) = (Vec::new(), Vec::new());
    let mut step = content.of_head(head, path)?;
    let all = snapshot.generations(past.row.key, usize::MAX)?;
    let found = history(&snapshot, &mut trail, &all)?;
    if found.is_empty() {
        return Err(Error::Refused(format!(
            "{path} was never in the folder “{}”, as far back as its generations go",
            past.row.name
        )));
    }
    for (generation, value) in found.into_iter().take(limit) {
        let differs = diff::diff_at(&snapshot, path, value.clone(), newer)?;
        step.extend(content.step(differs));
        steps.push(std::mem::take(&mut step));
        let (kind, size, digest) = match &value {
            Some(Entry::File { digest, size, .. }) => ("file", *size, digest.to_hex()),
            Some(Entry::Symlink { .. }) => ("symlink", 0, String::new()),
            Some(Entry::Dir { .. }) => ("dir", 0, String::new()),
            None => ("removed", 0, String::new()),
        };
        newer = value;
        list.push(VersionEntry {
            generation: generation.number,
            time: rfc3339(generation.time_ms),
            device: past.names.of(&generation.device),
            kind: kind.into(),
            size,
            digest,
            content: String::new(),
        });
    }
    Ok(Listing {
        entries: Entries::Versions(list),
        steps,
    })
}

/// Each value that the path had, with the first generation that had it, the newest first; no value: it was removed.
/// Empty if it never had any.
fn history<'a>(
    nodes: &dyn Nodes,
    trail: &mut Trail,
    generations: &'a [Generation],
) -> Result<Vec<(&'a Generation, Option<Entry>)>, Error> {
    let mut found: Vec<(&Generation, Option<Entry>)> = Vec::new();
    for generation in generations {
        let value = trail.look(nodes, generation.root)?;
        match found.last_mut() {
            Some((first, same)) if *same == value => *first = generation,
            _ => found.push((generation, value)),
        }
    }
    // Before it was first there it was not removed.
    found.pop_if(|(_, value)| value.is_none());
    Ok(found)
}

/// The way to a path, remembered from one tree to the next: below a directory that is the same nothing is read.
struct Trail {
    names: Vec<Name>,
    dirs: Vec<Digest>,
    value: Option<Entry>,
}

impl Trail {
    fn new(path: &RelPath) -> Trail {
        Trail {
            names: path.components().collect(),
            dirs: Vec::new(),
            value: None,
        }
    }

    fn look(&mut self, nodes: &dyn Nodes, root: Digest) -> Result<Option<Entry>, TreeError> {
        let mut at = Some(Entry::Dir { digest: root });
        for (depth, name) in self.names.iter().enumerate() {
            let Some(Entry::Dir { digest }) = at else {
                self.dirs.truncate(depth);
                at = None;
                break;
            };
            match self.dirs.get_mut(depth) {
                Some(known) if *known == digest => return Ok(self.value.clone()),
                Some(known) => *known = digest,
                None => self.dirs.push(digest),
            }
            at = tree::find::<NamedEntry>(nodes, digest, name)?.map(|found| found.entry);
        }
        self.value = at;
        Ok(self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;

    type Store = HashMap<Digest, Arc<[u8]>>;

    fn dir(nodes: &mut Store, members: &[(&str, Entry)]) -> Entry {
        let entries: Vec<NamedEntry> = members
            .iter()
            .map(|(name, entry)| NamedEntry {
                name: Name::new(name.as_bytes()).expect("fine"),
                entry: entry.clone(),
            })
            .collect();
        let digest = tree::write(&entries, &mut |digest, bytes| {
            nodes.insert(digest, bytes.into());
        });
        Entry::Dir { digest }
    }

    fn file(text: &str) -> Entry {
        Entry::File {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
            exec: false,
        }
    }

    fn generation(number: u64, root: &Entry) -> Generation {
        let Entry::Dir { digest } = root else {
            panic!("a root is a directory")
        };
        Generation {
            number,
            root: *digest,
            state: None,
            time_ms: number,
            reason: Reason::Local,
            device: [0; 32],
            added: 0,
            changed: 0,
            removed: 0,
        }
    }

    #[test]
    fn a_path_is_followed_through_removal_return_and_other_kinds() {
        let mut nodes = Store::new();
        let inner = |nodes: &mut Store, value: Option<&Entry>, beside: &str| {
            let members: Vec<(&str, Entry)> = [("a", file(beside))]
                .into_iter()
                .chain(value.map(|v| ("x", v.clone())))
                .collect();
            let sub = dir(nodes, &members);
            dir(nodes, &[("other", file("o")), ("sub", sub)])
        };
        let as_dir = dir(&mut nodes, &[("m", file("m"))]);
        let roots = [
            dir(&mut nodes, &[]),
            inner(&mut nodes, None, "1"),
            inner(&mut nodes, Some(&file("one")), "1"),
            inner(&mut nodes, Some(&file("one")), "2"),
            inner(&mut nodes, None, "2"),
            dir(&mut nodes, &[("sub", file("a file"))]),
            inner(&mut nodes, Some(&file("one")), "2"),
            inner(&mut nodes, Some(&as_dir), "2"),
            inner(&mut nodes, Some(&as_dir), "3"),
        ];
        let generations: Vec<Generation> = (1..=9)
            .zip(&roots)
            .map(|(n, root)| generation(n, root))
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let path = RelPath::parse(b"sub/x").expect("fine");
        let found = history(&nodes, &mut Trail::new(&path), &generations).expect("whole");
        let found: Vec<(u64, Option<Entry>)> = found.into_iter().map(|(g, v)| (g.number, v)).collect();
        assert_eq!(
            found,
            [
                (8, Some(as_dir)),
                (7, Some(file("one"))),
                (5, None),
                (3, Some(file("one")))
            ]
        );
        let never = RelPath::parse(b"sub/y").expect("fine");
        assert!(
            history(&nodes, &mut Trail::new(&never), &generations)
                .expect("whole")
                .is_empty()
        );
        let root = history(&nodes, &mut Trail::new(&RelPath::root()), &generations).expect("whole");
        assert_eq!(root.len(), roots.len());
    }

    #[test]
    fn below_a_directory_that_is_the_same_nothing_is_read() {
        let mut nodes = Store::new();
        let sub = dir(&mut nodes, &[("x", file("x"))]);
        let Entry::Dir { digest } = sub else {
            unreachable!("it is one")
        };
        let path = RelPath::parse(b"sub/x").expect("fine");
        let roots: Vec<Entry> = ["1", "2"]
            .map(|text| dir(&mut nodes, &[("a", file(text)), ("sub", sub.clone())]))
            .into();
        let generations: Vec<Generation> = (1..).zip(&roots).map(|(n, root)| generation(n, root)).collect();
        let mut trail = Trail::new(&path);
        assert_eq!(
            trail.look(&nodes, generations[0].root).expect("whole"),
            Some(file("x"))
        );
        nodes.remove(&digest);
        assert_eq!(
            trail.look(&nodes, generations[1].root).expect("not read"),
            Some(file("x"))
        );
    }
}
