//! Collections while everything else goes on, and ends of the engine in the middle of one: nothing that is needed is
//! lost, and what nobody needs is gone afterwards.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::harness::*;

fn objects(device: &Device) -> u64 {
    bytes_below(&device.path(".alike/objects"))
}

/// Lets go of all but the newest generation, again and again, until the work is done. How often?
fn collecting<T>(devices: &[&Device], work: impl FnOnce() -> T) -> (T, usize) {
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loops: Vec<_> = devices
            .iter()
            .map(|device| {
                scope.spawn(|| {
                    let mut times = 0;
                    while !ended.load(Ordering::Relaxed) {
                        device.ok(["gc", "--keep", "1"]);
                        times += 1;
                    }
                    times
                })
            })
            .collect();
        let end = Ended(&ended);
        let done = work();
        drop(end);
        let times = loops.into_iter().map(|one| one.join().expect("gc succeeds"));
        (done, times.sum())
    })
}

#[test]
fn many_files_and_a_big_one_arrive_while_both_sides_collect() {
    let (_lab, a, b) = paired(|dir| write(dir.join("first"), "first"));
    let (_, times) = collecting(&[&a, &b], || {
        write(a.path("big"), noise("big", 40 << 20));
        for n in 0..1_500 {
            write(a.path(format!("d{}/{n}", n % 13)), format!("file {n}"));
        }
        settle(&[&a, &b]);
        // Edits and renames of the same, from the other side: what they displace is of no generation for a moment.
        for n in 0..300 {
            write(b.path(format!("d{}/{n}", n % 13)), format!("changed {n}"));
        }
        fs::rename(b.path("d5"), b.path("renamed")).unwrap();
        append(b.path("big"), "more");
        settle(&[&a, &b]);
    });
    assert!(times >= 4, "collected {times} times");
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("problems"), serde_json::json!([]));
    a.ok(["verify"]);
    b.ok(["verify"]);
}

/// What a checkout reads stays until it has read it, though the generation goes; then it goes too.
#[test]
fn a_generation_goes_while_it_is_checked_out() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
    write(a.path("large"), noise("old", 3_000_000));
    write(a.path("displaced"), noise("displaced", 300_000));
    write(a.path("d/small"), "small");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    // Edited in place: only the other device keeps the old one.
    write(a.path("large"), noise("new", 3_000_000));
    settle(&[&a, &b]);
    write(b.path("displaced"), noise("another", 300_000));
    fs::remove_dir_all(b.path("d")).unwrap();
    settle(&[&a, &b]);
    assert!(objects(&a) >= 300_000);
    b.kill();
    let held = Hold::new(&b);
    b.launch(&format!("serve.range={}", held.action(1)));
    settle(&[&a, &b]);
    let to = lab.path("checkout");
    let mut checkout = a
        .command(["checkout".as_ref(), then.as_ref(), to.as_os_str()])
        .spawn()
        .unwrap();
    held.reached("what only the other device has");
    // That device's own collection would take what it is asked for.
    for _ in 0..2 {
        json(&a, &["gc", "--keep", "1"]);
    }
    let gone = lab.path("gone");
    a.fails(
        ["checkout".as_ref(), then.as_ref(), gone.as_os_str()],
        1,
        &["no generation"],
    );
    assert!(objects(&a) >= 300_000, "what the checkout needs stays");
    held.release();
    assert!(checkout.wait().unwrap().success());
    assert_same_tree(&was, &to);
    // What was put there in the last moment before a collection (20 ms) is left to the next.
    eventually("that moment is over", LONG, || {
        let moved = newest_move_below(&a.path(".alike/objects")).expect("it is there still");
        SystemTime::now()
            .duration_since(moved)
            .is_ok_and(|age| age > Duration::from_millis(50))
    });
    json(&a, &["gc", "--keep", "1"]);
    assert_eq!(objects(&a), 0, "and goes when it has ended");
}

#[test]
fn a_restore_from_elsewhere_is_whole_while_both_sides_collect() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
    for n in 0..200 {
        write(a.path(format!("d{}/{n}", n % 5)), format!("file {n}"));
    }
    write(a.path("large"), noise("old", 3_000_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    for n in 0..200 {
        write(a.path(format!("d{}/{n}", n % 5)), format!("changed {n}"));
    }
    write(a.path("large"), noise("new", 3_000_000));
    settle(&[&a, &b]);
    b.kill();
    let held = Hold::new(&b);
    b.launch(&format!("serve.range={}", held.action(1)));
    settle(&[&a, &b]);
    a.ok(["restore", &then]);
    held.reached("what only the other device has");
    let (_, times) = collecting(&[&a, &b], || {
        held.release();
        settle(&[&a, &b]);
    });
    assert!(times > 0);
    assert_converged(&[&a, &b]);
    assert_same_tree(&was, &a.path(""));
    assert_eq!(a.field("conflicts"), 0);
}

/// What a collection would free is what it frees, with the verification trees of big files.
#[test]
fn what_would_go_is_told_with_all_that_belongs_to_it() {
    let (_lab, a, b) = paired(|dir| write(dir.join("large"), noise("old", 3_000_000)));
    write(b.path("large"), noise("new", 3_000_000));
    settle(&[&a, &b]);
    let outboards = || bytes_below(&a.home.join("outboards"));
    let before = outboards();
    let told = json(&a, &["gc", "--keep", "1", "--dry-run"]);
    assert_eq!((outboards(), objects(&a)), (before, 3_000_000));
    json(&a, &["gc", "--keep", "1"]);
    let gone = before - outboards();
    assert!(gone > 0);
    let said = told["freed_bytes"].as_u64().unwrap();
    assert!(
        (3_000_000 + gone..3_000_000 + gone + 10_000).contains(&said),
        "{told}, of trees {gone}"
    );
}

/// The engine ends at each point of a collection: what is kept is there, and the next one ends what was begun.
#[test]
fn killed_in_the_middle_of_a_collection() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    write(a.path("large"), noise("0", 200_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let points = fail_points_of("gc.");
    assert_eq!(points.len(), 11);
    for (round, point) in points.iter().enumerate() {
        eprintln!("{point}");
        let mut kept = Vec::new();
        for n in 0..3 {
            // Displaced here, and packed here.
            write(b.path("large"), noise(&format!("{round} {n}"), 200_000));
            write(b.path("small"), noise(&format!("{round} {n} small"), 30_000));
            settle(&[&a, &b]);
            kept.push((generation(&a), copy_of(&a, lab.path(&format!("{round} {n}")))));
        }
        a.ok(["pin", &kept[0].0]);
        a.kill();
        a.launch(&format!("{point}=kill"));
        eventually("it falls", LONG, || {
            let _ = a.cmd(["gc", "--keep", "1"]);
            a.fell()
        });
        a.start();
        let as_it_was = |(number, copy): &(String, PathBuf)| assert_was(&lab, &a, number, copy);
        as_it_was(&kept[0]);
        as_it_was(&kept[2]);
        a.ok(["gc", "--keep", "1"]);
        as_it_was(&kept[0]);
        as_it_was(&kept[2]);
        // Only the pinned generation has anything that is not in the folder; its small file is packed.
        assert_eq!(objects(&a), 200_000, "{point}");
        let packs = bytes_below(&a.home.join("packs"));
        assert!(packs <= 2 * 2 * 30_036 + 1_000, "{point}: {packs} bytes of packs");
        a.ok(["unpin", &kept[0].0]);
        settle(&[&a, &b]);
    }
    a.ok(["gc", "--keep", "1"]);
    assert_eq!(objects(&a), 0);
    assert_converged(&[&a, &b]);
    a.ok(["verify"]);
}

/// Most of two hundred generations go: the space comes back, of the database too, and status says so.
#[test]
fn letting_go_of_190_generations_gives_the_space_back() {
    let (_lab, a, b) = paired(|dir| {
        for n in 0..400 {
            write(dir.join(format!("d{}/{n}", n % 8)), format!("file {n}"));
        }
        for n in 0..20 {
            write(dir.join(format!("large {n}")), noise(&format!("{n}"), 100_000));
        }
    });
    for n in 1..=200 {
        let (large, small) = (noise(&format!("{n}"), 100_000), noise(&format!("s{n}"), 2_000));
        // A file that is written to all the time is waited for.
        let (to, small_to) = (format!("large {}", n % 20), format!("d0/{}", 8 * (n % 20)));
        write(b.path(&to), &large);
        write(b.path(&small_to), &small);
        // What each generation leaves in the database is mostly tree nodes, one directory's each.
        for dir in 1..8 {
            write(b.path(format!("d{dir}/{dir}")), format!("{n}"));
        }
        let is_there = |name, content: &[u8]| fs::read(a.path(name)).is_ok_and(|found| found == content);
        eventually("it arrives", LONG, || {
            is_there(&to, &large) && is_there(&small_to, &small)
        });
    }
    settle(&[&a, &b]);
    let packs = || bytes_below(&a.home.join("packs"));
    let packed = packs();
    assert!(packed >= 150 * 2_000, "{packed}");
    let database = || fs::metadata(a.home.join("alike.redb")).unwrap().len();
    let (large, full) = (objects(&a), database());
    assert!(large >= 150 * 100_000, "{large}");
    assert_eq!(a.status()["packed_bytes"], packed);
    let done = json(&a, &["gc", "--keep", "10"]);
    assert!(done["removed_generations"].as_u64().unwrap() >= 190, "{done}");
    assert_eq!(done["kept_generations"], 10, "{done}");
    let after = objects(&a);
    assert!(after <= 10 * 100_000, "{after} of {large}");
    assert_eq!(a.field("history_bytes"), after, "status has counted again");
    assert!(database() < full / 2, "{} of {full}", database());
    assert!(packs() < packed / 3, "{} of {packed}", packs());
    assert_eq!(a.status()["packed_bytes"], packs());
    assert_converged(&[&a, &b]);
    a.ok(["verify"]);
}

/// A collection packs what only the past needs of the database, and nobody can tell but by its size.
#[test]
fn the_past_takes_less_after_a_collection_and_is_what_it_was() {
    let (lab, mut a, b) = paired(|dir| {
        for n in 0..400 {
            write(dir.join(format!("d{}/{n}", n % 8)), format!("file {n}"));
        }
    });
    let mut was = Vec::new();
    for n in 1..=80 {
        for dir in 0..8 {
            write(b.path(format!("d{dir}/{}", dir + 8 * (n % 20))), format!("{n}"));
        }
        settle(&[&a, &b]);
        if n % 20 == 1 {
            was.push((generation(&a), copy_of(&a, lab.path(&format!("was {n}")))));
        }
    }
    let log = json(&a, &["log", "-n", "1000"]);
    let database = || fs::metadata(a.home.join("alike.redb")).unwrap().len();
    a.ok(["gc", "--keep", "1000"]);
    // Else twice as much, of which most would be nodes.
    assert!(database() < 1_200_000, "{} bytes", database());
    let check = |a: &Device| {
        assert_eq!(json(a, &["log", "-n", "1000"]), log);
        for (number, copy) in &was {
            assert_was(&lab, a, number, copy);
        }
        a.ok(["verify"]);
    };
    check(&a);
    a.stop();
    a.start();
    check(&a);
    a.ok(["restore", &was[0].0]);
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_same_tree(&a.folder, &was[0].1);
}
