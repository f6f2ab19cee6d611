//! What a scan cannot take, read or name: it is said, and never counts as gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

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
