//! `.syncignore`: what it leaves out is on its own device only, and what it leaves out later is frozen.

use std::fs;
use std::path::Path;

use crate::harness::*;

fn project(dir: &Path) {
    write(dir.join(".syncignore"), "*.o\n/target/\n!kept.o\n");
    write(dir.join("main.c"), "int main");
    write(dir.join("main.o"), "made here");
    write(dir.join("kept.o"), "an input");
    write(dir.join("target/big"), "made here");
    write(dir.join("src/target/x.c"), "not at the top");
}

#[test]
fn what_rules_leave_out_stays_where_it_is() {
    let (_lab, a, mut b) = paired_in_part(project);
    assert_eq!(text(b.path("kept.o")), "an input");
    assert_eq!(text(b.path("src/target/x.c")), "not at the top");
    write(b.path("main.o"), "made there");
    write(b.path("target/other"), "made there");
    write(b.path("src/y.c"), "new");
    eventually("the new file is there", LONG, || a.path("src/y.c").exists());
    b.wait_in_sync();
    b.restart();
    b.wait_in_sync();
    assert_eq!(text(a.path("main.o")), "made here");
    assert_eq!(text(b.path("main.o")), "made there");
    assert!(!b.path("target/big").exists() && !a.path("target/other").exists());
    assert_eq!(a.field("root"), b.field("root"));
    for device in [&a, &b] {
        assert_eq!(device.field("problems").to_string(), "[]");
        assert_eq!(device.hash(), device.field("root").as_str().unwrap());
    }
}

#[test]
fn what_is_left_out_later_is_frozen_and_deleted_nowhere() {
    let (_lab, a, mut b) = paired(|dir| {
        for n in 0..8 {
            write(dir.join(format!("{n}.txt")), "x");
        }
        write(dir.join("gone.log"), "both have it");
        write(dir.join("edited.log"), "both have it");
        write(dir.join("d/in.log"), "both have it");
    });
    write(a.path(".syncignore"), "*.log\n");
    eventually("the rules are there", LONG, || b.path(".syncignore").exists());
    fs::remove_file(a.path("gone.log")).unwrap();
    fs::remove_dir_all(a.path("d")).unwrap();
    write(a.path("edited.log"), "edited here");
    write(b.path("edited.log"), "edited there");
    write(a.path("0.txt"), "to see when it has been looked at");
    eventually("that has arrived", LONG, || {
        text(b.path("0.txt")).starts_with("to")
    });
    a.wait_in_sync();
    b.wait_in_sync();
    b.restart();
    b.wait_in_sync();
    assert_eq!(text(b.path("gone.log")), "both have it");
    assert_eq!(text(b.path("d/in.log")), "both have it");
    assert_eq!(text(b.path("edited.log")), "edited there");
    assert_eq!(text(a.path("edited.log")), "edited here");
    assert!(
        !a.path("d").exists(),
        "nobody makes a directory for what is left out"
    );
    assert_eq!(a.field("root"), b.field("root"));
    // Whoever takes the rule away has everything as it is.
    fs::remove_file(b.path(".syncignore")).unwrap();
    assert_converged(&[&a, &b]);
    assert!(!b.path("gone.log").exists());
    assert!(!b.path("d").exists());
    let texts = [text(a.path("edited.log")), conflict_text(&a, "edited.log")];
    assert!(texts.contains(&"edited here".into()) && texts.contains(&"edited there".into()));
}

/// What the only conflict copy of a file says.
fn conflict_text(device: &Device, name: &str) -> String {
    let stem = name.split('.').next().unwrap();
    let copy = fs::read_dir(&device.folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&format!("{stem} (conflict"))
        });
    text(copy.expect("a conflict copy"))
}

#[test]
fn what_was_changed_and_left_out_while_the_engine_was_down_is_frozen() {
    let (_lab, mut a, b) = paired(|dir| {
        write(dir.join("secret"), "old");
        write(dir.join("other"), "old");
    });
    a.stop();
    write(a.path(".syncignore"), "secret\n");
    write(a.path("secret"), "for nobody");
    write(a.path("other"), "for all");
    a.start();
    eventually("the other is there", LONG, || text(b.path("other")) == "for all");
    a.wait_in_sync();
    assert_eq!(text(b.path("secret")), "old");
    assert_eq!(text(a.path("secret")), "for nobody");
}

#[test]
fn a_directory_that_goes_elsewhere_keeps_what_is_left_out_here() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join(".syncignore"), "*.o\n");
        for n in 0..8 {
            write(dir.join(format!("{n}")), "x");
        }
        write(dir.join("lib/a.c"), "a");
        write(dir.join("lib/sub/b.c"), "b");
    });
    write(b.path("lib/sub/b.o"), "made there");
    fs::remove_dir_all(a.path("lib")).unwrap();
    eventually("it is gone", LONG, || {
        !b.path("lib/a.c").exists() && !b.path("lib/sub/b.c").exists()
    });
    a.wait_in_sync();
    b.wait_in_sync();
    assert_eq!(text(b.path("lib/sub/b.o")), "made there");
    assert!(!a.path("lib").exists());
    let problems = b.field("problems").to_string();
    assert!(
        problems.contains("lib/sub") && problems.contains("not synced"),
        "{problems}"
    );
    fs::remove_file(b.path("lib/sub/b.o")).unwrap();
    eventually("it goes by itself", LONG, || !b.path("lib").exists());
}

#[test]
fn rules_of_one_directory_count_there_and_below_and_go_with_it() {
    let (_lab, a, b) = paired_in_part(|dir| {
        write(dir.join("x/.syncignore"), "*\n!*.txt\n!*/\n");
        write(dir.join("x/deep/a.txt"), "a");
        write(dir.join("x/deep/a.bin"), "stays");
        write(dir.join("y/a.bin"), "goes");
    });
    assert_eq!(text(b.path("x/deep/a.txt")), "a");
    assert_eq!(text(b.path("y/a.bin")), "goes");
    assert!(!b.path("x/deep/a.bin").exists());
    fs::rename(a.path("x"), a.path("z")).unwrap();
    eventually("moved", LONG, || {
        b.path("z/deep/a.txt").exists() && !b.path("x").exists()
    });
    write(a.path("z/new.bin"), "stays");
    write(a.path("z/new.txt"), "goes");
    eventually("the text is there", LONG, || b.path("z/new.txt").exists());
    assert!(!b.path("z/new.bin").exists() && !b.path("z/deep/a.bin").exists());
    a.wait_in_sync();
    b.wait_in_sync();
    assert_eq!(a.field("root"), b.field("root"));
    assert_eq!(a.hash(), a.field("root").as_str().unwrap());
}

#[test]
fn rules_of_a_directory_that_comes_are_there_before_what_they_leave_out() {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    for n in 0..20 {
        write(a.path(format!("x/deep/{n}.o")), "from before the rules");
    }
    write(a.path("x/deep/a.c"), "a");
    a.start();
    let ticket = a.share();
    eventually("it is recorded", LONG, || a.field("files") == 21);
    write(a.path("x/deep/.syncignore"), "*.o\n");
    eventually("the rules are recorded", LONG, || a.field("files") == 22);
    let b = lab.running("desktop");
    b.ok(b.pair_args(&ticket));
    eventually("the rest is there", LONG, || b.path("x/deep/a.c").exists());
    assert_eq!(names(&b.path("x/deep")), [".syncignore", "a.c"]);
}

#[test]
fn rules_that_go_just_before_their_directory_keep_nobody_waiting() {
    let (_lab, a, b) = paired_in_part(|dir| {
        write(dir.join("x/.syncignore"), "*.o\n");
        write(dir.join("x/f"), "f");
        write(dir.join("y"), "y");
    });
    fs::remove_file(a.path("x/.syncignore")).unwrap();
    eventually("they are gone", LONG, || !b.path("x/.syncignore").exists());
    fs::remove_dir_all(a.path("x")).unwrap();
    assert_converged(&[&a, &b]);
    assert!(!b.path("x").exists());
}

#[test]
fn rules_that_make_no_sense_are_named_and_the_others_count() {
    let (_lab, a, b) = paired(|dir| write(dir.join(".syncignore"), "*.o\n[z-a]\n"));
    write(a.path("a.o"), "stays");
    write(a.path("a.c"), "goes");
    eventually("said", LONG, || {
        let problems = a.field("problems").to_string();
        problems.contains(".syncignore") && problems.contains("line 2")
    });
    eventually("the text is there", LONG, || b.path("a.c").exists());
    a.wait_in_sync();
    assert!(!b.path("a.o").exists());
    write(a.path(".syncignore"), "*.o\n");
    eventually("no more", LONG, || a.field("problems") == serde_json::json!([]));
}

#[test]
fn two_folders_that_are_paired_keep_what_either_leaves_out() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    write(a.path(".syncignore"), "*.log\n");
    write(a.path("a.log"), "a");
    write(b.path(".syncignore"), "*.log\n");
    write(b.path("a.log"), "b");
    write(b.path("b.txt"), "b");
    a.start();
    b.start();
    pair(&a, &b);
    eventually("the text is there", LONG, || a.path("b.txt").exists());
    b.wait_in_sync();
    assert_eq!(text(a.path("a.log")), "a");
    assert_eq!(text(b.path("a.log")), "b");
    assert_eq!(a.field("root"), b.field("root"));
}
