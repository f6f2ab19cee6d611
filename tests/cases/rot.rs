//! Bit rot on real disks: a bit of a mounted image changes below a file that nobody touches. It is never taken for an
//! edit, whatever happens to the file then; and an edit that looks like rot is said, or goes through.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use crate::harness::*;

const MOUNT: &[&str] = &["mount", "-o", "loop"];

/// Two devices in sync, the first one's folder on what `mkfs` makes. `None`, and said so, where that cannot be mounted.
fn on_disk(lab: &Lab, mkfs: &'static [&'static str]) -> Option<(Image, Device, Device)> {
    let disk = Image::new(lab.path("disk"), Make { mkfs, mount: MOUNT })?;
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    a.folder = lab.path("disk/docs");
    write(a.path("doc"), noise("doc", 300_000));
    write(a.path("photos/one"), noise("one", 200_000));
    write(a.path("photos/two"), noise("two", 100_000));
    write(a.path("other"), noise("other", 5_000));
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    // By now the times of all files prove something, and none was made just now.
    let made = || fs::metadata(a.path("other")).unwrap().created().unwrap();
    eventually("the files are old enough", LONG, || {
        made().elapsed().is_ok_and(|age| age.as_secs() > 3)
    });
    a.restart();
    a.wait_in_sync();
    Some((disk, a, b))
}

/// Everything that can be done to a file without writing to it.
fn never_published(mkfs: &'static [&'static str]) {
    let lab = Lab::new();
    let Some((disk, mut a, b)) = on_disk(&lab, mkfs) else {
        return;
    };
    let good = fs::read(a.path("doc")).unwrap();
    let (root, generation) = (a.field("root"), a.field("generation"));
    disk.rot(&a.path("doc"), 1000);
    let bad = fs::read(a.path("doc")).unwrap();
    // A program that opens it for writing, as SQLite does, and closes it.
    drop(fs::File::options().write(true).open(a.path("doc")).unwrap());
    settle(&[&a, &b]);
    assert_eq!(
        (a.field("root"), a.field("generation")),
        (root.clone(), generation)
    );
    set_mode(a.path("doc"), 0o600);
    eventually("it is said", LONG, || problem(&a, "doc").is_some());
    fs::hard_link(a.path("doc"), lab.path("disk/elsewhere")).unwrap();
    settle(&[&a, &b]);
    assert_eq!(a.field("root"), root, "nothing is published");
    // What was done to it counts, its content does not.
    set_mode(a.path("doc"), 0o700);
    settle(&[&a, &b]);
    assert_ne!(a.field("root"), root);
    assert!(matches!(
        snapshot(&b.folder)[&b"doc"[..]],
        Node::File { exec: true, .. }
    ));
    assert!(fs::read(b.path("doc")).unwrap() == good);
    fs::rename(a.path("doc"), a.path("photos/renamed")).unwrap();
    settle(&[&a, &b]);
    assert!(!b.path("doc").exists());
    assert!(fs::read(b.path("photos/renamed")).unwrap() == good);
    assert!(problem(&a, "photos/renamed").is_some() && problem(&a, "doc").is_none());
    // It stays known.
    a.restart();
    settle(&[&a, &b]);
    assert!(problem(&a, "photos/renamed").is_some());
    assert_eq!(fs::read(a.path("photos/renamed")).unwrap(), bad);
    found(
        &verify(&a, &["--repair"], 0),
        &["photos/renamed"],
        &["photos/renamed"],
    );
    assert!(fs::read(a.path("photos/renamed")).unwrap() == good);
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("problems"), json!([]));

    // Some that nobody has found are renamed with their directory, also while nobody watches.
    for (from, to, name) in [
        ("photos", "pictures", "pictures/one"),
        ("pictures", "past", "past/two"),
    ] {
        let old = a.path(name.replace(to, from));
        let good = fs::read(&old).unwrap();
        disk.rot(&old, 70_000);
        if to == "past" {
            a.stop();
        }
        fs::rename(a.path(from), a.path(to)).unwrap();
        if to == "past" {
            a.start();
        }
        settle(&[&a, &b]);
        assert!(fs::read(b.path(name)).unwrap() == good);
        assert!(problem(&a, name).is_some());
        found(&verify(&a, &["--repair"], 0), &[name], &[name]);
        assert_converged(&[&a, &b]);
    }
    assert_eq!(b.field("conflicts"), 0);
}

#[test]
fn rot_on_ext4_is_not_published_whatever_happens_to_its_file() {
    never_published(&["mkfs.ext4", "-q"]);
}

#[test]
fn rot_on_xfs_is_not_published_whatever_happens_to_its_file() {
    never_published(&["mkfs.xfs", "-q"]);
}

/// btrfs knows it itself, and gives an error instead of the content.
#[test]
fn what_the_disk_cannot_read_is_no_edit_and_is_brought_back() {
    let lab = Lab::new();
    let Some((disk, mut a, b)) = on_disk(&lab, &["mkfs.btrfs", "-q", "-d", "single"]) else {
        return;
    };
    let good = fs::read(a.path("doc")).unwrap();
    let root = a.field("root");
    disk.rot(&a.path("doc"), 4096);
    assert_eq!(
        fs::read(a.path("doc")).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    for change in ["none", "mode", "restart"] {
        match change {
            "mode" => set_mode(a.path("doc"), 0o600),
            "restart" => a.restart(),
            _ => {}
        }
        settle(&[&a, &b]);
        assert_eq!(a.field("root"), root, "{change}");
        assert!(fs::read(b.path("doc")).unwrap() == good);
    }
    assert!(problem(&a, "doc").is_some(), "{}", a.field("problems"));
    found(&verify(&a, &[], 4), &["doc"], &[]);
    found(&verify(&a, &["--repair"], 0), &["doc"], &["doc"]);
    assert!(fs::read(a.path("doc")).unwrap() == good);
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("problems"), json!([]));
    found(&verify(&a, &[], 0), &[], &[]);
}

/// Writes into a file, and sets the time of its last change back to what it was.
fn write_and_set_back(path: &Path, with: &str) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(with.as_bytes(), 100).unwrap();
    (&file).flush().unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before);
}

#[test]
fn an_edit_under_the_time_of_the_last_one_goes_through() {
    let (_lab, mut a, b) = paired(|dir| {
        write(dir.join("doc"), noise("doc", 20_000));
        write(dir.join("old"), noise("old", 20_000));
        // As an archive leaves it.
        set_mtime(dir.join("old"), 1_600_000_000);
    });
    a.restart();
    a.wait_in_sync();
    let edit = |a: &Device, with: &str| {
        write_and_set_back(&a.path("doc"), with);
        write_and_set_back(&a.path("old"), with);
    };
    edit(&a, "as rsync --inplace --times does");
    assert_converged(&[&a, &b]);
    assert_ne!(fs::read(b.path("doc")).unwrap(), noise("doc", 20_000));
    // While nobody watches.
    a.restart();
    a.wait_in_sync();
    a.stop();
    edit(&a, "once more");
    set_mode(a.path("doc"), 0o600);
    a.start();
    assert_converged(&[&a, &b]);
    // Before everything was looked at, and where a look at the directory is faster than the watcher.
    a.restart();
    edit(&a, "at the start");
    assert_converged(&[&a, &b]);
    for n in 0..50 {
        write(a.path("beside"), n.to_string());
        edit(&a, &format!("number {n}"));
    }
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("problems"), json!([]));
}
