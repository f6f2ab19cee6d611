//! alike's I/O and time: looks at folders, talks to devices, applies what was agreed. It never prints and
//! never reads the environment; the command does both.

mod apply;
mod blobs;
mod checkout;
mod chunks;
mod claims;
mod clock;
mod collect;
pub mod config;
pub mod control;
mod disk;
mod endpoint;
pub mod engine;
pub mod error;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(not(feature = "failpoints"))]
mod failpoint;
mod fetch;
mod folder;
mod hash;
mod hint;
mod ignore;
mod memory;
mod named;
mod outboard;
mod pairing;
pub mod past;
mod peer;
mod scan;
mod serve;
#[cfg(test)]
mod sim;
pub mod status;
mod ticket;
pub mod units;
mod verify;
mod watch;
mod wire;

pub use hash::{HashReport, hash_dir};
