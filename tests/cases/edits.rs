//! Changes while both sides run, one kind a test. Each waits by `sync wait`; `watching` shows that it needs none.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use crate::harness::*;

#[test]
fn edits_go_both_ways() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("one"), "1");
        write(dir.join("two"), "2");
    });
    write(a.path("one"), "edited on the laptop");
    write(b.path("two"), "edited on the desktop");
    write(b.path("three"), "new on the desktop");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("one")), "edited on the laptop");
    assert_eq!(text(a.path("two")), "edited on the desktop");
    assert_eq!(text(a.path("three")), "new on the desktop");
    write(b.path("one"), "and back");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("one")), "and back");
}

#[test]
fn a_deleted_file_goes_on_both_sides() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("gone"), "1");
        write(dir.join("gone too"), "2");
        write(dir.join("stays"), "3");
    });
    fs::remove_file(a.path("gone")).unwrap();
    assert_converged(&[&a, &b]);
    fs::remove_file(b.path("gone too")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["stays"]);
}

#[test]
fn a_deleted_and_recreated_file_is_the_new_one() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("file"), "first");
        write(dir.join("stays"), "x");
    });
    fs::remove_file(a.path("file")).unwrap();
    assert_converged(&[&a, &b]);
    write(b.path("file"), "first");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("file")), "first");
}

#[test]
fn a_renamed_file_is_renamed() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("old name"), "content");
        write(dir.join("stays"), "x");
    });
    fs::create_dir(a.path("sub")).unwrap();
    fs::rename(a.path("old name"), a.path("sub/new name")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder), ["stays", "sub", "sub/new name"]);
    assert_eq!(text(b.path("sub/new name")), "content");
}

#[test]
fn a_renamed_directory_is_renamed_and_nothing_is_held() {
    // Nearly everything moves: that is no mass deletion.
    let (_lab, a, b) = paired(|dir| {
        for n in 0..30 {
            write(dir.join(format!("photos/2024/{n}.jpg")), format!("picture {n}"));
        }
        write(dir.join("stays"), "x");
    });
    let before = inodes(&b.path("photos/2024"));
    fs::rename(a.path("photos"), a.path("pictures")).unwrap();
    assert_converged(&[&a, &b]);
    assert!(!b.path("photos").exists());
    assert_eq!(text(b.path("pictures/2024/7.jpg")), "picture 7");
    assert_eq!(
        inodes(&b.path("pictures/2024")),
        before,
        "the files themselves have moved, nothing was copied"
    );
    // Edits in a moved directory are seen.
    write(b.path("pictures/2024/7.jpg"), "retouched");
    write(a.path("pictures/2024/new.jpg"), "new");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("pictures/2024/7.jpg")), "retouched");
}

#[test]
fn a_deleted_tree_goes_on_both_sides() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..4 {
            write(dir.join(format!("gone/a/{n}")), format!("{n}"));
            write(dir.join(format!("stays/{n}")), format!("{n}"));
        }
        fs::create_dir_all(dir.join("gone/empty/er")).unwrap();
    });
    fs::remove_dir_all(a.path("gone")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(
        names(&b.folder),
        ["stays", "stays/0", "stays/1", "stays/2", "stays/3"]
    );
}

#[test]
fn the_executable_bit_alone_is_a_change_and_so_is_its_removal() {
    let (_lab, a, b) = paired(|dir| write(dir.join("run.sh"), "#!/bin/sh\n"));
    let exec = |dir: &PathBuf| snapshot(dir)[b"run.sh".as_slice()].clone();
    set_mode(a.path("run.sh"), 0o755);
    assert_converged(&[&a, &b]);
    assert!(matches!(exec(&b.folder), Node::File { exec: true, .. }));
    set_mode(b.path("run.sh"), 0o644);
    assert_converged(&[&a, &b]);
    assert!(matches!(exec(&a.folder), Node::File { exec: false, .. }));
    assert_eq!(text(a.path("run.sh")), "#!/bin/sh\n");
}

#[test]
fn appending_and_truncating() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("log"), "line 1\n");
        write(dir.join("large"), noise("append", 3 << 20));
    });
    append(a.path("log"), "line 2\n");
    append(b.path("large"), "the end");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("log")), "line 1\nline 2\n");
    assert_eq!(fs::metadata(a.path("large")).unwrap().len(), (3 << 20) + 7);
    write(a.path("log"), "");
    fs::File::options()
        .write(true)
        .open(a.path("large"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(fs::metadata(b.path("log")).unwrap().len(), 0);
    assert_eq!(fs::metadata(b.path("large")).unwrap().len(), 1 << 20);
}

#[test]
fn a_byte_in_the_middle_of_a_large_file() {
    let (_lab, a, b) = paired(|dir| write(dir.join("disk.img"), noise("image", 8 << 20)));
    let file = fs::File::options().write(true).open(a.path("disk.img")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 5 << 20).unwrap();
    drop(file);
    assert_converged(&[&a, &b]);
    assert_eq!(
        &fs::read(b.path("disk.img")).unwrap()[5 << 20..(5 << 20) + 7],
        b"changed"
    );
}

#[test]
fn editors_save_by_renaming() {
    let (_lab, a, b) = paired(|dir| write(dir.join("main.rs"), "version 1"));
    // As most do: a new file takes the place of the old one.
    write(a.path(".main.rs.tmp"), "version 2");
    fs::rename(a.path(".main.rs.tmp"), a.path("main.rs")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("main.rs")), "version 2");
    // As vim does: the old one steps aside, and goes when the new one is there.
    fs::rename(b.path("main.rs"), b.path("main.rs~")).unwrap();
    write(b.path("main.rs"), "version 3");
    fs::remove_file(b.path("main.rs~")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("main.rs")), "version 3");
    assert_eq!(names(&a.folder), ["main.rs"]);
}

#[test]
fn many_small_files_at_once() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "x"));
    for n in 0..500 {
        write(a.path(format!("many/{}/{n}", n % 10)), format!("small file {n}"));
    }
    assert_converged(&[&a, &b]);
    assert_eq!(b.field("files"), 501);
}

#[test]
fn deep_directories() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "x"));
    let deep: PathBuf = (0..60).map(|n| format!("level {n}")).collect();
    write(a.path(deep.join("bottom")), "far down");
    assert_converged(&[&a, &b]);
    append(b.path(deep.join("bottom")), ", and back up");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path(deep.join("bottom"))), "far down, and back up");
}

#[test]
fn swapping_two_files() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("left"), "was left");
        write(dir.join("right"), "was right");
    });
    fs::rename(a.path("left"), a.path("aside")).unwrap();
    fs::rename(a.path("right"), a.path("left")).unwrap();
    fs::rename(a.path("aside"), a.path("right")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("left")), "was right");
    assert_eq!(names(&b.folder), ["left", "right"]);
}

#[test]
fn a_file_that_is_written_slowly_arrives_whole_in_the_end() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "x"));
    let mut file = fs::File::create(a.path("growing")).unwrap();
    for n in 0..200 {
        writeln!(file, "line {n}").unwrap();
        if n % 50 == 0 {
            // Other paths do not wait for the busy one.
            let name = format!("beside {n}");
            write(a.path(&name), "done");
            eventually("a path beside a busy one arrives", LONG, || {
                b.path(&name).exists()
            });
        }
    }
    drop(file);
    assert_converged(&[&a, &b]);
    assert!(text(b.path("growing")).ends_with("line 199\n"));
}

/// A gap between two changes, about as long as a change takes to be seen.
fn gap(millis: u128) {
    let start = std::time::Instant::now();
    eventually("time passes", LONG, || start.elapsed().as_millis() >= millis);
}

#[test]
fn what_comes_and_goes_quickly_leaves_the_root_true() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    // Enough of them that the short-lived ones are no mass removal when they go.
    for n in 0..800 {
        write(a.path(format!("base/{n}")), n.to_string());
    }
    let _ticket = a.share();
    let aside = a.corner.join("aside");
    fs::create_dir(&aside).unwrap();
    // Many at once, each at its own pace: looks at the disk fall before, between and after the two changes.
    std::thread::scope(|scope| {
        for worker in 0..30u128 {
            let (a, aside) = (&a, &aside);
            scope.spawn(move || {
                let (toggled, out) = (a.path(format!("base/{worker}")), aside.join(worker.to_string()));
                for round in 0..15u128 {
                    let short_lived = a.path(format!("short-lived {worker} {round}"));
                    write(&short_lived, "x");
                    fs::rename(&toggled, &out).unwrap();
                    gap(35 + (worker * 7 + round * 11) % 40);
                    fs::remove_file(&short_lived).unwrap();
                    fs::rename(&out, &toggled).unwrap();
                    gap((worker * 5 + round * 3) % 20);
                }
            });
        }
    });
    eventually("the root is that of the disk", LONG, || {
        a.field("state") == "idle" && a.field("root") == a.hash().trim()
    });
    assert_eq!(a.field("files"), 800);
}
