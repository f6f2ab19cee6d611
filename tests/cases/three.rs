//! Three devices in a line: the ends learn from each other through the middle.

use std::ffi::OsStr;
use std::fs;

use crate::harness::*;

/// `a` shared with `b`, `b` with `c`.
fn line() -> (Lab, Device, Device, Device) {
    let (lab, a, b) = paired(|dir| {
        write(dir.join("file"), "base");
        write(dir.join("stays"), "x");
    });
    let c = lab.running("server");
    pair(&b, &c);
    assert_converged(&[&a, &b, &c]);
    (lab, a, b, c)
}

#[test]
fn changes_go_from_end_to_end() {
    let (_lab, a, b, c) = line();
    write(a.path("from a"), "a");
    fs::remove_file(a.path("file")).unwrap();
    assert_converged(&[&a, &b, &c]);
    assert_eq!(names(&c.folder), ["from a", "stays"]);
    write(c.path("from c/file"), "c");
    assert_converged(&[&c, &b, &a]);
    assert_eq!(text(a.path("from c/file")), "c");
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn the_ends_meet_through_the_middle_only() {
    // The ends are never up at the same time.
    let (_lab, mut a, b, mut c) = line();
    c.stop();
    write(a.path("file"), "edited on a");
    assert_converged(&[&a, &b]);
    a.stop();
    c.start();
    assert_converged(&[&b, &c]);
    assert_eq!(text(c.path("file")), "edited on a");
    write(c.path("file"), "edited on c");
    assert_converged(&[&c, &b]);
    c.stop();
    a.start();
    assert_converged(&[&b, &a]);
    assert_eq!(text(a.path("file")), "edited on c");
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn a_conflict_has_the_same_copy_on_all_three() {
    let (_lab, mut a, b, mut c) = line();
    a.stop();
    c.stop();
    write(a.path("file"), "from a");
    write(c.path("file"), "from c");
    a.start();
    c.start();
    assert_converged(&[&a, &b, &c]);
    let copies: Vec<_> = names(&b.folder)
        .into_iter()
        .filter(|n| n.contains("(conflict "))
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    for device in [&a, &b, &c] {
        assert_eq!(device.field("conflicts"), 1, "on {}", device.name);
    }
    fs::remove_file(b.path(&copies[0])).unwrap();
    assert_converged(&[&b, &a, &c]);
    assert_eq!(names(&c.folder), ["file", "stays"]);
}

#[test]
fn one_ticket_for_two_devices() {
    let lab = Lab::new();
    let (a, b, c) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("server"),
    );
    write(a.path("file"), "x");
    let ticket = a.share_with(&["--uses", "2"]);
    b.ok(b.pair_args(&ticket));
    c.ok(c.pair_args(&ticket));
    assert_converged(&[&a, &b, &c]);
    let late = lab.running("late");
    late.fails([OsStr::new("pair"), OsStr::new(&ticket)], 1, &["ticket"]);
}
