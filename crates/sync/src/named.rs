//! Which folder and which path a person means. Never opens a folder.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use alike_core::path::RelPath;
use alike_store::FolderRow;

use crate::control::FolderRef;
use crate::error::Error;

fn refuse<T>(what: String) -> Result<T, Error> {
    Err(Error::Refused(what))
}

/// The folder that was named, by its name, its path or the beginning of its id; otherwise the one around the working
/// directory, or the only one.
pub(crate) fn folder<'a>(rows: &[&'a FolderRow], wanted: &FolderRef) -> Result<&'a FolderRow, Error> {
    let Some(name) = &wanted.name else {
        let real = std::fs::canonicalize(&wanted.cwd).unwrap_or_else(|_| wanted.cwd.clone());
        let around = rows.iter().find(|row| real.starts_with(&row.path));
        return match (around, rows) {
            (Some(row), _) | (None, [row]) => Ok(row),
            (None, []) => {
                refuse("no folder is synced by this device yet; begin with `sync share DIR`".into())
            }
            (None, _) => refuse(format!("which folder? {}", all(rows))),
        };
    };
    let by_name: Vec<_> = rows.iter().filter(|row| row.name == *name).collect();
    if let [row] = by_name[..] {
        return Ok(row);
    }
    if by_name.len() > 1 {
        return refuse(format!(
            "several folders are called “{name}”: give the path or the id"
        ));
    }
    let typed = wanted.cwd.join(name);
    let real = std::fs::canonicalize(&typed).ok();
    let by_path = rows
        .iter()
        .find(|row| Some(&row.path) == real.as_ref())
        .or_else(|| rows.iter().find(|row| row.path == typed));
    if let Some(row) = by_path {
        return Ok(row);
    }
    let fits = |row: &&&FolderRow| row.id.to_string().starts_with(name.as_str());
    let by_id: Vec<_> = rows.iter().filter(fits).collect();
    match by_id[..] {
        [row] if !name.is_empty() => Ok(row),
        _ => refuse(format!("no folder “{name}”; {}", all(rows))),
    }
}

fn all(rows: &[&FolderRow]) -> String {
    if rows.is_empty() {
        return "this device syncs none".into();
    }
    let names = rows
        .iter()
        .map(|row| format!("{} ({})", row.name, row.path.display()));
    format!("there are: {}", names.collect::<Vec<_>>().join(", "))
}

/// The same where a path in the folder is given, too: an absolute one tells the folder.
pub(crate) fn folder_of<'a>(
    rows: &[&'a FolderRow],
    wanted: &FolderRef,
    path: Option<&Path>,
) -> Result<&'a FolderRow, Error> {
    if let (None, Some(path)) = (&wanted.name, path)
        && path.is_absolute()
        && let Some(row) = rows.iter().find(|row| below(row, path).is_some())
    {
        return Ok(row);
    }
    folder(rows, wanted)
}

/// A path that a person typed, as the folder knows it: absolute; or relative to the working directory if that is in
/// the folder, else relative to the folder. Nothing need be there.
pub(crate) fn path_in(row: &FolderRow, cwd: &Path, typed: &Path) -> Result<RelPath, Error> {
    let cwd = std::fs::canonicalize(cwd).unwrap_or_else(|_| cwd.to_path_buf());
    let base = if cwd.starts_with(&row.path) {
        &cwd
    } else {
        &row.path
    };
    let show = typed.display();
    let Some(rest) = below(row, &base.join(typed)) else {
        return refuse(format!(
            "{show} is not in the folder “{}” ({})",
            row.name,
            row.path.display()
        ));
    };
    RelPath::parse(rest.as_os_str().as_bytes()).map_err(|e| Error::Refused(format!("{show}: {e}")))
}

/// What is left of an absolute path below the folder's root; `None` if it is elsewhere.
fn below(row: &FolderRow, path: &Path) -> Option<PathBuf> {
    let path = tidied(path);
    let rest = path.strip_prefix(&row.path).map(Path::to_path_buf);
    rest.ok().or_else(|| {
        // Links on the way to the folder: those in it are paths like others.
        let real = path.ancestors().find_map(|above| {
            let real = std::fs::canonicalize(above).ok()?;
            real.starts_with(&row.path)
                .then(|| real.join(path.strip_prefix(above).expect("it is above")))
        });
        Some(real?.strip_prefix(&row.path).ok()?.to_path_buf())
    })
}

/// Without `.` and `..`, worked out on the text.
fn tidied(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(tidy.pop()),
            part => tidy.push(part),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_however_it_is_typed() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let base = temp.path().canonicalize().expect("exists");
        let root = base.join("docs");
        std::fs::create_dir_all(root.join("a/b")).expect("new");
        std::os::unix::fs::symlink(&root, base.join("link")).expect("new");
        std::os::unix::fs::symlink("/nowhere", root.join("dangling")).expect("new");
        let row = FolderRow {
            key: alike_store::FolderKey(1),
            id: alike_core::ids::FolderId([1; 16]),
            name: "docs".into(),
            path: root.clone(),
            replica: alike_store::Replica {
                id: alike_core::ids::ReplicaId(1),
                nonce: [0; 16],
            },
            marker: [0; 16],
            root_dev: 0,
            root_ino: 0,
            paused: false,
            created_ms: 0,
        };
        let found = |cwd: &Path, typed: &str| {
            let path = path_in(&row, cwd, typed.as_ref()).ok()?;
            Some(String::from_utf8(path.as_bytes().to_vec()).expect("text"))
        };
        let (inside, link) = (root.join("a"), base.join("link"));
        for (cwd, typed, is) in [
            (&root, "a/gone", Some("a/gone")),
            (&inside, "b/../gone", Some("a/gone")),
            (&inside, "../x", Some("x")),
            (&inside, "../../x", None),
            (&base, "a/x", Some("a/x")),
            (&base, "./a//x/", Some("a/x")),
            (&link, "a", Some("a")),
            (&base, "dangling", Some("dangling")),
            (&root, ".alike/marker", None),
            (&root, ".", Some("")),
        ] {
            assert_eq!(found(cwd, typed).as_deref(), is, "{typed} in {}", cwd.display());
        }
        for (typed, is) in [
            (root.join("a/x"), Some("a/x")),
            (link.join("a/x/y"), Some("a/x/y")),
            (base.join("other/x"), None),
        ] {
            assert_eq!(found(&base, typed.to_str().expect("text")).as_deref(), is);
        }
        let wanted = FolderRef {
            name: None,
            cwd: base.clone(),
        };
        let other = FolderRow {
            name: "other".into(),
            path: base.join("other"),
            ..row.clone()
        };
        let rows = [&row, &other];
        assert!(folder(&rows, &wanted).is_err());
        let path = base.join("other/x");
        assert_eq!(
            folder_of(&rows, &wanted, Some(&path)).expect("found").name,
            "other"
        );
    }
}
