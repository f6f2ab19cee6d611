//! Pairing folders that are not empty: equal ones cost nothing, different ones lose nothing.

use std::fs;
use std::path::Path;

use crate::harness::*;

#[test]
fn equal_folders_transfer_no_content() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    for dir in [&a.folder, &b.folder] {
        write(dir.join("large"), noise("large", 20 << 20));
        for n in 0..100 {
            write(
                dir.join(format!("{}/{n}", n % 7)),
                noise(&n.to_string(), 100 << 10),
            );
        }
        write(dir.join("empty"), "");
    }
    let (inodes_a, inodes_b) = (inodes(&a.folder), inodes(&b.folder));
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    for device in [&a, &b] {
        let status = device.folder_status();
        assert_eq!(status["received_bytes"], 0, "on {}", device.name);
        assert_eq!(status["sent_bytes"], 0, "on {}", device.name);
        assert_eq!(status["conflicts"], 0, "on {}", device.name);
    }
    assert_eq!(inodes(&a.folder), inodes_a, "nothing was written anew");
    assert_eq!(inodes(&b.folder), inodes_b, "nothing was written anew");
}

#[test]
fn content_that_is_sent_is_counted() {
    // Without this, the zeros above would show nothing.
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), noise("counted", 1 << 20)));
    assert!(
        a.field("sent_bytes").as_u64() >= Some(1 << 20),
        "{}",
        a.field("sent_bytes")
    );
    assert!(
        b.field("received_bytes").as_u64() >= Some(1 << 20),
        "{}",
        b.field("received_bytes")
    );
    assert_eq!(a.field("received_bytes"), 0);
}

/// Files that arrived before their directory was made were thrown away, and came again.
#[test]
fn content_in_new_directories_comes_once() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..600 {
            let to = format!("d{}/in {}/file {n}", n % 10, n % 60);
            write(dir.join(to), noise(&format!("{n}"), 3_000));
        }
    });
    let all = 600 * 3_000;
    for bytes in [a.field("sent_bytes"), b.field("received_bytes")] {
        let bytes = bytes.as_u64().unwrap();
        assert!((all..all + all / 10).contains(&bytes), "{bytes} of {all}");
    }
}

#[test]
fn different_folders_become_their_union_and_nothing_is_lost() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    write(a.path("only a"), "1");
    write(a.path("both.txt"), "content of a");
    write(a.path("same"), "equal");
    write(a.path("dir/a"), "2");
    write(a.path("clash"), "a file on a");
    write(b.path("only b"), "3");
    write(b.path("both.txt"), "content of b");
    write(b.path("same"), "equal");
    write(b.path("dir/b"), "4");
    write(b.path("clash/inside"), "a directory on b");
    pair(&a, &b);
    assert_converged(&[&a, &b]);

    let loser = if text(a.path("both.txt")) == "content of a" {
        "content of b"
    } else {
        "content of a"
    };
    let copy = conflict_name("both.txt", loser.as_bytes());
    let clash = conflict_name("clash", b"a file on a");
    let mut wanted = [
        "both.txt",
        &copy,
        "clash",
        &clash,
        "clash/inside",
        "dir",
        "dir/a",
        "dir/b",
        "only a",
        "only b",
        "same",
    ];
    wanted.sort();
    assert_eq!(names(&a.folder), wanted);
    assert_eq!(text(b.path(&copy)), loser);
    assert_eq!(text(b.path(&clash)), "a file on a");
    assert_eq!((a.field("conflicts"), b.field("conflicts")), (2.into(), 2.into()));
}

#[test]
fn an_empty_folder_empties_nothing() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    fs::create_dir(&a.folder).unwrap();
    for n in 0..20 {
        write(b.path(format!("{n}")), format!("{n}"));
    }
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder).len(), 20);
}

#[test]
fn a_forgotten_folder_paired_again_is_the_same() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), noise("again", 1 << 20)));
    let folder = |d: &Device| {
        d.folder
            .to_str()
            .map(str::to_owned)
            .expect("test paths are UTF-8")
    };
    b.ok(["forget", &folder(&b)]);
    a.ok(["forget", &folder(&a)]);
    write(b.path("meanwhile"), "edited alone");
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["file", "meanwhile"]);
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn two_folders_stay_apart() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    for name in ["red", "blue"] {
        write(a.corner.join(name).join("file"), name);
        let ticket = a.ok([Path::new("share"), &a.corner.join(name)]);
        b.ok([Path::new("pair"), Path::new(ticket.trim()), &b.corner.join(name)]);
    }
    write(b.corner.join("blue/new"), "only blue");
    for name in ["red", "blue"] {
        b.ok(["wait", name]);
        a.ok(["wait", name]);
        assert_same_tree(&a.corner.join(name), &b.corner.join(name));
    }
    assert_eq!(names(&a.corner.join("red")), ["file"]);
    assert_eq!(names(&a.corner.join("blue")), ["file", "new"]);
}
