//! What a batch of findings comes to: for each path the latest look at it. Knows nothing of what was there before.

use std::collections::BTreeMap;

use alike_core::path::RelPath;

use super::Problem;
use crate::scan::{Finding, Found};

/// A batch, sorted.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What differs from the index, by path.
    pub(super) changed: Vec<Finding>,
    /// What only has another fingerprint, by path.
    pub(super) touched: Vec<Finding>,
    /// What cannot be taken.
    pub(super) problems: Vec<(RelPath, Problem)>,
    /// Of these there were two findings: who came last need not have looked last, so they are looked at again.
    pub(super) unsure: Vec<RelPath>,
}

impl Batch {
    /// At most one finding of each path stays: two would be taken as two writes and be each other's conflict, or as
    /// one version with the other's fingerprint, which no later look would doubt.
    pub(super) fn new(found: Vec<Found>) -> Batch {
        let mut batch = Batch::default();
        let mut by_path = BTreeMap::new();
        for found in found {
            let (is_changed, finding) = match found {
                Found::Changed(finding) => (true, finding),
                Found::Touched(finding) => (false, finding),
                Found::Problem { path, reason, hint } => {
                    batch.problems.push((path, Problem { reason, hint }));
                    continue;
                }
                Found::Unnamable { dir, name, reason } => {
                    let reason = format!("{}: {reason}", name.escape_ascii());
                    let hint = "rename it; everything else in the directory is synced".into();
                    batch.problems.push((dir, Problem { reason, hint }));
                    continue;
                }
                // The scanner comes back to it by itself.
                Found::Busy(_) => continue,
            };
            let path = finding.path.clone();
            if by_path.insert(path.clone(), (is_changed, finding)).is_some() {
                batch.unsure.push(path);
            }
        }
        for (is_changed, finding) in by_path.into_values() {
            let list = match is_changed {
                true => &mut batch.changed,
                false => &mut batch.touched,
            };
            list.push(finding);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A finding whose time tells which look it was.
    fn finding(path: &str, mtime: i64) -> Finding {
        Finding {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            seen: None,
            racy: false,
            base: None,
            mtime,
            wrote: crate::scan::Wrote::Unknown,
            unreadable: false,
        }
    }

    fn of(list: &[Finding]) -> Vec<(String, i64)> {
        list.iter().map(|f| (f.path.to_string(), f.mtime)).collect()
    }

    #[test]
    fn of_two_looks_at_a_path_the_later_one_counts_whatever_it_saw() {
        let (first, last) = (finding("a", 1), finding("a", 2));
        let other = finding("b", 3);
        let a = |n| vec![("a".to_owned(), n)];

        let batch = Batch::new(vec![Found::Changed(first.clone()), Found::Touched(last.clone())]);
        assert_eq!((of(&batch.changed), of(&batch.touched)), (vec![], a(2)));
        assert_eq!(batch.unsure, std::slice::from_ref(&first.path));

        let batch = Batch::new(vec![Found::Touched(first.clone()), Found::Changed(last.clone())]);
        assert_eq!((of(&batch.changed), of(&batch.touched)), (a(2), vec![]));
        assert_eq!(batch.unsure, std::slice::from_ref(&first.path));

        let batch = Batch::new(vec![
            Found::Changed(first),
            Found::Changed(last),
            Found::Touched(other),
        ]);
        assert_eq!(of(&batch.changed), a(2));
        assert_eq!(of(&batch.touched), [("b".to_owned(), 3)]);
        assert_eq!(batch.unsure.len(), 1);
    }
}
