//! The difference of two content trees, path by path. Never looks at causality.

use std::cmp::Ordering;

use crate::digest::Digest;
use crate::entry::{Entry, NamedEntry};
use crate::path::RelPath;
use crate::tree::{self, Nodes, TreeError};

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub path: RelPath,
    /// In the first tree.
    pub before: Option<Entry>,
    /// In the second tree.
    pub after: Option<Entry>,
}

/// Every path that differs between two content trees, parents before members, in path order by directory.
/// Directories that only differ in their members are not listed themselves.
pub fn diff(nodes: &dyn Nodes, before: Digest, after: Digest) -> Result<Vec<Difference>, TreeError> {
    let mut out = Vec::new();
    dir(nodes, Some(before), Some(after), &RelPath::root(), &mut out)?;
    Ok(out)
}

/// The same of what one path stands for, and of everything below it.
pub fn diff_at(
    nodes: &dyn Nodes,
    path: &RelPath,
    before: Option<Entry>,
    after: Option<Entry>,
) -> Result<Vec<Difference>, TreeError> {
    let mut out = Vec::new();
    one(nodes, before, after, path.clone(), &mut out)?;
    Ok(out)
}

/// What `path` stands for in a content tree: of the directories on the way only what is needed is read.
pub fn look_up(nodes: &dyn Nodes, root: Digest, path: &RelPath) -> Result<Option<Entry>, TreeError> {
    let mut at = Entry::Dir { digest: root };
    for name in path.components() {
        let Entry::Dir { digest } = at else {
            return Ok(None);
        };
        match tree::find::<NamedEntry>(nodes, digest, &name)? {
            Some(found) => at = found.entry,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn dir(
    nodes: &dyn Nodes,
    a: Option<Digest>,
    b: Option<Digest>,
    at: &RelPath,
    out: &mut Vec<Difference>,
) -> Result<(), TreeError> {
    if a == b {
        return Ok(());
    }
    let load = |digest: Option<Digest>| match digest {
        Some(digest) => tree::read::<NamedEntry>(nodes, digest),
        None => Ok(Vec::new()),
    };
    let (old, new) = match (a, b) {
        (Some(a), Some(b)) => tree::read_two(nodes, a, b)?,
        (a, b) => (load(a)?, load(b)?),
    };
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => x.name.cmp(&y.name),
        };
        let before = if order == Ordering::Greater {
            None
        } else {
            old.next()
        };
        let after = if order == Ordering::Less { None } else { new.next() };
        let path = at.join(&before.as_ref().or(after.as_ref()).expect("one side has it").name);
        one(nodes, before.map(|e| e.entry), after.map(|e| e.entry), path, out)?;
    }
}

fn one(
    nodes: &dyn Nodes,
    before: Option<Entry>,
    after: Option<Entry>,
    path: RelPath,
    out: &mut Vec<Difference>,
) -> Result<(), TreeError> {
    if before == after {
        return Ok(());
    }
    let below = |entry: &Option<Entry>| match entry {
        Some(Entry::Dir { digest }) => Some(*digest),
        _ => None,
    };
    let (x, y) = (below(&before), below(&after));
    if x.is_none() || y.is_none() {
        out.push(Difference {
            path: path.clone(),
            before,
            after,
        });
    }
    dir(nodes, x, y, &path, out)
}
