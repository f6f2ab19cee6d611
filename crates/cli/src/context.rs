//! What every verb needs to know about where it runs: state directory, settings, working directory, terminal.
//! The only module that reads the environment for the library; never writes anything.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use alike_sync::config::{Config, ConfigError};
use alike_sync::control::FolderRef;
use anyhow::{Context as _, bail};

use crate::render::{self, Paint};

/// Where a verb runs.
pub(crate) struct Context {
    /// The state directory, absolute; may not exist yet.
    pub(crate) home: PathBuf,
}

impl Context {
    /// Looks around.
    pub(crate) fn new() -> anyhow::Result<Context> {
        let home = home_of(|name| std::env::var_os(name).filter(|value| !value.is_empty()))?;
        Ok(Context { home })
    }

    /// The settings of the state directory.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let setting = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Config::load(self.home.clone(), setting, host)
    }

    /// How to paint on standard output. Broken settings do not matter here: the verb that needs them says so.
    pub(crate) fn paint(&self) -> Paint {
        Paint::new(render::stdout_is_terminal() && !self.config().is_ok_and(|config| config.no_color))
    }

    /// The folder a person named, to be looked up by the engine.
    pub(crate) fn folder(&self, name: Option<String>) -> FolderRef {
        FolderRef {
            name,
            cwd: working_dir(),
        }
    }
}

/// Where the command runs. A working directory that was removed under us is in no folder.
pub(crate) fn working_dir() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// A path as the engine knows it: absolute, its directory without links. The path itself is not followed, and
/// need not exist.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let path = working_dir().join(path);
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(dir)), Some(name)) => dir.join(name),
        _ => path,
    }
}

/// An existing directory, absolute and without links.
pub(crate) fn existing_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let found = dir
        .canonicalize()
        .with_context(|| format!("cannot use {}", render::path(dir)))?;
    if !found.is_dir() {
        bail!(
            "{} is a file: alike keeps directories equal, name one",
            render::path(dir)
        );
    }
    Ok(found)
}

/// An absolute directory that may not exist yet: links are followed as far as it exists, `..` in the rest is
/// worked out on the text.
pub(crate) fn future_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let named = || format!("cannot use {}", render::path(dir));
    if dir.symlink_metadata().is_ok() {
        return existing_dir(dir);
    }
    let absolute = std::path::absolute(dir).with_context(named)?;
    let existing = absolute
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let mut found = existing.canonicalize().with_context(named)?;
    if !found.is_dir() {
        bail!(
            "{} is a file: no directory can be made in it",
            render::path(existing)
        );
    }
    for part in absolute
        .strip_prefix(existing)
        .expect("an ancestor is a prefix")
        .components()
    {
        match part {
            Component::Normal(name) => found.push(name),
            Component::ParentDir => drop(found.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(found)
}

/// `ALIKE_HOME`, else `$XDG_DATA_HOME/alike`, else `~/.local/share/alike`.
fn home_of(setting: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    if let Some(home) = setting("ALIKE_HOME") {
        return std::path::absolute(&home)
            .context("ALIKE_HOME is relative, and there is no working directory");
    }
    // The XDG specification: a relative path there is to be ignored.
    if let Some(data) = setting("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
    {
        return Ok(data.join("alike"));
    }
    match setting("HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(home) => Ok(home.join(".local/share/alike")),
        None => bail!("no place for the state directory: set HOME, or ALIKE_HOME to a directory of its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(settings: &[(&str, &str)]) -> Option<PathBuf> {
        home_of(|name| {
            settings
                .iter()
                .find(|(k, _)| *k == name)
                .map(|(_, v)| OsString::from(v))
        })
        .ok()
    }

    #[test]
    fn the_state_directory_follows_the_contract() {
        let all = [("ALIKE_HOME", "/a"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(home(&all), Some("/a".into()));
        assert_eq!(home(&all[1..]), Some("/x/alike".into()));
        assert_eq!(home(&all[2..]), Some("/h/.local/share/alike".into()));
        assert_eq!(
            home(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            Some("/h/.local/share/alike".into())
        );
        assert_eq!(home(&[]), None);
        assert!(
            home(&[("ALIKE_HOME", "state")])
                .expect("found")
                .ends_with("state")
        );
        assert!(home(&[("ALIKE_HOME", "state")]).expect("found").is_absolute());
    }

    #[test]
    fn directories_are_checked_and_made_absolute() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let base = temp.path().canonicalize().expect("exists");
        std::fs::create_dir(base.join("real")).expect("new");
        std::fs::write(base.join("file"), "").expect("new");
        std::os::unix::fs::symlink("real", base.join("link")).expect("new");
        assert_eq!(existing_dir(&base.join("link")).expect("fine"), base.join("real"));
        assert!(existing_dir(&base.join("file")).is_err() && existing_dir(&base.join("none")).is_err());
        assert_eq!(
            future_dir(&base.join("link/new/../deep/dir")).expect("fine"),
            base.join("real/deep/dir")
        );
        assert_eq!(future_dir(&base.join("link")).expect("fine"), base.join("real"));
        assert!(future_dir(&base.join("file")).is_err() && future_dir(&base.join("file/x")).is_err());
    }
}
