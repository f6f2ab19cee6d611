//! The past: what was there comes back, into the folder or beside it; what nobody keeps goes.

use std::fs;

use crate::harness::*;

#[test]
fn a_folder_comes_back_on_all_devices() {
    let (lab, a, b) = paired(|dir| {
        write(dir.join("notes.txt"), "first");
        write(dir.join("dir/deep/photo"), noise("photo", 3_000_000));
        write(dir.join("dir/run"), "#!/bin/sh");
        set_mode(dir.join("dir/run"), 0o755);
        std::os::unix::fs::symlink("notes.txt", dir.join("link")).unwrap();
        fs::create_dir(dir.join("empty")).unwrap();
        set_mtime(dir.join("notes.txt"), 1_600_000_000);
    });
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    write(a.path("notes.txt"), "second");
    fs::remove_dir_all(b.path("dir")).unwrap();
    fs::remove_dir(b.path("empty")).unwrap();
    write(b.path("new/file"), "new");
    fs::remove_file(a.path("link")).unwrap();
    write(a.path("link"), "a file now");
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    let (changed, later) = (copy_of(&a, lab.path("changed")), generation(&a));
    // What names it on every device.
    let root = a.field("root").to_string();

    let done = json(&a, &["restore", &then]);
    assert_eq!(
        (&done["changed"], &done["removed"]),
        (&5.into(), &1.into()),
        "{done}"
    );
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_same_tree(&was, &a.path(""));
    assert_eq!(mtimes(&a.path(""))[&b"notes.txt"[..]], (1_600_000_000, 0));
    assert_was(&lab, &a, &later, &changed);
    assert_was(&lab, &b, &generation(&b), &was);
    // And back again, from the other device.
    let entry = json(&b, &["restore", &root[1..17]]);
    assert!(entry["missing"].as_array().unwrap().is_empty(), "{entry}");
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_same_tree(&changed, &b.path(""));
}

#[test]
fn one_path_comes_back_and_nothing_else() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("d/one"), "one");
        write(dir.join("d/two"), "two");
        write(dir.join("three"), "three");
    });
    let then = generation(&a);
    for name in ["d/one", "d/two", "three"] {
        write(a.path(name), "changed");
    }
    settle(&[&a, &b]);
    a.ok(["restore", &then, "d/one"]);
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_eq!(
        (text(b.path("d/one")), text(b.path("d/two"))),
        ("one".into(), "changed".into())
    );
    fs::remove_dir_all(b.path("d")).unwrap();
    settle(&[&a, &b]);
    a.ok(["restore".as_ref(), then.as_ref(), a.path("d").as_os_str()]);
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_eq!(
        (text(b.path("d/one")), text(b.path("three"))),
        ("one".into(), "changed".into())
    );
    for (args, why) in [
        (vec!["restore", "999"], "no generation 999"),
        (vec!["restore", &then, "never"], "neither in generation"),
        (vec!["restore", &then, "/etc/passwd"], "not in the folder"),
        (vec!["restore", "zzz"], "names no generation"),
    ] {
        a.fails(&args, 1, &[why]);
    }
}

/// What happens to a folder when another device is taken over: each file is there under another name, as noise.
#[test]
fn a_folder_that_was_encrypted_elsewhere_comes_back_without_a_question() {
    let (lab, a, b) = paired(|dir| {
        for n in 0..60 {
            write(
                dir.join(format!("d{}/file {n}", n % 7)),
                noise(&format!("{n}"), 500 + n * 100),
            );
        }
    });
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    for n in 0..60 {
        let path = b.path(format!("d{}/file {n}", n % 7));
        write(path.with_extension("locked"), noise(&format!("locked {n}"), 700));
        fs::remove_file(path).unwrap();
    }
    // Whether that is held hangs on how it is cut into scans; a person may have let it through.
    settle_with_answers(&[&a, &b]);
    a.ok(["restore", &then]);
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_same_tree(&was, &b.path(""));
}

/// As `settle`, answering what is held.
fn settle_with_answers(devices: &[&Device]) {
    eventually(
        "all is answered and settled",
        std::time::Duration::from_secs(60),
        || {
            for device in devices {
                if device.field("state") == "held" {
                    device.ok(["accept"]);
                }
            }
            devices
                .iter()
                .all(|d| d.cmd(["wait", "--timeout", "2s"]).code == 0)
        },
    );
}

#[test]
fn gc_keeps_what_is_pinned_and_gives_the_rest_back() {
    let (lab, a, b) = paired(|dir| write(dir.join("big"), noise("0", 400_000)));
    let mut copies = Vec::new();
    for n in 1..=8 {
        write(b.path("big"), noise(&format!("{n}"), 400_000));
        write(b.path(format!("small {n}")), noise(&format!("s{n}"), 10_000));
        settle(&[&a, &b]);
        copies.push((generation(&a), copy_of(&a, lab.path(&format!("copy {n}")))));
    }
    a.ok(["pin", &copies[2].0]);
    let told = json(&a, &["gc", "--keep", "2", "--dry-run"]);
    assert!(told["freed_bytes"].as_u64().unwrap() > 4 * 400_000, "{told}");
    assert_was(&lab, &a, &copies[0].0, &copies[0].1);
    let done = json(&a, &["gc", "--keep", "2"]);
    assert!(done["freed_bytes"].as_u64().unwrap() > 4 * 400_000, "{done}");
    assert_eq!(done["kept_generations"], 3, "{done}");
    for at in [2, 6, 7] {
        assert_was(&lab, &a, &copies[at].0, &copies[at].1);
    }
    let gone = lab.path("gone");
    a.fails(
        ["checkout", &copies[0].0, gone.to_str().unwrap()],
        1,
        &["no generation"],
    );
    a.ok(["unpin", &copies[2].0]);
    assert_eq!(json(&a, &["gc", "--keep", "2"])["kept_generations"], 2);
    assert_converged(&[&a, &b]);
}

/// The engine ends in the middle of a restore: the folder is whole, and the restore can be asked for again.
#[test]
fn a_restore_that_was_cut_off_is_there_or_not() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    for name in ["one", "d/two"] {
        write(a.path(name), name);
    }
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let then = generation(&a);
    for (point, round) in [("commit.restore", 1), ("commit.restore.done", 2)] {
        write(a.path("one"), format!("changed {round}"));
        fs::remove_dir_all(a.path("d")).unwrap();
        settle(&[&a, &b]);
        a.kill();
        a.launch(&format!("{point}=kill"));
        eventually("it falls", std::time::Duration::from_secs(60), || {
            let _ = a.cmd(["restore", &then]);
            a.fell()
        });
        a.start();
        settle(&[&a, &b]);
        assert_converged(&[&a, &b]);
        let is_back = a.path("d/two").exists();
        assert_eq!(is_back, point.ends_with("done"), "{point}");
        a.ok(["restore", &then]);
        settle(&[&a, &b]);
        assert_converged(&[&a, &b]);
        assert_eq!(
            (text(b.path("one")), text(b.path("d/two"))),
            ("one".into(), "d/two".into())
        );
    }
}

/// A large file that was changed in place here has its old content only where the change displaced it.
#[test]
fn what_is_only_on_another_device_comes_from_there() {
    let (lab, mut a, b) = paired(|dir| {
        write(dir.join("large"), noise("old", 3_000_000));
        write(dir.join("other"), "as it is");
    });
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    write(a.path("large"), noise("new", 3_000_000));
    settle(&[&a, &b]);
    b.ok(["pause"]);
    let gone = lab.path("gone");
    let said = a.fails(
        ["checkout", &then, gone.to_str().unwrap()],
        1,
        &["large is not written"],
    );
    assert!(said.stdout.contains("1 file"), "{}", said.stdout);
    assert_eq!(names(&gone), ["other"]);
    a.fails(["restore", &then], 1, &["large stays as it is"]);
    assert_eq!(fs::read(a.path("large")).unwrap(), noise("new", 3_000_000));
    b.ok(["resume"]);
    settle(&[&a, &b]);
    assert_was(&lab, &a, &then, &was);
    a.ok(["restore", &then]);
    settle(&[&a, &b]);
    assert_converged(&[&a, &b]);
    assert_same_tree(&was, &b.path(""));
    // Targets that would be written over, or synced.
    let file = lab.path("file");
    write(&file, "");
    for (dir, why) in [
        (a.path("in"), "would be synced"),
        (file, "is a file"),
        (was, "not empty"),
    ] {
        a.fails(["checkout".as_ref(), then.as_ref(), dir.as_os_str()], 1, &[why]);
    }
    a.stop();
    a.fails(["restore", &then], 1, &["no engine runs"]);
}
