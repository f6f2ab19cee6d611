//! Engines that stop, die and come back, with changes made meanwhile. Never changes the same path on both sides.

use std::fs;
use std::path::Path;

use crate::harness::*;

fn some_files(dir: &Path) {
    for n in 0..8 {
        write(dir.join(format!("dir/{n}")), format!("{n}"));
    }
}

/// A change of every kind, made while the engine of the device may be down.
fn change(device: &Device, tag: &str) {
    write(device.path(format!("new {tag}")), tag);
    write(device.path(format!("made {tag}/file")), tag);
    append(device.path("dir/0"), tag);
    fs::remove_file(device.path("dir/1")).unwrap();
    fs::rename(device.path("dir/2"), device.path(format!("moved {tag}"))).unwrap();
    set_mode(device.path("dir/3"), 0o755);
}

#[test]
fn the_sharing_side_restarts() {
    let (_lab, mut a, b) = paired(some_files);
    a.restart();
    change(&b, "b");
    write(a.path("from a"), "a");
    assert_converged(&[&a, &b]);
    assert!(a.path("moved b").exists());
}

#[test]
fn the_pairing_side_restarts() {
    let (_lab, a, mut b) = paired(some_files);
    b.restart();
    change(&a, "a");
    write(b.path("from b"), "b");
    assert_converged(&[&a, &b]);
    assert!(b.path("moved a").exists());
}

#[test]
fn both_sides_restart() {
    let (_lab, mut a, mut b) = paired(some_files);
    a.stop();
    b.stop();
    b.start();
    a.start();
    change(&a, "a");
    assert_converged(&[&a, &b]);
}

#[test]
fn changes_made_while_this_engine_was_down_are_picked_up() {
    let (_lab, mut a, b) = paired(some_files);
    a.stop();
    change(&a, "a");
    let wanted = snapshot(&a.folder);
    a.start();
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&b.folder), wanted);
}

#[test]
fn changes_made_while_the_other_engine_was_down_arrive() {
    let (_lab, a, mut b) = paired(some_files);
    b.stop();
    change(&a, "a");
    let wanted = snapshot(&a.folder);
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&b.folder), wanted);
}

#[test]
fn an_edit_that_keeps_size_and_time_is_seen_after_a_restart() {
    let (_lab, mut a, b) = paired(|dir| write(dir.join("file"), "aaaa"));
    let time = fs::metadata(a.path("file")).unwrap().modified().unwrap();
    a.stop();
    write(a.path("file"), "bbbb");
    fs::File::options()
        .write(true)
        .open(a.path("file"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    a.start();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("file")), "bbbb");
}

#[test]
fn killed_engines_lose_nothing() {
    let (_lab, mut a, mut b) = paired(some_files);
    a.kill();
    change(&a, "a");
    a.start();
    assert_converged(&[&a, &b]);
    b.kill();
    write(b.path("dir/4"), "edited while dead");
    write(a.path("dir/5"), "edited meanwhile");
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("dir/4")), "edited while dead");
    assert_eq!(text(b.path("dir/5")), "edited meanwhile");
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn a_side_killed_in_the_middle_of_a_first_sync_finishes_later() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.running("laptop"), lab.running("desktop"));
    for n in 0..1500 {
        write(a.path(format!("{}/{n}", n % 40)), format!("file {n}"));
    }
    write(a.path("large"), noise("interrupted", 16 << 20));
    let before = snapshot(&a.folder);
    pair(&a, &b);
    eventually("something arrived", LONG, || {
        fs::read_dir(&b.folder).is_ok_and(|mut dir| dir.any(|e| e.is_ok_and(|e| e.file_name() != ".alike")))
    });
    b.kill();
    b.start();
    a.kill();
    a.start();
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&a.folder), before, "the source is what it was");
    assert_eq!(b.field("conflicts"), 0);
}

#[test]
fn a_restart_is_no_change() {
    let (_lab, mut a, b) = paired(|dir| write(dir.join("x"), "x"));
    write(b.path("y"), "y");
    assert_converged(&[&a, &b]);
    let generation = a.field("generation");
    a.restart();
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("generation"), generation);
}

#[test]
fn a_save_that_is_not_durable_is_not_sent() {
    let lab = Lab::new();
    let (mut a, b) = (lab.fallible("laptop"), lab.running("desktop"));
    fs::create_dir(&a.folder).unwrap();
    some_files(&a.folder);
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    a.stop();
    a.launch("commit.sync=errors");
    write(a.path("new"), "saved");
    fs::remove_file(a.path("dir/1")).unwrap();
    eventually("said", LONG, || {
        a.cmd(["status", "--json"])
            .stdout
            .contains("cannot be made durable")
    });
    a.fails(["wait", "--timeout", "1s"], 3, &[]);
    assert!(!b.path("new").exists() && b.path("dir/1").exists());
    a.stop();
    a.launch("commit.sync=error@1");
    eventually("it goes on by itself", LONG, || {
        b.path("new").exists() && !b.path("dir/1").exists()
    });
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("problems").to_string(), "[]");
}

/// A disk that fails once, before or after the moves of an apply: nothing is recorded that is not so, and the engine finds out
/// and goes on by itself.
#[test]
fn what_could_not_be_made_durable_is_found_out_and_done_again() {
    for point in ["apply.sync", "apply.moved"] {
        let lab = Lab::new();
        let (a, mut b) = (lab.running("laptop"), lab.fallible("desktop"));
        write(a.path("old"), "old");
        b.start();
        pair(&a, &b);
        assert_converged(&[&a, &b]);
        b.stop();
        write(a.path("old"), "newer");
        write(a.path("new"), "new");
        b.launch(&format!("{point}=error@1"));
        eventually("it arrives all the same", LONG, || {
            b.path("new").exists() && text(b.path("old")) == "newer"
        });
        assert_converged(&[&a, &b]);
        assert!(b.log_tail().contains("durable"), "{point}: {}", b.log_tail());
        assert_eq!(b.field("problems"), serde_json::json!([]));
    }
}

/// Found by the soak: what the user had overwritten himself stayed in the folder's state as the loser of a conflict, and all
/// devices waited for its bytes for ever.
#[test]
fn what_its_user_overwrites_or_removes_after_a_crash_before_the_move_is_replaced() {
    let lab = Lab::new();
    let (a, mut b) = (lab.running("laptop"), lab.fallible("desktop"));
    for name in ["edited", "removed"] {
        write(a.path(name), format!("{name}: first"));
    }
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    b.stop();
    for name in ["edited", "removed"] {
        set_mode(a.path(name), 0o755);
    }
    eventually("committed", LONG, || a.field("root") == a.hash().as_str());
    b.launch("apply.intended=kill");
    eventually("it falls", LONG, || b.fell());
    write(b.path("edited"), "edited after the crash");
    fs::remove_file(b.path("removed")).unwrap();
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(
        names(&a.folder),
        ["edited"],
        "the old version is no conflict, and does not come back"
    );
    assert_eq!(text(a.path("edited")), "edited after the crash");
}
