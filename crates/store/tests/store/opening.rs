//! Opening a state directory: which are refused and why, and which are healed. Never reads a row.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use alike_store::*;

use crate::fixture::*;

/// A temporary directory that the store takes, whatever the umask is.
fn private_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_open_is_refused_and_says_why() {
    let fixture = fixture();
    let error = Store::open(&fixture.dir.path().join("state")).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("alike.redb"), "{error}");
    // The refused open must not have taken the lock from the first.
    let error = Store::open(&fixture.dir.path().join("state")).err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    fixture.reopen();
}

#[test]
fn only_the_owner_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    drop(Store::open(&state).unwrap());
    let database = state.join(DATABASE);
    assert_eq!((mode(&state), mode(&database)), (0o700, 0o600));
    fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&state).unwrap());
    assert_eq!(mode(&database), 0o600);
    for loose in [0o750, 0o701, 0o777] {
        fs::set_permissions(&state, Permissions::from_mode(loose)).unwrap();
        let error = Store::open(&state).err().unwrap();
        assert!(
            matches!(error, StoreError::Permissions { mode, .. } if mode == loose),
            "{error}"
        );
        assert_eq!(mode(&state), loose);
    }
}

#[test]
fn another_version_is_refused() {
    let fixture = fixture();
    let state = fixture.dir.path().join("state");
    drop(fixture.store);
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    for other in [VERSION + 1, 4, 3, 2, 1, 0] {
        let db = redb::Database::create(state.join(DATABASE)).unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(META).unwrap().insert("version", other).unwrap();
        tx.commit().unwrap();
        drop(db);
        let error = Store::open(&state).err().unwrap();
        assert!(
            matches!(error, StoreError::Version { found, known: VERSION, .. } if found == other),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_database_of_ours_is_refused() {
    let dir = private_dir();
    let database = dir.path().join(DATABASE);
    fs::write(&database, "not a database".repeat(1_000)).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    fs::remove_file(&database).unwrap();
    let db = redb::Database::create(&database).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(redb::TableDefinition::<u64, u64>::new("theirs"))
        .unwrap();
    tx.commit().unwrap();
    drop(db);
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_crash_between_making_the_file_and_filling_it_is_healed() {
    let dir = private_dir();
    fs::write(dir.path().join(DATABASE), "").unwrap();
    drop(Store::open(dir.path()).unwrap());
    fs::remove_file(dir.path().join(DATABASE)).unwrap();
    drop(redb::Database::create(dir.path().join(DATABASE)).unwrap());
    drop(Store::open(dir.path()).unwrap());
}

#[test]
fn a_database_that_was_cut_off_while_it_was_made_is_made_anew() {
    let dir = private_dir();
    // What redb leaves when it is stopped early: a length, and no mark yet of what it is.
    fs::write(dir.path().join("alike.redb.new"), [0; 9000]).unwrap();
    drop(Store::open(dir.path()).unwrap());
    assert!(!dir.path().join("alike.redb.new").exists());
    drop(Store::open(dir.path()).unwrap());
}
