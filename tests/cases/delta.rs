//! A big file that was changed crosses the wire for about what changed in it, whatever happens meanwhile.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::harness::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Large enough for three levels of inner hashes, and for more than one request for what is missing.
const SIZE: usize = 40 << 20;

/// What `device` has received since its engine started, of contents and of what is told about them.
fn received(device: &Device) -> u64 {
    device.field("received_bytes").as_u64().expect("a number")
}

/// Two devices that have the file `big`.
fn pair_with(big: &[u8]) -> (Lab, Device, Device) {
    paired(|folder| write(folder.join("big"), big))
}

/// Puts `content` at `path` of the device in one step.
fn save(device: &Device, path: &str, content: &[u8]) {
    let aside = device.corner.join("aside");
    write(&aside, content);
    fs::rename(&aside, device.path(path)).expect("into its place");
}

#[track_caller]
fn assert_has(device: &Device, path: &str, content: &[u8]) {
    let there = fs::read(device.path(path)).expect("it is there");
    assert!(
        there == content,
        "{path} on the {} is something else",
        device.name
    );
}

#[test]
fn an_edit_of_a_big_file_costs_about_its_size() {
    let mut now = noise("delta", SIZE);
    let (_lab, a, b) = pair_with(&now);
    let mut before = received(&b);
    let mut costs = |what: &str, most: u64, content: &[u8]| {
        save(&a, "big", content);
        assert_converged(&[&a, &b]);
        assert_has(&b, "big", content);
        let now = received(&b);
        let cost = now - before;
        before = now;
        eprintln!("{what}: {cost} bytes");
        assert!(cost <= most, "{what} costs {cost} bytes");
    };
    now[11 << 20] ^= 1;
    costs("one byte", 64 * KIB, &now);
    now.extend(noise("appended", 1 << 20));
    costs("appended", MIB + 64 * KIB, &now);
    now.splice(0..0, noise("inserted", 4096));
    costs("inserted in front", MIB, &now);
    for i in 0..10 {
        let at = i * (4 << 20) + 12_345;
        now[at..at + 4096].copy_from_slice(&noise(&i.to_string(), 4096));
    }
    costs("scattered", 10 * 48 * KIB, &now);
    now.drain(3 << 20..5 << 20);
    costs("removed from the middle", MIB, &now);
    now.truncate(20 << 20);
    costs("cut off", 64 * KIB, &now);

    // And back, over what came the same way.
    let sent = received(&a);
    let mut there = now.clone();
    there[1 << 20] ^= 1;
    save(&b, "big", &there);
    assert_converged(&[&a, &b]);
    assert_has(&a, "big", &there);
    assert!(received(&a) - sent <= 64 * KIB);
}

#[test]
fn a_conflict_copy_of_a_big_file_costs_what_differs() {
    let old = noise("conflict", SIZE);
    let (_lab, mut a, mut b) = pair_with(&old);
    a.stop();
    b.stop();
    let edit = |at: usize| {
        let mut new = old.clone();
        new[at] ^= 1;
        new
    };
    let (of_a, of_b) = (edit(3 << 20), edit(30 << 20));
    save(&a, "big", &of_a);
    save(&b, "big", &of_b);
    a.start();
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(names(&a.folder).len(), 2, "both versions");
    for device in [&a, &b] {
        assert!(
            received(device) < MIB,
            "{} on the {}",
            received(device),
            device.name
        );
    }
}

#[test]
fn a_sparse_file_stays_sparse() {
    let mut big = vec![0; SIZE];
    big[5 << 20..6 << 20].copy_from_slice(&noise("sparse", 1 << 20));
    let blocks = |device: &Device| fs::metadata(device.path("big")).unwrap().blocks() * 512;
    let (_lab, a, b) = pair_with(&big);
    assert!(blocks(&b) <= 4 * MIB, "as it came: {}", blocks(&b));
    big[20 << 20] = 1;
    save(&a, "big", &big);
    assert_converged(&[&a, &b]);
    assert_has(&b, "big", &big);
    assert!(blocks(&b) <= 4 * MIB, "as it was changed: {}", blocks(&b));
}

/// The older version is being written while it is copied: what was saved there is kept, and nothing of it gets into the newer one.
#[test]
fn an_older_version_that_is_edited_while_it_is_copied() {
    for point in ["fetch.big.compared", "fetch.big.copied"] {
        let lab = Lab::new();
        let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
        let old = noise("edited", SIZE);
        write(a.path("big"), &old);
        a.start();
        b.start();
        pair(&a, &b);
        assert_converged(&[&a, &b]);
        b.kill();
        let mut new = old.clone();
        new[30 << 20] ^= 1;
        save(&a, "big", &new);
        let hold = Hold::new(&b);
        b.launch(&format!("{point}={}", hold.action(1)));
        hold.reached(point);
        let file = OpenOptions::new().write(true).open(b.path("big")).unwrap();
        let edit = noise("an edit", 3 << 20);
        file.write_all_at(&edit, 10 << 20).unwrap();
        drop(file);
        hold.release();
        assert_converged(&[&a, &b]);
        let mut edited = old.clone();
        edited[10 << 20..13 << 20].copy_from_slice(&edit);
        let there: Vec<Vec<u8>> = names(&a.folder)
            .iter()
            .map(|name| fs::read(a.path(name)).unwrap())
            .collect();
        assert_eq!(there.len(), 2, "both versions, {point}");
        assert!(there.contains(&new) && there.contains(&edited), "{point}");
    }
}

/// What was copied and noted is not copied again, and the rest still is a delta.
#[test]
fn killed_while_it_copies_from_an_older_version() {
    for point in [
        "fetch.big.compared",
        "fetch.big.copied",
        "fetch.big.piece",
        "fetch.big.whole",
    ] {
        let lab = Lab::new();
        let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
        let mut big = noise("killed", SIZE);
        write(a.path("big"), &big);
        a.start();
        b.start();
        pair(&a, &b);
        assert_converged(&[&a, &b]);
        b.kill();
        big[30 << 20] ^= 1;
        save(&a, "big", &big);
        b.launch(&format!("{point}=kill"));
        eventually("it falls", LONG, || b.fell());
        b.start();
        assert_converged(&[&a, &b]);
        assert_has(&b, "big", &big);
        assert!(received(&b) <= 64 * KIB, "{point}: {}", received(&b));
        assert!(names(&b.path(".alike/tmp")).is_empty(), "{point}");
    }
}

/// A line that never holds for a whole piece gets on all the same.
#[test]
fn what_came_before_a_piece_broke_off_is_not_fetched_again() {
    let lab = Lab::new();
    let (mut a, b) = (lab.fallible("laptop"), lab.running("desktop"));
    let big = noise("broken off", 16 << 20);
    write(a.path("small"), "small");
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    a.stop();
    write(a.path("big"), &big);
    a.launch("serve.part=error@10");
    eventually("it answers", LONG, || a.cmd(["status", "--json"]).code == 0);
    assert_converged(&[&a, &b]);
    assert_has(&b, "big", &big);
    let cost = received(&b);
    assert!(cost < 19 * MIB, "{cost}");
}

/// Two devices have the new version; the third has an older one, and gets the rest from both.
#[test]
fn a_large_change_comes_from_several() {
    let lab = Lab::new();
    let (a, b, mut c) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("server"),
    );
    let mut big = noise("several", SIZE);
    fs::create_dir_all(&a.folder).unwrap();
    write(a.path("big"), &big);
    pair(&a, &b);
    pair(&a, &c);
    pair(&b, &c);
    assert_converged(&[&a, &b, &c]);
    c.stop();
    big[..20 << 20].copy_from_slice(&noise("half of it", 20 << 20));
    save(&a, "big", &big);
    assert_converged(&[&a, &b]);
    c.start();
    assert_converged(&[&a, &b, &c]);
    assert_has(&c, "big", &big);
    let cost = received(&c);
    assert!((20 * MIB..21 * MIB).contains(&cost), "{cost}");
}
