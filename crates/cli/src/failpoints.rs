//! In builds with the feature `failpoints` only: `ALIKE_FAIL` says what goes wrong where in the engine, for tests.
//! `ALIKE_FAIL=list` names the points. See docs/testing.md.

use anyhow::anyhow;

use crate::render;

const VARIABLE: &str = "ALIKE_FAIL";

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

/// Arms what the variable says, in this process.
pub(crate) fn arm() -> anyhow::Result<()> {
    let plan = std::env::var(VARIABLE).unwrap_or_default();
    alike_sync::failpoint::arm(&plan).map_err(|why| anyhow!("{VARIABLE}: {why}"))
}
