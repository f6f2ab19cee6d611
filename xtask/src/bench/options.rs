//! What was asked for on the command line of `cargo xtask bench`.

use std::path::PathBuf;
use std::time::Duration;

/// All of it, with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Names of workloads; none: all of them.
    pub(super) workloads: Vec<String>,
    /// Only tell which workloads there are.
    pub(super) list: bool,
    pub(super) runs: usize,
    /// Sizes that show in a minute that it works; the figures mean nothing.
    pub(super) quick: bool,
    /// A real tree to be synced.
    pub(super) tree: Option<PathBuf>,
    /// alike's binary; none: built.
    pub(super) bin: Option<PathBuf>,
    /// The binary `stream` of `benches`; none: built with alike's, or left out.
    pub(super) stream: Option<PathBuf>,
    /// Beginnings of names of peers; none: all that are installed.
    pub(super) peers: Vec<String>,
    /// How long one peer may take for one piece of work.
    pub(super) limit: Duration,
    /// How long another than alike may take for its runs of one piece of work, with all around them, before it is not asked for another one;
    /// none: as long as it needs.
    pub(super) patience: Option<Duration>,
    /// Where to work; none: below cargo's target directory.
    pub(super) place: Option<PathBuf>,
    /// Where to write the page; none: `docs`, or with `quick` below the target directory.
    pub(super) out: Option<PathBuf>,
}

impl Options {
    /// From the command line; `None` where it makes no sense.
    pub(crate) fn parse(args: &[&str]) -> Option<Options> {
        let mut options = Options {
            workloads: Vec::new(),
            list: false,
            runs: 3,
            quick: false,
            tree: None,
            bin: std::env::var_os("ALIKE_BENCH_BIN").map(PathBuf::from),
            stream: std::env::var_os("ALIKE_BENCH_STREAM").map(PathBuf::from),
            peers: Vec::new(),
            limit: Duration::from_secs(300),
            patience: None,
            place: None,
            out: None,
        };
        if args.contains(&"--quick") {
            options.limit = Duration::from_secs(60);
        }
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--list" => options.list = true,
                "--quick" => options.quick = true,
                "--runs" => options.runs = args.next()?.parse().ok().filter(|n| *n > 0)?,
                "--tree" => options.tree = Some(args.next()?.into()),
                "--bin" => options.bin = Some(args.next()?.into()),
                "--stream" => options.stream = Some(args.next()?.into()),
                "--peers" => options.peers = args.next()?.split(',').map(str::to_owned).collect(),
                "--limit" => options.limit = Duration::from_secs(args.next()?.parse().ok()?),
                "--patience" => options.patience = Some(Duration::from_secs(args.next()?.parse().ok()?)),
                "--place" => options.place = Some(args.next()?.into()),
                "--out" => options.out = Some(args.next()?.into()),
                name if name.starts_with('-') => return None,
                name => options.workloads.push(name.to_owned()),
            }
        }
        Some(options)
    }

    /// The command line that parses to this.
    pub(super) fn to_args(&self) -> Vec<std::ffi::OsString> {
        let mut args: Vec<std::ffi::OsString> = self.workloads.iter().map(Into::into).collect();
        args.extend(self.quick.then(|| "--quick".into()));
        args.extend(["--runs".into(), self.runs.to_string().into()]);
        args.extend(["--limit".into(), self.limit.as_secs().to_string().into()]);
        if let Some(patience) = self.patience {
            args.extend(["--patience".into(), patience.as_secs().to_string().into()]);
        }
        if !self.peers.is_empty() {
            args.extend(["--peers".into(), self.peers.join(",").into()]);
        }
        for (name, path) in [
            ("--tree", &self.tree),
            ("--bin", &self.bin),
            ("--stream", &self.stream),
            ("--place", &self.place),
            ("--out", &self.out),
        ] {
            args.extend(path.iter().flat_map(|path| [name.into(), path.into()]));
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_what_was_asked_for() {
        let line = "small big --quick --runs 2 --tree /a --bin /b --stream /c --peers rsync,tar --limit 9 --patience 8 \
                    --place /d";
        let options = Options::parse(&line.split(' ').collect::<Vec<_>>()).expect("makes sense");
        assert_eq!((options.runs, options.workloads.len()), (2, 2));
        assert_eq!(options.patience, Some(Duration::from_secs(8)));
        let again: Vec<String> = options
            .to_args()
            .into_iter()
            .map(|a| a.into_string().expect("all of it is text"))
            .collect();
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        assert_eq!(Options::parse(&again), Some(options));
        assert_eq!(Options::parse(&["--runs", "0"]), None);
        assert_eq!(Options::parse(&["--what"]), None);
    }
}
