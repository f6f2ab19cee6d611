//! Folders of this device and their heads. Never touches the folders themselves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use alike_core::claim::{Claim, Claims, NO_CHAIN};
use alike_core::digest::Digest;
use alike_core::ids::{FolderId, Hlc, ReplicaId, Vector};
use alike_core::state::State;
use alike_core::view::Summary;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::archive::{Blocks, NodeTables};
use crate::error::{Fault, StoreError};
use crate::keys::{self, Span};
use crate::schema::{
    BLOBS, CHAIN, DROPPED, FOLDERS, GENERATIONS, GRANTS, HEADS, INDEX, INTENTS, META, META_BIRTH,
    META_NEXT_FOLDER, PENDING, PENDING_TOTALS, PINS,
};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::{devices, value};

/// A folder in this database; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FolderKey(pub u32);

/// Links of a replica's chain that are kept: with what others may still know of it, it is compared.
const MAX_CHAIN: usize = 4096;
/// They are counted when the seq passes a multiple of this.
const CHAIN_CHECK: u64 = 1024;

/// Who a device is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its name in dots.
    pub id: ReplicaId,
    /// What the name was made with.
    pub nonce: [u8; 16],
}

/// A folder goes on under a new id.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Who the device is from now on.
    pub replica: Replica,
    /// What it made under the old one; `None` if that is nothing.
    pub retired: Option<Claim>,
}

/// A folder of this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderRow {
    /// Its key in this database.
    pub key: FolderKey,
    /// Its id, the same on all devices.
    pub id: FolderId,
    /// What people call it.
    pub name: String,
    /// Where it is; any bytes.
    pub path: PathBuf,
    /// Who this device is in it.
    pub replica: Replica,
    /// What `.alike/` in its root says.
    pub marker: [u8; 16],
    /// Device number of its root.
    pub root_dev: u64,
    /// Inode number of its root.
    pub root_ino: u64,
    /// Neither scanned nor synced.
    pub paused: bool,
    /// When it was added, milliseconds since 1970.
    pub created_ms: u64,
}

/// A folder to add: a [`FolderRow`] without what the store assigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFolder {
    /// Its id, the same on all devices.
    pub id: FolderId,
    /// What people call it.
    pub name: String,
    /// Where it is; any bytes.
    pub path: PathBuf,
    /// Who this device is in it.
    pub replica: Replica,
    /// What `.alike/` in its root says.
    pub marker: [u8; 16],
    /// Device number of its root.
    pub root_dev: u64,
    /// Inode number of its root.
    pub root_ino: u64,
    /// When it was added, milliseconds since 1970.
    pub created_ms: u64,
}

/// HEAD: the merged state of a folder, and its clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// State tree and vector, always one pair.
    pub state: State,
    /// What the state comes to.
    pub summary: Summary,
    /// The largest clock seen.
    pub hlc: Hlc,
    /// The last seq that this replica gave to a write.
    pub seq: u64,
    /// The chain of this replica's commits.
    pub chain: Digest,
    /// What the others, and this device under older ids, claimed of themselves.
    pub claims: Claims,
    /// By device: the last seq of this replica that it has shown to know, with our chain.
    pub confirmed: BTreeMap<[u8; 32], u64>,
    /// The number of the newest generation; 0 = none yet.
    pub generation: u64,
    /// Was the folder looked at completely once? What the scans before found is nobody's edit.
    pub scanned: bool,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            state: State::default(),
            summary: Summary::empty(),
            hlc: Hlc::default(),
            seq: 0,
            chain: NO_CHAIN,
            claims: Claims::default(),
            confirmed: BTreeMap::new(),
            generation: 0,
            scanned: false,
        }
    }
}

/// A [`FolderRow`] as it is stored (the key is in the table's key).
#[derive(Serialize, Deserialize)]
struct StoredFolder {
    id: FolderId,
    name: String,
    path: Vec<u8>,
    replica: Replica,
    marker: [u8; 16],
    root_dev: u64,
    root_ino: u64,
    paused: bool,
    created_ms: u64,
}

impl StoredFolder {
    fn into_row(self, key: FolderKey) -> FolderRow {
        FolderRow {
            key,
            id: self.id,
            name: self.name,
            path: PathBuf::from(OsString::from_vec(self.path)),
            replica: self.replica,
            marker: self.marker,
            root_dev: self.root_dev,
            root_ino: self.root_ino,
            paused: self.paused,
            created_ms: self.created_ms,
        }
    }
}

/// A [`Head`] as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredHead {
    root: Option<Digest>,
    vector: Vector,
    summary: Summary,
    hlc: Hlc,
    seq: u64,
    chain: Digest,
    claims: Claims,
    confirmed: BTreeMap<[u8; 32], u64>,
    generation: u64,
    scanned: bool,
}

/// Refuses what is about a folder that is not there.
pub(crate) fn must_exist(tx: &WriteTransaction, folder: FolderKey) -> Result<(), Fault> {
    match tx.open_table(FOLDERS)?.get(folder.0)? {
        Some(_) => Ok(()),
        None => Err(Fault::NoFolder(folder)),
    }
}

/// The content tree and the state tree that a head names.
pub(crate) fn trees_of_head(bytes: &[u8]) -> Result<(Digest, Option<Digest>), Fault> {
    let head: StoredHead = value::decode("heads", bytes)?;
    Ok((head.summary.root, head.root))
}

/// Writes a folder's head; its trees must be there.
pub(crate) fn put_head(tx: &WriteTransaction, folder: FolderKey, head: &Head) -> Result<(), Fault> {
    let nodes = NodeTables::open(tx, &Blocks::default())?;
    nodes.must_exist(&head.summary.root)?;
    if let Some(root) = &head.state.root {
        nodes.must_exist(root)?;
    }
    let stored = StoredHead {
        root: head.state.root,
        vector: head.state.vector.clone(),
        summary: head.summary,
        hlc: head.hlc,
        seq: head.seq,
        chain: head.chain,
        claims: head.claims.clone(),
        confirmed: head.confirmed.clone(),
        generation: head.generation,
        scanned: head.scanned,
    };
    tx.open_table(HEADS)?
        .insert(folder.0, value::encode(&stored).as_slice())?;
    put_link(tx, folder, head)
}

/// Remembers where the chain is, and forgets what is far back.
fn put_link(tx: &WriteTransaction, folder: FolderKey, head: &Head) -> Result<(), Fault> {
    if head.seq == 0 {
        return Ok(());
    }
    let mut table = tx.open_table(CHAIN)?;
    let last = table.range((folder.0, 0)..=(folder.0, u64::MAX))?.next_back();
    let last = last.transpose()?.map(|row| row.0.value().1);
    if last == Some(head.seq) {
        return Ok(());
    }
    table.insert((folder.0, head.seq), &head.chain.0)?;
    if last.is_some_and(|last| last / CHAIN_CHECK != head.seq / CHAIN_CHECK) {
        let mut newest = table.range((folder.0, 0)..=(folder.0, u64::MAX))?.rev();
        let oldest = newest.nth(MAX_CHAIN - 1).transpose()?.map(|row| row.0.value().1);
        drop(newest);
        if let Some(oldest) = oldest {
            table.retain_in((folder.0, 0)..(folder.0, oldest), |_, _| false)?;
        }
    }
    Ok(())
}

/// Makes a folder go on under another id, from the first link of its chain on.
pub(crate) fn put_replica(tx: &WriteTransaction, folder: FolderKey, replica: Replica) -> Result<(), Fault> {
    let mut table = tx.open_table(FOLDERS)?;
    let mut stored: StoredFolder = match table.get(folder.0)? {
        Some(bytes) => value::decode("folders", bytes.value())?,
        None => return Err(Fault::NoFolder(folder)),
    };
    stored.replica = replica;
    table.insert(folder.0, value::encode(&stored).as_slice())?;
    tx.open_table(CHAIN)?
        .retain_in((folder.0, 0)..=(folder.0, u64::MAX), |_, _| false)?;
    Ok(())
}

impl Store {
    /// All folders, in the order in which they were added.
    pub fn folders(&self) -> Result<Vec<FolderRow>, StoreError> {
        self.run(|db| {
            let mut rows = Vec::new();
            for row in db.begin_read()?.open_table(FOLDERS)?.iter()? {
                let (key, bytes) = row?;
                let stored: StoredFolder = value::decode("folders", bytes.value())?;
                rows.push(stored.into_row(FolderKey(key.value())));
            }
            Ok(rows)
        })
    }

    /// Adds a folder, with the next key and an empty head.
    pub fn add_folder(&self, new: NewFolder) -> Result<FolderRow, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let next = meta.get(META_NEXT_FOLDER)?.map(|v| v.value());
            let next = next.ok_or_else(|| Fault::Corrupt("the next folder's key is missing".to_owned()))?;
            let key = u32::try_from(next).map_err(|_| Fault::Corrupt(format!("folder key {next}")))?;
            meta.insert(META_NEXT_FOLDER, next + 1)?;
            let stored = StoredFolder {
                id: new.id,
                name: new.name,
                path: new.path.as_os_str().as_bytes().to_vec(),
                replica: new.replica,
                marker: new.marker,
                root_dev: new.root_dev,
                root_ino: new.root_ino,
                paused: false,
                created_ms: new.created_ms,
            };
            tx.open_table(FOLDERS)?
                .insert(key, value::encode(&stored).as_slice())?;
            Ok(stored.into_row(FolderKey(key)))
        })
    }

    /// Pauses or resumes a folder.
    pub fn set_folder_paused(&self, key: FolderKey, paused: bool) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            let mut table = tx.open_table(FOLDERS)?;
            let mut stored: StoredFolder = match table.get(key.0)? {
                Some(bytes) => value::decode("folders", bytes.value())?,
                None => return Err(Fault::NoFolder(key)),
            };
            stored.paused = paused;
            table.insert(key.0, value::encode(&stored).as_slice())?;
            Ok(())
        })
    }

    /// Replica ids are good only where they were made: a copy of the database (a backup put back, a clone) would
    /// give out dots that others have seen already. `place` names where the database is now; the first call
    /// remembers it, and where it differs later every folder goes on under a new id from `renew`, which is told the
    /// folder, who the device was in it, and its last write with the chain. Did it?
    pub fn check_birth(
        &self,
        place: u64,
        mut renew: impl FnMut(FolderId, Replica, u64, Digest) -> Renewal,
    ) -> Result<bool, StoreError> {
        self.write_anyway(|tx| {
            let mut meta = tx.open_table(META)?;
            let known = meta.get(META_BIRTH)?.map(|v| v.value());
            if known == Some(place) {
                return Ok(false);
            }
            meta.insert(META_BIRTH, place)?;
            if known.is_none() {
                return Ok(false);
            }
            let mut rows = Vec::new();
            for row in tx.open_table(FOLDERS)?.iter()? {
                let (key, bytes) = row?;
                rows.push((
                    key.value(),
                    value::decode::<StoredFolder>("folders", bytes.value())?,
                ));
            }
            let mut heads = tx.open_table(HEADS)?;
            for (key, folder) in rows {
                let head: Option<StoredHead> = match heads.get(key)? {
                    Some(bytes) => Some(value::decode("heads", bytes.value())?),
                    None => None,
                };
                let was = folder.replica;
                let (seq, chain) = head.as_ref().map_or((0, NO_CHAIN), |h| (h.seq, h.chain));
                let renewal = renew(folder.id, was, seq, chain);
                put_replica(tx, FolderKey(key), renewal.replica)?;
                if let Some(mut head) = head {
                    // The old id's dots stay in the vector: they were seen.
                    if let Some(claim) = renewal.retired {
                        head.claims.take(was.id, claim);
                    }
                    head.seq = 0;
                    head.chain = NO_CHAIN;
                    head.confirmed.clear();
                    heads.insert(key, value::encode(&head).as_slice())?;
                }
            }
            Ok(true)
        })
    }

    /// Forgets a folder with everything the database has of it; tree nodes stay for gc. Does nothing if it is
    /// not there.
    pub fn remove_folder(&self, key: FolderKey) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            tx.open_table(FOLDERS)?.remove(key.0)?;
            tx.open_table(HEADS)?.remove(key.0)?;
            tx.open_table(CHAIN)?
                .retain_in((key.0, 0)..=(key.0, u64::MAX), |_, _| false)?;
            tx.open_table(PENDING_TOTALS)?.remove(key.0)?;
            let span = Span::folder(key);
            tx.open_table(INDEX)?
                .retain_in::<&[u8], _>(span.bounds(), |_, _| false)?;
            tx.open_table(PENDING)?
                .retain_in::<&[u8], _>(span.bounds(), |_, _| false)?;
            tx.open_table(INTENTS)?
                .retain_in::<&[u8], _>(span.bounds(), |_, _| false)?;
            tx.open_table(BLOBS)?
                .retain(|place, ()| keys::blob_folder(place) != Some(key))?;
            tx.open_table(GENERATIONS)?
                .retain_in((key.0, 0u64)..=(key.0, u64::MAX), |_, _| false)?;
            tx.open_table(DROPPED)?
                .retain_in((key.0, 0u64)..=(key.0, u64::MAX), |_, _| false)?;
            tx.open_table(PINS)?
                .retain_in((key.0, 0u64)..=(key.0, u64::MAX), |_, _| false)?;
            tx.open_table(GRANTS)?
                .retain_in((key.0, &[0; 32])..=(key.0, &[0xff; 32]), |_, _| false)?;
            devices::remove_tickets_of(tx, key)
        })
    }
}

impl Snapshot {
    /// The folder's head; the empty one if nothing was committed yet.
    pub fn head(&self, folder: FolderKey) -> Result<Head, StoreError> {
        self.run(|| {
            let Some(bytes) = self.heads.get(folder.0)? else {
                return Ok(Head::default());
            };
            let stored: StoredHead = value::decode("heads", bytes.value())?;
            Ok(Head {
                state: State {
                    root: stored.root,
                    vector: stored.vector,
                },
                summary: stored.summary,
                hlc: stored.hlc,
                seq: stored.seq,
                chain: stored.chain,
                claims: stored.claims,
                confirmed: stored.confirmed,
                generation: stored.generation,
                scanned: stored.scanned,
            })
        })
    }

    /// Who this device is in the folder; `None` if there is no such folder.
    pub fn replica(&self, folder: FolderKey) -> Result<Option<ReplicaId>, StoreError> {
        self.run(|| {
            let row = self.folders.get(folder.0)?;
            let stored = row.map(|bytes| value::decode::<StoredFolder>("folders", bytes.value()));
            Ok(stored.transpose()?.map(|folder| folder.replica.id))
        })
    }

    /// The replica's chain after the commit that ended with its write `seq`; `None` if none did, or it is too long ago.
    pub fn chain(&self, folder: FolderKey, seq: u64) -> Result<Option<Digest>, StoreError> {
        self.run(|| Ok(self.chain.get((folder.0, seq))?.map(|row| Digest(*row.value()))))
    }

    /// How far back [`Snapshot::chain`] knows; `None` = nothing was written yet.
    pub fn chain_start(&self, folder: FolderKey) -> Result<Option<u64>, StoreError> {
        self.run(|| {
            let mut rows = self.chain.range((folder.0, 0)..=(folder.0, u64::MAX))?;
            Ok(rows.next().transpose()?.map(|row| row.0.value().1))
        })
    }
}
