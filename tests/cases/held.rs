//! Very many files gone at once: nobody loses them before a person has said so.

use std::fs;
use std::path::Path;

use crate::harness::*;

fn fill(dir: &Path, files: usize) {
    for n in 0..files {
        write(dir.join(format!("d{}/{n}", n % 7)), format!("content {n}"));
    }
}

fn remove_files(dir: &Path, numbers: std::ops::Range<usize>) {
    for n in numbers {
        fs::remove_file(dir.join(format!("d{}/{n}", n % 7))).unwrap();
    }
}

/// In two steps, neither of which is a mass removal by itself; together they are, for who sees them together.
#[track_caller]
fn remove_27_of_50(device: &Device) {
    remove_files(&device.folder, 0..15);
    eventually("seen", LONG, || device.field("files") == 35);
    remove_files(&device.folder, 15..27);
    eventually("seen", LONG, || device.field("files") == 23);
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() == ".alike" {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

#[track_caller]
fn held(device: &Device, says: &str) {
    eventually("the folder is held", LONG, || device.field("state") == "held");
    let problems = device.field("problems").to_string();
    assert!(problems.contains(says), "{says:?} is not in {problems}");
    assert!(problems.contains("sync accept"), "{problems}");
    device.fails(["wait", "--timeout", "1s"], 3, &["sync accept"]);
}

#[test]
fn an_emptied_folder_is_held_and_rejecting_puts_everything_back() {
    let (_lab, a, b) = paired(|dir| fill(dir, 40));
    let before = snapshot(&b.folder);
    empty(&a.folder);
    held(&a, "40 of 40 files were removed from this device at once");
    assert_eq!(snapshot(&b.folder), before, "nothing has reached the other side");
    // Work goes on meanwhile.
    write(b.path("new"), "from the other side");
    eventually("edits arrive all the same", LONG, || a.path("new").exists());
    write(a.path("own"), "from here");
    eventually("and leave", LONG, || b.path("own").exists());
    assert_eq!(a.field("state"), "held");
    let said = a.ok(["reject"]);
    assert!(said.contains("put back"), "{said}");
    assert_converged(&[&a, &b]);
    fs::remove_file(b.path("new")).unwrap();
    fs::remove_file(b.path("own")).unwrap();
    assert_eq!(snapshot(&b.folder), before);
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&a.folder), before);
}

/// A renamed directory may reach the other side in two steps: first it is there twice. (Here three times, so that two are
/// more than half.)
#[test]
fn what_is_still_there_under_another_name_is_not_gone() {
    let (_lab, a, mut b) = paired(|dir| fill(dir, 40));
    let all = |prefix: &str| (0..7).map(|n| a.path(format!("{prefix}{n}"))).collect::<Vec<_>>();
    for to in [all("e"), all("f")] {
        for (from, to) in all("d").iter().zip(to) {
            fs::create_dir(&to).unwrap();
            for file in fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    assert_converged(&[&a, &b]);
    // All in one step, for who was away.
    b.stop();
    for dir in [all("d"), all("f")].concat() {
        fs::remove_dir_all(dir).unwrap();
    }
    eventually("seen", LONG, || a.field("files") == 40);
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!((b.field("files"), b.field("state")), (40.into(), "idle".into()));
    // Of these there is nothing else.
    empty(&a.folder);
    held(&a, "40 of 40");
}

#[test]
fn accepting_lets_the_removal_through_here_and_then_on_each_other_device() {
    let (_lab, mut a, b) = paired(|dir| fill(dir, 40));
    empty(&a.folder);
    held(&a, "40 of 40");
    // The question is not forgotten.
    a.restart();
    held(&a, "40 of 40");
    a.ok(["accept"]);
    held(&b, "laptop removed 40 of 40 files at once");
    assert_eq!(names(&b.folder).len(), 47);
    b.ok(["accept"]);
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder).len(), 0);
    a.fails(["accept"], 1, &["nothing is held"]);
    b.fails(["reject"], 1, &["nothing is held"]);
}

#[test]
fn a_peer_state_that_takes_away_more_than_half_is_held_and_can_be_rejected() {
    let (_lab, a, mut b) = paired(|dir| fill(dir, 50));
    let before = snapshot(&a.folder);
    b.stop();
    remove_27_of_50(&a);
    b.start();
    held(&b, "laptop removed 27 of 50 files at once");
    assert_eq!(snapshot(&b.folder), before);
    // What is edited here meanwhile still leaves.
    write(b.path("d1/1"), "edited while held");
    eventually("the edit arrives", LONG, || a.path("d1/1").exists());
    b.ok(["reject"]);
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("d1/1")), "edited while held");
    write(a.path("d1/1"), "content 1");
    assert_converged(&[&a, &b]);
    let names = |tree: &std::collections::BTreeMap<Vec<u8>, Node>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&snapshot(&a.folder)));
}

/// Until the merge has judged it, a newer state of the peer answers no question.
#[test]
fn what_is_held_stays_so_while_the_next_state_is_on_its_way() {
    let lab = Lab::new();
    let (a, mut b) = (lab.running("laptop"), lab.fallible("desktop"));
    fill(&a.folder, 50);
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    b.stop();
    remove_27_of_50(&a);
    let hold = Hold::new(&b);
    // The first pull is what gets held.
    b.launch(&format!("fetch.state.done={}", hold.action(2)));
    eventually("it answers", LONG, || b.cmd(["status", "--json"]).code == 0);
    let question = "laptop removed 27 of 50 files at once";
    held(&b, question);
    write(a.path("next"), "next");
    hold.reached("the next state, before its merge");
    write(a.path("after"), "after that");
    eventually("its word is heard", LONG, || {
        b.field("peers")[0]["root"] == a.hash()
    });
    held(&b, question);
    hold.release();
    eventually("it can be answered", LONG, || b.cmd(["reject"]).code == 0);
    assert_converged(&[&a, &b]);
    assert_eq!(
        (text(b.path("next")), text(b.path("after"))),
        ("next".into(), "after that".into())
    );
    assert_eq!(text(a.path("d1/1")), "content 1");
}

#[test]
fn moving_everything_is_no_removal() {
    let (_lab, a, b) = paired(|dir| fill(dir, 60));
    fs::create_dir(a.path("archive")).unwrap();
    for n in 0..7 {
        fs::rename(a.path(format!("d{n}")), a.path(format!("archive/d{n}"))).unwrap();
    }
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("state"), "idle");
    assert_eq!(text(b.path("archive/d3/3")), "content 3");
}

#[test]
fn more_than_a_thousand_are_held_in_one_piece_and_what_comes_back_is_let_go() {
    let (_lab, a, b) = paired(|dir| {
        fill(dir, 40);
        for n in 0..1_100 {
            write(dir.join(format!("many/{n}")), format!("{n}"));
        }
        for n in 0..1_900 {
            write(dir.join(format!("rest/{n}")), format!("rest {n}"));
        }
    });
    let many = b.path("many");
    let kept = a.corner.join("kept");
    fs::create_dir(&kept).unwrap();
    // One after the other, as `rm` does; copies are kept outside.
    for n in 0..1_100 {
        let name = format!("many/{n}");
        fs::copy(a.path(&name), kept.join(n.to_string())).unwrap();
        fs::remove_file(a.path(&name)).unwrap();
    }
    held(&a, "1100 of 3040 files");
    assert_eq!(fs::read_dir(&many).unwrap().count(), 1_100, "all or nothing");
    for n in 0..1_100 {
        fs::copy(kept.join(n.to_string()), a.path(format!("many/{n}"))).unwrap();
    }
    eventually("nothing is held any more", LONG, || a.field("state") != "held");
    assert_converged(&[&a, &b]);
    assert_eq!(fs::read_dir(&many).unwrap().count(), 1_100);
}

#[test]
fn a_directory_that_becomes_a_file_takes_its_members_away_no_sooner() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..30 {
            write(dir.join(format!("dir/{n}")), format!("{n}"));
        }
        write(dir.join("beside"), "x");
    });
    let before = snapshot(&b.folder);
    fs::remove_dir_all(a.path("dir")).unwrap();
    write(a.path("dir"), "a file now");
    held(&a, "30 of 31 files");
    assert_eq!(snapshot(&b.folder), before);
    a.ok(["reject"]);
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("dir/7")), "7");
    let copies: Vec<_> = names(&b.folder)
        .into_iter()
        .filter(|n| n.contains("conflict"))
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
}

#[test]
fn what_one_device_rejected_is_held_nowhere_any_more() {
    let (lab, a, mut b) = paired(|dir| fill(dir, 50));
    let mut c = lab.running("server");
    pair(&a, &c);
    let ticket = b.share();
    c.ok(c.pair_args(&ticket));
    assert_converged(&[&a, &b, &c]);
    let before = names(&a.folder);
    b.stop();
    c.stop();
    remove_27_of_50(&a);
    c.start();
    held(&c, "laptop removed 27 of 50 files at once");
    b.start();
    held(&b, "laptop removed 27 of 50 files at once");
    b.ok(["reject"]);
    assert_converged(&[&a, &b, &c]);
    assert_eq!(names(&a.folder), before);
    assert_eq!(c.field("state"), "idle");
}

#[test]
fn a_held_state_goes_with_its_device() {
    let (_lab, a, mut b) = paired(|dir| fill(dir, 50));
    b.stop();
    remove_27_of_50(&a);
    b.start();
    held(&b, "laptop removed 27 of 50 files at once");
    b.ok(["unpair", "laptop"]);
    eventually("nothing is held", LONG, || b.field("state") == "idle");
    assert_eq!(names(&b.folder).len(), 57);
}
