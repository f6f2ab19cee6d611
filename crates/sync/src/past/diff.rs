//! What differs between two generations, with renames recognised by content. Never looks at the disk.

use std::collections::{HashMap, VecDeque};

use alike_core::diff::{self, Difference};
use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::RelPath;
use alike_core::tree;

use super::{Past, find_generation};
use crate::control::DiffEntry;
use crate::error::Error;
use crate::status::json_text;

/// What differs from one generation to another one, or to now.
pub(crate) fn diff(past: &Past, from: &str, to: Option<&str>) -> Result<Vec<DiffEntry>, Error> {
    let snapshot = past.store.snapshot()?;
    let key = past.row.key;
    let before = find_generation(&snapshot, key, from)?.root;
    let after = match to {
        Some(to) => find_generation(&snapshot, key, to)?.root,
        None => snapshot.head(key)?.summary.root,
    };
    let changes = changes(diff::diff(&snapshot, before, after)?);
    Ok(changes.into_iter().map(Change::told).collect())
}

/// One path that changed.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    path: RelPath,
    how: How,
}

/// What happened to it.
#[derive(Debug, PartialEq, Eq)]
enum How {
    Added,
    Modified,
    Removed,
    RenamedFrom(RelPath),
}

impl Change {
    fn told(self) -> DiffEntry {
        let (change, from) = match &self.how {
            How::Added => ("added", None),
            How::Modified => ("modified", None),
            How::Removed => ("removed", None),
            How::RenamedFrom(from) => ("renamed", Some(json_text(from.as_bytes()))),
        };
        DiffEntry {
            change: change.into(),
            path: json_text(self.path.as_bytes()),
            from,
        }
    }
}

/// By path. Of directories that came or went only the empty ones are named: the others show in what is in them.
fn changes(mut differences: Vec<Difference>) -> Vec<Change> {
    let empty = tree::empty::<NamedEntry>();
    let shows = |entry: &Option<Entry>| match entry {
        Some(Entry::Dir { digest }) => *digest == empty,
        Some(Entry::File { .. } | Entry::Symlink { .. }) => true,
        None => false,
    };
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    let mut from = renames(&differences);
    let gone: std::collections::HashSet<RelPath> = from.values().cloned().collect();
    let mut out = Vec::new();
    for Difference { path, before, after } in differences {
        let how = match (&before, &after) {
            (None, after) => match from.remove(&path) {
                Some(old) => How::RenamedFrom(old),
                None if shows(after) => How::Added,
                None => continue,
            },
            (before, None) if shows(before) && !gone.contains(&path) => How::Removed,
            (_, None) => continue,
            (Some(_), Some(_)) => How::Modified,
        };
        out.push(Change { path, how });
    }
    out
}

/// Files that went, and came with the same content elsewhere: new path to old one. Those that kept their name are
/// paired first, then in the order of their paths. Empty files are all alike, and none of them another one.
fn renames(sorted: &[Difference]) -> HashMap<RelPath, RelPath> {
    let mut gone: HashMap<Digest, Vec<&RelPath>> = HashMap::new();
    let mut came: HashMap<Digest, Vec<&RelPath>> = HashMap::new();
    for Difference { path, before, after } in sorted {
        match (before, after) {
            (
                Some(Entry::File {
                    digest, size: 1.., ..
                }),
                None,
            ) => gone.entry(*digest).or_default().push(path),
            (
                None,
                Some(Entry::File {
                    digest, size: 1.., ..
                }),
            ) => came.entry(*digest).or_default().push(path),
            _ => {}
        }
    }
    let mut pairs = HashMap::new();
    for (digest, old) in gone {
        let Some(new) = came.remove(&digest) else { continue };
        let name = |path: &RelPath| path.split().map(|(_, name)| name);
        let mut by_name: HashMap<_, VecDeque<&RelPath>> = HashMap::new();
        for path in new.iter().copied() {
            by_name.entry(name(path)).or_default().push_back(path);
        }
        let mut rest = Vec::new();
        for path in old {
            match by_name.get_mut(&name(path)).and_then(VecDeque::pop_front) {
                Some(to) => drop(pairs.insert(to.clone(), path.clone())),
                None => rest.push(path),
            }
        }
        let left: Vec<&RelPath> = new
            .into_iter()
            .filter(|path| !pairs.contains_key(*path))
            .collect();
        pairs.extend(
            left.into_iter()
                .zip(rest)
                .map(|(to, from)| (to.clone(), from.clone())),
        );
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Option<Entry> {
        Some(Entry::File {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
            exec: false,
        })
    }

    fn told(differences: &[(&str, Option<Entry>, Option<Entry>)]) -> String {
        let differences = differences.iter().map(|(path, before, after)| Difference {
            path: RelPath::parse(path.as_bytes()).expect("fine"),
            before: before.clone(),
            after: after.clone(),
        });
        let told = changes(differences.collect()).into_iter().map(|c| match c.how {
            How::Added => format!("A {}", c.path),
            How::Modified => format!("M {}", c.path),
            How::Removed => format!("D {}", c.path),
            How::RenamedFrom(from) => format!("R {from} -> {}", c.path),
        });
        told.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_went_and_came_with_the_same_content_was_renamed() {
        assert_eq!(
            told(&[("a", file("x"), None), ("b", None, file("x"))]),
            "R a -> b"
        );
        assert_eq!(
            told(&[("a", file("x"), None), ("b", None, file("y"))]),
            "D a, A b"
        );
        assert_eq!(told(&[("a", file(""), None), ("b", None, file(""))]), "D a, A b");
        // A copy is no rename; what was there before is no target.
        assert_eq!(
            told(&[("a", file("y"), file("z")), ("b", None, file("y"))]),
            "M a, A b"
        );
    }

    #[test]
    fn renames_that_keep_the_name_are_paired_first_then_by_path() {
        assert_eq!(
            told(&[
                ("one/a", file("x"), None),
                ("one/b", file("x"), None),
                ("one/c", file("x"), None),
                ("two/0", None, file("x")),
                ("two/b", None, file("x")),
            ]),
            "D one/c, R one/a -> two/0, R one/b -> two/b"
        );
        assert_eq!(
            told(&[
                ("a", file("x"), None),
                ("b", None, file("x")),
                ("c", None, file("x")),
            ]),
            "R a -> b, A c"
        );
    }

    #[test]
    fn of_directories_only_empty_ones_are_told() {
        let empty = Some(Entry::Dir {
            digest: tree::empty::<NamedEntry>(),
        });
        let full = Some(Entry::Dir {
            digest: Digest::of(b"full"),
        });
        assert_eq!(
            told(&[
                ("came", None, empty.clone()),
                ("dir", None, full.clone()),
                ("dir/a", None, file("a")),
                ("went", empty, None),
                ("went2", full.clone(), None),
                ("went2/a", file("b"), None),
                ("x", file("x"), full.clone()),
                ("x/y", None, file("y")),
            ]),
            "A came, A dir/a, D went, D went2/a, M x, A x/y"
        );
    }
}
