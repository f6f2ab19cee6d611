//! Things that must never happen: an unmounted folder empties the others, a symlink leads outside.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::*;

#[test]
fn a_folder_that_is_gone_is_frozen_and_the_other_side_loses_nothing() {
    let (_lab, a, mut b) = paired(|dir| {
        for n in 0..5 {
            write(dir.join(format!("dir/{n}")), format!("{n}"));
        }
    });
    let before = snapshot(&a.folder);
    let away = b.corner.join("away");
    b.stop();
    fs::rename(&b.folder, &away).unwrap();
    b.start();
    eventually("the folder is frozen", LONG, || b.field("state") == "frozen");
    assert!(!b.folder.exists(), "it is not made again");
    assert_eq!(snapshot(&a.folder), before);
    // Mounted again, but empty: as an automounter may show it.
    fs::create_dir(&b.folder).unwrap();
    b.restart();
    assert_eq!(b.field("state"), "frozen");
    write(a.path("meanwhile"), "edited alone");
    eventually("the laptop goes on", LONG, || {
        a.field("root") == a.hash().as_str()
    });
    assert_eq!(
        fs::read_dir(&b.folder).unwrap().count(),
        0,
        "nothing is written into what is not the folder"
    );
    assert_eq!(names(&a.folder).len(), before.len() + 1);

    b.stop();
    fs::remove_dir(&b.folder).unwrap();
    fs::rename(&away, &b.folder).unwrap();
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("meanwhile")), "edited alone");
}

#[test]
fn a_folder_that_disappears_under_a_running_engine_is_frozen() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..5 {
            write(dir.join(format!("{n}")), format!("{n}"));
        }
    });
    let before = snapshot(&a.folder);
    fs::rename(&b.folder, b.corner.join("away")).unwrap();
    // Not a promise that it is seen by itself: a change that arrives makes it look.
    write(a.path("0"), "edited");
    eventually("the folder is frozen", LONG, || b.field("state") == "frozen");
    assert!(!b.folder.exists(), "it is not made again");
    assert_eq!(snapshot(&a.folder).len(), before.len());
}

#[test]
fn a_symlink_to_a_directory_outside_is_only_a_symlink() {
    let (lab, a, b) = paired(|dir| write(dir.join("file"), "x"));
    let outside = lab.path("outside");
    write(outside.join("victim"), "untouched");
    let before = (snapshot(&outside), inodes(&outside));

    symlink(&outside, a.path("way out")).unwrap();
    assert_converged(&[&a, &b]);
    let link = Node::Link(outside.to_str().expect("test paths are UTF-8").into());
    assert_eq!(snapshot(&b.folder)[b"way out".as_slice()], link);

    // A directory takes its place: what is in it must not go through the link.
    fs::remove_file(a.path("way out")).unwrap();
    write(a.path("way out/victim"), "in the folder");
    write(a.path("way out/new"), "in the folder");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("way out/victim")), "in the folder");

    // And back: what goes away is in the folder, not outside.
    fs::remove_dir_all(b.path("way out")).unwrap();
    symlink(&outside, b.path("way out")).unwrap();
    assert_converged(&[&b, &a]);
    assert_eq!((snapshot(&outside), inodes(&outside)), before);
}

#[test]
fn a_directory_swapped_for_a_symlink_while_apart_leads_nothing_outside() {
    let (lab, a, mut b) = paired(|dir| {
        write(dir.join("dir/file"), "base");
        write(dir.join("stays"), "x");
    });
    let outside = lab.path("outside");
    write(outside.join("file"), "untouched");
    let before = (snapshot(&outside), inodes(&outside));
    b.stop();
    fs::remove_dir_all(b.path("dir")).unwrap();
    symlink(&outside, b.path("dir")).unwrap();
    write(a.path("dir/file"), "edited");
    write(a.path("dir/new"), "new");
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!((snapshot(&outside), inodes(&outside)), before);
    assert_eq!(text(a.path("dir/file")), "edited", "the edit is not lost");
}
