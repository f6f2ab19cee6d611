//! `cargo xtask soak`: devices whose users do everything at once while engines are stopped, killed, frozen and cut
//! off; now and then everything is left to get quiet, and then every invariant must hold. Never installs anything.

mod check;
mod engine;
mod hands;
mod ledger;
mod net;
pub(crate) mod random;
mod tree;
mod user;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;

use self::check::{Report, Tree};
use self::engine::Engine;
use self::hands::Hands;
use self::ledger::Ledger;
use self::net::Net;
use self::random::Random;
use self::user::User;
use crate::{cargo, target_dir};

/// How long all devices may take to agree once nothing happens any more.
const QUIET_LIMIT: Duration = Duration::from_secs(240);
/// How often to look whether they do.
const STEP: Duration = Duration::from_millis(100);

/// How to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long users work.
    minutes: u64,
    /// What they do is drawn from this.
    seed: u64,
    /// How many devices.
    devices: usize,
}

impl Options {
    /// From the command line.
    pub(crate) fn parse(args: &[&str]) -> Option<Options> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut options = Options {
            minutes: 30,
            seed: since.map_or(0, |d| d.as_nanos() as u64) % 1_000_000,
            devices: 3,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next()?.parse::<u64>().ok()?;
            match *arg {
                "--minutes" => options.minutes = value,
                "--seed" => options.seed = value,
                "--devices" if (2..=9).contains(&value) => options.devices = value as usize,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Runs until the time is over or something is broken.
pub(crate) fn run(options: Options) -> Result<()> {
    println!(
        "soak: --minutes {} --seed {} --devices {}",
        options.minutes, options.seed, options.devices
    );
    let bin = match std::env::var_os("ALIKE_TEST_BIN") {
        Some(bin) => PathBuf::from(bin),
        None => {
            let status = cargo(&["build", "--workspace", "--all-targets"]).status()?;
            ensure!(status.success(), "cargo build: {status}");
            target_dir()?.join("debug/sync")
        }
    };
    let place = tempfile::Builder::new()
        .prefix("alike-soak-")
        .tempdir()?
        .keep()
        .canonicalize()?;
    let result = Soak::new(options, &bin, &place).and_then(|mut soak| {
        let result = soak.run();
        soak.sum_up();
        result
    });
    match result {
        Ok(()) => std::fs::remove_dir_all(&place).context("remove what the soak made"),
        Err(error) => Err(error.context(format!(
            "seed {}; everything is left in {} (actions.log, d*/engine.log)",
            options.seed,
            place.display()
        ))),
    }
}

struct Soak {
    options: Options,
    ledger: Arc<Ledger>,
    users: Vec<User>,
    engines: Vec<Engine>,
    random: Random,
    start: Instant,
    before: Tree,
    rounds: usize,
    longest: Duration,
    total: Report,
    actions: u64,
    times: usize,
}

impl Soak {
    fn new(options: Options, bin: &Path, place: &Path) -> Result<Self> {
        let ledger = Arc::new(Ledger::new(&place.join("actions.log"))?);
        let net = match geteuid().is_root() {
            true => Net::new(options.devices).map(Arc::new),
            false => None,
        };
        let mut engines = Vec::new();
        let mut users = Vec::new();
        for n in 0..options.devices {
            let engine = Engine::new(n, place, bin, net.clone(), ledger.clone(), options.seed)?;
            let scratch = engine.corner.join("scratch");
            let hands = Hands::new(n, engine.folder.clone(), scratch, ledger.clone());
            users.push(User::new(hands, options.seed));
            engines.push(engine);
        }
        Ok(Soak {
            options,
            ledger,
            users,
            engines,
            random: Random::new(options.seed, 1),
            start: Instant::now(),
            before: Tree::new(),
            rounds: 0,
            longest: Duration::ZERO,
            total: Report::default(),
            actions: 0,
            times: 0,
        })
    }

    fn run(&mut self) -> Result<()> {
        self.users[0].fill()?;
        for engine in &mut self.engines {
            engine.start()?;
        }
        self.pair()?;
        self.quiet("the first sync")?;
        let until = self.start + Duration::from_secs(self.options.minutes * 60);
        while Instant::now() < until {
            self.rounds += 1;
            let long = Duration::from_secs(self.random.between(15, 50) as u64);
            self.work(long.min(until.saturating_duration_since(Instant::now())))?;
            self.quiet(&format!("round {}", self.rounds))?;
        }
        for engine in &mut self.engines {
            engine.stop()?;
        }
        Ok(())
    }

    /// A line, and for some seeds a ring.
    fn pair(&mut self) -> Result<()> {
        let mut pairs: Vec<(usize, usize)> = (1..self.engines.len()).map(|n| (n - 1, n)).collect();
        if self.engines.len() > 2 && self.random.percent(70) {
            pairs.push((0, self.engines.len() - 1));
        }
        println!("paired: {pairs:?}");
        for (a, b) in pairs {
            let (a, b) = (&self.engines[a], &self.engines[b]);
            let ticket = a.sync(["share".as_ref(), a.folder.as_os_str()])?;
            b.sync(["pair".as_ref(), ticket.trim().as_ref(), b.folder.as_os_str()])?;
        }
        Ok(())
    }

    /// Users work and misfortunes happen for so long.
    fn work(&mut self, long: Duration) -> Result<()> {
        let over = AtomicBool::new(false);
        let (users, engines) = (&mut self.users, &mut self.engines);
        std::thread::scope(|scope| {
            for user in users {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        user.burst();
                        let until = Instant::now() + user.pause();
                        while Instant::now() < until && !over.load(Ordering::Relaxed) {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                });
            }
            let fates: Vec<_> = engines
                .iter_mut()
                .map(|engine| scope.spawn(|| engine.misfortunes(&over)))
                .collect();
            let until = Instant::now() + long;
            while Instant::now() < until && !fates.iter().any(|f| f.is_finished()) {
                std::thread::sleep(STEP);
            }
            over.store(true, Ordering::Relaxed);
            fates
                .into_iter()
                .try_for_each(|fate| fate.join().expect("misfortunes do not panic"))
        })
    }

    /// Waits until all agree, then looks at everything.
    fn quiet(&mut self, what: &str) -> Result<()> {
        let since = Instant::now();
        self.ledger.note(9, &format!("--- {what}: waiting for quiet"));
        for user in &self.users {
            user.hands.settle_scratch()?;
        }
        let root = self.agree()?;
        let took = since.elapsed();
        self.longest = self.longest.max(took);
        let mut report = Report::default();
        let mut trees = Vec::new();
        for engine in &self.engines {
            trees.push(tree::snapshot(&engine.folder)?);
            let hash = engine.sync(["hash".as_ref(), engine.folder.as_os_str()])?;
            if hash.trim() != root {
                report.broken.push(format!(
                    "d{}: `sync hash` says {}, the status {root}",
                    engine.index,
                    hash.trim()
                ));
            }
        }
        check::equal(&trees, &mut report);
        let mut books = self.ledger.books();
        if !self.before.is_empty() {
            check::paths(&self.before, &trees[0], &books, &mut report);
        }
        let (present, contents) = check::contents(&trees[0], &books, &self.engines, &mut report);
        println!(
            "{:7.1} s  {what}: quiet after {:.1} s; {} paths, {} actions, {} late writes ({} in .alike, {} gone), {} times differ",
            self.start.elapsed().as_secs_f64(),
            took.as_secs_f64(),
            trees[0].len(),
            books.actions - self.actions,
            books.raced,
            report.raced_kept,
            report.raced_gone,
            report.times.len(),
        );
        self.actions = books.actions;
        books.compact(&present, &contents);
        drop(books);
        report.times.iter().for_each(|line| self.ledger.note(9, line));
        self.times += report.times.len();
        self.total.raced_kept += report.raced_kept;
        self.total.raced_gone += report.raced_gone;
        self.before = trees.swap_remove(0);
        if report.broken.is_empty() {
            return Ok(());
        }
        for line in &report.broken {
            println!("    {line}");
            self.ledger.note(9, line);
        }
        bail!("{what}: {} broken", report.broken.len())
    }

    /// Returns the root that all devices have come to.
    fn agree(&mut self) -> Result<String> {
        let start = Instant::now();
        loop {
            for engine in &mut self.engines {
                engine.check_alive()?;
            }
            let mut roots = Vec::new();
            let mut waited = true;
            for engine in &self.engines {
                if engine.status()?["state"] == "held" {
                    engine.sync(["accept"])?;
                }
                waited &= engine.output(["wait", "--timeout", "10s"])?.status.success();
            }
            for engine in &self.engines {
                let status = engine.status()?;
                let idle = status["state"] == "idle" && status["pending"]["files"] == 0;
                if idle && waited {
                    roots.push(status["root"].as_str().unwrap_or_default().to_owned());
                }
            }
            if roots.len() == self.engines.len() && roots.iter().all(|root| *root == roots[0]) {
                return Ok(roots.swap_remove(0));
            }
            if start.elapsed() > QUIET_LIMIT {
                for engine in &self.engines {
                    println!(
                        "--- d{}\n{:#}\n{}",
                        engine.index,
                        engine.status()?,
                        engine.log_tail()
                    );
                }
                bail!("the devices do not agree within {QUIET_LIMIT:?}");
            }
            std::thread::sleep(STEP);
        }
    }

    fn sum_up(&self) {
        let mut fates = std::collections::BTreeMap::new();
        for (what, n) in self.engines.iter().flat_map(|e| &e.counts) {
            *fates.entry(*what).or_insert(0) += n;
        }
        let books = self.ledger.books();
        println!(
            "{} rounds, {} actions; engines: {fates:?}; longest way to quiet {:.1} s; {} late writes ({} of them in \
             .alike only, {} nowhere); {} took something away unknowingly; {} times differed",
            self.rounds,
            books.actions,
            self.longest.as_secs_f64(),
            books.raced,
            self.total.raced_kept,
            self.total.raced_gone,
            books.unknowing,
            self.times,
        );
    }
}
