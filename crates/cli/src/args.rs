//! The command line's shape: every verb, its arguments and its help. Never acts on them.

mod past;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use past::{Checkout, Diff, Gc, Log, Pin, Restore, Verify};

/// Verbs that a later version brings: known, so that they fail with a clear message.
const LATER: [&str; 3] = ["doctor", "service", "ui"];

/// The hidden verb by which a command starts the engine in the background.
const ENGINE: &str = "engine";

const AFTER_HELP: &str = "\
FOLDER is a folder's name, a unique prefix of its id, or its path; left out, it is the folder around the working
directory, or the only one. DEVICE is a device's name or a unique prefix of its id.

Not in this version yet: doctor service ui.

Environment: ALIKE_HOME (the state directory), and, each also in its config.toml, ALIKE_RELAY, ALIKE_DISCOVERY,
ALIKE_BIND, ALIKE_NAME, ALIKE_NO_AUTOSTART, ALIKE_LOG, NO_COLOR; the environment wins.

Exit codes: 0 done, 1 failed, 2 usage, 3 timeout, 4 damage found.

Without arguments, or with nothing but existing files and coreutils' options (-d, -f, --data, --file-system), it
does what coreutils' sync does: it writes cached data to the disks.";

/// Keeps folders equal on several devices, directly from device to device.
#[derive(Debug, Parser)]
#[command(
    name = "sync",
    version = concat!("(alike) ", env!("CARGO_PKG_VERSION")),
    after_help = AFTER_HELP,
    subcommand_required = true,
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A verb of this version.
    Verb(Verb),
    /// A verb that a later version brings.
    Later(String),
    /// Be the engine in the background.
    Engine,
}

/// The verbs of this version.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Share(Share),
    Pair(Pair),
    Watch(Watch),
    /// End the background engine
    Stop,
    Status(Status),
    Wait(Wait),
    Hash(Hash),
    /// List the devices this one is paired with
    Devices(List),
    Unpair(Unpair),
    Forget(Forget),
    Log(Log),
    Diff(Diff),
    Restore(Restore),
    Checkout(Checkout),
    /// Keep a generation from gc
    Pin(Pin),
    /// Let gc have a generation again
    Unpin(Pin),
    Gc(Gc),
    Verify(Verify),
    Conflicts(Conflicts),
    Resolve(Resolve),
    /// Let a held removal of very many files through
    Accept(WhichFolder),
    /// Put back what a held removal of very many files took away, here and on the others
    Reject(WhichFolder),
    /// Pause syncing a folder, or with a device
    Pause(Target),
    /// Go on with a paused folder or device
    Resume(Target),
    /// List the tickets that can still be used
    Tickets(List),
    Revoke(Revoke),
    Completions(Completions),
    Man(Man),
}

/// Share a folder: prints a ticket for the other device
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// The directory to share; tracked from now on
    pub(crate) dir: PathBuf,
    /// The folder's name [default: the directory's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The other device may read but not change the folder
    #[arg(long)]
    pub(crate) read_only: bool,
    /// How long the ticket can be used, for example 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_expiry)]
    pub(crate) expires: Duration,
    /// How many devices may use the ticket
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// Print one JSON object instead
    #[arg(long)]
    pub(crate) json: bool,
}

/// Pair with the device that made TICKET and sync its folder into DIR
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// What `sync share` printed on the other device
    pub(crate) ticket: String,
    /// Where the folder goes; created if missing [default: ./ and the folder's name]
    pub(crate) dir: Option<PathBuf>,
    /// Print one JSON object and do not wait for the first sync
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run the engine in the foreground and print one line an event
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// A directory to track first
    pub(crate) dir: Option<PathBuf>,
    /// Print one JSON object an event
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show folders, peers, transfers and problems
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on showing it at every change
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Wait until the folder is idle and every connected peer has the same root
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Which folder
    pub(crate) folder: Option<String>,
    /// Give up after this long (exit code 3)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub(crate) timeout: Duration,
}

/// Print the root of any directory, tracked or not
#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// The directory
    pub(crate) dir: PathBuf,
}

/// Arguments of the verbs that list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Forget a device and close its connections at once
#[derive(Debug, Args)]
pub(crate) struct Unpair {
    /// The device's name or a unique prefix of its id
    pub(crate) device: String,
}

/// Stop tracking a folder; every file stays where it is
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Which folder
    pub(crate) folder: String,
}

/// List conflict copies with both sides' device, time and size
#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    /// Which folder
    pub(crate) folder: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Settle a conflict copy; what goes is kept in .alike/objects
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The copy, or its original if that has only one
    pub(crate) path: PathBuf,
    /// What stays
    #[arg(long, value_name = "WHICH")]
    pub(crate) keep: Keep,
}

/// What stays of a conflict.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Keep {
    /// What has the name; the copy goes
    Original,
    /// The copy, under the original's name
    Copy,
    /// Both, as two files like any others
    Both,
}

/// Arguments of the verbs that are about one folder.
#[derive(Debug, Args)]
pub(crate) struct WhichFolder {
    /// Which folder
    pub(crate) folder: Option<String>,
}

/// What to pause or resume.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// A folder or a device
    #[arg(value_name = "FOLDER|DEVICE")]
    pub(crate) target: Option<String>,
}

/// Make a ticket useless
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The ticket's id or a unique prefix of it (see `sync tickets`)
    #[arg(value_name = "TICKET-ID")]
    pub(crate) ticket: String,
}

/// Print the completion script for a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual page (roff)
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The page of this verb instead
    pub(crate) verb: Option<String>,
}

/// Parses the whole command line, the program's name first.
pub(crate) fn parse(args: &[OsString]) -> Result<Asked, clap::Error> {
    let matches = full_command().try_get_matches_from(args)?;
    match matches.subcommand_name() {
        Some(ENGINE) => Ok(Asked::Engine),
        Some(name) if LATER.contains(&name) => Ok(Asked::Later(name.to_owned())),
        _ => Ok(Asked::Verb(Cli::from_arg_matches(&matches)?.verb)),
    }
}

/// The verbs that people see, for completions and the manual.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Every first word that is ours, so that no file of that name sends us to coreutils.
pub(crate) fn verb_names() -> Vec<String> {
    let mut names: Vec<String> = full_command()
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    names.push("help".into());
    names
}

/// The visible verbs, those of a later version and the engine.
fn full_command() -> clap::Command {
    let later = |name| {
        let rest = Arg::new("rest")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true);
        clap::Command::new(name)
            .about("(not in this version yet)")
            .hide(true)
            .arg(rest)
    };
    let engine = clap::Command::new(ENGINE)
        .about("Be the engine in the background")
        .hide(true);
    Cli::command().subcommands(LATER.map(later)).subcommand(engine)
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e} (for example 90s, 5m, 24h)"))
}

fn parse_expiry(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time.as_secs() == 0 {
        Err("a ticket must live for a second at least".into())
    } else {
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Asked, clap::Error> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn the_definition_is_sound() {
        full_command().debug_assert();
    }

    #[test]
    fn share_takes_what_the_contract_says() {
        let Ok(Asked::Verb(Verb::Share(share))) =
            ask("sync share docs --name N --read-only --expires 90m --uses 3")
        else {
            panic!("not a share");
        };
        assert_eq!(
            (share.name.as_deref(), share.read_only, share.uses),
            (Some("N"), true, 3)
        );
        assert_eq!(share.expires, Duration::from_secs(5400));
        let Ok(Asked::Verb(Verb::Share(share))) = ask("sync share docs") else {
            panic!("not a share")
        };
        assert_eq!((share.expires, share.uses), (Duration::from_secs(86_400), 1));
    }

    #[test]
    fn every_verb_of_the_contract_parses() {
        for line in [
            "pair ticket",
            "pair ticket dir",
            "watch",
            "watch dir --json",
            "stop",
            "status --json --watch",
            "wait",
            "wait docs --timeout 5s",
            "hash dir",
            "log docs --json -n 3 -- path",
            "diff 3 4 -f docs",
            "restore 3 a b -f docs",
            "checkout 3 dir",
            "pin 3",
            "unpin 3",
            "gc --keep 3 --older-than 30d",
            "verify --repair --json",
            "conflicts",
            "resolve p --keep both",
            "accept",
            "reject",
            "pause",
            "pause docs",
            "resume desktop",
            "devices --json",
            "unpair desktop",
            "tickets",
            "revoke ab12",
            "forget docs",
            "doctor",
            "service install",
            "ui",
            "completions bash",
            "man",
            "engine",
        ] {
            ask(&format!("sync {line}")).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn verbs_of_a_later_version_are_known_as_such() {
        assert!(matches!(ask("sync service install"), Ok(Asked::Later(name)) if name == "service"));
        assert!(verb_names().contains(&"service".to_owned()));
        let help = full_command().render_help().to_string();
        assert!(
            !help.contains("\n  service") && !help.contains("\n  engine"),
            "{help}"
        );
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "",
            "nonsense",
            "share",
            "pair",
            "share d --uses 0",
            "share d --expires 0s",
            "share d --expires x",
            "wait --timeout soon",
            "--data",
            "stop now",
            "completions tcl",
            "hash",
        ] {
            let error = ask(&format!("sync {line}")).expect_err(line);
            assert_eq!((error.exit_code(), error.use_stderr()), (2, true), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_ours() {
        assert_eq!(ask("sync --help").expect_err("help").exit_code(), 0);
        let version = ask("sync --version").expect_err("version").to_string();
        assert!(version.starts_with("sync (alike) "), "{version}");
    }
}
