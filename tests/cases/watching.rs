//! Changes are seen as they happen: nothing here asks an engine to look, it only looks at the other side's disk.

use std::fs;
use std::path::PathBuf;

use crate::harness::*;

#[track_caller]
fn arrives(path: PathBuf, content: &str) {
    eventually(&format!("{} holds {content:?}", path.display()), LONG, || {
        text(&path) == content
    });
}

#[test]
fn a_saved_file_arrives_by_itself_both_ways() {
    let (_lab, a, b) = paired(|dir| write(dir.join("notes"), "1"));
    assert_eq!(a.field("watching"), true);
    assert_eq!(b.field("watching"), true);
    write(a.path("notes"), "2");
    arrives(b.path("notes"), "2");
    write(b.path("notes"), "3");
    arrives(a.path("notes"), "3");
}

#[test]
fn a_new_directory_filled_at_once_arrives_whole() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "x"));
    for n in 0..10 {
        write(a.path(format!("{n}/a/b/c/file")), format!("{n}"));
    }
    for n in 0..10 {
        arrives(b.path(format!("{n}/a/b/c/file")), &format!("{n}"));
    }
    write(a.path("3/a/b/c/later"), "still watched");
    arrives(b.path("3/a/b/c/later"), "still watched");
}

#[test]
fn a_moved_directory_stays_watched() {
    let (lab, a, b) = paired(|dir| write(dir.join("old/sub/file"), "x"));
    fs::rename(a.path("old"), a.path("new")).unwrap();
    arrives(b.path("new/sub/file"), "x");
    write(a.path("new/sub/file"), "edited after the move");
    arrives(b.path("new/sub/file"), "edited after the move");

    // Moved in from elsewhere: nothing in it ever gave an event.
    let outside = lab.path("outside");
    write(outside.join("deep/er/file"), "from elsewhere");
    fs::rename(&outside, a.path("moved in")).unwrap();
    arrives(b.path("moved in/deep/er/file"), "from elsewhere");
    write(a.path("moved in/deep/er/file"), "and watched");
    arrives(b.path("moved in/deep/er/file"), "and watched");
}

#[test]
fn a_directory_removed_and_created_again_stays_watched() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("dir/file"), "first");
        write(dir.join("stays"), "x");
    });
    for round in 0..3 {
        fs::remove_dir_all(a.path("dir")).unwrap();
        eventually("the directory goes", LONG, || !b.path("dir").exists());
        let content = format!("round {round}");
        write(a.path("dir/file"), &content);
        arrives(b.path("dir/file"), &content);
    }
    // Without a pause between the two.
    fs::remove_dir_all(b.path("dir")).unwrap();
    write(b.path("dir/file"), "at once");
    arrives(a.path("dir/file"), "at once");
    write(b.path("dir/file"), "and again");
    arrives(a.path("dir/file"), "and again");
}

#[test]
fn a_directory_that_arrived_is_watched_too() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "x"));
    write(a.path("arrives/file"), "from the laptop");
    arrives(b.path("arrives/file"), "from the laptop");
    write(b.path("arrives/file"), "from the desktop");
    arrives(a.path("arrives/file"), "from the desktop");
    write(b.path("arrives/new"), "new");
    arrives(a.path("arrives/new"), "new");
}
