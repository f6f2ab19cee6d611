//! A path changes its kind: file, directory, symlink, in all six directions. Never changes anything else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::*;

#[derive(Clone, Copy)]
enum Kind {
    File,
    Dir,
    Link,
}

use Kind::{Dir, File, Link};

fn make(path: &Path, kind: Kind, content: &str) {
    match kind {
        File => write(path, content),
        Dir => write(path.join("inside/file"), content),
        Link => symlink(content, path).unwrap(),
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Changes the path on one side, then back on the other.
fn change(from: Kind, to: Kind) {
    let (_lab, a, b) = paired(|dir| {
        make(&dir.join("path"), from, "before");
        write(dir.join("stays"), "x");
    });
    remove(&a.path("path"));
    make(&a.path("path"), to, "after");
    let wanted = snapshot(&a.folder);
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&b.folder), wanted);

    remove(&b.path("path"));
    make(&b.path("path"), from, "and back");
    let wanted = snapshot(&b.folder);
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&a.folder), wanted);
    assert_eq!(a.field("conflicts"), 0);
}

/// Replaces a directory of many files while this engine is down: the other side must follow, not object.
fn replace_a_full_directory(to: Kind) {
    let (_lab, mut a, b) = paired(|dir| {
        for n in 0..600 {
            write(dir.join(format!("d/{n}")), format!("file {n}"));
            // Those in the way of a mass removal: half and more of the folder stays.
            write(dir.join(format!("rest/{n}")), format!("rest {n}"));
        }
    });
    assert_eq!(fs::read_dir(b.path("d")).unwrap().count(), 600);
    a.stop();
    remove(&a.path("d"));
    make(&a.path("d"), to, "in its place");
    let wanted = snapshot(&a.folder);
    a.start();
    assert_converged(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(snapshot(&device.folder), wanted, "on {}", device.name);
        assert_eq!(device.field("conflicts"), 0, "on {}", device.name);
    }
}

#[test]
fn a_directory_of_many_files_becomes_a_file_while_the_engine_is_down() {
    replace_a_full_directory(File);
}

#[test]
fn a_directory_of_many_files_becomes_a_symlink_while_the_engine_is_down() {
    replace_a_full_directory(Link);
}

#[test]
fn a_file_becomes_a_directory_and_a_directory_a_file() {
    change(File, Dir);
}

#[test]
fn a_file_becomes_a_symlink_and_a_symlink_a_file() {
    change(File, Link);
}

#[test]
fn a_directory_becomes_a_symlink_and_a_symlink_a_directory() {
    change(Dir, Link);
}

#[test]
fn a_symlink_points_elsewhere() {
    let (_lab, a, b) = paired(|dir| symlink("here", dir.join("path")).unwrap());
    remove(&a.path("path"));
    symlink("there", a.path("path")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(fs::read_link(b.path("path")).unwrap(), Path::new("there"));
}
