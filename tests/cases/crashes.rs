//! An engine ends by SIGKILL at each of its fail points, on either side, and comes back: both folders are equal in
//! the end, nothing is missing, nothing is there twice. Pairing and edits in between have files of their own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::*;

/// The tests that share the points between them, each with a pair of devices of its own.
const SHARES: usize = 4;
/// In the second round a point kills at a random time up to this.
const LATEST: u64 = 12;

/// What it takes to come to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Changes on both sides.
    Changes,
    /// A clean stop.
    Stop,
    /// A crash in the middle of an apply before.
    Recovery,
    /// A big file of which a piece does not come.
    Notes,
    /// A file system that cannot exchange names.
    Steps,
    /// See `crashes_pairing`.
    Pairing,
    /// See `edited_meanwhile` and `open_files`.
    Edits,
    /// See `past`.
    Restore,
    /// See `identity`.
    Identity,
    /// See `repair`.
    Repair,
    /// See `gc`.
    Collect,
    /// See `clones`.
    Clone,
}

fn way(point: &str) -> Way {
    match point {
        "engine.stopping" | "engine.closed" => Way::Stop,
        "engine.settled" => Way::Identity,
        "fetch.big.note" | "fetch.big.noted" => Way::Notes,
        "move.away" | "move.steps" | "move.steps.put" => Way::Steps,
        "move.unexpected" | "move.open" | "move.swapped" | "move.back" | "recover.back" => Way::Edits,
        _ if point.starts_with("commit.restore") => Way::Restore,
        _ if point.starts_with("verify.") || point.starts_with("repair.") => Way::Repair,
        _ if point.starts_with("gc.") => Way::Collect,
        _ if point.starts_with("clone.") => Way::Clone,
        _ if point.starts_with("recover.") => Way::Recovery,
        _ if point.starts_with("pair.") || point.starts_with("track.") => Way::Pairing,
        _ => Way::Changes,
    }
}

/// One side's own part of the tree, of which only that side changes anything.
fn change(own: &Path, round: u64) {
    let now = |name: &str| own.join(format!("{name} {round}"));
    let before = |name: &str| own.join(format!("{name} {}", round.wrapping_sub(1)));
    let is_first = round == 0;
    // What both sides have need not cross the wire.
    let owner = own.file_name().unwrap().to_string_lossy();
    for n in 1..40 {
        write(own.join(format!("many/{n}")), format!("{n} in {round}, {owner}"));
    }
    // Its time is set before it is there: a change of the time alone is no event.
    let aside = own.with_file_name(format!("../{owner} aside"));
    write(&aside, format!("0 in {round}, {owner}"));
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + round, 123_456_789);
    let opened = fs::File::options().write(true).open(&aside).unwrap();
    opened.set_modified(long_ago).unwrap();
    fs::rename(&aside, own.join("many/0")).unwrap();
    write(own.join("big"), noise(&format!("{owner} {round}"), 2 << 20));
    write(now("new"), format!("new in {round}, {owner}"));
    fs::create_dir(now("hollow")).unwrap();
    if is_first {
        write(own.join("tool"), "the same");
    }
    set_mode(
        own.join("tool"),
        if round.is_multiple_of(2) { 0o755 } else { 0o644 },
    );
    if is_first {
        write(now("moved"), "the same, elsewhere");
        write(now("dir").join("deep/er"), "the same, with its directory");
        fs::create_dir_all(now("dir").join("empty")).unwrap();
        write(own.join("stays"), "never touched");
    } else {
        fs::remove_file(before("copied")).unwrap();
        fs::remove_file(before("new")).unwrap();
        fs::remove_dir(before("hollow")).unwrap();
        fs::rename(before("moved"), now("moved")).unwrap();
        fs::rename(before("dir"), now("dir")).unwrap();
    }
    fs::copy(own.join("stays"), now("copied")).unwrap();
    // A file, a directory with something in it and a link take turns, each at its own pace.
    for (name, kind) in [("one", round), ("two", round + 1), ("three", round + 2)] {
        let path = own.join(name);
        if !is_first && path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).unwrap();
        } else if !is_first {
            fs::remove_file(&path).unwrap();
        }
        match kind % 3 {
            0 => write(&path, format!("a file in {round}")),
            1 => write(path.join("inside"), format!("below in {round}")),
            _ => symlink(format!("{round}"), &path).unwrap(),
        }
    }
}

/// What one side has made: to be found on both, as it was made, and untouched on its own.
struct Made {
    part: &'static str,
    tree: BTreeMap<Vec<u8>, Node>,
    mtimes: BTreeMap<Vec<u8>, (i64, i64)>,
    inodes: BTreeMap<Vec<u8>, u64>,
}

fn make(device: &Device, part: &'static str, round: u64) -> Made {
    let own = device.path(part);
    change(&own, round);
    Made {
        part,
        tree: snapshot(&own),
        mtimes: mtimes(&own),
        inodes: inodes(&own),
    }
}

const LEFT: &str = "laptop's";
const RIGHT: &str = "desktop's";

struct Pair {
    left: Device,
    right: Device,
    round: u64,
    // Goes last.
    _lab: Lab,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new();
        let (mut left, mut right) = (lab.fallible("laptop"), lab.fallible("desktop"));
        change(&left.path(LEFT), 0);
        change(&right.path(RIGHT), 0);
        left.start();
        right.start();
        pair(&left, &right);
        assert_converged(&[&left, &right]);
        Self {
            _lab: lab,
            left,
            right,
            round: 0,
        }
    }

    fn side(&mut self, is_left: bool) -> &mut Device {
        if is_left { &mut self.left } else { &mut self.right }
    }

    /// Changes everything on both sides.
    fn change(&mut self) -> [Made; 2] {
        self.round += 1;
        [
            make(&self.left, LEFT, self.round),
            make(&self.right, RIGHT, self.round),
        ]
    }

    /// Returns when the engine of this side has killed itself; `false`: everything is in sync, and it lives.
    fn falls(&mut self, is_left: bool) -> bool {
        let (mut fell, mut calm) = (false, false);
        eventually("the engine falls, or all is in sync", LONG, || {
            fell = self.side(is_left).fell();
            calm = !fell
                && self.side(is_left).cmd(["wait", "--timeout", "5s"]).code == 0
                && snapshot(&self.left.folder) == snapshot(&self.right.folder);
            fell || calm
        });
        fell || self.side(is_left).fell()
    }

    /// Both run, and nothing may be wrong.
    fn check(&self, made: &[Made; 2]) {
        let (left, right) = (&self.left, &self.right);
        assert_converged(&[left, right]);
        assert_eq!(listed(&left.folder), [RIGHT, LEFT], "nothing beside");
        for (made, own) in made.iter().zip([left, right]) {
            for device in [left, right] {
                let there = device.path(made.part);
                let name = &device.name;
                assert_eq!(snapshot(&there), made.tree, "{} on the {name}", made.part);
                let times = mtimes(&there);
                let wrong: Vec<_> = made
                    .mtimes
                    .iter()
                    .filter(|(path, time)| times.get(*path) != Some(time))
                    .collect();
                assert!(
                    wrong.is_empty(),
                    "times of {} on the {name}: not {wrong:?}",
                    made.part
                );
            }
            let untouched = inodes(&own.path(made.part)) == made.inodes;
            assert!(untouched, "{}: written by its own side's engine", made.part);
        }
        for device in [left, right] {
            assert_eq!(device.field("conflicts"), 0, "on the {}", device.name);
            assert_eq!(device.field("problems"), serde_json::json!([]));
            let tmp = device.path(".alike/tmp");
            let empty = poll(LONG, || listed(&tmp).is_empty().then_some(()));
            assert!(empty.is_some(), "left in {}: {:?}", tmp.display(), listed(&tmp));
        }
    }

    /// Kills one side at a point and lets it come back. `false`: it never came to the point.
    fn kill_at(&mut self, point: &str, at: u64, is_left: bool, live: bool) -> bool {
        let side = if is_left { "laptop" } else { "desktop" };
        eprintln!("{point}, time {at}, on the {side}, live: {live}");
        let kill = format!("{point}=kill@{at}");
        self.side(is_left).kill();
        let mut made = None;
        if live {
            self.side(is_left).launch(&kill);
            made = Some(self.change());
        } else {
            made.get_or_insert_with(|| self.change());
            let plan = match way(point) {
                Way::Changes | Way::Stop => kill,
                Way::Recovery => {
                    self.side(is_left).launch("apply.item=kill@5");
                    assert!(self.falls(is_left), "to recover, it has to crash first");
                    kill
                }
                Way::Steps => format!("move.exchange=errors;move.rename=errors;{kill}"),
                Way::Notes
                | Way::Pairing
                | Way::Edits
                | Way::Restore
                | Way::Identity
                | Way::Repair
                | Way::Collect
                | Way::Clone => {
                    unreachable!("they are elsewhere")
                }
            };
            self.side(is_left).launch(&plan);
        }
        let made = made.expect("made in either case");
        let mut fell = self.falls(is_left);
        if !fell && way(point) == Way::Stop {
            self.side(is_left).ask_to_stop();
            eventually("it falls", LONG, || self.side(is_left).fell());
            fell = true;
        }
        if !fell {
            // It may come there yet.
            self.side(is_left).kill();
        }
        self.side(is_left).start();
        self.check(&made);
        fell
    }
}

/// Names in a directory, sorted, without alike's own.
fn listed(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".alike")
        .collect();
    names.sort();
    names
}

fn kill_at_share(share: usize) {
    let mut dice = Dice::new(&format!("crashes, share {share}"));
    let points = fail_points();
    let mut pair = Pair::new();
    for (n, point) in points.iter().enumerate() {
        match way(point) {
            Way::Changes | Way::Stop | Way::Recovery | Way::Steps if n % SHARES == share => {}
            _ => continue,
        }
        let is_left = dice.below(2) == 0;
        assert!(
            pair.kill_at(point, 1, is_left, false),
            "{point} was never reached"
        );
        if way(point) == Way::Changes {
            let at = 1 + dice.below(LATEST);
            let fell = pair.kill_at(point, at, !is_left, true);
            eprintln!("   fell: {fell}");
        }
    }
}

#[test]
fn killed_at_each_point_share_0() {
    kill_at_share(0);
}

#[test]
fn killed_at_each_point_share_1() {
    kill_at_share(1);
}

#[test]
fn killed_at_each_point_share_2() {
    kill_at_share(2);
}

#[test]
fn killed_at_each_point_share_3() {
    kill_at_share(3);
}

/// A file of two pieces, of which the second does not come at first: what has come is noted, and not fetched again.
#[test]
fn killed_while_it_notes_what_has_arrived_of_a_big_file() {
    for point in ["fetch.big.note", "fetch.big.noted"] {
        assert_eq!(way(point), Way::Notes);
        let mut pair = Pair::new();
        pair.right.kill();
        let big = noise("two pieces", 17 << 20);
        // All at once: of a file that grows, an earlier version may be what comes first.
        let aside = pair.left.corner.join("aside");
        write(&aside, &big);
        fs::rename(&aside, pair.left.path(LEFT).join("two pieces")).unwrap();
        pair.right
            .launch(&format!("fetch.big.piece=error@2;{point}=kill"));
        assert!(pair.falls(false), "{point} was never reached");
        pair.right.start();
        assert_converged(&[&pair.left, &pair.right]);
        assert_eq!(
            blake3::hash(&fs::read(pair.right.path(LEFT).join("two pieces")).unwrap()),
            blake3::hash(&big)
        );
        let received = pair.right.field("received_bytes").as_u64().unwrap();
        let whole = point == "fetch.big.note";
        assert_eq!(
            received >= 17 << 20,
            whole,
            "{point}: {received} bytes fetched again"
        );
    }
}

/// Notes that were left without their file, in whatever way, are not believed of the next one; nor is what notes say of
/// content that is not there.
#[test]
fn notes_of_a_big_file_that_are_wrong_cost_a_second_fetch() {
    for before in [true, false] {
        let mut pair = Pair::new();
        pair.right.kill();
        pair.right.launch("fetch.big.begin=kill");
        eventually("it has nothing to do", LONG, || {
            pair.right.cmd(["wait", "--timeout", "1s"]).code == 0
        });
        let big = noise("noted and gone", 3 << 20);
        let notes = format!(".alike/tmp/big-{}.have", blake3::hash(&big).to_hex());
        let note = |pair: &Pair| write(pair.right.path(&notes), vec![0xff; 24]);
        if before {
            note(&pair);
        }
        write(pair.left.path(LEFT).join("noted"), &big);
        assert!(pair.falls(false), "it was never begun");
        if !before {
            note(&pair);
        }
        pair.right.start();
        assert_converged(&[&pair.left, &pair.right]);
        assert!(fs::read(pair.right.path(LEFT).join("noted")).unwrap() == big);
    }
}

/// What people get has none of this in it.
#[test]
fn the_normal_binary_has_no_fail_points() {
    let holds = |binary: &Path, text: &str| {
        let bytes = fs::read(binary).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for text in ["ALIKE_FAIL", "move.exchanged", "no point is called"] {
        assert!(holds(&fail_binary(), text), "the test itself: {text}");
        assert!(!holds(&sync_binary(), text), "{text}");
    }
    let lab = Lab::new();
    let mut device = lab.device("laptop");
    device.set_env("ALIKE_FAIL", "engine.opened=kill");
    device.start();
    device.stop();
}

/// Each point has its test: here, or where its way says.
#[test]
fn each_way_to_a_point_is_gone() {
    let points = fail_points();
    let of = |wanted| points.iter().filter(|point| way(point) == wanted).count();
    assert_eq!((of(Way::Notes), of(Way::Edits), of(Way::Identity)), (2, 5, 1));
    assert_eq!((of(Way::Repair), of(Way::Clone)), (4, 2));
    assert!(of(Way::Changes) > 40 && of(Way::Recovery) == 6 && of(Way::Stop) == 2 && of(Way::Steps) == 3);
}
