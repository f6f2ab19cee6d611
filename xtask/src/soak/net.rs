//! The network of the soak: a namespace for each device, joined by a bridge in one of its own, so that links can
//! go down as cables do. Only with root; without it, all devices share the loopback device, whose link never
//! goes down. Never touches the network of the machine itself.

use std::process::Command;

use anyhow::{Result, ensure};

/// One network; its namespaces go with it.
pub(crate) struct Net {
    prefix: String,
    devices: usize,
}

impl Net {
    /// A network for so many devices; `None` where namespaces cannot be made.
    pub(crate) fn new(devices: usize) -> Option<Net> {
        let net = Net {
            prefix: format!("soak{}", std::process::id()),
            devices,
        };
        match net.build() {
            Ok(()) => Some(net),
            Err(error) => {
                println!("no network namespaces ({error:#}): all devices are on the loopback device");
                None
            }
        }
    }

    fn build(&self) -> Result<()> {
        let hub = self.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "hub", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "hub", "up"])?;
        for n in 0..self.devices {
            let (name, port) = (self.name(n), format!("port{n}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&[
                "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", &name,
            ])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "hub", "up"])?;
            let address = format!("{}/24", Self::address(n));
            ip(&["-n", &name, "addr", "add", &address, "dev", "wire"])?;
            ip(&["-n", &name, "link", "set", "wire", "up"])?;
        }
        Ok(())
    }

    /// The namespace of a device.
    pub(crate) fn name(&self, device: usize) -> String {
        format!("{}-{device}", self.prefix)
    }

    /// The address of a device.
    pub(crate) fn address(device: usize) -> String {
        format!("10.77.0.{}", device + 1)
    }

    /// Pulls or plugs the cable of a device, at the far end: the device's own interface stays as it is.
    pub(crate) fn link(&self, device: usize, up: bool) -> Result<()> {
        let (port, state) = (format!("port{device}"), if up { "up" } else { "down" });
        ip(&["-n", &self.hub(), "link", "set", &port, state])
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in (0..self.devices).map(|n| self.name(n)).chain([self.hub()]) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output()?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
