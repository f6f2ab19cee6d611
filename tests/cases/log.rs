//! `sync log` and `sync diff`: what a folder was, with and without an engine, and where the contents of its past are.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::harness::*;

/// Puts a file in place at once, so that nobody sees it half.
#[track_caller]
fn put(device: &Device, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
    let beside = device.corner.join("beside");
    write(&beside, content);
    let path = device.folder.join(name.as_ref());
    fs::create_dir_all(path.parent().expect("below the folder")).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Returns the number of the generation that is what is on the disk now. (The state is known a moment before its
/// generation is written, when the scan ends.)
#[track_caller]
fn seen(device: &Device) -> u64 {
    let newest = || {
        list(device, ["log", "--json", "-n", "1"])
            .pop()
            .unwrap_or_default()
    };
    eventually("there is a generation of what is on the disk", LONG, || {
        newest()["root"] == device.hash().as_str()
    });
    newest()["generation"].as_u64().expect("a number")
}

#[track_caller]
fn list<S: AsRef<OsStr>>(device: &Device, args: impl IntoIterator<Item = S>) -> Vec<Value> {
    let text = device.ok(args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("no list ({e}): {text}"))
}

fn column(list: &[Value], name: &str) -> Vec<String> {
    list.iter()
        .map(|entry| match &entry[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect()
}

/// A device with a folder that is tracked, as `fill` made it.
fn tracked(fill: impl FnOnce(&Device)) -> (Lab, Device) {
    let lab = Lab::new();
    let mut device = lab.device("laptop");
    fs::create_dir(&device.folder).unwrap();
    fill(&device);
    device.start();
    device.share();
    seen(&device);
    (lab, device)
}

#[test]
fn what_changed_is_told_with_and_without_an_engine() {
    let (_lab, mut a) = tracked(|a| {
        put(a, "a", "one");
        put(a, "dir/b", "moves");
        put(a, "gone", "goes");
    });
    let first = seen(&a);
    put(&a, "new", "comes");
    let second = seen(&a);
    put(&a, "a", "two");
    fs::rename(a.path("dir/b"), a.path("b")).unwrap();
    fs::remove_file(a.path("gone")).unwrap();
    set_mode(a.path("new"), 0o755);
    let last = seen(&a);
    a.ok(["pin", &second.to_string()]);

    let log = list(&a, ["log", "--json"]);
    let numbers: Vec<u64> = log.iter().map(|e| e["generation"].as_u64().unwrap()).collect();
    assert_eq!(numbers[0], last);
    assert!(
        numbers.is_sorted_by(|x, y| x > y),
        "the newest first: {numbers:?}"
    );
    assert_eq!(log[0]["root"], a.hash().as_str());
    assert_eq!(log.last().unwrap()["reason"], "initial");
    for entry in &log {
        assert_eq!(
            (&entry["device"], &entry["content"]),
            (&json!("laptop"), &json!("complete"))
        );
        assert_eq!(entry["pinned"], entry["generation"] == second);
        assert!(entry["time"].as_str().unwrap().ends_with('Z'));
    }
    let added: u64 = log.iter().map(|e| e["added"].as_u64().unwrap()).sum();
    let removed: u64 = log.iter().map(|e| e["removed"].as_u64().unwrap()).sum();
    assert_eq!(added - removed, 3, "{log:#?}");
    assert_eq!(list(&a, ["log", "docs", "--json", "-n", "2"]), log[..2]);

    let (from, to) = (first.to_string(), second.to_string());
    let root = log.iter().find(|e| e["generation"] == first).unwrap()["root"]
        .as_str()
        .unwrap()[..12]
        .to_owned();
    let both = json!([{"change": "added", "path": "new"}]);
    let now = json!([
        {"change": "modified", "path": "a"},
        {"change": "renamed", "path": "b", "from": "dir/b"},
        {"change": "removed", "path": "gone"},
        {"change": "added", "path": "new"},
    ]);
    let text = "M a\nR dir/b -> b\nD gone\nA new\n";
    let asked = |a: &Device| {
        let diff = |args: &[&str]| Value::from(list(a, [&["diff", "--json"], args].concat()));
        assert_eq!(diff(&[&from, &to]), both);
        // The directory is empty now, but still there.
        assert_eq!(diff(&[&from]), now);
        assert_eq!(diff(&[&root]), now);
        assert_eq!(diff(&[&last.to_string()]), json!([]));
        assert_eq!(a.ok(["diff", &from, "-f", "docs"]), text);
        let back = a.ok(["diff", &to, &from]);
        assert_eq!(back, "D new\n");
        let lines = a.ok(["log"]);
        assert_eq!(lines.lines().count(), log.len(), "{lines}");
        assert!(
            lines.lines().next().unwrap().starts_with(&last.to_string()),
            "{lines}"
        );
        assert!(lines.contains("laptop") && lines.contains("pinned"), "{lines}");
        assert_eq!(list(a, ["log", "--json"]), log);
    };
    asked(&a);
    a.stop();
    asked(&a);
    a.start();
    asked(&a);
}

#[test]
fn the_versions_of_a_path_are_listed_with_its_removal_and_return() {
    let (_lab, mut a) = tracked(|a| put(a, "stays", "x"));
    put(&a, "dir/file", "first");
    let first = seen(&a);
    put(&a, "other", "nothing to do with it");
    seen(&a);
    fs::remove_dir_all(a.path("dir")).unwrap();
    let gone = seen(&a);
    put(&a, "dir/file", "first");
    let back = seen(&a);
    put(&a, "dir/file", "second");
    let last = seen(&a);
    std::os::unix::fs::symlink("dir/file", a.path("link")).unwrap();
    seen(&a);
    let digest = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let check = |a: &Device| {
        let found = list(a, ["log", "--json", "--", "dir/file"]);
        assert_eq!(
            column(&found, "generation"),
            [last, back, gone, first].map(|n| n.to_string())
        );
        assert_eq!(column(&found, "kind"), ["file", "file", "removed", "file"]);
        assert_eq!(column(&found, "size"), ["6", "5", "0", "5"]);
        assert_eq!(
            column(&found, "digest"),
            [digest("second"), digest("first"), String::new(), digest("first")]
        );
        assert_eq!(column(&found, "device"), ["laptop"; 4]);
        assert_eq!(column(&found, "content"), ["complete"; 4]);
        assert_eq!(
            list(a, ["log", "--json", "-n", "1", "--", "dir/file"]),
            found[..1]
        );
        // However it is named.
        let absolute = a.path("dir/file");
        assert_eq!(
            list(
                a,
                [
                    OsStr::new("log"),
                    OsStr::new("--json"),
                    OsStr::new("--"),
                    absolute.as_os_str()
                ]
            ),
            found
        );
        let mut inside = a.command(["log", "--json", "--", "file"]);
        inside.current_dir(a.path("dir"));
        let inside = inside.output().unwrap();
        assert_eq!(
            serde_json::from_slice::<Vec<Value>>(&inside.stdout).unwrap(),
            found
        );
        let text = a.ok(["log", "--", "dir/file"]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains(&digest("second")[..12]) && text.contains("removed"),
            "{text}"
        );
        assert_eq!(
            column(&list(a, ["log", "--json", "--", "link"]), "kind"),
            ["symlink"]
        );
        assert_eq!(
            column(&list(a, ["log", "--json", "--", "stays"]), "kind"),
            ["file"]
        );
        assert_eq!(list(a, ["log", "--json", "--", "dir"]).len(), 4);
    };
    check(&a);
    a.stop();
    check(&a);
}

#[test]
fn what_is_not_there_is_said() {
    let (lab, mut a) = tracked(|a| put(a, "a", "x"));
    let check = |a: &Device| {
        a.fails(["diff", "4711"], 1, &["no generation 4711", "sync log"]);
        a.fails(
            ["diff", "1", "abcdef0123"],
            1,
            &["no generation has a root", "abcdef0123"],
        );
        a.fails(["diff", "yesterday"], 1, &["yesterday", "names no generation"]);
        a.fails(["log", "photos"], 1, &["no folder “photos”", "docs"]);
        a.fails(["diff", "1", "-f", "photos"], 1, &["no folder “photos”"]);
        a.fails(
            ["log", "--", "never"],
            1,
            &["never was never in the folder “docs”"],
        );
        a.fails(["log", "--", "/etc/passwd"], 1, &["not in the folder “docs”"]);
    };
    check(&a);
    a.stop();
    check(&a);
    // Asking makes no state directory.
    let other = lab.device("desktop");
    other.fails(["log"], 1, &["no folder", "sync share"]);
    other.fails(["diff", "1"], 1, &["no folder", "sync share"]);
    assert!(!other.home.exists());
}

#[test]
fn names_that_are_not_utf8_are_told_by_their_bytes() {
    let (_lab, mut a) = tracked(|a| put(a, "stays", "x"));
    let before = seen(&a).to_string();
    let name = OsStr::from_bytes(b"caf\xe9");
    put(&a, name, "moves");
    let with = seen(&a).to_string();
    fs::create_dir(a.path("d")).unwrap();
    fs::rename(a.path(name), a.path("d").join(name)).unwrap();
    seen(&a);
    let (short, long) = (json!({"bytes": "636166e9"}), json!({"bytes": "642f636166e9"}));
    let check = |a: &Device| {
        assert_eq!(
            list(a, ["diff", "--json", &before, &with]),
            [json!({"change": "added", "path": short})]
        );
        assert_eq!(
            list(a, ["diff", "--json", &with]),
            [json!({"change": "renamed", "path": long, "from": short})]
        );
        assert_eq!(a.ok(["diff", &with]), "R caf\\xe9 -> d/caf\\xe9\n");
        let args: [OsString; 4] = ["log".into(), "--json".into(), "--".into(), name.into()];
        assert_eq!(column(&list(a, args), "kind"), ["removed", "file"]);
    };
    check(&a);
    a.stop();
    check(&a);
}

#[test]
fn a_version_that_only_another_device_kept_is_remote_while_that_is_connected() {
    const SIZE: usize = 300_000;
    let (_lab, mut a, mut b) = paired(|dir| write(dir.join("image"), noise("old", SIZE)));
    // What is changed where it lies leaves nothing here; the other device keeps what the change displaces.
    let mut file = fs::File::options().write(true).open(a.path("image")).unwrap();
    file.write_all(&noise("new", SIZE)).unwrap();
    drop(file);
    assert_converged(&[&a, &b]);
    let old = blake3::hash(&noise("old", SIZE)).to_hex().to_string();
    let contents = |device: &Device| -> Vec<(String, String)> {
        let versions = list(device, ["log", "--json", "--", "image"]);
        let digests = column(&versions, "digest")
            .into_iter()
            .map(|d| if d == old { "old" } else { "" }.to_owned());
        digests.zip(column(&versions, "content")).collect()
    };
    let told = |of_old: &str| {
        [
            ("".to_owned(), "complete".to_owned()),
            ("old".to_owned(), of_old.to_owned()),
        ]
    };
    let log = |device: &Device| {
        let log = list(device, ["log", "--json"]);
        (log[0]["content"].clone(), log.last().unwrap()["content"].clone())
    };
    assert_eq!(contents(&a), told("remote"));
    assert_eq!(contents(&b), told("complete"));
    assert_eq!(log(&a), (json!("complete"), json!("remote")));
    assert!(a.ok(["log"]).contains("partly on other devices"));

    // A device that does not say whether it has it, does not have it.
    b.stop();
    eventually("the connection is gone", LONG, || {
        a.field("peers")[0]["connected"] == false
    });
    assert_eq!(contents(&a), told("partial"));
    assert_eq!(log(&a), (json!("complete"), json!("partial")));
    assert!(a.ok(["log"]).contains("incomplete here"));
    a.stop();
    assert_eq!(contents(&a), told("partial"));
    assert_eq!(contents(&b), told("complete"));

    // It is back.
    a.start();
    b.start();
    eventually("the old version is found again", LONG, || {
        contents(&a) == told("remote")
    });
}

/// What is gone is passed on a moment after what is new, and is of the same generation: else a rename would be a copy in one
/// and a deletion in the next.
#[test]
fn a_rename_among_edits_is_one_generation_on_both_sides() {
    let (_lab, a, b) = paired(|folder| {
        fs::create_dir(folder.join("dir")).unwrap();
        for (name, content) in [
            ("dir/old", "this moves"),
            ("edited", "one"),
            ("gone", "goes"),
            ("stays", "stays"),
        ] {
            write(folder.join(name), content);
        }
    });
    let numbers = [seen(&a), seen(&b)];
    fs::rename(a.path("dir/old"), a.path("dir/new")).unwrap();
    put(&a, "edited", "two");
    fs::remove_file(a.path("gone")).unwrap();
    b.wait_in_sync();
    for (device, before) in [&a, &b].into_iter().zip(numbers) {
        assert_eq!(seen(device), before + 1, "{}", device.ok(["log"]));
        let diff = device.ok(["diff", &before.to_string(), &(before + 1).to_string()]);
        assert!(diff.contains("dir/old") && diff.contains("dir/new"), "{diff}");
        let kinds = list(
            device,
            ["diff", "--json", &before.to_string(), &(before + 1).to_string()],
        );
        assert_eq!(kinds.len(), 3, "a rename, an edit and a deletion: {kinds:?}");
    }
    // What somebody has waited for is never made part of what comes next.
    let held = seen(&b);
    let root = b.hash();
    put(&a, "edited", "three");
    b.wait_in_sync();
    assert_eq!(seen(&b), held + 1);
    let rows = list(&b, ["log", "--json", "-n", "2"]);
    assert_eq!(rows[1]["root"], root.as_str());
}
