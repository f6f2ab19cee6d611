//! `sync diff`: what differs between two generations. Never changes anything.

use alike_sync::control::{DiffEntry, PastRequest};

use super::past::ask;
use crate::args::Diff;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Diff) -> anyhow::Result<Exit> {
    let request = PastRequest::Diff {
        folder: context.folder(args.folder),
        from: args.from,
        to: args.to,
    };
    let list: Vec<DiffEntry> = ask(context, request)?;
    if args.json {
        render::json(&list)?;
    } else {
        let lines: String = list.iter().map(|entry| shown(entry) + "\n").collect();
        render::out(lines)?;
    }
    Ok(Exit::Done)
}

fn shown(entry: &DiffEntry) -> String {
    let path = render::json_name(&entry.path);
    match (entry.change.as_str(), &entry.from) {
        ("renamed", Some(from)) => format!("R {} -> {path}", render::json_name(from)),
        ("added", _) => format!("A {path}"),
        ("modified", _) => format!("M {path}"),
        ("removed", _) => format!("D {path}"),
        (other, _) => format!("{} {path}", render::text(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_harmless() {
        let entry = |change: &str, from: Option<&str>| DiffEntry {
            change: change.into(),
            path: serde_json::json!({ "bytes": "61ff" }),
            from: from.map(Into::into),
        };
        assert_eq!(shown(&entry("added", None)), "A a\\xff");
        assert_eq!(shown(&entry("modified", None)), "M a\\xff");
        assert_eq!(shown(&entry("removed", None)), "D a\\xff");
        assert_eq!(shown(&entry("renamed", Some("o\x1bld"))), "R o\\x1bld -> a\\xff");
    }
}
