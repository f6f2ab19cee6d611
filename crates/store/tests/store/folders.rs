//! Folders, devices, grants and tickets that go, and what goes with them. Never opens a bad database.

use alike_core::digest::Digest;
use alike_core::path::RelPath;
use alike_store::*;

use crate::fixture::*;

#[test]
fn removing_a_folder_leaves_the_others_whole() {
    let fixture = fixture();
    let mut keys = vec![fixture.folder];
    keys.extend((2..=3).map(|n| fixture.store.add_folder(new_folder(n)).unwrap().key));
    fixture.store.put_device(&device(1)).unwrap();
    fixture.store.put_device(&device(0xff)).unwrap();
    for (n, &key) in keys.iter().enumerate() {
        fixture.store.commit(key, full_commit().0).unwrap();
        fixture.store.put_grant(&grant(key, 1)).unwrap();
        fixture.store.put_grant(&grant(key, 0xff)).unwrap();
        fixture.store.put_ticket(&ticket(key, n as u8)).unwrap();
    }
    let before = (all_of(&fixture, keys[0]), all_of(&fixture, keys[2]));
    fixture.store.remove_folder(keys[1]).unwrap();
    fixture.store.remove_folder(keys[1]).unwrap();
    assert_eq!((all_of(&fixture, keys[0]), all_of(&fixture, keys[2])), before);
    let see = fixture.see();
    assert_eq!(see.head(keys[1]).unwrap(), Head::default());
    assert!(see.index_below(keys[1], &RelPath::root()).unwrap().is_empty());
    assert!(see.pending(keys[1], None, 9).unwrap().is_empty());
    assert_eq!(see.pending_total(keys[1]).unwrap(), (0, 0));
    assert!(see.intents(keys[1]).unwrap().is_empty());
    assert!(see.generations(keys[1], 9).unwrap().is_empty());
    assert!(
        see.blob_places(&Digest::of(b"one"), 99)
            .unwrap()
            .iter()
            .all(|p| p.0 != keys[1])
    );
    assert_eq!(fixture.store.grants().unwrap().len(), 4);
    assert_eq!(fixture.store.tickets().unwrap().len(), 2);
    // Nothing can be written for it any more, and its key does not come back.
    let no_folder = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::NoFolder { folder, .. }) if folder == keys[1]));
    };
    no_folder(fixture.store.commit(keys[1], full_commit().0));
    no_folder(fixture.store.set_folder_paused(keys[1], true));
    no_folder(fixture.store.put_grant(&grant(keys[1], 1)));
    no_folder(fixture.store.put_ticket(&ticket(keys[1], 9)));
    no_folder(fixture.store.pair(&device(8), &grant(keys[1], 8), None));
    assert_eq!(fixture.store.devices().unwrap().len(), 2);
    fixture.store.remove_folder(keys[2]).unwrap();
    let fixture = fixture.reopen();
    assert!(fixture.store.add_folder(new_folder(4)).unwrap().key > keys[2]);
}

#[test]
fn removing_a_device_takes_its_grants() {
    let fixture = fixture();
    for n in [1, 2] {
        fixture
            .store
            .pair(&device(n), &grant(fixture.folder, n), None)
            .unwrap();
    }
    fixture.store.remove_device(&[1; 32]).unwrap();
    assert_eq!(fixture.store.devices().unwrap(), [device(2)]);
    assert_eq!(fixture.store.grants().unwrap(), [grant(fixture.folder, 2)]);
    fixture.store.remove_grant(fixture.folder, &[2; 32]).unwrap();
    assert!(fixture.store.grants().unwrap().is_empty());
}

#[test]
fn a_ticket_is_spent_and_removed() {
    let fixture = fixture();
    fixture.store.put_ticket(&ticket(fixture.folder, 1)).unwrap();
    let spent = TicketRow {
        uses_left: 0,
        ..ticket(fixture.folder, 1)
    };
    fixture
        .store
        .pair(&device(1), &grant(fixture.folder, 1), Some(&spent))
        .unwrap();
    assert!(!format!("{spent:?}").contains("secret"));
    assert_eq!(fixture.store.tickets().unwrap(), [spent]);
    fixture.store.remove_ticket(&[1; 8]).unwrap();
    assert!(fixture.store.tickets().unwrap().is_empty());
}
