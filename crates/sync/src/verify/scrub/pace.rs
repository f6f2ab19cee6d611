//! How fast the scrub reads, and when it waits: never much of a disk or a processor, and nothing while there is work, or
//! on battery. Never reads anything but what the kernel says of the power.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::folder::Place;
use crate::folder::scanner::Activity;

/// Bytes a second that are read; hashing them takes about a hundredth of a core.
const RATE: u64 = 8 << 20;
/// A file that was cut off in the middle is read twice as fast the next time, up to so often: a big one on a machine that never runs for long
/// would not come to its end otherwise.
const FASTER: u32 = 4;
/// How often it is looked whether there is work, and whether all is to end.
const LOOK: Duration = Duration::from_millis(200);
/// For so long nothing may have happened before it goes on.
const QUIET: Duration = Duration::from_secs(2);
/// A batch that waits longer than this ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// Is something going on in the folders?
pub(crate) struct Busy {
    folders: Vec<(Arc<Place>, watch::Receiver<Activity>)>,
}

impl Busy {
    pub(crate) fn new(folders: Vec<(Arc<Place>, watch::Receiver<Activity>)>) -> Busy {
        Busy { folders }
    }

    fn scans(&self) -> bool {
        let is_busy = |activity: Activity| activity.scanning || activity.dirty;
        self.folders
            .iter()
            .any(|(_, activity)| is_busy(*activity.borrow()))
    }

    /// Bytes that went over the wire.
    fn traffic(&self) -> u64 {
        let of = |place: &Place| {
            let traffic = &place.traffic;
            traffic.sent.load(Ordering::Relaxed) + traffic.received.load(Ordering::Relaxed)
        };
        self.folders.iter().map(|(place, _)| of(place)).sum()
    }
}

/// The pace of a batch.
pub(super) struct Pace<'a> {
    stop: &'a AtomicBool,
    busy: &'a Busy,
    rate: u64,
    began: Instant,
    bytes: u64,
    looked: Instant,
    traffic: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(stop: &'a AtomicBool, busy: &'a Busy, cut: u32) -> Pace<'a> {
        Pace {
            stop,
            busy,
            rate: RATE << cut.min(FASTER),
            began: Instant::now(),
            bytes: 0,
            looked: Instant::now(),
            traffic: busy.traffic(),
        }
    }

    /// So many bytes were read. Waits; `false`: no more.
    pub(super) fn tick(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let due = self.began + Duration::from_secs_f64(self.bytes as f64 / self.rate as f64);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let now = Instant::now();
            if now - self.looked >= LOOK {
                self.looked = now;
                if self.has_work() && !self.wait_for_quiet() {
                    return false;
                }
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn has_work(&mut self) -> bool {
        let before = std::mem::replace(&mut self.traffic, self.busy.traffic());
        before != self.traffic || self.busy.scans()
    }

    /// `false`: there was none for long, or all is to end.
    fn wait_for_quiet(&mut self) -> bool {
        let begun = Instant::now();
        let mut quiet = begun;
        while quiet.elapsed() < QUIET {
            if self.stop.load(Ordering::Relaxed) || begun.elapsed() > PATIENCE || on_battery() {
                return false;
            }
            std::thread::sleep(LOOK);
            if self.has_work() {
                quiet = Instant::now();
            }
        }
        // What was not read meanwhile is not made up for.
        (self.began, self.bytes) = (Instant::now(), 0);
        true
    }
}

/// Does this machine run on its battery? `false` where nobody can tell.
pub(crate) fn on_battery() -> bool {
    is_on_battery(Path::new("/sys/class/power_supply"))
}

fn is_on_battery(supplies: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(supplies) else {
        return false;
    };
    let mut discharging = false;
    for entry in entries.flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        match (read("type").trim(), read("scope").trim()) {
            // That of a mouse or a phone.
            (_, "Device") => {}
            ("Battery", _) => discharging |= read("status").trim() == "Discharging",
            _ if read("online").trim() == "1" => return false,
            _ => {}
        }
    }
    discharging
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laptop_that_is_unplugged_runs_on_battery() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        assert!(!is_on_battery(dir.path()) && !is_on_battery(&dir.path().join("none")));
        put("mouse/type", "Battery\n");
        put("mouse/scope", "Device\n");
        put("mouse/status", "Discharging\n");
        assert!(!is_on_battery(dir.path()));
        put("BAT0/type", "Battery\n");
        put("BAT0/status", "Discharging\n");
        assert!(is_on_battery(dir.path()));
        put("AC/type", "Mains\n");
        put("AC/online", "0\n");
        assert!(is_on_battery(dir.path()));
        put("AC/online", "1\n");
        assert!(!is_on_battery(dir.path()));
    }

    #[test]
    fn reading_is_not_faster_than_the_rate_and_ends_when_told() {
        let (stop, busy) = (AtomicBool::new(false), Busy::new(Vec::new()));
        let mut pace = Pace::new(&stop, &busy, 0);
        let begun = Instant::now();
        assert!(pace.tick(RATE / 8) && pace.tick(RATE / 8));
        assert!(begun.elapsed() >= Duration::from_millis(249));
        stop.store(true, Ordering::Relaxed);
        assert!(!pace.tick(RATE * 1000));
    }
}
