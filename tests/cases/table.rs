//! Rows of the decision table between two real engines and their disks: both sides act while apart, then meet.
//! Which row is which is in the names; what `core` decides alone is tested there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::conflicts::apart;
use crate::harness::*;

/// The names and contents of both sides, which must be equal.
#[track_caller]
fn shows(a: &Device, b: &Device, wanted: &[(&str, &str)]) {
    for device in [a, b] {
        let mut found: Vec<(String, String)> = names(&device.folder)
            .into_iter()
            .filter(|name| device.path(name).is_file())
            .map(|name| (name.clone(), text(device.path(&name))))
            .collect();
        found.sort();
        let mut wanted: Vec<(String, String)> = wanted
            .iter()
            .map(|(n, c)| ((*n).to_owned(), (*c).to_owned()))
            .collect();
        wanted.sort();
        assert_eq!(found, wanted, "on {}", device.name);
    }
}

fn base(dir: &Path) {
    write(dir.join("f"), "base");
    write(dir.join("d/x"), "x");
    write(dir.join("d/y"), "y");
    write(dir.join("rest/1"), "1");
}

const REST: [(&str, &str); 3] = [("d/x", "x"), ("d/y", "y"), ("rest/1", "1")];

#[test]
fn file_becomes_a_directory_here_and_is_modified_there() {
    let (_lab, a, b) = apart(
        base,
        |a| {
            fs::remove_file(a.path("f")).unwrap();
            write(a.path("f/in"), "inside");
        },
        |b| write(b.path("f"), "edited"),
    );
    let copy = conflict_name("f", b"edited");
    shows(
        &a,
        &b,
        &[&REST[..], &[("f/in", "inside"), (copy.as_str(), "edited")]].concat(),
    );
}

#[test]
fn file_becomes_a_symlink_here_and_is_modified_there() {
    let (_lab, a, b) = apart(
        base,
        |a| {
            fs::remove_file(a.path("f")).unwrap();
            symlink("rest/1", a.path("f")).unwrap();
        },
        |b| {
            write(b.path("f"), "edited long ago");
            set_mtime(b.path("f"), 1_000_000_000);
        },
    );
    let copy = conflict_name("f", b"edited long ago");
    for device in [&a, &b] {
        assert_eq!(fs::read_link(device.path("f")).unwrap(), Path::new("rest/1"));
        assert_eq!(text(device.path(&copy)), "edited long ago");
    }
}

/// A directory becomes a file here, and one of its members is written there.
fn directory_becomes_a_file(member: &str, content: &str) {
    let (_lab, a, b) = apart(
        base,
        |a| {
            fs::remove_dir_all(a.path("d")).unwrap();
            write(a.path("d"), "a file now");
        },
        |b| write(b.path(member), content),
    );
    let copy = conflict_name("d", b"a file now");
    shows(
        &a,
        &b,
        &[
            ("f", "base"),
            ("rest/1", "1"),
            (member, content),
            (copy.as_str(), "a file now"),
        ],
    );
}

#[test]
fn directory_becomes_a_file_here_and_a_member_is_edited_there() {
    directory_becomes_a_file("d/x", "edited");
}

#[test]
fn directory_becomes_a_file_here_and_a_member_is_created_there() {
    directory_becomes_a_file("d/new", "new");
}

#[test]
fn directory_removed_here_and_a_member_created_there() {
    let (_lab, a, b) = apart(
        base,
        |a| fs::remove_dir_all(a.path("d")).unwrap(),
        |b| write(b.path("d/new"), "new"),
    );
    shows(&a, &b, &[("f", "base"), ("rest/1", "1"), ("d/new", "new")]);
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn one_file_moved_to_two_places() {
    let (_lab, a, b) = apart(
        base,
        |a| fs::rename(a.path("f"), a.path("here")).unwrap(),
        |b| fs::rename(b.path("f"), b.path("there")).unwrap(),
    );
    shows(
        &a,
        &b,
        &[&REST[..], &[("here", "base"), ("there", "base")]].concat(),
    );
}

#[test]
fn directory_moved_here_and_a_member_edited_there() {
    let (_lab, a, b) = apart(
        base,
        |a| fs::rename(a.path("d"), a.path("e")).unwrap(),
        |b| write(b.path("d/x"), "edited"),
    );
    shows(
        &a,
        &b,
        &[
            ("f", "base"),
            ("rest/1", "1"),
            ("e/x", "x"),
            ("e/y", "y"),
            ("d/x", "edited"),
        ],
    );
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn directories_moved_into_each_other() {
    let (_lab, a, b) = apart(
        base,
        |a| fs::rename(a.path("d"), a.path("rest/d")).unwrap(),
        |b| fs::rename(b.path("rest"), b.path("d/rest")).unwrap(),
    );
    shows(
        &a,
        &b,
        &[
            ("f", "base"),
            ("rest/d/x", "x"),
            ("rest/d/y", "y"),
            ("d/rest/1", "1"),
        ],
    );
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn mtime_alone_is_no_event() {
    let (_lab, a, b) = apart(
        base,
        |a| set_mtime(a.path("f"), 2_000_000_000),
        |b| write(b.path("f"), "edited"),
    );
    shows(&a, &b, &[&REST[..], &[("f", "edited")]].concat());
    let generation = b.field("generation");
    set_mtime(a.path("d/x"), 1_234_567_890);
    assert_converged(&[&a, &b]);
    assert_eq!(b.field("generation"), generation, "nothing has happened");
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn exec_bit_here_and_deleted_there() {
    let (_lab, a, b) = apart(
        base,
        |a| set_mode(a.path("f"), 0o755),
        |b| fs::remove_file(b.path("f")).unwrap(),
    );
    shows(&a, &b, &REST);
}

#[test]
fn edited_here_while_a_newer_version_cannot_be_applied_yet() {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    let mut b = lab.unprivileged("desktop");
    write(a.path("d/f"), "base");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    // Nobody can be put into this directory; what is in it can be written.
    let guard = ModeGuard::set(b.path("d"), 0o555);
    write(a.path("d/f"), "from the laptop");
    eventually("it is known that it cannot be applied", LONG, || {
        b.field("problems").to_string().contains("d/f")
    });
    assert_eq!(text(b.path("d/f")), "base");
    append(b.path("d/f"), " and from the desktop");
    eventually("both are known to be edits", LONG, || a.field("conflicts") == 1);
    drop(guard);
    assert_converged(&[&a, &b]);
    let mut contents: Vec<String> = names(&a.folder)
        .into_iter()
        .filter(|n| a.path(n).is_file())
        .map(|n| text(a.path(n)))
        .collect();
    contents.sort();
    assert_eq!(contents, ["base and from the desktop", "from the laptop"]);
}
