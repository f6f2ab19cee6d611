//! Bit rot, and what only looks like it. Rot is made by a memory map on a tmpfs, whose files keep their times then, while
//! nobody watches.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::harness::*;

/// Two devices, the first one's folder on a tmpfs. `None`, and said so, where that cannot be mounted.
fn on_tmpfs(lab: &Lab) -> Option<(Tmpfs, Device, Device)> {
    let disk = Tmpfs::new(lab.path("disk"), 64 << 10)?;
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    a.folder = lab.path("disk/docs");
    write(a.path("doc"), noise("doc", 300_000));
    write(a.path("big"), noise("big", 3 << 20));
    write(a.path("dir/small"), "a small file");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    Some((disk, a, b))
}

fn times(path: &Path) -> (i64, i64, i64, i64, u64) {
    let meta = fs::metadata(path).unwrap();
    let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    (times.0, times.1, times.2, times.3, meta.ino())
}

/// A map of a file: what is written to it leaves no trace. Its times prove something to the engine by now.
fn quiet_map(device: &mut Device, path: &str) -> Map {
    device.restart();
    eventually("everything was looked at", LONG, || {
        device.field("state") == "idle"
    });
    Map::new(device.path(path))
}

/// Damages a file of a device so that its fingerprint stays the same. The engine has seen nothing of it.
fn rot(device: &mut Device, path: &str) {
    let map = quiet_map(device, path);
    device.stop();
    let before = times(&device.path(path));
    map.flip(
        1000.min(fs::metadata(device.path(path)).unwrap().len() as usize - 1),
        1,
    );
    drop(map);
    assert_eq!(times(&device.path(path)), before, "it leaves no trace");
    device.start();
    eventually("everything was looked at", LONG, || {
        device.field("state") == "idle"
    });
}

#[test]
fn rot_is_found_said_and_brought_back_and_never_published() {
    let lab = Lab::new();
    let Some((_disk, mut a, b)) = on_tmpfs(&lab) else {
        return;
    };
    found(&verify(&a, &[], 0), &[], &[]);
    for path in ["doc", "big"] {
        let good = fs::read(a.path(path)).unwrap();
        rot(&mut a, path);
        settle(&[&a, &b]);
        let (root, generation) = (a.field("root"), a.field("generation"));
        let before = times(&a.path(path));
        let bad = fs::read(a.path(path)).unwrap();
        assert_ne!(bad, good);

        found(&verify(&a, &[], 4), &[path], &[]);
        let said = problem(&a, path).expect("the status names it");
        assert!(
            said["hint"].as_str().unwrap().contains("sync verify --repair"),
            "{said}"
        );
        let told = a.cmd(["verify"]);
        assert_eq!(told.code, 4);
        assert!(told.stdout.contains(path), "{}", told.stdout);
        // Whatever looks at it takes it for no edit: neither a program that only opens it, nor another mode.
        drop(fs::File::options().write(true).open(a.path(path)).unwrap());
        set_mode(a.path(path), 0o600);
        settle(&[&a, &b]);
        assert_eq!(
            (a.field("root"), a.field("generation")),
            (root.clone(), generation.clone())
        );
        assert_eq!(fs::read(b.path(path)).unwrap(), good);
        assert!(problem(&a, path).is_some());

        found(&verify(&a, &["--repair"], 0), &[path], &[path]);
        assert!(fs::read(a.path(path)).unwrap() == good, "{path} is what it was");
        let now = times(&a.path(path));
        assert_eq!((now.0, now.1), (before.0, before.1), "the time of its last edit");
        assert_eq!(fs::metadata(a.path(path)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(problem(&a, path), None);
        assert!(
            fs::read(object(&a, &bad)).unwrap() == bad,
            "what was there is kept"
        );
        assert!(!object(&a, &good).exists());
        found(&verify(&a, &[], 0), &[], &[]);
        settle(&[&a, &b]);
        assert_eq!((a.field("root"), a.field("generation")), (root, generation));
    }
    // An edit of the repaired file is one like any other.
    append(a.path("doc"), "more");
    assert_converged(&[&a, &b]);
}

#[test]
fn a_peer_that_asks_for_rotten_content_does_not_get_it_until_a_person_says_that_it_is_right() {
    let lab = Lab::new();
    let Some((_disk, mut a, mut b)) = on_tmpfs(&lab) else {
        return;
    };
    b.stop();
    rot(&mut a, "doc");
    let root = a.field("root");
    let mut c = lab.device("server");
    c.start();
    pair(&a, &c);
    eventually("the device that serves it notices", LONG, || {
        problem(&a, "doc").is_some()
    });
    eventually("everything else arrives", LONG, || {
        c.field("pending")["files"] == 1 && c.path("big").exists()
    });
    assert!(!c.path("doc").exists());
    assert_eq!(a.field("root"), root);
    // Nobody who is here has it.
    found(&verify(&a, &["--repair"], 4), &["doc"], &[]);

    set_mtime(a.path("doc"), 1_700_000_000);
    assert_converged(&[&a, &c]);
    assert_eq!(problem(&a, "doc"), None);
    assert_ne!(a.field("root"), root);
    b.start();
    assert_converged(&[&a, &b, &c]);
}

#[test]
fn what_a_program_writes_through_a_memory_map_is_an_edit() {
    let lab = Lab::new();
    let Some((_disk, mut a, b)) = on_tmpfs(&lab) else {
        return;
    };
    let map = quiet_map(&mut a, "doc");
    let before = times(&a.path("doc"));
    map.flip(1000, 1);
    // While it is open nobody can tell: it is not damage.
    found(&verify(&a, &[], 0), &[], &[]);
    drop(map);
    assert_eq!(times(&a.path("doc")), before, "it leaves no trace");
    assert_converged(&[&a, &b]);
    assert!(fs::read(b.path("doc")).unwrap() != noise("doc", 300_000));
    found(&verify(&a, &[], 0), &[], &[]);
    assert_eq!(a.field("problems"), json!([]));
}

/// Where times tell of what is written through a map, they do so at the first write to a page that is not being written
/// back yet: not of what follows until then.
#[test]
fn what_a_map_writes_between_a_look_and_a_sync_is_an_edit_also_when_nobody_sees_its_end() {
    let lab = Lab::new();
    // One of its own, that nobody else syncs.
    let Some(_disk) = Image::new(lab.path("disk"), EXT4) else {
        return;
    };
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    a.folder = lab.path("disk/docs");
    write(a.path("doc"), noise("doc", 300_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    for (seen, mode) in [(true, 0o600), (false, 0o640)] {
        a.stop();
        let hold = Hold::new(&a);
        a.launch(&format!("commit.sync={}", hold.action(1)));
        eventually("it runs", LONG, || a.cmd(["status"]).code == 0);
        a.wait_in_sync();
        let map = Map::new(a.path("doc"));
        map.flip(1000, 1);
        // So that somebody looks.
        set_mode(a.path("doc"), mode);
        hold.reached("a change that was read and is not synced");
        let before = times(&a.path("doc"));
        map.flip(1001, 1);
        assert_eq!(times(&a.path("doc")), before, "it leaves no trace");
        hold.release();
        settle(&[&a, &b]);
        if !seen {
            a.stop();
        }
        drop(map);
        assert_eq!(times(&a.path("doc")), before, "nor does its end");
        if !seen {
            a.start();
        }
        assert_converged(&[&a, &b]);
        assert_eq!(a.field("problems"), json!([]));
        found(&verify(&a, &[], 0), &[], &[]);
    }
}

#[test]
fn a_rotten_file_that_is_replaced_from_afar_is_not_kept_as_what_it_was() {
    let lab = Lab::new();
    let Some((_disk, mut a, b)) = on_tmpfs(&lab) else {
        return;
    };
    let good = fs::read(a.path("doc")).unwrap();
    rot(&mut a, "doc");
    let bad = fs::read(a.path("doc")).unwrap();
    verify(&a, &[], 4);
    write(b.path("doc"), "edited on the other side");
    assert_converged(&[&a, &b]);
    assert_eq!(problem(&a, "doc"), None);
    assert!(!object(&a, &good).exists());
    assert!(fs::read(object(&a, &bad)).unwrap() == bad);
    found(&verify(&a, &[], 0), &[], &[]);
}

#[test]
fn a_damaged_version_that_was_displaced_is_found_and_replaced() {
    let old = noise("old", 50_000);
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("doc"), noise("old", 50_000));
        write(dir.join("same"), noise("old", 50_000));
        write(dir.join("alone"), noise("alone", 100_000));
        write(dir.join("other"), "something else");
    });
    write(b.path("doc"), "new");
    write(b.path("alone"), "new too");
    assert_converged(&[&a, &b]);
    let (kept, lost) = (object(&a, &old), object(&a, &noise("alone", 100_000)));
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[777] ^= 0x10;
        fs::write(path, &bytes).unwrap();
        bytes
    };
    let name = |path: &Path| path.strip_prefix(&a.folder).unwrap().to_str().unwrap().to_owned();
    let bad = damage(&kept);
    found(&verify(&a, &[], 4), &[&name(&kept)], &[]);
    found(&verify(&a, &["--repair"], 0), &[&name(&kept)], &[&name(&kept)]);
    assert!(fs::read(&kept).unwrap() == old);
    assert!(
        fs::read(object(&a, &bad)).unwrap() == bad,
        "what was there is kept"
    );
    found(&verify(&a, &[], 0), &[], &[]);

    // Nobody has that one: it does not pose as what it was any longer.
    damage(&lost);
    found(&verify(&a, &["--repair"], 4), &[&name(&lost)], &[]);
    assert!(!lost.exists());
    assert_converged(&[&a, &b]);
}

#[test]
fn a_damaged_database_is_never_silently_wrong() {
    let (_lab, mut a, b) = paired(|dir| {
        write(dir.join("needle in a database"), "one");
        write(dir.join("other"), "two");
        write(dir.join("third"), "three");
        write(dir.join("fourth"), "four");
    });
    a.stop();
    let wanted = snapshot(&b.folder);
    let database = a.home.join("alike.redb");
    let whole = fs::read(&database).unwrap();
    let needle = b"needle in a database";
    let places: Vec<usize> = (0..whole.len() - needle.len() - 64)
        .filter(|at| whole[*at..].starts_with(needle))
        .collect();
    assert!(
        places.len() >= 3,
        "the index, the state tree, the content tree: {places:?}"
    );
    let mut noticed = 0;
    for at in places {
        let mut damaged = whole.clone();
        damaged[at + needle.len() + 8] ^= 0x04;
        fs::write(&database, &damaged).unwrap();
        let mut command = a.command(["watch"]);
        let mut engine = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = poll(LONG, || match engine.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => (a.cmd(["status"]).code == 0).then_some(None),
        });
        if ended.expect("it runs or ends").is_some() {
            let mut said = String::new();
            engine.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(
                said.contains("is damaged") && said.contains("move it away"),
                "{said}"
            );
            noticed += 1;
        } else {
            // What an older commit had left there is nobody's any more.
            settle(&[&a, &b]);
            a.ok(["stop"]);
            engine.wait().unwrap();
        }
        assert_eq!(snapshot(&a.folder), wanted);
        assert_eq!(snapshot(&b.folder), wanted);
        assert_eq!(b.field("conflicts"), 0);
    }
    assert!(noticed >= 3, "the damage that was noticed: {noticed}");
}
