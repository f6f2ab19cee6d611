//! Deltas between random versions, with tellers that lie and older versions that change while they are copied.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::chunks;
use crate::chunks::tests::{file_of, noise};
use crate::outboard::{self, Outboard};
use crate::sim::rng::Rng;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// How many random pairs of versions.
const CASES: u64 = 24;

fn outboard_of(content: &[u8]) -> Outboard {
    let dir = tempfile::tempdir().unwrap();
    let (file, digest) = (file_of(content), Digest::of(content));
    outboard::load_or_make(dir.path(), &file, content.len() as u64, &digest)
        .unwrap()
        .unwrap()
}

/// What the teller does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// One value of the answer with this number.
    Value(u64),
    /// The lists are those of other subtrees.
    Count,
    /// Chunks of the older version are said to be elsewhere.
    Order,
    /// Lengths that no file can have.
    Lengths,
    /// It has the file no more.
    Gone,
}

type Meanwhile = Box<dyn Fn(u64) + Send + Sync>;

struct Teller {
    file: File,
    outboard: Mutex<Outboard>,
    told: AtomicU64,
    answers: AtomicU64,
    wrong: Wrong,
    /// Called before each answer, with its number.
    meanwhile: Option<Meanwhile>,
}

impl Teller {
    fn answer(&self, bytes: usize) -> u64 {
        self.told.fetch_add(bytes as u64, Ordering::Relaxed);
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile(number);
        }
        number
    }
}

impl super::Teller for Teller {
    async fn values(&self, of: &[Subtree], most: u64) -> Result<Option<Vec<Vec<Value>>>, WireError> {
        assert!(of.len() <= MAX_SUBTREES && of.iter().all(|node| node.groups() > most));
        assert!(of.iter().map(|node| node.count(most)).sum::<u64>() <= MAX_VALUES);
        let outboard = self.outboard.lock().unwrap();
        let list = |node: &Subtree| outboard.values(*node, most).unwrap().unwrap();
        let mut lists: Vec<_> = of.iter().map(list).collect();
        let number = self.answer(lists.iter().map(|values| values.len() * 32).sum());
        match self.wrong {
            Wrong::Value(wrong) if wrong == number => lists.last_mut().unwrap()[0][3] ^= 1,
            Wrong::Count => lists.push(Vec::new()),
            Wrong::Gone => return Ok(None),
            _ => {}
        }
        Ok(Some(lists))
    }

    async fn chunks(&self, start: u64, len: u64) -> Result<Option<(u64, Vec<Chunk>)>, WireError> {
        let dir = tempfile::tempdir().unwrap();
        let size = self.file.metadata().unwrap().len();
        let digest = Digest::of(b"no matter");
        let (first, entries) = chunks::list(dir.path(), &self.file, (&digest, size), start, len).unwrap();
        self.answer(entries.len());
        let mut chunks: Vec<Chunk> = entries.as_chunks().0.iter().map(Chunk::from_entry).collect();
        match self.wrong {
            Wrong::Order => chunks.reverse(),
            Wrong::Lengths => chunks.iter_mut().for_each(|chunk| chunk.len = u32::MAX),
            _ => {}
        }
        Ok(Some((first, chunks)))
    }
}

/// Two versions of a file, and what is told of the newer one.
struct Case {
    new: Vec<u8>,
    base: File,
    delta: Delta<Teller>,
    have: Have,
}

fn case(old: &[u8], new: Vec<u8>) -> Case {
    let size = new.len() as u64;
    let target = tempfile::tempfile().unwrap();
    target.set_len(size).unwrap();
    let base = file_of(old);
    let teller = Teller {
        file: file_of(&new),
        outboard: Mutex::new(outboard_of(&new)),
        told: AtomicU64::new(0),
        answers: AtomicU64::new(0),
        wrong: Wrong::Nothing,
        meanwhile: None,
    };
    let delta = Delta {
        teller,
        digest: Digest::of(&new),
        size,
        base: Arc::new(Base::for_test(base.try_clone().unwrap(), outboard_of(old))),
        target: Arc::new(Target {
            file: target,
            size,
            may_hold: false,
        }),
    };
    let have = Have::nothing(size);
    Case {
        new,
        base,
        delta,
        have,
    }
}

impl Case {
    fn run(&mut self) -> Result<bool, WireError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let copied = runtime.block_on(copy(&self.delta, &mut self.have));
        // Whatever was said: what counts as here is right.
        let mut read = vec![0; self.new.len()];
        self.delta.target.file.read_exact_at(&mut read, 0).unwrap();
        for group in 0..Subtree::whole(self.delta.size).end {
            if self.have.holds(group) {
                let bytes = (group * GROUP) as usize..self.new.len().min(((group + 1) * GROUP) as usize);
                assert!(
                    read[bytes.clone()] == self.new[bytes],
                    "group {group} is not what it should be"
                );
            }
        }
        copied
    }

    fn missing(&self) -> usize {
        self.new.len() - self.have.bytes() as usize
    }

    /// Bytes that cross the wire, but for the frames around them.
    fn wire(&self) -> usize {
        self.delta.teller.told.load(Ordering::Relaxed) as usize + self.missing()
    }
}

fn wire(old: &[u8], new: Vec<u8>) -> usize {
    let mut case = case(old, new);
    assert!(case.run().unwrap());
    case.wire()
}

#[test]
fn what_crosses_the_wire_is_about_what_changed() {
    let old = noise(1, 20 * MIB);
    let mut one = old.clone();
    one[7 * MIB + 5] ^= 1;
    let one = wire(&old, one);
    assert!(one < 32 * KIB, "one byte: {one}");

    let appended = wire(&old, [&old[..], &noise(2, MIB)].concat());
    assert!(appended < MIB + 8 * KIB, "appended: {appended}");
    // Also where neither end is that of a group.
    let odd = &old[..20 * MIB - 12_345];
    let appended = wire(odd, [odd, &noise(2, 5000)].concat());
    assert!(appended < 64 * KIB, "appended to an odd end: {appended}");

    let front = wire(&old, [&noise(3, 4096), &old[..]].concat());
    assert!(front < 400 * KIB, "inserted in front: {front}");
    let cut = wire(&old, old[100_000..].to_vec());
    assert!(cut < 400 * KIB, "removed in front: {cut}");
    let middle = wire(&old, [&old[..12 * MIB], &noise(4, 10), &old[12 * MIB..]].concat());
    assert!(middle < 400 * KIB, "inserted in the middle: {middle}");

    let mut scattered = old.clone();
    for i in 0..20 {
        let at = i * MIB + 77_777;
        scattered[at..at + 4096].copy_from_slice(&noise(5 + i as u64, 4096));
    }
    let scattered = wire(&old, scattered);
    assert!(scattered < 20 * (2 * 16 + 3) * KIB, "scattered: {scattered}");

    let shorter = wire(&old, old[..9 * MIB + 1].to_vec());
    assert!(shorter < 32 * KIB, "cut off: {shorter}");
    // Nothing in common costs what it takes to find out.
    let other = wire(&old, noise(100, 20 * MIB));
    assert!(other < 20 * MIB + 200 * KIB, "another: {other}");
}

#[test]
fn random_edits_come_to_the_new_version_for_about_their_size() {
    for seed in 0..CASES {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut old = noise(seed, rng.range(2 * MIB, 9 * MIB));
        if rng.percent(40) {
            let len = rng.range(1, 3 * MIB).min(old.len());
            let at = rng.below(old.len() - len + 1);
            old[at..at + len].fill(0);
        }
        let mut new = old.clone();
        let (mut changed, edits) = (0, rng.range(1, 4));
        for edit in 0..edits {
            let len = if rng.percent(50) {
                rng.range(1, 5000)
            } else {
                rng.range(1, 300_000)
            };
            let fresh = noise(1000 + 10 * seed + edit as u64, len);
            let at = rng.below(new.len());
            changed += len;
            match rng.below(6) {
                0 => new.extend(fresh),
                1 => drop(new.splice(at..at, fresh)),
                2 => drop(new.splice(at..new.len().min(at + len), fresh)),
                3 => drop(new.drain(at..new.len().min(at + len))),
                4 => new.truncate(new.len().max(2 * MIB + len) - len),
                _ => {
                    // A block moves elsewhere.
                    let block: Vec<u8> = new.drain(at..new.len().min(at + len)).collect();
                    let to = rng.below(new.len());
                    drop(new.splice(to..to, block));
                }
            }
        }
        if new.len() <= MIB || new == old {
            continue;
        }
        let mut case = case(&old, new);
        assert!(case.run().unwrap(), "seed {seed}");
        // Around each edit: chunks on both sides, units that are looked into; less than a unit is not looked for elsewhere.
        let most = changed + edits * 600 * KIB + MIB + case.new.len() / 50;
        assert!(
            case.wire() <= most,
            "seed {seed}: {} of at most {most}",
            case.wire()
        );
        // Once more, with what is there noted: nothing is copied again, what is missing is still missing.
        let (first, missing) = (case.have.clone(), case.missing());
        case.run().unwrap();
        assert_eq!(
            (case.have == first, case.missing()),
            (true, missing),
            "seed {seed}"
        );
    }
}

#[test]
fn lies_are_noticed_and_spoil_nothing() {
    let old = noise(1, 6 * MIB);
    let shifted = [&noise(2, 5000), &old[..]].concat();
    let mut in_place = old.clone();
    in_place[3 * MIB] ^= 1;
    for new in [shifted.clone(), in_place] {
        for wrong in [Wrong::Value(0), Wrong::Value(1), Wrong::Count] {
            let mut case = case(&old, new.clone());
            case.delta.teller.wrong = wrong;
            assert!(matches!(case.run(), Err(WireError::Protocol(_))));
        }
        let mut case = case(&old, new);
        case.delta.teller.wrong = Wrong::Gone;
        assert!(!case.run().unwrap());
        assert_eq!(case.have.bytes(), 0);
    }
    // A list of chunks is a hint: what it says wrong is fetched.
    for wrong in [Wrong::Order, Wrong::Lengths] {
        let mut case = case(&old, shifted.clone());
        case.delta.teller.wrong = wrong;
        assert!(case.run().unwrap());
        assert!(case.missing() > 5 * MIB);
    }
}

#[test]
fn an_older_version_that_changes_meanwhile_gives_only_what_is_still_right() {
    let old = noise(1, 8 * MIB);
    let mut in_place = old.clone();
    in_place[5 * MIB] ^= 1;
    let shifted = [&noise(2, 5000), &old[..]].concat();
    for new in [in_place, shifted] {
        for number in 0..3 {
            let mut case = case(&old, new.clone());
            let base = case.base.try_clone().unwrap();
            case.delta.teller.meanwhile = Some(Box::new(move |at| {
                if at == number {
                    base.write_all_at(&[0; 300_000], 2 * MIB as u64 + 5).unwrap();
                    base.set_len(7 * MIB as u64).unwrap();
                }
            }));
            assert!(case.run().unwrap());
            assert!(case.missing() <= 4 * MIB, "{} bytes", case.missing());
        }
    }
}

#[test]
fn holes_stay_holes() {
    let mut old = noise(1, 12 * MIB);
    old[2 * MIB..10 * MIB].fill(0);
    let mut new = old.clone();
    new[11 * MIB] ^= 1;
    let mut in_place = case(&old, new);
    assert!(in_place.run().unwrap());
    let mut moved = case(&old, [&noise(2, 5000), &old[..]].concat());
    assert!(moved.run().unwrap());
    for case in [in_place, moved] {
        let blocks = case.delta.target.file.metadata().unwrap().blocks();
        assert!(blocks * 512 <= 5 * MIB as u64, "{blocks} blocks");
        assert!(case.missing() < MIB);
    }
}

#[test]
fn what_an_earlier_fetch_left_is_taken_if_it_is_right() {
    let old = noise(1, 6 * MIB);
    let mut new = old.clone();
    new[3 * MIB] ^= 1;
    let mut case = case(&old, new.clone());
    Arc::get_mut(&mut case.delta.target).unwrap().may_hold = true;
    case.delta.target.file.write_all_at(&new[..4 * MIB], 0).unwrap();
    case.delta.target.file.write_all_at(&[7], MIB as u64).unwrap();
    // The older version could give none of it by now.
    case.base.set_len(0).unwrap();
    assert!(case.run().unwrap());
    let there = 2 * MIB;
    assert!(case.have.bytes() >= there as u64 && case.missing() > 2 * MIB);
}

#[test]
fn a_map_finds_what_it_holds() {
    let mut map = Map::default();
    map.add(100, 1000, 50);
    map.add(150, 1050, 50);
    map.add(200, 10, 5);
    map.add(300, 2000, 10);
    assert_eq!(map.0.len(), 3);
    assert_eq!(map.find(120, 60), Some(vec![(1020, 60)]));
    assert_eq!(map.find(190, 15), Some(vec![(1090, 10), (10, 5)]));
    for (at, len) in [(99, 2), (190, 16), (205, 1), (299, 5), (305, 6), (400, 1)] {
        assert_eq!(map.find(at, len), None, "{at} {len}");
    }
    assert!(map.touches(90, 11) && map.touches(204, 50) && !map.touches(205, 95) && !map.touches(310, 9));
}
