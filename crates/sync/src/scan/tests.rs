//! Scans against an index in a real database.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use alike_core::digest::Digest;
use alike_core::ids::{FolderId, ReplicaId};
use alike_core::observe::Mat;
use alike_core::record::Value;
use alike_store::{Commit, NewFolder, Store};

use super::*;
use crate::disk::tests::{Folder, folder, rel};

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
            replica: ReplicaId(1),
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
        let snapshot = self.store.snapshot().unwrap();
        let found = Mutex::new(Vec::new());
        let scan = Scan {
            root: &self.f.root,
            snapshot: &snapshot,
            folder: self.key,
            on_dir: &|dir| {
                self.dirs.lock().unwrap().push(dir.clone());
                if let Some(path) = *self.fresh.lock().unwrap() {
                    self.f.put(path, "1");
                }
            },
            cancelled: &|| self.cancel.load(Ordering::Relaxed),
            keep_outboards: outboards,
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

#[test]
fn a_first_scan_finds_everything_directories_first() {
    let w = World::new();
    w.f.put("a", "1");
    w.f.put("d/e/b", "22");
    w.f.put(b"d/\xff\n", "");
    fs::create_dir(w.f.at("empty")).unwrap();
    fs::set_permissions(w.f.at("a"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/nowhere", w.f.at("d/link")).unwrap();
    let outcome = w.all();
    assert_eq!(
        outcome.sorted(),
        [
            "d d",
            "d d/e",
            "d empty",
            "f d/\\xff\\n",
            "f d/e/b",
            "l d/link",
            "x a"
        ]
    );
    let lines = outcome.lines();
    let at = |line: &str| lines.iter().position(|l| l == line).unwrap();
    assert!(at("d d") < at("d d/e") && at("d d/e") < at("f d/e/b") && at("d d") < at("l d/link"));
    let ScanReport {
        files,
        dirs,
        hashed_bytes,
        complete,
        gone_dirs,
    } = &outcome.report;
    assert_eq!((*files, *dirs, *hashed_bytes, *complete), (4, 4, 3, true));
    assert!(gone_dirs.is_empty());
    for found in &outcome.found {
        let Found::Changed(finding) = found else {
            panic!("{found:?}")
        };
        assert_eq!(finding.base, None);
        if finding.path == rel("d/e/b") {
            let (seen, print) = finding.seen.as_ref().unwrap();
            let digest = Digest::of(b"22");
            assert_eq!(seen.value, Value::File { digest, size: 2 });
            assert_eq!(
                (*print, finding.mtime),
                (w.f.print("d/e/b"), w.f.print("d/e/b").mtime_ns)
            );
        }
    }
    let mut dirs = w.dirs.lock().unwrap().clone();
    dirs.sort();
    assert_eq!(dirs, [RelPath::root(), rel("d"), rel("d/e"), rel("empty")]);
}

#[test]
fn what_is_known_is_not_hashed_again_once_it_is_old_enough() {
    let w = World::new();
    w.f.put("d/a", "1");
    w.settle();
    let outcome = w.all();
    assert_eq!(outcome.report.hashed_bytes, 0);
    assert_eq!(outcome.report.files, 1);

    // Same size, and its old mtime: ctime tells.
    let mtime = fs::metadata(w.f.at("d/a")).unwrap().modified().unwrap();
    w.f.put("d/a", "2");
    fs::File::open(w.f.at("d/a"))
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    assert_eq!(w.all().lines(), ["f d/a"]);
    w.settle();
    // Times alone are no change.
    fs::File::open(w.f.at("d/a"))
        .unwrap()
        .set_modified(mtime + Duration::from_secs(1))
        .unwrap();
    assert_eq!(w.all().lines(), ["~ d/a"]);
    w.settle();
    fs::set_permissions(w.f.at("d/a"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(w.all().lines(), ["x d/a"]);
    w.settle();
    fs::write(w.f.at("d/new"), "").unwrap();
    assert_eq!(w.path("d").lines(), ["f d/new"]);
}

#[test]
fn what_was_changed_just_now_is_racy_until_it_is_not() {
    let w = World::new();
    *w.fresh.lock().unwrap() = Some("a");
    let first = w.all();
    *w.fresh.lock().unwrap() = None;
    w.learn(&first);
    let Found::Changed(finding) = &first.found[0] else {
        panic!()
    };
    assert!(finding.racy);
    w.settle();
    // A time that is still to come is not of just now.
    let later = SystemTime::now() + Duration::from_secs(1000);
    fs::File::open(w.f.at("a")).unwrap().set_modified(later).unwrap();
    w.settle();
    // The same fingerprint, whatever the clock does: only its being racy makes it be hashed.
    let long_ago = World::new();
    long_ago.f.put("a", "1");
    let outcome = long_ago.all();
    let Found::Changed(finding) = &outcome.found[0] else {
        panic!()
    };
    let mut row = IndexRow {
        mat: Mat {
            value: Value::File {
                digest: Digest::of(b"0"),
                size: 1,
            },
            exec: false,
            dots: Vec::new(),
        },
        fingerprint: Some(finding.seen.as_ref().unwrap().1),
        racy: true,
    };
    let put = |row: &IndexRow| {
        let index_put = vec![(rel("a"), row.clone())];
        long_ago
            .store
            .commit(
                long_ago.key,
                Commit {
                    index_put,
                    ..Commit::default()
                },
            )
            .unwrap();
    };
    put(&row);
    assert_eq!(long_ago.all().lines(), ["f a"]);
    row.racy = false;
    put(&row);
    assert!(long_ago.all().lines().is_empty());
}

#[test]
fn what_is_gone_comes_last_members_first() {
    let w = World::new();
    w.f.put("d/e/x", "x");
    w.f.put("d/y", "y");
    w.f.put("z", "z");
    w.settle();
    fs::rename(w.f.at("d"), w.f.at("moved")).unwrap();
    fs::remove_file(w.f.at("z")).unwrap();
    let outcome = w.all();
    let lines = outcome.lines();
    assert_eq!(lines[4..], ["- d/y", "- d/e/x", "- d/e", "- d", "- z"]);
    assert_eq!(outcome.report.gone_dirs, [rel("d")]);
    let mut new = lines[..4].to_vec();
    new.sort();
    assert_eq!(new, ["d moved", "d moved/e", "f moved/e/x", "f moved/y"]);
    // By their paths alone, in any order, also by one that is deep in it.
    for targets in [
        &["z", "d", "moved"][..],
        &["d/e/x", "z", "moved"],
        &["moved", "d/e", "d/y", "d/e/x", "z"],
    ] {
        let targets = targets.iter().map(|p| Target::Path(rel(p))).collect();
        assert_eq!(w.scan(targets).sorted(), outcome.sorted());
    }
    w.learn(&outcome);
    w.settle();
    assert!(w.path("d").found.is_empty());
    assert!(w.path("never/was/here").found.is_empty());
}

#[test]
fn a_path_of_a_known_directory_is_its_members_and_of_a_new_one_all_below() {
    let w = World::new();
    w.f.put("d/e/x", "x");
    w.settle();
    w.f.put("d/e/x", "xx");
    w.f.put("d/a", "a");
    w.f.put("d/n/m/o", "o");
    assert_eq!(w.path("d").sorted(), ["d d/n", "d d/n/m", "f d/a", "f d/n/m/o"]);
    assert!(w.path("").found.is_empty());
    assert_eq!(w.path("d/e").lines(), ["f d/e/x"]);
    assert_eq!(w.path("d/e/x").lines(), ["f d/e/x"]);
    assert_eq!(
        w.scan(vec![Target::Tree(rel("d/e")), Target::Path(rel("d/e/x"))])
            .lines(),
        ["f d/e/x"]
    );
    assert_eq!(w.scan(vec![Target::Tree(rel("d/e/x"))]).lines(), ["f d/e/x"]);
    let names: Vec<_> = w.path("d/n/m/o").sorted();
    assert_eq!(names, ["f d/n/m/o"]);
}

#[test]
fn another_directory_under_a_known_name_is_looked_through() {
    let w = World::new();
    w.f.put("a/s/x", "1");
    w.f.put("b/s/x", "2");
    w.settle();
    fs::rename(w.f.at("a"), w.f.at("t")).unwrap();
    fs::rename(w.f.at("b"), w.f.at("a")).unwrap();
    fs::rename(w.f.at("t"), w.f.at("b")).unwrap();
    let outcome = w.path("a");
    assert_eq!(outcome.sorted(), ["f a/s/x", "~ a", "~ a/s"]);
    w.learn(&outcome);
    w.learn(&w.path("b"));
    w.settle();
}

#[test]
fn things_change_their_kind() {
    let w = World::new();
    w.f.put("d/e/x", "x");
    w.f.put("f", "f");
    symlink("x", w.f.at("l")).unwrap();
    w.settle();
    fs::remove_dir_all(w.f.at("d")).unwrap();
    w.f.put("d", "now a file");
    fs::remove_file(w.f.at("f")).unwrap();
    w.f.put("f/g", "now a directory");
    fs::remove_file(w.f.at("l")).unwrap();
    w.f.put("l", "now a file");
    let outcome = w.all();
    assert_eq!(
        outcome.sorted(),
        ["- d/e", "- d/e/x", "d f", "f d", "f f/g", "f l"]
    );
    assert_eq!(outcome.lines()[4..], ["- d/e/x", "- d/e"]);
    assert_eq!(outcome.report.gone_dirs, [rel("d")]);
    assert_eq!(w.path("d/e/x").sorted(), ["- d/e", "- d/e/x", "f d"]);
    w.settle();
    symlink("f", w.f.at("n")).unwrap();
    fs::remove_dir_all(w.f.at("f")).unwrap();
    symlink("d", w.f.at("f")).unwrap();
    assert_eq!(w.path("f/g").sorted(), ["- f/g", "l f"]);
    assert_eq!(w.all().sorted(), ["- f/g", "l f", "l n"]);
}

#[test]
fn what_cannot_be_taken_is_said_and_never_gone() {
    let w = World::new();
    for path in ["pipe/a/b", "sock", "deep"] {
        w.f.put(path, "x");
    }
    w.settle();
    fs::remove_dir_all(w.f.at("pipe")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, w.f.at("pipe"), rustix::fs::Mode::RUSR).unwrap();
    fs::remove_file(w.f.at("sock")).unwrap();
    std::os::unix::net::UnixListener::bind(w.f.at("sock")).unwrap();
    w.f.put("sub/.alike/x", "x");
    w.f.put(".ALIKE", "x");
    let outcome = w.all();
    assert_eq!(
        outcome.sorted(),
        [
            "! pipe: it is a named pipe",
            "! sock: it is a socket",
            "? /.ALIKE",
            "? sub/.alike",
            "d sub"
        ]
    );
    assert!(outcome.report.complete);
    assert!(
        w.path("pipe/a/b")
            .lines()
            .iter()
            .all(|l| l == "! pipe: it is a named pipe")
    );
}

#[test]
fn what_cannot_be_read_is_said_and_never_gone() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything; what follows is the same as for a directory that fails in another way.
        return;
    }
    let w = World::new();
    w.f.put("d/a", "x");
    w.f.put("f", "x");
    w.settle();
    fs::set_permissions(w.f.at("d"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(w.f.at("f"), fs::Permissions::from_mode(0o0)).unwrap();
    let outcome = w.all();
    assert!(
        outcome.lines().iter().all(|l| l.starts_with("! ")),
        "{:?}",
        outcome.lines()
    );
    assert_eq!(outcome.found.len(), 2);
    fs::set_permissions(w.f.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn paths_over_the_limits_are_said() {
    let w = World::new();
    let mut at = rustix::fs::open(
        w.f.dir.path(),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let long = "x".repeat(250);
    for _ in 0..17 {
        rustix::fs::mkdirat(&at, &long, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &long, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let mut deep = w.f.at("d");
    for _ in 0..257 {
        fs::create_dir(&deep).unwrap();
        deep.push("d");
    }
    let outcome = w.all();
    let problems: Vec<_> = outcome
        .lines()
        .into_iter()
        .filter(|l| l.starts_with('!'))
        .collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems
            .iter()
            .all(|p| p.ends_with("too long or nested too deeply"))
    );
    assert_eq!(outcome.report.dirs, 1 + 16 + 256);
}

#[test]
fn a_file_that_is_being_written_is_busy_and_holds_nothing_up() {
    let w = World::new();
    w.f.put("old", vec![1; 6 << 20]);
    w.settle();
    w.f.put("old", vec![2; 6 << 20]);
    w.f.put("other", "x");
    let count = AtomicUsize::new(0);
    let snapshot = w.store.snapshot().unwrap();
    let found = Mutex::new(Vec::new());
    let scan = Scan {
        root: &w.f.root,
        snapshot: &snapshot,
        folder: w.key,
        on_dir: &|_| {},
        // Asked at every buffer of the large file.
        cancelled: &|| {
            let n = count.fetch_add(1, Ordering::Relaxed);
            let mut file = fs::OpenOptions::new().append(true).open(w.f.at("old")).unwrap();
            std::io::Write::write_all(&mut file, &[n as u8]).unwrap();
            false
        },
        keep_outboards: None,
    };
    let report = scan
        .run(vec![Target::Tree(RelPath::root())], &|batch| {
            found.lock().unwrap().extend(batch)
        })
        .unwrap();
    let outcome = Outcome {
        found: found.into_inner().unwrap(),
        report,
    };
    assert_eq!(outcome.sorted(), ["busy old", "f other"]);
    assert!(outcome.report.complete);
}

#[test]
fn what_comes_back_while_the_scan_runs_is_not_gone() {
    let w = World::new();
    w.f.put("a", "a");
    w.f.put("b", "b");
    for i in 0..300 {
        w.f.put(format!("n{i}"), "n");
    }
    w.learn(&w.scan(vec![Target::Path(rel("a")), Target::Path(rel("b"))]));
    fs::remove_file(w.f.at("a")).unwrap();
    fs::remove_file(w.f.at("b")).unwrap();
    let back = |_: &[Found]| w.f.put("a", "again");
    let outcome = w
        .scan_then(vec![Target::Tree(RelPath::root())], &back, None)
        .unwrap();
    let last = outcome.lines().split_off(300);
    assert_eq!(last, ["busy a", "- b"]);
}

#[test]
fn nothing_is_gone_when_the_root_is() {
    let w = World::new();
    w.f.put("a", "a");
    w.settle();
    let moved = w.f.dir.path().with_extension("moved");
    fs::rename(w.f.dir.path(), &moved).unwrap();
    assert!(matches!(
        w.try_scan(vec![Target::Tree(RelPath::root())]),
        Err(ScanError::Root(_))
    ));
    fs::rename(&moved, w.f.dir.path()).unwrap();
    // In the middle of a run: emptied, as by an unmount.
    w.f.put("new", "new");
    fs::remove_file(w.f.at("a")).unwrap();
    let lose = |_: &[Found]| {
        let _ = fs::remove_file(w.f.at(".alike/marker"));
    };
    fs::write(w.f.at("new"), vec![0; 1 << 20]).unwrap();
    for i in 0..300 {
        w.f.put(format!("n{i}"), "n");
    }
    let outcome = w.scan_then(vec![Target::Tree(RelPath::root())], &lose, None);
    assert!(matches!(outcome, Err(ScanError::Root(_))));
}

#[test]
fn a_cancelled_run_gives_nothing_up() {
    let w = World::new();
    w.f.put("a", "a");
    w.settle();
    fs::remove_file(w.f.at("a")).unwrap();
    for i in 0..800 {
        w.f.put(format!("d{}/n{i}", i % 40), "n");
    }
    let stop = |_: &[Found]| w.cancel.store(true, Ordering::Relaxed);
    let outcome = w
        .scan_then(vec![Target::Tree(RelPath::root())], &stop, None)
        .unwrap();
    assert!(!outcome.report.complete);
    assert!(outcome.found.len() < 800);
    assert!(!outcome.lines().contains(&"- a".to_owned()));
}

#[test]
fn large_directories_and_large_files_are_shared_out() {
    let w = World::new();
    let home = tempfile::tempdir().unwrap();
    for i in 0..1200 {
        w.f.put(format!("many/{i}"), i.to_string());
    }
    let large: Vec<u8> = (0..1_500_000u32).flat_map(|i| i.to_le_bytes()).collect();
    w.f.put("large", &large);
    let outcome = w
        .scan_then(vec![Target::Tree(RelPath::root())], &|_| {}, Some(home.path()))
        .unwrap();
    let values: BTreeMap<_, _> = outcome
        .found
        .iter()
        .map(|found| match found {
            Found::Changed(finding) => (finding.path.clone(), finding.seen.clone().unwrap().0.value),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values.len(), 1202);
    for i in 0..1200 {
        let content = i.to_string();
        let digest = Digest::of(content.as_bytes());
        let size = content.len() as u64;
        assert_eq!(values[&rel(format!("many/{i}"))], Value::File { digest, size });
    }
    let digest = Digest::of(&large);
    assert_eq!(
        values[&rel("large")],
        Value::File {
            digest,
            size: large.len() as u64
        }
    );
    assert!(crate::outboard::path_of(home.path(), &digest).exists());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    w.settle();
    assert_eq!(w.all().report.hashed_bytes, 0);
}

#[test]
fn links_are_values() {
    let w = World::new();
    symlink(b"\xff/../x".as_slice().to_owned().pipe(), w.f.at("l")).unwrap();
    w.settle();
    fs::remove_file(w.f.at("l")).unwrap();
    symlink("other", w.f.at("l")).unwrap();
    let outcome = w.all();
    assert_eq!(outcome.lines(), ["l l"]);
    let Found::Changed(finding) = &outcome.found[0] else {
        panic!()
    };
    let target = b"other"[..].into();
    assert_eq!(finding.seen.as_ref().unwrap().0.value, Value::Symlink { target });
    w.settle();
    symlink("other", w.f.at("m")).unwrap();
    fs::rename(w.f.at("m"), w.f.at("l")).unwrap();
    assert_eq!(w.all().lines(), ["~ l"]);
}

/// Bytes as a path.
trait Pipe {
    fn pipe(self) -> std::ffi::OsString;
}

impl Pipe for Vec<u8> {
    fn pipe(self) -> std::ffi::OsString {
        std::os::unix::ffi::OsStringExt::from_vec(self)
    }
}
