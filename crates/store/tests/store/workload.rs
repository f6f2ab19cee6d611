//! A random workload over every way to write to a store, and everything that can be read of one, to compare.
//! Never looks at the medium.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::ids::ReplicaId;
use alike_core::path::{Name, RelPath};
use alike_core::record::Value;
use alike_core::state::{State, StateEntry};
use alike_core::tree::{self, Nodes};
use alike_core::view::{Summaries, Summary};
use alike_store::*;

use crate::fixture::*;
use crate::model::Lcg;

/// Contents of [`Lcg::row`].
const CONTENTS: std::ops::Range<u8> = 1..5;

/// What the workload has done, as far as it needs to know that.
pub(crate) struct Workload {
    random: Lcg,
    folders: Vec<FolderKey>,
    next: u8,
    /// Every node and summary that a commit tried to write.
    nodes: BTreeSet<Digest>,
    states: BTreeSet<Digest>,
    /// A gc that is not over.
    marks: Option<Marks>,
    sweep: Option<Sweep>,
    archiving: Archiving,
}

fn archiving() -> Archiving {
    Archiving::in_blocks_of(200, 4_000)
}

impl Workload {
    pub(crate) fn new(seed: u64) -> Self {
        Workload {
            random: Lcg(seed),
            folders: Vec::new(),
            next: 0,
            // These are in every database.
            nodes: [tree::empty::<NamedEntry>(), tree::empty::<StateEntry>()].into(),
            states: BTreeSet::new(),
            marks: None,
            sweep: None,
            archiving: archiving(),
        }
    }

    fn number(&mut self) -> u8 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// One call that writes; at most one transaction.
    pub(crate) fn step(&mut self, store: &Store) -> Result<(), StoreError> {
        let some =
            (!self.folders.is_empty()).then(|| self.folders[self.random.below(self.folders.len().max(1))]);
        let Some(folder) = some else {
            let n = self.number();
            self.folders.push(store.add_folder(new_folder(n))?.key);
            return Ok(());
        };
        let n = self.random.below(4) as u8;
        match self.random.below(26) {
            0 | 1 if self.folders.len() < 4 => {
                let n = self.number();
                self.folders.push(store.add_folder(new_folder(n))?.key);
                Ok(())
            }
            2 if self.folders.len() > 1 => {
                self.folders.retain(|f| *f != folder);
                store.remove_folder(folder)
            }
            3 => store.set_folder_paused(folder, n < 2),
            4 => store.put_device(&device(n)),
            5 => store.pair(&device(n), &grant(folder, n), Some(&ticket(folder, n))),
            6 => store.remove_device(&[n; 32]),
            7 => store.put_ticket(&ticket(folder, n)),
            8 => store.remove_ticket(&[n; 8]),
            9 => store.put_grant(&grant(folder, n)),
            10 => store.remove_grant(folder, &[n; 32]),
            11 => {
                let mut id = u64::from(self.number()) << 8;
                let place = self.random.below(3) as u64;
                store
                    .check_birth(place, |_, _, _, _| {
                        id += 1;
                        Renewal {
                            replica: Replica {
                                id: ReplicaId(id),
                                nonce: [0; 16],
                            },
                            retired: None,
                        }
                    })
                    .map(drop)
            }
            12 if self.random.below(3) == 0 => {
                let alone = store.alone(Duration::ZERO).expect("nobody has a lease");
                store.forget_dropped(&alone, &[(folder, u64::from(n)), (folder, u64::from(n) + 1)])
            }
            12 => store
                .drop_generations(folder, &[u64::from(n), u64::from(n) + 1])
                .map(drop),
            13 | 14 => {
                // Half of the sweeps are one transaction late: a commit may have come between.
                let mut sweep = self.sweep.take().unwrap_or_else(|| Sweep::in_steps_of(9));
                let mut marks = match self.marks.take() {
                    Some(marks) => marks,
                    None => store.snapshot()?.mark(&|_, _| true)?,
                };
                let done = store
                    .sweep(&mut marks, &mut sweep, Duration::ZERO)
                    .map(|done| assert!(done));
                if !sweep.is_done() {
                    (self.sweep, self.marks) = (Some(sweep), Some(marks));
                }
                done
            }
            15 | 16 => {
                if self.archiving.is_done() {
                    self.archiving = archiving();
                }
                store.archive(&mut self.archiving)
            }
            _ => {
                let commit = self.commit();
                store.commit(folder, commit)
            }
        }
    }

    fn commit(&mut self) -> Commit {
        let mut commit = Commit::default();
        let random = &mut self.random;
        let some = |random: &mut Lcg, n: usize| random.below(2) * random.below(n);
        for _ in 0..some(random, 12) {
            commit.index_remove.push(random.path());
            commit.pending_remove.push(random.path());
        }
        for _ in 0..some(random, 60) {
            commit.index_put.push((random.path(), random.row()));
        }
        for _ in 0..some(random, 20) {
            commit
                .pending_put
                .push((random.path(), random.below(1_000) as u64));
        }
        for _ in 0..some(random, 6) {
            let path = random.path();
            commit.intents_put.push(Intent {
                path: path.clone(),
                before: Some(random.row().mat),
                before_fingerprint: None,
                after: Some(Value::Dir),
                after_exec: false,
                dots: Vec::new(),
                temp: Some(b"t".to_vec()),
            });
            commit.intents_remove.push(random.path());
        }
        if random.below(3) > 0 {
            self.head(&mut commit);
        }
        commit
    }

    /// A new head with its trees, large ones among them, and often a generation of it.
    fn head(&mut self, commit: &mut Commit) {
        let random = &mut self.random;
        let count = if random.below(4) == 0 {
            300
        } else {
            random.below(9)
        };
        let content = [random.below(200) as u8];
        let names = (0..count).map(|i| Name::new(format!("{i:03}").as_bytes()).unwrap());
        let entries: Vec<_> = names
            .map(|name| NamedEntry {
                name,
                entry: Entry::File {
                    digest: Digest::of(&content),
                    size: 1,
                    exec: false,
                },
            })
            .collect();
        let root = tree::write(&entries, &mut |d, b| commit.nodes.push((d, b.into())));
        let child = StateEntry {
            name: Name::new(format!("{}", content[0]).as_bytes()).unwrap(),
            records: Vec::new(),
            child: Some(tree::empty::<StateEntry>()),
        };
        let state = tree::write(&[child], &mut |d, b| commit.nodes.push((d, b.into())));
        let summary = Summary {
            root,
            files: count as u64,
            ..Summary::empty()
        };
        commit.summaries.push((state, summary));
        let number = 1 + random.below(5) as u64;
        commit.head = Some(Head {
            state: State {
                root: Some(state),
                ..State::default()
            },
            summary,
            seq: random.below(100) as u64,
            generation: number,
            ..Head::default()
        });
        if random.below(2) == 0 {
            commit.generation = Some(Generation {
                root,
                state: Some(state),
                ..generation(number)
            });
        }
        self.nodes.extend(commit.nodes.iter().map(|n| n.0));
        self.states.insert(state);
    }

    /// Everything that can be read of the store, as text; the laws between its tables are checked on the way.
    /// This workload has tried at least what the store may hold.
    pub(crate) fn all(&self, store: &Store) -> Result<String, StoreError> {
        let see = store.snapshot()?;
        let mut out = String::new();
        let mut say = |what: &dyn std::fmt::Debug| writeln!(out, "{what:?}").unwrap();
        let folders = store.folders()?;
        let mut places: BTreeMap<Digest, Vec<(FolderKey, RelPath)>> = BTreeMap::new();
        for folder in &folders {
            say(folder);
            let key = folder.key;
            let head = see.head(key)?;
            crate::gc::content(&see, head.summary.root, &mut BTreeSet::new());
            if let Some(state) = head.state.root {
                crate::gc::state(&see, state, &mut BTreeSet::new());
            }
            say(&head);
            let index = see.index_below(key, &RelPath::root())?;
            for (path, row) in &index {
                if let Value::File { digest, .. } = row.mat.value {
                    places.entry(digest).or_default().push((key, path.clone()));
                }
            }
            say(&index);
            let pending = see.pending(key, None, usize::MAX)?;
            let total = (pending.len() as u64, pending.iter().map(|p| p.1).sum());
            assert_eq!(see.pending_total(key)?, total, "pending totals");
            say(&pending);
            say(&see.intents(key)?);
            let generations = see.generations(key, usize::MAX)?;
            for g in &generations {
                crate::gc::content(&see, g.root, &mut BTreeSet::new());
                if let Some(state) = g.state {
                    crate::gc::state(&see, state, &mut BTreeSet::new());
                }
            }
            say(&generations);
        }
        say(&(see.dropped()?, see.is_half_swept()?));
        see.mark_dropped(&|_, _| true)?;
        for content in CONTENTS {
            let digest = Digest::of(&[content]);
            let mut found = see.blob_places(&digest, usize::MAX)?;
            let mut meant = places.remove(&digest).unwrap_or_default();
            found.sort();
            meant.sort();
            assert_eq!(found, meant, "places of {content}");
        }
        for digest in &self.nodes {
            if see.has_node(digest)? {
                say(&see.node(digest));
            }
        }
        for state in &self.states {
            if let Some(summary) = see.summary(state).expect("summaries can be read") {
                assert!(see.has_node(&summary.root)?, "a summary's tree: {summary:?}");
                say(&(state, summary));
            }
        }
        let keys: Vec<_> = folders.iter().map(|f| f.key).collect();
        let grants = store.grants()?;
        assert!(
            grants.iter().all(|g| keys.contains(&g.folder)),
            "grants of no folder"
        );
        let tickets = store.tickets()?;
        assert!(
            tickets.iter().all(|t| keys.contains(&t.folder)),
            "tickets of no folder"
        );
        say(&(store.devices()?, grants, tickets));
        Ok(out)
    }
}
