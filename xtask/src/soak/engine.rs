//! One device of the soak: its engine, and what happens to it: stopped, killed, frozen, paused, cut off. Never
//! touches what is in its folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::ledger::Ledger;
use super::net::Net;
use super::random::Random;
use crate::device::settle_in;

/// Longer than an engine takes to start on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// SIGTERM ends an engine within five seconds; the machine is busy.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often to look whether something has happened.
const STEP: Duration = Duration::from_millis(20);

/// A device.
pub(crate) struct Engine {
    pub(crate) index: usize,
    pub(crate) corner: PathBuf,
    /// The synced folder.
    pub(crate) folder: PathBuf,
    bin: PathBuf,
    net: Option<Arc<Net>>,
    ledger: Arc<Ledger>,
    random: Random,
    child: Option<Child>,
    /// How often what happened.
    pub(crate) counts: std::collections::BTreeMap<&'static str, u64>,
}

impl Engine {
    pub(crate) fn new(
        index: usize,
        place: &Path,
        bin: &Path,
        net: Option<Arc<Net>>,
        ledger: Arc<Ledger>,
        seed: u64,
    ) -> Result<Self> {
        let corner = place.join(format!("d{index}"));
        let folder = corner.join("docs");
        fs::create_dir_all(&folder)?;
        fs::create_dir(corner.join("scratch"))?;
        Ok(Engine {
            index,
            corner,
            folder,
            bin: bin.to_path_buf(),
            net,
            ledger,
            random: Random::new(seed, 200 + index as u64),
            child: None,
            counts: Default::default(),
        })
    }

    fn command(&self) -> Command {
        let mut command = match &self.net {
            Some(net) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", &net.name(self.index)])
                    .arg(&self.bin);
                command
            }
            None => Command::new(&self.bin),
        };
        let bind = match &self.net {
            Some(_) => format!("{}:0", Net::address(self.index)),
            None => "127.0.0.1:0".to_owned(),
        };
        settle_in(&mut command, &self.corner, &format!("d{}", self.index), &bind);
        command
    }

    pub(crate) fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        Ok(self.command().args(args).output()?)
    }

    /// Runs a command that must succeed.
    pub(crate) fn sync<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.output(args)?;
        ensure!(
            output.status.success(),
            "on d{}: {}: {}",
            self.index,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The only folder in the status.
    pub(crate) fn status(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.sync(["status", "--json"])?)?;
        Ok(status["folders"][0].clone())
    }

    fn note(&self, text: &str) {
        self.ledger.note(self.index, text);
    }

    /// Starts the engine and returns when it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.note("engine: start");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.corner.join("engine.log"))?;
        let child = self
            .command()
            .arg("watch")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let start = Instant::now();
        while !self.output(["status"])?.status.success() {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().transpose()) {
                bail!("the engine of d{} ended by itself: {}", self.index, status?);
            }
            ensure!(
                start.elapsed() < START_LIMIT,
                "the engine of d{} does not answer",
                self.index
            );
            std::thread::sleep(STEP);
        }
        self.note("engine: answers");
        Ok(())
    }

    /// Fails if the engine has ended without being told to.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        match ended {
            Some(status) => bail!("the engine of d{} ended by itself: {status}", self.index),
            None => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the engine runs")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Ends it by SIGTERM.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.check_alive()?;
        self.note("engine: SIGTERM");
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let mut child = self.child.take().context("the engine runs")?;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "d{} ended badly: {status}", self.index);
                self.note("engine: ended");
                return Ok(());
            }
            if start.elapsed() > STOP_LIMIT {
                self.child = Some(child);
                bail!("the engine of d{} does not end within {STOP_LIMIT:?}", self.index);
            }
            std::thread::sleep(STEP);
        }
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.check_alive()?;
        self.note("engine: SIGKILL");
        let mut child = self.child.take().context("the engine runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// One misfortune after the other, until `over`; then it runs and is connected again.
    pub(crate) fn misfortunes(&mut self, over: &AtomicBool) -> Result<()> {
        loop {
            self.rest(over, 500, 6000);
            self.check_alive()?;
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let what = match self.random.below(20) {
                0..=4 => "stopped",
                5..=9 => "killed",
                10..=14 if self.net.is_some() => "cut off",
                15 | 16 => "paused",
                17 | 18 => "frozen",
                _ => "restarted",
            };
            *self.counts.entry(what).or_default() += 1;
            match what {
                "stopped" => {
                    self.stop()?;
                    self.rest(over, 100, 6000);
                    self.start()?;
                }
                "killed" => {
                    self.kill()?;
                    self.rest(over, 0, 3000);
                    self.start()?;
                }
                "cut off" => {
                    let net = self.net.clone().context("there is a network")?;
                    self.note("network: cut off");
                    net.link(self.index, false)?;
                    self.rest(over, 300, 12_000);
                    net.link(self.index, true)?;
                    self.note("network: connected");
                }
                "paused" => {
                    self.note("engine: pause");
                    self.sync(["pause"])?;
                    self.rest(over, 300, 5000);
                    self.sync(["resume"])?;
                    self.note("engine: resume");
                }
                "frozen" => {
                    self.note("engine: SIGSTOP");
                    self.signal(Signal::STOP)?;
                    self.rest(over, 100, 4000);
                    self.signal(Signal::CONT)?;
                    self.note("engine: SIGCONT");
                }
                _ => {
                    self.stop()?;
                    self.start()?;
                }
            }
        }
    }

    fn rest(&mut self, over: &AtomicBool, low: usize, high: usize) {
        let until = Instant::now() + Duration::from_millis(self.random.between(low, high) as u64);
        while Instant::now() < until && !over.load(Ordering::Relaxed) {
            std::thread::sleep(STEP);
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.corner.join("engine.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
