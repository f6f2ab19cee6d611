//! Some entries of a state directory become others: its new tree, and what looks different now. Never decides what becomes
//! of an entry (that is `edit`, for local writes, and `merge`).

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::path::{Name, RelPath};
use crate::state::{StateEntry, read_dir};
use crate::tree::{self, Overlay, TreeError, pairs};
use crate::view::{Change, is_alone, view};

/// Puts `after` in the place of `before`, which is what `dir` has at some names, or all of it. Returns the directory that
/// comes out, or `None` if nothing lives in it; every path that looks different goes to `out`.
pub(crate) fn rewrite(
    nodes: &mut Overlay<'_>,
    dir: Option<Digest>,
    before: &[StateEntry],
    after: &[StateEntry],
    at: &RelPath,
    out: &mut Vec<Change>,
) -> Result<Option<Digest>, TreeError> {
    let Some(old) = dir else {
        note_changes(before, after, at, out);
        return Ok(write_dir(nodes, after));
    };
    let changes = tree::changes(before, after);
    if changes.is_empty() {
        return Ok(dir);
    }
    if before.iter().chain(after).all(is_alone) {
        note_changes(before, after, at, out);
    } else {
        let before = read_dir(nodes, dir)?;
        let mut after: BTreeMap<&Name, &StateEntry> = before.iter().map(|e| (&e.name, e)).collect();
        for (name, new) in &changes {
            match new {
                Some(new) => after.insert(name, new),
                None => after.remove(name),
            };
        }
        let after: Vec<StateEntry> = after.into_values().cloned().collect();
        note_changes(&before, &after, at, out);
    }
    let names: Vec<Name> = changes.iter().map(|(name, _)| name.clone()).collect();
    let mut new = Vec::new();
    let top = tree::patch(&*nodes, old, changes, &mut |digest, bytes| {
        new.push((digest, bytes.into()));
    })?;
    if top == tree::empty::<StateEntry>() {
        return Ok(None);
    }
    nodes.new.extend(new);
    nodes.note_patched(top, old, names.into_iter());
    Ok(Some(top))
}

/// Writes a directory of the state tree; `None` if nothing lives in it.
fn write_dir(nodes: &mut Overlay<'_>, entries: &[StateEntry]) -> Option<Digest> {
    if entries.is_empty() {
        return None;
    }
    Some(tree::write(entries, &mut |digest, bytes| {
        nodes.new.insert(digest, bytes.into());
    }))
}

/// Appends every name that looks different on disk.
fn note_changes(before: &[StateEntry], after: &[StateEntry], at: &RelPath, out: &mut Vec<Change>) {
    let (old, new) = (view(before), view(after));
    for (before, after) in pairs(&old, &new, |shown| &shown.name) {
        let same = match (before, after) {
            (Some(a), Some(b)) => a.looks_like(b) && a.dots == b.dots,
            _ => false,
        };
        if !same {
            let name = &before.or(after).expect("one side has it").name;
            out.push(Change {
                path: at.join(name),
                before: before.cloned(),
                after: after.cloned(),
            });
        }
    }
}
