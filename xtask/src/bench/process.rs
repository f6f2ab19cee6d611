//! Children of the benchmark: ended with it, waited for with a limit.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::measure::{End, Meter};

/// How often a running child is looked at: by-hand peers are timed no finer than this.
const STEP: Duration = Duration::from_millis(1);
/// How long a child may take to end when it was asked to.
const GRACE: Duration = Duration::from_secs(30);

/// One child; killed when this is dropped.
pub(super) struct Running {
    child: Child,
    what: String,
    meter: Meter,
}

impl Running {
    /// Starts it with nothing to read.
    pub(super) fn start(command: &mut Command, meter: &Meter, end: End) -> Result<Running> {
        Running::start_reading(command, Stdio::null(), meter, end)
    }

    /// Starts it with something to read.
    pub(super) fn start_reading(
        command: &mut Command,
        input: impl Into<Stdio>,
        meter: &Meter,
        end: End,
    ) -> Result<Running> {
        let what = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(input)
            .spawn()
            .with_context(|| format!("start {what}"))?;
        meter.add(end, child.id());
        Ok(Running {
            child,
            what,
            meter: meter.clone(),
        })
    }

    /// Starts it with nothing to read; what it prints can be read.
    pub(super) fn start_piped(
        command: &mut Command,
        meter: &Meter,
        end: End,
    ) -> Result<(Running, ChildStdout)> {
        let mut running = Running::start(command.stdout(Stdio::piped()), meter, end)?;
        let output = running.child.stdout.take().context("it was asked for")?;
        Ok((running, output))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; `None` (and it is killed) if that does not come in time.
    pub(super) fn wait(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            if self.has_ended()? {
                // Its CPU time is there until it is waited for.
                self.meter.read();
                return Ok(Some(self.child.wait()?));
            }
            if Instant::now() > deadline {
                self.kill();
                return Ok(None);
            }
            std::thread::sleep(STEP);
        }
    }

    /// Waits for an end that was asked for.
    pub(super) fn ends(&mut self) -> Result<()> {
        let status = self.wait(Instant::now() + GRACE)?;
        ensure!(
            status.is_some(),
            "{} did not end within {GRACE:?} and was killed",
            self.what
        );
        Ok(())
    }

    fn has_ended(&self) -> Result<bool> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = WaitId::Pid(pid.context("a process has a number")?);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(pid, options)?.is_some())
    }

    pub(super) fn kill(&mut self) {
        // Fails only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP port of the loopback address that is free now.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Does somebody listen there?
pub(super) fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Everything written so far goes to the disk, so that no run pays for the one before.
pub(super) fn flush() -> Result<()> {
    // The one of coreutils, which waits for all file systems, whatever is first on PATH.
    let coreutils = ["/usr/bin/sync", "/bin/sync"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let status = Command::new(coreutils.context("coreutils' sync is needed")?).status()?;
    ensure!(status.success(), "sync: {status}");
    Ok(())
}

/// Looks again and again; `false` if it does not hold in time.
pub(super) fn in_time(
    deadline: Instant,
    step: Duration,
    mut check: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    while !check()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(step);
    }
    Ok(true)
}
