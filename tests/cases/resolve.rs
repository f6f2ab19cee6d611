//! `sync conflicts` lists the copies, `sync resolve` settles one, on all devices.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use super::conflicts::apart;
use crate::harness::*;

/// A file edited on both sides while apart; the desktop's edit is the newer one.
fn edited_twice(name: &str) -> (Lab, Device, Device, String) {
    let (lab, a, b) = apart(
        |dir| write(dir.join(name), "base"),
        |a| {
            write(a.path(name), "laptop");
            set_mtime(a.path(name), 1_700_000_000);
        },
        |b| {
            write(b.path(name), "the desktop's");
            set_mtime(b.path(name), 1_700_000_100);
        },
    );
    assert_eq!(text(a.path(name)), "the desktop's");
    let copy = conflict_name(name, b"laptop");
    (lab, a, b, copy)
}

fn list(device: &Device) -> Vec<Value> {
    let text = device.ok(["conflicts", "--json"]);
    serde_json::from_str(&text).expect("a list")
}

/// Also after restarts, where a third device has them from one that did not write them, and where the writer goes by
/// another id since.
#[test]
fn the_list_names_the_device_of_each_side_wherever_it_is_known() {
    let (lab, mut a, mut b, _) = edited_twice("plan.txt");
    let c = lab.running("server");
    pair(&a, &c);
    assert_converged(&[&a, &b, &c]);
    // The server has never met the desktop: it has no name for it.
    let sides = |device: &Device| {
        let one = list(device).pop().expect("there is one");
        [&one["device"], &one["original_device"]].map(|side| side.as_str().expect("a name").to_owned())
    };
    assert_eq!(sides(&c), ["laptop", ""]);
    let shown = c.ok(["conflicts"]);
    assert!(shown.contains("on laptop") && !shown.contains("on )"), "{shown}");
    pair(&b, &c);
    eventually("it is known by name", LONG, || sides(&c) == ["laptop", "desktop"]);
    // A state directory that is moved away and put back is another one than before.
    a.stop();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&a.home, &a.corner.join("copy")])
        .status();
    assert!(copied.expect("cp").success(), "cp -a");
    a.home = a.corner.join("copy");
    a.start();
    b.restart();
    write(a.path("later"), "by another id");
    assert_converged(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert_eq!(sides(device), ["laptop", "desktop"], "on {}", device.name);
    }
}

#[test]
fn the_list_tells_both_sides() {
    let (_lab, a, b, copy) = edited_twice("plan.txt");
    for device in [&a, &b] {
        let found = list(device);
        assert_eq!(found.len(), 1, "{found:?}");
        let one = &found[0];
        assert_eq!(one["path"], copy.as_str());
        assert_eq!(one["original"], "plan.txt");
        assert_eq!(one["size"], 6);
        assert_eq!(one["time"], "2023-11-14T22:13:20Z");
        assert_eq!(one["original_size"], 13);
        assert_eq!(one["original_time"], "2023-11-14T22:15:00Z");
        assert_eq!(one["digest"].as_str().expect("hex").len(), 64);
        assert!(copy.contains(&one["digest"].as_str().expect("hex")[..8]));
        assert_eq!(
            (&one["device"], &one["original_device"]),
            (&"laptop".into(), &"desktop".into())
        );
        let shown = device.ok(["conflicts"]);
        assert!(
            shown.contains(&copy) && shown.contains("plan.txt  (13 B"),
            "{shown}"
        );
        assert!(
            shown.contains("on laptop") && shown.contains("on desktop"),
            "{shown}"
        );
    }
    fs::remove_file(a.path(&copy)).unwrap();
    assert_converged(&[&a, &b]);
    assert!(list(&b).is_empty());
    assert_eq!(b.ok(["conflicts"]), "no conflicts\n");
}

#[test]
fn keeping_the_original_takes_the_copy_away() {
    let (_lab, a, b, copy) = edited_twice("dir/plan.txt");
    let said = b.ok(["resolve", &format!("docs/{copy}"), "--keep", "original"]);
    assert!(said.contains("stays"), "{said}");
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.path("dir")), ["plan.txt"]);
    assert_eq!(text(a.path("dir/plan.txt")), "the desktop's");
    assert_eq!(b.field("conflicts"), 0);
}

#[test]
fn keeping_the_copy_gives_it_the_name() {
    let (_lab, a, b, _) = edited_twice("plan.txt");
    // Named by the original, which has one copy only.
    let original = a.path("plan.txt");
    let said = a.ok([
        std::ffi::OsStr::new("resolve"),
        original.as_os_str(),
        std::ffi::OsStr::new("--keep"),
        std::ffi::OsStr::new("copy"),
    ]);
    assert!(said.contains(".alike/objects"), "{said}");
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder), ["plan.txt"]);
    assert_eq!(text(b.path("plan.txt")), "laptop");
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn keeping_both_makes_the_copy_a_file_like_any_other() {
    let (_lab, a, b, copy) = edited_twice("plan.txt");
    a.ok(["resolve", &format!("docs/{copy}"), "--keep", "both"]);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder), [copy.as_str(), "plan.txt"]);
    for device in [&a, &b] {
        assert_eq!(device.field("conflicts"), 0);
        assert!(list(device).is_empty());
    }
    // It is edited and deleted like one.
    write(b.path(&copy), "edited");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path(&copy)), "edited");
    fs::remove_file(a.path(&copy)).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder), ["plan.txt"]);
}

#[test]
fn a_copy_whose_original_is_a_directory_or_gone_or_a_link() {
    let (_lab, a, b) = apart(
        |dir| write(dir.join("x"), "base"),
        |a| {
            fs::remove_file(a.path("x")).unwrap();
            write(a.path("x/inside"), "in a directory");
            symlink("there", a.path("link")).unwrap();
        },
        |b| {
            write(b.path("x"), "the edit");
            write(b.path("link"), "not a link");
        },
    );
    let copy = conflict_name("x", b"the edit");
    b.fails(
        ["resolve", &format!("docs/{copy}"), "--keep", "copy"],
        1,
        &["is a directory", "--keep both"],
    );
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path(&copy)), "the edit");
    // The directory goes: the copy takes the name.
    fs::remove_dir_all(a.path("x")).unwrap();
    assert_converged(&[&a, &b]);
    b.ok(["resolve", &format!("docs/{copy}"), "--keep", "copy"]);
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("x")), "the edit");
    // A link against a file, either of which may be the original.
    a.ok(["resolve", "docs/link", "--keep", "copy"]);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["link", "x"]);
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn what_is_no_copy_is_refused() {
    let (_lab, a, _b, copy) = edited_twice("plan.txt");
    write(a.path("other"), "x");
    a.fails(
        ["resolve", "docs/other", "--keep", "both"],
        1,
        &["no conflict copy"],
    );
    a.fails(["resolve", "/etc/passwd", "--keep", "both"], 1, &["in no folder"]);
    a.fails(["resolve", &format!("docs/{copy}")], 2, &["--keep"]);
    a.fails(["resolve", "docs/plan.txt", "--keep", "none"], 2, &["original"]);
    assert_eq!(list(&a).len(), 1);
}
