//! What `sync verify` and `sync status` say of damage. Never does any.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::device::Device;

/// `sync verify --json` with more options, and what it must exit with.
#[track_caller]
pub(crate) fn verify(device: &Device, options: &[&str], code: i32) -> Value {
    let out = device.cmd([&["verify", "--json"], options].concat());
    assert_eq!(out.code, code, "{}{}", out.stdout, out.stderr);
    serde_json::from_str(&out.stdout).unwrap()
}

/// What it must have found and repaired.
#[track_caller]
pub(crate) fn found(answer: &Value, damaged: &[&str], repaired: &[&str]) {
    assert_eq!(answer["damaged"], json!(damaged), "{answer}");
    assert_eq!(answer["repaired"], json!(repaired), "{answer}");
    assert!(answer["checked"].as_u64().unwrap() > 3, "{answer}");
}

/// Where the displaced version with this content is.
pub(crate) fn object(device: &Device, content: &[u8]) -> PathBuf {
    let hex = blake3::hash(content).to_hex();
    device.path(format!(".alike/objects/{}/{hex}", &hex[..2]))
}

/// Flips a bit of what is in a file, wherever that may be on its disk.
#[track_caller]
pub(crate) fn flip(path: impl AsRef<Path>, offset: u64) {
    let mut options = fs::File::options();
    let file = options.read(true).write(true).open(path).expect("open the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read a byte");
    file.write_all_at(&[byte[0] ^ 0x10], offset)
        .expect("change a byte");
}

/// The problem that the status has of a path.
pub(crate) fn problem(device: &Device, path: &str) -> Option<Value> {
    let problems = device.field("problems");
    let of_path = |p: &&Value| p["path"] == path;
    problems.as_array().unwrap().iter().find(of_path).cloned()
}
