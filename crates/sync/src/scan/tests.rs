//! Scans against an index in a real database: the folder with an index that all of them use. Never runs an
//! engine.

mod finds;
mod refused;
mod running;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use alike_core::ids::{FolderId, ReplicaId};
use alike_core::observe::Mat;
use alike_core::record::Value;
use alike_store::{Commit, NewFolder, Replica, Store};

use super::*;
use crate::disk::tests::{Folder, folder, rel};
use crate::ignore::Ignore;

/// A folder with an index.
struct World {
    f: Folder,
    _home: tempfile::TempDir,
    store: Store,
    key: FolderKey,
    dirs: Mutex<Vec<RelPath>>,
    cancel: AtomicBool,
    /// Written while a scan runs.
    fresh: Mutex<Option<&'static str>>,
}

/// One run: its findings in order, and its report.
struct Outcome {
    found: Vec<Found>,
    report: ScanReport,
}

impl Outcome {
    /// Each finding as a short line, in the order in which it came.
    fn lines(&self) -> Vec<String> {
        let line = |found: &Found| match found {
            Found::Changed(finding) => match &finding.seen {
                Some((seen, _)) => format!("{} {}", sign(&seen.value, seen.exec), finding.path),
                None => format!("- {}", finding.path),
            },
            Found::Touched(finding) => format!("~ {}", finding.path),
            Found::Problem { path, reason, .. } => format!("! {path}: {reason}"),
            Found::Busy(path) => format!("busy {path}"),
            Found::Unnamable { dir, name, .. } => format!("? {dir}/{}", name.escape_ascii()),
        };
        self.found.iter().map(line).collect()
    }

    fn sorted(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.sort();
        lines
    }
}

fn sign(value: &Value, exec: bool) -> &'static str {
    match value {
        Value::File { .. } if exec => "x",
        Value::File { .. } => "f",
        Value::Dir => "d",
        Value::Symlink { .. } => "l",
    }
}

impl World {
    fn new() -> World {
        let f = folder();
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("state")).unwrap();
        let (root_dev, root_ino) = f.root.identity();
        let new = NewFolder {
            id: FolderId([1; 16]),
            name: "test".to_owned(),
            path: f.dir.path().to_owned(),
            replica: Replica {
                id: ReplicaId(1),
                nonce: [0; 16],
            },
            marker: crate::disk::tests::MARKER,
            root_dev,
            root_ino,
            created_ms: 0,
        };
        let key = store.add_folder(new).unwrap().key;
        World {
            f,
            _home: home,
            store,
            key,
            dirs: Mutex::default(),
            cancel: AtomicBool::new(false),
            fresh: Mutex::default(),
        }
    }

    fn try_scan(&self, targets: Vec<Target>) -> Result<Outcome, ScanError> {
        self.scan_then(targets, &|_| {}, None)
    }

    fn scan_then(
        &self,
        targets: Vec<Target>,
        then: &(dyn Fn(&[Found]) + Sync),
        outboards: Option<&Path>,
    ) -> Result<Outcome, ScanError> {
        self.dirs.lock().unwrap().clear();
        let found = Mutex::new(Vec::new());
        let scan = Scan {
            root: &self.f.root,
            store: &self.store,
            folder: self.key,
            on_dir: &|dir| {
                self.dirs.lock().unwrap().push(dir.clone());
                if let Some(path) = *self.fresh.lock().unwrap() {
                    self.f.put(path, "1");
                }
            },
            cancelled: &|| self.cancel.load(Ordering::Relaxed),
            keep_outboards: outboards,
            keep_small: &|_, _| {},
            ignore: &Ignore::default(),
            closed: &std::collections::HashSet::new(),
            wrote: &|_| Wrote::No,
        };
        let report = scan.run(targets, &|batch| {
            assert!(!batch.is_empty() && batch.len() <= 256);
            then(&batch);
            found.lock().unwrap().extend(batch);
        })?;
        let found = found.into_inner().unwrap();
        Ok(Outcome { found, report })
    }

    fn scan(&self, targets: Vec<Target>) -> Outcome {
        self.try_scan(targets).unwrap()
    }

    fn path(&self, path: &str) -> Outcome {
        self.scan(vec![Target::Path(rel(path))])
    }

    fn all(&self) -> Outcome {
        self.scan(vec![Target::Tree(RelPath::root())])
    }

    /// Puts what was found into the index.
    fn learn(&self, outcome: &Outcome) {
        let mut commit = Commit::default();
        for found in &outcome.found {
            let (Found::Changed(finding) | Found::Touched(finding)) = found else {
                continue;
            };
            match finding.seen.clone() {
                Some((seen, fingerprint)) => commit.index_put.push((
                    finding.path.clone(),
                    IndexRow {
                        mat: Mat {
                            value: seen.value,
                            exec: seen.exec,
                            dots: Vec::new(),
                        },
                        fingerprint: Some(fingerprint),
                        racy: finding.racy,
                    },
                )),
                None => commit.index_remove.push(finding.path.clone()),
            }
        }
        self.store.commit(self.key, commit).unwrap();
    }

    /// Scans and learns until nothing is new and nothing racy.
    fn settle(&self) {
        let deadline = SystemTime::now() + Duration::from_secs(10);
        loop {
            let outcome = self.all();
            if outcome.found.is_empty() && outcome.report.hashed_bytes == 0 {
                return;
            }
            assert!(SystemTime::now() < deadline, "{:?}", outcome.lines());
            self.learn(&outcome);
        }
    }
}
