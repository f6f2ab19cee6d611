//! Every table of the database, and its version. Never reads or writes rows beyond making an empty database.
//!
//! A path key is `folder (u32, big-endian) ++ directory ++ 0x00 ++ name`; see [`crate::keys`]. A value of bytes
//! is one version byte and then postcard, except for tree nodes, which are as `alike_core::tree` wrote them, and blocks
//! of the archive.

use alike_core::entry::NamedEntry;
use alike_core::state::StateEntry;
use alike_core::tree;
use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::error::Fault;

/// Version of the database that this program reads and writes; every change of this file or of a row raises it.
pub const VERSION: u64 = 6;
/// What is of this version lacks [`ARCHIVED`] and [`ARCHIVE`] alone, and gets them when it is opened.
const WITHOUT_ARCHIVE: u64 = 5;

type Table<K, V> = TableDefinition<'static, K, V>;

/// [`META_VERSION`], [`META_NEXT_FOLDER`], [`META_BIRTH`], [`META_SWEEPING`] and [`META_NEXT_BLOCK`].
pub(crate) const META: Table<&str, u64> = TableDefinition::new("meta");
/// The database's version.
pub(crate) const META_VERSION: &str = "version";
/// The key of the next folder; never goes back, so that keys are never reused.
pub(crate) const META_NEXT_FOLDER: &str = "next_folder";
/// Where the replica ids in here were made: see [`crate::Store::check_birth`].
pub(crate) const META_BIRTH: &str = "birth";
/// There if a sweep has removed some nodes and not yet all: see [`crate::Snapshot::is_half_swept`].
pub(crate) const META_SWEEPING: &str = "sweeping";
/// The number of the next block of the archive; never goes back, so that a number always names the same bytes.
pub(crate) const META_NEXT_BLOCK: &str = "next_block";

/// Digest of a tree node → its bytes. State and content trees have digests of different domains.
pub(crate) const NODES: Table<&[u8; 32], &[u8]> = TableDefinition::new("nodes");
/// Digest of a state tree → its summary. A row here ⇒ the content tree it names is in [`NODES`] or archived.
pub(crate) const SUMMARIES: Table<&[u8; 32], &[u8]> = TableDefinition::new("summaries");
/// First eight bytes of the digest of a tree node, read as a big-endian number → its block in [`ARCHIVE`], and the
/// how-manieth it is in there. See [`crate::archive`].
pub(crate) const ARCHIVED: Table<u64, (u32, u16)> = TableDefinition::new("archived");
/// Number of a block → tree nodes, compressed. A row of [`ARCHIVED`] ⇒ its block is here.
pub(crate) const ARCHIVE: Table<u32, &[u8]> = TableDefinition::new("archive");

/// Folder → its row.
pub(crate) const FOLDERS: Table<u32, &[u8]> = TableDefinition::new("folders");
/// Folder → its head; no row = the empty head.
pub(crate) const HEADS: Table<u32, &[u8]> = TableDefinition::new("heads");
/// Folder and seq → this replica's chain after the commit that ended with that write; the newest of them.
pub(crate) const CHAIN: Table<(u32, u64), &[u8; 32]> = TableDefinition::new("chain");
/// Path key → what is on disk there.
pub(crate) const INDEX: Table<&[u8], &[u8]> = TableDefinition::new("index");
/// `digest (32) ++ folder (u32, big-endian) ++ path`: the files of [`INDEX`], by content. Exactly those.
pub(crate) const BLOBS: Table<&[u8], ()> = TableDefinition::new("blobs");
/// Path key → bytes to fetch before the path can be applied.
pub(crate) const PENDING: Table<&[u8], u64> = TableDefinition::new("pending");
/// Folder → number and bytes of its rows in [`PENDING`]; no row = none. u128: peers choose the sizes.
pub(crate) const PENDING_TOTALS: Table<u32, (u64, u128)> = TableDefinition::new("pending_totals");
/// Path key → an operation on the path that was begun.
pub(crate) const INTENTS: Table<&[u8], &[u8]> = TableDefinition::new("intents");
/// Folder and number → a generation. A row here ⇒ its trees are in [`NODES`] or archived.
pub(crate) const GENERATIONS: Table<(u32, u64), &[u8]> = TableDefinition::new("generations");

/// Folder and number → a generation that was let go of, as it was in [`GENERATIONS`], until what only it reached is
/// gone. A row here ⇒ its trees are in [`NODES`] or archived.
pub(crate) const DROPPED: Table<(u32, u64), &[u8]> = TableDefinition::new("dropped");

/// Folder and number of generations that are kept from gc; their rows are in [`GENERATIONS`].
pub(crate) const PINS: Table<(u32, u64), ()> = TableDefinition::new("pins");
/// Digest of a content → where in which pack it is: number, offset, length. A row here ⇒ the bytes are durable.
pub(crate) const PACKED: Table<&[u8; 32], (u32, u64, u32)> = TableDefinition::new("packed");

/// Device → its row.
pub(crate) const DEVICES: Table<&[u8; 32], &[u8]> = TableDefinition::new("devices");
/// Folder and device → what each may do.
pub(crate) const GRANTS: Table<(u32, &[u8; 32]), &[u8]> = TableDefinition::new("grants");
/// Ticket → its row.
pub(crate) const TICKETS: Table<&[u8; 8], &[u8]> = TableDefinition::new("tickets");

/// Makes an empty database into ours; refuses one that is not ours or of another version.
pub(crate) fn prepare(db: &Database) -> Result<(), Fault> {
    let read = db.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => match meta.get(META_VERSION)?.map(|v| v.value()) {
            Some(VERSION) => Ok(()),
            Some(WITHOUT_ARCHIVE) => add_archive(db),
            Some(found) => Err(Fault::Version(found)),
            None => Err(Fault::Corrupt("it has no version".to_owned())),
        },
        Err(TableError::TableDoesNotExist(_)) if read.list_tables()?.next().is_none() => create(db),
        Err(TableError::TableDoesNotExist(_)) => Err(Fault::Corrupt("it is not alike's".to_owned())),
        Err(e) => Err(e.into()),
    }
}

fn add_archive(db: &Database) -> Result<(), Fault> {
    let tx = db.begin_write()?;
    tx.open_table(ARCHIVED)?;
    tx.open_table(ARCHIVE)?;
    tx.open_table(META)?.insert(META_VERSION, VERSION)?;
    Ok(tx.commit()?)
}

/// All tables, so that reading never misses one, and the empty trees, so that an empty folder's exist.
fn create(db: &Database) -> Result<(), Fault> {
    let tx = db.begin_write()?;
    {
        let mut meta = tx.open_table(META)?;
        meta.insert(META_VERSION, VERSION)?;
        meta.insert(META_NEXT_FOLDER, 1)?;
        let mut empty = Vec::new();
        tree::write::<NamedEntry>(&[], &mut |d, b| empty.push((d, b)));
        tree::write::<StateEntry>(&[], &mut |d, b| empty.push((d, b)));
        let mut nodes = tx.open_table(NODES)?;
        for (digest, bytes) in &empty {
            nodes.insert(&digest.0, bytes.as_slice())?;
        }
        tx.open_table(SUMMARIES)?;
        tx.open_table(ARCHIVED)?;
        tx.open_table(ARCHIVE)?;
        tx.open_table(FOLDERS)?;
        tx.open_table(HEADS)?;
        tx.open_table(CHAIN)?;
        tx.open_table(INDEX)?;
        tx.open_table(BLOBS)?;
        tx.open_table(PENDING)?;
        tx.open_table(PENDING_TOTALS)?;
        tx.open_table(INTENTS)?;
        tx.open_table(GENERATIONS)?;
        tx.open_table(DROPPED)?;
        tx.open_table(PINS)?;
        tx.open_table(PACKED)?;
        tx.open_table(DEVICES)?;
        tx.open_table(GRANTS)?;
        tx.open_table(TICKETS)?;
    }
    Ok(tx.commit()?)
}
