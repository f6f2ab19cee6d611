//! Bringing back what is damaged: a content in a pack, a file while the engine dies at each step, all of it by a run that
//! was cut off; and a folder whose database cannot be used any more.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::json;

use crate::harness::*;

/// The place of a content in the first pack of a device.
fn in_pack(device: &Device, content: &[u8]) -> u64 {
    let pack = fs::read(device.home.join("packs/00000000")).unwrap();
    let at = pack.windows(content.len()).position(|window| window == content);
    at.expect("it is packed") as u64
}

#[test]
fn a_bit_of_a_pack_is_found_and_the_content_comes_from_the_other_device() {
    let old = noise("old", 3_000);
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("notes"), noise("old", 3_000));
        write(dir.join("twin"), noise("twin", 3_000));
        write(dir.join("other"), "something else");
        write(dir.join("third"), "a third one");
    });
    let generation = a.field("generation").to_string();
    write(a.path("notes"), "new");
    assert_converged(&[&a, &b]);
    flip(a.home.join("packs/00000000"), in_pack(&a, &old) + 100);
    flip(
        a.home.join("packs/00000000"),
        in_pack(&a, &noise("twin", 3_000)) + 100,
    );
    let name = |content: &[u8]| format!("packs#{}", blake3::hash(content).to_hex());
    let (lost, twin) = (name(&old), name(&noise("twin", 3_000)));
    let answer = verify(&a, &[], 4);
    let damaged = answer["damaged"].as_array().unwrap();
    assert!(damaged.len() == 2 && damaged.contains(&json!(lost)) && damaged.contains(&json!(twin)));
    assert!(problem(&a, &lost).is_some() && problem(&a, &twin).is_some());
    let answer = verify(&a, &["--repair"], 0);
    assert_eq!(answer["repaired"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(a.field("problems"), json!([]));
    found(&verify(&a, &[], 0), &[], &[]);
    // It is here again, and not only there.
    let mut b = b;
    b.stop();
    let kept = a.corner.join("kept");
    a.ok([
        "checkout".as_ref(),
        generation.as_str().as_ref(),
        kept.as_os_str(),
    ]);
    assert!(fs::read(kept.join("notes")).unwrap() == old);
}

#[test]
fn a_repair_that_is_cut_off_leaves_the_whole_old_or_the_whole_new_content() {
    let lab = Lab::new();
    let Some(disk) = Image::new(lab.path("disk"), EXT4) else {
        return;
    };
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    a.folder = lab.path("disk/docs");
    write(a.path("doc"), noise("doc", 300_000));
    write(a.path("other"), noise("other", 3_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let good = fs::read(a.path("doc")).unwrap();
    let points = [
        "repair.begin",
        "move.replace",
        "move.exchanged",
        "move.verified",
        "move.kept",
        "repair.moved",
        "repair.done",
    ];
    for point in points {
        // Its times prove something, and its damage leaves none.
        a.restart();
        a.wait_in_sync();
        let (root, generation) = (a.field("root"), a.field("generation"));
        a.stop();
        disk.rot(&a.path("doc"), 2000);
        let bad = fs::read(a.path("doc")).unwrap();
        a.launch(&format!("{point}=kill"));
        eventually("it runs", LONG, || a.cmd(["status"]).code == 0);
        a.wait_in_sync();
        assert_ne!(a.cmd(["verify", "--repair"]).code, 0, "{point}");
        eventually("it falls", LONG, || a.fell());
        let now = fs::read(a.path("doc")).unwrap();
        assert!(now == good || now == bad, "{point}: neither whole");
        a.start();
        settle(&[&a, &b]);
        assert_eq!(
            (a.field("root"), a.field("generation")),
            (root, generation),
            "{point}: nothing is published"
        );
        verify(&a, &["--repair"], 0);
        assert!(fs::read(a.path("doc")).unwrap() == good, "{point}");
        assert!(
            fs::read(object(&a, &bad)).unwrap() == bad,
            "{point}: what was there is kept"
        );
        let tmp = fs::read_dir(a.path(".alike/tmp")).unwrap().count();
        assert_eq!(tmp, 0, "{point}: left in .alike/tmp");
        found(&verify(&a, &[], 0), &[], &[]);
        assert_converged(&[&a, &b]);
        assert_eq!(b.field("conflicts"), 0);
        fs::remove_file(object(&a, &bad)).unwrap();
    }
}

#[test]
fn a_verification_that_is_cut_off_is_gone_on_with() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    for n in 0..300 {
        write(a.path(format!("{n}")), format!("file {n}"));
    }
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    a.stop();
    let hold = Hold::new(&a);
    a.launch(&format!("verify.file={}", hold.action(201)));
    eventually("it runs", LONG, || a.cmd(["status"]).code == 0);
    let mut cut = a
        .command(["verify"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    hold.reached("the 201st file");
    cut.kill().unwrap();
    cut.wait().unwrap();
    hold.release();
    let checked = |answer: serde_json::Value| answer["checked"].as_u64().unwrap();
    let rest = checked(verify(&a, &[], 0));
    let all = checked(verify(&a, &[], 0));
    assert!(
        rest + 200 <= all && rest + 300 > all,
        "{rest} were left of {all}: 200 files had been read"
    );
}

/// How an engine of this device begins on its database: it runs (`None`), or ends and says why.
fn begins(device: &Device) -> Option<String> {
    let mut engine = device
        .command(["watch"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = poll(LONG, || match engine.try_wait().unwrap() {
        Some(_) => Some(true),
        None => (device.cmd(["status"]).code == 0).then_some(false),
    });
    if !ended.expect("it runs or ends") {
        device.wait_in_sync();
        device.ok(["stop"]);
        engine.wait().unwrap();
        return None;
    }
    let mut said = String::new();
    engine.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    Some(said)
}

#[test]
fn whatever_bit_of_the_database_flips_nothing_of_it_spreads() {
    let (_lab, mut a, b) = paired(|dir| {
        for n in 0..60 {
            write(dir.join(format!("{n}")), format!("file {n}"));
        }
    });
    a.stop();
    let wanted = snapshot(&b.folder);
    let database = a.home.join("alike.redb");
    let whole = fs::read(&database).unwrap();
    let mut dice = Dice::new("bits of the database");
    // The header: magic number, flags, page size, both commit slots; then anywhere.
    let mut places: Vec<u64> = [0, 9, 12, 20, 64, 72, 100, 128, 192, 200, 250].to_vec();
    places.extend((0..14).map(|_| dice.below(whole.len() as u64)));
    let mut refused = 0;
    for at in places {
        fs::write(&database, &whole).unwrap();
        flip(&database, at);
        if let Some(said) = begins(&a) {
            refused += 1;
            let clear = said.contains("is damaged") && said.contains("move it away");
            assert!(clear, "byte {at}: {said}");
        }
        assert_eq!(snapshot(&a.folder), wanted, "byte {at}");
        assert_eq!(snapshot(&b.folder), wanted, "byte {at}");
        assert_eq!(b.field("conflicts"), 0, "byte {at}");
    }
    assert!(refused > 0, "none was noticed");
    fs::write(&database, &whole).unwrap();
    assert_eq!(begins(&a), None);
}

#[test]
fn without_its_database_a_device_comes_back_as_the_readme_says() {
    let (_lab, mut a, mut b) = paired(|dir| {
        for n in 0..20 {
            write(dir.join(format!("{n}")), noise(&n.to_string(), 10_000));
        }
    });
    a.stop();
    flip(a.home.join("alike.redb"), 0);
    let said = begins(&a).expect("it does not start on that");
    assert!(
        said.contains("sync share") && said.contains("sync pair"),
        "{said}"
    );
    // Meanwhile both go on.
    write(a.path("1"), "edited here");
    write(a.path("made here"), "made here");
    write(b.path("2"), "edited there");
    fs::rename(a.home.join("alike.redb"), a.home.join("alike.redb.bad")).unwrap();
    a.start();
    let before = b.field("sent_bytes").as_u64().unwrap();
    let ticket = b.share();
    a.ok(a.pair_args(&ticket));
    assert_converged(&[&a, &b]);
    for text_of_one in ["edited here", "edited there", "made here"] {
        let there = snapshot(&b.folder);
        let digest = blake3::hash(text_of_one.as_bytes()).to_hex().to_string();
        let is_it = |node: &Node| matches!(node, Node::File { digest: d, .. } if *d == digest);
        assert!(there.values().any(is_it), "{text_of_one}");
    }
    let sent = b.field("sent_bytes").as_u64().unwrap() - before;
    assert!(sent < 50_000, "what is equal is not sent again: {sent}");
    assert_eq!(a.field("problems"), json!([]));
    // And it goes on as before.
    write(a.path("3"), "edited later");
    fs::remove_file(b.path("4")).unwrap();
    assert_converged(&[&a, &b]);
    assert!(!a.path("4").exists() && text(b.path("3")) == "edited later");
    b.restart();
    assert_converged(&[&a, &b]);
}
