//! Compacting, with tables written anew: a crash at any write of it, and a medium that fails at any, leave every row
//! that was there. Never a real disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::Name;
use alike_core::tree::{self, Nodes};
use alike_store::*;

use crate::crash::{EIO, ENOSPC, images, open, run_seeds};
use crate::medium::{Loss, Medium};
use crate::model::Lcg;
use crate::workload::Workload;

/// Calls before it: folders, heads, generations, rows of every kind.
const STEPS: usize = 40;

/// A database with tables that are worth writing anew.
struct Loose {
    image: Vec<u8>,
    workload: Workload,
    /// What it holds, by [`Workload::all`].
    all: String,
    /// More of it: no generation reaches these.
    nodes: BTreeMap<Digest, Arc<[u8]>>,
}

fn loose(seed: u64) -> Loose {
    let medium = Medium::default();
    let store = open(&medium).unwrap();
    let mut workload = Workload::new(seed);
    (0..STEPS).for_each(|_| workload.step(&store).unwrap());
    let mut nodes = BTreeMap::new();
    let folder = store.folders().unwrap()[0].key;
    for round in 0..40 {
        let mut commit = Commit::default();
        for n in 0..20 {
            let link = NamedEntry {
                name: Name::new(b"link").unwrap(),
                entry: Entry::Symlink {
                    target: format!("{round} {n}").repeat(200).into_bytes().into(),
                },
            };
            tree::write(&[link], &mut |d, b| commit.nodes.push((d, b.into())));
        }
        nodes.extend(commit.nodes.iter().cloned());
        store.commit(folder, commit).unwrap();
    }
    let all = workload.all(&store).unwrap();
    drop(store);
    Loose {
        image: medium.seen(),
        workload,
        all,
        nodes,
    }
}

impl Loose {
    /// `image` holds what this does, and can be collected and compacted.
    fn check(&self, image: Vec<u8>, goes_on: bool, what: &str) {
        let store = open(&Medium::holding(image)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(self.workload.all(&store).unwrap() == self.all, "{what}");
        let see = store.snapshot().unwrap();
        for (digest, bytes) in &self.nodes {
            assert_eq!(see.node(digest).unwrap().as_deref(), Some(&**bytes), "{what}");
        }
        if !goes_on {
            return;
        }
        let mut marks = see.mark(&|_, _| true).unwrap();
        drop(see);
        assert!(store.compact().unwrap());
        let mut sweep = Sweep::default();
        while !sweep.is_done() {
            assert!(store.sweep(&mut marks, &mut sweep, Duration::ZERO).unwrap());
        }
        assert!(sweep.removed >= self.nodes.len() as u64, "{what}");
        assert!(store.compact().unwrap());
        // Looks at every tree that must be there.
        self.workload.all(&store).unwrap();
    }
}

#[test]
fn a_crash_while_tables_are_written_anew_leaves_every_row() {
    run_seeds(1, |seed| {
        let loose = loose(seed);
        let mut random = Lcg(!seed);
        let medium = Medium::holding(loose.image.clone());
        let store = open(&medium).unwrap();
        let began = medium.count();
        assert!(store.compact().unwrap());
        drop(store);
        let log = medium.log();
        assert!(medium.seen().len() < loose.image.len());
        for ops in began..=log.len() {
            let loss = [Loss::None, Loss::Some, Loss::Torn, Loss::CutOff][random.below(4)];
            let what = format!("seed {seed}, crash after operation {ops}, loss {loss:?}");
            let image = images(&loose.image, &log, ops, loss, &mut random);
            loose.check(image, random.below(32) == 0, &what);
        }
    });
}

#[test]
fn a_medium_that_fails_while_tables_are_written_anew_costs_no_row() {
    run_seeds(1, |seed| {
        let loose = loose(seed);
        let mut random = Lcg(!seed);
        // Until nothing fails: then it was the whole of it.
        for at in 0.. {
            let errno = [EIO, ENOSPC][random.below(2)];
            let what = format!("seed {seed}, error {errno} at operation {at}");
            let medium = Medium::holding(loose.image.clone());
            let store = open(&medium).unwrap();
            medium.fail(medium.count() + at, errno);
            let compacted = store.compact();
            if let Err(error) = &compacted {
                let full = matches!(error, StoreError::Full { .. });
                assert_eq!(full, errno == ENOSPC, "{what}: {error}");
            }
            drop(store);
            let log = medium.log();
            let loss = [Loss::Some, Loss::Torn][random.below(2)];
            let down = images(&loose.image, &log, log.len(), loss, &mut random);
            // The machine stays up and the disk is well again; or it goes down too.
            let image = [medium.seen(), down]
                .into_iter()
                .nth(random.below(2))
                .expect("two");
            loose.check(image, random.below(32) == 0, &what);
            if !medium.has_failed() {
                assert!(compacted.unwrap());
                break;
            }
        }
    });
}
