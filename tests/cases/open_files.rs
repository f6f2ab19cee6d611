//! A program holds a file open for writing while another device's version of it arrives: what it writes goes where
//! the file is, so the file stays at its path until it is closed. Nothing that was written is lost.

use std::fs;
use std::io::Write;

use crate::harness::*;

fn some_files(dir: &std::path::Path) {
    for n in 0..5 {
        write(dir.join(format!("log {n}")), format!("base {n}\n"));
    }
}

fn open(device: &Device, name: &str) -> fs::File {
    fs::File::options().append(true).open(device.path(name)).unwrap()
}

/// Says so, and shows in `status` which one.
#[track_caller]
fn waits_for(device: &Device, name: &str) {
    eventually("it is said", LONG, || {
        let problems = device.field("problems").to_string();
        problems.contains("open for writing") && problems.contains(name)
    });
}

/// All that lies below the folder at names that begin with `name`, sorted.
fn versions(device: &Device, name: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(&device.folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| text(entry.path()))
        .collect();
    found.sort();
    found
}

#[test]
fn what_is_written_to_an_open_file_stays_at_its_path() {
    let (_lab, a, b) = paired(some_files);
    let mut log = open(&b, "log 0");
    write(a.path("log 0"), "from afar\n");
    waits_for(&b, "log 0");
    b.fails(["wait", "--timeout", "1s"], 3, &["log 0", "open for writing"]);
    // Everything else goes on.
    write(a.path("log 1"), "also from afar\n");
    write(a.path("new"), "new");
    eventually("others arrive", LONG, || {
        b.path("new").exists() && text(b.path("log 1")) == "also from afar\n"
    });
    log.write_all(b"written meanwhile\n").unwrap();
    assert_eq!(text(b.path("log 0")), "base 0\nwritten meanwhile\n");
    drop(log);
    assert_converged(&[&a, &b]);
    let mut wanted = ["base 0\nwritten meanwhile\n", "from afar\n"].map(str::to_owned);
    wanted.sort();
    assert_eq!(versions(&a, "log 0"), wanted);
    assert_eq!(b.field("problems").to_string(), "[]");
}

#[test]
fn a_file_that_is_closed_unchanged_is_replaced_and_removed_then() {
    let (_lab, a, b) = paired(some_files);
    let held: Vec<fs::File> = (0..3).map(|n| open(&b, &format!("log {n}"))).collect();
    write(a.path("log 0"), "from afar\n");
    fs::remove_file(a.path("log 1")).unwrap();
    fs::remove_file(a.path("log 2")).unwrap();
    write(a.path("log 2/now a directory"), "x");
    for n in 0..3 {
        waits_for(&b, &format!("log {n}"));
        assert_eq!(text(b.path(format!("log {n}"))), format!("base {n}\n"));
    }
    drop(held);
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("log 0")), "from afar\n");
    assert!(!b.path("log 1").exists());
    assert!(b.path("log 2/now a directory").exists());
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn what_is_written_to_an_open_file_outlives_its_removal_elsewhere() {
    let (_lab, a, b) = paired(some_files);
    let mut log = open(&b, "log 0");
    fs::remove_file(a.path("log 0")).unwrap();
    waits_for(&b, "log 0");
    log.write_all(b"written meanwhile\n").unwrap();
    drop(log);
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("log 0")), "base 0\nwritten meanwhile\n");
}

/// Opened after the look, before the move: what came out of the exchange goes back.
#[test]
fn a_file_that_is_opened_in_the_last_moment_is_left_alone() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
    fs::create_dir(&a.folder).unwrap();
    some_files(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    for (n, point, dies) in [
        (0, "move.exchange", ""),
        (1, "move.exchange", ";move.open=kill"),
        (2, "move.exchanged", ""),
        (3, "move.remove", ""),
    ] {
        let name = format!("log {n}");
        b.kill();
        if point == "move.remove" {
            fs::remove_file(a.path(&name)).unwrap();
        } else {
            write(a.path(&name), format!("from afar {n}\n"));
        }
        let hold = Hold::new(&b);
        // At the exchange's end the path means the new version: nobody is in the way of anything.
        let is_late = point == "move.exchanged";
        b.launch(&format!("{point}={}{dies}", hold.action(1)));
        hold.reached(point);
        let mut log = open(&b, &name);
        hold.release();
        if !dies.is_empty() {
            eventually("it falls", LONG, || b.fell());
            b.start();
        }
        if !is_late && dies.is_empty() {
            waits_for(&b, &name);
        }
        log.write_all(b"written meanwhile\n").unwrap();
        let there = text(b.path(&name));
        assert!(there.ends_with("written meanwhile\n"), "{point}{dies}: {there}");
        drop(log);
        assert_converged(&[&a, &b]);
        let found = versions(&a, &name).concat();
        assert!(found.contains("written meanwhile\n"), "{point}{dies}: {found}");
    }
}

/// As `tail -f` and backups do.
#[test]
fn readers_are_in_nobody_s_way() {
    let (_lab, a, b) = paired(some_files);
    let reader = fs::File::open(b.path("log 0")).unwrap();
    write(a.path("log 0"), "from afar\n");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("log 0")), "from afar\n");
    drop(reader);
}
