//! What a folder is now, to be held against what it is later: its generation's number, and a copy. Never restores anything.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::device::Device;

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
