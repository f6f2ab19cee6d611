//! `sync wait`: what it promises to scripts. Never looks at anything but its exit code and the other side's disk.

use std::fs;

use crate::harness::*;

#[test]
fn wait_returns_only_when_the_change_is_on_the_other_side() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "start"));
    for round in 0..20 {
        let (here, there) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let content = format!("round {round}");
        write(here.path("file"), &content);
        write(here.path(format!("new/{round}")), &content);
        here.wait_in_sync();
        assert_eq!(text(there.path("file")), content, "round {round}");
        assert_same_tree(&here.folder, &there.folder);
    }
}

#[test]
fn wait_covers_deletions_and_modes_too() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..8 {
            write(dir.join(format!("{n}")), format!("{n}"));
        }
    });
    for n in 0..4 {
        fs::remove_file(a.path(format!("{n}"))).unwrap();
        set_mode(a.path("7"), if n % 2 == 0 { 0o755 } else { 0o644 });
        a.wait_in_sync();
        assert_same_tree(&a.folder, &b.folder);
    }
}

#[test]
fn wait_times_out_with_3_when_nobody_is_connected() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    write(a.path("file"), "x");
    a.share();
    a.fails(["wait", "--timeout", "500ms"], 3, &[]);
}

#[test]
fn wait_times_out_with_3_when_the_peer_has_gone() {
    let (_lab, a, mut b) = paired(|dir| write(dir.join("file"), "x"));
    b.stop();
    eventually("the laptop sees that the desktop has gone", LONG, || {
        a.field("peers")[0]["connected"] == false
    });
    a.fails(["wait", "--timeout", "500ms"], 3, &[]);
    b.start();
    a.ok(["wait", "--timeout", "60s"]);
}

#[test]
fn wait_returns_at_once_when_there_is_nothing_to_do() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "x"));
    a.ok(["wait", "docs", "--timeout", "10s"]);
    b.ok([
        "wait",
        b.folder.to_str().expect("test paths are UTF-8"),
        "--timeout",
        "10s",
    ]);
}

#[test]
fn wait_counts_what_was_just_saved_on_the_other_side() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "0"));
    for n in 1..=20 {
        write(b.path("file"), n.to_string());
        a.wait_in_sync();
        assert_eq!(text(a.path("file")), n.to_string());
    }
}

#[test]
fn wait_does_not_wait_for_who_has_forgotten_the_folder() {
    let lab = Lab::new();
    let (a, b, c) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("server"),
    );
    write(a.path("file"), "x");
    pair(&a, &b);
    pair(&a, &c);
    assert_converged(&[&a, &b, &c]);
    b.ok(["forget", b.folder.to_str().unwrap()]);
    write(a.path("file"), "y");
    assert_converged(&[&a, &c]);
}
