//! Links of the documents: each one to a local file leads to a file. Never asks the network.

use std::path::{Component, Path, PathBuf};

use super::Broken;

/// Checks one document; `name` is its path from the workspace's root, as is what `exists` is asked for.
pub(super) fn check(name: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Broken> {
    let dir = Path::new(name).parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            if file.is_empty() || is_elsewhere(target) {
                continue;
            }
            match normal(&dir.join(file)) {
                Some(path) if exists(&path) => {}
                _ => broken.push(format!(
                    "{name}:{}: the link to `{target}` leads nowhere",
                    number + 1
                )),
            }
        }
    }
    broken
}

/// The targets of `[text](target)`, `[text](target "title")` and `[name]: target` on one line, outside `code`.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // Every second part is between backticks.
    for part in line.split('`').step_by(2) {
        let mut rest = part;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            found.extend(
                rest[..rest.find(')').unwrap_or(rest.len())]
                    .split_whitespace()
                    .next(),
            );
        }
    }
    // `[`code`](target)` is split by its backticks but starts with `](`, so it is found above.
    if let Some((label, target)) = line.split_once("]: ")
        && label.starts_with('[')
        && !label.starts_with("[^")
    {
        found.extend(target.split_whitespace().next());
    }
    found
}

fn is_elsewhere(target: &str) -> bool {
    ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| target.starts_with(scheme))
}

/// The path without `.` and `..`; `None` if it leaves the workspace.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> usize {
        let files = [
            "docs/format.md",
            "docs/decisions/0001-one.md",
            "README.md",
            "crates",
            "docs/index.md",
        ];
        check("docs/index.md", text, |path| {
            files.iter().any(|file| Path::new(file) == path)
        })
        .len()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        assert_eq!(
            broken("[a](format.md) and [b](format.md#trees \"title\") and [c](#here)"),
            0
        );
        assert_eq!(
            broken("[one](decisions/0001-one.md), [up](../README.md), [dir](../crates/)"),
            0
        );
        assert_eq!(
            broken("[web](https://example.org/none.md) <https://example.org> [m](mailto:a@example.org)"),
            0
        );
        assert_eq!(
            broken("[`code`](format.md)\n[ref]: format.md\n[^1]: a footnote"),
            0
        );
    }

    #[test]
    fn links_that_lead_nowhere_are_counted() {
        assert_eq!(broken("[a](none.md)"), 1);
        assert_eq!(
            broken("[a](none.md#x) [b](format.md) [c](/format.md) [d](../../README.md)"),
            3
        );
        assert_eq!(broken("[`code`](none.md)\n[ref]: none.md"), 2);
    }

    #[test]
    fn code_is_no_link() {
        assert_eq!(
            broken("`[a](none.md)` and\n```\n[a](none.md)\n```\nthen [b](none.md)"),
            1
        );
    }
}
