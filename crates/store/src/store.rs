//! `Store`: opens the state directory and its database, and runs transactions. Never knows what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use redb::{Builder, CompactionError, Database, DatabaseError, StorageBackend, WriteTransaction};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};

use crate::archive::Blocks;
use crate::error::{Fault, StoreError};
use crate::latest::Latest;
use crate::leases::Leases;
use crate::medium::Medium;
use crate::packs::Packs;
use crate::refill::refill;
use crate::schema;
use crate::snapshot::Snapshot;

/// Name of the database in the state directory.
pub const DATABASE: &str = "alike.redb";
/// Its name until it is whole.
const UNFINISHED: &str = "alike.redb.new";

/// Memory for pages of the database, in bytes; an engine as a whole is to stay below 150 MiB.
const CACHE: usize = 32 * 1024 * 1024;

/// Room that is left for what must be written when little is left (bytes): several of the largest transactions.
const RESERVE: u64 = 32 * 1024 * 1024;
/// … on a small file system this share of it.
const SMALL_RESERVE: u64 = 4;

/// So much of the database is read ahead at most (bytes): it should fit in memory beside everything else.
const AHEAD: u64 = 1024 * 1024 * 1024;
/// In one piece: of a larger one the kernel takes only the beginning.
const AHEAD_STEP: u64 = 128 * 1024;

/// What files are counted in (bytes).
const BLOCK: u64 = 512;

/// The database in a state directory. Share it as `Arc<Store>`; one write transaction runs at a time, the others
/// wait, and readers never wait.
pub struct Store {
    /// Written to only by [`Store::compact`].
    db: RwLock<Database>,
    medium: Arc<Medium>,
    /// The state directory; `None` if the database is elsewhere.
    dir: Option<PathBuf>,
    pub(crate) leases: Leases,
    pub(crate) blocks: Blocks,
    /// How often something was committed since it was opened.
    commits: AtomicU64,
    /// `None` if the database is elsewhere.
    pub(crate) packs: Option<Packs>,
}

impl Store {
    /// Opens the state directory `dir`; makes it (0700) and the database in it (0600) if they are missing.
    ///
    /// Refuses a directory that others may enter, a database that another process has open, and one of another
    /// version.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        make_dir(dir)?;
        let path = dir.join(DATABASE);
        make_database(dir, &path)?;
        read_ahead(&path);
        // Of some damage redb thinks that it cannot be, and panics.
        let opened = catch_unwind(|| {
            let mut db = prepared(&path, |builder| builder.create(&path))?;
            // What the disk has damaged in here would be taken for what somebody did, and go on to other devices: a path
            // that is spelled wrong is a file that was removed. About a second for a million files.
            db.check_integrity().map_err(|e| Fault::from(e).at(&path))?;
            Ok(db)
        });
        let nonsense = |_| Err(Fault::Corrupt("what is in it makes no sense".to_owned()).at(&path));
        let db = opened.unwrap_or_else(nonsense)?;
        Ok(Store {
            db: RwLock::new(db),
            medium: Medium::new(&path),
            packs: Some(Packs::new(dir)),
            dir: Some(dir.to_owned()),
            leases: Leases::default(),
            blocks: Blocks::default(),
            commits: AtomicU64::new(0),
        })
    }

    /// Opens a database that is kept elsewhere than in a state directory: in memory, or on a medium that a test
    /// makes fail. Errors name it by `path`.
    pub fn with_backend(backend: impl StorageBackend, path: &Path) -> Result<Store, StoreError> {
        Ok(Store {
            db: RwLock::new(prepared(path, |builder| builder.create_with_backend(backend))?),
            medium: Medium::new(path),
            dir: None,
            leases: Leases::default(),
            blocks: Blocks::default(),
            commits: AtomicU64::new(0),
            packs: None,
        })
    }

    /// The same, with packs in the directory `home`.
    pub fn with_packs(mut self, home: &Path) -> Store {
        self.packs = Some(Packs::new(home));
        self
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        self.medium.path()
    }

    /// `hear` is called, by whoever meets it, when the medium of the database has failed: nothing works any more until the
    /// store is opened again. Once for a store; it must not ask the store anything.
    pub fn on_failure(&self, hear: impl Fn() + Send + Sync + 'static) {
        self.medium.on_failure(hear);
    }

    /// The database as it is now.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.run(|db| Snapshot::open(db, &self.medium, &self.blocks))
    }

    /// For whoever reads for long, while others commit.
    pub fn latest(&self) -> Latest<'_> {
        Latest::new(self)
    }

    /// How often something was committed since it was opened.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Reads, and says of which database an error is.
    pub(crate) fn run<T>(&self, read: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        let db = self.db.read().expect("nobody panics while he compacts");
        read(&db).map_err(|fault| self.medium.error(fault))
    }

    /// Bytes of the database in which nothing is: free pages, and what is empty of the others.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let used = self.run(|db| {
            let tx = db.begin_write()?;
            let stats = tx.stats()?;
            let used = stats.stored_bytes() + stats.metadata_bytes();
            tx.abort()?;
            Ok(used)
        })?;
        Ok(self.bytes_on_disk().saturating_sub(used))
    }

    /// What the database's file takes (bytes): redb makes it twice as long when it is full, which takes nothing yet.
    pub fn bytes_on_disk(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |meta| meta.len().min(meta.blocks() * BLOCK))
    }

    /// Gives pages that nothing is in back to the file system, and fills the others, if there is room to do that. `false`:
    /// somebody reads, nothing was done. Others wait meanwhile.
    pub fn compact(&self) -> Result<bool, StoreError> {
        let mut db = self.db.write().expect("nobody panics while he compacts");
        // Who reads now reads all the time that this takes: nobody begins to.
        if !self.give_back(&mut db)? {
            return Ok(false);
        }
        // The new tables are written beside the old ones.
        if self.room_for(self.bytes_on_disk()).is_err() {
            return Ok(true);
        }
        let fill = || -> Result<bool, Fault> {
            let tx = db.begin_write()?;
            let done = refill(&tx)?;
            if done {
                tx.commit()?;
            } else {
                tx.abort()?;
            }
            Ok(done)
        };
        if fill().map_err(|fault| self.medium.error(fault))? {
            self.give_back(&mut db)?;
        }
        Ok(true)
    }

    fn give_back(&self, db: &mut Database) -> Result<bool, StoreError> {
        match db.compact() {
            Ok(_) => Ok(true),
            Err(CompactionError::TransactionInProgress) => Ok(false),
            Err(error) => Err(self.medium.error(Fault::Database(Box::new(error.into())))),
        }
    }

    /// One durable write transaction, if there is room to spare for it; nothing is kept if `change` fails.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.check_room()?;
        self.write_anyway(change)
    }

    /// Is there room to spare on the database's file system? Otherwise what might not end is refused before it
    /// begins: after a write that failed, redb wants to be opened again.
    pub fn check_room(&self) -> Result<(), StoreError> {
        self.room_for(0)
    }

    /// The same, when so many bytes more are taken.
    fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        // Where nobody can tell, it is tried.
        let Some(Ok(fs)) = self.dir.as_deref().map(rustix::fs::statvfs) else {
            return Ok(());
        };
        let free = fs.f_bavail.saturating_mul(fs.f_frsize);
        let total = fs.f_blocks.saturating_mul(fs.f_frsize);
        // Some network file systems say nothing of their size.
        if total > 0 && free.saturating_sub(bytes) < RESERVE.min(total / SMALL_RESERVE) {
            let path = self.path().to_owned();
            return Err(StoreError::NoRoom { path, free });
        }
        Ok(())
    }

    /// The same, and from the reserve if need be: what is small, and brings order or makes room.
    pub(crate) fn write_anyway<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.run(|db| {
            let tx = db.begin_write()?;
            let done = change(&tx)?;
            tx.commit()?;
            self.commits.fetch_add(1, Ordering::Release);
            Ok(done)
        })
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
            path: path.to_owned(),
        },
        _ => StoreError::Io {
            doing,
            path: path.to_owned(),
            source,
        },
    }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("making the state directory", dir))?;
    let mode = fs::metadata(dir)
        .map_err(failed("looking at the state directory", dir))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Permissions {
            path: dir.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Asks the kernel for the database in the order in which it is on the disk, as far as that is worth it: all of it is
/// read when it is checked, but page by page in the order of the trees in it.
fn read_ahead(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let mut at = 0;
    // Where nothing was written yet, nothing is asked for.
    while let Ok(from) = seek(&file, SeekFrom::Data(at))
        && from < AHEAD
        && let Ok(until) = seek(&file, SeekFrom::Hole(from))
    {
        at = until.min(AHEAD);
        for offset in (from..at).step_by(AHEAD_STEP as usize) {
            // Best effort: what did not come is read when it is needed.
            let _ = fadvise(&file, offset, NonZeroU64::new(AHEAD_STEP), Advice::WillNeed);
        }
    }
}

/// A database that is not whole could never be opened: it is made beside its place and put there when it is. The
/// file is made here, not by redb, for its mode.
fn make_database(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let dir_file = File::open(dir).map_err(failed("opening the state directory", dir))?;
    // Of two processes that begin at once one makes it.
    dir_file
        .lock()
        .map_err(failed("locking the state directory", dir))?;
    match fs::metadata(path) {
        Ok(meta) if meta.len() > 0 => {
            if meta.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600))
                    .map_err(failed("closing to other users the database", path))?;
            }
            return Ok(());
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("looking at the database", path)(e)),
    }
    let unfinished = dir.join(UNFINISHED);
    let made = fill(&unfinished, path).and_then(|()| {
        fs::rename(&unfinished, path).map_err(failed("putting in place the database", path))?;
        dir_file.sync_all().map_err(failed("syncing the directory", dir))
    });
    if made.is_err() {
        // Best effort: the next attempt begins anew anyway.
        let _ = fs::remove_file(&unfinished);
        return made;
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
    match parent.map(|p| File::open(p).and_then(|f| f.sync_all())) {
        // A parent that may not be read cannot be synced; the directory was there, or was just made.
        Some(Err(e)) if e.kind() != io::ErrorKind::PermissionDenied => {
            Err(failed("syncing the directory", dir)(e))
        }
        _ => Ok(()),
    }
}

/// Makes `unfinished` an empty database; errors name it by `path`.
fn fill(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing what is left of", unfinished)(e));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(unfinished)
        .map_err(failed("making the database", path))?;
    prepared(path, |builder| builder.create(unfinished)).map(drop)
}

/// A database as `create` opens or makes it, with our tables in it; errors name it by `path`.
fn prepared(
    path: &Path,
    create: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
) -> Result<Database, StoreError> {
    let open = || -> Result<Database, Fault> {
        let db = create(Builder::new().set_cache_size(CACHE))?;
        schema::prepare(&db)?;
        Ok(db)
    };
    open().map_err(|fault| fault.at(path))
}
