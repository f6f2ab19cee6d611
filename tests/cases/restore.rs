//! What a restore and a checkout must do, and must not: nobody's save is lost, what nobody has stays as it is, and other
//! devices need no answer for what comes back.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::*;

/// What a folder of forty files is made of.
fn fill(dir: &Path) {
    for n in 0..40 {
        write(
            dir.join(format!("d{}/{n}", n % 5)),
            noise(&format!("old {n}"), 900 + n),
        );
    }
}

/// Is this content anywhere in the folder: at a path, or displaced?
fn exists(folder: &Path, content: &[u8]) -> bool {
    let mut dirs = vec![folder.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if fs::read(&path).is_ok_and(|found| found == content) {
                return true;
            }
        }
    }
    false
}

#[track_caller]
fn held(device: &Device) {
    eventually("the folder is held", LONG, || device.field("state") == "held");
}

#[test]
fn a_file_that_was_edited_deleted_or_renamed_comes_back_on_both_devices() {
    let (_lab, a, b) = paired(|dir| {
        for name in ["edited", "d/deleted", "renamed"] {
            write(dir.join(name), name);
        }
        set_mode(dir.join("d/deleted"), 0o755);
        set_mtime(dir.join("edited"), 1_500_000_000);
        write(dir.join("other"), "1");
    });
    let then = generation(&b);
    write(b.path("edited"), "anew");
    fs::remove_dir_all(a.path("d")).unwrap();
    fs::rename(b.path("renamed"), b.path("moved")).unwrap();
    write(a.path("other"), "2");
    settle(&[&a, &b]);
    let done = json(&b, &["restore", "-f", "docs", &then, "edited", "d", "renamed"]);
    assert_eq!(
        (&done["changed"], &done["removed"]),
        (&3.into(), &0.into()),
        "{done}"
    );
    assert_converged(&[&a, &b]);
    for device in [&a, &b] {
        for (path, is) in [
            ("edited", "edited"),
            ("d/deleted", "d/deleted"),
            ("renamed", "renamed"),
            ("moved", "renamed"),
            ("other", "2"),
        ] {
            assert_eq!(text(device.path(path)), is, "{path}");
        }
        assert_eq!(mtimes(&device.path(""))[&b"edited"[..]], (1_500_000_000, 0));
    }
    assert_eq!(json(&a, &["log", "-n", "1"])[0]["reason"], "peer");
    assert_eq!(json(&b, &["log", "-n", "1"])[0]["reason"], "restore");
    let said = b.ok(["restore", &then, "edited"]);
    assert!(said.contains("already"), "{said}");
    assert_eq!(a.field("conflicts"), 0);
}

/// Everything on one device is replaced by noise under other names while nobody looks; that device asks about what is gone.
#[test]
fn what_was_encrypted_and_is_held_comes_back_without_being_accepted() {
    let (lab, a, mut b) = paired(fill);
    let then = generation(&a);
    let was = snapshot(&a.path(""));
    b.stop();
    for n in 0..40 {
        let path = b.path(format!("d{}/{n}", n % 5));
        // With as many new files as are gone, the half of all that are there then is gone, and not more.
        if n < 30 {
            write(path.with_extension("locked"), noise(&format!("locked {n}"), 700));
        }
        fs::remove_file(path).unwrap();
    }
    b.start();
    held(&b);
    eventually("the noise arrives", LONG, || a.field("files") == 70);
    a.ok(["restore", &then]);
    eventually("the noise goes", LONG, || !b.path("d0/0.locked").exists());
    eventually("nobody is asked here", LONG, || a.field("state") == "idle");
    b.ok(["reject"]);
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&b.path("")), was);
    drop(lab);
}

#[test]
fn a_folder_that_was_emptied_with_everybodys_consent_comes_back_without_a_question() {
    let (_lab, a, mut b) = paired(fill);
    let (then, was) = (generation(&a), snapshot(&a.path("")));
    b.stop();
    for n in 0..5 {
        fs::remove_dir_all(b.path(format!("d{n}"))).unwrap();
    }
    b.start();
    held(&b);
    b.fails(["restore", &then], 1, &["sync accept"]);
    b.ok(["accept"]);
    held(&a);
    a.fails(["restore", &then], 1, &["holds a removal"]);
    a.ok(["accept"]);
    settle(&[&a, &b]);
    assert!(names(&a.path("")).is_empty());
    let done = json(&a, &["restore", &then]);
    assert_eq!(
        (&done["changed"], &done["removed"]),
        (&40.into(), &0.into()),
        "{done}"
    );
    assert_converged(&[&a, &b]);
    assert_eq!(snapshot(&b.path("")), was);
}

/// Copies of what is there are nothing that comes back.
#[test]
fn a_mass_removal_beside_as_many_copies_is_held() {
    let (_lab, mut a, b) = paired(fill);
    a.stop();
    for n in 0..25 {
        fs::remove_file(b.path(format!("d{}/{n}", n % 5))).unwrap();
        let from = 25 + n % 15;
        let copy = b.path(format!("copy {n}"));
        fs::copy(b.path(format!("d{}/{from}", from % 5)), copy).unwrap();
    }
    // The copies count on the desktop by the time that the rest is missed: 25 of 65.
    let now = b.hash();
    eventually("it is through", LONG, || b.field("root") == now.as_str());
    a.start();
    held(&a);
    a.ok(["accept"]);
    assert_converged(&[&a, &b]);
}

#[test]
fn an_edit_in_the_moment_of_a_restore_is_kept() {
    let (_lab, a, b) = paired(|dir| write(dir.join("f"), noise("first", 200_000)));
    let then = generation(&a);
    write(b.path("f"), noise("second", 200_000));
    settle(&[&a, &b]);
    for n in 0..4 {
        let mine = noise(&format!("mine {n}"), 200_001);
        // Whether a scan sees it before, after or in the middle: nobody knows.
        let edit = || write(a.path("f"), &mine);
        if n % 2 == 0 {
            edit();
            a.ok(["restore", &then]);
        } else {
            a.ok(["restore", &then]);
            edit();
        }
        settle(&[&a, &b]);
        assert_converged(&[&a, &b]);
        assert!(
            exists(&a.path(""), &mine) || exists(&b.path(""), &mine),
            "round {n}"
        );
        assert!(exists(&a.path(""), &noise("first", 200_000)), "round {n}");
        // And it can be gone back to.
        a.ok(["restore", &then]);
        settle(&[&a, &b]);
        assert_eq!(fs::read(b.path("f")).unwrap(), noise("first", 200_000));
    }
}

/// The engine waits with content in its hands; the file is saved right then.
#[test]
fn a_save_between_a_restore_and_its_carrying_out_is_the_newer_one() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    write(a.path("f"), "first");
    a.start();
    b.start();
    pair(&a, &b);
    let then = generation(&a);
    write(a.path("f"), "second");
    settle(&[&a, &b]);
    a.stop();
    let here = lab.path("here");
    a.launch(&format!("fetch.ready=hold:{}", here.display()));
    eventually("it runs", LONG, || a.cmd(["restore", &then]).code == 0);
    eventually("it holds", LONG, || here.exists());
    write(a.path("f"), "saved meanwhile");
    eventually("seen", LONG, || a.field("conflicts") == 1);
    fs::remove_file(here).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("f")), "saved meanwhile");
    assert_eq!(text(b.path(conflict_name("f", b"first"))), "first");
}

#[test]
fn a_checkout_has_the_root_of_its_generation() {
    let (lab, a, b) = paired(|dir| write(dir.join("a/b"), "1"));
    let mut all = vec![(generation(&a), a.field("root"))];
    let step = |all: &mut Vec<(String, Value)>| {
        settle(&[&a, &b]);
        all.push((generation(&a), a.field("root")));
    };
    write(b.path("a/b"), "2");
    std::os::unix::fs::symlink("a/b", a.path("link")).unwrap();
    fs::create_dir_all(a.path("empty/also")).unwrap();
    step(&mut all);
    write(a.path("run"), noise("run", 2_000_000));
    set_mode(a.path("run"), 0o755);
    write(b.path("nothing"), "");
    step(&mut all);
    fs::remove_dir_all(a.path("a")).unwrap();
    write(a.path("a"), "a file");
    fs::remove_file(b.path("run")).unwrap();
    step(&mut all);
    for (n, (generation, root)) in all.iter().enumerate() {
        // New, in a directory that is new too, and there already.
        let dir = lab.path(&format!("out/{n}/dir"));
        if n == 1 {
            fs::create_dir_all(&dir).unwrap();
            set_mode(&dir, 0o700);
        }
        let done = json(
            &b,
            &[
                "checkout".as_ref(),
                generation_of(&b, root).as_ref(),
                dir.as_os_str(),
            ],
        );
        assert_eq!(done["root"], *root, "{generation}: {done}");
        assert_eq!(
            a.ok(["hash".as_ref(), dir.as_os_str()]).trim(),
            root.as_str().unwrap()
        );
        assert_eq!(
            names(dir.parent().unwrap())
                .iter()
                .filter(|n| !n.starts_with("dir"))
                .count(),
            0
        );
    }
}

/// Numbers are a device's own.
fn generation_of(device: &Device, root: &Value) -> String {
    let all = json(device, &["log"]);
    let all = all.as_array().unwrap();
    all.iter().find(|g| g["root"] == *root).unwrap()["generation"].to_string()
}

#[test]
fn a_checkout_that_fails_leaves_nothing_behind() {
    let (lab, a, b) = paired(|dir| {
        write(dir.join("a/small"), "small");
        write(dir.join("b/large"), noise("large", 6 << 20));
    });
    let then = generation(&a);
    let Some(_disk) = Tmpfs::new(lab.path("disk"), 4 * 1024) else {
        return;
    };
    for dir in ["disk", "disk/new/dir"] {
        let dir = lab.path(dir);
        a.fails(
            ["checkout".as_ref(), then.as_ref(), dir.as_os_str()],
            1,
            &["No space left"],
        );
        assert!(names(&lab.path("disk")).is_empty());
    }
    assert_converged(&[&a, &b]);
}

#[test]
fn what_nobody_has_stays_with_all_that_is_in_its_place() {
    let (_lab, a, mut b) = paired(|dir| {
        write(dir.join("thing"), noise("thing", 300_000));
        write(dir.join("other"), "1");
    });
    let then = generation(&a);
    fs::remove_file(a.path("thing")).unwrap();
    write(a.path("thing/member"), "is a directory now");
    write(a.path("other"), "2");
    settle(&[&a, &b]);
    b.stop();
    eventually("it is alone", LONG, || {
        a.folder_status()["peers"][0]["connected"] != true
    });
    let said = a.fails(["restore", &then], 1, &["thing stays as it is"]);
    assert!(said.stdout.contains("1 path is as in"), "{}", said.stdout);
    assert_eq!(text(a.path("thing/member")), "is a directory now");
    eventually("the rest comes back", LONG, || text(a.path("other")) == "1");
    let said = a.fails(["restore", &then], 1, &["thing stays as it is"]);
    assert!(said.stdout.contains("can be brought back now"), "{}", said.stdout);
    b.start();
    settle(&[&a, &b]);
    a.ok(["restore", &then]);
    assert_converged(&[&a, &b]);
    assert_eq!(fs::read(b.path("thing")).unwrap(), noise("thing", 300_000));
}

#[test]
fn what_is_left_out_is_not_restored() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("d/x.tmp"), "1");
        write(dir.join("d/y"), "1");
    });
    let then = generation(&a);
    for name in ["d/x.tmp", "d/y"] {
        write(a.path(name), "2");
    }
    settle(&[&a, &b]);
    write(a.path(".syncignore"), "*.tmp\n");
    settle(&[&a, &b]);
    a.ok(["restore", &then, "d"]);
    assert_converged(&[&a, &b]);
    assert_eq!(
        (text(b.path("d/x.tmp")), text(b.path("d/y"))),
        ("2".into(), "1".into())
    );
}

#[test]
fn a_folder_that_is_paused_or_read_only_here_is_not_restored() {
    let lab = Lab::new();
    let (a, b) = (lab.device("laptop"), lab.running("desktop"));
    let mut a = a;
    write(a.path("f"), "1");
    a.start();
    let ticket = a.share_with(&["--read-only"]);
    b.ok(b.pair_args(&ticket));
    settle(&[&a, &b]);
    let then = generation(&b);
    write(a.path("f"), "2");
    settle(&[&a, &b]);
    b.fails(["restore", &then], 1, &["read-only", "sync checkout"]);
    a.ok(["pause"]);
    a.fails(["restore", &then], 1, &["is paused"]);
    a.ok(["resume"]);
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("f")), "2");
}
