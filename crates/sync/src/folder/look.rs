//! Looking things up in HEAD by path. Keeps the directories from the root down to the one looked at last, so
//! that paths in tree order cost one reading a directory. Never changes anything.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use alike_core::digest::Digest;
use alike_core::ids::Dot;
use alike_core::path::{Name, RelPath};
use alike_core::state::read_dir;
use alike_core::tree::{Nodes, TreeError};
use alike_core::view::{Shown, view};

/// What HEAD shows.
pub(crate) struct Look<'a> {
    nodes: &'a dyn Nodes,
    root: Option<Digest>,
    /// Directories, each in the one before it; the first is the root.
    open: Vec<Open>,
}

struct Open {
    path: RelPath,
    shown: HashMap<Name, Shown>,
    /// All records shown in it, for who asks.
    dots: OnceCell<HashSet<Dot>>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(nodes: &'a dyn Nodes, root: Option<Digest>) -> Self {
        Look {
            nodes,
            root,
            open: Vec::new(),
        }
    }

    /// What HEAD shows at `path`; `None` for nothing, and for the root.
    pub(crate) fn at(&mut self, path: &RelPath) -> Result<Option<&Shown>, TreeError> {
        let Some((dir, name)) = path.split() else {
            return Ok(None);
        };
        self.open_dir(&dir)?;
        Ok(self.open.last().and_then(|open| open.shown.get(&name)))
    }

    /// The names of the conflict copies of `path`.
    pub(crate) fn copies_of(&mut self, path: &RelPath) -> Result<Vec<Name>, TreeError> {
        let Some((dir, name)) = path.split() else {
            return Ok(Vec::new());
        };
        self.open_dir(&dir)?;
        let shown = self.open.last().into_iter().flat_map(|open| open.shown.values());
        let copies = shown.filter(|shown| shown.copy_of.as_ref() == Some(&name));
        Ok(copies.map(|shown| shown.name.clone()).collect())
    }

    /// Is any of these records shown in the directory that was looked at last: in place, or as a conflict copy?
    pub(crate) fn lives(&self, dots: &[Dot]) -> bool {
        self.open.last().is_some_and(|open| {
            let all = open
                .dots
                .get_or_init(|| open.shown.values().flat_map(|s| s.dots.clone()).collect());
            dots.iter().any(|d| all.contains(d))
        })
    }

    fn open_dir(&mut self, dir: &RelPath) -> Result<(), TreeError> {
        while self.open.last().is_some_and(|open| !dir.is_within(&open.path)) {
            self.open.pop();
        }
        if self.open.is_empty() {
            let shown = self.read(self.root)?;
            self.open.push(Open {
                path: RelPath::root(),
                shown,
                dots: OnceCell::new(),
            });
        }
        for name in dir.components().skip(self.open.len() - 1) {
            let above = self.open.last().expect("the root at least is open");
            let child = above.shown.get(&name).and_then(|s| s.child);
            let path = above.path.join(&name);
            let shown = self.read(child)?;
            let dots = OnceCell::new();
            self.open.push(Open { path, shown, dots });
        }
        Ok(())
    }

    fn read(&self, dir: Option<Digest>) -> Result<HashMap<Name, Shown>, TreeError> {
        let entries = read_dir(self.nodes, dir)?;
        Ok(view(&entries).into_iter().map(|s| (s.name.clone(), s)).collect())
    }
}
