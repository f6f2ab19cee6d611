//! What must hold once all is quiet: heads, disks and MAT are equal, no bytes and no deletion are lost, no
//! conflict is made of nothing. Never changes a device.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::ids::Dot;
use alike_core::observe::Mat;
use alike_core::path::RelPath;
use alike_core::record::{Record, Value};
use alike_core::view::Shown;

use crate::device::materialised;
use crate::log::bytes_of;
use crate::world::World;

impl World {
    pub(crate) fn check(&self) {
        let first = &self.devices[0].head;
        let view = first.shown();
        for device in &self.devices {
            assert_eq!(device.head.state, first.state, "all heads are equal");
            assert_eq!(device.head.shown(), view);
            let disk: BTreeMap<&RelPath, (&Value, bool)> =
                device.disk.iter().map(|(p, n)| (p, (&n.value, n.exec))).collect();
            let wanted: BTreeMap<&RelPath, (&Value, bool)> =
                view.iter().map(|(p, s)| (p, (&s.value, s.is_exec()))).collect();
            assert_eq!(disk, wanted, "every disk shows what HEAD shows");
            let mat: BTreeMap<RelPath, Mat> =
                view.iter().map(|(p, s)| (p.clone(), materialised(s))).collect();
            assert_eq!(device.mat, mat, "MAT is HEAD");
            assert!(device.intents.is_empty());
        }
        let records = first.records();
        self.check_bytes(&view);
        self.check_records(&records);
        self.check_conflicts(&records);
    }

    fn check_bytes(&self, view: &BTreeMap<RelPath, Shown>) {
        let there: BTreeSet<Vec<u8>> = view.values().filter_map(|s| bytes_of(&s.value)).collect();
        for (bytes, what) in &self.log.written {
            assert!(
                there.contains(bytes) || self.log.gone.contains(bytes),
                "bytes lost: {what}"
            );
        }
    }

    fn check_records(&self, records: &BTreeMap<Dot, (RelPath, Record)>) {
        for (dot, (home, old)) in &self.log.made {
            if records.contains_key(dot) {
                assert!(!self.log.killed.contains(dot), "resurrected: {dot:?} at {home}");
                continue;
            }
            let edited = |(at, new): &(RelPath, Record)| {
                at == home && new.prev == old.value.key() && new.age_key() > old.age_key()
            };
            let dominated = old.imported && self.log.made.values().any(edited);
            assert!(
                self.log.killed.contains(dot) || dominated,
                "lost: {dot:?} at {home}"
            );
        }
    }

    /// Where no two writes of a home were concurrent, nothing has been relocated.
    fn check_conflicts(&self, records: &BTreeMap<Dot, (RelPath, Record)>) {
        let past = |dot: &Dot| &self.log.past[dot];
        for (dot, (home, _)) in records.iter().filter(|(_, (_, r))| r.relocated) {
            let doubt = |p: &RelPath| p.is_within(home) || home.is_within(p);
            if self.log.doubtful.iter().any(doubt) {
                continue;
            }
            let concurrent = |(other, (at, _)): (&Dot, &(RelPath, Record))| {
                at.is_within(home)
                    && !past(dot).contains(other)
                    && !past(other).contains(dot)
                    && (at == home || !self.device_knew(dot, other))
            };
            assert!(
                self.log.made.iter().any(concurrent),
                "a conflict out of nothing: {dot:?} at {home}"
            );
        }
    }

    /// Two writes of one device are never concurrent.
    fn device_knew(&self, one: &Dot, other: &Dot) -> bool {
        one.replica == other.replica
    }
}
