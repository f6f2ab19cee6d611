//! Tests of the rules for Rust files: what passes, what is named, and what only looks like it.

use super::*;

fn broken(name: &str, text: &str) -> Vec<Broken> {
    check(name, &format!("//! A file.\n{text}")).broken
}

#[test]
fn a_file_says_what_it_owns() {
    assert_eq!(check("a.rs", "//! Owns a.\nfn a() {}\n").broken, [""; 0]);
    assert_eq!(check("a.rs", "fn a() {}\n").broken.len(), 1);
    assert_eq!(check("a.rs", "\n//! Owns a.\n").broken.len(), 1);
}

#[test]
fn long_files_are_noted_and_longer_ones_refused() {
    let long = |lines: usize| check("a.rs", &"//!\n".repeat(lines));
    assert!(long(400).notes.is_empty());
    assert_eq!(long(401).notes.len(), 1);
    assert!(long(600).broken.is_empty());
    assert_eq!(long(601).broken.len(), 1);
}

#[test]
fn forbidden_words_are_found_in_code_only() {
    assert_eq!(broken("a.rs", "#[test]\n#[ignore]\nfn a() {}").len(), 1);
    assert_eq!(broken("a.rs", "fn a() { todo!(\"later\") }").len(), 1);
    assert_eq!(
        broken("a.rs", "fn a() { unimplemented!() }"),
        ["a.rs:2: `unimplemented!(` is not for this house"]
    );
    let innocent = r##"
        // todo!() is not for this house
        /* nor /* unimplemented!() */ todo!() */
        const A: &str = "todo!() \" todo!()";
        const B: &str = r#"todo!() " todo!()"#;
        const C: &[u8] = b"todo!()";
        const D: (char, u8) = ('"', b'"');
        fn e<'a>(x: &'a str) -> &'a str { x } // '"'
    "##;
    assert_eq!(broken("a.rs", innocent), [""; 0]);
    // What follows a literal is code again.
    assert_eq!(
        broken("a.rs", "const A: char = '\"'; fn b() { todo!() }").len(),
        1
    );
    assert_eq!(broken("a.rs", "fn b<'a>(_: &'a u8) { todo!() }").len(), 1);
    assert_eq!(
        broken("a.rs", "const A: &str = r\"\\\"; fn b() { todo!() }").len(),
        1
    );
}

#[test]
fn only_the_marked_sleep_is_allowed_in_tests() {
    let sleep = "fn a() { std::thread::sleep(STEP); }";
    assert_eq!(broken("tests/a.rs", sleep).len(), 1);
    assert_eq!(
        broken("tests/a.rs", "async fn a() { tokio::time::sleep(STEP).await }").len(),
        1
    );
    assert_eq!(broken("crates/sync/src/a.rs", sleep), [""; 0]);
    let marked = check("tests/a.rs", &format!("//! A.\n{sleep} {SLEEP_MARKER}"));
    assert_eq!(
        (marked.broken.len(), marked.sleeps),
        (0, vec!["tests/a.rs:2".to_owned()])
    );
}

#[test]
fn core_does_not_know_the_world() {
    let core = |text: &str| broken("crates/core/src/a.rs", text).len();
    for text in [
        "use std::fs;",
        "use std::fs::File;",
        "use std::{fmt, fs};",
        "use std::{collections::{BTreeMap, BTreeSet}, net::{IpAddr, SocketAddr}};",
        "use std::time::{Duration, Instant};",
        "use std::time::SystemTime as Clock;",
        "use std::time::*;",
        "use std::time;",
        "use std::*;",
        "use std::time::{self, Duration};",
        "fn a() { std :: env :: var(\"A\"); }",
        "fn a() { std::thread::spawn(|| {}); }",
        "fn a() -> ! { std::process::abort() }",
        "fn a() -> u8 { rand::random() }",
        "use std::{\n    fmt as f,\n    process as p,\n};",
    ] {
        assert_ne!(core(text), 0, "{text}");
    }
    for text in [
        "use std::collections::BTreeMap;",
        "use std::{collections::{BTreeMap, btree_map::Entry}, fmt};",
        "use std::time::Duration;",
        "use std::fmt::{self, Display as D};",
        "use std::io::Write;",
        "fn operand(rand: u8) -> u8 { rand }",
        "//! `std::fs` is for others.\nconst A: &str = \"std::net\";",
    ] {
        assert_eq!(core(text), 0, "{text}");
    }
    assert_eq!(broken("crates/sync/src/a.rs", "use std::fs;"), [""; 0]);
    let threads = "fn a() { std::thread::spawn(|| std::env::var(\"A\")); }";
    assert_eq!(broken("crates/core/src/deep/a.rs", threads).len(), 2);
    assert_eq!(broken("crates/core/tests/common/mod.rs", threads), [""; 0]);
}
