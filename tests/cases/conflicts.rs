//! Both sides change while apart: what wins, what becomes a copy, and that nothing is lost.

use std::fs;

use crate::harness::*;

/// Starts in sync, changes both sides with no engine running, and brings them together again.
pub(super) fn apart(
    fill: impl FnOnce(&std::path::Path),
    on_a: impl FnOnce(&Device),
    on_b: impl FnOnce(&Device),
) -> (Lab, Device, Device) {
    let (lab, mut a, mut b) = paired(fill);
    a.stop();
    b.stop();
    on_a(&a);
    on_b(&b);
    a.start();
    b.start();
    assert_converged(&[&a, &b]);
    (lab, a, b)
}

fn conflicts(device: &Device) -> u64 {
    device.field("conflicts").as_u64().expect("a number")
}

#[test]
fn two_edits_keep_both_contents_under_the_same_names_on_both_sides() {
    let (_lab, a, b) = apart(
        |dir| write(dir.join("plan.txt"), "base"),
        |a| write(a.path("plan.txt"), "from the laptop"),
        |b| write(b.path("plan.txt"), "from the desktop"),
    );
    let winner = text(a.path("plan.txt"));
    let loser = match winner.as_str() {
        "from the laptop" => "from the desktop",
        "from the desktop" => "from the laptop",
        other => panic!("the path holds neither edit: {other:?}"),
    };
    let copy = conflict_name("plan.txt", loser.as_bytes());
    assert_eq!(names(&a.folder), [copy.as_str(), "plan.txt"]);
    assert_eq!(text(a.path(&copy)), loser);
    assert_eq!(text(b.path(&copy)), loser);
    assert_eq!((conflicts(&a), conflicts(&b)), (1, 1));

    // A person settles it: the copy goes, and does not come back, not even after a restart.
    fs::remove_file(b.path(&copy)).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["plan.txt"]);
    assert_eq!((conflicts(&a), conflicts(&b)), (0, 0));
}

#[test]
fn a_settled_conflict_stays_settled_after_restarts() {
    let (_lab, mut a, mut b) = apart(
        |dir| write(dir.join("plan.txt"), "base"),
        |a| write(a.path("plan.txt"), "from the laptop"),
        |b| write(b.path("plan.txt"), "from the desktop"),
    );
    let copy = names(&a.folder)
        .into_iter()
        .find(|n| n.contains("(conflict "))
        .expect("a copy");
    fs::remove_file(a.path(&copy)).unwrap();
    assert_converged(&[&a, &b]);
    a.restart();
    b.restart();
    write(a.path("plan.txt"), "one more");
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder), ["plan.txt"]);
}

#[test]
fn two_new_files_of_one_name_keep_both_contents() {
    let (_lab, a, _b) = apart(
        |dir| write(dir.join("stays"), "x"),
        |a| write(a.path("new"), "from the laptop"),
        |b| write(b.path("new"), "from the desktop"),
    );
    let mut contents: Vec<_> = names(&a.folder)
        .iter()
        .filter(|n| n.starts_with("new"))
        .map(|n| text(a.path(n)))
        .collect();
    contents.sort();
    assert_eq!(contents, ["from the desktop", "from the laptop"]);
}

#[test]
fn a_modification_wins_over_a_deletion() {
    let (_lab, a, _b) = apart(
        |dir| {
            write(dir.join("laptop deletes"), "base");
            write(dir.join("desktop deletes"), "base");
            write(dir.join("stays"), "x");
        },
        |a| {
            fs::remove_file(a.path("laptop deletes")).unwrap();
            write(a.path("desktop deletes"), "modified");
        },
        |b| {
            fs::remove_file(b.path("desktop deletes")).unwrap();
            write(b.path("laptop deletes"), "modified");
        },
    );
    assert_eq!(names(&a.folder), ["desktop deletes", "laptop deletes", "stays"]);
    assert_eq!(text(a.path("laptop deletes")), "modified");
    assert_eq!(text(a.path("desktop deletes")), "modified");
    assert_eq!(conflicts(&a), 0);
}

#[test]
fn a_file_deleted_on_both_sides_stays_deleted() {
    let delete = |device: &Device| fs::remove_file(device.path("gone")).unwrap();
    let (_lab, a, _b) = apart(
        |dir| {
            write(dir.join("gone"), "base");
            write(dir.join("stays"), "x");
        },
        delete,
        delete,
    );
    assert_eq!(names(&a.folder), ["stays"]);
}

#[test]
fn the_same_edit_on_both_sides_is_no_conflict() {
    let edit = |device: &Device| {
        write(device.path("file"), "the same edit");
        write(device.path("new"), "the same new file");
    };
    let (_lab, a, b) = apart(|dir| write(dir.join("file"), "base"), edit, edit);
    assert_eq!(names(&a.folder), ["file", "new"]);
    assert_eq!((conflicts(&a), conflicts(&b)), (0, 0));
    // One file, not two: it can be deleted.
    fs::remove_file(b.path("new")).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), ["file"]);
}

#[test]
fn a_directory_keeps_its_name_against_a_new_file() {
    let (_lab, a, b) = apart(
        |dir| write(dir.join("stays"), "x"),
        |a| write(a.path("thing"), "a file"),
        |b| write(b.path("thing/inside"), "in a directory"),
    );
    let copy = conflict_name("thing", b"a file");
    assert_eq!(names(&a.folder), ["stays", "thing", &copy, "thing/inside"]);
    assert_eq!(text(b.path(&copy)), "a file");
    assert_eq!((conflicts(&a), conflicts(&b)), (1, 1));
}

#[test]
fn a_removed_directory_survives_with_only_the_edited_child() {
    let (_lab, a, _b) = apart(
        |dir| {
            for n in 0..3 {
                write(dir.join(format!("dir/{n}")), "base");
                write(dir.join(format!("dir/sub/{n}")), "base");
            }
            write(dir.join("stays"), "x");
        },
        |a| fs::remove_dir_all(a.path("dir")).unwrap(),
        |b| write(b.path("dir/1"), "edited"),
    );
    assert_eq!(names(&a.folder), ["dir", "dir/1", "stays"]);
    assert_eq!(text(a.path("dir/1")), "edited");
    assert_eq!(conflicts(&a), 0);
}

#[test]
fn a_move_and_an_edit_keep_both() {
    let (_lab, a, _b) = apart(
        |dir| write(dir.join("old name"), "base"),
        |a| fs::rename(a.path("old name"), a.path("new name")).unwrap(),
        |b| write(b.path("old name"), "edited"),
    );
    assert_eq!(names(&a.folder), ["new name", "old name"]);
    assert_eq!(text(a.path("new name")), "base");
    assert_eq!(text(a.path("old name")), "edited");
}

#[test]
fn edits_of_different_files_are_no_conflict() {
    let (_lab, a, b) = apart(
        |dir| {
            write(dir.join("dir/one"), "base");
            write(dir.join("dir/two"), "base");
        },
        |a| write(a.path("dir/one"), "from the laptop"),
        |b| write(b.path("dir/two"), "from the desktop"),
    );
    assert_eq!(text(b.path("dir/one")), "from the laptop");
    assert_eq!(text(a.path("dir/two")), "from the desktop");
    assert_eq!((conflicts(&a), conflicts(&b)), (0, 0));
}

#[test]
fn the_executable_bit_and_an_edit_go_together() {
    let (_lab, a, _b) = apart(
        |dir| write(dir.join("run.sh"), "base"),
        |a| set_mode(a.path("run.sh"), 0o755),
        |b| write(b.path("run.sh"), "edited"),
    );
    assert_eq!(names(&a.folder), ["run.sh"]);
    assert_eq!(text(a.path("run.sh")), "edited");
    assert!(matches!(
        snapshot(&a.folder)[b"run.sh".as_slice()],
        Node::File { exec: true, .. }
    ));
}

#[test]
fn the_later_edit_keeps_the_path_whichever_engine_starts_last() {
    for later_starts_first in [true, false] {
        let (_lab, mut a, mut b) = paired(|dir| write(dir.join("plan.txt"), "base"));
        a.stop();
        b.stop();
        write(a.path("plan.txt"), "later");
        write(b.path("plan.txt"), "earlier");
        let minute_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let file = fs::File::options().write(true).open(b.path("plan.txt")).unwrap();
        file.set_modified(minute_ago).unwrap();
        // A file that somebody has open for writing is not displaced.
        drop(file);
        // The second one starts when the first has looked at its disk: what it finds is found later.
        let (first, second) = if later_starts_first {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let before = first.folder.clone();
        first.start();
        eventually("the first has looked", LONG, || {
            first.field("root").as_str() == Some(first.cmd(["hash", before.to_str().unwrap()]).stdout.trim())
        });
        second.start();
        assert_converged(&[&a, &b]);
        assert_eq!(text(a.path("plan.txt")), "later");
        assert_eq!(text(b.path(conflict_name("plan.txt", b"earlier"))), "earlier");
    }
}

#[test]
fn an_old_copy_that_is_paired_late_never_wins_over_an_edit() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    write(a.path("plan.txt"), "base");
    write(b.path("plan.txt"), "base");
    let year_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(365 * 24 * 3600);
    for device in [&a, &b] {
        let file = fs::File::options()
            .write(true)
            .open(device.path("plan.txt"))
            .unwrap();
        file.set_modified(year_ago).unwrap();
    }
    let c = lab.running("server");
    // The laptop's folder is tracked before it is edited: the edit is known to have replaced the base.
    pair(&a, &c);
    assert_converged(&[&a, &c]);
    write(a.path("plan.txt"), "edited");
    assert_converged(&[&a, &c]);
    pair(&a, &b);
    assert_converged(&[&a, &b, &c]);
    assert_eq!(names(&b.folder), ["plan.txt"]);
    assert_eq!(text(b.path("plan.txt")), "edited");
}

#[test]
fn copies_do_not_multiply_when_a_folder_is_forgotten_and_paired_again() {
    let (_lab, a, b) = apart(
        |dir| write(dir.join("plan.txt"), "base"),
        |a| write(a.path("plan.txt"), "from the laptop"),
        |b| write(b.path("plan.txt"), "from the desktop"),
    );
    let before = names(&a.folder);
    assert_eq!(before.len(), 2);
    b.ok(["forget", b.folder.to_str().unwrap()]);
    fs::remove_dir_all(b.folder.join(".alike")).unwrap();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder), before);
    assert_eq!(names(&b.folder), before);
}
