//! rsync from a daemon over loopback. Not encrypted, not durable; runs when it is told to.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use super::{Ends, Outcome, Pair, Peer, Traits, first_line};
use crate::bench::measure::End;
use crate::bench::process::{Running, free_port, listens};
use crate::bench::trees::Grain;
use crate::device::until;

pub(super) struct Rsync;

impl Peer for Rsync {
    fn name(&self) -> &'static str {
        "rsync -a"
    }

    fn version(&self) -> String {
        let line = first_line("rsync", "--version");
        let version = line
            .split_whitespace()
            .skip_while(|word| *word != "version")
            .nth(1);
        format!(
            "rsync {} (`-a --delete` from a daemon)",
            version.unwrap_or_default()
        )
    }

    fn traits(&self) -> Traits {
        Traits {
            live: false,
            durable: false,
            incremental: true,
            grain: Grain::Nanoseconds,
        }
    }

    fn setup<'a>(&self, ends: &Ends<'a>) -> Result<Box<dyn Pair + 'a>> {
        let port = free_port()?;
        let mut pair = Daemon {
            ends: *ends,
            port,
            daemon: None,
        };
        let config = ends.corner.join("rsyncd.conf");
        // A daemon started by root reads as nobody unless told otherwise.
        let uid = if geteuid().is_root() {
            "uid = 0\ngid = 0\n"
        } else {
            ""
        };
        let text = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\n{uid}[tree]\npath = {}\nread only = yes\n",
            ends.from.display()
        );
        fs::write(&config, text)?;
        pair.start()?;
        Ok(Box::new(pair))
    }
}

struct Daemon<'a> {
    ends: Ends<'a>,
    port: u16,
    daemon: Option<Running>,
}

impl Daemon<'_> {
    fn start(&mut self) -> Result<()> {
        let config = self.ends.corner.join("rsyncd.conf");
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach"]);
        command.arg(format!("--config={}", config.display()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.daemon = Some(Running::start(&mut command, self.ends.meter, End::From)?);
        until("the rsync daemon listens", || Ok(listens(self.port)))
    }
}

impl Pair for Daemon<'_> {
    fn first(&mut self, deadline: Instant) -> Result<Outcome> {
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete"]);
        command.arg(format!("rsync://127.0.0.1:{}/tree/", self.port));
        command.arg(self.ends.to);
        let mut client = Running::start(&mut command, self.ends.meter, End::To)?;
        match client.wait(deadline)? {
            Some(status) => {
                ensure!(status.success(), "rsync: {status}");
                Ok(Outcome::Done)
            }
            None => Ok(Outcome::Stopped),
        }
    }

    fn again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.first(deadline)
    }

    fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("the daemon runs")?.kill();
        Ok(())
    }

    fn start_again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.start()?;
        self.first(deadline)
    }
}
