//! Somebody reads a file in a tight loop while another device overwrites it: it is always there, always whole, and
//! never goes back in time. Also while the receiving engine is killed again and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::*;

/// Files that are overwritten, and readers that each look at all of them in turn without a pause.
const FILES: u64 = 100;
const READERS: usize = 2;
/// Overwrites seen by readers, unless `ALIKE_TEST_OVERWRITES` asks for more (`cargo xtask readers`: 10,000).
const OVERWRITES: u64 = 400;
/// Kills of the receiver meanwhile, unless `ALIKE_TEST_KILLS` asks for more (the same: 50).
const KILLS: u64 = 4;

fn asked(variable: &str, or: u64) -> u64 {
    std::env::var(variable).map_or(or, |text| text.parse().expect("a number"))
}

/// A version of a file: its number, then enough of the same that half of another one would show.
fn version(file: u64, number: u64) -> String {
    let line = format!("file {file} version {number}\n");
    line.repeat(200 + (number % 50) as usize)
}

/// Reads until it is told to stop; returns how often it did.
fn read(paths: &[PathBuf], latest: &[AtomicU64], stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        for (file, (path, latest)) in (0..).zip(paths.iter().zip(latest)) {
            let least = latest.load(Ordering::Relaxed);
            let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let line = text.lines().next().unwrap_or_default();
            let number = line.rsplit(' ').next().unwrap_or_default();
            let number: u64 = number
                .parse()
                .unwrap_or_else(|_| panic!("no version: {line:?} of {} bytes", text.len()));
            assert!(text == version(file, number), "a mixture, beginning as {number}");
            assert!(number >= least, "version {number} after {least}");
            latest.fetch_max(number, Ordering::Relaxed);
            looks += 1;
        }
    }
    looks
}

/// Overwrites on the sender, each once the one before has been seen by the receiver's readers; `meanwhile` gets the
/// receiver after each.
fn overwritten(
    sender: &Device,
    receiver: &mut Device,
    enough: impl Fn(u64) -> bool,
    mut meanwhile: impl FnMut(&mut Device, u64),
) {
    let latest: Vec<AtomicU64> = (0..FILES).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let paths: Vec<_> = (0..FILES).map(|file| receiver.path(file.to_string())).collect();
    let started = Instant::now();
    let (mut number, mut looks) = (0, 0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| read(&paths, &latest, &stop)))
            .collect();
        // Whatever goes wrong here, the readers end.
        let ends = Ends(&stop);
        let mut count = 0;
        while !enough(count) {
            number += 1;
            for file in 0..FILES {
                // As an editor saves: the sender's own readers must see no half either.
                let aside = sender.corner.join("aside");
                write(&aside, version(file, number));
                fs::rename(&aside, sender.path(file.to_string())).unwrap();
            }
            meanwhile(receiver, number);
            eventually(&format!("version {number} is seen"), LONG, || {
                assert!(readers.iter().all(|r| !r.is_finished()), "a reader has failed");
                latest.iter().all(|l| l.load(Ordering::Relaxed) == number)
            });
            count += FILES;
        }
        drop(ends);
        looks = readers
            .into_iter()
            .map(|reader| reader.join().expect("the reader saw nothing wrong"))
            .sum();
    });
    eprintln!(
        "{} overwrites, {looks} looks, in {:?}",
        number * FILES,
        started.elapsed()
    );
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn fill(dir: &Path) {
    for file in 0..FILES {
        write(dir.join(file.to_string()), version(file, 0));
    }
}

#[test]
fn a_reader_sees_every_overwrite_whole() {
    let (_lab, a, mut b) = paired(fill);
    let wanted = asked("ALIKE_TEST_OVERWRITES", OVERWRITES);
    overwritten(&a, &mut b, |count| count >= wanted, |_, _| {});
    assert_converged(&[&a, &b]);
    assert_eq!(names(&b.folder).len(), FILES as usize);
}

#[test]
fn a_reader_sees_every_overwrite_whole_while_the_receiver_is_killed() {
    let mut dice = Dice::new("readers");
    let (_lab, a, mut b) = paired(fill);
    let kills = asked("ALIKE_TEST_KILLS", KILLS);
    let mut killed = 0;
    // The sender's files, as the sender has just made them.
    let mut made = Default::default();
    let counted = std::cell::Cell::new(0);
    overwritten(
        &a,
        &mut b,
        |_| counted.get() >= kills,
        |b, number| {
            if number > 1 {
                assert_eq!(names(&a.folder).len(), FILES as usize, "on the sender");
            }
            made = (mtimes(&a.folder), inodes(&a.folder));
            if dice.below(2) == 0 {
                // At any time of what is done with this version.
                let (start, wait) = (Instant::now(), Duration::from_micros(dice.below(120_000)));
                eventually("a random moment", LONG, || start.elapsed() >= wait);
                b.kill();
                b.start();
                killed += 1;
                counted.set(killed);
                assert_eq!(
                    made,
                    (mtimes(&a.folder), inodes(&a.folder)),
                    "the sender's files changed"
                );
            }
        },
    );
    assert_converged(&[&a, &b]);
    assert_eq!(
        made,
        (mtimes(&a.folder), inodes(&a.folder)),
        "the sender's files changed"
    );
    assert_eq!(mtimes(&b.folder), made.0);
    for device in [&a, &b] {
        assert_eq!(device.field("conflicts"), 0);
        assert_eq!(names(&device.folder).len(), FILES as usize);
    }
}
