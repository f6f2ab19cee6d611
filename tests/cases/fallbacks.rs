//! File systems whose renames have no flags: a second name and the removal of the first stand for "not over what is
//! there", two steps for an exchange. The same things must come out; only a reader may find nothing for a moment.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::*;

const NO_FLAGS: &str = "move.rename=errors;move.exchange=errors";

#[test]
fn everything_arrives_where_renames_have_no_flags() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.fallible("laptop"), lab.fallible("desktop"));
    for n in 0..40 {
        write(a.path(format!("d{}/{n}", n % 4)), format!("file {n}"));
    }
    symlink("d0/0", a.path("link")).unwrap();
    b.launch(NO_FLAGS);
    a.launch(NO_FLAGS);
    for device in [&a, &b] {
        eventually("it answers", LONG, || device.cmd(["status", "--json"]).code == 0);
    }
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    for (round, (from, to)) in [(&a, &b), (&b, &a)].into_iter().enumerate() {
        for n in 0..20 {
            write(
                from.path(format!("d{}/{n}", n % 4)),
                format!("file {n} in {round}"),
            );
        }
        fs::remove_file(from.path(format!("d0/{}", 20 + 4 * round))).unwrap();
        fs::rename(from.path("d1"), from.path("d5")).unwrap();
        fs::rename(from.path("d5"), from.path(format!("d1 {round}"))).unwrap();
        fs::rename(from.path(format!("d1 {round}")), from.path("d1")).unwrap();
        fs::rename(
            from.path(format!("d2/{}", 22 + 4 * round)),
            from.path(format!("moved {round}")),
        )
        .unwrap();
        fs::remove_file(from.path("link")).unwrap();
        symlink(format!("d{round}"), from.path("link")).unwrap();
        let wanted = snapshot(&from.folder);
        assert_converged(&[&a, &b]);
        assert_eq!(snapshot(&to.folder), wanted);
    }
    assert_eq!(a.field("conflicts"), 0);
    for device in [&a, &b] {
        assert_eq!(device.field("problems").to_string(), "[]");
        assert_eq!(fs::read_dir(device.path(".alike/tmp")).unwrap().count(), 0);
    }
}

/// Both have `file`, and the desktop's engine can be made to fail.
fn with_one_file() -> (Lab, Device, Device) {
    let lab = Lab::new();
    let (a, mut b) = (lab.running("laptop"), lab.fallible("desktop"));
    write(a.path("file"), "old");
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    (lab, a, b)
}

/// Somebody saves while the old version has been taken away and the new one is not there yet.
#[test]
fn a_save_between_the_two_steps_is_kept_and_kills_nothing() {
    let (_lab, a, mut b) = with_one_file();
    b.stop();
    let hold = Hold::new(&b);
    b.launch(&format!("{NO_FLAGS};move.steps={}", hold.action(1)));
    write(a.path("file"), "new");
    hold.reached("the first step");
    write(b.path("file"), "saved meanwhile");
    hold.release();
    eventually("it answers", LONG, || b.cmd(["status", "--json"]).code == 0);
    assert_converged(&[&a, &b]);
    let all = format!(
        "{:?}",
        names(&a.folder)
            .iter()
            .map(|name| text(a.path(name)))
            .collect::<Vec<_>>()
    );
    assert!(all.contains("saved meanwhile") && all.contains("new"), "{all}");
}

#[test]
fn a_death_between_the_two_steps_loses_nothing() {
    let (_lab, a, mut b) = with_one_file();
    for (round, point) in ["move.steps", "move.steps.put", "move.taken"]
        .into_iter()
        .enumerate()
    {
        b.stop();
        b.launch(&format!("{NO_FLAGS};{point}=kill"));
        write(a.path("file"), format!("new {round}"));
        eventually("it dies", LONG, || b.fell());
        b.launch(NO_FLAGS);
        eventually("it answers", LONG, || b.cmd(["status", "--json"]).code == 0);
        assert_converged(&[&a, &b]);
        assert_eq!(text(b.path("file")), format!("new {round}"));
        assert_eq!(a.field("conflicts"), 0);
    }
}
