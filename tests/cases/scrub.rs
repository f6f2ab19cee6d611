//! What the engine reads again by itself, in the background: damage is found and said, nothing is changed, and a round goes
//! on where it was.

use std::fs;

use serde_json::json;

use crate::harness::*;

/// Rounds as short as this (days) take as long as reading takes.
const SHORT: &str = "0.0005";
/// A second one does not begin while a test runs.
const LONGER: &str = "0.01";

#[test]
fn the_scrub_finds_what_nobody_looks_at_and_repairs_nothing() {
    let lab = Lab::new();
    let Some(disk) = Image::new(lab.path("disk"), EXT4) else {
        return;
    };
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    a.set_env("ALIKE_SCRUB_DAYS", "off");
    a.folder = lab.path("disk/docs");
    write(a.path("doc"), noise("doc", 300_000));
    write(a.path("displaced"), noise("displaced", 100_000));
    write(a.path("twin"), noise("displaced", 100_000));
    write(a.path("small"), noise("small", 2_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(a.status()["scrub"]["every_days"], json!(null));
    write(b.path("displaced"), "another one");
    write(b.path("small"), "another one, too");
    assert_converged(&[&a, &b]);
    a.restart();
    a.wait_in_sync();
    a.stop();

    disk.rot(&a.path("doc"), 1234);
    let object = object(&a, &noise("displaced", 100_000));
    flip(&object, 4321);
    let pack = fs::read(a.home.join("packs/00000000")).unwrap();
    let small = noise("small", 2_000);
    let at = pack.windows(2_000).position(|window| window == small).unwrap();
    flip(a.home.join("packs/00000000"), at as u64 + 99);
    let packed = format!("packs#{}", blake3::hash(&small).to_hex());
    let object = object
        .strip_prefix(&a.folder)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();

    a.set_env("ALIKE_SCRUB_DAYS", SHORT);
    a.start();
    let (root, bad) = (a.field("root"), fs::read(a.path("doc")).unwrap());
    let all = ["doc", object.as_str(), packed.as_str()];
    eventually("all three are said", LONG, || {
        all.iter().all(|path| problem(&a, path).is_some())
    });
    eventually("a round is over", LONG, || {
        a.status()["scrub"]["last_round"].is_string()
    });
    assert!(
        a.ok(["status"]).contains("last read again and compared"),
        "also for a person"
    );
    for path in all {
        let hint = problem(&a, path).unwrap()["hint"].to_string();
        assert!(hint.contains("sync verify --repair"), "{hint}");
    }
    settle(&[&a, &b]);
    assert_eq!(a.field("root"), root);
    assert!(fs::read(a.path("doc")).unwrap() == bad, "it repairs nothing");
    assert!(fs::read(b.path("doc")).unwrap() == noise("doc", 300_000));
    a.restart();
    for path in all {
        assert!(problem(&a, path).is_some(), "known after a restart: {path}");
    }
    let answer = verify(&a, &["--repair"], 0);
    assert_eq!(answer["repaired"].as_array().unwrap().len(), 3, "{answer}");
    assert_eq!(a.field("problems"), json!([]));
    assert!(fs::read(a.path("doc")).unwrap() == noise("doc", 300_000));
    a.set_env("ALIKE_SCRUB_DAYS", "off");
    a.restart();
    found(&verify(&a, &[], 0), &[], &[]);
    assert_eq!(a.field("problems"), json!([]));
}

#[test]
fn a_round_goes_on_where_it_was_when_the_engine_ended() {
    let (_lab, mut a, _b) = paired(|dir| {
        for n in 0..400 {
            write(dir.join(format!("{n}")), format!("file {n}"));
        }
    });
    a.set_env("ALIKE_SCRUB_DAYS", LONGER);
    a.restart();
    let checked = |a: &Device| a.status()["scrub"]["checked"].as_u64().unwrap();
    eventually("it has come to some", LONG, || checked(&a) > 50);
    a.stop();
    a.start();
    let (before, began) = (checked(&a), a.status()["scrub"]["began"].clone());
    assert!(before > 50, "{before} were read before the restart");
    assert_eq!(
        a.status()["scrub"]["last_round"],
        json!(null),
        "the round is not over"
    );
    eventually("the round is over", LONG, || {
        a.status()["scrub"]["last_round"].is_string()
    });
    assert_eq!(
        a.status()["scrub"]["began"],
        began,
        "it is the one that began before"
    );
    assert!(checked(&a) > 800, "files, packed contents and nodes");
    assert_eq!(a.field("problems"), json!([]));
}
