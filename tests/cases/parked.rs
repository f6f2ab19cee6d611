//! What cannot be put on one device's disk does not keep anything else, or anybody, waiting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::*;

fn pipe(path: impl AsRef<Path>) {
    let made = std::process::Command::new("mkfifo")
        .arg(path.as_ref())
        .status()
        .expect("run mkfifo");
    assert!(made.success());
}

fn some_files(dir: &Path) {
    for n in 0..4 {
        write(dir.join(format!("d/{n}")), format!("{n}"));
        write(dir.join(format!("e/{n}")), format!("{n}"));
    }
}

/// Nobody waits, and `status` says what is the matter where.
#[track_caller]
fn goes_on(a: &Device, b: &Device, path: &str, says: &str) {
    eventually("it is said", LONG, || {
        let problems = b.field("problems").to_string();
        problems.contains(path) && problems.contains(says)
    });
    a.wait_in_sync();
    b.wait_in_sync();
    assert_eq!(b.field("state"), "idle");
    assert_eq!(b.field("pending")["files"], 0);
    assert_eq!(a.field("root"), b.field("root"));
}

#[test]
fn a_directory_removed_elsewhere_that_holds_a_pipe_stays_without_its_files() {
    let (_lab, a, mut b) = paired(some_files);
    pipe(b.path("d/pipe"));
    fs::remove_dir_all(a.path("d")).unwrap();
    goes_on(&a, &b, "\"d\"", "still holds something that is not synced");
    let left: Vec<_> = fs::read_dir(b.path("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["pipe"]);
    assert!(!a.path("d").exists(), "nobody announces it again");
    b.restart();
    goes_on(&a, &b, "\"d\"", "still holds something that is not synced");
    write(a.path("new"), "x");
    eventually("others arrive", LONG, || b.path("new").exists());
    fs::remove_file(b.path("d/pipe")).unwrap();
    eventually("it goes by itself", LONG, || !b.path("d").exists());
    assert_converged(&[&a, &b]);
    assert_eq!(b.field("problems").to_string(), "[]");
}

#[test]
fn what_another_device_has_where_a_pipe_is_comes_when_it_is_gone() {
    let (_lab, a, mut b) = paired(some_files);
    pipe(b.path("file"));
    pipe(b.path("dir"));
    write(a.path("file"), "a file");
    write(a.path("dir/deep/file"), "a file in a directory");
    goes_on(&a, &b, "\"file\"", "named pipe is in the way");
    goes_on(&a, &b, "\"dir\"", "named pipe is in the way");
    assert!(
        !b.field("problems").to_string().contains("deep"),
        "one problem for all below it"
    );
    b.restart();
    goes_on(&a, &b, "\"dir\"", "named pipe is in the way");
    // What it is told meanwhile is for later.
    write(a.path("dir/deep/file"), "changed meanwhile");
    fs::remove_file(a.path("e/0")).unwrap();
    eventually("others go on", LONG, || !b.path("e/0").exists());
    goes_on(&a, &b, "\"dir\"", "named pipe is in the way");
    assert!(
        a.path("dir/deep/file").exists() && a.path("file").exists(),
        "never a deletion"
    );
    fs::remove_file(b.path("dir")).unwrap();
    fs::remove_file(b.path("file")).unwrap();
    eventually("they come", LONG, || {
        b.path("file").exists() && b.path("dir/deep/file").exists()
    });
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("dir/deep/file")), "changed meanwhile");
}

#[test]
fn a_file_that_becomes_a_pipe_is_unknown_and_not_gone() {
    let (_lab, a, b) = paired(some_files);
    fs::remove_file(b.path("d/0")).unwrap();
    pipe(b.path("d/0"));
    eventually("it is said", LONG, || {
        b.field("problems").to_string().contains("named pipe")
    });
    assert_eq!(text(a.path("d/0")), "0");
    write(a.path("d/0"), "edited");
    goes_on(&a, &b, "\"d/0\"", "named pipe");
    fs::remove_file(b.path("d/0")).unwrap();
    eventually("it comes back, or is gone everywhere", LONG, || {
        a.path("d/0").exists() == b.path("d/0").exists()
    });
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("d/0")), "edited");
}

#[test]
fn directories_around_one_that_must_stay_stay_with_it_and_go_with_it() {
    let (_lab, a, b) = paired(|dir| {
        some_files(dir);
        write(dir.join("d/e/f/0"), "deep");
    });
    pipe(b.path("d/e/f/pipe"));
    fs::remove_dir_all(a.path("d")).unwrap();
    goes_on(&a, &b, "\"d/e/f\"", "still holds something that is not synced");
    assert!(!b.field("problems").to_string().contains("\"d\""), "said once");
    assert!(b.path("d/e/f/pipe").exists() && !b.path("d/0").exists());
    fs::remove_file(b.path("d/e/f/pipe")).unwrap();
    eventually("all of it goes by itself", LONG, || !b.path("d").exists());
    assert_converged(&[&a, &b]);
}

#[test]
fn a_pipe_where_a_directory_was_keeps_all_of_it_unknown() {
    let (_lab, a, b) = paired(some_files);
    fs::rename(b.path("d"), b.path("e/moved")).unwrap();
    pipe(b.path("d"));
    eventually("it is said", LONG, || {
        b.field("problems").to_string().contains("named pipe")
    });
    write(a.path("d/0"), "edited");
    write(a.path("d/new"), "new");
    fs::remove_file(a.path("d/1")).unwrap();
    goes_on(&a, &b, "\"d\"", "named pipe is in the way");
    assert!(
        !b.field("problems").to_string().contains("d/"),
        "one problem for all of it"
    );
    assert_eq!(text(a.path("d/2")), "2", "never a deletion");
    fs::remove_file(b.path("d")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("e/moved/2")), "2");
    assert_eq!(text(a.path("d/0")), "edited");
}

#[test]
fn what_is_below_a_mount_is_unknown_and_waits() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    fs::create_dir(&a.folder).unwrap();
    some_files(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    b.stop();
    let Some(mount) = Tmpfs::new(b.path("d"), 1024) else {
        return;
    };
    write(a.path("d/0"), "edited");
    fs::remove_file(a.path("d/1")).unwrap();
    write(a.path("d/new/file"), "new");
    b.start();
    goes_on(&a, &b, "\"d\"", "another file system is in the way");
    fs::remove_dir_all(a.path("d")).unwrap();
    goes_on(&a, &b, "\"d\"", "another file system is in the way");
    write(a.path("d/0"), "made again");
    goes_on(&a, &b, "\"d\"", "another file system is in the way");
    assert_eq!(fs::read_dir(b.path("d")).unwrap().count(), 0);
    drop(mount);
    // Nobody tells of an unmount; what happens to the directory does.
    fs::set_permissions(b.path("d"), fs::Permissions::from_mode(0o700)).unwrap();
    write(b.path("d/hello"), "from b");
    eventually("it follows", LONG, || a.path("d/hello").exists());
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("d/0")), "made again");
    assert!(!b.path("d/1").exists());
}
