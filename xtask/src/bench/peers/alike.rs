//! alike: two engines, `share`, `pair`, `wait`. Encrypted, verified, durable.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Ends, Outcome, Pair, Peer, Traits};
use crate::bench::measure::End;
use crate::bench::results::ALIKE;
use crate::bench::trees::{Grain, weigh};
use crate::device::Device;

/// `sync wait`: the time is over.
const TIMEOUT: i32 = 3;
const NAMES: [&str; 2] = ["first", "second"];

pub(super) struct Alike(pub(super) PathBuf);

impl Peer for Alike {
    fn name(&self) -> &'static str {
        ALIKE
    }

    fn version(&self) -> String {
        ALIKE.to_owned()
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
        let mut pair = Engines {
            bin: self.0.clone(),
            ends: *ends,
            engines: Vec::new(),
        };
        pair.start()?;
        Ok(Box::new(pair))
    }
}

struct Engines<'a> {
    bin: PathBuf,
    ends: Ends<'a>,
    /// Both, or none while they are stopped.
    engines: Vec<Device>,
}

impl Engines<'_> {
    fn start(&mut self) -> Result<()> {
        for (name, end) in NAMES.into_iter().zip([End::From, End::To]) {
            let device = Device::start(&self.bin, self.ends.corner, name)?;
            self.ends.meter.add(end, device.id());
            self.engines.push(device);
        }
        Ok(())
    }

    fn engine(&self, number: usize) -> Result<&Device> {
        self.engines.get(number).context("the engines are running")
    }

    fn wait(&self, deadline: Instant) -> Result<Outcome> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = format!("{}s", left.max(Duration::from_secs(1)).as_secs());
        let output = self.engine(0)?.output(["wait", "--timeout", &left])?;
        match output.status.code() {
            Some(0) => Ok(Outcome::Done),
            Some(TIMEOUT) => Ok(Outcome::Stopped),
            _ => bail!(
                "sync wait: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        }
    }
}

impl Pair for Engines<'_> {
    fn first(&mut self, deadline: Instant) -> Result<Outcome> {
        let ticket = self
            .engine(0)?
            .sync(["share".as_ref(), self.ends.from.as_os_str()])?;
        let ticket = ticket.trim();
        self.engine(1)?
            .sync(["pair".as_ref(), ticket.as_ref(), self.ends.to.as_os_str()])?;
        self.wait(deadline)
    }

    fn again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.wait(deadline)
    }

    fn stop(&mut self) -> Result<()> {
        self.engines.drain(..).try_for_each(|mut engine| engine.stop())
    }

    fn start_again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.start()?;
        self.wait(deadline)
    }

    fn state_bytes(&self) -> Option<u64> {
        state_of(self.ends.corner, NAMES[0])
    }
}

fn state_of(corner: &Path, name: &str) -> Option<u64> {
    Some(weigh(&corner.join(name).join("state")).ok()?.bytes)
}
