//! The durable truth of alike in one state directory: a redb database. Synchronous; it never touches users'
//! files, never asks a clock and never decides: it keeps what it is given, whole transactions or nothing.

mod archive;
mod check;
mod commit;
mod devices;
mod dropped;
mod error;
mod folders;
mod gc;
mod generations;
mod index;
mod keys;
mod latest;
mod leases;
mod medium;
mod packs;
mod pins;
mod refill;
mod schema;
mod snapshot;
mod store;
mod trees;
mod value;

pub use archive::Archiving;
pub use check::NodesChecked;
pub use commit::Commit;
pub use devices::{DeviceRow, Grant, TicketRow};
pub use error::StoreError;
pub use folders::{FolderKey, FolderRow, Head, NewFolder, Renewal, Replica};
pub use gc::{Marks, Sweep};
pub use generations::{Generation, Reason};
pub use index::{Fingerprint, IndexRow, Intent};
pub use latest::Latest;
pub use leases::{Alone, Hold, Lease};
pub use packs::{MAX_PACKED, PackSweep};
pub use redb::StorageBackend;
pub use schema::VERSION;
pub use snapshot::Snapshot;
pub use store::{DATABASE, Store};
