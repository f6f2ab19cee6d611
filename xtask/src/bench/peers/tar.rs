//! `tar | tar`: no network, no comparison, nothing but reading and writing files. What a first sync cannot beat by much.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::{Ends, Outcome, Pair, Peer, Traits, first_line};
use crate::bench::measure::End;
use crate::bench::process::Running;
use crate::bench::trees::Grain;

pub(super) struct Tar;

impl Peer for Tar {
    fn name(&self) -> &'static str {
        "tar to tar"
    }

    fn version(&self) -> String {
        let line = first_line("tar", "--version");
        format!("tar {}", line.split_whitespace().last().unwrap_or_default())
    }

    fn traits(&self) -> Traits {
        Traits {
            live: false,
            durable: false,
            incremental: false,
            grain: Grain::Nanoseconds,
        }
    }

    fn setup<'a>(&self, ends: &Ends<'a>) -> Result<Box<dyn Pair + 'a>> {
        Ok(Box::new(Pipe(*ends)))
    }
}

struct Pipe<'a>(Ends<'a>);

impl Pair for Pipe<'_> {
    fn first(&mut self, deadline: Instant) -> Result<Outcome> {
        let Ends { from, to, meter, .. } = self.0;
        let mut pack = Command::new("tar");
        // The format that keeps nanoseconds.
        pack.args(["--format=posix", "-cf", "-", "-C"]).arg(from).arg(".");
        let (mut packer, packed) = Running::start_piped(&mut pack, meter, End::From)?;
        let mut unpack = Command::new("tar");
        unpack.args(["-xpf", "-", "-C"]).arg(to);
        let mut unpacker = Running::start_reading(&mut unpack, packed, meter, End::To)?;
        for tar in [&mut unpacker, &mut packer] {
            match tar.wait(deadline)? {
                Some(status) => ensure!(status.success(), "tar: {status}"),
                None => return Ok(Outcome::Stopped),
            }
        }
        Ok(Outcome::Done)
    }

    fn again(&mut self, _: Instant) -> Result<Outcome> {
        bail!("tar copies everything each time")
    }

    fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    fn start_again(&mut self, deadline: Instant) -> Result<Outcome> {
        self.again(deadline)
    }
}
