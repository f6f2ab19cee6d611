//! `sync verify`: reads everything again. The engine does it.

use alike_sync::control::{self, PastRequest, Request, Verified, VerifyProgress};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Verify;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Verify) -> anyhow::Result<Exit> {
    let request = PastRequest::Verify {
        folder: context.folder(args.folder),
        repair: args.repair,
    };
    let bar = progress_bar(!args.json && render::stderr_is_terminal());
    let answer = control::call(&context.home, &Request::Past(request), |event| {
        if let Ok(VerifyProgress { checked, bytes }) = serde_json::from_value(event) {
            bar.set_position(bytes);
            bar.set_message(render::things(checked, "thing", "things"));
        }
        true
    });
    bar.finish_and_clear();
    let done: Verified = serde_json::from_value(answer?)?;
    if args.json {
        render::json(&done)?;
    } else {
        said(&done)?;
    }
    if done.damaged.len() > done.repaired.len() {
        return Ok(Exit::Damage);
    }
    if !done.unavailable.is_empty() {
        bail!(
            "not looked at, because their directories are not there: {} (`sync status` says more)",
            done.unavailable.join(", ")
        );
    }
    Ok(Exit::Done)
}

fn progress_bar(shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} read, {bytes} at {bytes_per_sec}");
    let style = style.expect("the template is right");
    ProgressBar::no_length().with_style(style)
}

/// For a person.
fn said(done: &Verified) -> anyhow::Result<()> {
    for what in &done.damaged {
        let word = if done.repaired.contains(what) {
            "repaired"
        } else {
            "damaged "
        };
        render::line(&format!("{word}  {}", render::json_name(what)))?;
    }
    let left = done.damaged.len() - done.repaired.len();
    let checked = render::things(done.checked, "thing", "things");
    render::line(&match (done.damaged.len(), left) {
        (0, _) => format!("{checked} read, all good"),
        (n, 0) => format!("{checked} read; {n} damaged, and good again"),
        (_, left) => format!("{checked} read; {left} damaged"),
    })?;
    let in_database = |what: &serde_json::Value| what.as_str().is_some_and(|w| w.starts_with("alike.redb"));
    if done.damaged.iter().any(in_database) {
        render::error(
            "the database is damaged: `sync stop`, move alike.redb out of the state directory, start again, and add the \
             folders again: on a device that has one, `sync share` it, and here `sync pair TICKET` into the directory as \
             it is. No file of yours is in the database",
        );
    }
    Ok(())
}
