//! What an archive that is whole never holds, made by hand.

use std::sync::Arc;

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::Name;
use alike_core::tree::{self, Nodes};
use redb::ReadableTableMetadata as _;
use tempfile::TempDir;

use super::*;
use crate::store::Store;
use crate::trees::put_nodes;

/// A directory of content trees: version `n` of one that is called `name`.
fn node(name: &str, n: u32) -> (Digest, Arc<[u8]>) {
    let file = |name: String, content: &[u8]| NamedEntry {
        name: Name::new(name.as_bytes()).unwrap(),
        entry: Entry::File {
            digest: Digest::of(content),
            size: 1,
            exec: false,
        },
    };
    let entries: Vec<_> = (0..12)
        .map(|i| match i {
            7 => file(format!("{name} {i:02}"), &n.to_le_bytes()),
            _ => file(format!("{name} {i:02}"), name.as_bytes()),
        })
        .collect();
    let mut node = None;
    tree::write(&entries, &mut |d, b| node = Some((d, b.into())));
    node.unwrap()
}

fn archived(nodes: &[(Digest, Arc<[u8]>)]) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    store.write(|tx| put_nodes(tx, nodes)).unwrap();
    archive(&store);
    (dir, store)
}

fn archive(store: &Store) -> u64 {
    let mut archiving = Archiving::in_blocks_of(1_000, 1 << 20);
    while !archiving.is_done() {
        store.archive(&mut archiving).unwrap();
    }
    archiving.moved
}

fn versions(of: &str, n: std::ops::Range<u32>) -> Vec<(Digest, Arc<[u8]>)> {
    n.map(|n| node(of, n)).collect()
}

#[test]
fn of_two_that_are_called_alike_one_stays_among_the_nodes() {
    let (_dir, store) = archived(&versions("a", 0..100));
    let (late, bytes) = node("late", 0);
    // As if its digest began as one that is archived does.
    store
        .write(|tx| {
            let mut table = tx.open_table(ARCHIVED)?;
            table.insert(prefix(&late), (0, 0))?;
            Ok(())
        })
        .unwrap();
    let see = store.snapshot().unwrap();
    assert!(!see.has_node(&late).unwrap(), "the other one is not it");
    assert_eq!(see.node(&late).unwrap(), None);
    let many: Vec<_> = versions("late", 0..100);
    store.write(|tx| put_nodes(tx, &many)).unwrap();
    assert!(archive(&store) > 50);
    let see = store.snapshot().unwrap();
    assert_eq!(see.node(&late).unwrap(), Some(bytes));
    assert!(see.trees.nodes.get(&late.0).unwrap().is_some());
}

#[test]
fn a_block_that_the_disk_has_changed_is_found_and_nothing_of_it_handed_out() {
    let nodes = versions("a", 0..300);
    let (_dir, store) = archived(&nodes);
    let (whole, none) = store.snapshot().unwrap().check_archive().unwrap();
    assert!(whole > 250 && none.is_empty(), "{whole}");
    let mut hit = 0;
    store
        .write(|tx| {
            let mut archive = tx.open_table(ARCHIVE)?;
            let mut row = archive.get(1)?.expect("there is more than one").value().to_vec();
            hit = Block::decode(&row).unwrap().len();
            let middle = row.len() / 2;
            row[middle] ^= 4;
            archive.insert(1, row.as_slice())?;
            Ok(())
        })
        .unwrap();
    let see = store.snapshot().unwrap();
    let (checked, damaged) = see.check_archive().unwrap();
    assert_eq!((checked, damaged.len()), (whole, hit));
    let all = see.check_nodes(None, 10_000).unwrap();
    assert_eq!((all.checked, all.damaged.len()), (302, hit));
    let mut refused = 0;
    for (digest, bytes) in &nodes {
        match see.node(digest) {
            Ok(found) => assert_eq!(found.as_ref(), Some(bytes)),
            Err(error) => {
                assert!(error.to_string().contains("block 1 of the archive"), "{error}");
                assert!(damaged.iter().any(|d| d.0[..8] == digest.0[..8]));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, hit);
    // Who asks whether the damage is still there hears it, and a collection goes on: it takes the others.
    assert!(damaged.iter().all(|d| see.names_node(d).unwrap()));
    let mut marks = see.mark(&|_, _| true).unwrap();
    let foreseen = see.unmarked(&marks).unwrap();
    let mut sweep = crate::gc::Sweep::default();
    while !sweep.is_done() {
        assert!(
            store
                .sweep(&mut marks, &mut sweep, std::time::Duration::ZERO)
                .unwrap()
        );
    }
    assert_eq!((sweep.removed, sweep.freed), foreseen);
    let see = store.snapshot().unwrap();
    assert_eq!(see.check_archive().unwrap(), (hit as u64, damaged));
    assert!(!see.is_half_swept().unwrap());
}

#[test]
fn a_node_that_is_too_long_for_a_block_stays_where_it_is() {
    let link = |n: usize| NamedEntry {
        name: Name::new(format!("{n:05}").as_bytes()).unwrap(),
        entry: Entry::Symlink {
            target: vec![b'x'; 4_000].into(),
        },
    };
    let (mut long, mut short) = (None, None);
    // A directory of up to 24 entries is one node.
    for (found, count) in [(&mut long, 40), (&mut short, 2)] {
        let entries: Vec<_> = (0..count).map(link).collect();
        let mut leaf = vec![0, count as u8];
        entries
            .iter()
            .for_each(|entry| tree::Item::encode(entry, &mut leaf));
        let digest = tree::node_digest::<NamedEntry>(&leaf);
        *found = Some((digest, Arc::<[u8]>::from(leaf)));
    }
    let (long, short) = (long.unwrap(), short.unwrap());
    let mut nodes = versions("a", 0..100);
    nodes.extend([long.clone(), short.clone()]);
    let (_dir, store) = archived(&nodes);
    let see = store.snapshot().unwrap();
    assert!(long.1.len() > block::MAX_BYTES);
    assert!(see.trees.nodes.get(&long.0.0).unwrap().is_some());
    for (digest, bytes) in &nodes {
        assert_eq!(see.node(digest).unwrap().as_ref(), Some(bytes));
    }
}

#[test]
fn no_byte_of_a_block_can_change_unseen() {
    let nodes: Vec<_> = versions("a", 0..9);
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(d, b)| block::Node::of(d, b).unwrap())
        .collect();
    let (row, some) = block::fill(&nodes, 400).unwrap();
    let block = Block::decode(&row).unwrap();
    assert_eq!(block.nodes().map(|n| n.1).collect::<Vec<_>>(), nodes[..some]);
    assert!(some > 1 && row.len() <= 400, "{some} nodes in {}", row.len());
    for at in 0..row.len() {
        for bit in 0..8 {
            let mut bad = row.clone();
            bad[at] ^= 1 << bit;
            assert!(Block::decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Block::decode(&row[..at]).is_err());
    }
    // What does not fill a block waits for more; what is larger than a block is one.
    assert!(block::fill(&nodes, 10_000).is_none());
    assert_eq!(block::fill(&nodes, 10).unwrap().1, 1);
    assert!(block::fill(&[], 10).is_none());
}

#[test]
fn what_is_written_once_more_is_kept_once() {
    let nodes = versions("a", 0..100);
    let (_dir, store) = archived(&nodes);
    let (rows, bytes) = store.snapshot().unwrap().archive_len().unwrap();
    assert!(rows > 50);
    store.write(|tx| put_nodes(tx, &nodes)).unwrap();
    assert!(archive(&store) > 50);
    let see = store.snapshot().unwrap();
    assert_eq!(see.archive_len().unwrap(), (rows, bytes));
    assert!(see.trees.nodes.len().unwrap() < 50);
    for (digest, bytes) in &nodes {
        assert_eq!(see.node(digest).unwrap().as_ref(), Some(bytes));
    }
}
