//! Being coreutils' `sync` where that was meant, so that being first on PATH breaks no script. Knows nothing of
//! folders; never touches the engine.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::render;

/// Names the files (`dev:ino`, separated by commas) that have had their turn: two copies of this program on
/// PATH, or a script around one, must not hand over to each other for ever.
const TRIED: &str = "ALIKE_SYNC_TRIED";

const HINT: &str =
    "hint: this is also alike: `sync share DIR` keeps a folder equal on several devices (`sync --help`)";

/// Were these arguments meant for coreutils? Yes if there are none, or if each is an option of coreutils or an
/// existing file that is no verb of ours. After one of its options, which we do not have, files may be missing
/// too: its message and its exit code are what the caller waits for.
pub(crate) fn is_meant(
    args: &[OsString],
    is_verb: impl Fn(&str) -> bool,
    exists: impl Fn(&Path) -> bool,
) -> bool {
    let option_first = args.first().is_some_and(|arg| is_option(arg.as_bytes()));
    let mut options_over = false;
    args.iter().all(|arg| {
        if options_over {
            return true;
        }
        if arg == "--" {
            options_over = true;
            return true;
        }
        if arg.as_bytes().starts_with(b"-") {
            return is_option(arg.as_bytes());
        }
        let ours = arg.to_str().is_some_and(&is_verb);
        !ours && (option_first || exists(Path::new(arg)))
    })
}

/// `-d`, `-f`, `--data`, `--file-system`, `--`, and what getopt makes of them (`-df`, `--file`).
fn is_option(arg: &[u8]) -> bool {
    let long = |name: &[u8]| arg.len() > 2 && name.starts_with(arg);
    let short = arg.len() > 1 && arg[0] == b'-' && arg[1..].iter().all(|b| matches!(b, b'd' | b'f'));
    arg == b"--" || short || long(b"--data") || long(b"--file-system")
}

/// Does what coreutils does; returns the exit code.
pub(crate) fn run(args: &[OsString]) -> u8 {
    let bare_on_terminal = args.is_empty() && std::io::stderr().is_terminal();
    let code = hand_over(args, bare_on_terminal).unwrap_or_else(|| by_system_call(args));
    if bare_on_terminal {
        render::note(HINT);
    }
    code
}

/// Runs the next `sync` on PATH in our place. `None` if there is none that can be run. Comes back with its exit
/// code only if `come_back`.
fn hand_over(args: &[OsString], come_back: bool) -> Option<u8> {
    let mut tried = std::env::var_os(TRIED).unwrap_or_default();
    if let Some(own) = std::env::current_exe().ok().as_deref().and_then(identity) {
        push_tried(&mut tried, &own);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (next, id) = candidates(&path).find(|(_, id)| !has_tried(&tried, id))?;
    push_tried(&mut tried, &id);
    let mut command = Command::new(next);
    command.args(args).env(TRIED, tried);
    if come_back {
        let status = command.status().ok()?;
        let by_signal = || 128 + status.signal().unwrap_or(0);
        return Some(u8::try_from(status.code().unwrap_or_else(by_signal)).unwrap_or(1));
    }
    // Only comes back if it failed: then the system calls do the work.
    let _ = command.exec();
    None
}

/// Every executable `sync` on PATH with its identity.
fn candidates(path: &OsStr) -> impl Iterator<Item = (PathBuf, String)> {
    std::env::split_paths(path).filter_map(|dir| {
        let file = dir.join("sync");
        let runs = file.is_file() && rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok();
        let id = identity(&file)?;
        runs.then_some((file, id))
    })
}

/// The file itself, whatever links lead to it.
fn identity(file: &Path) -> Option<String> {
    file.metadata().ok().map(|m| format!("{}:{}", m.dev(), m.ino()))
}

fn has_tried(tried: &OsStr, id: &str) -> bool {
    tried
        .as_bytes()
        .split(|b| *b == b',')
        .any(|one| one == id.as_bytes())
}

fn push_tried(tried: &mut OsString, id: &str) {
    if !tried.is_empty() {
        tried.push(",");
    }
    tried.push(id);
}

/// What coreutils does, for systems without it.
fn by_system_call(args: &[OsString]) -> u8 {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let is_flag = |arg: &OsString| arg.len() > 1 && arg.as_bytes().starts_with(b"-");
    let has = |short: u8, long: &str| {
        args[..end].iter().any(|arg| {
            let arg = arg.as_bytes();
            let is_long = arg.starts_with(b"--");
            if is_long {
                long.as_bytes().starts_with(arg)
            } else {
                arg.starts_with(b"-") && arg.contains(&short)
            }
        })
    };
    let (data, file_system) = (has(b'd', "--data"), has(b'f', "--file-system"));
    let before = args[..end].iter().filter(|arg| !is_flag(arg));
    let files: Vec<&OsString> = before.chain(args[end..].iter().skip(1)).collect();
    if data && file_system {
        render::error("cannot specify both --data and --file-system");
        return 1;
    }
    if data && files.is_empty() {
        render::error("--data needs at least one file");
        return 1;
    }
    if files.is_empty() {
        rustix::fs::sync();
        return 0;
    }
    let mut code = 0;
    for file in files {
        if let Err(error) = sync_file(Path::new(file), data, file_system) {
            render::error(&format!("cannot sync {}: {error}", render::path(Path::new(file))));
            code = 1;
        }
    }
    code
}

fn sync_file(path: &Path, data: bool, file_system: bool) -> std::io::Result<()> {
    // Without O_NONBLOCK the open of a pipe would wait for its other end; some files can only be written.
    let open = |options: &mut OpenOptions| -> std::io::Result<File> {
        options
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
    };
    let read = open(OpenOptions::new().read(true));
    let file = read.or_else(|first| open(OpenOptions::new().write(true)).map_err(|_| first))?;
    match (data, file_system) {
        (true, _) => file.sync_data(),
        #[cfg(target_os = "linux")]
        (_, true) => Ok(rustix::fs::syncfs(&file)?),
        _ => file.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str) -> bool {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let is_verb = |name: &str| matches!(name, "status" | "share" | "help");
        is_meant(&args, is_verb, |path| {
            ["file", "other", "status", "/tmp/x"].contains(&path.to_str().unwrap_or(""))
        })
    }

    #[test]
    fn nothing_or_coreutils_own_goes_to_coreutils() {
        for line in [
            "",
            "file",
            "file /tmp/x",
            "-d file",
            "-f file",
            "--data file other",
            "--file-system file",
        ] {
            assert!(meant(line), "{line}");
        }
        for line in [
            "file -d",
            "-- file",
            "-d -- file",
            "-d -f",
            "-df file",
            "--file /tmp/x",
            "-d missing",
        ] {
            assert!(meant(line), "{line}");
        }
        assert!(meant("-- status"), "after -- every word is a file");
    }

    #[test]
    fn verbs_and_everything_else_are_ours() {
        for line in [
            "status",
            "share file",
            "help",
            "--help",
            "--version",
            "-V",
            "nonsense",
            "file nonsense",
        ] {
            assert!(!meant(line), "{line}");
        }
        for line in ["file status", "-d status", "--json", "-d -x", "file --help", "-"] {
            assert!(!meant(line), "{line}");
        }
    }

    #[test]
    fn the_next_on_path_skips_what_was_tried_by_any_of_its_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        for d in [&a, &b, &c] {
            std::fs::create_dir(d).expect("new");
        }
        let make = |file: &Path, mode: u32| {
            let options = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(file);
            drop(options.expect("new"));
        };
        make(&a.join("sync"), 0o755);
        std::os::unix::fs::symlink(a.join("sync"), b.join("sync")).expect("new");
        make(&c.join("sync"), 0o755);
        let path = std::env::join_paths([&a, &b, &c]).expect("no colons");
        let own = identity(&a.join("sync")).expect("exists");
        let next = candidates(&path).find(|(_, id)| !has_tried(OsStr::new(&format!("1:2,{own}")), id));
        assert_eq!(next.map(|(file, _)| file), Some(c.join("sync")));
    }
}
