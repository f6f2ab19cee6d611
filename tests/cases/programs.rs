//! Programs that people use in synced folders, run for real: git, SQLite, vim. `.ci/run` installs them. Never
//! imitates them: that is in `saves`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::*;

/// Commits in the repository.
const COMMITS: usize = 300;
/// How many commits later a file is changed again.
const FILES: usize = 40;
/// Transactions under which the database lies.
const TRANSACTIONS: usize = 1500;

/// Runs a program that must succeed in `dir`, with no settings of the user; returns what it printed.
#[track_caller]
fn tool(dir: &Path, program: &str, args: &[&str], input: Option<&[u8]>) -> String {
    let stdin = match input {
        Some(input) => {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(input).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("TERM", "dumb")
        .stdin(stdin)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e} (`.ci/run` installs what is missing)"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[track_caller]
fn git(dir: &Path, args: &[&str]) -> String {
    let all = [&["-c", "user.name=T", "-c", "user.email=t@example.org"], args].concat();
    tool(dir, "git", &all, None)
}

#[track_caller]
fn no_copies(device: &Device) {
    let copies: Vec<_> = names(&device.folder)
        .into_iter()
        .filter(|n| n.contains("(conflict "))
        .collect();
    assert_eq!(copies, [""; 0], "conflict copies on {}", device.name);
    assert_eq!(device.field("conflicts"), 0);
}

/// What `git fast-import` makes a history of: files that come, change, move and go.
fn history() -> Vec<u8> {
    let mut text = String::from("reset refs/heads/main\n");
    for n in 1..=COMMITS {
        let message = format!("commit {n}");
        let _ = write!(
            text,
            "commit refs/heads/main\nmark :{n}\ncommitter T <t@example.org> {} +0000\ndata {}\n{message}\n",
            1_700_000_000 + n * 60,
            message.len()
        );
        let (at, content) = (n % FILES, format!("content of commit {n}\n").repeat(1 + n % 50));
        let mode = if n % 7 == 0 { "100755" } else { "100644" };
        let _ = write!(
            text,
            "M {mode} inline src/{}/file{at}.rs\ndata {}\n{content}\n",
            at % 5,
            content.len()
        );
        // What is a directory in one part of history is a file in another, and a link in a third.
        match n % 60 {
            10 => text.push_str("D thing\nM 100644 inline thing/inside\ndata 6\ninside\n"),
            30 => text.push_str("D thing\nM 100644 inline thing\ndata 4\nfile\n"),
            50 => text.push_str("D thing\nM 120000 inline thing\ndata 3\nsrc\n"),
            _ => {}
        }
    }
    text.into_bytes()
}

#[test]
fn git_checkouts_commits_and_gc_in_a_synced_repository() {
    let (_lab, a, b) = paired(|dir| {
        git(dir, &["init", "-q", "-b", "main", "."]);
        tool(dir, "git", &["fast-import", "--quiet"], Some(&history()));
        git(dir, &["checkout", "-q", "-f", "main"]);
    });
    let whole = |device: &Device| {
        no_copies(device);
        git(&device.folder, &["fsck", "--full", "--strict", "--no-dangling"]);
        // The times and inodes in the index are those of the other side: git looks at the content.
        let status = ["--no-optional-locks", "status", "--porcelain"];
        assert_eq!(git(&device.folder, &status), "", "on {}", device.name);
    };
    whole(&b);
    for (back, message) in [
        (250, "far back"),
        (20, "and forth"),
        (135, "halfway"),
        (2, "near"),
    ] {
        git(&a.folder, &["checkout", "-q", &format!("main~{back}")]);
        // The other side works on something else meanwhile.
        write(b.path(".git/info/notes of the desktop"), message);
        if back == 135 {
            // Two of them one upon the other.
            git(&a.folder, &["checkout", "-q", "main~290"]);
        }
        assert_converged(&[&a, &b]);
        whole(&b);
    }
    git(&a.folder, &["checkout", "-q", "main"]);
    for n in 0..12 {
        write(a.path("src/new.rs"), format!("// {n}\n"));
        git(&a.folder, &["add", "-A"]);
        git(
            &a.folder,
            &["commit", "-q", "-m", &format!("from the laptop {n}")],
        );
    }
    assert_converged(&[&a, &b]);
    // The other side goes on with it, then this one packs everything.
    write(b.path("src/desktop.rs"), "// d\n");
    git(&b.folder, &["add", "-A"]);
    git(&b.folder, &["commit", "-q", "-m", "from the desktop"]);
    assert_converged(&[&a, &b]);
    git(&a.folder, &["gc", "--quiet", "--prune=now"]);
    assert_converged(&[&a, &b]);
    let log = |device: &Device| git(&device.folder, &["log", "--format=%H %s"]);
    assert_eq!(log(&a), log(&b));
    assert_eq!(log(&b).lines().count(), COMMITS + 13);
    whole(&a);
    whole(&b);
    assert_eq!(text(a.path(".git/info/notes of the desktop")), "near");
}

/// Copies the database with what belongs to it out of the folder, and lets SQLite look at it there.
#[track_caller]
fn checked(device: &Device, lab: &Lab) -> String {
    let place = lab.path(&format!("copy of {}", device.name));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place).unwrap();
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        if device.path(name).exists() {
            fs::copy(device.path(name), place.join(name)).unwrap();
        }
    }
    let sql = "PRAGMA integrity_check; SELECT count(*), sum(n), max(length(t)) FROM log;";
    tool(&place, "sqlite3", &["app.db", sql], None)
}

#[test]
fn sqlite_in_wal_mode_under_load() {
    let (lab, a, b) = paired(|dir| write(dir.join("other"), "x"));
    let make = "PRAGMA journal_mode=WAL; CREATE TABLE log(n INTEGER PRIMARY KEY, t TEXT);";
    tool(&a.folder, "sqlite3", &["app.db", make], None);
    for is_killed in [false, true] {
        let mut sqlite = Command::new("sqlite3")
            .arg("app.db")
            .current_dir(&a.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3");
        let mut input = sqlite.stdin.take().unwrap();
        let mut output = BufReader::new(sqlite.stdout.take().unwrap());
        let mut line = String::new();
        for n in 0..TRANSACTIONS {
            // Inserts, and changes all over the file, each answered when it is committed.
            writeln!(
                input,
                "BEGIN; INSERT INTO log(t) VALUES('{}'); UPDATE log SET t = t || 'x' WHERE n % 97 = {}; COMMIT; \
                 SELECT 'done {n}';",
                "text ".repeat(n % 60),
                n % 97
            )
            .unwrap();
            line.clear();
            output.read_line(&mut line).unwrap();
            assert_eq!(line.trim(), format!("done {n}"));
            if n % 300 == 0 {
                write(b.path("other"), format!("desktop {n} {is_killed}"));
                eventually("other files are synced meanwhile", LONG, || {
                    text(a.path("other")) == text(b.path("other"))
                });
            }
        }
        if is_killed {
            // Its log stays beside the database, and belongs to it.
            sqlite.kill().unwrap();
        }
        drop(input);
        sqlite.wait().unwrap();
        assert_converged(&[&a, &b]);
        no_copies(&b);
        assert_eq!(b.path("app.db-wal").exists(), is_killed);
        let there = checked(&b, &lab);
        assert!(there.starts_with("ok\n"), "integrity_check: {there}");
        assert_eq!(there, checked(&a, &lab));
    }
}

#[test]
fn vim_itself_saves_in_a_synced_folder() {
    let (_lab, a, b) = paired(|dir| write(dir.join("notes.txt"), "first\n"));
    let vim = ["vim", "vim.tiny", "vi"]
        .into_iter()
        .find(|name| {
            let found = Command::new(name).arg("--version").output();
            found.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).starts_with("VIM"))
        })
        .expect("vim is missing: `.ci/run` installs it");
    for (n, copy) in ["no", "yes", "auto"].into_iter().cycle().take(9).enumerate() {
        let set = format!("set nomore writebackup backupcopy={copy} swapfile");
        let add = format!("normal! Goline {n} with backupcopy={copy}");
        let args = ["-N", "-u", "NONE", "-i", "NONE", "-es"];
        let commands = [
            "-c",
            &set,
            "-c",
            &add,
            "-c",
            "w",
            "-c",
            "normal! Goand again",
            "-c",
            "wq",
        ];
        let all = [&args[..], &commands, &["notes.txt"]].concat();
        tool(&a.folder, vim, &all, None);
        write(b.path("other"), format!("desktop {n}"));
    }
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("notes.txt")).lines().count(), 19);
    assert_eq!(text(a.path("other")), "desktop 8");
    assert_eq!(names(&b.folder), ["notes.txt", "other"]);
    no_copies(&a);
}
