//! Collections against a model: random commits, displaced versions, pins, readers, collections with all that between
//! their steps, and ends of the process in the middle of it. What the model says is needed is there and equal; after a
//! collection with nothing else going on, nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::retention::Policy;
use alike_store::{Hold, StoreError};

use super::*;
use crate::sim::rng::Rng;
use world::{Bytes, Tree, World, content, digest};

mod later;
mod mortal;
mod room;
mod world;

/// Things that happen in one history.
const STEPS: usize = 60;
const CONTENTS: usize = 30;

/// Where a content is kept: a folder's displaced versions, or the packs.
type Kept = (Option<usize>, usize);

/// What must be there.
#[derive(Default)]
struct Model {
    /// All that is kept, as far as nobody let go of it.
    kept: BTreeSet<Kept>,
    /// What came to be kept since the collection began.
    young: BTreeSet<Kept>,
    /// What was there already when a tree came to reach it, while a collection was under way.
    reached: BTreeSet<Kept>,
    collecting: bool,
}

struct History {
    rng: Rng,
    world: World,
    model: Model,
    holds: Vec<(usize, u64, Hold)>,
    /// Packed, for a commit that is still to come.
    hashed: BTreeSet<usize>,
}

fn number(key: &str) -> Option<u64> {
    std::env::var(key).ok().and_then(|v| v.parse().ok())
}

#[test]
fn what_is_needed_outlives_collections_and_crashes_and_the_rest_goes() {
    let seeds = match number("ALIKE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ALIKE_CASES").unwrap_or(12),
    };
    for seed in seeds {
        // A failure shows the last of these.
        println!("ALIKE_SEED={seed}");
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
            history.check();
        }
        history.calm();
    }
}

impl History {
    fn new(seed: u64) -> History {
        let mut rng = Rng::new(seed);
        let folders = rng.range(1, 2);
        History {
            world: World::new(folders),
            model: Model::default(),
            holds: Vec::new(),
            hashed: BTreeSet::new(),
            rng,
        }
    }

    /// One thing that somebody does. `Err`: the database's medium has died.
    fn act(&mut self) -> Result<(), StoreError> {
        let at = self.rng.below(self.world.folders.len());
        match self.rng.below(12) {
            0..=5 => self.commit(at),
            6 => {
                let generations: Vec<u64> = self.world.folders[at].generations.keys().copied().collect();
                if generations.is_empty() {
                    return Ok(());
                }
                let number = self.rng.pick(&generations);
                let keep = self.rng.percent(50);
                let folder = &mut self.world.folders[at];
                if self.world.store.pin(folder.key, number, keep)? {
                    if keep {
                        folder.pins.insert(number);
                    } else {
                        folder.pins.remove(&number);
                    }
                }
                Ok(())
            }
            7 => {
                let generations: Vec<u64> = self.world.folders[at].generations.keys().copied().collect();
                if generations.is_empty() || self.holds.len() > 2 {
                    return Ok(());
                }
                let number = self.rng.pick(&generations);
                let store = &self.world.store;
                let key = self.world.folders[at].key;
                if let Some(generation) = store.snapshot()?.generation(key, number)?
                    && let Some(hold) = store.hold(key, &generation)?
                {
                    self.holds.push((at, number, hold));
                }
                Ok(())
            }
            8 => {
                self.holds.pop();
                Ok(())
            }
            9 => {
                // Hashed, and committed later, or overtaken.
                let id = self.rng.below(CONTENTS);
                if !world::is_large(id) {
                    self.world.store.pack(&digest(id), &content(id))?;
                    self.hashed.insert(id);
                }
                Ok(())
            }
            _ => {
                let id = self.rng.below(CONTENTS);
                self.world.outboard(id);
                Ok(())
            }
        }
    }

    /// Somebody saves, or another device's change is put in place: then what was there is displaced.
    fn commit(&mut self, at: usize) -> Result<(), StoreError> {
        let rng = &mut self.rng;
        let folder = &self.world.folders[at];
        let mut tree: Tree = folder.live.clone();
        let waits = folder.live != folder.disk;
        let from_afar = rng.percent(if waits { 70 } else { 40 });
        match rng.below(if from_afar { 3 } else { 6 }) {
            // What it was, also if that generation has gone.
            0 if !folder.was.is_empty() => {
                let all: Vec<&Tree> = folder.was.values().collect();
                tree = all[rng.below(all.len())].clone();
            }
            1 => {
                // A rename, of a file or of all of a directory.
                let (from, to) = (rng.below(4), rng.below(4));
                let whole = rng.percent(50);
                let moved: Vec<_> = tree.keys().filter(|p| p.0 == from).copied().collect();
                for path in moved.into_iter().take(if whole { 9 } else { 1 }) {
                    let id = tree.remove(&path).expect("it is there");
                    tree.insert((to, path.1), id);
                }
            }
            _ => {
                for _ in 0..rng.range(1, 3) {
                    let path = (rng.below(4), rng.below(4));
                    if rng.percent(25) {
                        tree.remove(&path);
                    } else {
                        tree.insert(path, rng.below(CONTENTS));
                    }
                }
            }
        }
        let generation = rng.percent(60);
        // Or merged, and not yet applied: it may be overtaken before it is.
        let applied = !from_afar || rng.percent(40);
        let commit = self.world.commit(at, &tree, generation, applied);
        let change = self.world.pending.clone().expect("it was just made");
        for id in change.named.iter().filter(|id| !world::is_large(**id)) {
            if !self.hashed.remove(id) {
                self.world.store.pack(&digest(*id), &content(*id))?;
            }
        }
        if from_afar {
            let before = self.world.folders[at].disk.clone();
            for (path, id) in &before {
                if change.disk.get(path) != Some(id) {
                    self.world.displace(at, *id);
                    self.keep((Some(at), *id));
                }
            }
        }
        self.world.store.commit(self.world.folders[at].key, commit)?;
        self.landed();
        Ok(())
    }

    /// The commit in flight is there.
    fn landed(&mut self) {
        let change = self.world.pending.clone().expect("one was in flight");
        self.world.landed();
        for id in change.named.into_iter().filter(|id| !world::is_large(*id)) {
            self.keep((None, id));
        }
        self.world.note_packs();
    }

    fn keep(&mut self, kept: Kept) {
        self.model.kept.insert(kept);
        if self.model.collecting {
            self.model.young.insert(kept);
        }
    }

    /// Is it reached from anything?
    fn needed(&self) -> BTreeSet<usize> {
        let mut all = self.in_trees();
        for folder in &self.world.folders {
            all.extend(folder.disk.values());
            all.extend(folder.intended.values().flatten().flatten());
        }
        all
    }

    /// Is it reached from a tree?
    fn in_trees(&self) -> BTreeSet<usize> {
        let folders = self.world.folders.iter();
        let mut all: BTreeSet<usize> = folders
            .flat_map(|f| f.generations.values().chain([&f.live]))
            .flat_map(|tree| tree.values().copied())
            .collect();
        for (at, number, _) in &self.holds {
            let known = &self.world.folders[*at].was[number];
            all.extend(known.values().copied());
        }
        all
    }

    /// One thing, or a collection with others between its steps, or an end of the process.
    fn step(&mut self) {
        match self.rng.below(10) {
            0..=6 => self.act().expect("the medium is well"),
            7 | 8 => self.collect(),
            _ => self.crash(),
        }
    }

    fn collect(&mut self) {
        let unnamed = self.rng.pick(&[0, u64::MAX]);
        let restless = self.rng.pick(&[0, 0, 30, 60]);
        let dies = self.rng.percent(30);
        let keep = self.rng.range(1, 4) as u64;
        let mut wanted = Vec::new();
        for folder in &self.world.folders {
            match self.rng.below(3) {
                0 => {}
                1 => wanted.push((
                    folder.key,
                    Wanted::Asked {
                        keep: Some(keep),
                        older_ms: None,
                    },
                )),
                _ => wanted.push((
                    folder.key,
                    Wanted::Policy(Policy {
                        newest: keep,
                        all_ms: 0,
                        daily_ms: 0,
                        monthly: false,
                    }),
                )),
            }
        }
        let open = self.rng.percent(85);
        if dies && self.rng.percent(60) {
            self.world.medium.dies_in(self.rng.below(120));
        }
        let before = self.world.dropped();
        let outboards = self.world.outboards();
        let result = self.run(&wanted, unnamed, restless, dies, open);
        self.model.collecting = false;
        if self.world.medium.is_dead() {
            self.crash();
            return;
        }
        let crashed = self.world.medium.cannot_die_any_more();
        let quiet = restless == 0 && !crashed;
        match result {
            Ok(_) if quiet && open => {
                self.collected(unnamed, before);
                // One that is missed costs reading a big file again.
                let kept: BTreeSet<usize> = outboards.intersection(&self.needed()).copied().collect();
                assert!(kept.is_subset(&self.world.outboards()), "of {kept:?} some went");
            }
            _ => {
                // What went may have gone, but for what was needed all the time.
                self.world.read_generations();
                self.forgive();
            }
        }
        self.model.young.clear();
        self.model.kept.append(&mut self.model.reached);
    }

    fn run(
        &mut self,
        wanted: &[(FolderKey, Wanted)],
        unnamed: u64,
        restless: usize,
        dies: bool,
        open: bool,
    ) -> Result<Collected, Error> {
        let store = self.world.store.clone();
        let places: Vec<Arc<Place>> = match open {
            true => self.world.folders.iter().map(|f| f.place.clone()).collect(),
            false => self
                .world
                .folders
                .iter()
                .skip(1)
                .map(|f| f.place.clone())
                .collect(),
        };
        world::let_the_clock_tick();
        let needed = self.needed();
        let there = self.world.kept().into_iter();
        self.model
            .kept
            .extend(there.filter(|kept| needed.contains(&kept.1)));
        self.model.collecting = true;
        let end = dies.then(|| self.rng.below(12));
        let mut points = 0;
        let mut reached = |_: &'static str| {
            points += 1;
            self.world.note_packs();
            if end == Some(points) {
                self.world.medium.kill();
            }
            if self.rng.percent(restless) {
                // Generations that went are gone, whatever comes.
                self.world.read_generations();
                self.forgive();
                for _ in 0..self.rng.range(1, 3) {
                    self.act()?;
                }
                self.forgive();
                let needed = self.in_trees();
                let there = self.world.kept().into_iter();
                self.model
                    .reached
                    .extend(there.filter(|kept| needed.contains(&kept.1)));
            }
            Ok(())
        };
        let mut work = Work {
            store: &store,
            places: &places,
            compacts: true,
            unnamed,
            patience: Duration::ZERO,
            nodes: Sweep::in_steps_of(7),
            archive: Archiving::in_blocks_of(300, 4_000),
            reached: &mut reached,
        };
        let result = work.run(wanted, false);
        drop(store);
        result
    }

    /// What nothing needs any more is not looked for any more.
    fn forgive(&mut self) {
        let needed = self.needed();
        let young = &self.model.young;
        self.model
            .kept
            .retain(|kept| needed.contains(&kept.1) || young.contains(kept));
        let needed = self.in_trees();
        self.model.reached.retain(|kept| needed.contains(&kept.1));
    }

    /// A whole collection has run, and nothing else meanwhile: what had to go went, and nothing else did.
    fn collected(&mut self, unnamed: u64, mut named: BTreeSet<usize>) {
        named.extend(self.world.read_generations());
        let needed = self.needed();
        let goes = |id: &usize| !needed.contains(id) && (unnamed == 0 || named.contains(id));
        let there = self.world.kept();
        self.model
            .kept
            .retain(|kept| !goes(&kept.1) || there.contains(kept));
        // What a commit to come may still name is excused.
        let excused = |kept: &Kept| kept.0.is_none() && self.world.is_relied(kept.1);
        for kept in &there {
            assert!(!goes(&kept.1) || excused(kept), "{kept:?} is still there");
        }
        self.world
            .assert_no_waste(&self.holds.iter().map(|h| (h.0, h.1)).collect::<Vec<_>>());
    }

    /// The process ends, or the power goes: what was not synced is lost, or not.
    fn crash(&mut self) {
        self.holds.clear();
        self.hashed.clear();
        let landed = self.world.crash(&mut self.rng);
        if landed {
            let change = self.world.pending.clone().expect("one was in flight");
            let small = change.named.into_iter().filter(|id| !world::is_large(*id));
            self.model.kept.extend(small.map(|id| (None, id)));
            self.world.landed();
        }
        self.world.pending = None;
        self.world.read_generations();
        self.forgive();
        self.model.young.clear();
        self.model.kept.append(&mut self.model.reached);
        self.model.collecting = false;
    }

    fn check(&self) {
        self.world.check();
        for (at, id) in self.model.kept.union(&self.model.reached) {
            let found: Option<Bytes> = match at {
                None => self.world.store.packed(&digest(*id)).unwrap(),
                // Once is enough.
                Some(at) => self
                    .world
                    .object(*at, *id)
                    .or_else(|| self.world.store.packed(&digest(*id)).unwrap()),
            };
            assert_eq!(found, Some(content(*id)), "content {id} in {at:?}");
        }
        for (at, number, _) in &self.holds {
            self.world.check_tree(&self.world.folders[*at].was[number]);
        }
    }

    /// Nobody does anything any more: one collection leaves what is needed, and no more.
    fn calm(&mut self) {
        self.holds.clear();
        self.hashed.clear();
        self.world.reopen();
        let wanted: Vec<_> = self
            .world
            .folders
            .iter()
            .map(|folder| {
                let asked = Wanted::Asked {
                    keep: Some(2),
                    older_ms: None,
                };
                (folder.key, asked)
            })
            .collect();
        self.run(&wanted, 0, 0, false, true)
            .expect("nothing is in its way");
        self.model.collecting = false;
        self.collected(0, BTreeSet::new());
        self.check();
        let needed = self.needed();
        let there: BTreeSet<usize> = self.world.kept().into_iter().map(|kept| kept.1).collect();
        assert!(there.is_subset(&needed), "{there:?}, needed is {needed:?}");
        assert!(self.world.outboards().is_subset(&needed));
        let most: usize = self.world.folders.iter().map(|f| f.generations.len()).sum();
        let pinned: usize = self.world.folders.iter().map(|f| f.pins.len()).sum();
        assert!(most <= 2 * self.world.folders.len() + pinned);
        assert!(self.world.store.snapshot().unwrap().dropped().unwrap().is_empty());
        assert!(!self.world.store.snapshot().unwrap().is_half_swept().unwrap());
    }
}
