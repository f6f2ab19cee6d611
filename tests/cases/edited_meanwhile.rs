//! Somebody changes a path at the very moment in which another device's change of it is applied: at each point of it,
//! in each way, and also when the engine dies right then. Both contents exist afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::harness::*;

/// How a file is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    /// Written over, as `cp` does.
    InPlace,
    /// Added to, as a log is.
    Append,
    /// Another file takes its name, as editors do.
    Rename,
    /// Removed and made again.
    Anew,
}

const EDITS: [Edit; 4] = [Edit::InPlace, Edit::Append, Edit::Rename, Edit::Anew];

impl Edit {
    /// Changes the file at `path`; returns what is in it then.
    fn make(self, path: &Path) -> String {
        let local = format!("local, {self:?}");
        match self {
            Edit::InPlace => fs::write(path, &local).unwrap(),
            Edit::Append => {
                let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
                file.write_all(local.as_bytes()).unwrap();
                return text(path);
            }
            Edit::Rename => {
                let new = path.with_extension("new");
                fs::write(&new, &local).unwrap();
                fs::rename(new, path).unwrap();
            }
            Edit::Anew => {
                let _ = fs::remove_file(path);
                fs::write(path, &local).unwrap();
            }
        }
        local
    }
}

/// What the other device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    Creates,
    Replaces,
    Removes,
}

/// What follows once the edit is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    Dies,
}

/// Points that a whole batch passes, in order: all of its files are in the same state there.
const BATCH: [&str; 6] = [
    "commit.merge",
    "commit.merge.done",
    "fetch.ready",
    "apply.begin",
    "apply.synced",
    "apply.intended",
];
const BATCH_AFTER: [&str; 3] = ["apply.moved", "apply.durable", "apply.committed"];

impl Remote {
    /// Where its whole batch passes, and where each of its files does.
    fn points(self) -> (Vec<&'static str>, &'static [&'static str]) {
        let has_content = self != Remote::Removes;
        let batch = BATCH.iter().chain(&BATCH_AFTER).copied();
        let batch = batch.filter(|point| has_content || *point != "apply.synced");
        let own: &[&str] = match self {
            Remote::Creates => &["apply.item", "move.create", "move.created", "apply.item.done"],
            Remote::Replaces => &[
                "apply.item",
                "move.replace",
                "move.exchange",
                "move.exchanged",
                "move.verified",
                "move.kept",
                "apply.item.done",
            ],
            Remote::Removes => &[
                "apply.item",
                "move.remove",
                "move.taken",
                "move.removed",
                "apply.item.done",
            ],
        };
        (batch.collect(), own)
    }
}

/// The laptop sends, the desktop receives and is edited. Each case has a directory of its own, with a file for each
/// way of editing.
struct Scene {
    laptop: Device,
    desktop: Device,
    remote: Remote,
    case: u64,
    // Goes last.
    _lab: Lab,
}

/// Directories made beforehand.
const CASES: u64 = 60;

impl Scene {
    fn new(remote: Remote) -> Self {
        let lab = Lab::new();
        let (mut laptop, mut desktop) = (lab.device("laptop"), lab.fallible("desktop"));
        for case in 0..CASES {
            write(
                laptop.path(format!("{case}/beside")),
                "so that the directory stays",
            );
            for edit in EDITS {
                if remote != Remote::Creates {
                    write(
                        laptop.path(format!("{case}/{edit:?}")),
                        format!("base {case} {edit:?}"),
                    );
                }
            }
        }
        laptop.start();
        desktop.start();
        pair(&laptop, &desktop);
        assert_converged(&[&laptop, &desktop]);
        Self {
            laptop,
            desktop,
            remote,
            case: 0,
            _lab: lab,
        }
    }

    fn edited_at(&mut self, point: &str, edits: &[Edit], then: Then) {
        let what = format!("{:?}, held at {point}, {edits:?}, {then:?}", self.remote);
        eprintln!("{what}");
        assert!(self.case < CASES, "make more");
        self.desktop.kill();
        let dir = self.case.to_string();
        self.case += 1;
        let theirs = |edit: &Edit| format!("remote {dir} {edit:?}");
        for edit in edits {
            let there = self.laptop.path(&dir).join(format!("{edit:?}"));
            match self.remote {
                Remote::Creates | Remote::Replaces => write(&there, theirs(edit)),
                Remote::Removes => fs::remove_file(&there).unwrap(),
            }
        }
        let hold = Hold::new(&self.desktop);
        self.desktop.launch(&format!("{point}={}", hold.action(1)));
        hold.reached(&what);
        let mut made = Vec::new();
        for edit in edits {
            let here = self.desktop.path(&dir).join(format!("{edit:?}"));
            let saw = text(&here);
            made.push(Made {
                edit: *edit,
                ours: edit.make(&here),
                seen: saw == theirs(edit),
                theirs: theirs(edit),
            });
        }
        match then {
            Then::GoesOn => hold.release(),
            Then::Dies => {
                self.desktop.kill();
                hold.release();
                self.desktop.start();
            }
        }
        assert_converged(&[&self.laptop, &self.desktop]);
        for made in made {
            self.check(&what, &self.laptop.path(&dir), &made, then);
        }
        for device in [&self.laptop, &self.desktop] {
            let tmp = device.path(".alike/tmp");
            let empty = poll(LONG, || contents(&tmp, "").is_empty().then_some(()));
            assert!(empty.is_some(), "{what}: {:?} is left", contents(&tmp, ""));
        }
    }

    /// Edited while it is held at a point before the move, and killed at points after it, one after the other.
    fn killed_while_undoing(&mut self, held: &str, plan: &str, deaths: &[&str], edit: Edit) {
        let what = format!("{:?}, {edit:?} at {held}, killed at {deaths:?}", self.remote);
        eprintln!("{what}");
        self.desktop.kill();
        let dir = self.case.to_string();
        self.case += 1;
        let name = format!("{edit:?}");
        let theirs = format!("remote {dir}");
        let there = self.laptop.path(&dir).join(&name);
        match self.remote {
            Remote::Creates | Remote::Replaces => write(there, &theirs),
            Remote::Removes => fs::remove_file(there).unwrap(),
        }
        let hold = Hold::new(&self.desktop);
        self.desktop
            .launch(&format!("{plan}{held}={};{}=kill", hold.action(1), deaths[0]));
        hold.reached(&what);
        let ours = edit.make(&self.desktop.path(&dir).join(&name));
        hold.release();
        eventually(&what, LONG, || self.desktop.fell());
        for death in &deaths[1..] {
            self.desktop.launch(&format!("{death}=kill"));
            eventually(&what, LONG, || self.desktop.fell());
        }
        self.desktop.start();
        assert_converged(&[&self.laptop, &self.desktop]);
        let made = Made {
            edit,
            ours,
            theirs,
            seen: false,
        };
        self.check(&what, &self.laptop.path(&dir), &made, Then::Dies);
    }

    /// Both devices are equal; what is in the directory of one of them?
    fn check(&self, what: &str, dir: &Path, made: &Made, then: Then) {
        let Made { ours, theirs, .. } = made;
        let name = format!("{:?}", made.edit);
        let live = contents(dir, &name);
        assert_eq!(
            &text(dir.join(&name)),
            ours,
            "{what}: the last edit keeps the path"
        );
        let wanted = match self.remote {
            // Modify wins, and there is nothing of theirs to keep.
            Remote::Removes => vec![ours],
            // The edit came after theirs, and is the newer version of the same file.
            _ if made.seen => vec![ours],
            _ => vec![ours, theirs],
        };
        let wanted: BTreeSet<String> = wanted.into_iter().cloned().collect();
        // Nobody can say after a crash whether the edit had seen theirs: then it may be kept beside it.
        let is_copy_fine = made.seen && then == Then::Dies && live.contains(theirs) && live.len() == 2;
        assert!(live == wanted || is_copy_fine, "{what}: {live:?}, not {wanted:?}");
        if self.remote != Remote::Removes {
            let both = [&self.laptop, &self.desktop];
            let is_kept = |device: &&Device| contents(&device.path(".alike/objects"), "").contains(theirs);
            assert!(
                live.contains(theirs) || both.iter().any(is_kept),
                "{what}: the remote content is nowhere"
            );
        }
    }
}

/// One edit, and what it met.
struct Made {
    edit: Edit,
    ours: String,
    theirs: String,
    /// Was theirs at the path when it was made?
    seen: bool,
}

/// The contents of the files below a directory whose names begin so.
fn contents(dir: &Path, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            found.extend(contents(&entry.path(), name));
        } else if entry.file_name().to_string_lossy().starts_with(name) {
            found.insert(text(entry.path()));
        }
    }
    found
}

fn edited_while_another_device(remote: Remote, then: Then) {
    let mut dice = Dice::new(&format!("edits, {remote:?}, {then:?}"));
    let mut scene = Scene::new(remote);
    let (batch, own) = remote.points();
    for point in batch {
        scene.edited_at(point, &EDITS, then);
    }
    for point in own {
        if remote == Remote::Replaces && then == Then::GoesOn {
            for edit in EDITS {
                scene.edited_at(point, &[edit], then);
            }
        } else {
            let edit = EDITS[dice.below(EDITS.len() as u64) as usize];
            scene.edited_at(point, &[edit], then);
        }
    }
}

/// Somebody saves between the look and the move, and the engine dies before it has undone its move: at that point, or
/// at a later one, or in the recovery, too.
#[test]
fn edited_just_before_a_move_and_a_crash_before_that_is_undone() {
    let mut scene = Scene::new(Remote::Replaces);
    for deaths in [
        &["move.unexpected"][..],
        &["move.swapped"],
        &["move.back"],
        &["move.unexpected", "recover.back"],
    ] {
        for edit in EDITS {
            scene.killed_while_undoing("move.exchange", "", deaths, edit);
        }
    }
    // Where names cannot be exchanged, the path is empty for a moment.
    for edit in [Edit::InPlace, Edit::Rename] {
        scene.killed_while_undoing("move.replace", "move.exchange=errors;", &["move.taken"], edit);
    }
    let mut scene = Scene::new(Remote::Removes);
    for edit in EDITS {
        scene.killed_while_undoing("move.remove", "", &["move.taken"], edit);
    }
}

#[test]
fn edited_while_another_device_replaces_it() {
    edited_while_another_device(Remote::Replaces, Then::GoesOn);
}

#[test]
fn edited_while_another_device_replaces_it_and_a_crash() {
    edited_while_another_device(Remote::Replaces, Then::Dies);
}

#[test]
fn edited_while_another_device_creates_it() {
    edited_while_another_device(Remote::Creates, Then::GoesOn);
}

#[test]
fn edited_while_another_device_creates_it_and_a_crash() {
    edited_while_another_device(Remote::Creates, Then::Dies);
}

#[test]
fn edited_while_another_device_removes_it() {
    edited_while_another_device(Remote::Removes, Then::GoesOn);
}

#[test]
fn edited_while_another_device_removes_it_and_a_crash() {
    edited_while_another_device(Remote::Removes, Then::Dies);
}
