//! From nothing to equal: share, pair, and what arrives. Never edits a folder that is already synced.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use crate::harness::*;

#[test]
fn a_ticket_is_one_line_when_nobody_watches() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    write(a.path("a.txt"), "a");
    let out = a.cmd([OsStr::new("share"), a.folder.as_os_str()]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let ticket = out.stdout.strip_suffix('\n').expect("ends with a newline");
    assert!(
        !ticket.is_empty() && !ticket.contains(char::is_whitespace),
        "one word on one line: {ticket:?}"
    );
}

#[test]
fn pairing_names_each_side_to_the_other() {
    let (_lab, a, b) = paired(|dir| write(dir.join("a.txt"), "a"));
    for (here, there) in [(&a, &b), (&b, &a)] {
        let peers = here.field("peers");
        assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
        assert_eq!(peers[0]["name"], there.name.as_str());
        assert_eq!(peers[0]["id"], there.status()["device"]["id"]);
        assert_eq!(peers[0]["connected"], true);
    }
    assert_eq!(a.field("id"), b.field("id"), "both call the folder the same");
}

#[test]
fn files_and_directories_arrive() {
    let (_lab, _a, b) = paired(|dir| {
        write(dir.join("a.txt"), "hello");
        write(dir.join("empty"), "");
        write(dir.join("one/two/three.txt"), "deep");
        fs::create_dir_all(dir.join("empty dir/inside")).unwrap();
    });
    assert_eq!(
        names(&b.folder),
        [
            "a.txt",
            "empty",
            "empty dir",
            "empty dir/inside",
            "one",
            "one/two",
            "one/two/three.txt"
        ]
    );
    assert_eq!(text(b.path("one/two/three.txt")), "deep");
}

#[test]
fn symlinks_arrive_as_symlinks() {
    let (_lab, _a, b) = paired(|dir| {
        write(dir.join("dir/file"), "x");
        symlink("nowhere/at all", dir.join("dangling")).unwrap();
        symlink("/etc/hostname", dir.join("absolute")).unwrap();
        symlink("dir", dir.join("to dir")).unwrap();
        symlink("../..", dir.join("dir/up")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\n"), dir.join("any bytes")).unwrap();
    });
    let tree = snapshot(&b.folder);
    assert_eq!(
        tree[b"dangling".as_slice()],
        Node::Link(b"nowhere/at all".to_vec())
    );
    assert_eq!(
        tree[b"absolute".as_slice()],
        Node::Link(b"/etc/hostname".to_vec())
    );
    assert_eq!(tree[b"to dir".as_slice()], Node::Link(b"dir".to_vec()));
    assert_eq!(tree[b"dir/up".as_slice()], Node::Link(b"../..".to_vec()));
    assert_eq!(tree[b"any bytes".as_slice()], Node::Link(b"\xff\n".to_vec()));
}

#[test]
fn the_executable_bit_arrives() {
    let (_lab, _a, b) = paired(|dir| {
        write(dir.join("run.sh"), "#!/bin/sh\n");
        set_mode(dir.join("run.sh"), 0o755);
        write(dir.join("same content, not executable"), "#!/bin/sh\n");
    });
    let tree = snapshot(&b.folder);
    assert!(matches!(
        tree[b"run.sh".as_slice()],
        Node::File { exec: true, .. }
    ));
    assert!(matches!(
        tree[b"same content, not executable".as_slice()],
        Node::File { exec: false, .. }
    ));
}

#[test]
fn names_may_be_any_bytes() {
    let long = [b'n'; 255];
    let odd: &[&[u8]] = &[
        b"\xff\xfe not utf-8",
        b"new\nline",
        b"-rf",
        b"--help",
        b" spaces  around ",
        "ünïcödé · 码 · 🦀".as_bytes(),
        "u\u{308} decomposed".as_bytes(),
        b"\x1b[31mred\x07",
        b"quotes ' \" \\ `",
        b"...",
        b".hidden",
        b"*?[a]",
        &long,
    ];
    let (_lab, _a, b) = paired(|dir| {
        for name in odd {
            write(dir.join(OsStr::from_bytes(name)), name);
            write(
                dir.join("dirs").join(OsStr::from_bytes(name)).join("inside"),
                name,
            );
        }
    });
    for name in odd {
        let path = b.path(OsStr::from_bytes(name));
        assert_eq!(
            fs::read(&path).ok().as_deref(),
            Some(*name),
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn a_large_file_arrives() {
    let (_lab, _a, b) = paired(|dir| write(dir.join("large.bin"), noise("large", 20 << 20)));
    assert_eq!(fs::metadata(b.path("large.bin")).unwrap().len(), 20 << 20);
}

#[test]
fn modification_times_of_files_arrive() {
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let (_lab, a, b) = paired(|dir| {
        for (n, name) in ["old", "dir/older", "empty"].iter().enumerate() {
            write(dir.join(name), if n < 2 { *name } else { "" });
            let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
            file.set_modified(old + Duration::from_millis(1500) * n as u32)
                .unwrap();
        }
        write(dir.join("now"), "now");
    });
    assert_eq!(mtimes(&b.folder)[b"old".as_slice()], (1_000_000_000, 123_456_789));
    assert_eq!(mtimes(&a.folder), mtimes(&b.folder));
}

#[test]
fn hash_of_equal_folders_is_the_root_in_both_statuses() {
    let (lab, a, b) = paired(|dir| {
        write(dir.join("a.txt"), "a");
        write(dir.join("sub/b.txt"), "b");
        symlink("a.txt", dir.join("link")).unwrap();
    });
    let root = a.hash();
    assert!(
        root.len() == 64 && root.chars().all(|c| c.is_ascii_hexdigit()),
        "{root:?}"
    );
    assert_eq!(b.hash(), root);
    assert_eq!(a.field("root"), root.as_str());
    assert_eq!(b.field("root"), root.as_str());

    // The same content anywhere has the same root, tracked or not, with an engine or without.
    let copy = lab.path("copy");
    write(copy.join("sub/b.txt"), "b");
    write(copy.join("a.txt"), "a");
    symlink("a.txt", copy.join("link")).unwrap();
    let stranger = lab.device("stranger");
    assert_eq!(stranger.ok([OsStr::new("hash"), copy.as_os_str()]).trim(), root);
    write(copy.join("a.txt"), "b");
    assert_ne!(stranger.ok([OsStr::new("hash"), copy.as_os_str()]).trim(), root);
}

#[test]
fn pair_without_a_directory_uses_the_name_of_the_folder() {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    write(a.path("a.txt"), "a");
    let ticket = a.share_with(&["--name", "papers"]);
    b.ok(["pair", &ticket]);
    settle(&[&a, &b]);
    assert_eq!(text(b.corner.join("papers/a.txt")), "a");
}
