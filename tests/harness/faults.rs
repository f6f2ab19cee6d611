//! What tests of crashes share: the names of the fail points, a thread of an engine held at one, random numbers
//! whose seed is printed. Never knows what a point means.

use std::path::PathBuf;
use std::process::Command;

use super::device::Device;
use super::lab::fail_binary;
use super::poll::{LONG, eventually};
use super::process::run;

/// Names a seed to be used again.
const SEED: &str = "ALIKE_TEST_SEED";

/// All points that the binary knows.
#[track_caller]
pub(crate) fn fail_points() -> Vec<String> {
    let mut command = Command::new(fail_binary());
    command.env("ALIKE_FAIL", "list");
    let listed = run(command);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    listed.stdout.lines().map(str::to_owned).collect()
}

/// Those whose names begin so.
#[track_caller]
pub(crate) fn fail_points_of(prefix: &str) -> Vec<String> {
    let mut points = fail_points();
    points.retain(|point| point.starts_with(prefix));
    points
}

/// A place at which a thread of an engine waits as long as a file is there.
pub(crate) struct Hold {
    file: PathBuf,
}

impl Hold {
    /// For an engine of `device`; name it in a plan as [`Hold::action`] says.
    pub(crate) fn new(device: &Device) -> Self {
        let file = device.corner.join("hold");
        assert!(!file.exists(), "one at a time");
        Self { file }
    }

    /// `hold@N:FILE`.
    pub(crate) fn action(&self, at: u64) -> String {
        format!("hold@{at}:{}", self.file.display())
    }

    /// Returns when the thread waits.
    #[track_caller]
    pub(crate) fn reached(&self, what: &str) {
        eventually(&format!("held at {what}"), LONG, || self.file.exists());
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

/// Random numbers (xorshift); a failing test shows the seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeded by `ALIKE_TEST_SEED`, or else by the clock; `salt` tells tests apart.
    pub(crate) fn new(salt: &str) -> Self {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().expect("a seed is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("after 1970")
                .as_nanos() as u64,
        };
        eprintln!("{salt}: seed {seed}; set {SEED}={seed} to have it again");
        let salted = blake3::hash(format!("{seed} {salt}").as_bytes());
        let bytes = salted.as_bytes()[..8].try_into().expect("eight bytes");
        Self(u64::from_le_bytes(bytes) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
