//! Syncthing, as shipped and tuned. Encrypted, durable. Both without anything that looks for other machines, as
//! there is none. Tuned: the watcher's delay 1 s (0 switches the watcher off), full priority.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::rest::Rest;
use super::{Ends, Outcome, Pair, Peer, Traits, first_line};
use crate::bench::measure::End;
use crate::bench::process::{Running, free_port, in_time};
use crate::bench::trees::{Grain, Weight, weigh};
use crate::device::until;

/// How often it is asked whether it is done.
const STEP: Duration = Duration::from_millis(50);
/// The folder's name.
const FOLDER: &str = "bench";
/// Options that both have, unlike what is shipped: nobody else is there, nothing is sent home.
const ALONE: &[(&str, &str)] = &[
    ("globalAnnounceEnabled", "false"),
    ("localAnnounceEnabled", "false"),
    ("relaysEnabled", "false"),
    ("natEnabled", "false"),
    ("startBrowser", "false"),
    ("urAccepted", "-1"),
    ("autoUpgradeIntervalH", "0"),
    ("crashReportingEnabled", "false"),
];
const TUNED: &[(&str, &str)] = &[("setLowPriority", "false")];
/// The shortest with which it watches, in seconds.
const TUNED_DELAY: u64 = 1;

pub(super) struct Syncthing {
    pub(super) tuned: bool,
}

impl Peer for Syncthing {
    fn name(&self) -> &'static str {
        if self.tuned {
            "Syncthing, tuned"
        } else {
            "Syncthing, as shipped"
        }
    }

    fn version(&self) -> String {
        let line = first_line("syncthing", "--version");
        let version = line.split_whitespace().nth(1).unwrap_or_default();
        format!(
            "Syncthing {version} (no discovery, relays, NAT, reports, upgrades; tuned: watcher 1 s, full priority)"
        )
    }

    fn traits(&self) -> Traits {
        Traits {
            live: true,
            durable: true,
            incremental: true,
            grain: Grain::Nanoseconds,
        }
    }

    fn setup<'a>(&self, ends: &Ends<'a>) -> Result<Box<dyn Pair + 'a>> {
        // Paths of sockets must be short.
        let sockets = tempfile::Builder::new().prefix("ab-").tempdir()?;
        let mut devices = Vec::new();
        for (end, folder) in [(End::From, ends.from), (End::To, ends.to)] {
            let name = if end == End::From { "from" } else { "to" };
            let home = ends.corner.join(format!("syncthing-{name}"));
            let socket = sockets.path().join(name);
            devices.push(Device::make(&home, folder, &socket, self.tuned, end)?);
        }
        let mut pair = Both {
            ends: *ends,
            tuned: self.tuned,
            devices,
            expected: weigh(ends.from)?,
            _sockets: sockets,
        };
        pair.start()?;
        pair.introduce()?;
        Ok(Box::new(pair))
    }
}

/// One of the two.
struct Device {
    home: PathBuf,
    folder: PathBuf,
    end: End,
    id: String,
    port: u16,
    rest: Rest,
    running: Option<Running>,
}

impl Device {
    /// Its key and its configuration.
    fn make(home: &Path, folder: &Path, socket: &Path, tuned: bool, end: End) -> Result<Device> {
        let output = Command::new("syncthing")
            .args(["generate", "--no-default-folder", "--skip-port-probing"])
            .arg(format!("--home={}", home.display()))
            .output()?;
        ensure!(output.status.success(), "syncthing generate: {}", output.status);
        let config = home.join("config.xml");
        let mut xml = fs::read_to_string(&config)?;
        let port = free_port()?;
        let listen = format!("tcp://127.0.0.1:{port}");
        set(&mut xml, "listenAddress", &listen)?;
        let tuning = TUNED.iter().filter(|_| tuned);
        for (name, value) in ALONE.iter().chain(tuning) {
            set(&mut xml, name, value)?;
        }
        // The first address is the device's own, which is not dialled.
        let gui = xml.find("<gui").context("<gui in its configuration")?;
        let mut tail = xml.split_off(gui);
        set(&mut tail, "address", &socket.to_string_lossy())?;
        xml += &tail;
        let key = between(&xml, "<apikey>", "</apikey>").context("a key in its configuration")?;
        let rest = Rest {
            socket: socket.to_path_buf(),
            key: key.to_owned(),
        };
        let id = between(&xml, "<device id=\"", "\"").context("an id in its configuration")?;
        let id = id.to_owned();
        fs::write(&config, xml)?;
        Ok(Device {
            home: home.to_path_buf(),
            folder: folder.to_path_buf(),
            end,
            id,
            port,
            rest,
            running: None,
        })
    }

    fn status(&self) -> Result<Value> {
        self.rest.get(&format!("/rest/db/status?folder={FOLDER}"))
    }

    fn is_connected(&self, other: &str) -> Result<bool> {
        let connections = self.rest.get("/rest/system/connections")?;
        Ok(connections["connections"][other]["connected"] == true)
    }

    /// Has it looked at the whole folder since it was started? Its state does not tell "not yet" from "idle".
    fn has_scanned(&self) -> bool {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        log.contains("Completed initial scan")
    }

    fn is_idle(&self, status: &Value) -> bool {
        status["state"] == "idle" && status["needTotalItems"] == 0 && self.has_scanned()
    }
}

struct Both<'a> {
    ends: Ends<'a>,
    tuned: bool,
    devices: Vec<Device>,
    /// What is in `from`.
    expected: Weight,
    _sockets: tempfile::TempDir,
}

impl Both<'_> {
    fn start(&mut self) -> Result<()> {
        for device in &mut self.devices {
            let log = fs::File::create(device.home.join("log"))?;
            let mut command = Command::new("syncthing");
            command.args(["serve", "--no-browser", "--no-restart", "--no-upgrade"]);
            command.arg(format!("--home={}", device.home.display()));
            command.stdout(log.try_clone()?).stderr(log);
            let running = Running::start(&mut command, self.ends.meter, device.end)?;
            let monitor = running.id();
            device.running = Some(running);
            until("Syncthing answers", || {
                Ok(device.rest.get("/rest/system/ping").is_ok())
            })?;
            // The one that does the work may have been started by any thread of its monitor.
            for child in children(monitor) {
                self.ends.meter.add(device.end, child);
            }
        }
        Ok(())
    }

    /// Tells each of the other, and waits until they are connected.
    fn introduce(&self) -> Result<()> {
        for (here, there) in [(0, 1), (1, 0)] {
            let other = &self.devices[there];
            let address = format!("tcp://127.0.0.1:{}", other.port);
            let device = json!({"deviceID": other.id, "name": "other", "addresses": [address]});
            self.devices[here].rest.post("/rest/config/devices", &device)?;
        }
        until("the two are connected", || self.are_connected())
    }

    fn are_connected(&self) -> Result<bool> {
        let [one, other] = [&self.devices[0], &self.devices[1]];
        Ok(one.is_connected(&other.id)? && other.is_connected(&one.id)?)
    }

    /// Is everything done, as far as both know?
    fn is_done(&self) -> Result<bool> {
        let [one, other] = [&self.devices[0], &self.devices[1]];
        let (here, there) = (one.status()?, other.status()?);
        let same = |name: &str| here[name] == there[name];
        if !one.is_idle(&here) || !other.is_idle(&there) || !same("localFiles") || !same("localBytes") {
            return Ok(false);
        }
        for (device, peer) in [(one, other), (other, one)] {
            let path = format!("/rest/db/completion?folder={FOLDER}&device={}", peer.id);
            let completion = device.rest.get(&path)?;
            if completion["needItems"] != 0 || completion["needDeletes"] != 0 {
                return Ok(false);
            }
        }
        self.are_connected()
    }

    fn wait(&self, deadline: Instant, check: impl Fn() -> Result<bool>) -> Result<Outcome> {
        if in_time(deadline, STEP, check)? {
            Ok(Outcome::Done)
        } else {
            Ok(Outcome::Stopped)
        }
    }
}

impl Pair for Both<'_> {
    fn first(&mut self, deadline: Instant) -> Result<Outcome> {
        let ids: Vec<_> = self.devices.iter().map(|d| json!({"deviceID": d.id})).collect();
        for device in &self.devices {
            let mut folder = json!({"id": FOLDER, "path": device.folder, "devices": ids});
            if self.tuned {
                folder["fsWatcherDelayS"] = TUNED_DELAY.into();
            }
            device.rest.post("/rest/config/folders", &folder)?;
        }
        let files = self.expected.files;
        self.wait(deadline, || {
            Ok(self.devices[1].status()?["localFiles"] == files && self.is_done()?)
        })
    }

    fn again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.wait(deadline, || self.is_done())
    }

    fn stop(&mut self) -> Result<()> {
        for device in &mut self.devices {
            device.rest.shut_down();
            device.running.take().context("it runs")?.ends()?;
        }
        Ok(())
    }

    fn start_again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.start()?;
        self.wait(deadline, || self.is_done())
    }
}

impl Drop for Both<'_> {
    fn drop(&mut self) {
        for device in &mut self.devices {
            let Some(running) = &mut device.running else {
                continue;
            };
            // Killing the monitor alone would leave the other process behind. What fails here has ended already.
            for child in children(running.id()) {
                if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            running.kill();
        }
    }
}

/// Children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let lists = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let all: Vec<String> = lists.collect();
    all.iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Replaces the content of the first element of this name.
fn set(xml: &mut String, name: &str, value: &str) -> Result<()> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let start = xml
        .find(&open)
        .with_context(|| format!("{open} in its configuration"))?
        + open.len();
    let end = start + xml[start..].find(&close).with_context(|| close.clone())?;
    xml.replace_range(start..end, value);
    Ok(())
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let start = text.find(open)? + open.len();
    let end = text[start..].find(close)?;
    Some(&text[start..start + end])
}
