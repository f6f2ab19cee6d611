//! The clock, where what becomes of a folder hangs on it: the scan, the commits and the applies read it here and
//! nowhere else. Never waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall clock: nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    #[cfg(test)]
    if let Some(sim) = crate::sim::current() {
        return sim.wall();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    #[cfg(feature = "failpoints")]
    let now = now.saturating_add(crate::failpoint::clock_is_off());
    now
}

/// Wall clock: milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(now_ns() / 1_000_000).unwrap_or(0)
}

/// Time that only goes forward, from some moment on.
pub(crate) fn steady() -> Duration {
    #[cfg(test)]
    if let Some(sim) = crate::sim::current() {
        return sim.steady();
    }
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
