//! The shapes of the verbs about a folder's past.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse_time;

/// Show a folder's generations, the newest first; or the versions of one path
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Which folder
    pub(crate) folder: Option<String>,
    /// How many at most
    #[arg(short = 'n', value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the versions of this path instead
    #[arg(last = true, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
}

/// Show what differs between a generation and another one, or now
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The generation: its number, or the beginning of its root
    #[arg(value_name = "GEN")]
    pub(crate) from: String,
    /// The other one [default: the folder as it is now]
    #[arg(value_name = "GEN")]
    pub(crate) to: Option<String>,
    /// Which folder
    #[arg(short, long)]
    pub(crate) folder: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make the folder, or some paths, what it was in a generation; as a new generation, on all devices
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The generation: its number, or the beginning of its root
    #[arg(value_name = "GEN")]
    pub(crate) generation: String,
    /// Only these
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Which folder
    #[arg(short, long)]
    pub(crate) folder: Option<String>,
    /// Print one JSON object instead
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write a generation into a new directory
#[derive(Debug, Args)]
pub(crate) struct Checkout {
    /// The generation: its number, or the beginning of its root
    #[arg(value_name = "GEN")]
    pub(crate) generation: String,
    /// Where to; created if missing, must be empty
    pub(crate) dir: PathBuf,
    /// Which folder
    #[arg(short, long)]
    pub(crate) folder: Option<String>,
    /// Print one JSON object instead
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `pin` and `unpin`.
#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The generation: its number, or the beginning of its root
    #[arg(value_name = "GEN")]
    pub(crate) generation: String,
    /// Which folder
    #[arg(short, long)]
    pub(crate) folder: Option<String>,
}

/// Free what no kept generation needs
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Which folder [default: all of them]
    pub(crate) folder: Option<String>,
    /// Keep this many generations of each folder, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep: Option<u64>,
    /// Let go of generations that are older, for example 30d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) older_than: Option<Duration>,
    /// Only tell what it would free
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object instead
    #[arg(long)]
    pub(crate) json: bool,
}

/// Read everything again and compare it with its digest; exit code 4 if damage was found and not repaired
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Which folder [default: all of them]
    pub(crate) folder: Option<String>,
    /// Get good content for what is damaged, from what is kept here or from another device
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print one JSON object instead
    #[arg(long)]
    pub(crate) json: bool,
}
