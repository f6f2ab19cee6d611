//! A device for the demo and the benchmarks: an engine of its own as a child process. Never touches state that
//! is not in the place it was given.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longer than anything here takes on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the other side's disk is looked at: the times shown are this precise.
const STEP: Duration = Duration::from_millis(2);

/// One of the two devices: its engine is a child of ours and ends with it.
pub(crate) struct Device {
    /// What it is called.
    pub(crate) name: &'static str,
    bin: PathBuf,
    corner: PathBuf,
    /// An empty directory to be synced.
    pub(crate) folder: PathBuf,
    engine: Child,
}

impl Device {
    pub(crate) fn start(bin: &Path, place: &Path, name: &'static str) -> Result<Self> {
        let corner = place.join(name);
        let folder = corner.join("Documents");
        fs::create_dir_all(&folder)?;
        let log = fs::File::create(corner.join("engine.log"))?;
        let mut watch = command(bin, &corner, name);
        let engine = watch.arg("watch").stdout(log.try_clone()?).stderr(log).spawn();
        let engine = engine.with_context(|| format!("start {}", bin.display()))?;
        let mut device = Self {
            name,
            bin: bin.to_path_buf(),
            corner,
            folder,
            engine,
        };
        let answers = until(&format!("the engine of the {name} answers"), || {
            if let Some(status) = device.engine.try_wait()? {
                bail!("the engine of the {name} ended at once: {status}");
            }
            Ok(device.output(["status"])?.status.success())
        });
        answers.with_context(|| device.log())?;
        Ok(device)
    }

    pub(crate) fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        Ok(command(&self.bin, &self.corner, self.name).args(args).output()?)
    }

    /// Runs a command that must succeed; returns what it printed.
    pub(crate) fn sync<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!(
                "on the {}: {}: {}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().context("files are in the folder")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(file)).ok()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.corner.join("engine.log")).unwrap_or_default()
    }

    /// The engine's process.
    pub(crate) fn id(&self) -> u32 {
        self.engine.id()
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.sync(["stop"])?;
        let mut status = None;
        until(&format!("the engine of the {} ends", self.name), || {
            status = self.engine.try_wait()?;
            Ok(status.is_some())
        })?;
        let ended = status.context("an engine that has ended has a status")?;
        ensure!(
            ended.success(),
            "the engine of the {} did not end cleanly: {ended}",
            self.name
        );
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.engine.kill();
        let _ = self.engine.wait();
    }
}

/// `sync` for one device: nothing of the user's own state is seen or changed.
fn command(bin: &Path, corner: &Path, name: &str) -> Command {
    let mut command = Command::new(bin);
    settle_in(&mut command, corner, name, "127.0.0.1:0");
    command
}

/// Makes `command` that of the device `name` in `corner`, reachable at `bind` and seen by nobody else.
pub(crate) fn settle_in(command: &mut Command, corner: &Path, name: &str, bind: &str) {
    command
        .current_dir(corner)
        .stdin(Stdio::null())
        .env("ALIKE_HOME", corner.join("state"))
        .env("ALIKE_NAME", name)
        .env("ALIKE_BIND", bind)
        .env("ALIKE_RELAY", "disabled")
        .env("ALIKE_DISCOVERY", "none")
        .env("ALIKE_NO_AUTOSTART", "1");
}

/// Looks again and again until `check` holds, or fails after a minute.
pub(crate) fn until(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !check()? {
        ensure!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(STEP);
    }
    Ok(())
}
