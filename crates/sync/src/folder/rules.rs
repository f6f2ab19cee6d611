//! What `.syncignore` leaves out is frozen in a folder: no finding of it is an event, nothing is put there, and nothing
//! of it goes. Never reads rules itself (`ignore` does).

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::view::Shown;
use alike_store::IndexRow;

use super::scanner::ScanInput;
use super::{Folder, Place, Why};
use crate::ignore::Asker;
use crate::scan::Finding;

impl Place {
    /// Asks the rules about many paths.
    pub(crate) fn rules(&self) -> Asker<'_> {
        Asker::new(&self.ignore, &self.root)
    }
}

/// Is the path left out as what HEAD wants there, or as what is there?
pub(crate) fn leaves_out(
    rules: &mut Asker<'_>,
    path: &RelPath,
    head: Option<&Shown>,
    row: Option<&IndexRow>,
) -> bool {
    let head = head.map(|head| head.value == Value::Dir);
    let row = row.map(|row| row.mat.value == Value::Dir);
    [head, row]
        .into_iter()
        .flatten()
        .any(|is_dir| rules.ignores(path, is_dir))
}

/// Drops what was found of paths that are left out by now. A scan asks the rules too, but they may have changed since.
pub(super) fn drop_ignored(rules: &mut Asker<'_>, findings: &mut Vec<Finding>) {
    findings.retain(|finding| {
        let seen = finding.seen.as_ref().map(|(seen, _)| seen.value == Value::Dir);
        let base = finding.base.as_ref().map(|row| row.mat.value == Value::Dir);
        // What is there decides; of what is gone, what was.
        match seen.or(base) {
            Some(is_dir) => !rules.ignores(&finding.path, is_dir),
            None => true,
        }
    });
}

impl Folder {
    /// A file of rules was put on disk, or taken away: those in it count from now on.
    pub(crate) fn rules_applied(&mut self, path: &RelPath) {
        let Some(dir) = path.parent() else { return };
        self.place.ignore.written(&self.place.root, &dir);
        self.rules_changed();
    }

    /// What was left out may not be so any more: it is looked at.
    pub(super) fn rules_changed(&mut self) {
        if self.place.ignore.take_changed() {
            self.new_rules = true;
            let _ = self.rescan.send(ScanInput::Full);
        }
    }

    /// Everything was looked at since. Only now is put here what was left out: its user may have removed it, and must
    /// not find it, or a directory for it, again.
    pub(super) fn rules_looked_at(&mut self) {
        if std::mem::take(&mut self.new_rules) {
            self.place.parked.release(|_, why| matches!(why, Why::Ignored));
        }
    }
}
