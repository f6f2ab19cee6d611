//! What `.syncignore` leaves out is frozen in a folder: no finding of it is an event, nothing is put there, and nothing
//! of it goes. Never reads rules itself (`ignore` does).

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::view::Shown;
use alike_store::IndexRow;

use super::scanner::ScanInput;
use super::{Folder, Place, Why};
use crate::error::Error;
use crate::ignore::Asker;
use crate::scan::Finding;

/// How far what new rules no longer leave out has been looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NewRules {
    /// All of it.
    #[default]
    Looked,
    /// Not yet; a look that had begun before does not count.
    Unlooked,
    /// It is under way.
    Looking,
}

impl NewRules {
    /// A look at everything begins: it asks the rules as they are now.
    pub(super) fn look_begins(&mut self) {
        if *self == NewRules::Unlooked {
            *self = NewRules::Looking;
        }
    }
}

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
            self.new_rules = NewRules::Unlooked;
            let _ = self.rescan.send(ScanInput::Full);
        }
    }

    /// A look at everything is over. Only now is put here what was left out: its user may have removed it, and must
    /// not find it, or a directory for it, again.
    pub(super) fn rules_looked_at(&mut self) -> Result<(), Error> {
        if self.new_rules == NewRules::Looking {
            self.new_rules = NewRules::Looked;
            self.place.parked.release(|_, why| matches!(why, Why::Ignored));
            self.publish()?;
        }
        Ok(())
    }

    /// Do rules count whose effect on what is here is not known yet?
    pub(super) fn is_unlooked(&self) -> bool {
        self.new_rules != NewRules::Looked || self.place.ignore.is_settling()
    }
}

#[cfg(test)]
mod tests {
    use super::NewRules;

    #[test]
    fn a_look_that_had_begun_before_does_not_count() {
        let mut rules = NewRules::default();
        rules.look_begins();
        assert_eq!(rules, NewRules::Looked, "nothing is new");
        rules = NewRules::Unlooked;
        assert_eq!(
            rules,
            NewRules::Unlooked,
            "the end of a look is not the end of this"
        );
        rules.look_begins();
        assert_eq!(rules, NewRules::Looking);
    }
}
