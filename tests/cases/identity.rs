//! State directories that are put back from a backup, copied or lost: a device never says again what it said before,
//! and nothing is lost. Never has two engines with one key at work at once: `at_once` has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::*;

/// Copies a directory with everything in it, as a backup program would.
fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp").success(), "cp -a");
}

/// The very same files, with what was in them before.
fn write_over(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("list");
        let there = to.join(entry.file_name());
        if entry.file_type().expect("type").is_file() && there.exists() {
            fs::write(&there, fs::read(entry.path()).expect("read")).expect("write");
        }
    }
}

/// State and folder of a device that is stopped, as they are now.
struct Backup {
    state: PathBuf,
    docs: PathBuf,
}

fn back_up(device: &Device) -> Backup {
    let backup = Backup {
        state: device.corner.join("backup of state"),
        docs: device.corner.join("backup of docs"),
    };
    copy_dir(&device.home, &backup.state);
    copy_dir(&device.folder, &backup.docs);
    backup
}

/// Puts the folder back too, as the same directory.
fn put_back_folder(device: &Device, backup: &Backup) {
    for dir in [device.folder.clone(), device.path(".alike")] {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("list").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != ".alike") {
                    fs::remove_dir_all(&path).expect("remove");
                }
            } else {
                fs::remove_file(&path).expect("remove");
            }
        }
    }
    let status = Command::new("cp")
        .arg("-a")
        .arg(backup.docs.join("."))
        .arg(&device.folder)
        .status();
    assert!(status.expect("cp").success(), "cp -a");
}

fn base(dir: &Path) {
    for name in ["deleted by laptop", "deleted by desktop", "edited", "kept"] {
        write(dir.join(name), format!("{name}: first"));
    }
}

/// What both do between the backup and the day it is put back; it arrives everywhere.
fn the_lost_days(a: &Device, b: &Device) {
    for n in 0..5 {
        write(a.path(format!("lost {n}")), format!("lost {n}"));
    }
    append(a.path("edited"), ", edited in the lost days");
    fs::remove_file(a.path("deleted by laptop")).expect("remove");
    fs::remove_file(b.path("deleted by desktop")).expect("remove");
    write(b.path("by desktop"), "by desktop");
    assert_converged(&[a, b]);
}

/// A history of two devices around a backup of the laptop, which `put_back` puts back; then `writes` files are saved
/// there while nobody is connected: with more of them than in the lost days, their seqs alone tell nothing.
#[track_caller]
fn around_a_backup(writes: usize, put_back: impl FnOnce(&mut Device, &Backup)) {
    let (_lab, mut a, mut b) = paired(base);
    // What the desktop has shown to know is written down with the next commit.
    write(a.path("one more"), "one more");
    assert_converged(&[&a, &b]);
    a.stop();
    let backup = back_up(&a);
    a.start();
    the_lost_days(&a, &b);
    a.stop();
    put_back(&mut a, &backup);
    b.stop();
    write(b.path("meanwhile"), "on the desktop, meanwhile");
    a.start();
    for n in 0..writes {
        write(a.path(format!("new {n}")), format!("new {n}"));
        eventually("the save is committed", LONG, || {
            a.field("files") == names(&a.folder).len()
        });
    }
    b.start();
    assert_converged(&[&a, &b]);

    let mut wanted: Vec<String> = ["by desktop", "edited", "kept", "meanwhile", "one more"]
        .map(str::to_owned)
        .to_vec();
    wanted.extend((0..5).map(|n| format!("lost {n}")));
    wanted.extend((0..writes).map(|n| format!("new {n}")));
    wanted.sort();
    assert_eq!(
        names(&a.folder),
        wanted,
        "nothing lost, nothing back, no conflict"
    );
    for n in 0..5 {
        assert_eq!(text(b.path(format!("lost {n}"))), format!("lost {n}"));
    }
    for n in 0..writes {
        assert_eq!(text(b.path(format!("new {n}"))), format!("new {n}"));
    }
    assert_eq!(text(a.path("edited")), "edited: first, edited in the lost days");

    // And it goes on as if nothing had been.
    write(a.path("kept"), "edited afterwards");
    fs::remove_file(b.path("meanwhile")).expect("remove");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("kept")), "edited afterwards");
    assert!(!a.path("meanwhile").exists());
    assert_eq!(a.field("problems").to_string(), "[]");
}

#[test]
fn put_back_at_its_place_with_the_folder_kept() {
    around_a_backup(3, |a, backup| {
        fs::remove_dir_all(&a.home).expect("remove");
        copy_dir(&backup.state, &a.home);
    });
}

#[test]
fn put_back_at_its_place_with_the_folder_put_back_too() {
    around_a_backup(12, |a, backup| {
        fs::remove_dir_all(&a.home).expect("remove");
        copy_dir(&backup.state, &a.home);
        put_back_folder(a, backup);
    });
}

#[test]
fn used_from_another_place() {
    around_a_backup(12, |a, backup| {
        fs::remove_dir_all(&a.home).expect("remove");
        a.home = a.corner.join("state elsewhere");
        copy_dir(&backup.state, &a.home);
    });
}

#[test]
fn rewound_in_place_with_the_folder_kept() {
    around_a_backup(3, |a, backup| write_over(&backup.state, &a.home));
}

#[test]
fn rewound_in_place_with_the_folder_and_nothing_written_since() {
    around_a_backup(0, |a, backup| {
        write_over(&backup.state, &a.home);
        put_back_folder(a, backup);
    });
}

#[test]
fn rewound_in_place_with_the_folder_and_fewer_writes_than_were_lost() {
    around_a_backup(2, |a, backup| {
        write_over(&backup.state, &a.home);
        put_back_folder(a, backup);
    });
}

#[test]
fn rewound_in_place_with_the_folder_and_more_writes_than_were_lost() {
    around_a_backup(12, |a, backup| {
        write_over(&backup.state, &a.home);
        put_back_folder(a, backup);
    });
}

#[test]
fn a_lost_state_directory_is_a_new_device_that_overwrites_nothing() {
    let (_lab, mut a, b) = paired(base);
    a.stop();
    fs::remove_dir_all(&a.home).expect("remove");
    write(a.path("edited"), "on the laptop, while it had no state");
    write(a.path("new"), "new");
    write(b.path("meanwhile"), "meanwhile");
    append(b.path("kept"), ", edited on the desktop");
    a.start();
    pair(&b, &a);
    assert_converged(&[&a, &b]);
    let all: String = names(&a.folder).iter().map(|name| text(a.path(name))).collect();
    for content in [
        "on the laptop, while it had no state",
        "kept: first, edited on the desktop",
        "meanwhile",
        "new",
        "deleted by laptop: first",
    ] {
        assert!(all.contains(content), "{content} is lost: {all}");
    }
    assert!(text(a.path("deleted by desktop")).contains("first"));
    let copies = names(&a.folder).iter().filter(|n| n.contains("conflict")).count();
    assert!(
        copies <= 2,
        "what is equal is no conflict: {:?}",
        names(&a.folder)
    );
}

/// A machine that is copied as a whole, and both go on, taking turns.
#[test]
fn a_clone_and_its_original_take_turns() {
    let (_lab, mut a, b) = paired(base);
    a.stop();
    // On its own machine the clone has the same paths; here the two take turns at them.
    let (state, docs) = (a.corner.join("other state"), a.corner.join("other docs"));
    copy_dir(&a.home, &state);
    copy_dir(&a.folder, &docs);
    for n in 0..5 {
        a.start();
        write(a.path(format!("turn {n}")), format!("turn {n}"));
        append(a.path("edited"), format!(", in turn {n}"));
        assert_converged(&[&a, &b]);
        a.stop();
        for (mine, other) in [(&a.home, &state), (&a.folder, &docs)] {
            let aside = a.corner.join("aside");
            fs::rename(mine, &aside).expect("put away");
            fs::rename(other, mine).expect("put there");
            fs::rename(&aside, other).expect("put away");
        }
    }
    a.start();
    assert_converged(&[&a, &b]);
    let all: String = names(&b.folder).iter().map(|name| text(b.path(name))).collect();
    for n in 0..5 {
        assert_eq!(text(b.path(format!("turn {n}"))), format!("turn {n}"));
        assert!(all.contains(&format!("in turn {n}")), "{n} is lost: {all}");
    }
}

/// Three devices, all paired and equal, and a backup of the first one, which is stopped.
fn three_and_a_backup() -> (Lab, Device, Device, Device, Backup) {
    let lab = Lab::new();
    let (mut a, b, c) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("server"),
    );
    base(&a.folder);
    pair(&a, &b);
    pair(&a, &c);
    pair(&b, &c);
    write(a.path("one more"), "one more");
    assert_converged(&[&a, &b, &c]);
    a.stop();
    let backup = back_up(&a);
    (lab, a, b, c, backup)
}

/// The third device knows writes from before and after, and never hears them called by one name.
#[test]
fn a_third_device_gets_everything_too() {
    let (_lab, mut a, mut b, mut c, backup) = three_and_a_backup();
    a.start();
    c.stop();
    the_lost_days(&a, &b);
    a.stop();
    b.stop();
    write_over(&backup.state, &a.home);
    put_back_folder(&a, &backup);
    a.start();
    for n in 0..12 {
        write(a.path(format!("new {n}")), format!("new {n}"));
    }
    // The desktop, which knows the lost days, comes before the server.
    b.start();
    assert_converged(&[&a, &b]);
    c.start();
    assert_converged(&[&a, &b, &c]);
    for n in 0..5 {
        assert_eq!(text(c.path(format!("lost {n}"))), format!("lost {n}"));
    }
    for n in 0..12 {
        assert_eq!(text(c.path(format!("new {n}"))), format!("new {n}"));
    }
    assert!(!c.path("deleted by laptop").exists() && !c.path("deleted by desktop").exists());
    assert_eq!(c.field("conflicts"), 0);
}

/// Two devices were each told another history by one that was set back in between, and it is away.
#[test]
fn two_histories_of_one_device_are_not_mixed_and_become_one_when_it_is_back() {
    let (_lab, mut a, mut b, mut c, backup) = three_and_a_backup();
    c.stop();
    a.start();
    write(a.path("only the desktop"), "told to the desktop");
    assert_converged(&[&a, &b]);
    a.stop();
    b.stop();
    write_over(&backup.state, &a.home);
    put_back_folder(&a, &backup);
    a.start();
    c.start();
    write(a.path("only the server"), "told to the server");
    assert_converged(&[&a, &c]);
    a.stop();

    // Its two writes have one name. Neither device may take the other's word for what became of it.
    b.start();
    for device in [&b, &c] {
        eventually("it says what is wrong", LONG, || {
            let problems = device.field("problems").to_string();
            problems.contains("was put back from a backup or copied")
                && problems.contains("connect that device")
        });
    }
    write(b.path("by desktop"), "meanwhile");
    write(c.path("by server"), "meanwhile");
    for (device, has, lacks) in [
        (&b, "only the desktop", "only the server"),
        (&c, "only the server", "only the desktop"),
    ] {
        eventually("its own save is committed", LONG, || {
            device.field("files") == names(&device.folder).len()
        });
        assert!(device.path(has).exists() && !device.path(lacks).exists());
    }

    a.start();
    assert_converged(&[&a, &b, &c]);
    assert_eq!(text(c.path("only the desktop")), "told to the desktop");
    assert_eq!(text(b.path("only the server")), "told to the server");
    for name in ["by desktop", "by server"] {
        assert_eq!(text(a.path(name)), "meanwhile");
    }
    for device in [&a, &b, &c] {
        assert_eq!(device.field("problems").to_string(), "[]", "{}", device.name);
        assert_eq!(device.field("conflicts"), 0, "{}", device.name);
    }
}

/// A laptop that was set back and writes more than was lost, and a desktop that knows better; neither runs.
fn set_back(lab: &Lab) -> (Device, Device) {
    let (mut a, mut b) = (lab.fallible("laptop"), lab.running("desktop"));
    base(&a.folder);
    a.start();
    pair(&a, &b);
    write(a.path("one more"), "one more");
    assert_converged(&[&a, &b]);
    a.stop();
    let backup = back_up(&a);
    a.start();
    the_lost_days(&a, &b);
    a.stop();
    b.stop();
    write_over(&backup.state, &a.home);
    put_back_folder(&a, &backup);
    (a, b)
}

/// The folder took another id because of what the peer said, and what it is now is still on its way to the session with
/// that peer: the state from before must not go out as one that has heard it.
#[test]
fn a_state_from_before_a_doubt_never_goes_out_as_one_that_has_heard_the_peer() {
    let lab = Lab::new();
    let (mut a, mut b) = set_back(&lab);
    let hold = Hold::new(&a);
    a.launch(&format!("engine.forward={}", hold.action(1)));
    hold.reached("the folder's way to its sessions");
    // More than were lost: by their numbers they come after those.
    for n in 0..12 {
        write(a.path(format!("new {n}")), format!("new {n}"));
        eventually("the save is committed", LONG, || {
            a.field("files") == names(&a.folder).len()
        });
    }
    b.start();
    let has = |name: &str| b.path(name).exists();
    eventually("the desktop gets what is new", LONG, || {
        (0..12).all(|n| has(&format!("new {n}")))
    });
    for n in 0..5 {
        assert!(has(&format!("lost {n}")), "lost {n} is gone from the desktop");
    }
    hold.release();
    assert_converged(&[&a, &b]);
    for n in 0..5 {
        assert_eq!(text(a.path(format!("lost {n}"))), format!("lost {n}"));
    }
    assert_eq!(a.field("conflicts"), 0);
}

/// What the desktop says while the laptop looks into its first word comes after that word.
#[test]
fn words_that_arrive_while_a_doubt_is_settled_keep_their_order() {
    let lab = Lab::new();
    let (mut a, mut b) = set_back(&lab);
    let hold = Hold::new(&a);
    a.launch(&format!("engine.settled={}", hold.action(1)));
    b.start();
    hold.reached("the end of a doubt");
    write(b.path("said second"), "said second");
    // Long enough for it to be said, whether it is heard or has to wait.
    b.cmd(["wait", "--timeout", "3s"]);
    hold.release();
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("said second")), "said second");
    for n in 0..5 {
        assert_eq!(text(a.path(format!("lost {n}"))), format!("lost {n}"));
    }
}
