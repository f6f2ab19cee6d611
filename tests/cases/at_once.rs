//! Two engines with one key at work at the same time: a machine that was copied as a whole, and both go on. What any of
//! them, or a third device, saves or deletes counts, everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::*;

/// Each of the three does so much, while the others do the same.
const ROUNDS: usize = 6;

/// What there is before the machine is copied.
fn fill(dir: &Path) {
    for who in ["laptop", "copy", "desktop"] {
        write(dir.join(format!("{who} edits")), format!("first of {who}"));
        for n in 0..ROUNDS {
            write(dir.join(format!("{who} deletes {n}")), format!("{n}, {who}"));
        }
    }
}

/// Saves, edits and deletes of its own, of one round.
fn work(device: &Device, who: &str, round: usize) {
    write(
        device.path(format!("{who} {round}")),
        format!("of {who} in {round}"),
    );
    append(device.path(format!("{who} edits")), format!(", {round}"));
    fs::remove_file(device.path(format!("{who} deletes {round}"))).expect("it is still there");
}

/// What there is to be in the end.
fn wanted() -> BTreeMap<String, String> {
    let mut wanted = BTreeMap::new();
    for who in ["laptop", "copy", "desktop"] {
        let rounds: String = (0..ROUNDS).map(|n| format!(", {n}")).collect();
        wanted.insert(format!("{who} edits"), format!("first of {who}{rounds}"));
        for n in 0..ROUNDS {
            wanted.insert(format!("{who} {n}"), format!("of {who} in {n}"));
        }
    }
    wanted
}

/// What is there of it, while it may be changing.
fn found(device: &Device) -> BTreeMap<String, String> {
    let entries = fs::read_dir(&device.folder).expect("list").filter_map(Result::ok);
    let named = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    let read = |(name, path)| Some((name, fs::read_to_string(path).ok()?));
    entries.map(named).filter_map(read).collect()
}

/// The original and its copy run beside a third device, and all three work.
#[track_caller]
fn all_three_work(original: &mut Device, copy: &mut Device, third: &Device) {
    let place = original.corner.clone();
    copy.stand_at(&place);
    original.start();
    copy.start();
    for round in 0..ROUNDS {
        work(original, "laptop", round);
        work(copy, "copy", round);
        work(third, "desktop", round);
        // Slowly enough that each of the two is heard in between.
        eventually("the third device hears of both", LONG, || {
            third.path(format!("laptop {round}")).exists() && third.path(format!("copy {round}")).exists()
        });
    }
    let wanted = wanted();
    let mut seen = BTreeMap::new();
    let equal = poll(LONG, || {
        seen = [&*original, copy, third]
            .map(|d| (d.name.clone(), found(d)))
            .into();
        seen.values().all(|found| *found == wanted).then_some(())
    });
    if equal.is_none() {
        for (name, found) in &seen {
            let extra: Vec<_> = found.iter().filter(|(k, v)| wanted.get(*k) != Some(*v)).collect();
            let missing: Vec<_> = wanted.keys().filter(|k| !found.contains_key(*k)).collect();
            eprintln!("{name}: too much {extra:?}, missing {missing:?}");
        }
        panic!("not the same, or not everything");
    }
    // The copy goes, and everything is as it was.
    copy.stop();
    write(original.path("after"), "after");
    fs::remove_file(third.path("copy 0")).expect("remove");
    assert_converged(&[original, third]);
    assert!(third.path("after").exists() && !original.path("copy 0").exists());
    for device in [&*original, third] {
        assert_eq!(device.field("problems").to_string(), "[]", "{}", device.name);
        assert_eq!(device.field("conflicts"), 0, "{}", device.name);
    }
}

/// Copied file by file: the copy sees that it is one.
#[test]
fn a_machine_and_a_copy_of_its_files() {
    let lab = Lab::new();
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT RUN: a machine of its own needs root");
        return;
    }
    let (mut a, b) = (lab.device("laptop"), lab.running("desktop"));
    fill(&a.folder);
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    a.stop();
    let mut copy = lab.device("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(a.corner.join("."))
        .arg(&copy.corner)
        .status();
    assert!(copied.expect("cp").success(), "cp -a");
    all_three_work(&mut a, &mut copy, &b);
}

/// Copied block by block: nothing tells the two apart but what they do.
#[test]
fn a_machine_and_a_copy_of_its_disk() {
    let lab = Lab::new();
    let Some(disk) = Image::new(lab.path("disk"), EXT4) else {
        return;
    };
    let b = lab.running("desktop");
    let mut a = lab.device_at("laptop", "disk/laptop");
    fill(&a.folder);
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    a.stop();
    let _other = disk.clone_to(lab.path("other disk"), EXT4);
    let mut copy = lab.device_at("copy", "other disk/laptop");
    all_three_work(&mut a, &mut copy, &b);
}

/// A copy of the state directory alone, on the same machine: two engines would have one folder. The second leaves it
/// alone and says so, until the first one ends.
#[test]
fn a_copy_of_a_state_directory_leaves_the_folder_to_the_first() {
    let (lab, mut a, b) = paired(fill);
    let mut copy = lab.device("copy");
    a.stop();
    let copied = Command::new("cp").arg("-a").args([&a.home, &copy.home]).status();
    assert!(copied.expect("cp").success(), "cp -a");
    a.start();
    copy.folder = a.folder.clone();
    copy.start();
    let problems = copy.field("problems").to_string();
    assert!(
        problems.contains("another engine") && problems.contains("`sync stop`"),
        "{problems}"
    );
    assert_eq!(copy.field("state"), "frozen");
    for round in 0..ROUNDS {
        work(&a, "laptop", round);
        work(&b, "desktop", round);
    }
    // The two take the desktop's connection from each other, so nothing is waited for but the outcome.
    let after = |device: &Device| {
        let made = |who: &str, n| {
            device.path(format!("{who} {n}")).exists() && !device.path(format!("{who} deletes {n}")).exists()
        };
        (0..ROUNDS).all(|n| made("laptop", n) && made("desktop", n))
    };
    eventually("all of it is everywhere", LONG, || after(&a) && after(&b));
    a.stop();
    eventually("the copy takes over", LONG, || {
        copy.field("problems") == serde_json::json!([])
    });
    work(&a, "copy", 0);
    assert_converged(&[&copy, &b]);
    assert_eq!(text(b.path("copy 0")), "of copy in 0");
    assert_eq!(b.field("conflicts"), 0);

    // A device of its own does not get it either.
    let other = lab.running("other");
    let folder = a.folder.to_string_lossy();
    other.fails(["share", &folder], 1, &["another engine", "sync stop"]);
    assert_eq!(other.status()["folders"].to_string(), "[]");
}
