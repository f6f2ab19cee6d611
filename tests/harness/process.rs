//! Running one process to its end, with a limit. Never leaves one of its own behind.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use super::poll::poll;

/// No command may take longer; one that does is ended and the test fails.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// What a command did.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end. Output goes through files: a process it leaves behind cannot block us.
#[track_caller]
pub(super) fn run(mut command: Command) -> Output {
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    command
        .stdout(stdout.try_clone().expect("clone"))
        .stderr(stderr.try_clone().expect("clone"));
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let status = wait_for(&mut child, COMMAND_LIMIT);
    let (stdout, stderr) = (read_back(&mut stdout), read_back(&mut stderr));
    let Some(status) = status else {
        panic!("still running after {COMMAND_LIMIT:?}: {command:?}\nstdout: {stdout}\nstderr: {stderr}");
    };
    Output {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr,
    }
}

/// The exit status, or `None` at the limit; the child is gone in both cases.
pub(super) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let status = poll(limit, || child.try_wait().expect("wait for our own child"));
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status
}

fn read_back(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read back");
    String::from_utf8_lossy(&bytes).into_owned()
}
