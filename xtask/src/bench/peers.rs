//! Those that are measured, each in a file of its own: how to set up two ends, and how to bring them to be equal.

mod alike;
mod rest;
mod rsync;
mod syncthing;
mod tar;
mod unison;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::measure::Meter;
use super::results::ALIKE;
use super::trees::Grain;

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The limit was over.
    Stopped,
}

/// Something that can keep two directories equal.
pub(super) trait Peer {
    fn name(&self) -> &'static str;
    /// Name and version, for the page.
    fn version(&self) -> String;
    fn traits(&self) -> Traits;
    /// Everything up to the moment before `to` is to become what `from` is. Both exist.
    fn setup<'a>(&self, ends: &Ends<'a>) -> Result<Box<dyn Pair + 'a>>;
}

/// What can be expected of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// Watches by itself; otherwise it runs when it is told to.
    pub(super) live: bool,
    /// What it says is done is on the disk.
    pub(super) durable: bool,
    /// Can do more than copy everything.
    pub(super) incremental: bool,
    /// How precise times are afterwards.
    pub(super) grain: Grain,
}

/// Where it happens.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    /// Room for state and logs.
    pub(super) corner: &'a Path,
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    pub(super) meter: &'a Meter,
}

/// Two ends that are set up. Dropped, all its processes are gone.
pub(super) trait Pair {
    /// Makes `to` what `from` is for the first time; also where both are equal already.
    fn first(&mut self, deadline: Instant) -> Result<Outcome>;
    /// After a change: until everything is done, by its own account.
    fn again(&mut self, deadline: Instant) -> Result<Outcome>;
    /// Both ends are ended.
    fn stop(&mut self) -> Result<()>;
    /// Both ends are started again, until they know that all is equal.
    fn start_again(&mut self, deadline: Instant) -> Result<Outcome>;
    /// What it keeps on the disk about the folder, in bytes, where the content is at first.
    fn state_bytes(&self) -> Option<u64> {
        None
    }
}

/// alike, and what is installed of the others; only those whose names begin as one of `wanted`, if any are.
pub(super) fn find(bin: &Path, wanted: &[String]) -> Result<Vec<Box<dyn Peer>>> {
    let others: [(&str, Box<dyn Peer>); 5] = [
        ("rsync", Box::new(rsync::Rsync)),
        ("tar", Box::new(tar::Tar)),
        ("unison", Box::new(unison::Unison)),
        ("syncthing", Box::new(syncthing::Syncthing { tuned: true })),
        ("syncthing", Box::new(syncthing::Syncthing { tuned: false })),
    ];
    let mut all: Vec<Box<dyn Peer>> = vec![Box::new(alike::Alike(bin.to_path_buf()))];
    for (program, peer) in others {
        if is_installed(program) {
            all.push(peer);
        } else {
            println!("{}: not installed, left out", peer.name());
        }
    }
    if !wanted.is_empty() {
        let begins = |name: &str, with: &str| name.to_lowercase().starts_with(&with.to_lowercase());
        let is_wanted = |peer: &dyn Peer| wanted.iter().any(|w| begins(peer.name(), w));
        all.retain(|peer| peer.name() == ALIKE || is_wanted(peer.as_ref()));
        ensure!(
            all.len() > 1 || wanted.iter().any(|w| w == ALIKE),
            "no such peers: {}",
            wanted.join(", ")
        );
    }
    Ok(all)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The first line that a program prints about its version.
fn first_line(program: &str, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output();
    let text = output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.lines().next().unwrap_or(program).to_owned()
}
