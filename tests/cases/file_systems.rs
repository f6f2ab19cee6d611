//! The receiver's folder and state directory on other file systems than the sender's: everything that happens to
//! files, on either side, and deaths in between. What the machine cannot mount is said, by the test and by xtask.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::*;

/// All of it, with the second device wholly below `b`'s mount.
fn whole_sync(lab: &Lab) {
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    b.folder = lab.path("disk/docs");
    b.home = lab.path("disk/state");
    for n in 0..60 {
        write(a.path(format!("d{}/{n}", n % 3)), format!("file {n}"));
    }
    write(a.path("big"), noise("big", 3 << 20));
    write(a.path("tool"), "#!/bin/sh");
    set_mode(a.path("tool"), 0o755);
    set_mtime(a.path("tool"), 1_000_000_001);
    symlink("tool", a.path("link")).unwrap();
    fs::create_dir(a.path("hollow")).unwrap();
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    assert_eq!(mtimes(&a.folder), mtimes(&b.folder));

    // Edits, renames, deletions, exec bits and changes of kind, from each side.
    for (round, (from, to)) in [(&a, &b), (&b, &a)].into_iter().enumerate() {
        write(from.path("d0/0"), format!("edited in {round}"));
        write(from.path("d0/saved"), format!("new in {round}"));
        fs::rename(from.path("d0/saved"), from.path("d0/3")).unwrap();
        fs::rename(from.path("d1"), from.path(format!("moved {round}"))).unwrap();
        fs::rename(from.path(format!("moved {round}")), from.path("d1")).unwrap();
        fs::rename(from.path("d1"), from.path("d4")).unwrap();
        fs::rename(from.path("d4"), from.path("d1")).unwrap();
        fs::rename(
            from.path(format!("d2/{}", 5 + 3 * round)),
            from.path(format!("renamed {round}")),
        )
        .unwrap();
        fs::remove_file(from.path(format!("d2/{}", 20 + 3 * round))).unwrap();
        set_mode(from.path("tool"), if round == 0 { 0o644 } else { 0o755 });
        append(from.path("big"), format!("more in {round}"));
        fs::remove_file(from.path("link")).unwrap();
        symlink(format!("d{round}"), from.path("link")).unwrap();
        if round == 0 {
            fs::remove_dir(from.path("hollow")).unwrap();
            write(from.path("hollow"), "a file now");
        } else {
            fs::remove_file(from.path("hollow")).unwrap();
            write(from.path("hollow/deep/inside"), "a directory again");
        }
        let wanted = snapshot(&from.folder);
        assert_converged(&[&a, &b]);
        assert_eq!(snapshot(&to.folder), wanted);
    }
    assert_eq!(a.field("conflicts"), 0);

    // The receiver dies again and again in the middle of what arrives.
    for round in 0..4 {
        for n in 0..60 {
            write(
                a.path(format!("d{}/{n}", n % 3)),
                format!("file {n}, killed {round}"),
            );
        }
        write(a.path("big"), noise(&format!("big {round}"), 3 << 20));
        eventually("some of it arrives", LONG, || {
            text(b.path("d0/0")) != format!("file 0, killed {}", round - 1)
        });
        b.kill();
        b.start();
    }
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("conflicts"), 0);

    // Both edit one file apart from each other.
    b.stop();
    write(b.path("d0/0"), "by b");
    write(a.path("d0/0"), "by a, later");
    set_mtime(b.path("d0/0"), 1_000_000_000);
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("conflicts"), 1);
    let both = [
        text(a.path("d0/0")),
        text(a.path("d0").join(conflict_name("0", b"by b"))),
    ];
    assert_eq!(both, ["by a, later", "by b"]);
    assert_eq!(a.field("problems").to_string(), "[]");
    assert_eq!(b.field("problems").to_string(), "[]");
}

#[test]
fn everything_on_tmpfs() {
    let lab = Lab::new();
    let Some(_disk) = Tmpfs::new(lab.path("disk"), 256 * 1024) else {
        return;
    };
    whole_sync(&lab);
}

/// The same on what is made in a file.
fn whole_sync_on(make: Make) {
    let lab = Lab::new();
    let Some(_disk) = Image::new(lab.path("disk"), make) else {
        return;
    };
    whole_sync(&lab);
}

#[test]
fn everything_on_xfs() {
    whole_sync_on(XFS);
}

#[test]
fn everything_on_btrfs() {
    whole_sync_on(BTRFS);
}

/// By FUSE: renames have no flags, and each file is executable, whatever anybody sets.
#[test]
fn exec_bits_that_ntfs_does_not_keep_stay_for_the_others() {
    let lab = Lab::new();
    let ntfs = Make {
        mkfs: &["mkntfs", "-q", "-F", "-Q"],
        mount: &["mount", "-t", "ntfs-3g", "-o", "loop"],
    };
    let Some(_disk) = Image::new(lab.path("disk"), ntfs) else {
        return;
    };
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    b.folder = lab.path("disk/docs");
    write(a.path("tool"), "#!/bin/sh");
    set_mode(a.path("tool"), 0o755);
    write(a.path("dir/text"), "a text");
    set_mode(a.path("dir/text"), 0o644);
    let folder = a.folder.clone();
    let is_exec = |name: &str| matches!(snapshot(&folder)[name.as_bytes()], Node::File { exec: true, .. });
    a.start();
    b.start();
    pair(&a, &b);
    settle(&[&a, &b]);
    for round in 0..2 {
        for name in ["tool", "dir/text"] {
            write(b.path(name), format!("{name}, edited on b in {round}"));
            settle(&[&a, &b]);
            assert_eq!(text(a.path(name)), format!("{name}, edited on b in {round}"));
            write(a.path(name), format!("{name}, edited on a in {round}"));
            settle(&[&a, &b]);
            assert_eq!(text(b.path(name)), format!("{name}, edited on a in {round}"));
        }
        assert!(is_exec("tool") && !is_exec("dir/text"));
        b.restart();
        settle(&[&a, &b]);
        assert!(is_exec("tool") && !is_exec("dir/text"));
    }
    set_mode(a.path("tool"), 0o644);
    fs::rename(a.path("dir"), a.path("moved")).unwrap();
    write(b.path("new"), "made on b");
    settle(&[&a, &b]);
    assert!(!is_exec("tool") && !is_exec("new"));
    assert_eq!(text(b.path("moved/text")), text(a.path("moved/text")));
    assert!(!b.path("dir").exists());
    for device in [&a, &b] {
        assert_eq!(device.field("problems").to_string(), "[]");
        assert_eq!(device.field("conflicts"), 0);
    }
}
