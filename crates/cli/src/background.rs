//! Finding the engine of the state directory, and starting one in the background where none runs. Never runs it
//! in this process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use alike_sync::control::{self, ClientError, Pong, Request};
use anyhow::{Context as _, anyhow, bail};

use crate::context::Context;
use crate::render;

/// What the engine writes to its standard output once it answers.
pub(crate) const READY: &str = "ready";

/// How long an engine may take to start: it may have to recover first.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a running engine may take to answer a ping.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait for another engine that got there first and does not answer yet.
const RIVAL_LIMIT: Duration = Duration::from_secs(3);

/// Between two looks at something that changes by itself.
const POLL: Duration = Duration::from_millis(20);

/// A log longer than this (bytes) is put aside before the engine starts: one old log is kept.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// Longest start error taken from the engine (bytes).
const ERROR_LIMIT: u64 = 64 * 1024;

/// The engine of `home`, if one runs.
pub(crate) fn running(home: &Path) -> anyhow::Result<Option<Pong>> {
    let (send, answer) = mpsc::channel();
    let owned = home.to_path_buf();
    std::thread::spawn(move || send.send(control::ask::<Pong>(&owned, &Request::Ping)));
    match answer.recv_timeout(PING_LIMIT) {
        Ok(Ok(pong)) => Ok(Some(pong)),
        // One that breaks off is on its way out.
        Ok(Err(ClientError::NoEngine(_) | ClientError::Broken(_))) => Ok(None),
        Ok(Err(refused @ ClientError::Failed { .. })) => Err(refused.into()),
        Err(_) => bail!(
            "the engine of {} does not answer: if it stays so, end its process and start again",
            render::path(home)
        ),
    }
}

/// Makes sure that an engine runs, starting one if that is allowed.
pub(crate) fn ensure(context: &Context) -> anyhow::Result<()> {
    let home = &context.home;
    if running(home)?.is_some() {
        return Ok(());
    }
    if context.config()?.no_autostart {
        bail!(
            "no engine runs for {}, and ALIKE_NO_AUTOSTART forbids starting one: start it with `sync watch`",
            render::path(home)
        );
    }
    make_home(home)?;
    // Of two commands that start at once, the second waits here and then finds the first one's engine.
    let gate = private_file(&home.join("start.lock"))?;
    gate.lock()
        .with_context(|| format!("cannot lock {}", render::path(&home.join("start.lock"))))?;
    if running(home)?.is_some() {
        return Ok(());
    }
    start(home)
}

/// Creates the state directory, for this user only, if it is missing.
pub(crate) fn make_home(home: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(home);
    made.with_context(|| format!("cannot create the state directory {}", render::path(home)))
}

/// Starts the engine in the background and waits until it answers.
fn start(home: &Path) -> anyhow::Result<()> {
    let log_path = home.join("engine.log");
    let mut child = spawn(home, &log_path)?;
    let output = child.stdout.take().expect("it was asked for");
    let deadline = Instant::now() + START_LIMIT;
    match first_words(output).recv_timeout(START_LIMIT) {
        Ok(StartUp::Ready) => await_answer(home, deadline),
        Ok(StartUp::Died(why)) => {
            // A `sync watch` may have been faster.
            if await_answer(home, Instant::now() + RIVAL_LIMIT).is_ok() {
                return Ok(());
            }
            let _ = child.wait();
            if why.is_empty() {
                bail!(
                    "the engine ended before it was ready: see {}",
                    render::path(&log_path)
                );
            }
            Err(anyhow!(why).context("the engine did not start"))
        }
        Err(_) => bail!(
            "the engine is still starting after {}: see {}, then try again",
            render::span(START_LIMIT),
            render::path(&log_path)
        ),
    }
}

fn await_answer(home: &Path, deadline: Instant) -> anyhow::Result<()> {
    while running(home)?.is_none() {
        if Instant::now() >= deadline {
            bail!("the engine of {} does not answer", render::path(home));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn spawn(home: &Path, log_path: &Path) -> anyhow::Result<Child> {
    rotate(log_path)?;
    let log = private_file(log_path)?;
    let own = std::env::current_exe().ok().filter(|exe| exe.exists());
    // A program replaced while it runs is still reachable there.
    let own = own.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    Command::new(own)
        .arg("engine")
        .env("ALIKE_HOME", home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("cannot start the engine")
}

/// What became of a starting engine.
enum StartUp {
    Ready,
    /// With the reason, if it gave one.
    Died(String),
}

/// Reads what the engine says until it is ready or gone.
fn first_words(output: ChildStdout) -> mpsc::Receiver<StartUp> {
    let (send, words) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output.take(ERROR_LIMIT));
        let mut said = Vec::new();
        let _ = output.read_until(b'\n', &mut said);
        if said.trim_ascii() != READY.as_bytes() {
            let _ = output.read_to_end(&mut said);
            let why = String::from_utf8_lossy(&said).trim().to_owned();
            return send.send(StartUp::Died(why));
        }
        send.send(StartUp::Ready)
    });
    words
}

fn rotate(log_path: &Path) -> anyhow::Result<()> {
    match log_path.metadata() {
        Ok(log) if log.len() > LOG_LIMIT => std::fs::rename(log_path, log_path.with_extension("log.1")),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
    .with_context(|| format!("cannot put aside {}", render::path(log_path)))
}

/// Opens a file of the state directory to append, for this user only.
fn private_file(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    file.with_context(|| format!("cannot open {}", render::path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let log = home.path().join("engine.log");
        rotate(&log).expect("nothing to do");
        let file = private_file(&log).expect("writable");
        file.set_len(LOG_LIMIT).expect("writable");
        rotate(&log).expect("nothing to do");
        assert!(log.exists());
        file.set_len(LOG_LIMIT + 1).expect("writable");
        rotate(&log).expect("renamed");
        assert!(!log.exists() && home.path().join("engine.log.1").exists());
    }

    #[test]
    fn no_state_directory_means_no_engine() {
        assert!(
            running(Path::new("/nonexistent/alike"))
                .expect("no error")
                .is_none()
        );
    }
}
