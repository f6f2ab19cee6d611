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
    let (mut old, mut new) = (load(a)?.into_iter().peekable(), load(b)?.into_iter().peekable());
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
        let (before, after) = (before.map(|e| e.entry), after.map(|e| e.entry));
        if before == after {
            continue;
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
        dir(nodes, x, y, &path, out)?;
    }
}
