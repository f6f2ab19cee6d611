//! In builds with the feature `failpoints` only: `ALIKE_FAIL` says what goes wrong where in the engine, for tests;
//! `ALIKE_FAIL=list` names the points. `ALIKE_CLOCK` sets its clock wrong. See docs/testing.md.

use anyhow::anyhow;

use crate::render;

const VARIABLE: &str = "ALIKE_FAIL";
const CLOCK: &str = "ALIKE_CLOCK";

/// Was it asked for the names of the points? Prints them, one a line.
pub(crate) fn listed() -> bool {
    if std::env::var_os(VARIABLE).is_none_or(|plan| plan != "list") {
        return false;
    }
    for name in alike_sync::failpoint::POINTS {
        let _ = render::line(name);
    }
    true
}

/// Arms what the variables say, in this process.
pub(crate) fn arm() -> anyhow::Result<()> {
    if let Ok(seconds) = std::env::var(CLOCK) {
        let seconds = seconds
            .parse()
            .map_err(|_| anyhow!("{CLOCK}: seconds are a number"))?;
        alike_sync::failpoint::set_clock(seconds);
    }
    let plan = std::env::var(VARIABLE).unwrap_or_default();
    alike_sync::failpoint::arm(&plan).map_err(|why| anyhow!("{VARIABLE}: {why}"))
}
