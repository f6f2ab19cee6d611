//! `sync log`: a folder's generations, or the versions of one path. Never changes anything.

use std::time::SystemTime;

use alike_sync::control::{LogEntry, PastRequest, VersionEntry};

use super::past::ask;
use crate::args::Log;
use crate::context::Context;
use crate::{Exit, render};

/// A screen of them, where a person reads and did not say how many.
const SCREEN: usize = 20;

pub(crate) fn run(context: &Context, args: Log) -> anyhow::Result<Exit> {
    let screen = (args.limit.is_none() && !args.json && render::stdout_is_terminal()).then_some(SCREEN);
    let of_path = args.path.is_some();
    let request = PastRequest::Log {
        folder: context.folder(args.folder),
        // One more tells that there are more.
        limit: screen.map(|screen| screen + 1).or(args.limit),
        path: args.path,
    };
    if of_path {
        let list: Vec<VersionEntry> = ask(context, request)?;
        show(args.json, screen, list, version)?;
    } else {
        let list: Vec<LogEntry> = ask(context, request)?;
        show(args.json, screen, list, generation)?;
    }
    Ok(Exit::Done)
}

fn show<T: serde::Serialize>(
    json: bool,
    screen: Option<usize>,
    mut list: Vec<T>,
    row: impl Fn(&T, SystemTime) -> Vec<String>,
) -> anyhow::Result<()> {
    if json {
        return render::json(&list);
    }
    let more = screen.is_some_and(|screen| list.len() > screen);
    list.truncate(screen.unwrap_or(usize::MAX));
    let now = SystemTime::now();
    let rows: Vec<Vec<String>> = list.iter().map(|entry| row(entry, now)).collect();
    render::out(render::table(&rows))?;
    if more {
        render::line("there are older ones: `-n N` shows more of them")?;
    }
    Ok(())
}

fn generation(entry: &LogEntry, now: SystemTime) -> Vec<String> {
    let count = |sign, number| format!("{sign}{}", render::count(number));
    let pinned = entry.pinned.then(|| "pinned".to_owned());
    let notes: Vec<String> = note(&entry.content).into_iter().chain(pinned).collect();
    vec![
        entry.generation.to_string(),
        render::moment(&entry.time, now),
        render::text(&entry.device),
        render::text(&entry.reason),
        count('+', entry.added),
        count('~', entry.changed),
        count('-', entry.removed),
        notes.join(", "),
    ]
}

fn version(entry: &VersionEntry, now: SystemTime) -> Vec<String> {
    let is_file = entry.kind == "file";
    let of_file = |text: String| if is_file { text } else { String::new() };
    vec![
        entry.generation.to_string(),
        render::moment(&entry.time, now),
        render::text(&entry.device),
        render::text(&entry.kind),
        of_file(render::size(entry.size)),
        of_file(render::short(&entry.digest)),
        note(&entry.content).unwrap_or_default(),
    ]
}

/// Where the content is, if not all of it is here.
fn note(content: &str) -> Option<String> {
    match content {
        "complete" => None,
        "remote" => Some("partly on other devices".into()),
        "partial" => Some("incomplete here".into()),
        other => Some(render::text(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_what_a_person_looks_for() {
        let now = humantime::parse_rfc3339("2026-01-01T01:00:00Z").expect("a time");
        let mut entry = LogEntry {
            generation: 12,
            root: "01".repeat(32),
            time: "2026-01-01T00:00:00Z".into(),
            reason: "local".into(),
            device: "lap\x1btop".into(),
            added: 1234,
            changed: 0,
            removed: 5,
            content: "complete".into(),
            pinned: false,
        };
        let row = |entry: &LogEntry| generation(entry, now).join("|");
        assert_eq!(row(&entry), "12|60 min ago|lap\\x1btop|local|+1,234|~0|-5|");
        entry.content = "remote".into();
        entry.pinned = true;
        assert!(row(&entry).ends_with("|partly on other devices, pinned"));
        entry.content = "partial".into();
        entry.pinned = false;
        assert!(row(&entry).ends_with("|incomplete here"));
        let mut entry = VersionEntry {
            generation: 3,
            time: "2026-01-01T00:00:00Z".into(),
            device: "laptop".into(),
            kind: "file".into(),
            size: 2048,
            digest: "ab".repeat(32),
            content: "complete".into(),
        };
        let row = |entry: &VersionEntry| version(entry, now).join("|");
        assert_eq!(row(&entry), "3|60 min ago|laptop|file|2.0 KiB|abababababab|");
        entry.kind = "removed".into();
        assert_eq!(row(&entry), "3|60 min ago|laptop|removed|||");
    }
}
