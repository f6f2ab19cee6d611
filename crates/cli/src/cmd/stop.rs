//! `sync stop`: ends the engine and returns when it has gone. Never kills it.

use std::path::Path;
use std::time::{Duration, Instant};

use alike_sync::control::{self, ClientError, Request};
use anyhow::bail;
use rustix::process::{Pid, test_kill_process};

use crate::context::Context;
use crate::{Exit, background, render};

/// How long an engine may take to close everything.
const LIMIT: Duration = Duration::from_secs(15);

/// A process that cannot be seen from here (another namespace) counts as gone when its socket has refused for
/// this long.
const REFUSED: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(20);

pub(crate) fn run(context: &Context) -> anyhow::Result<Exit> {
    let home = &context.home;
    let Some(engine) = background::running(home)? else {
        return Err(ClientError::NoEngine(home.clone()).into());
    };
    let deadline = Instant::now() + LIMIT;
    match control::call(home, &Request::Stop, |_| true) {
        // It may well be gone before it could say so.
        Ok(_) | Err(ClientError::Broken(_) | ClientError::NoEngine(_)) => {}
        Err(refused) => return Err(refused.into()),
    }
    let mut refused_since = None;
    while !process_is_gone(engine.pid) {
        let now = Instant::now();
        let refuses = background::running(home).is_ok_and(|engine| engine.is_none());
        if refuses && now - *refused_since.get_or_insert(now) >= REFUSED {
            break;
        }
        if now >= deadline {
            bail!(
                "the engine (process {}) has not ended after {}: look at {}, or end the process",
                engine.pid,
                render::span(LIMIT),
                render::path(&home.join("engine.log"))
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(Exit::Done)
}

/// Gone, or dead and only waiting for its parent to take notice.
fn process_is_gone(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return true;
    };
    test_kill_process(id) == Err(rustix::io::Errno::SRCH) || is_zombie(Path::new("/proc"), pid)
}

fn is_zombie(proc: &Path, pid: u32) -> bool {
    let stat = std::fs::read(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
    // `PID (NAME) STATE …`, where the name may hold anything, parentheses too.
    let state = stat
        .iter()
        .rposition(|b| *b == b')')
        .and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_a_child_that_ended_is_not() {
        assert!(!process_is_gone(std::process::id()));
        let mut child = std::process::Command::new("true")
            .spawn()
            .expect("there is a `true`");
        while !process_is_gone(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it ended");
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_state() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(proc.path().join("7")).expect("new");
        for (stat, zombie) in [("7 (a) Z) S 1", false), ("7 (sync) Z 1", true), ("", false)] {
            std::fs::write(proc.path().join("7/stat"), stat).expect("writable");
            assert_eq!(is_zombie(proc.path(), 7), zombie, "{stat}");
        }
    }
}
