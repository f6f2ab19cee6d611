//! Where the file system can share the bytes of two files (btrfs, XFS), big files that are edited in place keep their past
//! on this device alone. What cannot be mounted is said, by the test and by xtask.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::harness::*;

/// More than goes into packs, and less and more than what is fetched in one go.
const SIZES: [(&str, usize); 3] = [("photo", 100_000), ("dir/disk", 400_000), ("film", 3 << 20)];

/// Puts a device's folder on the mount.
fn on_disk(lab: &Lab, mut device: Device) -> Device {
    device.folder = lab.path("disk").join(&device.name);
    fs::create_dir_all(&device.folder).unwrap();
    device
}

/// A device with a folder of its own, and nobody else.
fn alone(lab: &Lab, fill: impl FnOnce(&Path)) -> Device {
    let mut a = on_disk(lab, lab.device("laptop"));
    fill(&a.folder);
    a.start();
    a.share();
    seen(&a);
    a
}

fn fill(dir: &Path) {
    for (name, size) in SIZES {
        write(dir.join(name), noise(name, size));
    }
    write(dir.join("small"), "a small file");
}

/// Returns when a device that nobody is connected to has seen its folder as it is, and made it a generation.
#[track_caller]
fn seen(device: &Device) {
    eventually("it has seen its folder", LONG, || {
        let log = json(device, &["log", "-n", "1"]);
        device.field("state") == "idle" && log[0]["root"] == device.hash()
    });
}

/// Edits each big file in place.
fn edit(device: &Device, round: u64) {
    for (name, size) in SIZES {
        flip(device.path(name), round * size as u64 / 16);
    }
}

/// The folder's newest generation, and a copy of it.
fn as_it_is(lab: &Lab, device: &Device) -> (String, PathBuf) {
    let number = generation(device);
    let copy = copy_of(device, lab.path(&format!("was {number} on {}", device.name)));
    (number, copy)
}

#[track_caller]
fn assert_all_were(lab: &Lab, device: &Device, past: &[(String, PathBuf)]) {
    for (number, copy) in past {
        assert_was(lab, device, number, copy);
    }
}

/// Objects by name. Each is what its name says.
#[track_caller]
fn objects(device: &Device) -> Vec<(String, fs::Metadata)> {
    let mut all = Vec::new();
    for shard in fs::read_dir(device.path(".alike/objects")).unwrap() {
        for entry in fs::read_dir(shard.unwrap().path()).unwrap() {
            let (name, path) = entry
                .map(|e| (e.file_name().into_string().unwrap(), e.path()))
                .unwrap();
            assert_eq!(blake3::hash(&fs::read(&path).unwrap()).to_hex()[..], name[..]);
            all.push((name, fs::metadata(path).unwrap()));
        }
    }
    all
}

fn bytes_of(objects: &[(String, fs::Metadata)]) -> u64 {
    objects.iter().map(|(_, meta)| meta.len()).sum()
}

/// Bytes that are taken on the mount.
fn used(lab: &Lab) -> u64 {
    let disk = fs::File::open(lab.path("disk")).unwrap();
    rustix::fs::syncfs(&disk).unwrap();
    let room = rustix::fs::fstatvfs(&disk).unwrap();
    (room.f_blocks - room.f_bfree) * room.f_frsize
}

fn all_sizes() -> u64 {
    SIZES.iter().map(|(_, size)| *size as u64).sum()
}

fn edits_in_place_have_a_past(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    let mut a = alone(&lab, fill);
    let mut past = vec![as_it_is(&lab, &a)];
    for round in 1..=5 {
        edit(&a, round);
        seen(&a);
        past.push(as_it_is(&lab, &a));
    }
    // Saved as editors do, and removed.
    let aside = lab.path("disk/aside");
    write(&aside, noise("another", 400_000));
    fs::rename(&aside, a.path("dir/disk")).unwrap();
    fs::remove_file(a.path("photo")).unwrap();
    seen(&a);
    past.push(as_it_is(&lab, &a));
    a.restart();
    for entry in json(&a, &["log"]).as_array().unwrap() {
        assert_eq!(entry["content"], "complete", "{entry}");
    }
    assert_all_were(&lab, &a, &past);
    for (number, copy) in past.iter().rev() {
        a.ok(["restore", number]);
        seen(&a);
        assert_same_tree(copy, &a.path(""));
    }
    objects(&a);
    a.ok(["verify"]);
    assert_eq!(names(&a.path(".alike/tmp")), [""; 0]);

    // Of what is in the folder, history takes nothing; the rest goes when nothing needs it any more.
    let taken = objects(&a).len();
    assert!(taken >= 6 * SIZES.len(), "{taken}");
    let told = json(&a, &["gc", "--keep", "1", "--dry-run"]);
    assert!(told["freed_bytes"].as_u64().unwrap() >= 5 * all_sizes(), "{told}");
    json(&a, &["gc", "--keep", "1"]);
    assert_eq!(bytes_of(&objects(&a)), all_sizes());
    assert_eq!(a.field("history_bytes"), 0);
    let nothing = json(&a, &["gc", "--keep", "1", "--dry-run"]);
    assert_eq!(nothing["removed_objects"], 0, "{nothing}");
    let last = generation(&a);
    a.ok(["pin", &last]);
    for (name, _) in SIZES {
        fs::remove_file(a.path(name)).unwrap();
    }
    write(a.path("left"), "something is");
    seen(&a);
    json(&a, &["gc", "--keep", "1"]);
    assert_eq!(a.field("history_bytes"), all_sizes());
    a.ok(["unpin", &last]);
    json(&a, &["gc", "--keep", "1"]);
    assert!(objects(&a).is_empty());
    assert_eq!(a.field("history_bytes"), 0);
    a.ok(["verify"]);
}

#[test]
fn edits_in_place_have_a_past_on_btrfs() {
    edits_in_place_have_a_past(BTRFS);
}

#[test]
fn edits_in_place_have_a_past_on_xfs() {
    edits_in_place_have_a_past(XFS);
}

fn what_was_received_has_a_past_too(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    let (mut a, mut b) = (lab.device("laptop"), on_disk(&lab, lab.device("desktop")));
    fill(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(bytes_of(&objects(&b)), all_sizes());
    let mut past = vec![as_it_is(&lab, &b)];
    // One from afar displaces what has a clone already: it is kept once, and it is the file itself.
    let was = fs::metadata(b.path("film")).unwrap().ino();
    flip(a.path("film"), 1 << 20);
    assert_converged(&[&a, &b]);
    let kept = object(&b, &noise("film", 3 << 20));
    assert_eq!(fs::metadata(kept).unwrap().ino(), was);
    assert_eq!(objects(&b).len(), SIZES.len() + 1);
    past.push(as_it_is(&lab, &b));
    a.stop();
    for round in 1..=2 {
        edit(&b, round);
        seen(&b);
        past.push(as_it_is(&lab, &b));
    }
    assert_all_were(&lab, &b, &past);
    b.ok(["restore", &past[0].0]);
    seen(&b);
    assert_same_tree(&past[0].1, &b.path(""));
    objects(&b);
    a.start();
    assert_converged(&[&a, &b]);
    assert_same_tree(&past[0].1, &a.path(""));
    b.ok(["verify"]);
    for device in [&a, &b] {
        assert_eq!(device.field("conflicts"), 0);
        assert_eq!(device.field("problems"), serde_json::json!([]));
    }
}

#[test]
fn what_was_received_has_a_past_too_on_btrfs() {
    what_was_received_has_a_past_too(BTRFS);
}

#[test]
fn what_was_received_has_a_past_too_on_xfs() {
    what_was_received_has_a_past_too(XFS);
}

fn what_nobody_edits_takes_no_more_room(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    let total = 20 * (4 << 20);
    let fill = |dir: &Path| {
        for n in 0..20 {
            write(
                dir.join(format!("d{}/{n}", n % 3)),
                noise(&format!("{n}"), 4 << 20),
            );
        }
    };
    let mut a = on_disk(&lab, lab.device("laptop"));
    fill(&a.folder);
    let before = used(&lab);
    assert!(before >= total, "{before}");
    a.start();
    a.share();
    seen(&a);
    let after = used(&lab);
    assert!(after < before + total / 8, "{after}, before {before}");
    // Each is one more file, and one received is no more than one hashed.
    assert_eq!(objects(&a).len(), 20);
    let mut b = on_disk(&lab, lab.device("desktop"));
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let both = used(&lab);
    assert!(both < after + total + total / 8, "{both}, one is {after}");
    assert_eq!(objects(&b).len(), 20);
    // Read once.
    let checked = verify(&a, &[], 0)["checked"].as_u64().unwrap();
    fs::remove_dir_all(a.path(".alike/objects")).unwrap();
    assert_eq!(verify(&a, &[], 0)["checked"], checked);
}

#[test]
fn what_nobody_edits_takes_no_more_room_on_btrfs() {
    what_nobody_edits_takes_no_more_room(BTRFS);
}

#[test]
fn what_nobody_edits_takes_no_more_room_on_xfs() {
    what_nobody_edits_takes_no_more_room(XFS);
}

/// Somebody writes between the clone and the hash, by a call and through a map: nothing is kept as what it is not.
fn a_write_in_that_moment(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    let mut a = on_disk(&lab, lab.fallible("laptop"));
    fill(&a.folder);
    a.start();
    a.share();
    seen(&a);
    let mut past = vec![as_it_is(&lab, &a)];
    for round in 0..2 {
        a.kill();
        let held = Hold::new(&a);
        a.launch(&format!("clone.made={}", held.action(1)));
        eventually("it answers", LONG, || a.cmd(["status", "--json"]).code == 0);
        flip(a.path("dir/disk"), 1000 + round);
        held.reached("the clone");
        if round == 0 {
            flip(a.path("dir/disk"), 300_000);
        } else {
            Map::new(a.path("dir/disk")).flip(300_000, 4);
        }
        held.release();
        seen(&a);
        past.push(as_it_is(&lab, &a));
        objects(&a);
    }
    for round in 3..5 {
        edit(&a, round);
        seen(&a);
        past.push(as_it_is(&lab, &a));
    }
    assert_all_were(&lab, &a, &past);
    objects(&a);
    a.ok(["verify"]);
    assert_eq!(names(&a.path(".alike/tmp")), [""; 0]);
}

#[test]
fn a_write_in_that_moment_on_btrfs() {
    a_write_in_that_moment(BTRFS);
}

#[test]
fn a_write_in_that_moment_on_xfs() {
    a_write_in_that_moment(XFS);
}

/// Who keeps a file open and writes to it is not disturbed; what he leaves in it has a past when he is done.
#[test]
fn what_is_open_for_writing_is_cloned_when_it_is_closed() {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), XFS) else {
        return;
    };
    let a = alone(&lab, fill);
    let before = objects(&a).len();
    let open = fs::File::options().write(true).open(a.path("film")).unwrap();
    for n in 0..3 {
        open.write_all_at(b"written while it is open", n << 20).unwrap();
        seen(&a);
    }
    assert_eq!(objects(&a).len(), before);
    drop(open);
    let now = fs::read(a.path("film")).unwrap();
    eventually("it is cloned", LONG, || object(&a, &now).exists());
    assert_eq!(objects(&a).len(), before + 1);
}

/// What the disk does to a file it does to its clone. Brought back, both are.
#[test]
fn what_a_disk_damaged_is_good_again_in_the_past_too() {
    let lab = Lab::new();
    let Some(disk) = Image::new(lab.path("disk"), XFS) else {
        return;
    };
    let (mut a, mut b) = (on_disk(&lab, lab.device("laptop")), lab.device("desktop"));
    fill(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let was = as_it_is(&lab, &a);
    a.stop();
    disk.rot(&a.path("film"), 1 << 20);
    a.start();
    settle(&[&a, &b]);
    found(&verify(&a, &[], 4), &["film"], &[]);
    found(&verify(&a, &["--repair"], 0), &["film"], &["film"]);
    objects(&a);
    b.stop();
    flip(a.path("film"), 2 << 20);
    seen(&a);
    assert_was(&lab, &a, &was.0, &was.1);
    found(&verify(&a, &[], 0), &[], &[]);
}

/// The engine ends at each point of making a clone, of what was saved and of what arrives.
fn killed_while_it_clones(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    let (mut a, mut b) = (lab.device("laptop"), on_disk(&lab, lab.fallible("desktop")));
    fill(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let points = fail_points_of("clone.");
    assert_eq!(points.len(), 2);
    let mut round = 0;
    for point in &points {
        for (is_local, at) in [(true, 1), (false, 1), (true, 2), (false, 2)] {
            round += 1;
            eprintln!("{point}, time {at}, local: {is_local}");
            b.kill();
            edit(if is_local { &b } else { &a }, round);
            b.launch(&format!("{point}=kill@{at}"));
            eventually("it falls", LONG, || b.fell());
            b.start();
            assert_converged(&[&a, &b]);
            assert_eq!(names(&b.path(".alike/tmp")), [""; 0], "{point}");
            objects(&b);
            let was = as_it_is(&lab, &b);
            edit(&b, round + 1);
            assert_converged(&[&a, &b]);
            b.ok(["pause"]);
            assert_was(&lab, &b, &was.0, &was.1);
            b.ok(["resume"]);
            edit(&b, round + 1);
            assert_converged(&[&a, &b]);
        }
    }
    b.ok(["verify"]);
    for device in [&a, &b] {
        assert_eq!(device.field("conflicts"), 0);
        assert_eq!(device.field("problems"), serde_json::json!([]));
    }
}

#[test]
fn killed_while_it_clones_on_btrfs() {
    killed_while_it_clones(BTRFS);
}

#[test]
fn killed_while_it_clones_on_xfs() {
    killed_while_it_clones(XFS);
}
