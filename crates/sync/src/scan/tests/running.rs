//! What happens to a run while it runs: writers, a root that goes, a cancel, more work than one thread's. Never
//! gives up what was only not looked at.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use alike_core::digest::Digest;
use alike_core::record::Value;

use super::*;

#[test]
fn a_file_that_is_being_written_is_busy_and_holds_nothing_up() {
    let w = World::new();
    w.f.put("old", vec![1; 6 << 20]);
    w.settle();
    w.f.put("old", vec![2; 6 << 20]);
    w.f.put("other", "x");
    let count = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let scan = Scan {
        root: &w.f.root,
        store: &w.store,
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
        keep_small: &|_, _| {},
        ignore: &Ignore::default(),
        closed: &std::collections::HashSet::new(),
        wrote: &|_| Wrote::No,
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

/// A snapshot that is kept all the while keeps whatever is committed meanwhile from being written over: with 400,000 new
/// files the database had eight times the size that it needed.
#[test]
fn what_is_committed_while_a_scan_runs_does_not_pile_up() {
    let w = World::new();
    for i in 0..12_800 {
        w.f.put(format!("{}/{i}", i / 50), "x");
    }
    let rewrite = |round: u64| {
        let pending = (0..2000).map(|i| (rel(format!("pending/{i}")), round));
        let commit = Commit {
            pending_put: pending.collect(),
            ..Commit::default()
        };
        w.store.commit(w.key, commit).unwrap();
    };
    rewrite(0);
    rewrite(1);
    let before = w.store.bytes_on_disk();
    let batches = AtomicUsize::new(1);
    let then = |_: &[Found]| rewrite(batches.fetch_add(1, Ordering::Relaxed) as u64);
    w.scan_then(vec![Target::Tree(RelPath::root())], &then, None)
        .unwrap();
    let written = batches.into_inner() as u64 * 2000 * 20;
    let grown = w.store.bytes_on_disk().saturating_sub(before);
    assert!(
        written > 1_900_000 && grown < written / 2,
        "{before} + {grown}, of {written}"
    );
}
