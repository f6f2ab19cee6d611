//! The reference model, ported naively: one flat map of records a replica, and a closure over the whole folder
//! until nothing changes. It shares no code with `merge`, `conflict`, `edit` and `view`. The exec bit is not in it:
//! what must be true of that is said in terms of who knew what, in `model.rs`.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::digest::Digest;
use alike_core::ids::{Dot, Hlc, ReplicaId};
use alike_core::path::RelPath;
use alike_core::record::{Record, Value};
use alike_core::view::Shown;

use super::{Batch, above};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) home: RelPath,
    pub(crate) hlc: Hlc,
    /// `None` = a directory.
    pub(crate) key: Option<Digest>,
    pub(crate) prev: Option<Digest>,
    pub(crate) flag: bool,
    pub(crate) imported: bool,
}

impl Rec {
    pub(crate) fn of(home: &RelPath, record: &Record) -> Self {
        Rec {
            home: home.clone(),
            hlc: record.hlc,
            key: match &record.value {
                Value::Dir => None,
                other => other.key(),
            },
            prev: record.prev,
            flag: record.relocated,
            imported: record.imported,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oracle {
    pub(crate) recs: BTreeMap<Dot, Rec>,
    pub(crate) seen: BTreeMap<ReplicaId, u64>,
    /// Imported records that went because somebody had edited exactly their content.
    pub(crate) dominated: BTreeSet<Dot>,
}

impl Oracle {
    fn covers(&self, dot: Dot) -> bool {
        self.seen.get(&dot.replica).is_some_and(|&seq| seq >= dot.seq)
    }

    pub(crate) fn saw(&mut self, replica: ReplicaId, seq: u64) {
        if seq > 0 {
            let at = self.seen.entry(replica).or_insert(seq);
            *at = seq.max(*at);
        }
    }

    pub(crate) fn apply(&mut self, batch: &Batch) {
        for (_, dot) in &batch.kill {
            self.recs.remove(dot);
        }
        for (home, record) in &batch.add {
            self.recs.insert(record.dot, Rec::of(home, record));
        }
        self.settle();
    }

    pub(crate) fn merge(&mut self, other: &Oracle) {
        let mut out = BTreeMap::new();
        for (dot, rec) in &self.recs {
            match other.recs.get(dot) {
                Some(theirs) => {
                    let mut both = rec.clone();
                    both.flag = rec.flag || theirs.flag;
                    out.insert(*dot, both);
                }
                None if !other.covers(*dot) => {
                    out.insert(*dot, rec.clone());
                }
                None => {}
            }
        }
        for (dot, rec) in &other.recs {
            if !self.recs.contains_key(dot) && !self.covers(*dot) {
                out.insert(*dot, rec.clone());
            }
        }
        self.recs = out;
        for (&replica, &seq) in &other.seen {
            self.saw(replica, seq);
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let by_home = self.by_home();
            let doomed: Vec<Dot> = self
                .recs
                .iter()
                .filter(|(dot, e)| {
                    e.imported
                        && e.key.is_some()
                        && by_home[&e.home].iter().any(|f| {
                            let newer = &self.recs[f];
                            newer.key.is_some() && newer.prev == e.key && (newer.hlc, *f) > (e.hlc, **dot)
                        })
                })
                .map(|(dot, _)| *dot)
                .collect();
            if !doomed.is_empty() {
                for dot in doomed {
                    self.recs.remove(&dot);
                    self.dominated.insert(dot);
                }
                continue;
            }
            let dirs: BTreeSet<RelPath> = self
                .recs
                .values()
                .flat_map(|r| {
                    let own = r.key.is_none().then(|| r.home.clone());
                    above(&r.home).into_iter().chain(own)
                })
                .collect();
            let mut flags = Vec::new();
            for (home, dots) in &by_home {
                let contents = || {
                    dots.iter()
                        .filter(|d| self.recs[d].key.is_some() && !self.recs[d].flag)
                };
                let winner = contents()
                    .max_by_key(|d| (self.recs[d].hlc, **d))
                    .map(|d| self.recs[d].key);
                flags.extend(
                    contents()
                        .filter(|d| dirs.contains(home) || Some(self.recs[d].key) != winner)
                        .copied(),
                );
            }
            if flags.is_empty() {
                return;
            }
            for dot in flags {
                self.recs.get_mut(&dot).expect("it is there").flag = true;
            }
        }
    }

    fn by_home(&self) -> BTreeMap<RelPath, Vec<Dot>> {
        let mut out: BTreeMap<RelPath, Vec<Dot>> = BTreeMap::new();
        for (dot, rec) in &self.recs {
            out.entry(rec.home.clone()).or_default().push(*dot);
        }
        out
    }

    /// Live dots, homes, flags and contents are those of the core.
    pub(crate) fn check_records(&self, core: &BTreeMap<Dot, (RelPath, Record)>) {
        let core: BTreeMap<Dot, Rec> = core.iter().map(|(d, (home, r))| (*d, Rec::of(home, r))).collect();
        assert_eq!(core, self.recs, "the core's records are not the model's");
    }

    /// What is shown is exactly: the free records of a home at the home, each content that lost at one path of
    /// its own in the same directory, directories by record or descendant.
    pub(crate) fn check_shown(&self, shown: &BTreeMap<RelPath, Shown>) {
        let mut groups: BTreeMap<(RelPath, bool, Option<Digest>), BTreeSet<Dot>> = BTreeMap::new();
        for (dot, rec) in &self.recs {
            for dir in above(&rec.home) {
                groups.entry((dir, false, None)).or_default();
            }
            groups
                .entry((rec.home.clone(), rec.flag, rec.key))
                .or_default()
                .insert(*dot);
        }
        for (path, item) in shown {
            let key = item.value.key();
            assert_eq!(item.copy_of.is_none(), {
                let group = groups.get(&(path.clone(), false, key));
                group.is_some_and(|dots| dots.iter().all(|d| item.dots.contains(d)))
            });
            if key.is_none() {
                let group = groups.remove(&(path.clone(), false, None));
                assert_eq!(
                    group,
                    Some(item.dots.iter().copied().collect()),
                    "directory {path}"
                );
                continue;
            }
            let at_home = groups.contains_key(&(path.clone(), false, key));
            let mut dots: BTreeSet<Dot> = item.dots.iter().copied().collect();
            assert_eq!(dots.len(), item.dots.len(), "no dot twice at {path}");
            while let Some(dot) = dots.first() {
                let rec = &self.recs[dot];
                assert_eq!(rec.home.parent(), path.parent(), "copies stay in their directory");
                assert_eq!(rec.key, key, "content at {path}");
                // A loser whose conflict name is a home of the same content is one file with it.
                let joined = rec.flag && at_home;
                assert!(rec.flag == item.copy_of.is_some() || joined, "place of {path}");
                let group = groups
                    .remove(&(rec.home.clone(), rec.flag, key))
                    .expect("shown once");
                assert!(group.is_subset(&dots), "twins are together at {path}");
                dots.retain(|d| !group.contains(d));
            }
        }
        assert!(groups.is_empty(), "not shown: {groups:?}");
    }
}
