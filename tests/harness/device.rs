//! One device: a state directory, a folder, an engine process, and the commands given to it.
//! Ends only processes that it started, by their ids; never sees how the engine works inside.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::poll::{LONG, eventually};
use super::process::{Output, run, wait_for};

/// A promise: SIGTERM ends an engine within this time.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How much of an engine's log a failing test shows.
const LOG_LINES: usize = 80;
/// `nobody` on every Linux.
const NOBODY: u32 = 65534;

/// One device of a test.
pub(crate) struct Device {
    /// Its name, as other devices see it.
    pub(crate) name: String,
    /// Its corner of the file system; commands run here.
    pub(crate) corner: PathBuf,
    /// Where its folder is (made by the test or by `sync pair`).
    pub(crate) folder: PathBuf,
    /// `ALIKE_HOME`.
    pub(crate) home: PathBuf,
    bin: PathBuf,
    env: Vec<(String, OsString)>,
    nobody: bool,
    /// Where its engine finds its corner: on a machine of its own, which has that name for it.
    machine: Option<PathBuf>,
    engine: Option<Child>,
}

/// Runs a program where a directory (the first argument) is found at another's place (the second), for it alone.
const ON_A_MACHINE: &str = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;

impl Device {
    /// A device below `corner`, which must exist. With `nobody`, everything of it runs without privileges.
    pub(super) fn new(name: &str, corner: PathBuf, bin: PathBuf, nobody: bool) -> Self {
        let device = Self {
            name: name.to_owned(),
            folder: corner.join("docs"),
            home: corner.join("state"),
            corner,
            bin,
            env: Vec::new(),
            nobody,
            machine: None,
            engine: None,
        };
        device.hand_over();
        device
    }

    /// A path in the folder.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative)
    }

    /// Sets a variable for every later command and engine; an empty value removes it.
    pub(crate) fn set_env(&mut self, key: &str, value: impl Into<OsString>) {
        self.env.push((key.to_owned(), value.into()));
    }

    /// Lets its engine run as if its corner were `place`: as on a machine that is a copy of another. Only root can.
    pub(crate) fn stand_at(&mut self, place: &Path) {
        self.machine = Some(place.to_owned());
    }

    /// Gives all that the test made in this device's corner to the user that the device runs as.
    pub(crate) fn hand_over(&self) {
        if !self.nobody {
            return;
        }
        let mut paths = vec![self.corner.clone()];
        while let Some(path) = paths.pop() {
            std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY)).expect("chown to nobody");
            if fs::symlink_metadata(&path).expect("stat").is_dir() {
                paths.extend(
                    fs::read_dir(&path)
                        .expect("list")
                        .map(|e| e.expect("list").path()),
                );
            }
        }
    }

    /// A `sync` command of this device, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = if self.nobody {
            let mut setpriv = Command::new("setpriv");
            setpriv
                .arg(format!("--reuid={NOBODY}"))
                .arg(format!("--regid={NOBODY}"));
            setpriv.args(["--clear-groups", "--"]).arg(&self.bin);
            setpriv
        } else {
            Command::new(&self.bin)
        };
        command
            .args(args)
            .current_dir(&self.corner)
            .stdin(Stdio::null())
            .env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.corner);
        command.env("ALIKE_HOME", &self.home);
        command.env("ALIKE_BIND", "127.0.0.1:0");
        command.env("ALIKE_RELAY", "disabled");
        command.env("ALIKE_DISCOVERY", "none");
        command.env("ALIKE_NO_AUTOSTART", "1");
        command.env("ALIKE_NAME", &self.name);
        for key in ["ALIKE_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        for (key, value) in &self.env {
            if value.is_empty() {
                command.env_remove(key)
            } else {
                command.env(key, value)
            };
        }
        command
    }

    /// Runs a `sync` command to its end.
    #[track_caller]
    pub(crate) fn cmd<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(self.command(args))
    }

    /// Runs a command that must succeed; returns its standard output.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let command = self.command(args);
        let shown = format!("{command:?}");
        let out = run(command);
        assert_eq!(
            out.code, 0,
            "on {}: {shown}\nstdout: {}\nstderr: {}",
            self.name, out.stdout, out.stderr
        );
        out.stdout
    }

    /// Runs a command that must fail with `code`, saying each of `says` (in any case) on standard error.
    #[track_caller]
    pub(crate) fn fails<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        code: i32,
        says: &[&str],
    ) -> Output {
        let command = self.command(args);
        let shown = format!("{command:?}");
        let out = run(command);
        assert_eq!(
            out.code, code,
            "on {}: {shown}\nstdout: {}\nstderr: {}",
            self.name, out.stdout, out.stderr
        );
        assert!(!out.stderr.trim().is_empty(), "{shown}: fails without a word");
        let stderr = out.stderr.to_lowercase();
        for word in says {
            assert!(
                stderr.contains(&word.to_lowercase()),
                "{shown}: `{word}` is not in: {}",
                out.stderr
            );
        }
        out
    }

    /// Starts the engine (`sync watch`) and returns when it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.start_with(&["watch"]);
    }

    /// Starts the engine by another command line.
    #[track_caller]
    pub(crate) fn start_with(&mut self, args: &[&str]) {
        self.spawn(self.on_its_machine(self.command(args)));
        eventually(&format!("the engine of {} answers", self.name), LONG, || {
            let child = self.engine.as_mut().expect("just started");
            if let Some(status) = child.try_wait().expect("wait") {
                self.engine = None;
                panic!(
                    "the engine of {} ended at once: {status}\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            self.cmd(["status", "--json"]).code == 0
        });
    }

    /// Starts the engine with fail points armed (docs/testing.md); it may end itself at once, so nothing is waited for.
    #[track_caller]
    pub(crate) fn launch(&mut self, plan: &str) {
        let mut command = self.command(["watch"]);
        command.env("ALIKE_FAIL", plan);
        self.spawn(self.on_its_machine(command));
    }

    /// The same command, where this device has a machine of its own.
    fn on_its_machine(&self, command: Command) -> Command {
        let Some(place) = &self.machine else {
            return command;
        };
        let mut there = Command::new("unshare");
        there.args(["--mount", "sh", "-c", ON_A_MACHINE, "sh"]);
        there.args([&self.corner, place]);
        there.arg(command.get_program()).args(command.get_args());
        there
            .current_dir(&self.corner)
            .stdin(Stdio::null())
            .env_clear()
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        there
    }

    /// Has the engine killed itself at a fail point? Any other end fails the test.
    #[track_caller]
    pub(crate) fn fell(&mut self) -> bool {
        let Some(child) = &mut self.engine else {
            panic!("no engine of {} runs", self.name)
        };
        let Some(status) = child.try_wait().expect("wait for our own child") else {
            return false;
        };
        self.engine = None;
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "the engine of {} ended by itself: {status}\n{}",
            self.name,
            self.log_tail()
        );
        true
    }

    #[track_caller]
    fn spawn(&mut self, mut command: Command) {
        assert!(self.engine.is_none(), "the engine of {} runs already", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("open the log");
        command
            .stdout(log.try_clone().expect("clone the log"))
            .stderr(log);
        self.engine = Some(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("start {command:?}: {e}")),
        );
    }

    /// Sends the engine SIGTERM and returns at once.
    #[track_caller]
    pub(crate) fn ask_to_stop(&self) {
        let child = self.engine.as_ref().expect("an engine runs");
        kill_process(Pid::from_child(child), Signal::TERM).expect("signal our own child");
    }

    /// Ends the engine with SIGTERM: it must be gone in time, and cleanly.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let status = self.end(Signal::TERM, STOP_LIMIT);
        assert!(
            status.success(),
            "the engine of {} did not end cleanly: {status}",
            self.name
        );
    }

    /// Ends the engine with SIGKILL.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL, LONG);
    }

    /// `stop`, then `start`.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// `sync status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let text = self.ok(["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("status is not JSON ({e}): {text}"))
    }

    /// The only folder in the status.
    #[track_caller]
    pub(crate) fn folder_status(&self) -> Value {
        let status = self.status();
        let folders = status["folders"].as_array().expect("folders is a list");
        assert_eq!(folders.len(), 1, "one folder on {}: {status:#}", self.name);
        folders[0].clone()
    }

    /// One field of the only folder.
    #[track_caller]
    pub(crate) fn field(&self, key: &str) -> Value {
        self.folder_status()[key].clone()
    }

    /// `sync hash` of this device's folder.
    #[track_caller]
    pub(crate) fn hash(&self) -> String {
        self.ok([OsStr::new("hash"), self.folder.as_os_str()])
            .trim()
            .to_owned()
    }

    /// Makes a ticket for the folder.
    #[track_caller]
    pub(crate) fn share(&self) -> String {
        self.share_with(&[])
    }

    /// Makes a ticket for the folder, with more options.
    #[track_caller]
    pub(crate) fn share_with(&self, options: &[&str]) -> String {
        let mut args = vec![OsStr::new("share"), self.folder.as_os_str()];
        args.extend(options.iter().map(OsStr::new));
        self.ok(args).trim().to_owned()
    }

    /// Arguments that pair this device's folder by `ticket`.
    pub(crate) fn pair_args<'a>(&'a self, ticket: &'a str) -> [&'a OsStr; 3] {
        [OsStr::new("pair"), OsStr::new(ticket), self.folder.as_os_str()]
    }

    /// Returns when every connected peer has what is here now.
    #[track_caller]
    pub(crate) fn wait_in_sync(&self) {
        let out = self.cmd(["wait", "--timeout", "60s"]);
        if out.code != 0 {
            let status = self.cmd(["status", "--json"]).stdout;
            panic!(
                "`sync wait` on {}: exit {}\n{}\nstatus: {status}",
                self.name, out.code, out.stderr
            );
        }
    }

    /// The last lines of what the engine printed.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.corner.join("engine.log")
    }

    #[track_caller]
    fn end(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        let mut child = self
            .engine
            .take()
            .unwrap_or_else(|| panic!("no engine of {} runs", self.name));
        kill_process(Pid::from_child(&child), signal).expect("signal our own child");
        let start = Instant::now();
        let status = wait_for(&mut child, limit);
        status.unwrap_or_else(|| {
            panic!(
                "the engine of {} runs {:?} after {signal:?}\n{}",
                self.name,
                start.elapsed(),
                self.log_tail()
            )
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- engine of {}: last lines ---\n{}\n---",
                self.name,
                self.log_tail()
            );
        }
        if let Some(mut child) = self.engine.take() {
            let _ = child.kill();
            let _ = child.wait();
        } else if self
            .env
            .iter()
            .any(|(key, value)| key == "ALIKE_NO_AUTOSTART" && value.is_empty())
        {
            // An engine in the background is no child of ours: only the command can end it.
            if let Ok(mut stop) = self
                .command(["stop"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
            {
                let _ = wait_for(&mut stop, STOP_LIMIT);
            }
        }
    }
}
