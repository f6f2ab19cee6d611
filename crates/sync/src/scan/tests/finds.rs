//! What a scan finds, in which order, and what it need not hash again. Never changes the disk during a run,
//! but for a file that is to be racy.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use alike_core::digest::Digest;
use alike_core::observe::Mat;
use alike_core::record::Value;
use alike_store::Commit;

use super::*;

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

/// A directory was replaced by a file from afar while its last member was removed by its user: the index knows the
/// one, and not yet the other.
#[test]
fn what_the_index_has_below_a_file_is_gone() {
    let w = World::new();
    w.f.put("d/x", "one");
    w.f.put("d/deep/y", "two");
    w.settle();
    std::fs::remove_dir_all(w.f.dir.path().join("d")).unwrap();
    w.f.put("d", "a file");
    let mut outcome = w.path("d");
    outcome
        .found
        .retain(|found| matches!(found, Found::Changed(finding) if finding.seen.is_some()));
    assert_eq!(outcome.lines(), ["f d"]);
    w.learn(&outcome);

    // Whether the file was changed just now is not the question here.
    let gone = |path: &str| {
        let lines = w.path(path).lines();
        lines
            .into_iter()
            .filter(|line| line.starts_with("- "))
            .collect::<Vec<_>>()
    };
    assert_eq!(gone("d/x"), ["- d/x"]);
    w.learn(&w.path("d/x"));
    assert_eq!(gone("d/deep/y"), ["- d/deep/y", "- d/deep"]);
    w.learn(&w.path("d/deep/y"));
    assert!(gone("d/deep/y").is_empty());
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
