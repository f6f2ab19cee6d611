//! Random histories of two folders, compared with maps in memory. Never reopens the store.

use std::collections::{BTreeMap, BTreeSet};

use alike_core::digest::Digest;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_store::*;

use crate::fixture::*;

/// Knuth's MMIX generator: the same histories in every run of one seed.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    pub(crate) fn path(&mut self) -> RelPath {
        const NAMES: [&[u8]; 9] = [
            b"a",
            b"a-",
            b"a.",
            b"a0",
            b"b",
            b"\x01",
            b"\xff",
            b"\xfe\xff",
            b" ",
        ];
        (0..1 + self.below(4)).fold(RelPath::root(), |dir, _| {
            dir.join(&Name::new(NAMES[self.below(NAMES.len())]).unwrap())
        })
    }

    pub(crate) fn row(&mut self) -> IndexRow {
        match self.below(5) {
            0 => row(Value::Dir),
            n => file(&[n as u8]),
        }
    }
}

/// The order of keys: by directory, then by name.
fn key_order(path: &RelPath) -> (RelPath, Name) {
    path.split().unwrap()
}

#[derive(Default)]
struct Model {
    index: BTreeMap<RelPath, IndexRow>,
    pending: BTreeMap<RelPath, u64>,
}

impl Model {
    fn below<T: Clone>(rows: &BTreeMap<RelPath, T>, dir: &RelPath) -> Vec<(RelPath, T)> {
        let mut found: Vec<_> = rows
            .iter()
            .filter(|(p, _)| p.is_within(dir) && *p != dir)
            .map(|(p, r)| (p.clone(), r.clone()))
            .collect();
        found.sort_by_key(|(p, _)| key_order(p));
        found
    }

    fn check(&self, folder: FolderKey, see: &Snapshot, dir: &RelPath, what: &str) {
        let below = Self::below(&self.index, dir);
        assert_eq!(
            see.index_below(folder, dir).unwrap(),
            below,
            "{what}: below {dir}"
        );
        let members: Vec<_> = below
            .iter()
            .filter(|(p, _)| p.parent().as_ref() == Some(dir))
            .map(|(p, r)| (p.split().unwrap().1, r.clone()))
            .collect();
        assert_eq!(see.index_dir(folder, dir).unwrap(), members, "{what}: in {dir}");
        assert_eq!(
            see.index(folder, dir).unwrap().as_ref(),
            self.index.get(dir),
            "{what}: {dir}"
        );
        let pending: Vec<_> = Self::below(&self.pending, dir)
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        assert_eq!(
            see.pending_below(folder, dir).unwrap(),
            pending,
            "{what}: pending below {dir}"
        );
        assert_eq!(
            see.is_pending(folder, dir).unwrap(),
            self.pending.contains_key(dir),
            "{what}: {dir}"
        );
    }

    fn check_whole(&self, folder: FolderKey, see: &Snapshot, page: usize, what: &str) {
        let expected = Self::below(&self.pending, &RelPath::root());
        let mut found: Vec<(RelPath, u64)> = Vec::new();
        loop {
            let after = found.last().map(|l| l.0.clone());
            let more = see.pending(folder, after.as_ref(), page).unwrap();
            assert!(more.len() <= page, "{what}");
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        assert_eq!(found, expected, "{what}: pages of {page}");
        let total = (self.pending.len() as u64, self.pending.values().sum());
        assert_eq!(see.pending_total(folder).unwrap(), total, "{what}: totals");
        for content in 1..5u8 {
            let digest = Digest::of(&[content]);
            let places = see.blob_places(&digest, usize::MAX).unwrap().into_iter();
            let places: BTreeSet<_> = places.filter(|p| p.0 == folder).map(|p| p.1).collect();
            let expected: BTreeSet<_> = self
                .index
                .iter()
                .filter(|(_, r)| matches!(r.mat.value, Value::File { digest: d, .. } if d == digest))
                .map(|(p, _)| p.clone())
                .collect();
            assert_eq!(places, expected, "{what}: places of {content}");
        }
    }
}

#[test]
fn random_histories_match_a_model() {
    for seed in 1..=12u64 {
        let mut random = Lcg(seed);
        let fixture = fixture();
        let other = fixture.store.add_folder(new_folder(2)).unwrap().key;
        let mut models = [(fixture.folder, Model::default()), (other, Model::default())];
        for step in 0..25 {
            let what = format!("seed {seed}, step {step}");
            let (folder, model) = &mut models[random.below(2)];
            let mut commit = Commit::default();
            for _ in 0..random.below(12) {
                commit.index_remove.push(random.path());
                commit.pending_remove.push(random.path());
            }
            for _ in 0..random.below(40) {
                commit.index_put.push((random.path(), random.row()));
                commit
                    .pending_put
                    .push((random.path(), random.below(1_000) as u64));
            }
            model.index.retain(|p, _| !commit.index_remove.contains(p));
            model.pending.retain(|p, _| !commit.pending_remove.contains(p));
            model.index.extend(commit.index_put.iter().cloned());
            model.pending.extend(commit.pending_put.iter().cloned());
            fixture.store.commit(*folder, commit).unwrap();
            let see = fixture.see();
            for (folder, model) in &models {
                model.check(*folder, &see, &RelPath::root(), &what);
                for _ in 0..6 {
                    model.check(*folder, &see, &random.path(), &what);
                }
                model.check_whole(*folder, &see, 1 + random.below(9), &what);
            }
        }
    }
}
