//! The rail against mass removals: what would take away very much at once, here or by a peer, is held until a
//! person accepts or rejects it. Never decides what much is (`core::plan`), and never touches the disk.

use std::collections::{BTreeMap, HashMap, HashSet};

use alike_core::digest::Digest;
use alike_core::edit::{self, Edits};
use alike_core::path::RelPath;
use alike_core::plan::is_mass_removal;
use alike_core::record::{Record, Value};
use alike_core::state::read_dir;
use alike_core::tree::Overlay;
use alike_core::view::{Change, Shown, view};
use alike_store::{FolderKey, Reason};

use super::commit::Draft;
use super::rules::drop_ignored;
use super::scanner::ScanInput;
use super::{Folder, Look, now_ms};
use crate::blobs;
use crate::error::Error;
use crate::scan::{Finding, Found};

/// Places of one content that are looked at to tell a moved file from one that is gone.
const MAX_PLACES: usize = 64;

/// What is held, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldView {
    /// By whose change: a peer's, or (`None`) what was found on this disk.
    pub(crate) by: Option<[u8; 32]>,
    /// Files that would go.
    pub(crate) gone: u64,
    /// Of so many.
    pub(crate) files: u64,
    /// The peer's state tree that is not merged.
    pub(crate) state: Option<Digest>,
}

/// What happens to files that are gone from this disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Local {
    /// Nothing is held: few are deletions, many are asked about.
    #[default]
    Free,
    /// A person is asked. What is gone counts as unknown until then.
    Held { gone: u64, files: u64 },
    /// The next complete look may take away so many.
    Accepted(u64),
    /// What the next complete look misses is put back.
    Rejected,
}

/// What happens to a peer's state that takes much away.
#[derive(Debug)]
enum Remote {
    Held {
        gone: u64,
        files: u64,
        paths: Vec<RelPath>,
        state: Option<Digest>,
    },
    /// Its next state may take away so many.
    Accepted(u64),
}

/// Everything that is held or was just answered.
#[derive(Debug, Default)]
pub(super) struct Hold {
    local: Local,
    remote: BTreeMap<[u8; 32], Remote>,
}

impl Hold {
    pub(super) fn view(&self) -> Vec<HeldView> {
        let mut held = Vec::new();
        if let Local::Held { gone, files } = self.local {
            held.push(HeldView {
                by: None,
                gone,
                files,
                state: None,
            });
        }
        for (by, remote) in &self.remote {
            if let Remote::Held {
                gone, files, state, ..
            } = remote
            {
                held.push(HeldView {
                    by: Some(*by),
                    gone: *gone,
                    files: *files,
                    state: *state,
                });
            }
        }
        held
    }
}

/// What a person accepted once covers a few more of the same: the disk goes on changing while he reads.
fn covers(accepted: u64, gone: u64) -> bool {
    gone <= accepted + accepted / 10 + 10
}

impl Folder {
    /// What a scan no longer found. `full`: it is everything that is gone.
    pub(super) fn gone(&mut self, mut findings: Vec<Finding>, full: bool) -> Result<(), Error> {
        drop_ignored(&mut self.place.rules(), &mut findings);
        if findings.is_empty() && self.hold.local == Local::Free {
            return Ok(());
        }
        if !full && self.hold.local != Local::Free {
            // Unknown, until a complete look shows how much it is.
            return Ok(());
        }
        let files = self.head.summary.files;
        let gone = self.count_gone(&findings)?;
        let mass = is_mass_removal(files, gone);
        match self.hold.local {
            Local::Rejected => {
                self.put_back(findings)?;
                self.set_local(Local::Free);
                return Ok(());
            }
            Local::Accepted(accepted) if mass && !covers(accepted, gone) => {
                self.set_local(Local::Held { gone, files });
                return Ok(());
            }
            Local::Free | Local::Held { .. } if mass => {
                self.set_local(Local::Held { gone, files });
                return Ok(());
            }
            Local::Free | Local::Held { .. } | Local::Accepted(_) => {}
        }
        self.set_local(Local::Free);
        self.found(findings.into_iter().map(Found::Changed).collect())
    }

    fn set_local(&mut self, local: Local) {
        if self.hold.local != local {
            self.hold.local = local;
            let held = local != Local::Free;
            let _ = self.rescan.send(ScanInput::Held(held));
        }
    }

    /// Files of HEAD among what is gone, without those whose content is at another path of this folder now.
    fn count_gone(&self, findings: &[Finding]) -> Result<u64, Error> {
        let snapshot = self.place.store.snapshot()?;
        let paths: HashSet<&RelPath> = findings.iter().map(|f| &f.path).collect();
        let mut look = Look::new(&snapshot, self.head.state.root);
        let mut count = 0;
        for finding in findings {
            let Some(row) = finding.base.as_ref().filter(|r| r.mat.value != Value::Dir) else {
                continue;
            };
            // Replaced or deleted elsewhere too: then nothing of ours is taken away.
            look.at(&finding.path)?;
            if !look.lives(&row.mat.dots)? {
                continue;
            }
            let moved = match &row.mat.value {
                Value::File { digest, .. } => snapshot
                    .blob_places(digest, MAX_PLACES)?
                    .iter()
                    .any(|(key, path)| *key == self.place.key && !paths.contains(path)),
                Value::Symlink { .. } | Value::Dir => false,
            };
            count += u64::from(!moved);
        }
        Ok(count)
    }

    /// Forgets that the paths were here: HEAD's versions are materialised again.
    fn put_back(&mut self, findings: Vec<Finding>) -> Result<(), Error> {
        let store = self.place.store.clone();
        let snapshot = store.snapshot()?;
        let mut look = Look::new(&snapshot, self.head.state.root);
        let mut draft = Draft::new(&snapshot, self);
        for finding in findings {
            // Whatever the index says by now: what is in the way after all is found there and looked at again.
            let head = look.at(&finding.path)?.cloned();
            draft.set_mat(&finding.path, None);
            draft.settle(&finding.path, head.as_ref())?;
        }
        let commit = draft.into_commit();
        store.commit(self.place.key, commit)?;
        Ok(())
    }

    /// Does a peer's state take away more than may go without a question?
    pub(super) fn hold_merge(
        &mut self,
        from: [u8; 32],
        state: Option<Digest>,
        changes: &[Change],
    ) -> Result<(), Error> {
        let files = self.head.summary.files;
        let (mut gone, paths) = removed(changes, &HashSet::new());
        if is_mass_removal(files, gone) {
            // All of HEAD has to be read for that.
            gone = removed(changes, &self.stays(changes)?).0;
        }
        let is_mass = is_mass_removal(files, gone)
            && is_mass_removal(files, gone.saturating_sub(self.comes_back(changes)?));
        if !is_mass {
            self.hold.remote.remove(&from);
            return Ok(());
        }
        if let Some(Remote::Accepted(accepted)) = self.hold.remote.get(&from)
            && covers(*accepted, gone)
        {
            self.hold.remote.remove(&from);
            return Ok(());
        }
        let held = Remote::Held {
            gone,
            files,
            paths,
            state,
        };
        self.hold.remote.insert(from, held);
        Err(Error::Held { gone, files })
    }

    /// What goes in one place and is also in another that stays as it is: who renames a directory may be seen first with both
    /// names, and then with one.
    fn stays(&self, changes: &[Change]) -> Result<HashSet<Digest>, Error> {
        let snapshot = self.place.store.snapshot()?;
        let gone = changes.iter().filter(|change| change.after.is_none());
        let wanted: HashSet<Digest> = gone.filter_map(|change| key(&change.before)).collect();
        let changed: HashSet<&RelPath> = changes.iter().map(|change| &change.path).collect();
        let mut found = HashSet::new();
        let mut dirs = vec![(RelPath::root(), self.head.state.root)];
        while let Some((dir, node)) = dirs.pop() {
            for shown in view(&read_dir(&snapshot, node)?) {
                if let Some(child) = shown.child {
                    dirs.push((dir.join(&shown.name), Some(child)));
                }
                if let Some(key) = shown.value.key().filter(|key| wanted.contains(key))
                    && !changed.contains(&dir.join(&shown.name))
                {
                    found.insert(key);
                }
            }
        }
        Ok(found)
    }

    /// How many files come whose content was here before, and is not now: somebody has made the folder again what it was,
    /// and what goes for that had come in their place. (Whoever encrypts a folder brings as many files as he takes, but
    /// new ones; whoever copies others meanwhile brings what is here.)
    fn comes_back(&self, changes: &[Change]) -> Result<u64, Error> {
        let snapshot = self.place.store.snapshot()?;
        let known = |change: &&Change| match (&change.before, &change.after) {
            (None, Some(after)) => match &after.value {
                Value::File { digest, size } => {
                    let lives = |places: Vec<(FolderKey, RelPath)>| {
                        places.iter().any(|(key, _)| *key == self.place.key)
                    };
                    *size > 0
                        && blobs::has(&self.place, &snapshot, digest)
                        && !snapshot.blob_places(digest, MAX_PLACES).is_ok_and(lives)
                }
                Value::Symlink { .. } | Value::Dir => false,
            },
            _ => false,
        };
        Ok(changes.iter().filter(known).count() as u64)
    }

    /// A peer no longer has the state that was held, or is no peer any more.
    pub(super) fn let_go(&mut self, from: [u8; 32]) {
        self.hold.remote.remove(&from);
    }

    /// Lets everything through that is held.
    pub(super) fn accept(&mut self) {
        if let Local::Held { gone, .. } = self.hold.local {
            self.hold.local = Local::Accepted(gone);
            let _ = self.rescan.send(ScanInput::Full);
        }
        for remote in self.hold.remote.values_mut() {
            if let Remote::Held { gone, .. } = remote {
                *remote = Remote::Accepted(*gone);
            }
        }
    }

    /// Puts back everything that is held: on this disk, and on the peers that removed it.
    pub(super) fn reject(&mut self) -> Result<(), Error> {
        if let Local::Held { .. } = self.hold.local {
            self.hold.local = Local::Rejected;
            let _ = self.rescan.send(ScanInput::Full);
        }
        let paths: Vec<RelPath> = self
            .hold
            .remote
            .values()
            .flat_map(|remote| match remote {
                Remote::Held { paths, .. } => paths.clone(),
                Remote::Accepted(_) => Vec::new(),
            })
            .collect();
        if !paths.is_empty() {
            self.write_again(paths, false)?;
        }
        self.hold.remote.clear();
        Ok(())
    }

    /// Writes what HEAD shows at these paths as new edits, so that no peer has seen and deleted them. `settle`:
    /// conflict copies become files like any others.
    pub(super) fn write_again(&mut self, paths: Vec<RelPath>, settle: bool) -> Result<(), Error> {
        self.or_as_before(|folder| folder.try_write_again(paths, settle))
    }

    fn try_write_again(&mut self, mut paths: Vec<RelPath>, settle: bool) -> Result<(), Error> {
        paths.sort_unstable();
        paths.dedup();
        let store = self.place.store.clone();
        let snapshot = store.snapshot()?;
        let old_root = self.head.state.root;
        let now = now_ms();
        let mut look = Look::new(&snapshot, old_root);
        let mut edits = Edits::default();
        let mut rows = Vec::new();
        for path in &paths {
            let (Some(mut shown), Some((dir, name))) = (look.at(path)?.cloned(), path.split()) else {
                continue;
            };
            if settle {
                shown.copy_of = None;
            }
            let record = self.same_again(&shown, now);
            let dot = record.dot;
            let edit = edits.dir(&dir);
            edit.kill(
                shown.copy_of.as_ref().unwrap_or(&name),
                shown.dots.iter().copied(),
            );
            edit.add.push((shown.copy_of.unwrap_or(name), record));
            if let Some(mut row) = snapshot.index(self.place.key, path)?
                && row.mat.value == shown.value
            {
                row.mat.dots = vec![dot];
                rows.push((path.clone(), Some(row)));
            }
        }
        drop(look);
        let mut nodes = Overlay::new(&snapshot);
        let (root, changes) = edit::apply(&mut nodes, old_root, edits)?;
        let mut commit = self.edited(&snapshot, nodes, root, changes, rows)?;
        let reason = if settle { Reason::Local } else { Reason::Restore };
        commit.generation = self.generation(reason, self.device);
        commit.head = Some(self.head.clone());
        Ok(store.commit(self.place.key, commit)?)
    }

    fn same_again(&mut self, shown: &Shown, now: u64) -> Record {
        let dot = self.next_dot();
        self.head.hlc = self.head.hlc.next(now);
        Record {
            dot,
            hlc: self.head.hlc,
            value: shown.value.clone(),
            exec: shown.exec,
            mtime: shown.mtime,
            prev: shown.value.key(),
            relocated: shown.copy_of.is_some(),
            imported: false,
        }
    }
}

/// How many files a change takes away, without those that only moved, and those of which the same `stays` elsewhere; and
/// every path that goes.
fn removed(changes: &[Change], stays: &HashSet<Digest>) -> (u64, Vec<RelPath>) {
    let mut arrived: HashMap<Digest, usize> = HashMap::new();
    for change in changes {
        if let Some(new) = key(&change.after).filter(|new| key(&change.before) != Some(*new)) {
            *arrived.entry(new).or_default() += 1;
        }
    }
    let mut gone = 0;
    let mut paths = Vec::new();
    for change in changes.iter().filter(|c| c.before.is_some() && c.after.is_none()) {
        paths.push(change.path.clone());
        let Some(old) = key(&change.before).filter(|old| !stays.contains(old)) else {
            continue;
        };
        match arrived.get_mut(&old) {
            Some(left) if *left > 0 => *left -= 1,
            _ => gone += 1,
        }
    }
    (gone, paths)
}

fn key(shown: &Option<Shown>) -> Option<Digest> {
    shown.as_ref().and_then(|shown| shown.value.key())
}
