//! Directories that cannot be synced: the message names the path, exit code 1, and nothing changed.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::harness::*;

/// `sync VERB [TICKET] DIR` must fail naming the directory, and leave the folders as they were.
#[track_caller]
fn refused(device: &Device, args: &[&str], dir: &Path) {
    let before = device.status()["folders"].clone();
    let mut all: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    all.push(dir.as_os_str());
    device.fails(all, 1, &[&dir.to_string_lossy()]);
    let after = device.status()["folders"].clone();
    assert_eq!(after.as_array().map(Vec::len), before.as_array().map(Vec::len));
}

#[test]
fn a_file_cannot_be_shared_or_paired_into() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    write(a.path("file"), "x");
    refused(&a, &["share"], &a.path("file"));
    let ticket = a.share();
    let file = b.corner.join("a file");
    write(&file, "mine");
    refused(&b, &["pair", &ticket], &file);
    assert_eq!(text(&file), "mine");
    // The ticket was not spent by that.
    b.ok(b.pair_args(&ticket));
    assert_converged(&[&a, &b]);
}

#[test]
fn a_missing_directory_cannot_be_shared() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    refused(&a, &["share"], &a.corner.join("no such directory"));
    assert!(!a.corner.join("no such directory").exists());
}

#[test]
fn folders_do_not_nest() {
    let (_lab, a, b) = paired(|dir| write(dir.join("sub/file"), "x"));
    let outer = a.corner.join("outer");
    write(outer.join("inner/file"), "y");
    let ticket = b.share();
    refused(&a, &["share"], &a.path("sub"));
    refused(&a, &["pair", &ticket], &a.path("sub"));
    refused(&a, &["share"], &a.corner);
    a.ok([OsStr::new("share"), outer.join("inner").as_os_str()]);
    refused(&a, &["share"], &outer);
    assert_eq!(names(&a.folder), ["sub", "sub/file"]);
}

#[test]
fn a_target_that_cannot_be_written_is_refused_before_the_ticket_is_spent() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    write(a.path("file"), "x");
    let ticket = a.share();
    let mut b = lab.unprivileged("desktop");
    let locked = b.corner.join("locked");
    fs::create_dir(&locked).unwrap();
    b.hand_over();
    b.start();
    {
        let _locked = ModeGuard::set(&locked, 0o555);
        refused(&b, &["pair", &ticket], &locked);
        refused(&b, &["pair", &ticket], &locked.join("below"));
    }
    assert_eq!(names(&locked), [""; 0]);
    b.ok(b.pair_args(&ticket));
    assert_converged(&[&a, &b]);
}

#[test]
fn an_unreadable_directory_is_a_problem_and_never_a_deletion() {
    let lab = Lab::new();
    let mut a = lab.unprivileged("laptop");
    let b = lab.running("desktop");
    write(a.path("open"), "1");
    write(a.path("secret/inside"), "2");
    write(a.path("secret/deeper/inside"), "3");
    a.hand_over();
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);

    let guard = ModeGuard::set(a.path("secret"), 0o000);
    write(b.path("new"), "the rest goes on");
    eventually("the rest syncs", LONG, || {
        text(a.path("new")) == "the rest goes on"
    });
    a.stop();
    a.start();
    write(b.path("open"), "also after a restart");
    eventually("the rest syncs", LONG, || {
        text(a.path("open")) == "also after a restart"
    });
    eventually("the status names the unreadable path", LONG, || {
        let problems = a.field("problems");
        let mut all = problems.as_array().expect("a list").iter();
        all.any(|p| p["path"].as_str().is_some_and(|path| path.starts_with("secret")))
    });
    assert_eq!(
        names(&b.folder),
        [
            "new",
            "open",
            "secret",
            "secret/deeper",
            "secret/deeper/inside",
            "secret/inside"
        ]
    );

    drop(guard);
    write(b.path("secret/inside"), "readable again");
    assert_converged(&[&b, &a]);
    eventually("the problem is gone", LONG, || {
        a.field("problems").as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn an_unreadable_file_is_a_problem_and_the_rest_syncs() {
    let lab = Lab::new();
    let mut a = lab.unprivileged("laptop");
    let b = lab.running("desktop");
    write(a.path("locked"), "nobody may see this");
    write(a.path("open"), "1");
    a.hand_over();
    a.start();
    let _guard = ModeGuard::set(a.path("locked"), 0o000);
    pair(&a, &b);
    eventually("the rest syncs", LONG, || text(b.path("open")) == "1");
    eventually("the status names the unreadable path", LONG, || {
        let problems = a.field("problems");
        problems
            .as_array()
            .expect("a list")
            .iter()
            .any(|p| p["path"] == "locked")
    });
    assert!(!b.path("locked").exists());
}

#[test]
fn special_files_are_reported_and_left_alone() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "x"));
    let _socket = std::os::unix::net::UnixListener::bind(a.path("socket")).unwrap();
    write(a.path("file"), "y");
    assert_converged_without(&a, &b, "socket");
    eventually("the status names the socket", LONG, || {
        let problems = a.field("problems");
        problems
            .as_array()
            .expect("a list")
            .iter()
            .any(|p| p["path"] == "socket")
    });
    assert!(a.path("socket").exists());
}

/// As `assert_converged`, for a path that `b` must not have.
#[track_caller]
fn assert_converged_without(a: &Device, b: &Device, path: &str) {
    settle(&[a, b]);
    assert!(!b.path(path).exists());
    assert_eq!(text(b.path("file")), "y");
}
