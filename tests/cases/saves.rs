//! How programs save, system call by system call, while the other side edits other files: no conflict copies,
//! nothing left behind, both sides equal. Never runs the programs themselves: that is in `programs`.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::*;

/// How often each program saves.
const SAVES: usize = 24;
/// What the appending program writes in all, and how often a second: about eight seconds.
const LINES: usize = 8000;

/// One save of `content` at the path.
type Save = fn(&Path, &[u8]);

/// The laptop's user saves one document again and again; the desktop's works on others.
fn work(opened: fn(&Path), save: Save, closed: fn(&Path)) {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("work/doc.txt"), "first");
        write(dir.join("work/other"), "x");
    });
    let doc = a.path("work/doc.txt");
    opened(&doc);
    for n in 1..=SAVES {
        // A document that grows and shrinks.
        let content = noise(&format!("save {n}"), 200 + (n * 7919) % 9000);
        save(&doc, &content);
        write(b.path("work/other"), format!("desktop {n}"));
        write(b.path(format!("work/by the desktop {}", n % 5)), format!("{n}"));
        if n % 6 == 0 {
            // Some saves come one upon the other, some when the one before has arrived.
            eventually("the save has arrived", LONG, || {
                fs::read(b.path("work/doc.txt")).is_ok_and(|there| there == content)
            });
        }
    }
    let last = fs::read(&doc).unwrap();
    closed(&doc);
    assert_converged(&[&a, &b]);
    assert_eq!(fs::read(b.path("work/doc.txt")).unwrap(), last);
    assert_eq!(text(a.path("work/other")), format!("desktop {SAVES}"));
    let mut expected = vec!["work".to_owned(), "work/doc.txt".into(), "work/other".into()];
    expected.extend((0..5).map(|n| format!("work/by the desktop {n}")));
    expected.sort();
    assert_eq!(
        names(&b.folder),
        expected,
        "no conflict copies, nothing left behind"
    );
    assert_eq!((a.field("conflicts"), b.field("conflicts")), (0.into(), 0.into()));
}

fn beside(doc: &Path, name: &str) -> PathBuf {
    doc.with_file_name(name)
}

fn written(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// The swap file, and the file that is made and removed to see whether files can be made here.
fn vim_prelude(doc: &Path, content: &[u8]) {
    let mut swap = OpenOptions::new()
        .write(true)
        .open(beside(doc, ".doc.txt.swp"))
        .unwrap();
    swap.seek(SeekFrom::Start(4096)).unwrap();
    swap.write_all(content).unwrap();
    drop(File::create_new(beside(doc, "4913")).unwrap());
    fs::remove_file(beside(doc, "4913")).unwrap();
}

fn vim_opens(doc: &Path) {
    written(&beside(doc, ".doc.txt.swp"), &[b'b'; 4096]);
}

fn vim_closes(doc: &Path) {
    fs::remove_file(beside(doc, ".doc.txt.swp")).unwrap();
}

#[test]
fn vim_renames_the_old_version_away_and_writes_a_new_file() {
    // backupcopy=no
    work(
        vim_opens,
        |doc, content| {
            vim_prelude(doc, content);
            let backup = beside(doc, "doc.txt~");
            fs::rename(doc, &backup).unwrap();
            written(doc, content);
            set_mode(doc, 0o644);
            fs::remove_file(backup).unwrap();
        },
        vim_closes,
    );
}

#[test]
fn vim_copies_the_old_version_and_writes_in_place() {
    // backupcopy=yes
    work(
        vim_opens,
        |doc, content| {
            vim_prelude(doc, content);
            let backup = beside(doc, "doc.txt~");
            fs::copy(doc, &backup).unwrap();
            written(doc, content);
            fs::remove_file(backup).unwrap();
        },
        vim_closes,
    );
}

#[test]
fn vs_code_truncates_and_writes_in_place() {
    work(
        |_| {},
        |doc, content| {
            let mut file = OpenOptions::new().write(true).open(doc).unwrap();
            file.set_len(0).unwrap();
            for piece in content.chunks(4096) {
                file.write_all(piece).unwrap();
            }
        },
        |_| {},
    );
}

#[test]
fn vs_code_writes_a_file_beside_and_renames_it_over() {
    work(
        |_| {},
        |doc, content| {
            let temp = beside(doc, "doc.txt.vsctmp");
            written(&temp, content);
            fs::rename(temp, doc).unwrap();
        },
        |_| {},
    );
}

#[test]
fn libreoffice_locks_and_renames_a_temporary_file_over() {
    work(
        |doc| {
            write(
                beside(doc, ".~lock.doc.txt#"),
                ",user,laptop,24.11.2026 12:00,file:///home;",
            )
        },
        |doc, content| {
            let temp = beside(doc, "lu48151623.tmp");
            written(&temp, b"");
            let mut file = OpenOptions::new().read(true).write(true).open(&temp).unwrap();
            file.write_all(content).unwrap();
            // An archive: its directory at the end is written last, then the head once more.
            file.rewind().unwrap();
            file.write_all(&content[..100]).unwrap();
            file.sync_all().unwrap();
            fs::rename(temp, doc).unwrap();
        },
        |doc| fs::remove_file(beside(doc, ".~lock.doc.txt#")).unwrap(),
    );
}

#[test]
fn emacs_locks_with_a_link_and_keeps_a_backup() {
    work(
        |doc| {
            std::os::unix::fs::symlink("user@laptop.4711:1764000000", beside(doc, ".#doc.txt")).unwrap();
        },
        |doc, content| {
            written(&beside(doc, "#doc.txt#"), content);
            let backup = beside(doc, "doc.txt~");
            fs::rename(doc, &backup).unwrap();
            written(doc, content);
            fs::remove_file(beside(doc, "#doc.txt#")).unwrap();
        },
        |doc| {
            fs::remove_file(beside(doc, ".#doc.txt")).unwrap();
            fs::remove_file(beside(doc, "doc.txt~")).unwrap();
        },
    );
}

#[test]
fn a_file_appended_a_thousand_times_a_second_blocks_nothing() {
    let (_lab, a, b) = paired(|dir| {
        write(dir.join("server.log"), "");
        write(dir.join("from a"), "0");
        write(dir.join("from b"), "0");
    });
    let mut log = OpenOptions::new()
        .append(true)
        .open(a.path("server.log"))
        .unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut lines = 0;
        while lines < LINES {
            writeln!(log, "line {lines}: something happened").unwrap();
            lines += 1;
            if let Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) =
                stopped.recv_timeout(Duration::from_millis(1))
            {
                break;
            }
        }
        lines
    });
    // While it is written, everything else is as it always is, both ways.
    let mut round = 0;
    while !writer.is_finished() {
        round += 1;
        write(a.path("from a"), format!("{round}"));
        write(b.path("from b"), format!("{round}"));
        eventually("saves of other files arrive meanwhile", LONG, || {
            text(b.path("from a")) == format!("{round}") && text(a.path("from b")) == format!("{round}")
        });
    }
    drop(stop);
    let lines = writer.join().expect("the program that appends");
    assert_eq!(lines, LINES);
    assert!(round > 1, "saves arrived while the file was open");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("server.log")).lines().count(), LINES);
    assert_eq!(names(&b.folder), ["from a", "from b", "server.log"]);
}
