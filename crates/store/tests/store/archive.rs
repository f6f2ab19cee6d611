//! Archived tree nodes: old ones take less, everything is read as before, what is let go of is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::Name;
use alike_core::tree::{self, Nodes};
use alike_store::*;

use crate::fixture::*;

/// A directory of 200 files of which one is another in every generation.
fn generations(fixture: &Fixture, numbers: std::ops::RangeInclusive<u64>) -> BTreeSet<Digest> {
    let mut all = BTreeSet::new();
    for number in numbers {
        let entries: Vec<_> = (0..200_u64)
            .map(|i| NamedEntry {
                name: Name::new(format!("file {i:03}").as_bytes()).unwrap(),
                entry: Entry::File {
                    digest: Digest::of(&if i == number % 200 { 1_000 + number } else { i }.to_le_bytes()),
                    size: 1,
                    exec: false,
                },
            })
            .collect();
        let mut commit = Commit::default();
        let root = tree::write(&entries, &mut |d, b| commit.nodes.push((d, b.into())));
        let head = fixture.see().head(fixture.folder).unwrap();
        let mut summary = head.summary;
        summary.root = root;
        commit.head = Some(Head { summary, ..head });
        commit.generation = Some(Generation {
            root,
            ..generation(number)
        });
        all.extend(commit.nodes.iter().map(|node| node.0));
        fixture.commit(commit);
    }
    all
}

fn archive(fixture: &Fixture) -> u64 {
    let mut archiving = Archiving::in_blocks_of(4_000, 100_000);
    while !archiving.is_done() {
        fixture.store.archive(&mut archiving).unwrap();
    }
    archiving.moved
}

fn collect(fixture: &Fixture) -> (u64, u64) {
    let see = fixture.see();
    let gone = see.dropped().unwrap();
    fixture
        .store
        .forget_dropped(&fixture.store.alone(Duration::ZERO).unwrap(), &gone)
        .unwrap();
    let mut marks = see.mark(&|_, _| true).unwrap();
    let foreseen = see.unmarked(&marks).unwrap();
    let mut sweep = Sweep::in_steps_of(50);
    while !sweep.is_done() {
        assert!(
            fixture
                .store
                .sweep(&mut marks, &mut sweep, Duration::ZERO)
                .unwrap()
        );
    }
    assert_eq!((sweep.removed, sweep.freed), foreseen, "a dry run says what goes");
    foreseen
}

#[test]
fn old_generations_take_a_fifth_and_are_read_as_before() {
    let fixture = fixture();
    let all = generations(&fixture, 1..=150);
    let before: Vec<_> = all.iter().map(|d| fixture.see().node(d).unwrap()).collect();
    let size: usize = before.iter().flatten().map(|bytes| bytes.len()).sum();
    let earlier = fixture.see();
    let moved = archive(&fixture);
    assert!(moved as usize > all.len() * 8 / 10, "{moved} of {}", all.len());
    assert_eq!(archive(&fixture), 0, "there is nothing left to do");
    let see = fixture.see();
    let (rows, bytes) = see.archive_len().unwrap();
    assert_eq!(rows, moved);
    assert!((bytes as usize) < size / 5, "{bytes} of {size} bytes");
    for view in [&earlier, &see] {
        let after: Vec<_> = all.iter().map(|d| view.node(d).unwrap()).collect();
        assert!(before == after);
        assert!(all.iter().all(|d| view.has_node(d).unwrap()));
    }
    assert_eq!(
        see.check_nodes(None, 1 << 20).unwrap().checked as usize,
        all.len() + 2
    );
    assert_eq!(collect(&fixture), (0, 0), "nothing is waste");
}

#[test]
fn what_is_let_go_of_is_gone_and_its_blocks_too() {
    let fixture = fixture();
    let old = generations(&fixture, 1..=150);
    archive(&fixture);
    let (rows, full) = fixture.see().archive_len().unwrap();
    // Every second: blocks stay, for half of each is needed.
    let every_second: Vec<u64> = (1..150).filter(|n| n % 2 == 0).collect();
    fixture
        .store
        .drop_generations(fixture.folder, &every_second)
        .unwrap();
    let (gone, _) = collect(&fixture);
    let (left, _) = fixture.see().archive_len().unwrap();
    assert!(
        gone > rows / 4 && left <= rows - gone,
        "{gone} of {rows}, {left} left"
    );
    let there = |fixture: &Fixture| {
        let see = fixture.see();
        old.iter().filter(|d| see.has_node(d).unwrap()).count() as u64
    };
    assert_eq!(there(&fixture), old.len() as u64 - gone);
    // All but the newest two.
    let numbers: Vec<u64> = (1..149).collect();
    fixture.store.drop_generations(fixture.folder, &numbers).unwrap();
    collect(&fixture);
    let (left, bytes) = fixture.see().archive_len().unwrap();
    assert!(
        left < 5 && bytes < full / 20,
        "{left} nodes in {bytes} of {full} bytes"
    );
    let see = fixture.see();
    for number in [149, 150] {
        let root = see.generation(fixture.folder, number).unwrap().unwrap().root;
        crate::gc::content(&see, root, &mut BTreeSet::new());
    }
    // What goes comes back like anything new, and goes into blocks again.
    drop(see);
    let again = generations(&fixture, 151..=300);
    assert!(archive(&fixture) as usize > again.len() * 6 / 10);
}

#[test]
fn a_database_of_before_the_archive_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(Store::open(&state).unwrap());
    // As version 5 left it.
    let db = redb::Database::open(state.join(DATABASE)).unwrap();
    let tx = db.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    tx.open_table(meta).unwrap().insert("version", 5).unwrap();
    for name in ["archived", "archive"] {
        let table = tx
            .list_tables()
            .unwrap()
            .find(|t| redb::TableHandle::name(t) == name);
        assert!(tx.delete_table(table.unwrap()).unwrap());
    }
    tx.commit().unwrap();
    drop(db);
    let store = Store::open(&state).unwrap();
    let folder = store.add_folder(new_folder(1)).unwrap().key;
    let fixture = Fixture { dir, store, folder };
    let old = generations(&fixture, 1..=60);
    assert!(archive(&fixture) > 0);
    let fixture = fixture.reopen();
    assert!(old.iter().all(|d| fixture.see().has_node(d).unwrap()));
}

#[test]
fn what_was_swept_before_it_could_be_archived_does_not_come_back() {
    let fixture = fixture();
    let old = generations(&fixture, 1..=150);
    let mut archiving = Archiving::in_blocks_of(4_000, 1 << 20);
    // It begins, and reads what it will pack.
    fixture.store.archive(&mut archiving).unwrap();
    fixture.store.archive(&mut archiving).unwrap();
    assert!(!archiving.is_done() && archiving.moved == 0, "it has looked");
    let numbers: Vec<u64> = (1..150).collect();
    fixture.store.drop_generations(fixture.folder, &numbers).unwrap();
    collect(&fixture);
    let there = |see: Snapshot| old.iter().filter(|d| see.has_node(d).unwrap()).count();
    let left = there(fixture.see());
    while !archiving.is_done() {
        fixture.store.archive(&mut archiving).unwrap();
    }
    assert_eq!(there(fixture.see()), left);
}
