//! What commands ask, one arm a request. Never prints; the command does.

use alike_store::FolderKey;
use iroh::EndpointId;

use super::folders::Slot;
use super::pair::{access, hex};
use super::socket::Responder;
use super::{Engine, short};
use crate::control::{DeviceInfo, FolderRef, Named, Pong, Request, TicketInfo};
use crate::error::Error;
use crate::folder::now_ms;
use crate::status::rfc3339;

/// What can be paused.
enum Target {
    Folder(FolderKey),
    Device(EndpointId),
}

impl Engine {
    pub(super) fn request(&mut self, request: Request, responder: Responder) {
        let result = match request {
            Request::Ping => {
                responder.done(&Pong {
                    version: env!("CARGO_PKG_VERSION").into(),
                    pid: std::process::id(),
                });
                Ok(())
            }
            Request::Track { dir, name } => self.track(&dir, name, None).map(|key| {
                let _ = self.admit();
                responder.done(&self.tracked(key));
            }),
            Request::Share {
                dir,
                name,
                read_only,
                expires_secs,
                uses,
            } => self
                .share(dir, name, read_only, expires_secs, uses)
                .map(|shared| responder.done(&shared)),
            Request::Pair {
                ticket,
                dir,
                default_parent,
            } => self.pair(&ticket, dir, default_parent, responder.clone()),
            Request::Status => {
                responder.done(&self.status());
                Ok(())
            }
            Request::WatchStatus => {
                responder.event(&self.status());
                self.journal.watch_status(responder.clone());
                Ok(())
            }
            Request::Events => {
                self.journal.subscribe(responder.clone());
                Ok(())
            }
            Request::Wait { folder, timeout_ms } => self
                .find_folder(&folder)
                .map(|key| self.wait(key, timeout_ms, responder.clone())),
            Request::Devices => {
                responder.done(&self.device_list());
                Ok(())
            }
            Request::Unpair { device } => self.unpair(&device).map(|named| responder.done(&named)),
            Request::Forget { folder } => self.forget_folder(&folder, responder.clone()),
            Request::Conflicts { folder } => self.conflicts(&folder, responder.clone()),
            Request::Resolve { path, keep } => self.resolve(&path, keep, responder.clone()),
            Request::Accept { folder } => self.answer_hold(&folder, true, responder.clone()),
            Request::Reject { folder } => self.answer_hold(&folder, false, responder.clone()),
            Request::Pause { target } => self.pause(&target, true).map(|named| responder.done(&named)),
            Request::Resume { target } => self.pause(&target, false).map(|named| responder.done(&named)),
            Request::Tickets => self.ticket_list().map(|list| responder.done(&list)),
            Request::Revoke { ticket } => self.revoke(&ticket).map(|named| responder.done(&named)),
            Request::Past(request) => self.past(request, responder.clone()),
            Request::Stop => {
                self.stopping = Some(responder.clone());
                Ok(())
            }
        };
        if let Err(error) = result {
            responder.failed(error, false);
        }
    }

    fn device_list(&self) -> Vec<DeviceInfo> {
        let mut list: Vec<DeviceInfo> = self
            .devices
            .values()
            .map(|device| DeviceInfo {
                id: device.id.to_string(),
                name: device.row.name.clone(),
                connected: device.link.is_some(),
                paused: device.row.paused,
                path: device.path().0.to_owned(),
                last_seen: device.row.last_seen_ms.map(rfc3339),
                folders: self
                    .folders_of(device.id)
                    .iter()
                    .map(|k| self.folders[k].row().name.clone())
                    .collect(),
            })
            .collect();
        list.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        list
    }

    fn find_device(&self, wanted: &str) -> Result<EndpointId, Error> {
        let by_name: Vec<_> = self.devices.values().filter(|d| d.row.name == wanted).collect();
        let by_id: Vec<_> = self
            .devices
            .values()
            .filter(|d| d.id.to_string().starts_with(wanted))
            .collect();
        match (&by_name[..], &by_id[..]) {
            ([device], _) => Ok(device.id),
            ([], [device]) if !wanted.is_empty() => Ok(device.id),
            ([], _) => {
                let names: Vec<_> = self.devices.values().map(|d| d.row.name.clone()).collect();
                let names = if names.is_empty() {
                    "none is paired".into()
                } else {
                    names.join(", ")
                };
                Err(Error::Refused(format!(
                    "no device “{wanted}”; there are: {names}"
                )))
            }
            _ => Err(Error::Refused(format!(
                "several devices are called “{wanted}”: give the id"
            ))),
        }
    }

    fn unpair(&mut self, wanted: &str) -> Result<Named, Error> {
        let id = self.find_device(wanted)?;
        short(|| self.store.remove_device(id.as_bytes()))?;
        if let Some(mut device) = self.devices.remove(&id) {
            device.close("unpaired");
            for key in self.folders.keys().copied().collect::<Vec<_>>() {
                if let Some(Slot::Open(folder)) = self.folders.get_mut(&key) {
                    folder.grants.remove(&id);
                    folder.sessions.remove(&id);
                }
                self.let_go(key, id);
                self.update_sources(key);
            }
            self.admit()?;
            return Ok(Named {
                kind: "device".into(),
                name: device.row.name,
            });
        }
        Err(Error::Refused(format!("no device “{wanted}”")))
    }

    fn forget_folder(&mut self, wanted: &FolderRef, responder: Responder) -> Result<(), Error> {
        let key = self.find_folder(wanted)?;
        let name = self.folders[&key].row().name.clone();
        let slot = self.forget(key)?;
        self.admit()?;
        let store = self.store.clone();
        tokio::spawn(async move {
            // Its threads must be done with the rows before those go.
            slot.close().await;
            let removed = tokio::task::spawn_blocking(move || store.remove_folder(key)).await;
            match removed {
                Ok(Ok(())) => responder.done(&Named {
                    kind: "folder".into(),
                    name,
                }),
                Ok(Err(error)) => responder.failed(error, false),
                Err(error) => responder.failed(error, false),
            }
        });
        Ok(())
    }

    fn pause_target(&self, wanted: &FolderRef) -> Result<Target, Error> {
        match (self.find_folder(wanted), &wanted.name) {
            (Ok(key), _) => Ok(Target::Folder(key)),
            (Err(_), Some(name)) if self.find_device(name).is_ok() => {
                Ok(Target::Device(self.find_device(name)?))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn pause(&mut self, wanted: &FolderRef, paused: bool) -> Result<Named, Error> {
        match self.pause_target(wanted)? {
            Target::Folder(key) => {
                self.pause_folder(key, paused)?;
                Ok(Named {
                    kind: "folder".into(),
                    name: self.folders[&key].row().name.clone(),
                })
            }
            Target::Device(id) => {
                let device = self.devices.get_mut(&id).expect("it was just found");
                device.row.paused = paused;
                let row = device.row.clone();
                let link = if paused { device.link.take() } else { None };
                short(|| self.store.put_device(&row))?;
                if let Some(link) = link {
                    link.close("paused");
                    self.sessions_down(id);
                }
                self.dial_now(id);
                self.admit()?;
                Ok(Named {
                    kind: "device".into(),
                    name: row.name,
                })
            }
        }
    }

    fn ticket_list(&self) -> Result<Vec<TicketInfo>, Error> {
        let now = now_ms();
        let open = self.store.tickets()?.into_iter().filter(|t| {
            !t.revoked && t.uses_left > 0 && t.expires_ms > now && self.folders.contains_key(&t.folder)
        });
        Ok(open
            .map(|t| TicketInfo {
                id: hex(&t.id),
                folder: self.folders[&t.folder].row().name.clone(),
                access: access(t.read_only).to_owned(),
                expires: rfc3339(t.expires_ms),
                uses_left: t.uses_left,
            })
            .collect())
    }

    fn revoke(&mut self, wanted: &str) -> Result<Named, Error> {
        let tickets = self.store.tickets()?;
        let found: Vec<_> = tickets
            .into_iter()
            .filter(|t| hex(&t.id).starts_with(wanted))
            .collect();
        match &found[..] {
            [ticket] if !wanted.is_empty() => {
                let mut ticket = ticket.clone();
                ticket.revoked = true;
                short(|| self.store.put_ticket(&ticket))?;
                self.admit()?;
                Ok(Named {
                    kind: "ticket".into(),
                    name: hex(&ticket.id),
                })
            }
            [] => Err(Error::Refused(format!(
                "no ticket “{wanted}”; `sync tickets` lists them"
            ))),
            _ => Err(Error::Refused(format!(
                "“{wanted}” fits several tickets; give more of the id"
            ))),
        }
    }
}
