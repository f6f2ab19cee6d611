//! The decision table of the model, row by row: two replicas with the same base, one event each, merged both
//! ways; both show the expected, whichever side did what, and whichever clock is ahead where clocks do not decide.
//!
//! Rows that `core` alone cannot show, and that the engine's tests own: mtime only (never reaches core); holds
//! ignored or unreadable entries; unreadable, changing or newly ignored (frozen); marker or (device, inode) wrong,
//! or gone (frozen); more than 50 % or 1,000 files gone (held); a name that clashes or is illegal here, a special
//! file (not materialised).

mod common;

use alike_core::conflict::conflict_name;
use alike_core::observe::{Mat, Meaning, Seen, observe};
use alike_core::plan::{Op, plan};
use alike_core::record::Value;
use alike_core::view::Shown;
use common::{Batch, Replica, file, link, name, path, text};

const NOW: u64 = 1_700_000_000_000;
const YEAR: u64 = 365 * 24 * 3600 * 1000;
const CONTENTS: [&str; 6] = ["base", "other", "one", "two", "x", "y"];

type Event = fn(&mut Replica) -> Vec<Batch>;

/// Does it show exactly this, in whatever order?
fn shows(replica: &Replica, expected: &[&str]) {
    let mut lines = look(replica);
    lines.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(lines, expected);
}

/// `path=content`, `path=content*` (executable), `path->target` or `path/`, each.
fn look(replica: &Replica) -> Vec<String> {
    let line = |(at, item): (&_, &Shown)| match &item.value {
        Value::Dir => format!("{}/", text(at)),
        Value::Symlink { target } => format!("{}->{}", text(at), target.escape_ascii()),
        value => {
            let content = CONTENTS.iter().find(|c| file(c) == *value).expect("listed");
            format!("{}={content}{}", text(at), if item.is_exec() { "*" } else { "" })
        }
    };
    replica.shown().iter().map(line).collect()
}

/// Where the copy of `home` with this content is put.
fn copy(home: &str, value: &Value) -> String {
    let key = value.key().expect("contents have keys");
    String::from_utf8(conflict_name(&name(home), key, 8).as_bytes().to_vec()).expect("text")
}

fn write(replica: &mut Replica, at: &str, content: &str) -> Batch {
    let exec = replica.shown().get(&path(at)).is_some_and(Shown::is_exec);
    replica.write(&path(at), file(content), exec)
}

/// Two replicas with the same base, the second one's clock ahead by `skew` milliseconds (or behind).
fn pair(base: &[(&str, &str)], skew: i64) -> (Replica, Replica) {
    let mut a = Replica::new(1, NOW);
    let mut b = Replica::new(2, NOW.saturating_add_signed(skew));
    for (at, content) in base {
        let batch = write(&mut a, at, content);
        a.apply(&batch);
    }
    sync(&mut a, &mut b);
    (a, b)
}

fn sync(a: &mut Replica, b: &mut Replica) {
    let before = a.clone();
    a.pull(b);
    b.pull(&before);
    assert_eq!(a.state, b.state, "equal after one exchange");
    assert_eq!(a.summary(), b.summary());
}

fn happen(replica: &mut Replica, event: Event) {
    for batch in event(replica) {
        replica.apply(&batch);
    }
}

/// One row. `skew`: how far the clock of `remote` is ahead.
fn row_with(base: &[(&str, &str)], local: Event, remote: Event, skew: i64, expected: &[&str]) {
    for swapped in [false, true] {
        let (mut a, mut b) = pair(base, if swapped { -skew } else { skew });
        let (here, there) = if swapped {
            (&mut b, &mut a)
        } else {
            (&mut a, &mut b)
        };
        // The one whose clock is to win is `there`.
        if swapped {
            (here.now, there.now) = (NOW, NOW.saturating_add_signed(skew));
        }
        happen(here, local);
        happen(there, remote);
        sync(&mut a, &mut b);
        shows(&a, expected);
        shows(&b, expected);
    }
}

/// A row that clocks do not decide.
fn row(base: &[(&str, &str)], local: Event, remote: Event, expected: &[&str]) {
    for skew in [0, 5_000, -5_000, YEAR as i64, -(YEAR as i64)] {
        row_with(base, local, remote, skew, expected);
    }
}

const NOTHING: Event = |_| vec![];

#[test]
fn create_and_create_the_same_are_twins() {
    let create: Event = |r| vec![write(r, "a", "one")];
    row(&[], create, create, &["a=one"]);
    let (mut a, mut b) = pair(&[], 0);
    happen(&mut a, create);
    happen(&mut b, create);
    sync(&mut a, &mut b);
    assert_eq!(a.shown()[&path("a")].dots.len(), 2, "both dots are kept");
    // Deleting it kills both; deleting it where only one was known does not lose the other.
    happen(&mut a, |r| vec![r.delete(&path("a"))]);
    sync(&mut a, &mut b);
    assert!(look(&b).is_empty());
}

#[test]
fn create_and_create_differently_is_a_conflict() {
    let copy = format!("{}=one", copy("a", &file("one")));
    row_with(
        &[],
        |r| vec![write(r, "a", "one")],
        |r| vec![write(r, "a", "two")],
        5_000,
        &["a=two", &copy],
    );
}

#[test]
fn populated_folders_that_differ_make_conflict_copies_by_mtime() {
    let mut a = Replica::new(1, NOW);
    let mut b = Replica::new(2, NOW + YEAR);
    for (replica, other, mtime) in [(&mut a, "one", NOW - 1000), (&mut b, "two", NOW - 2000)] {
        let batch = replica.import(&path("same"), file("base"), false, mtime);
        replica.apply(&batch);
        let batch = replica.import(&path("a.txt"), file(other), false, mtime);
        replica.apply(&batch);
    }
    sync(&mut a, &mut b);
    let lost = copy("a.txt", &file("two"));
    shows(&a, &[&format!("{lost}=two"), "a.txt=one", "same=base"]);
}

#[test]
fn an_imported_twin_of_an_edited_base_makes_no_copy() {
    let mut a = Replica::new(1, NOW);
    let mut b = Replica::new(2, NOW);
    for replica in [&mut a, &mut b] {
        let batch = replica.import(&path("a"), file("base"), false, NOW - YEAR);
        replica.apply(&batch);
    }
    happen(&mut a, |r| vec![write(r, "a", "one")]);
    sync(&mut a, &mut b);
    assert_eq!(look(&b), ["a=one"]);
    // Only imports go so: two users who write the same and then differ are in conflict.
    let (mut a, mut b) = pair(&[], 0);
    for replica in [&mut a, &mut b] {
        happen(replica, |r| vec![write(r, "a", "base")]);
    }
    b.now += 5_000;
    happen(&mut b, |r| vec![write(r, "a", "one")]);
    sync(&mut a, &mut b);
    shows(&a, &[&format!("{}=base", copy("a", &file("base"))), "a=one"]);
}

#[test]
fn modify_propagates() {
    row(
        &[("a", "base")],
        |r| vec![write(r, "a", "one")],
        NOTHING,
        &["a=one"],
    );
}

#[test]
fn modify_and_modify_the_same_are_twins() {
    let modify: Event = |r| vec![write(r, "a", "one")];
    row(&[("a", "base")], modify, modify, &["a=one"]);
}

#[test]
fn modify_and_modify_differently_is_a_conflict() {
    let copy = format!("{}=one", copy("a.txt", &file("one")));
    row_with(
        &[("a.txt", "base")],
        |r| vec![write(r, "a.txt", "one")],
        |r| vec![write(r, "a.txt", "two")],
        5_000,
        &["a.txt=two", &copy],
    );
}

#[test]
fn delete_propagates() {
    row(&[("a", "base")], |r| vec![r.delete(&path("a"))], NOTHING, &[]);
}

#[test]
fn delete_and_delete_is_nothing() {
    let delete: Event = |r| vec![r.delete(&path("a"))];
    row(&[("a", "base"), ("b", "x")], delete, delete, &["b=x"]);
}

#[test]
fn modify_wins_over_delete_without_a_copy() {
    row(
        &[("a", "base")],
        |r| vec![r.delete(&path("a"))],
        |r| vec![write(r, "a", "one")],
        &["a=one"],
    );
}

#[test]
fn exec_only_and_modify_are_both_kept() {
    row(
        &[("a", "base")],
        |r| vec![r.chmod(&path("a"), true)],
        |r| vec![write(r, "a", "one")],
        &["a=one*"],
    );
}

#[test]
fn delete_wins_over_exec_only() {
    row(
        &[("a", "base")],
        |r| vec![r.chmod(&path("a"), true)],
        |r| vec![r.delete(&path("a"))],
        &[],
    );
}

#[test]
fn a_directory_keeps_the_name_and_the_file_is_a_copy() {
    let copy = format!("{}=one", copy("d", &file("one")));
    row(
        &[],
        |r| vec![write(r, "d", "one")],
        |r| vec![write(r, "d/x", "two")],
        &["d/", "d/x=two", &copy],
    );
    row(
        &[],
        |r| vec![write(r, "d", "one")],
        |r| vec![r.write(&path("d"), Value::Dir, false)],
        &["d/", &copy],
    );
}

#[test]
fn a_file_becomes_a_directory_while_it_is_modified() {
    let copy = format!("{}=one", copy("a", &file("one")));
    row(
        &[("a", "base")],
        |r| vec![write(r, "a/x", "two")],
        |r| vec![write(r, "a", "one")],
        &["a/", "a/x=two", &copy],
    );
    row(
        &[("a", "base")],
        |r| vec![r.write(&path("a"), Value::Dir, false)],
        |r| vec![write(r, "a", "one")],
        &["a/", &copy],
    );
}

#[test]
fn a_file_becomes_a_symlink_while_it_is_modified() {
    let become_link: Event = |r| vec![r.write(&path("a"), link("there"), false)];
    let modify: Event = |r| vec![write(r, "a", "one")];
    let file_copy = format!("{}=one", copy("a", &file("one")));
    let link_copy = format!("{}->there", copy("a", &link("there")));
    row_with(
        &[("a", "base")],
        modify,
        become_link,
        5_000,
        &["a->there", &file_copy],
    );
    row_with(
        &[("a", "base")],
        become_link,
        modify,
        5_000,
        &["a=one", &link_copy],
    );
}

#[test]
fn a_removed_directory_survives_with_only_the_child_created_or_edited() {
    let base = [("d/x", "x"), ("d/y", "y"), ("d/e/z", "other")];
    let remove: Event = |r| vec![r.delete(&path("d"))];
    row(
        &base,
        remove,
        |r| vec![write(r, "d/new", "one")],
        &["d/", "d/new=one"],
    );
    row(
        &base,
        remove,
        |r| vec![write(r, "d/x", "one")],
        &["d/", "d/x=one"],
    );
    row(
        &base,
        remove,
        |r| vec![write(r, "d/e/z", "one")],
        &["d/", "d/e/", "d/e/z=one"],
    );
    row(&base, remove, NOTHING, &[]);
}

#[test]
fn a_directory_becomes_a_file_while_a_child_is_created_or_edited() {
    let base = [("d/x", "x"), ("d/y", "y")];
    let become_file: Event = |r| vec![write(r, "d", "one")];
    let copy = format!("{}=one", copy("d", &file("one")));
    row(
        &base,
        become_file,
        |r| vec![write(r, "d/new", "two")],
        &["d/", "d/new=two", &copy],
    );
    row(
        &base,
        become_file,
        |r| vec![write(r, "d/x", "two")],
        &["d/", "d/x=two", &copy],
    );
    row(&base, become_file, NOTHING, &["d=one"]);
}

#[test]
fn a_move_and_an_edit_of_the_old_place_are_both_kept() {
    row(
        &[("a", "base")],
        |r| vec![r.rename(&path("a"), &path("b"))],
        |r| vec![write(r, "a", "one")],
        &["a=one", "b=base"],
    );
}

#[test]
fn two_moves_of_one_file_are_both_kept() {
    row(
        &[("a", "base")],
        |r| vec![r.rename(&path("a"), &path("b"))],
        |r| vec![r.rename(&path("a"), &path("c"))],
        &["b=base", "c=base"],
    );
}

#[test]
fn a_moved_directory_and_an_edit_in_the_old_one() {
    row(
        &[("d/x", "x"), ("d/y", "y")],
        |r| vec![r.rename(&path("d"), &path("e"))],
        |r| vec![write(r, "d/x", "one")],
        &["d/", "d/x=one", "e/", "e/x=x", "e/y=y"],
    );
}

#[test]
fn directories_moved_into_each_other_make_no_cycle() {
    row(
        &[("a/x", "x"), ("b/y", "y")],
        |r| vec![r.rename(&path("a"), &path("b/a"))],
        |r| vec![r.rename(&path("b"), &path("a/b"))],
        &["a/", "a/b/", "a/b/y=y", "b/", "b/a/", "b/a/x=x"],
    );
}

/// A device whose disk still is at the base, while its HEAD has the remote edit.
fn not_applied_yet() -> (Replica, Replica, Mat) {
    let (mut a, mut b) = pair(&[("a", "base")], 5_000);
    let shown = a.shown().remove(&path("a")).expect("it is there");
    let mat = Mat {
        value: shown.value,
        exec: false,
        dots: shown.dots,
    };
    happen(&mut b, |r| vec![write(r, "a", "two")]);
    a.pull(&b);
    (a, b, mat)
}

#[test]
fn an_edit_while_a_newer_head_is_not_applied_is_a_conflict() {
    let (mut a, mut b, mat) = not_applied_yet();
    let seen = Seen {
        value: file("one"),
        exec: false,
    };
    let head = a.shown().remove(&path("a"));
    assert_eq!(
        observe(Some(&seen), Some(&mat), head.as_ref(), false),
        Meaning::Write
    );
    // As the scan does: only what was on disk is replaced.
    let mut batch = write(&mut a, "a", "one");
    batch.kill = mat.dots.iter().map(|&d| (path("a"), d)).collect();
    a.apply(&batch);
    sync(&mut a, &mut b);
    let copy = copy("a", &file("two"));
    shows(&a, &[&format!("{copy}=two"), "a=one"]);
}

#[test]
fn a_delete_while_a_newer_head_is_not_applied_leaves_the_newer() {
    let (mut a, mut b, mat) = not_applied_yet();
    let head = a.shown().remove(&path("a"));
    assert_eq!(observe(None, Some(&mat), head.as_ref(), false), Meaning::Forget);
    sync(&mut a, &mut b);
    assert_eq!(look(&a), ["a=two"]);
    assert_eq!(plan(a.shown().get(&path("a")), None), Op::Create);
}

#[test]
fn findings_mean_what_they_should() {
    let (a, b) = (Replica::new(1, NOW), Replica::new(2, NOW));
    let shown = |mut replica: Replica, value: Value, exec: bool| {
        let batch = replica.write(&path("a"), value, exec);
        replica.apply(&batch);
        replica.shown().remove(&path("a")).expect("written")
    };
    let (old, new) = (shown(a.clone(), file("one"), false), shown(b, file("two"), true));
    let mat = |s: &Shown| Mat {
        value: s.value.clone(),
        exec: s.is_exec(),
        dots: s.dots.clone(),
    };
    let seen = |value: Value, exec: bool| Seen { value, exec };
    let mean = |seen: Option<Seen>, m: Option<&Shown>, head: Option<&Shown>| {
        let lives = m.zip(head).is_some_and(|(m, h)| m.dots == h.dots);
        observe(seen.as_ref(), m.map(mat).as_ref(), head, lives)
    };
    let (old, new) = (Some(&old), Some(&new));
    let (same, exec) = (seen(file("one"), false), seen(file("one"), true));
    let (ahead, other) = (seen(file("two"), true), seen(file("x"), false));
    for head in [None, old, new] {
        assert_eq!(mean(Some(same.clone()), old, head), Meaning::Nothing);
        assert_eq!(mean(Some(exec.clone()), old, head), Meaning::Exec);
        assert_eq!(mean(Some(other.clone()), old, head), Meaning::Write);
        assert_eq!(mean(Some(other.clone()), None, head), Meaning::Write);
        assert_eq!(mean(Some(seen(Value::Dir, false)), old, head), Meaning::Write);
        assert_eq!(mean(None, None, head), Meaning::Nothing);
    }
    for base in [None, old] {
        assert_eq!(mean(Some(ahead.clone()), base, new), Meaning::Adopt);
        assert_eq!(mean(Some(ahead.clone()), base, old), Meaning::Write);
    }
    assert_eq!(mean(Some(same), None, old), Meaning::Adopt);
    assert_eq!(mean(None, old, old), Meaning::Delete);
    assert_eq!(mean(None, old, new), Meaning::Forget);
}

#[test]
fn plans_do_what_they_should() {
    let kinds = [file("one"), file("two"), link("there"), Value::Dir];
    let shown = |value: &Value, exec: bool| {
        let mut replica = Replica::new(1, NOW);
        let batch = replica.write(&path("a"), value.clone(), exec);
        replica.apply(&batch);
        replica.shown().remove(&path("a")).expect("written")
    };
    let mat = |value: &Value| Mat {
        value: value.clone(),
        exec: false,
        dots: Vec::new(),
    };
    for (i, head) in kinds.iter().enumerate() {
        let is_dir = *head == Value::Dir;
        let made = if is_dir { Op::Mkdir } else { Op::Create };
        assert_eq!(plan(Some(&shown(head, false)), None), made);
        let gone = if is_dir { Op::Rmdir } else { Op::Remove };
        assert_eq!(plan(None, Some(&mat(head))), gone);
        for (j, old) in kinds.iter().enumerate() {
            let expected = match (i == j, is_dir, *old == Value::Dir) {
                (true, _, _) => Op::Adopt,
                (_, true, _) => Op::RemoveThenMkdir,
                (_, _, true) => Op::RmdirThenCreate,
                _ => Op::Replace,
            };
            assert_eq!(plan(Some(&shown(head, false)), Some(&mat(old))), expected);
        }
    }
    let exec = shown(&file("one"), true);
    assert_eq!(plan(Some(&exec), Some(&mat(&file("one")))), Op::SetExec);
    assert_eq!(plan(Some(&exec), Some(&mat(&file("two")))), Op::Replace);
    assert_eq!(plan(None, None), Op::Nothing);
}
