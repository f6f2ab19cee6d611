//! The way back after a crash: how far the moves came that had begun, and what is so now. Never decides what should
//! be there.

use std::collections::HashSet;

use alike_core::observe::{Mat, Seen};
use alike_core::plan::{Op, plan};
use alike_core::record::Value;
use alike_store::{Commit, IndexRow, Intent, Snapshot};

use super::found;
use crate::error::Error;
use crate::failpoint::point;
use crate::fetch::BIG_TEMP;
use crate::folder::{Folder, Look};

impl Folder {
    /// After a crash: finds out how far the moves came that had begun, and remembers what is so.
    pub(crate) fn recover(&mut self) -> Result<(), Error> {
        let place = self.place.clone();
        if place.root.check(&place.row.marker).is_err() {
            // Not the folder: its intents wait until it is back.
            return Ok(());
        }
        let snapshot = place.store.snapshot()?;
        let intents = snapshot.intents(place.key)?;
        let mut commit = Commit::default();
        let mut unclear = Vec::new();
        point("recover.begin");
        // Once for all of them: a batch leaves many intents, and as many temporary files.
        let asides = if intents.is_empty() {
            Vec::new()
        } else {
            place.root.asides().unwrap_or_else(|error| {
                tracing::warn!(folder = %place.row.name, "looking for displaced versions: {error}");
                Vec::new()
            })
        };
        for intent in &intents {
            let (was, meant) = (
                intent.before.as_ref().map(|mat| &mat.value),
                intent.after.as_ref(),
            );
            if let Err(error) = place.root.put_back_saved(&asides, &intent.path, was, meant) {
                tracing::warn!(folder = %place.row.name, path = %intent.path, "a displaced version: {error}");
            }
            let Ok(now) = found::look_at(&place, &intent.path) else {
                // What cannot be read now is judged by the scan, against MAT as it was.
                commit.intents_remove.push(intent.path.clone());
                continue;
            };
            let before = intent.before.as_ref().map(|m| Seen {
                value: m.value.clone(),
                exec: m.exec,
            });
            let after = intent.after.as_ref().map(|value| Seen {
                value: value.clone(),
                exec: intent.after_exec,
            });
            let now = now.map(|found| found::exec_as_kept(&place, found, before.as_ref(), after.as_ref()));
            let now_seen = now.as_ref().map(|(seen, _)| seen.clone());
            if now_seen == after {
                match now {
                    Some((seen, fingerprint)) => {
                        let mat = Mat {
                            value: seen.value,
                            exec: seen.exec,
                            dots: intent.dots.clone(),
                        };
                        let row = IndexRow {
                            mat,
                            fingerprint: Some(fingerprint),
                            racy: true,
                        };
                        commit.index_put.push((intent.path.clone(), row));
                    }
                    None => commit.index_remove.push(intent.path.clone()),
                }
            } else if now_seen != before {
                // Neither what was nor what was meant.
                unclear.push(intent);
            }
            commit.intents_remove.push(intent.path.clone());
        }
        if !intents.is_empty() {
            tracing::info!(folder = %place.row.name, count = intents.len(), "recovered from an unclean end");
        }
        point("recover.looked");
        // After an exchange the temporary name holds the displaced version, perhaps somebody's edit that
        // slipped in: it goes to the displaced versions, whatever it is.
        for temp in intents.iter().filter_map(|i| i.temp.as_deref()) {
            if let Err(error) = place.root.keep_temp(temp) {
                tracing::warn!(folder = %place.row.name, "a displaced version stays in .alike/tmp: {error}");
            }
        }
        point("recover.kept");
        // A link's target is in its record, so a displaced link need not be kept: neither the old one nor ours.
        let links: HashSet<&[u8]> = intents.iter().flat_map(link_targets).collect();
        if let Err(error) = place.root.keep_displaced(&links) {
            tracing::warn!(folder = %place.row.name, "displaced versions stay in .alike/tmp: {error}");
        }
        point("recover.displaced");
        let all_kept = unclear.is_empty() || place.root.asides().is_ok_and(|asides| asides.is_empty());
        for intent in unclear {
            if !(all_kept && self.was_replaced_by_its_user(intent)) {
                // Whoever wrote what is there never saw the version that MAT names, so it must not count as having
                // replaced it.
                commit.index_remove.push(intent.path.clone());
            }
        }
        let kept: HashSet<&[u8]> = intents.iter().filter_map(|i| i.temp.as_deref()).collect();
        let resumable = |name: &[u8]| name.starts_with(BIG_TEMP) || kept.contains(name);
        if let Err(error) = place.root.clear_temps(resumable) {
            tracing::warn!(folder = %place.row.name, "clearing .alike/tmp: {error}");
        }
        point("recover.cleared");
        self.replan(&snapshot, commit)?;
        point("recover.committed");
        Ok(())
    }

    /// Was a move cut off before it had begun, so that whoever wrote or removed what is there now did so to the file
    /// that MAT names? A move keeps the bytes that it takes away; if they are not with the displaced versions, and all of those
    /// are kept by now, none was made.
    /// (Then they are nowhere here: were MAT forgotten, HEAD would go on asking everybody for them.)
    fn was_replaced_by_its_user(&self, intent: &Intent) -> bool {
        let Some(Value::File { digest, .. }) = intent.before.as_ref().map(|mat| &mat.value) else {
            return false;
        };
        matches!(self.place.root.is_object_clone(digest), Ok(None | Some(true)))
    }

    /// Commits what recovery found, and plans the paths concerned anew.
    fn replan(&mut self, snapshot: &Snapshot, mut commit: Commit) -> Result<(), Error> {
        if commit.intents_remove.is_empty() {
            return Ok(());
        }
        let mut look = Look::new(snapshot, self.head.state.root);
        for path in commit.intents_remove.clone() {
            let head = look.at(&path)?.cloned();
            let put = commit
                .index_put
                .iter()
                .find(|(p, _)| *p == path)
                .map(|(_, row)| row.mat.clone());
            let mat = match put {
                Some(mat) => Some(mat),
                None if commit.index_remove.contains(&path) => None,
                None => snapshot.index(self.place.key, &path)?.map(|row| row.mat),
            };
            match plan(head.as_ref(), mat.as_ref()) {
                Op::Nothing | Op::Adopt => commit.pending_remove.push(path),
                _ => commit
                    .pending_put
                    .push((path, head.map_or(0, |h| h.value.size()))),
            }
        }
        Ok(self.place.store.commit(self.place.key, commit)?)
    }
}

/// Where the links point that are about to go or to come.
fn link_targets(intent: &Intent) -> impl Iterator<Item = &[u8]> {
    let before = intent.before.as_ref().map(|mat| &mat.value);
    before
        .into_iter()
        .chain(&intent.after)
        .filter_map(|value| match value {
            Value::Symlink { target } => Some(&target[..]),
            Value::File { .. } | Value::Dir => None,
        })
}
