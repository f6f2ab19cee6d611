//! Small file systems for one test. Never leaves one mounted: also a test that fails unmounts its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs. Declare it before the devices on it: it must go after their engines.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many KiB at `path`, which is made. `None`, and said so, where that is not allowed: only
    /// root can.
    pub(crate) fn new(path: impl AsRef<Path>, kib: u64) -> Option<Self> {
        let path = path.as_ref();
        if !rustix::process::getuid().is_root() {
            eprintln!("NOT RUN: mounting {} needs root", path.display());
            return None;
        }
        std::fs::create_dir_all(path).expect("make the mount point");
        let size = format!("size={kib}k,mode=0700");
        call(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", &path.to_string_lossy()],
        );
        Some(Self(path.to_owned()))
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, kib: u64) {
        let size = format!("remount,size={kib}k");
        call("mount", &["-o", &size, &self.0.to_string_lossy()]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that is still ending must not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[track_caller]
fn call(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "{program} {args:?}: {status:?}"
    );
}
