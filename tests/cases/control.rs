//! Pausing, unpairing, forgetting: what stops, and that no file is touched by it.

use std::fs;

use crate::harness::*;

/// Returns when the engine has seen its own disk, without asking what others have.
#[track_caller]
fn scanned(device: &Device) {
    eventually("the engine has seen its own disk", LONG, || {
        device.field("root") == device.hash().as_str()
    });
}

#[test]
fn a_paused_folder_waits_and_a_resumed_one_catches_up() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "x"));
    a.ok(["pause"]);
    assert_eq!(a.field("state"), "paused");
    write(a.path("from a"), "a");
    write(b.path("from b"), "b");
    scanned(&b);
    assert_eq!(names(&a.folder), ["file", "from a"]);
    assert_eq!(names(&b.folder), ["file", "from b"]);
    a.ok(["resume"]);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["file", "from a", "from b"]);
    assert_eq!(a.field("state"), "idle");
}

#[test]
fn a_pause_survives_a_restart() {
    let (_lab, mut a, b) = paired(|dir| write(dir.join("file"), "x"));
    a.ok(["pause", "docs"]);
    a.restart();
    assert_eq!(a.field("state"), "paused");
    write(b.path("file"), "edited");
    scanned(&b);
    assert_eq!(text(a.path("file")), "x");
    a.ok(["resume", "docs"]);
    assert_converged(&[&a, &b]);
}

#[test]
fn an_unpaired_device_gets_nothing_more() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "x"));
    assert!(a.ok(["devices"]).contains("desktop"));
    a.ok(["unpair", "desktop"]);
    assert!(!a.ok(["devices"]).contains("desktop"));
    assert_eq!(a.field("peers"), serde_json::json!([]));
    eventually("the connection is closed", LONG, || {
        let peers = b.field("peers");
        peers
            .as_array()
            .expect("a list")
            .iter()
            .all(|p| p["connected"] == false)
    });
    write(a.path("file"), "not for the desktop");
    write(b.path("mine"), "not for the laptop");
    scanned(&a);
    scanned(&b);
    assert_eq!(text(b.path("file")), "x");
    assert_eq!(names(&a.folder), ["file"]);
    b.fails(["wait", "--timeout", "500ms"], 3, &[]);
}

#[test]
fn an_unpaired_device_stays_out_after_restarts_and_comes_back_by_a_ticket() {
    let (_lab, mut a, mut b) = paired(|dir| write(dir.join("file"), "x"));
    a.ok(["unpair", "desktop"]);
    a.restart();
    b.restart();
    write(a.path("file"), "y");
    scanned(&a);
    b.fails(["wait", "--timeout", "1s"], 3, &[]);
    assert_eq!(text(b.path("file")), "x");
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("file")), "y");
    assert_eq!(names(&b.folder), ["file"], "what was synced once is no conflict");
}

#[test]
fn forgetting_leaves_every_file_on_both_sides() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("file"), "x");
        write(dir.join("dir/file"), "y");
    });
    let before = snapshot(&a.folder);
    a.ok(["forget", "docs"]);
    assert_eq!(a.status()["folders"], serde_json::json!([]));
    write(a.path("file"), "mine alone");
    fs::remove_dir_all(a.path("dir")).unwrap();
    write(b.path("new"), "yours alone");
    scanned(&b);
    assert!(!a.path("new").exists());
    fs::remove_file(b.path("new")).unwrap();
    assert_eq!(snapshot(&b.folder), before);
}
