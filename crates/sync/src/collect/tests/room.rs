//! What a collection gives back to the file system, on a real disk.

use alike_core::ids::{FolderId, ReplicaId};
use alike_store::{Commit, NewFolder, Replica};

use super::*;

/// Nodes that nothing reaches: of these every commit of a first scan leaves some.
fn left_behind(store: &Store, folder: FolderKey) {
    let nodes = (0..300_u32).map(|n| {
        let bytes = n.to_le_bytes().repeat(10_000);
        (Digest::of(&bytes), bytes.into())
    });
    let commit = Commit {
        nodes: nodes.collect(),
        ..Commit::default()
    };
    store.commit(folder, commit).unwrap();
}

#[test]
fn one_that_growth_began_leaves_the_database_as_large_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&dir.path().join("state")).unwrap());
    let folder = NewFolder {
        id: FolderId([1; 16]),
        name: "folder".into(),
        path: dir.path().join("folder"),
        replica: Replica {
            id: ReplicaId(1),
            nonce: [0; 16],
        },
        marker: [1; 16],
        root_dev: 0,
        root_ino: 0,
        created_ms: 0,
    };
    let folder = store.add_folder(folder).unwrap().key;
    left_behind(&store, folder);
    let policy = [(folder, Wanted::Policy(Policy::default()))];
    let full = store.bytes_on_disk();
    assert!(!worth_compacting(&store).unwrap());
    let told = collect(&store, &[], &policy, Mode::Tell).unwrap();
    assert_eq!(told.removed_objects, 300);
    assert!(!worth_compacting(&store).unwrap(), "nothing has gone");
    let swept = collect(&store, &[], &policy, Mode::Sweep).unwrap();
    assert_eq!(swept.removed_objects, 300);
    assert!(worth_compacting(&store).unwrap(), "what is free stays free");
    assert!(store.bytes_on_disk() >= full);
    // The room is used again.
    left_behind(&store, folder);
    assert!(store.bytes_on_disk() < full + full / 2);
    let swept = collect(&store, &[], &policy, Mode::Sweep).unwrap();
    assert_eq!(swept.removed_objects, 300);
    // Nothing goes, and it is worth it nevertheless.
    let compacted = collect(&store, &[], &policy, Mode::Compact).unwrap();
    assert_eq!(compacted.removed_objects, 0);
    assert!(store.bytes_on_disk() < full / 4);
    assert!(compacted.freed_bytes > full / 2);
}
