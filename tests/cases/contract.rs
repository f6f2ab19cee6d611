//! The shapes that scripts rely on: every key of `sync status --json`, with its type.

use serde_json::Value;

use crate::harness::*;

const STATES: [&str; 7] = ["idle", "scanning", "syncing", "paused", "held", "frozen", "error"];

/// A key, and whether what is behind it has the right type.
type Field = (&'static str, fn(&Value) -> bool);

#[track_caller]
fn check(value: &Value, shape: &[Field]) {
    for (key, is_right) in shape {
        let field = value
            .get(key)
            .unwrap_or_else(|| panic!("`{key}` is missing: {value:#}"));
        assert!(is_right(field), "`{key}` has the wrong type: {field}");
    }
}

fn hex64(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|s| s.len() == 64 && s.chars().all(|c| c.is_ascii_hexdigit()))
}

fn filled(value: &Value) -> bool {
    value.as_str().is_some_and(|s| !s.is_empty())
}

fn pending(value: &Value) -> bool {
    value["files"].is_u64() && value["bytes"].is_u64()
}

#[test]
fn status_has_every_key_with_its_type() {
    let (_lab, a, _b) = paired(|dir| {
        write(dir.join("one"), "123");
        write(dir.join("dir/two"), "45");
    });
    let status = a.status();
    check(
        &status,
        &[
            ("version", filled),
            ("device", Value::is_object),
            ("folders", Value::is_array),
        ],
    );
    check(&status["device"], &[("id", hex64), ("name", filled)]);
    let folder = &status["folders"][0];
    check(
        folder,
        &[
            ("id", filled),
            ("name", filled),
            ("path", filled),
            ("state", |v| v.as_str().is_some_and(|s| STATES.contains(&s))),
            ("root", hex64),
            ("generation", Value::is_u64),
            ("files", Value::is_u64),
            ("dirs", Value::is_u64),
            ("bytes", Value::is_u64),
            ("pending", pending),
            ("conflicts", Value::is_u64),
            ("watching", Value::is_boolean),
            ("problems", Value::is_array),
            ("peers", Value::is_array),
            ("received_bytes", Value::is_u64),
            ("sent_bytes", Value::is_u64),
        ],
    );
    assert_eq!(status["device"]["name"], "laptop");
    assert_eq!(folder["name"], "docs");
    assert_eq!(folder["path"], a.folder.to_str().expect("test paths are UTF-8"));
    assert_eq!(
        (&folder["files"], &folder["dirs"], &folder["bytes"]),
        (&2.into(), &1.into(), &5.into())
    );
    check(
        &folder["peers"][0],
        &[
            ("id", hex64),
            ("name", |v| v == "desktop"),
            ("connected", |v| v == true),
            ("in_sync", |v| v == true),
            ("root", hex64),
            ("path", |v| v == "direct"),
            ("rtt_ms", Value::is_number),
            ("access", |v| v == "read-write"),
            ("pending", pending),
            ("last_seen", filled),
        ],
    );
    assert_eq!(folder["peers"][0]["root"], folder["root"]);
}

#[test]
fn status_is_the_same_shape_with_nothing_in_it() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    assert_eq!(a.status()["folders"], serde_json::json!([]));
}

#[test]
fn generations_grow_with_changes_and_not_without() {
    let (_lab, a, b) = paired(|dir| write(dir.join("file"), "1"));
    let generation = |d: &Device| d.field("generation").as_u64().expect("a number");
    let before = generation(&a);
    a.wait_in_sync();
    assert_eq!(generation(&a), before, "nothing changed");
    write(a.path("file"), "2");
    settle(&[&a, &b]);
    assert!(generation(&a) > before);
}

#[test]
fn odd_names_in_problems_are_hexadecimal() {
    use std::os::unix::ffi::OsStrExt;
    let (_lab, a, _b) = paired(|dir| write(dir.join("file"), "x"));
    let name = std::ffi::OsStr::from_bytes(b"\xffsock");
    let _socket = std::os::unix::net::UnixListener::bind(a.path(name)).unwrap();
    eventually("the problem is listed", LONG, || {
        let problems = a.field("problems");
        problems
            .as_array()
            .expect("a list")
            .iter()
            .any(|p| p["path"]["bytes"] == "ff736f636b")
    });
    let shown = a.ok(["status"]);
    assert!(
        !shown.contains('\u{fffd}') && !shown.contains('\x1b'),
        "escaped for people: {shown:?}"
    );
}

#[test]
fn watch_prints_one_json_object_a_line() {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    write(a.path("file"), "x");
    a.start_with(&["watch", "--json", "docs"]);
    eventually("something is printed", LONG, || a.log_tail().contains('{'));
    a.stop();
    let log = a.log_tail();
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
    for line in &lines {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(event.is_object());
    }
    assert!(!lines.is_empty(), "{log}");
}
