//! What must hold when everything is quiet: all folders equal, nothing lost, nothing come back, nothing changed
//! that nobody changed. Never changes a folder.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::engine::Engine;
use super::ledger::{Books, Digest, Id, Kind, State, mark, scan};
use super::tree::{Found, Node, grep};

/// What the name of a conflict copy has in it.
const MARK: &[u8] = b" (conflict ";

/// A folder by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Found>;

/// What was found.
#[derive(Default)]
pub(crate) struct Report {
    /// Broken invariants, for people.
    pub(crate) broken: Vec<String>,
    /// Files whose modification times differ between devices.
    pub(crate) times: Vec<String>,
    /// Writes that came too late and are kept in `.alike`.
    pub(crate) raced_kept: usize,
    /// … that are nowhere.
    pub(crate) raced_gone: usize,
}

/// All `trees` must be the same.
pub(crate) fn equal(trees: &[Tree], report: &mut Report) {
    let (first, rest) = trees.split_first().expect("there are devices");
    for (n, other) in rest.iter().enumerate() {
        let paths: BTreeSet<_> = first.keys().chain(other.keys()).collect();
        for path in paths {
            let (a, b) = (first.get(path), other.get(path));
            if a.map(|f| &f.node) != b.map(|f| &f.node) {
                report.broken.push(format!(
                    "NOT EQUAL: {}: d0 {}, d{} {}",
                    path.escape_ascii(),
                    show(a),
                    n + 1,
                    show(b)
                ));
            } else if a.map(|f| f.mtime) != b.map(|f| f.mtime) {
                let time = |f: Option<&Found>| f.and_then(|f| f.mtime).unwrap_or_default();
                report.times.push(format!(
                    "another time: {}: d0 {}, d{} {}",
                    path.escape_ascii(),
                    time(a),
                    n + 1,
                    time(b)
                ));
            }
        }
    }
}

fn show(found: Option<&Found>) -> String {
    match found.map(|f| &f.node) {
        None => "nothing".into(),
        Some(Node::Dir) => "a directory".into(),
        Some(Node::Link(target)) => format!("a link to {}", target.escape_ascii()),
        Some(Node::File { digest, exec }) => {
            let hex: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
            format!("file {hex}{}", if *exec { " exec" } else { "" })
        }
    }
}

/// The paths that actions touched or took away.
struct Touched {
    exact: HashSet<Vec<u8>>,
    /// Those and everything below.
    below: HashSet<Vec<u8>>,
    gone: HashSet<Vec<u8>>,
    /// Directories above anything touched; above anything taken away.
    above: HashSet<Vec<u8>>,
    above_gone: HashSet<Vec<u8>>,
}

impl Touched {
    fn new(books: &Books) -> Self {
        let mut touched = Touched {
            exact: HashSet::new(),
            below: HashSet::new(),
            gone: HashSet::new(),
            above: HashSet::new(),
            above_gone: HashSet::new(),
        };
        for event in &books.events {
            let (set, above) = match event.kind {
                Kind::Touch => (&mut touched.exact, &mut touched.above),
                Kind::TouchBelow => (&mut touched.below, &mut touched.above),
                Kind::Gone => (&mut touched.gone, &mut touched.above_gone),
                Kind::Time => continue,
            };
            above.extend(ancestors(&event.path).map(<[u8]>::to_vec));
            set.insert(event.path.clone());
        }
        touched
    }

    fn is_touched(&self, path: &[u8]) -> bool {
        self.exact.contains(path)
            || self.above.contains(path)
            || self.below.contains(path)
            || ancestors(path).any(|a| self.below.contains(a))
    }

    /// A link without an id in it, whose copy has the name that every such link gets there: as a conflict of its
    /// own it is a later link, made at the copy's home after this one.
    fn is_made_anew(&self, path: &[u8], before: &Found, after: &Found) -> bool {
        let Node::Link(target) = &after.node else {
            return false;
        };
        let home = home(path);
        scan(target).is_empty()
            && after.mtime > before.mtime
            && home.is_some_and(|home| self.is_touched(&home))
    }

    fn is_gone(&self, path: &[u8]) -> bool {
        self.gone.contains(path) || ancestors(path).any(|a| self.gone.contains(a))
    }
}

/// Where the content of a conflict copy was written, if its last name is a copy's.
fn home(path: &[u8]) -> Option<Vec<u8>> {
    let start = path.windows(MARK.len()).rposition(|w| w == MARK)?;
    let (stem, rest) = (&path[..start], &path[start + MARK.len()..]);
    let end = rest.iter().position(|b| *b == b')')?;
    (!rest.contains(&b'/')).then(|| [stem, &rest[end + 1..]].concat())
}

fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |p| {
        p.iter().rposition(|b| *b == b'/').map(|at| &p[..at])
    })
    .skip(1)
}

/// Compares the tree of the last quiet moment with the one of now, by what users did between.
pub(crate) fn paths(before: &Tree, now: &Tree, books: &Books, report: &mut Report) {
    let touched = Touched::new(books);
    for (path, found) in now {
        let is_copy = path.windows(MARK.len()).any(|w| w == MARK);
        if !before.contains_key(path) && !touched.is_touched(path) && !is_copy {
            report.broken.push(format!(
                "OUT OF NOWHERE: {}: {}",
                path.escape_ascii(),
                show(Some(found))
            ));
        }
    }
    for (path, found) in before {
        if touched.is_touched(path) {
            continue;
        }
        let after = now.get(path);
        if touched.is_gone(path) {
            // Who deletes the last member elsewhere keeps the directory there, as one that is empty.
            let emptied = found.node == Node::Dir && touched.above_gone.contains(path);
            let anew = after.is_some_and(|after| touched.is_made_anew(path, found, after));
            if after.is_some() && !emptied && !anew {
                report
                    .broken
                    .push(format!("CAME BACK: {}: {}", path.escape_ascii(), show(after)));
            }
        } else if after.map(|f| &f.node) != Some(&found.node)
            && !(found.node == Node::Dir && touched.above_gone.contains(path))
        {
            report.broken.push(format!(
                "CHANGED BY NOBODY: {}: {}, now {}",
                path.escape_ascii(),
                show(Some(found)),
                show(after)
            ));
        }
    }
}

/// Every content is known, and everything written and not taken away knowingly is there. Returns what is there.
pub(crate) fn contents(
    tree: &Tree,
    books: &Books,
    engines: &[Engine],
    report: &mut Report,
) -> (HashSet<Id>, HashSet<Digest>) {
    let mut present = HashSet::new();
    let mut digests = HashSet::new();
    for (path, found) in tree {
        match &found.node {
            Node::Dir => {}
            Node::Link(target) => present.extend(scan(target)),
            Node::File { digest, .. } => {
                match books.contents.get(digest) {
                    Some(ids) => present.extend(ids.iter().copied()),
                    None => report.broken.push(format!(
                        "NOBODY'S CONTENT: {}: {}",
                        path.escape_ascii(),
                        show(Some(found))
                    )),
                }
                digests.insert(*digest);
            }
        }
    }
    for id in present.iter().filter(|id| books.dead.contains(id)) {
        report.broken.push(format!("CONTENT CAME BACK: {id:010x}"));
    }
    for (id, fate) in &books.ids {
        if present.contains(id) || fate.state == State::Destroyed {
            continue;
        }
        let kept: Vec<_> = engines
            .iter()
            .flat_map(|e| grep(Path::new(&e.folder.join(".alike")), &mark(*id)))
            .collect();
        if fate.state == State::Raced {
            match kept.is_empty() {
                true => report.raced_gone += 1,
                false => report.raced_kept += 1,
            }
            continue;
        }
        report.broken.push(format!(
            "LOST: {id:010x}, written by d{} at {} after {:.3} s; in .alike: {kept:?}",
            fate.device,
            fate.path.escape_ascii(),
            fate.at.as_secs_f64()
        ));
    }
    (present, digests)
}
