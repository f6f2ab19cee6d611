//! Looking things up in HEAD by path. Keeps the directories from the root down to the one looked at last, so
//! that paths in tree order cost one reading a directory. Never changes anything.

use std::collections::{HashMap, HashSet};
use std::slice;

use alike_core::conflict::may_be_copy;
use alike_core::digest::Digest;
use alike_core::ids::Dot;
use alike_core::path::{Name, RelPath};
use alike_core::state::{StateEntry, read_dir};
use alike_core::tree::{Cursor, Nodes, TreeError};
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
    dir: Option<Digest>,
    /// Single names are found by this, as long as nobody wants more.
    cursor: Option<Cursor<StateEntry>>,
    last: Option<Shown>,
    all: Option<All>,
}

/// All that a directory shows.
struct All {
    shown: HashMap<Name, Shown>,
    dots: HashSet<Dot>,
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
        let nodes = self.nodes;
        self.open_dir(&dir)?.at(nodes, &name)
    }

    /// The names of the conflict copies of `path`.
    pub(crate) fn copies_of(&mut self, path: &RelPath) -> Result<Vec<Name>, TreeError> {
        let Some((dir, name)) = path.split() else {
            return Ok(Vec::new());
        };
        let nodes = self.nodes;
        let all = self.open_dir(&dir)?.all(nodes)?;
        let copies = all
            .shown
            .values()
            .filter(|shown| shown.copy_of.as_ref() == Some(&name));
        Ok(copies.map(|shown| shown.name.clone()).collect())
    }

    /// Is any of these records shown in the directory that was looked at last: in place, or as a conflict copy?
    pub(crate) fn lives(&mut self, dots: &[Dot]) -> Result<bool, TreeError> {
        let Some(open) = self.open.last_mut().filter(|_| !dots.is_empty()) else {
            return Ok(false);
        };
        // Mostly they are where somebody has just looked.
        let last = open.last.as_ref();
        if last.is_some_and(|last| last.dots.iter().any(|dot| dots.contains(dot))) {
            return Ok(true);
        }
        let all = open.all(self.nodes)?;
        Ok(dots.iter().any(|dot| all.dots.contains(dot)))
    }

    fn open_dir(&mut self, dir: &RelPath) -> Result<&mut Open, TreeError> {
        while self.open.last().is_some_and(|open| !dir.is_within(&open.path)) {
            self.open.pop();
        }
        if self.open.is_empty() {
            self.open.push(Open::new(RelPath::root(), self.root));
        }
        for name in dir.components().skip(self.open.len() - 1) {
            let above = self.open.last_mut().expect("the root at least is open");
            let child = above.at(self.nodes, &name)?.and_then(|shown| shown.child);
            let path = above.path.join(&name);
            self.open.push(Open::new(path, child));
        }
        Ok(self.open.last_mut().expect("the root at least is open"))
    }
}

impl Open {
    fn new(path: RelPath, dir: Option<Digest>) -> Self {
        Open {
            path,
            dir,
            cursor: dir.map(Cursor::new),
            last: None,
            all: None,
        }
    }

    fn at(&mut self, nodes: &dyn Nodes, name: &Name) -> Result<Option<&Shown>, TreeError> {
        // What is at a conflict name depends on the whole directory, at any other on its own entry alone.
        if self.all.is_some() || may_be_copy(name) {
            return Ok(self.all(nodes)?.shown.get(name));
        }
        let entry = match &mut self.cursor {
            Some(cursor) => cursor.find(nodes, name)?,
            None => None,
        };
        let shown = view(entry.map(slice::from_ref).unwrap_or_default());
        self.last = shown.into_iter().find(|shown| shown.name == *name);
        Ok(self.last.as_ref())
    }

    fn all(&mut self, nodes: &dyn Nodes) -> Result<&All, TreeError> {
        let all = match self.all.take() {
            Some(all) => all,
            None => {
                let shown = view(&read_dir(nodes, self.dir)?);
                All {
                    dots: shown.iter().flat_map(|s| s.dots.iter().copied()).collect(),
                    shown: shown.into_iter().map(|s| (s.name.clone(), s)).collect(),
                }
            }
        };
        Ok(self.all.insert(all))
    }
}
