//! `cargo xtask tidy`: the walls between the crates and the rules of the house, checked on the text.
//! Never changes a file.

mod links;
mod points;
mod source;
mod walls;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{metadata, root};

/// One broken rule: where and what, for a person to read.
type Broken = String;

/// Prints every broken rule; fails if there is one.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let mut broken = walls::check(&metadata()?)?;
    let mut markers = Vec::new();
    let mut used = BTreeSet::new();
    for path in files(&root, &["crates", "benches", "xtask", "tests", "fuzz"], "rs")? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = relative(&root, &path);
        let report = source::check(&name, &text);
        broken.extend(report.broken);
        for note in report.notes {
            println!("    note: {note}");
        }
        markers.extend(report.sleeps);
        if name.starts_with(points::CODE) && name != points::LIST {
            used.extend(points::used(&text));
        }
    }
    let list =
        fs::read_to_string(root.join(points::LIST)).with_context(|| format!("read {}", points::LIST))?;
    broken.extend(points::check(&list, &used));
    if markers.len() > 1 {
        broken.push(format!(
            "the tests sleep in more than one place: {}",
            markers.join(", ")
        ));
    }
    let mut pages = files(&root, &["docs"], "md")?;
    pages.extend(
        ["README.md", "CHANGELOG.md"]
            .map(|name| root.join(name))
            .into_iter()
            .filter(|p| p.is_file()),
    );
    for path in pages {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        broken.extend(links::check(&relative(&root, &path), &text, |target| {
            root.join(target).exists()
        }));
    }
    for line in &broken {
        println!("    {line}");
    }
    if !broken.is_empty() {
        bail!("{} broken rule(s), see above", broken.len());
    }
    Ok(())
}

/// Files with the extension below the directories that exist, sorted; build output is not ours.
fn files(root: &Path, dirs: &[&str], extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = dirs
        .iter()
        .map(|dir| root.join(dir))
        .filter(|dir| dir.is_dir())
        .collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name() != Some("target".as_ref()) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}
