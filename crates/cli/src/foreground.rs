//! Running the engine in this process until a signal or the caller ends it. Never prints, never talks to the
//! control socket.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use alike_sync::config::Config;
use alike_sync::engine::{self, Options};
use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing_subscriber::EnvFilter;

/// The engine waits more than it computes; hashing and the database have threads of their own.
const WORKERS: usize = 2;

/// How long work on the blocking pool may take to end after the engine has closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The shell's exit code for a command ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Ends the engine from another thread.
#[derive(Clone)]
pub(crate) struct Stopper(Arc<Notify>);

impl Stopper {
    /// Ends it cleanly, as a signal does.
    pub(crate) fn stop(&self) {
        self.0.notify_one();
    }
}

/// What a lost terminal (SIGHUP) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    Ends,
    Ignored,
}

/// Sends tracing to standard error, filtered by the settings or else by `default`.
pub(crate) fn log(config: &Config, default: &str) -> anyhow::Result<()> {
    let filter = config.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("ALIKE_LOG is `{filter}`, which is no filter: use e.g. `info` or `alike_sync=debug`")
    })?;
    let colours = !config.no_color && std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        // A log that cannot be written (its disk is full) must not take the engine with it.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Runs the engine until it is told to stop, by SIGINT, SIGTERM, its socket or the [`Stopper`] that `on_ready`
/// gets, on a thread of its own, once the socket answers. A second signal ends the process at once: a crash is
/// safe too.
pub(crate) fn run(
    config: Config,
    hangup: Hangup,
    on_ready: impl FnOnce(Stopper) + Send + 'static,
) -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    crate::failpoints::arm()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the engine")?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new(hangup)?;
        let stopper = Stopper(Arc::new(Notify::new()));
        let (shutdown, on_shutdown) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let stop = Arc::clone(&stopper.0);
        tokio::spawn(async move {
            tokio::select! {
                () = signals.next() => {}
                () = stop.notified() => {}
            }
            let _ = shutdown.send(());
            signals.next().await;
            std::process::exit(INTERRUPTED);
        });
        tokio::spawn(async move {
            if is_ready.await.is_ok() {
                std::thread::spawn(move || on_ready(stopper));
            }
        });
        engine::run(
            config,
            Options {
                shutdown: on_shutdown,
                ready: Some(ready),
            },
        )
        .await?;
        anyhow::Ok(())
    });
    runtime.shutdown_timeout(CLOSE_LIMIT);
    result
}

/// The signals that end the engine. Taking them is what keeps SIGHUP from killing it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    hangup_ends: bool,
}

impl Signals {
    fn new(hangup: Hangup) -> anyhow::Result<Signals> {
        let take = |kind| signal(kind).context("cannot take signals");
        Ok(Signals {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
            hangup_ends: hangup == Hangup::Ends,
        })
    }

    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => if self.hangup_ends { return },
            }
        }
    }
}
