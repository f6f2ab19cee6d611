//! Histories in numbers: some in every test run, many when `cargo xtask sim` asks for them, one again when it
//! failed. Never hides a seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use super::{CURRENT, Sim, current};

/// Histories in a usual test run, and steps of each.
const SEEDS: u64 = 300;
const STEPS: u64 = 250;

fn env(key: &str) -> Option<u64> {
    std::env::var(key).ok().and_then(|v| v.parse().ok())
}

/// What a history came to: its digest, and, if it failed, why and what had happened.
struct Run {
    digest: u64,
    failure: Option<String>,
    log: Vec<String>,
}

thread_local! {
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of histories are told when it is known of which seed they are.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match (current(), info.location()) {
            (Some(_), Some(at)) => PANICKED_AT.with(|p| *p.borrow_mut() = at.to_string()),
            _ => before(info),
        }));
    });
}

fn run(seed: u64) -> Run {
    keep_panics();
    let sim = Rc::new(Sim::new(seed));
    CURRENT.with(|c| *c.borrow_mut() = Some(sim.clone()));
    let steps = env("ALIKE_SIM_STEPS").unwrap_or(STEPS);
    let done = catch_unwind(AssertUnwindSafe(|| sim.history(steps)));
    for machine in &sim.machines {
        machine.medium.kill();
        drop(machine.process.borrow_mut().take());
    }
    CURRENT.with(|c| *c.borrow_mut() = None);
    let failure = done.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!(
            "{} ({})",
            text.unwrap_or_default(),
            PANICKED_AT.with(|p| p.borrow().clone())
        )
    });
    let log = sim.log.borrow().clone();
    Run {
        digest: sim.digest.get(),
        failure,
        log,
    }
}

/// The end of what happened.
fn tell(seed: u64, run: &Run) -> String {
    let failure = run.failure.as_deref().unwrap_or("nothing");
    let all = std::env::var_os("ALIKE_SIM_LOG").is_some();
    let from = if all { 0 } else { run.log.len().saturating_sub(60) };
    format!(
        "seed {seed} fails: {failure}\n{}\nagain with: cargo xtask sim --seed {seed} (ALIKE_SIM_LOG=1 shows all of it)",
        run.log[from..].join("\n")
    )
}

/// Runs seeds on two threads until one fails or `more` says no.
fn many(first: u64, more: impl Fn(u64) -> bool + Sync) -> u64 {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !more(seed) {
                        return;
                    }
                    let run = run(seed);
                    if run.failure.is_some() {
                        failed.lock().expect("not poisoned").push(tell(seed, &run));
                        if std::env::var_os("ALIKE_SIM_GO_ON").is_none() {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("not poisoned");
    let brief: Vec<&str> = failed.iter().filter_map(|f| f.lines().next()).collect();
    assert!(
        failed.is_empty(),
        "{}\n\n{} of the seeds fail:\n{}",
        failed[0],
        failed.len(),
        brief.join("\n")
    );
    next.into_inner() - first
}

#[test]
fn many_histories_end_well() {
    if let (Some(seed), None) = (env("ALIKE_SIM_SEED"), env("ALIKE_SIM_MINUTES")) {
        let run = run(seed);
        assert!(run.failure.is_none(), "{}", tell(seed, &run));
        println!("seed {seed} ends well");
        return;
    }
    let first = env("ALIKE_SIM_SEED").unwrap_or(0);
    let begun = Instant::now();
    let ran = match env("ALIKE_SIM_MINUTES") {
        Some(minutes) => many(first, |_| begun.elapsed() < Duration::from_secs(60 * minutes)),
        None => {
            let count = env("ALIKE_SIM_SEEDS").unwrap_or(SEEDS);
            many(first, |seed| seed < first + count)
        }
    };
    println!(
        "{ran} histories from seed {first} on, in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn a_seed_is_one_history() {
    for seed in [1, 2, 3, 4, 5] {
        assert_eq!(run(seed).digest, run(seed).digest, "seed {seed}");
    }
}
