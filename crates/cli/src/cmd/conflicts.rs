//! `sync conflicts`: the conflict copies of a folder, each with what it is a copy of. Never settles any.

use std::time::SystemTime;

use alike_sync::control::{self, ConflictInfo, Request};

use crate::args::Conflicts;
use crate::context::Context;
use crate::{Exit, render};

pub(crate) fn run(context: &Context, args: Conflicts) -> anyhow::Result<Exit> {
    let folder = context.folder(args.folder);
    let list: Vec<ConflictInfo> = control::ask(&context.home, &Request::Conflicts { folder })?;
    if args.json {
        render::json(&list)?;
    } else if list.is_empty() {
        render::line("no conflicts")?;
    } else {
        let now = SystemTime::now();
        for conflict in &list {
            render::out(shown(conflict, now))?;
        }
        render::line("settle one with `sync resolve PATH --keep original|copy|both`")?;
    }
    Ok(Exit::Done)
}

fn shown(conflict: &ConflictInfo, now: SystemTime) -> String {
    let side = |name: String, device: &str, time: Option<&str>, size: Option<u64>, kind: &str| {
        let mut about = Vec::new();
        if !kind.is_empty() {
            about.push(kind.to_owned());
        }
        about.extend(size.map(render::size));
        about.extend(time.map(|time| format!("written {}", render::moment(time, now))));
        if !device.is_empty() {
            about.push(format!("on {}", render::text(device)));
        }
        format!("{name}  ({})\n", about.join(", "))
    };
    let kind = match conflict.original_kind.as_str() {
        "file" => "",
        "symlink" => "a symbolic link",
        "dir" => "a directory",
        _ => "deleted since",
    };
    let is_file = conflict.original_kind == "file";
    let original = side(
        render::json_name(&conflict.original),
        &conflict.original_device,
        conflict.original_time.as_deref(),
        is_file.then_some(conflict.original_size),
        kind,
    );
    let copy = side(
        render::json_name(&conflict.path),
        &conflict.device,
        Some(&conflict.time),
        Some(conflict.size),
        "",
    );
    format!("{original}  {copy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_told() {
        let mut conflict = ConflictInfo {
            path: "a (conflict 01234567).txt".into(),
            original: "a.txt".into(),
            digest: "01".repeat(32),
            size: 2048,
            time: "2026-01-01T00:00:00Z".into(),
            device: "lap\x1btop".into(),
            original_kind: "file".into(),
            original_size: 10,
            original_time: Some("2026-01-01T00:00:00Z".into()),
            original_device: String::new(),
        };
        let text = shown(&conflict, SystemTime::now());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a.txt  (10 B, written "), "{text}");
        assert!(
            lines[1].starts_with("  a (conflict 01234567).txt  (2.0 KiB, written "),
            "{text}"
        );
        assert!(lines[1].ends_with(", on lap\\x1btop)"), "{text}");
        conflict.original_kind = "gone".into();
        conflict.original_time = None;
        assert!(shown(&conflict, SystemTime::now()).starts_with("a.txt  (deleted since)"));
    }
}
