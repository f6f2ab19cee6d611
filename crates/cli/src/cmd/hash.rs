//! `sync hash DIR`: the root of any directory. Works without an engine; never writes anything.

use anyhow::Context as _;

use crate::args::Hash;
use crate::context::existing_dir;
use crate::{Exit, render};

pub(crate) fn run(args: &Hash) -> anyhow::Result<Exit> {
    let dir = existing_dir(&args.dir)?;
    let report =
        alike_sync::hash_dir(&dir).with_context(|| format!("cannot hash {}", render::path(&args.dir)))?;
    for (path, reason) in &report.skipped {
        render::error(&format!("skipped {}: {reason}", render::escape(path)));
    }
    render::line(&report.root)?;
    Ok(Exit::Done)
}
