//! Full disks: of the folder, of the state directory, on either side. Nobody's files suffer, and it goes on when
//! there is room.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::*;

const MIB: usize = 1 << 20;

/// `laptop` shares a folder; `desktop` is not started.
fn two(lab: &Lab) -> (Device, Device) {
    let a = lab.device("laptop");
    let b = lab.device("desktop");
    fs::create_dir(&a.folder).unwrap();
    (a, b)
}

#[track_caller]
fn says(device: &Device, what: &str) {
    eventually(what, LONG, || {
        let out = device.cmd(["status", "--json"]);
        out.code == 0 && out.stdout.contains(what)
    });
}

#[test]
fn a_full_disk_of_the_receiving_folder() {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 24 * 1024) else {
        return;
    };
    let (mut a, mut b) = two(&lab);
    b.folder = lab.path("disk/docs");
    for n in 0..40 {
        write(a.path(format!("some/{n}")), noise(&format!("some {n}"), MIB / 4));
    }
    write(a.path("big"), noise("big", 30 * MIB));
    let before = (snapshot(&a.folder), mtimes(&a.folder));
    a.start();
    b.start();
    pair(&a, &b);
    says(&b, "too little room");
    eventually("what fits is there", LONG, || names(&b.path("some")).len() == 40);
    assert!(!b.path("big").exists());
    b.fails(["wait", "--timeout", "1s"], 3, &["too little room"]);
    assert!(b.field("problems").to_string().contains("free some space for"));
    // Small things still arrive, and deletions; and the sender's folder is what it was.
    write(a.path("late"), "small");
    eventually("small files go on", LONG, || b.path("late").exists());
    fs::remove_file(a.path("late")).unwrap();
    eventually("so do deletions", LONG, || !b.path("late").exists());
    assert_eq!((snapshot(&a.folder), mtimes(&a.folder)), before);

    disk.resize(128 * 1024);
    assert_converged(&[&a, &b]);
    assert_eq!((snapshot(&a.folder), mtimes(&a.folder)), before);
    assert_eq!(b.field("conflicts"), 0);
    assert_eq!(b.field("problems").as_array().expect("a list").len(), 0);
}

/// Most of it has come, and then there is less room than it has bytes: what is there already needs no more.
#[test]
fn a_big_file_that_is_nearly_there_is_fetched_to_its_end() {
    let lab = Lab::new();
    let Some(_disk) = Tmpfs::new(lab.path("disk"), 64 * 1024) else {
        return;
    };
    let (mut a, mut b) = (lab.device("laptop"), lab.fallible("desktop"));
    b.folder = lab.path("disk/docs");
    write(a.path("small"), "small");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    b.stop();
    // All at once: of a file that grows, an earlier version may be what comes first.
    write(a.corner.join("aside"), noise("big", 42 * MIB));
    fs::rename(a.corner.join("aside"), a.path("big")).unwrap();
    // The third of three pieces does not come, and what has come is noted.
    b.launch("fetch.big.piece=error@3;fetch.big.noted=kill");
    eventually("most of it has come", LONG, || b.fell());
    // Less, if the connection was replaced by the other side's meanwhile.
    let tmp = b.path(".alike/tmp");
    let arrived: u64 = names(&tmp)
        .iter()
        .map(|name| 512 * fs::metadata(tmp.join(name)).unwrap().blocks())
        .sum();
    assert!(arrived > 0, "nothing has come");
    b.start();
    assert_converged(&[&a, &b]);
    let received = b.field("received_bytes").as_u64().expect("a number");
    assert!(
        received + arrived < 46 << 20,
        "{received} bytes although {arrived} were there"
    );
}

#[test]
fn a_disk_that_others_fill_to_the_last_byte() {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 24 * 1024) else {
        return;
    };
    let (mut a, mut b) = two(&lab);
    b.folder = lab.path("disk/docs");
    write(a.path("x"), "before");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    // Until nothing more goes: not one block is left, for anybody.
    let filler = lab.path("disk/filler");
    let filled = fs::write(&filler, vec![1; 32 * MIB]);
    assert!(filled.is_err(), "the disk is full");
    for n in 0..30 {
        write(a.path(format!("new/{n}")), noise(&format!("{n}"), 20_000));
    }
    write(a.path("x"), "after, and longer than before");
    says(&b, "too little room");
    assert_eq!(text(b.path("x")), "before");
    assert_eq!(text(a.path("x")), "after, and longer than before");
    fs::remove_file(&filler).unwrap();
    assert_converged(&[&a, &b]);
    assert_eq!(b.field("conflicts"), 0);
    drop(b);
    drop(disk);
}

/// Many files, which need room in the database.
fn many(a: &Device, count: u32) {
    for n in 0..count {
        write(
            a.path(format!("d{}/a name that takes some room {n}", n % 30)),
            n.to_string(),
        );
    }
}

/// Which side's state directory is on the small disk.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Sending,
    Receiving,
}

fn a_full_disk_of_a_state_directory(side: Side) {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 6 * 1024) else {
        return;
    };
    let (mut a, mut b) = two(&lab);
    let full = if side == Side::Sending { &mut a } else { &mut b };
    full.home = lab.path("disk/state");
    many(&a, 12_000);
    let before = (snapshot(&a.folder), mtimes(&a.folder));
    a.start();
    b.start();
    pair(&a, &b);
    let full = if side == Side::Sending { &a } else { &b };
    says(full, "free for the database");
    assert_eq!(full.field("state"), "error");
    full.fails(["wait", "--timeout", "1s"], 3, &["free"]);
    assert_eq!((snapshot(&a.folder), mtimes(&a.folder)), before);
    disk.resize(256 * 1024);
    // It may be about to open its database again: then nobody answers for five seconds.
    eventually("it goes on", LONG, || {
        full.cmd(["wait", "--timeout", "10s"]).code == 0
    });
    assert_converged(&[&a, &b]);
    assert_eq!((snapshot(&a.folder), mtimes(&a.folder)), before);
    let full = if side == Side::Sending { &mut a } else { &mut b };
    assert_eq!(full.field("conflicts"), 0);
    full.restart();
    assert_converged(&[&a, &b]);
}

#[test]
fn a_full_disk_of_the_receiving_state_directory() {
    a_full_disk_of_a_state_directory(Side::Receiving);
}

#[test]
fn a_full_disk_of_the_sending_state_directory() {
    a_full_disk_of_a_state_directory(Side::Sending);
}

/// There is room when a merge begins, and not for all of it. Nothing else happens in the folder that would find out.
#[test]
fn a_merge_that_takes_the_last_byte_is_done_when_there_is_room() {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 12 * 1024) else {
        return;
    };
    let (mut a, mut b) = two(&lab);
    b.home = lab.path("disk/state");
    many(&a, 20_000);
    a.start();
    b.start();
    // All of it is announced at once.
    a.share();
    eventually("it is scanned", LONG, || a.log_tail().contains("20000 files in"));
    // A quarter of a small disk is left for what must be written.
    let reserve = 3 * MIB;
    let free = {
        let fs = rustix::fs::statvfs(lab.path("disk")).unwrap();
        (fs.f_bavail * fs.f_frsize) as usize
    };
    fs::write(lab.path("disk/filler"), vec![1; free - reserve - MIB / 4]).unwrap();
    pair(&a, &b);
    eventually("the disk gives out in the middle", LONG, || {
        b.log_tail().contains("no room left for the database")
    });
    fs::remove_file(lab.path("disk/filler")).unwrap();
    disk.resize(256 * 1024);
    // It may be about to open its database again.
    eventually("it goes on", LONG, || {
        b.cmd(["wait", "--timeout", "10s"]).code == 0
    });
    assert_converged(&[&a, &b]);
    drop(b);
    drop(disk);
}

#[test]
fn a_database_whose_disk_gives_out_in_the_middle_is_opened_again() {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 64 * 1024) else {
        return;
    };
    let (mut a, mut b) = two(&lab);
    a.home = lab.path("disk/state");
    write(a.path("first"), "x");
    a.start();
    b.start();
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    // Others take the last byte: also what is small and may use the reserve fails.
    let _ = fs::write(lab.path("disk/filler"), vec![1; 80 * MIB]);
    for n in 0..300 {
        write(a.path(format!("more/{n}")), n.to_string());
    }
    says(&a, "free for the database");
    // The database may have free pages: these go first, by rows that stay.
    eventually("a write fails", LONG, || {
        let refused = a.cmd(["share".as_ref(), a.folder.as_os_str()]);
        refused.code != 0 && refused.stderr.contains("free some space")
    });
    fs::remove_file(lab.path("disk/filler")).unwrap();
    // The engine is away for a moment.
    eventually("in sync again", LONG, || {
        a.cmd(["wait", "--timeout", "5s"]).code == 0
    });
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.path("more")).len(), 300);
    drop(a);
    drop(disk);
}

#[test]
fn an_engine_does_not_start_without_room() {
    let lab = Lab::new();
    let Some(_disk) = Tmpfs::new(lab.path("disk"), 24) else {
        return;
    };
    let mut a = lab.device("laptop");
    a.home = lab.path("disk/state");
    let out = a.cmd(["watch"]);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert!(out.stderr.contains("free some space"), "{}", out.stderr);
}

/// Others take the last byte in the moment before the database is compacted: nothing is lost, it goes on, and is compacted
/// when there is room.
#[test]
fn a_database_whose_disk_is_full_when_it_is_compacted() {
    let lab = Lab::new();
    let Some(disk) = Tmpfs::new(lab.path("disk"), 96 * 1024) else {
        return;
    };
    let (mut a, mut b) = (lab.fallible("laptop"), lab.device("desktop"));
    fs::create_dir(&a.folder).unwrap();
    a.home = lab.path("disk/state");
    many(&a, 4_000);
    let held = Hold::new(&a);
    a.launch(&format!("gc.compact={}", held.action(1)));
    b.start();
    eventually("it answers", LONG, || a.cmd(["status"]).code == 0);
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    let (was, then) = (copy_of(&a, lab.path("was")), generation(&a));
    a.ok(["pin", &then]);
    let edit = |round: &str| {
        (0..30).for_each(|n| write(a.path(format!("d{n}/edited")), round));
        settle(&[&a, &b]);
    };
    let database = || fs::metadata(a.home.join("alike.redb")).unwrap().len();
    edit("once");
    edit("twice");
    let filler = lab.path("disk/filler");
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| a.cmd(["gc", "--keep", "1"]));
        held.reached("the database is about to be compacted");
        assert!(
            fs::write(&filler, vec![1; 128 * MIB]).is_err(),
            "the disk is full"
        );
        held.release();
        // What nobody needs has gone, and the database stays as large as it is.
        assert_eq!(collecting.join().unwrap().code, 0);
    });
    let full = database();
    fs::remove_file(&filler).unwrap();
    eventually("in sync again", LONG, || {
        a.cmd(["wait", "--timeout", "5s"]).code == 0
    });
    edit("three times");
    json(&a, &["gc", "--keep", "1"]);
    assert!(database() < full, "{} of {full}", database());
    assert_converged(&[&a, &b]);
    assert_was(&lab, &a, &then, &was);
    a.ok(["verify"]);
    drop(a);
    drop(disk);
}
