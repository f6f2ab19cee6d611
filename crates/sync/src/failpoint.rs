//! Named points at which a test ends this process, holds a thread, or makes an operation fail, as if the machine
//! had done so. Without the feature `failpoints` all of it compiles to nothing. Never decides anything.

/// A step has come this far.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// The same, where a test may also make the step fail.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn may_fail(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// The same in a task, of which a thread of the network's is not to be held.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) async fn task_point(_name: &'static str) {}

#[cfg(feature = "failpoints")]
pub use armed::{POINTS, arm, set_clock};
#[cfg(feature = "failpoints")]
pub(crate) use armed::{clock_is_off, may_fail, point, task_point};

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// All points. `cargo xtask tidy` compares the list with the code, `tests/cases/crashes.rs` goes through it.
    pub const POINTS: &[&str] = &[
        // A look at the disk.
        "scan.begin",
        "scan.hash",
        "scan.hashed",
        "scan.batch",
        "scan.batch.sent",
        "scan.gone",
        "scan.gone.reported",
        "scan.end",
        // A big file is cloned, where the file system can.
        "clone.made",
        "clone.kept",
        // Transactions of the folder's thread.
        "commit.sync",
        "commit.synced",
        "commit.found",
        "commit.found.done",
        "commit.merge",
        "commit.merge.done",
        "commit.restore",
        "commit.restore.done",
        "commit.generation",
        "commit.generation.done",
        // Getting a peer's state, and content.
        "fetch.state",
        "fetch.nodes",
        "fetch.state.done",
        "fetch.local",
        "fetch.small.arrived",
        "fetch.small.written",
        "fetch.ready",
        "fetch.big.begin",
        "fetch.big.compared",
        "fetch.big.copied",
        "fetch.big.piece",
        "fetch.big.note",
        "fetch.big.noted",
        "fetch.big.whole",
        "fetch.big.finished",
        // Giving them to a peer.
        "serve.nodes",
        "serve.blobs",
        "serve.range",
        "serve.part",
        "serve.values",
        "serve.chunks",
        // A batch that is applied.
        "apply.begin",
        "apply.sync",
        "apply.synced",
        "apply.intended",
        "apply.item",
        "apply.between",
        "apply.item.done",
        "apply.moved",
        "apply.durable",
        "apply.committed",
        // One move.
        "move.create",
        "move.created",
        "move.replace",
        "move.rename",
        "move.exchange",
        "move.exchanged",
        "move.verified",
        "move.kept",
        "move.unexpected",
        "move.open",
        "move.swapped",
        "move.back",
        "move.remove",
        "move.away",
        "move.taken",
        "move.removed",
        "move.relocate",
        "move.relocated",
        "move.steps",
        "move.steps.put",
        "move.dir.make",
        "move.dir.made",
        "move.dir.remove",
        "move.dir.removed",
        "move.exec",
        "move.exec.set",
        // After a crash.
        "recover.begin",
        "recover.back",
        "recover.looked",
        "recover.kept",
        "recover.displaced",
        "recover.cleared",
        "recover.committed",
        // Reading everything again, and putting good content in place.
        "verify.file",
        "repair.begin",
        "repair.moved",
        "repair.done",
        // A collection.
        "gc.begin",
        "gc.dropped",
        "gc.marked",
        "gc.packs",
        "gc.objects",
        "gc.copies",
        "gc.forget",
        "gc.nodes",
        "gc.archive",
        "gc.compact",
        "gc.end",
        // The engine's own life.
        "engine.opened",
        "engine.born",
        "engine.loaded",
        "engine.forward",
        "engine.settled",
        "engine.stopping",
        "engine.closed",
        // A folder becomes one of this device's.
        "track.made",
        "track.marked",
        "track.added",
        // A ticket's maker.
        "pair.ticket",
        "pair.ticket.stored",
        "pair.asked",
        "pair.judged",
        "pair.replied",
        // A ticket's holder.
        "pair.dialled",
        "pair.proof",
        "pair.proof.sent",
        "pair.reply",
        "pair.tracked",
        // Either of them.
        "pair.stored",
    ];

    /// How often a held thread looks whether it may go on.
    const LOOK: Duration = Duration::from_millis(2);

    /// Sees whether this is where a test wants something to happen.
    pub(crate) fn point(name: &'static str) {
        debug_assert!(POINTS.contains(&name), "{name} is not in the list");
        fail::fail_point!(name);
    }

    /// The same in a task, of which a thread of the network's is not to be held.
    pub(crate) async fn task_point(name: &'static str) {
        let _ = tokio::task::spawn_blocking(move || point(name)).await;
    }

    /// The same, where a test may also make the step fail.
    pub(crate) fn may_fail(name: &'static str) -> std::io::Result<()> {
        debug_assert!(POINTS.contains(&name), "{name} is not in the list");
        fail::fail_point!(name, |_| Err(rustix::io::Errno::INVAL.into()));
        Ok(())
    }

    /// Sets what happens where: `name=action` separated by `;`. Each action happens once, at the N-th time that
    /// the point is reached (the first, without `@N`):
    ///
    /// - `kill@N`: this process ends by SIGKILL.
    /// - `hold@N:FILE`: FILE is created, and the thread waits until it is removed.
    /// - `error@N`: the step fails with `EINVAL`, where it can; `errors`: each time.
    pub fn arm(plan: &str) -> Result<(), String> {
        for part in plan.split(';').filter(|part| !part.is_empty()) {
            let wrong = || format!("`{part}` is not NAME=kill@N, hold@N:FILE, error@N or errors");
            let (name, action) = part.split_once('=').ok_or_else(wrong)?;
            if !POINTS.contains(&name) {
                return Err(format!("no point is called `{name}`"));
            }
            let (action, file) = match action.split_once(':') {
                Some((action, file)) => (action, Some(PathBuf::from(file))),
                None => (action, None),
            };
            let (action, at) = match action.split_once('@') {
                Some((action, at)) => (action, at.parse().map_err(|_| wrong())?),
                None => (action, 1),
            };
            match (action, file) {
                ("kill", None) => on(name, at, || {
                    let _ = kill_process(getpid(), Signal::KILL);
                })?,
                ("hold", Some(file)) => on(name, at, move || hold(&file))?,
                ("error", None) => fail::cfg(name, &format!("{}*off->1*return->off", at.max(1) - 1))?,
                ("errors", None) => fail::cfg(name, "return")?,
                _ => return Err(wrong()),
            }
        }
        Ok(())
    }

    /// How far the wall clock is off, in nanoseconds.
    static CLOCK: AtomicI64 = AtomicI64::new(0);

    /// Makes the wall clock be `seconds` ahead (or behind, below 0).
    pub fn set_clock(seconds: i64) {
        CLOCK.store(seconds.saturating_mul(1_000_000_000), Ordering::Relaxed);
    }

    /// What to add to the wall clock, in nanoseconds.
    pub(crate) fn clock_is_off() -> i64 {
        CLOCK.load(Ordering::Relaxed)
    }

    /// Does something when a point is reached for the `at`-th time.
    fn on(name: &str, at: u64, act: impl Fn() + Send + Sync + 'static) -> Result<(), String> {
        let hits = AtomicU64::new(0);
        fail::cfg_callback(name, move || {
            if hits.fetch_add(1, Ordering::Relaxed) + 1 == at {
                act();
            }
        })
    }

    fn hold(file: &Path) {
        if let Err(error) = std::fs::write(file, "") {
            tracing::error!("a point cannot hold, {}: {error}", file.display());
            return;
        }
        while file.exists() {
            std::thread::sleep(LOOK);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_what_means_something_is_armed() {
            assert_eq!(arm(""), Ok(()));
            for wrong in [
                "apply.begin",
                "no.such=kill",
                "apply.begin=jump",
                "apply.begin=kill@x",
                "apply.begin=hold",
            ] {
                assert!(arm(wrong).is_err(), "{wrong}");
            }
        }
    }
}
