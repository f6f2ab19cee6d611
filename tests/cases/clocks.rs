//! A device whose clock is years off, and later comes right: clocks say which version keeps its name, and never
//! what is lost. Never sets the machine's own clock.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::*;

const TEN_YEARS: i64 = 315_360_000;

/// What a kernel whose clock is off makes of a save.
fn save(path: impl AsRef<Path>, content: &str, off: i64) {
    write(&path, content);
    let by = Duration::from_secs(off.unsigned_abs());
    let now = SystemTime::now();
    let time = if off < 0 { now - by } else { now + by };
    let file = fs::File::options().write(true).open(path.as_ref()).expect("open");
    file.set_modified(time).expect("set the time");
}

#[track_caller]
fn off_by(off: i64) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.running("desktop"));
    for name in [
        "edited there",
        "edited here",
        "deleted here",
        "deleted there",
        "both",
    ] {
        save(a.path(name), "first", off);
    }
    a.set_env("ALIKE_CLOCK", off.to_string());
    a.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);

    save(a.path("edited here"), "second", off);
    write(b.path("edited there"), "second");
    fs::remove_file(a.path("deleted here")).expect("remove");
    fs::remove_file(b.path("deleted there")).expect("remove");
    assert_converged(&[&a, &b]);
    let left = ["both", "edited here", "edited there"];
    assert_eq!(names(&b.folder), left, "an edit beats what it was made from");
    assert_eq!(text(b.path("edited here")), "second");
    assert_eq!(text(a.path("edited there")), "second");

    // And back again, each on top of the other's.
    save(a.path("edited there"), "third", off);
    write(b.path("edited here"), "third");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("edited there")), "third");
    assert_eq!(text(a.path("edited here")), "third");
    assert_eq!(a.field("conflicts"), 0);

    // At the same time: both stay, whoever's clock says what.
    b.stop();
    save(a.path("both"), "on the laptop", off);
    save(a.path("edited here"), "edited, deleted there", off);
    assert!(a.cmd(["wait", "--timeout", "1s"]).code != 0, "nobody is there");
    write(b.path("both"), "on the desktop");
    fs::remove_file(b.path("edited here")).expect("remove");
    b.start();
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("conflicts"), 1);
    let both: String = names(&a.folder).iter().map(|name| text(a.path(name))).collect();
    assert!(
        both.contains("on the laptop") && both.contains("on the desktop"),
        "{both}"
    );
    assert_eq!(text(b.path("edited here")), "edited, deleted there");

    // The clock comes right: what is done from now on counts, on both sides, and what is gone stays gone.
    a.set_env("ALIKE_CLOCK", "");
    a.restart();
    write(a.path("edited there"), "fourth");
    assert_converged(&[&a, &b]);
    assert_eq!(text(b.path("edited there")), "fourth");
    write(b.path("edited there"), "fifth");
    fs::remove_file(a.path("edited here")).expect("remove");
    assert_converged(&[&a, &b]);
    assert_eq!(text(a.path("edited there")), "fifth");
    assert!(!b.path("edited here").exists() && !b.path("deleted here").exists());
    assert_eq!(a.field("conflicts"), 1);
}

#[test]
fn ten_years_ahead() {
    off_by(TEN_YEARS);
}

#[test]
fn ten_years_behind() {
    off_by(-TEN_YEARS);
}
