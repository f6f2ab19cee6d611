//! Defects that the other tests, or reading for them, brought up; each as its smallest case. Each stays as the
//! regression test of its fix.

mod common;

use alike_core::digest::Digest;
use alike_core::merge::merge;
use alike_core::observe::{Mat, Meaning, observe};
use alike_core::state::{StateEntry, read_dir};
use alike_core::tree::{self, Overlay};
use common::{Batch, Mem, Replica, file, path};

const NOW: u64 = 1_700_000_000_000;
const YEAR: u64 = 365 * 24 * 3600 * 1000;

fn sync(a: &mut Replica, b: &mut Replica) {
    let before = a.clone();
    a.pull(b);
    b.pull(&before);
    assert_eq!(a.state, b.state);
}

/// Model: "from the original name (never a conflict of a conflict)".
#[test]
fn a_conflict_over_an_edited_conflict_copy_is_no_conflict_of_a_conflict() {
    let (mut a, mut b) = (Replica::new(1, NOW), Replica::new(2, NOW + 5));
    for (replica, content) in [(&mut a, "one"), (&mut b, "two")] {
        let batch = replica.write(&path("n.txt"), file(content), false);
        replica.apply(&batch);
    }
    sync(&mut a, &mut b);
    let shown = a.shown();
    let (copy, _) = shown.iter().find(|(_, s)| s.copy_of.is_some()).expect("a copy");
    for (replica, content) in [(&mut a, "three"), (&mut b, "four")] {
        let batch = replica.write(copy, file(content), false);
        replica.apply(&batch);
    }
    sync(&mut a, &mut b);
    for at in a.shown().into_keys() {
        let marks = at.to_string().matches(" (conflict ").count();
        assert!(marks <= 1, "{at}");
    }
}

/// A deletion also deletes the exec mark. C marks a file executable, A sees that and deletes the file, B sees
/// the deletion and creates another file there, plain. It is plain on C too.
#[test]
fn the_exec_mark_of_a_deleted_file_does_not_come_back_on_the_next_one() {
    let at = path("run");
    let mut a = Replica::new(1, NOW);
    let mut b = Replica::new(2, NOW);
    let mut c = Replica::new(3, NOW + YEAR);
    let batch = a.write(&at, file("old"), false);
    a.apply(&batch);
    b.pull(&a);
    c.pull(&a);
    let batch = c.chmod(&at, true);
    c.apply(&batch);
    a.pull(&c);
    let batch = a.delete(&at);
    a.apply(&batch);
    b.pull(&a);
    let batch = b.write(&at, file("new"), false);
    b.apply(&batch);
    assert!(!b.shown()[&at].is_exec());
    sync(&mut b, &mut c);
    assert!(
        !c.shown()[&at].is_exec(),
        "B's user made it plain, knowing all that C did"
    );
}

/// What a merge writes can be read again: versions in conflict pile up over many merges.
#[test]
fn a_home_with_more_records_than_the_limit_does_not_make_the_own_tree_unreadable() {
    let (mut a, mut b) = (Replica::new(1, NOW), Replica::new(2, NOW));
    for replica in [&mut a, &mut b] {
        let mut batch = Batch::default();
        for k in 0..2100 {
            let made = replica.import(&path("log"), file(&format!("{:?} {k}", replica.id)), false, NOW);
            batch.add.extend(made.add);
        }
        replica.apply(&batch);
    }
    a.fetch(&b);
    let (ours, theirs) = (a.state.clone(), b.state.clone());
    let mut overlay = Overlay::new(&a.nodes);
    if let Ok(merged) = merge(&mut overlay, &ours, &theirs) {
        let read = read_dir(&overlay, merged.state.root);
        assert!(read.is_ok(), "{}", read.unwrap_err());
    }
}

/// A hostile peer names one empty leaf 1,024 times in an inner node, that node 1,024 times in the next, and so
/// on for eight levels: nine small nodes whose reading never ends. An empty shard is never canonical.
#[test]
fn empty_shards_are_refused_when_read() {
    let mut nodes = Mem::new();
    let put = |nodes: &mut Mem, bytes: Vec<u8>| {
        let digest = tree::node_digest::<StateEntry>(&bytes);
        nodes.insert(digest, bytes.into());
        digest
    };
    let inner = |level: u8, children: &[(&str, Digest)]| {
        let mut bytes = vec![level, children.len() as u8];
        for (name, digest) in children {
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&digest.0);
        }
        bytes
    };
    let leaf = put(&mut nodes, vec![0, 0]);
    let one = put(&mut nodes, inner(1, &[("a", leaf), ("b", leaf)]));
    let two = put(&mut nodes, inner(2, &[("a", one), ("b", one)]));
    for root in [one, two] {
        assert!(tree::read::<StateEntry>(&nodes, root).is_err());
    }
    let none = put(&mut nodes, inner(1, &[]));
    assert!(tree::read::<StateEntry>(&nodes, none).is_err());
}

/// A lost version waits for its copy to be made; its user deletes the path where it still lies, and by then
/// HEAD shows nothing there. Forgetting would bring the deleted bytes back as a conflict copy.
#[test]
fn deleting_a_version_that_lost_its_place_deletes_it() {
    let (mut a, mut b) = (Replica::new(1, NOW), Replica::new(2, NOW + 5));
    for (replica, content) in [(&mut a, "mine"), (&mut b, "theirs")] {
        let batch = replica.write(&path("n"), file(content), false);
        replica.apply(&batch);
    }
    // On A's disk still is "mine" at n.
    let shown = a.shown().remove(&path("n")).expect("it is there");
    let mat = Mat {
        value: shown.value,
        exec: false,
        dots: shown.dots,
    };
    sync(&mut a, &mut b);
    let batch = b.delete(&path("n"));
    b.apply(&batch);
    a.pull(&b);
    let shown = a.shown();
    assert!(
        shown.values().any(|s| s.dots == mat.dots),
        "it lives, at its conflict name"
    );
    assert_eq!(
        observe(None, Some(&mat), shown.get(&path("n")), true),
        Meaning::Delete
    );
}
