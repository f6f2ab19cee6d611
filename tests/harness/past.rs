//! What a folder is now, to be held against what it is later: its generation's number, and a copy. Never changes a folder.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::device::Device;
use super::lab::Lab;
use super::tree::assert_same_tree;

/// What a command says with `--json`.
#[track_caller]
pub(crate) fn json<S: AsRef<OsStr>>(device: &Device, args: &[S]) -> Value {
    let args = args.iter().map(AsRef::as_ref).chain([OsStr::new("--json")]);
    serde_json::from_str(&device.ok(args)).expect("JSON")
}

/// The number of the newest generation.
#[track_caller]
pub(crate) fn generation(device: &Device) -> String {
    device.field("generation").to_string()
}

/// A copy of the folder as it is, without what is alike's own.
#[track_caller]
pub(crate) fn copy_of(device: &Device, to: PathBuf) -> PathBuf {
    let mut cp = Command::new("cp");
    let status = cp.args(["-a", "--"]).args([device.path(""), to.clone()]).status();
    assert!(status.expect("run cp").success());
    fs::remove_dir_all(to.join(".alike")).expect("remove what is alike's own");
    to
}

/// Checks a generation out and compares it with what it should be.
#[track_caller]
pub(crate) fn assert_was(lab: &Lab, device: &Device, generation: &str, like: &Path) {
    let dir = lab.path(&format!("checkout {generation} on {}", device.name));
    device.ok(["checkout".as_ref(), generation.as_ref(), dir.as_os_str()]);
    assert_same_tree(like, &dir);
    fs::remove_dir_all(dir).unwrap();
}
