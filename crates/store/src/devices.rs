//! Paired devices, what each may do in which folder, and the tickets given out. Never decides who is let in.

use std::fmt;

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, StoreError};
use crate::folders::{self, FolderKey};
use crate::schema::{DEVICES, GRANTS, TICKETS};
use crate::store::Store;
use crate::value;

/// A device that was paired with this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Its public key.
    pub id: [u8; 32],
    /// What people call it.
    pub name: String,
    /// Where it was last reached; opaque to the store.
    pub addrs: Vec<u8>,
    /// Not spoken to.
    pub paused: bool,
    /// When it was last connected, milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// When it was paired, milliseconds since 1970.
    pub paired_ms: u64,
}

/// A device takes part in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The folder.
    pub folder: FolderKey,
    /// The device.
    pub device: [u8; 32],
    /// The device may not write.
    pub read_only: bool,
    /// We may not write: the device let us in read-only.
    pub receive_only: bool,
}

/// A ticket given out; whoever shows its secret may join its folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketRow {
    /// Names it.
    pub id: [u8; 8],
    /// Proves it. Left out of `Debug`.
    pub secret: [u8; 16],
    /// The folder.
    pub folder: FolderKey,
    /// Who joins by it may not write.
    pub read_only: bool,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// How many devices may still join by it.
    pub uses_left: u32,
    /// How often a wrong secret was shown for it.
    pub failures: u32,
    /// Taken back.
    pub revoked: bool,
}

impl fmt::Debug for TicketRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketRow")
            .field("id", &self.id)
            .field("folder", &self.folder)
            .field("read_only", &self.read_only)
            .field("expires_ms", &self.expires_ms)
            .field("uses_left", &self.uses_left)
            .field("failures", &self.failures)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

fn put_device(tx: &WriteTransaction, row: &DeviceRow) -> Result<(), Fault> {
    tx.open_table(DEVICES)?
        .insert(&row.id, value::encode(row).as_slice())?;
    Ok(())
}

fn put_grant(tx: &WriteTransaction, grant: &Grant) -> Result<(), Fault> {
    folders::must_exist(tx, grant.folder)?;
    tx.open_table(GRANTS)?
        .insert((grant.folder.0, &grant.device), value::encode(grant).as_slice())?;
    Ok(())
}

fn put_ticket(tx: &WriteTransaction, ticket: &TicketRow) -> Result<(), Fault> {
    folders::must_exist(tx, ticket.folder)?;
    tx.open_table(TICKETS)?
        .insert(&ticket.id, value::encode(ticket).as_slice())?;
    Ok(())
}

/// Removes the tickets of a folder.
pub(crate) fn remove_tickets_of(tx: &WriteTransaction, folder: FolderKey) -> Result<(), Fault> {
    let mut table = tx.open_table(TICKETS)?;
    let mut gone = Vec::new();
    for row in table.iter()? {
        let ticket: TicketRow = value::decode("tickets", row?.1.value())?;
        if ticket.folder == folder {
            gone.push(ticket.id);
        }
    }
    for id in &gone {
        table.remove(id)?;
    }
    Ok(())
}

impl Store {
    /// All paired devices, by id.
    pub fn devices(&self) -> Result<Vec<DeviceRow>, StoreError> {
        self.run(|db| {
            let mut rows = Vec::new();
            for row in db.begin_read()?.open_table(DEVICES)?.iter()? {
                rows.push(value::decode("devices", row?.1.value())?);
            }
            Ok(rows)
        })
    }

    /// Adds or replaces a device.
    pub fn put_device(&self, row: &DeviceRow) -> Result<(), StoreError> {
        self.write_anyway(|tx| put_device(tx, row))
    }

    /// Forgets a device and all its grants. Does nothing if it is not there.
    pub fn remove_device(&self, id: &[u8; 32]) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            tx.open_table(DEVICES)?.remove(id)?;
            tx.open_table(GRANTS)?.retain(|(_, device), _| device != id)?;
            Ok(())
        })
    }

    /// All grants, by folder and device.
    pub fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        self.run(|db| {
            let mut rows = Vec::new();
            for row in db.begin_read()?.open_table(GRANTS)?.iter()? {
                rows.push(value::decode("grants", row?.1.value())?);
            }
            Ok(rows)
        })
    }

    /// Adds or replaces a grant; its folder must be there.
    pub fn put_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        self.write_anyway(|tx| put_grant(tx, grant))
    }

    /// Removes a grant. Does nothing if it is not there.
    pub fn remove_grant(&self, folder: FolderKey, device: &[u8; 32]) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            tx.open_table(GRANTS)?.remove((folder.0, device))?;
            Ok(())
        })
    }

    /// Pairing in one transaction: the device, its grant and, if some, the ticket it came by.
    pub fn pair(
        &self,
        device: &DeviceRow,
        grant: &Grant,
        ticket: Option<&TicketRow>,
    ) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            put_device(tx, device)?;
            put_grant(tx, grant)?;
            ticket.map_or(Ok(()), |ticket| put_ticket(tx, ticket))
        })
    }

    /// All tickets, also those that ended.
    pub fn tickets(&self) -> Result<Vec<TicketRow>, StoreError> {
        self.run(|db| {
            let mut rows = Vec::new();
            for row in db.begin_read()?.open_table(TICKETS)?.iter()? {
                rows.push(value::decode("tickets", row?.1.value())?);
            }
            Ok(rows)
        })
    }

    /// Adds or replaces a ticket; its folder must be there.
    pub fn put_ticket(&self, ticket: &TicketRow) -> Result<(), StoreError> {
        self.write_anyway(|tx| put_ticket(tx, ticket))
    }

    /// Removes a ticket. Does nothing if it is not there.
    pub fn remove_ticket(&self, id: &[u8; 8]) -> Result<(), StoreError> {
        self.write_anyway(|tx| {
            tx.open_table(TICKETS)?.remove(id)?;
            Ok(())
        })
    }
}
