//! The scanner's thread: started, and ended in the middle of a scan if need be. Never looks at anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use super::{Activity, Inbox, Place, ScanInput, Scanner};

/// The scanner's thread and the ways to it.
#[derive(Debug)]
pub(crate) struct ScannerThread {
    pub(crate) input: mpsc::Sender<ScanInput>,
    pub(crate) activity: watch::Receiver<Activity>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ScannerThread {
    /// Starts looking: everything first.
    pub(crate) fn start(
        place: Arc<Place>,
        (input, inbox): (mpsc::Sender<ScanInput>, mpsc::Receiver<ScanInput>),
        folder: Inbox,
        paused: bool,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (publish, activity) = watch::channel(Activity {
            dirty: true,
            ..Activity::default()
        });
        let mut scanner = Scanner::new(place, input.clone(), folder, publish, stop.clone(), paused);
        let thread = std::thread::Builder::new()
            .name("scanner".into())
            .spawn(move || scanner.run(&inbox))?;
        Ok(ScannerThread {
            input,
            activity,
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread, in the middle of a scan if need be.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.input.send(ScanInput::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
