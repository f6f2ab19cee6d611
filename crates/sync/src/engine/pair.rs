//! Tickets and pairing, both sides: making one, judging its holder, redeeming one. The proof itself is in
//! `pairing`.

use std::path::PathBuf;

use alike_core::message::{MAX_LABEL, PairReply, PairRequest, Refusal};
use alike_store::{DeviceRow, FolderKey, FolderRow, Grant, TicketRow};
use iroh::endpoint::{Connection, SendStream};
use iroh::{EndpointAddr, EndpointId};

use super::folders::{Slot, random};
use super::socket::Responder;
use super::{Engine, Event, short};
use crate::control::{Paired, Shared, Tracked};
use crate::error::Error;
use crate::failpoint::point;
use crate::folder::now_ms;
use crate::pairing::{self, PairError};
use crate::status::rfc3339;
use crate::ticket::Ticket;

/// Longest life of a ticket: a year.
const MAX_EXPIRES: u64 = 366 * 24 * 3600;

/// A `sync pair` that is under way.
#[derive(Debug)]
pub(super) struct Asked {
    ticket: Ticket,
    dir: PathBuf,
    responder: Responder,
}

impl Engine {
    pub(super) fn tracked(&self, key: FolderKey) -> Tracked {
        let row = self.folders[&key].row();
        Tracked {
            folder_id: row.id.to_string(),
            name: row.name.clone(),
            path: row.path.clone(),
        }
    }

    /// `sync share`.
    pub(super) fn share(
        &mut self,
        dir: PathBuf,
        name: Option<String>,
        read_only: bool,
        expires_secs: u64,
        uses: u32,
    ) -> Result<Shared, Error> {
        if name.as_ref().is_some_and(|n| n.is_empty() || n.len() > MAX_LABEL) {
            return Err(Error::Refused(format!(
                "a folder's name has 1 to {MAX_LABEL} bytes"
            )));
        }
        if uses == 0 || expires_secs == 0 || expires_secs > MAX_EXPIRES {
            return Err(Error::Refused(
                "a ticket is good for at least one use, and for one second to a year".into(),
            ));
        }
        if !dir.is_dir() {
            let what = if dir.exists() {
                "is not a directory"
            } else {
                "does not exist"
            };
            return Err(Error::Refused(format!(
                "{} {what}; give the directory to share",
                dir.display()
            )));
        }
        let key = self.track(&dir, name, None)?;
        let row = TicketRow {
            id: random()?,
            secret: random()?,
            folder: key,
            read_only,
            expires_ms: now_ms() + expires_secs * 1000,
            uses_left: uses,
            failures: 0,
            revoked: false,
        };
        point("pair.ticket");
        short(|| self.store.put_ticket(&row))?;
        point("pair.ticket.stored");
        self.admit()?;
        let folder = self.folders[&key].row();
        let ticket = Ticket {
            addr: self.endpoint.addr(),
            id: row.id,
            secret: row.secret,
            folder: folder.id,
            folder_name: folder.name.clone(),
        };
        Ok(Shared {
            folder: self.tracked(key),
            ticket: ticket.to_text(),
            ticket_id: hex(&row.id),
            expires: rfc3339(row.expires_ms),
            uses,
        })
    }

    /// `sync pair`: checks what can be checked before the ticket is used up, then redeems it in a task.
    pub(super) fn pair(
        &mut self,
        text: &str,
        dir: Option<PathBuf>,
        parent: PathBuf,
        responder: Responder,
    ) -> Result<(), Error> {
        let ticket = Ticket::from_text(text).map_err(Error::Refused)?;
        if ticket.maker() == self.endpoint.id() {
            return Err(Error::Refused(
                "this ticket was made by this very device; use it on another one".into(),
            ));
        }
        let here = self
            .folders
            .values()
            .find(|s| s.row().id == ticket.folder)
            .map(|s| s.row().clone());
        let dir = match (dir, &here) {
            (Some(dir), _) => dir,
            (None, Some(row)) => row.path.clone(),
            (None, None) => parent.join(safe_name(&ticket.folder_name)),
        };
        let real = self.check_dir(&dir)?;
        if let Some(row) = here.filter(|row| row.path != real) {
            return Err(Error::Refused(format!(
                "the folder “{}” is synced already at {}; leave out the directory, or `sync forget` it first",
                row.name,
                row.path.display()
            )));
        }
        if let Some(slot) = self
            .folders
            .values()
            .find(|s| s.row().path == real && s.row().id != ticket.folder)
        {
            return Err(Error::Refused(format!(
                "{} is synced already as the folder “{}”; choose another directory",
                dir.display(),
                slot.row().name
            )));
        }
        let asked = Asked {
            ticket,
            dir,
            responder,
        };
        let (endpoint, name, events) = (
            self.endpoint.clone(),
            self.config.name.clone(),
            self.events.clone(),
        );
        tokio::spawn(async move {
            let result = pairing::redeem(&endpoint, &asked.ticket, &name).await;
            let _ = events
                .send(Event::Redeemed {
                    asked: Box::new(asked),
                    result,
                })
                .await;
        });
        Ok(())
    }

    /// The ticket's maker has answered.
    pub(super) fn redeemed(&mut self, asked: Asked, result: Result<PairReply, PairError>) {
        match self.finish_pair(&asked, result) {
            Ok(paired) => asked.responder.done(&paired),
            Err(error) => asked.responder.failed(error, false),
        }
    }

    fn finish_pair(&mut self, asked: &Asked, result: Result<PairReply, PairError>) -> Result<Paired, Error> {
        let reply = result.map_err(|e| Error::Refused(e.to_string()))?;
        let PairReply::Welcome {
            name,
            folder,
            folder_name,
            read_only,
        } = reply
        else {
            return Err(Error::Refused("the other device gave no answer".into()));
        };
        if folder != asked.ticket.folder {
            return Err(Error::Refused(
                "the other device answered for another folder than the ticket's".into(),
            ));
        }
        let key = self.track(
            &asked.dir,
            Some(folder_name).filter(|_| !self.knows(folder)),
            Some(folder),
        )?;
        point("pair.tracked");
        let maker = asked.ticket.maker();
        let grant = Grant {
            folder: key,
            device: *maker.as_bytes(),
            read_only: false,
            receive_only: read_only,
        };
        self.befriend(maker, name.clone(), asked.ticket.addr.clone(), grant, None)?;
        self.dial_now(maker);
        Ok(Paired {
            folder: self.tracked(key),
            device_id: maker.to_string(),
            device_name: name,
            access: access(read_only).to_owned(),
        })
    }

    fn knows(&self, folder: alike_core::ids::FolderId) -> bool {
        self.folders.values().any(|s| s.row().id == folder)
    }

    /// Somebody wants to use one of our tickets.
    pub(super) fn pair_asked(&mut self, connection: Connection, request: PairRequest, send: SendStream) {
        point("pair.asked");
        let reply = match self.judge(&connection, &request) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!("pairing: {error}");
                PairReply::Refused(Refusal::Unknown)
            }
        };
        tokio::spawn(async move {
            if let Err(error) = pairing::reply(send, &reply).await {
                tracing::debug!("pairing: {error}");
            }
            drop(connection);
        });
    }

    fn judge(&mut self, connection: &Connection, request: &PairRequest) -> Result<PairReply, Error> {
        let holder = connection.remote_id();
        let mut ticket = self.store.tickets()?.into_iter().find(|t| t.id == request.ticket);
        let judged = pairing::judge(connection, request, ticket.as_ref(), now_ms());
        // Whoever used a ticket up and was cut off before the answer tries again: with the rights it has by now, for
        // the ticket may have been somebody else's.
        let known = ticket.as_ref().and_then(|t| self.grant(t.folder, holder));
        if let (Err(Refusal::Used), Some(grant)) = (judged, known)
            && let Some(row) = self.folders.get(&grant.folder).map(|s| s.row())
        {
            return Ok(self.welcome(row, grant.read_only));
        }
        let (Ok(()), Some(ticket)) = (judged, &mut ticket) else {
            if let (Err(Refusal::Unknown), Some(mut ticket)) = (judged, ticket) {
                ticket.failures += 1;
                self.store.put_ticket(&ticket)?;
                self.admit()?;
            }
            return Ok(PairReply::Refused(judged.err().unwrap_or(Refusal::Unknown)));
        };
        let Some(row) = self.folders.get(&ticket.folder).map(|s| s.row().clone()) else {
            return Ok(PairReply::Refused(Refusal::FolderGone));
        };
        point("pair.judged");
        ticket.uses_left -= 1;
        let mut addr = EndpointAddr::new(holder);
        addr.addrs
            .extend(connection.paths().iter().map(|p| p.remote_addr().clone()));
        let read_only = ticket.read_only;
        let grant = Grant {
            folder: row.key,
            device: *holder.as_bytes(),
            read_only,
            receive_only: false,
        };
        self.befriend(holder, request.name.clone(), addr, grant, Some(ticket))?;
        let name = request.name.clone();
        self.journal.say(
            "paired",
            Some(row.name.clone()),
            Some(name.clone()),
            format!("paired with {name}"),
        );
        Ok(self.welcome(&row, read_only))
    }

    /// What a device may do in a folder, if it takes part.
    fn grant(&self, key: FolderKey, device: EndpointId) -> Option<Grant> {
        match self.folders.get(&key)? {
            Slot::Open(folder) => folder.grants.get(&device).cloned(),
            Slot::Closed(_) => None,
        }
    }

    fn welcome(&self, row: &FolderRow, read_only: bool) -> PairReply {
        PairReply::Welcome {
            name: self.config.name.clone(),
            folder: row.id,
            folder_name: row.name.clone(),
            read_only,
        }
    }

    /// Both know each other from here on: one transaction, then the sessions begin.
    fn befriend(
        &mut self,
        device: EndpointId,
        name: String,
        addr: EndpointAddr,
        grant: Grant,
        ticket: Option<&TicketRow>,
    ) -> Result<(), Error> {
        let known = self.devices.get(&device).map(|d| d.row.clone());
        let row = DeviceRow {
            id: *device.as_bytes(),
            name,
            addrs: postcard::to_allocvec(&addr).unwrap_or_default(),
            paused: false,
            last_seen_ms: known.as_ref().and_then(|k| k.last_seen_ms),
            paired_ms: known.map_or_else(now_ms, |k| k.paired_ms),
        };
        short(|| self.store.pair(&row, &grant, ticket))?;
        point("pair.stored");
        self.add_device(row);
        let key = grant.folder;
        if let Some(Slot::Open(folder)) = self.folders.get_mut(&key) {
            folder.grants.insert(device, grant);
        }
        self.admit()?;
        self.begin_session(key, device, true);
        Ok(())
    }
}

/// `read-write` or `read-only`.
pub(super) fn access(read_only: bool) -> &'static str {
    if read_only { "read-only" } else { "read-write" }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The other device chose this name: it becomes one component, never a way out.
fn safe_name(name: &str) -> String {
    let cleaned: String = name
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    match alike_core::path::Name::new(cleaned.as_bytes()) {
        Ok(_) => cleaned,
        Err(_) => "folder".into(),
    }
}
