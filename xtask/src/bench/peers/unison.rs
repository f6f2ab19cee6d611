//! Unison with a server on a socket. Not encrypted, not durable; runs when it is told to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Ends, Outcome, Pair, Peer, Traits, first_line};
use crate::bench::measure::End;
use crate::bench::process::{Running, free_port, listens};
use crate::bench::trees::Grain;
use crate::device::until;

pub(super) struct Unison;

impl Peer for Unison {
    fn name(&self) -> &'static str {
        "Unison"
    }

    fn version(&self) -> String {
        let line = first_line("unison", "-version");
        let version = line.split_whitespace().nth(2).unwrap_or_default();
        format!("Unison {version} (`-batch -times`, socket)")
    }

    fn traits(&self) -> Traits {
        Traits {
            live: false,
            durable: false,
            incremental: true,
            grain: Grain::Seconds,
        }
    }

    fn setup<'a>(&self, ends: &Ends<'a>) -> Result<Box<dyn Pair + 'a>> {
        let mut pair = Server {
            ends: *ends,
            port: free_port()?,
            server: None,
        };
        pair.start()?;
        Ok(Box::new(pair))
    }
}

struct Server<'a> {
    ends: Ends<'a>,
    port: u16,
    server: Option<Running>,
}

impl Server<'_> {
    fn start(&mut self) -> Result<()> {
        let mut command = unison(self.ends.corner, "unison-from");
        command.args(["-socket", &self.port.to_string(), "-listen", "127.0.0.1"]);
        self.server = Some(Running::start(&mut command, self.ends.meter, End::From)?);
        until("the Unison server listens", || Ok(listens(self.port)))
    }
}

/// Unison with its archives in the corner, quiet.
fn unison(corner: &Path, archives: &str) -> Command {
    let mut command = Command::new("unison");
    command.env("UNISON", corner.join(archives)).env("HOME", corner);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Pair for Server<'_> {
    fn first(&mut self, deadline: Instant) -> Result<Outcome> {
        let mut command = unison(self.ends.corner, "unison-to");
        command.arg(self.ends.to);
        command.arg(format!(
            "socket://127.0.0.1:{}/{}",
            self.port,
            self.ends.from.display()
        ));
        command.args([
            "-batch",
            "-silent",
            "-times",
            "-confirmbigdel=false",
            "-log=false",
        ]);
        let mut client = Running::start(&mut command, self.ends.meter, End::To)?;
        match client.wait(deadline)?.map(|status| status.code()) {
            Some(Some(0)) => Ok(Outcome::Done),
            Some(code) => bail!("unison ended with {code:?}"),
            None => Ok(Outcome::Stopped),
        }
    }

    fn again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.first(deadline)
    }

    fn stop(&mut self) -> Result<()> {
        self.server.take().context("the server runs")?.kill();
        Ok(())
    }

    fn start_again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.start()?;
        self.first(deadline)
    }
}
