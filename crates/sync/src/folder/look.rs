//! Looking things up in HEAD by path, a directory at a time. Never changes anything.

use std::collections::HashMap;

use alike_core::digest::Digest;
use alike_core::ids::Dot;
use alike_core::path::{Name, RelPath};
use alike_core::state::{find_dir, read_dir};
use alike_core::tree::{Nodes, TreeError};
use alike_core::view::{Shown, view};

/// What HEAD shows, with the directory looked at last kept: paths come sorted by directory.
pub(crate) struct Look<'a> {
    nodes: &'a dyn Nodes,
    root: Option<Digest>,
    dir: Option<RelPath>,
    shown: HashMap<Name, Shown>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(nodes: &'a dyn Nodes, root: Option<Digest>) -> Self {
        Look {
            nodes,
            root,
            dir: None,
            shown: HashMap::new(),
        }
    }

    /// What HEAD shows at `path`; `None` for nothing, and for the root.
    pub(crate) fn at(&mut self, path: &RelPath) -> Result<Option<&Shown>, TreeError> {
        let Some((dir, name)) = path.split() else {
            return Ok(None);
        };
        if self.dir.as_ref() != Some(&dir) {
            let entries = read_dir(self.nodes, find_dir(self.nodes, self.root, &dir)?)?;
            self.shown = view(&entries).into_iter().map(|s| (s.name.clone(), s)).collect();
            self.dir = Some(dir);
        }
        Ok(self.shown.get(&name))
    }

    /// Is any of these records shown in the directory that was looked at last: in place, or as a conflict copy?
    pub(crate) fn lives(&self, dots: &[Dot]) -> bool {
        self.shown
            .values()
            .any(|s| s.dots.iter().any(|d| dots.contains(d)))
    }
}
