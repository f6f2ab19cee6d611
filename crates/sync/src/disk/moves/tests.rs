//! The moves, alone and with somebody else at the same path.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::disk::tests::{Folder, folder, rel};
use alike_core::digest::Digest;

/// Does `act` at the next point of the next move.
pub(super) fn then(f: &Folder, act: impl FnOnce() + Send + 'static) {
    f.root.meanwhile.0.lock().unwrap().push_back(Box::new(act));
}

/// The same, where something has just got its second name and has not lost its first one.
fn then_between(f: &Folder, act: impl FnOnce() + Send + 'static) {
    f.root.between_names.0.lock().unwrap().push_back(Box::new(act));
}

/// With all calls, and with those of old kernels and other file systems.
fn all_ways(test: impl Fn(&Folder)) {
    for (no_replace, exchange) in [(true, true), (true, false), (false, false)] {
        let f = folder();
        f.root.ways.no_replace.store(no_replace, Ordering::Relaxed);
        f.root.ways.exchange.store(exchange, Ordering::Relaxed);
        test(&f);
    }
}

fn link(target: &[u8]) -> Value {
    Value::Symlink {
        target: target.into(),
    }
}

#[test]
fn create_puts_a_file_where_nothing_is() {
    all_ways(|f| {
        fs::create_dir(f.at("d")).unwrap();
        let print = f.root.create(&f.temp("new"), &rel("d/a")).unwrap();
        assert_eq!(print, f.print("d/a"));
        assert_eq!((print.size, print.mtime_ns), (3, 1_000_000_007));
        assert_eq!(f.get("d/a"), b"new");
        let temp = f.temp("newer");
        assert!(matches!(
            f.root.create(&temp, &rel("d/a")),
            Err(MoveError::Changed)
        ));
        assert!(matches!(
            f.root.create(&temp, &rel("none/a")),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("d/a"), b"new");
        f.root.create(&temp, &rel(b"d/\xff\n")).unwrap();
        let temp = f.root.temp_symlink(b"../x", 0).unwrap();
        f.root.create(&temp, &rel("link")).unwrap();
        assert_eq!(fs::read_link(f.at("link")).unwrap().as_os_str(), "../x");
        assert_eq!(f.temps(), 0);
    });
}

#[test]
fn replace_keeps_what_it_displaces() {
    all_ways(|f| {
        f.put("a", "old");
        fs::set_permissions(f.at("a"), fs::Permissions::from_mode(0o640)).unwrap();
        let print = f.root.replace(&f.temp("new"), &rel("a"), &f.expect("a")).unwrap();
        assert_eq!(print, f.print("a"));
        assert_eq!(f.get("a"), b"new");
        assert_eq!(f.object("old").unwrap(), b"old");
        // Who may read it is not ours to decide.
        assert_eq!(fs::metadata(f.at("a")).unwrap().mode() & 0o777, 0o640);

        let temp = f.root.temp_symlink(b"target", 0).unwrap();
        f.root.replace(&temp, &rel("a"), &f.expect("a")).unwrap();
        let expect = Expected {
            damaged: false,
            fingerprint: Some(f.print("a")),
            value: link(b"target"),
        };
        f.root.replace(&f.temp("file"), &rel("a"), &expect).unwrap();
        assert_eq!(f.get("a"), b"file");
        assert_eq!(f.temps(), 0);
    });
}

#[test]
fn what_mat_does_not_say_is_left_alone() {
    all_ways(|f| {
        f.put("a", "old");
        let expect = f.expect("a");
        f.put("a", "edit");
        let temp = f.temp("new");
        for gone in [false, true] {
            assert!(matches!(
                f.root.replace(&temp, &rel("a"), &expect),
                Err(MoveError::Changed)
            ));
            assert!(matches!(
                f.root.remove(&rel("a"), &expect),
                Err(MoveError::Changed)
            ));
            assert!(matches!(
                f.root.set_exec(&rel("a"), true, &expect),
                Err(MoveError::Changed)
            ));
            if !gone {
                assert_eq!(f.get("a"), b"edit");
                fs::remove_file(f.at("a")).unwrap();
            }
        }
        fs::create_dir(f.at("a")).unwrap();
        assert!(matches!(
            f.root.replace(&temp, &rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert!(matches!(
            f.root.remove(&rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.temps(), 1);
    });
}

#[test]
fn without_a_fingerprint_the_content_counts() {
    all_ways(|f| {
        f.put("a", "old");
        let expect = Expected {
            damaged: false,
            fingerprint: None,
            ..f.expect("a")
        };
        f.put("a", "odd");
        assert!(matches!(
            f.root.remove(&rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        f.put("a", "old");
        f.root.replace(&f.temp("new"), &rel("a"), &expect).unwrap();
        symlink("x", f.at("l")).unwrap();
        let expect = |target: &[u8]| Expected {
            damaged: false,
            fingerprint: None,
            value: link(target),
        };
        assert!(matches!(
            f.root.remove(&rel("l"), &expect(b"y")),
            Err(MoveError::Changed)
        ));
        f.root.remove(&rel("l"), &expect(b"x")).unwrap();
        assert!(f.object("old").is_some());
        assert_eq!(f.temps(), 0);
    });
}

#[test]
fn an_edit_in_the_middle_of_a_replace_stays() {
    all_ways(|f| {
        f.put("a", "old");
        let (expect, path) = (f.expect("a"), f.at("a"));
        then(f, move || fs::write(path, "edit").unwrap());
        let temp = f.temp("new");
        assert!(matches!(
            f.root.replace(&temp, &rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("a"), b"edit");
        assert_eq!(f.temps(), 1);
        f.root.replace(&temp, &rel("a"), &f.expect("a")).unwrap();
        assert_eq!(f.get("a"), b"new");
        assert!(f.object("edit").is_some());
    });
}

#[test]
fn a_save_by_rename_in_the_middle_of_a_replace_stays() {
    all_ways(|f| {
        f.put("a", "old");
        f.put("b", "saved");
        let (expect, from, to) = (f.expect("a"), f.at("b"), f.at("a"));
        then(f, move || fs::rename(from, to).unwrap());
        assert!(matches!(
            f.root.replace(&f.temp("new"), &rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("a"), b"saved");
    });
}

#[test]
fn two_saves_in_the_middle_of_a_replace_leave_the_second() {
    let f = folder();
    f.put("a", "old");
    f.put("b", "first");
    f.put("c", "second");
    let (expect, a, b, c) = (f.expect("a"), f.at("a"), f.at("b"), f.at("c"));
    let to = a.clone();
    then(&f, move || fs::rename(b, to).unwrap());
    then(&f, move || fs::rename(c, a).unwrap());
    assert!(matches!(
        f.root.replace(&f.temp("new"), &rel("a"), &expect),
        Err(MoveError::Changed)
    ));
    assert_eq!(f.get("a"), b"second");
    assert!(f.object("first").is_some());
    assert_eq!(f.temps(), 0);
}

#[test]
fn a_deletion_after_a_save_in_the_middle_of_a_replace_loses_nothing() {
    let f = folder();
    f.put("a", "old");
    let (expect, a, b) = (f.expect("a"), f.at("a"), f.at("a"));
    then(&f, move || fs::write(a, "edit").unwrap());
    then(&f, move || fs::remove_file(b).unwrap());
    assert!(matches!(
        f.root.replace(&f.temp("new"), &rel("a"), &expect),
        Err(MoveError::Changed)
    ));
    assert_eq!(f.get("a"), b"edit");
}

#[test]
fn what_is_written_into_ours_while_it_is_taken_back_is_kept() {
    let f = folder();
    f.put("a", "old");
    let (expect, a, b) = (f.expect("a"), f.at("a"), f.at("a"));
    then(&f, move || fs::write(a, "edit").unwrap());
    then(&f, move || fs::write(b, "edit of ours").unwrap());
    let temp = f.temp("new");
    assert!(matches!(
        f.root.replace(&temp, &rel("a"), &expect),
        Err(MoveError::Changed)
    ));
    assert_eq!(f.get("a"), b"edit");
    assert!(f.object("edit of ours").is_some());
    assert!(f.root.temp_named(&temp, false).is_err());
}

#[test]
fn a_deletion_in_the_middle_of_a_replace_stays() {
    all_ways(|f| {
        f.put("a", "old");
        let (expect, a) = (f.expect("a"), f.at("a"));
        then(f, move || fs::remove_file(a).unwrap());
        let temp = f.temp("new");
        assert!(matches!(
            f.root.replace(&temp, &rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert!(!f.at("a").exists());
        f.root.create(&temp, &rel("a")).unwrap();
    });
}

#[test]
fn a_directory_in_the_middle_of_a_replace_stays() {
    all_ways(|f| {
        f.put("a", "old");
        let (expect, a) = (f.expect("a"), f.at("a"));
        then(f, move || {
            fs::remove_file(&a).unwrap();
            fs::create_dir(&a).unwrap();
            fs::write(a.join("x"), "x").unwrap();
        });
        assert!(matches!(
            f.root.replace(&f.temp("new"), &rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("a/x"), b"x");
    });
}

#[test]
fn a_new_file_in_the_gap_of_a_replace_in_steps_stays() {
    let f = folder();
    f.root.ways.exchange.store(false, Ordering::Relaxed);
    f.put("a", "old");
    let (expect, a) = (f.expect("a"), f.at("a"));
    then(&f, || {});
    then(&f, move || fs::write(a, "saved").unwrap());
    assert!(matches!(
        f.root.replace(&f.temp("new"), &rel("a"), &expect),
        Err(MoveError::Displaced)
    ));
    assert_eq!(f.get("a"), b"saved");
    assert!(f.object("old").is_some());
}

#[test]
fn remove_keeps_and_spares_edits() {
    all_ways(|f| {
        f.put("a", "old");
        f.root.remove(&rel("a"), &f.expect("a")).unwrap();
        assert!(!f.at("a").exists());
        assert!(f.object("old").is_some());

        f.put("a", "old");
        let (expect, a) = (f.expect("a"), f.at("a"));
        then(f, move || fs::write(a, "edit").unwrap());
        assert!(matches!(
            f.root.remove(&rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("a"), b"edit");

        let (expect, a, b) = (f.expect("a"), f.at("a"), f.at("a"));
        then(f, move || fs::write(a, "second edit").unwrap());
        then(f, move || fs::write(b, "third edit").unwrap());
        assert!(matches!(
            f.root.remove(&rel("a"), &expect),
            Err(MoveError::Changed)
        ));
        assert_eq!(f.get("a"), b"third edit");
        assert!(f.object("second edit").is_some());
        assert_eq!(f.temps(), 0);
    });
}

#[test]
fn a_directory_swapped_for_a_link_is_not_written_through() {
    let f = folder();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a"), "theirs").unwrap();
    f.put("d/a", "mine");
    let expect = f.expect("d/a");
    fs::rename(f.at("d"), f.at("e")).unwrap();
    symlink(outside.path(), f.at("d")).unwrap();
    let temp = f.temp("new");
    assert!(matches!(
        f.root.replace(&temp, &rel("d/a"), &expect),
        Err(MoveError::Changed)
    ));
    assert!(matches!(
        f.root.create(&temp, &rel("d/b")),
        Err(MoveError::Changed)
    ));
    assert!(matches!(
        f.root.remove(&rel("d/a"), &expect),
        Err(MoveError::Changed)
    ));
    assert!(matches!(
        f.root.set_exec(&rel("d/a"), true, &expect),
        Err(MoveError::Changed)
    ));
    assert!(matches!(f.root.mkdir(&rel("d/c")), Err(MoveError::Changed)));
    assert!(matches!(f.root.rmdir(&rel("d/c")), Err(MoveError::Changed)));
    // Also in the very middle: what is open is the directory, wherever it is.
    fs::remove_file(f.at("d")).unwrap();
    fs::rename(f.at("e"), f.at("d")).unwrap();
    let (expect, d, e, out) = (f.expect("d/a"), f.at("d"), f.at("e"), outside.path().to_owned());
    then(&f, move || {
        fs::rename(&d, e).unwrap();
        symlink(out, d).unwrap();
    });
    f.root.replace(&temp, &rel("d/a"), &expect).unwrap();
    assert_eq!(f.get("e/a"), b"new");
    assert_eq!(fs::read(outside.path().join("a")).unwrap(), b"theirs");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn directories_come_and_go() {
    let f = folder();
    let print = f.root.mkdir(&rel("d")).unwrap();
    assert_eq!(f.root.mkdir(&rel("d")).unwrap().ino, print.ino);
    f.put("d/a", "x");
    assert!(matches!(f.root.mkdir(&rel("d/a")), Err(MoveError::Changed)));
    assert!(matches!(f.root.mkdir(&rel("e/f")), Err(MoveError::Changed)));
    assert!(matches!(f.root.rmdir(&rel("d")), Err(MoveError::NotEmpty)));
    assert!(matches!(f.root.rmdir(&rel("d/a")), Err(MoveError::Changed)));
    fs::remove_file(f.at("d/a")).unwrap();
    f.root.rmdir(&rel("d")).unwrap();
    f.root.rmdir(&rel("d")).unwrap();
    f.root.rmdir(&rel("d/e")).unwrap();
}

#[test]
fn exec_bits_follow_the_read_bits() {
    let f = folder();
    f.put("a", "x");
    fs::set_permissions(f.at("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let print = f.root.set_exec(&rel("a"), true, &f.expect("a")).unwrap();
    assert_eq!(print, f.print("a"));
    assert_eq!(print.mode & 0o777, 0o750);
    assert_eq!(f.root.set_exec(&rel("a"), true, &f.expect("a")).unwrap(), print);
    let print = f.root.set_exec(&rel("a"), false, &f.expect("a")).unwrap();
    assert_eq!(print.mode & 0o777, 0o640);
    // A replacement brings its own exec bit, and nothing else.
    let (temp, file) = f.root.temp_file().unwrap();
    Root::finish_temp(&file, true, 0).unwrap();
    f.root.replace(&temp, &rel("a"), &f.expect("a")).unwrap();
    assert_eq!(f.print("a").mode & 0o777, 0o750);
}

#[test]
fn killed_in_the_middle_everything_is_kept() {
    let f = folder();
    f.put("a", "old");
    // As a replace leaves it between its exchange and the objects.
    fs::rename(f.at("a"), f.at(".alike/tmp/aside-1")).unwrap();
    f.put("a", "new");
    f.root.clear_temps(|_| false).unwrap();
    f.root.keep_displaced(&Default::default()).unwrap();
    assert_eq!(f.object("old").unwrap(), b"old");
    assert_eq!(Digest::of(&f.get("a")), Digest::of(b"new"));
}

/// Found by the simulation: the file had been taken away for a moment, so that a directory could be made in its place.
#[test]
fn an_edit_whose_place_became_a_directory_meanwhile_is_beside_it() {
    all_ways(|f| {
        f.put("a.txt", "old");
        let expect = f.expect("a.txt");
        let (file, dir) = (f.at("a.txt"), f.at("a.txt"));
        then(f, move || fs::write(file, "edited").unwrap());
        then(f, move || fs::create_dir(dir).unwrap());
        let result = f.root.remove(&rel("a.txt"), &expect);
        assert!(matches!(result, Err(MoveError::Changed)), "{result:?}");
        assert!(f.at("a.txt").is_dir());
        let digest = Digest::of(b"edited").to_hex();
        let beside = format!("a (conflict {}).txt", &digest[..8]);
        assert_eq!(f.get(beside), b"edited");
        assert_eq!(f.temps(), 0);
    });
}

/// Where a file gets a second name and then loses its first one, somebody may save between the two.
#[test]
fn what_is_saved_while_the_old_version_is_taken_away_stays() {
    for replace in [false, true] {
        let f = folder();
        f.root.ways.no_replace.store(false, Ordering::Relaxed);
        f.root.ways.exchange.store(false, Ordering::Relaxed);
        f.put("a", "old");
        let expect = f.expect("a");
        let temp = f.temp("new");
        let (a, b) = (f.at("a"), f.at("b"));
        then_between(&f, move || {
            fs::write(&b, "saved").unwrap();
            fs::rename(&b, &a).unwrap();
        });
        if replace {
            let replaced = f.root.replace(&temp, &rel("a"), &expect);
            assert!(matches!(replaced, Err(MoveError::Displaced)), "{replaced:?}");
        } else {
            f.root.remove(&rel("a"), &expect).unwrap();
        }
        assert_eq!(f.get("a"), b"saved");
        assert_eq!(f.object("old").unwrap(), b"old");
    }
}

#[test]
fn a_directory_made_in_that_moment_goes_back_as_it_is() {
    let f = folder();
    f.root.ways.no_replace.store(false, Ordering::Relaxed);
    f.put("a", "old");
    let expect = f.expect("a");
    let a = f.at("a");
    then_between(&f, move || {
        fs::remove_file(&a).unwrap();
        fs::create_dir(&a).unwrap();
        fs::write(a.join("member"), "member").unwrap();
    });
    f.root.remove(&rel("a"), &expect).unwrap();
    assert_eq!(f.get("a/member"), b"member");
    assert_eq!(f.object("old").unwrap(), b"old");
}

#[test]
fn what_cannot_be_kept_at_once_is_kept_later() {
    let f = folder();
    f.put("a", "old");
    let hex = Digest::of(b"old").to_hex();
    let shard = format!(".alike/objects/{}", &hex[..2]);
    f.put(&shard, "in the way");
    f.root.remove(&rel("a"), &f.expect("a")).unwrap();
    f.root.keep_left();
    assert_eq!((f.temps(), f.at("a").exists()), (1, false));
    fs::remove_file(f.at(&shard)).unwrap();
    f.root.keep_left();
    assert_eq!(f.object("old").unwrap(), b"old");
    assert_eq!(f.temps(), 0);
}
