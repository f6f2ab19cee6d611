//! Paired devices: dialling them, their connections, which of two connections stays. Never speaks of folders;
//! `sessions` does.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use alike_core::ids::FolderId;
use alike_core::message::{ALPN, Message};
use alike_store::DeviceRow;
use iroh::endpoint::Connection;
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use tokio::time::Instant;

use super::{Engine, Event, short};
use crate::peer::Link;

/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between dials of a device that does not answer: first, and at most.
const REDIAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
/// Addresses remembered of one device.
const MAX_ADDRS: usize = 8;

/// A paired device.
pub(super) struct Device {
    pub(super) id: EndpointId,
    pub(super) row: DeviceRow,
    pub(super) link: Option<Link>,
    /// What it said of folders since a word of it that is in doubt, with that word: to be heard in this order.
    pub(super) in_doubt: HashMap<FolderId, VecDeque<Message>>,
    dialling: bool,
    next_dial: Instant,
    pause: Duration,
}

impl Device {
    /// When to dial it; `None` while there is no need.
    pub(super) fn dial_due(&self) -> Option<Instant> {
        (self.link.is_none() && !self.dialling && !self.row.paused).then_some(self.next_dial)
    }

    pub(super) fn close(&mut self, reason: &str) {
        if let Some(link) = self.link.take() {
            link.close(reason);
        }
    }

    /// `direct`, `relay` or `none`, and the round-trip time in milliseconds.
    pub(super) fn path(&self) -> (&'static str, Option<f64>) {
        let Some(link) = &self.link else {
            return ("none", None);
        };
        let paths = link.connection.paths();
        match paths.iter().find(|p| p.is_selected()) {
            Some(path) if path.is_relay() => ("relay", Some(path.rtt().as_secs_f64() * 1e3)),
            Some(path) => ("direct", Some(path.rtt().as_secs_f64() * 1e3)),
            None => ("direct", None),
        }
    }
}

impl Engine {
    /// Takes a device in; it is dialled at once.
    pub(super) fn add_device(&mut self, row: DeviceRow) {
        let Ok(id) = EndpointId::from_bytes(&row.id) else {
            tracing::error!("a device in the database has no valid key");
            return;
        };
        match self.devices.get_mut(&id) {
            Some(device) => device.row = row,
            None => {
                let device = Device {
                    id,
                    row,
                    link: None,
                    in_doubt: HashMap::new(),
                    dialling: false,
                    next_dial: Instant::now(),
                    pause: REDIAL.0,
                };
                self.devices.insert(id, device);
            }
        }
    }

    /// Dials everybody whose time has come.
    pub(super) fn dial_due(&mut self) {
        let now = Instant::now();
        for device in self.devices.values_mut() {
            if device.dial_due().is_none_or(|due| due > now) {
                continue;
            }
            device.dialling = true;
            let known: Option<EndpointAddr> = postcard::from_bytes(&device.row.addrs).ok();
            let addr = known
                .filter(|a| a.id == device.id)
                .unwrap_or_else(|| EndpointAddr::new(device.id));
            let (id, endpoint, events) = (device.id, self.endpoint.clone(), self.events.clone());
            tokio::spawn(async move {
                let dial = tokio::time::timeout(DIAL_TIMEOUT, endpoint.connect(addr, ALPN));
                let connection = match dial.await {
                    Ok(Ok(connection)) => Some(connection),
                    Ok(Err(error)) => {
                        tracing::debug!(peer = %id.fmt_short(), "dialling: {error:#}");
                        None
                    }
                    Err(_) => None,
                };
                let _ = events
                    .send(Event::Dialled {
                        device: id,
                        connection,
                    })
                    .await;
            });
        }
    }

    /// Dials a device now, whatever happened before.
    pub(super) fn dial_now(&mut self, id: EndpointId) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.next_dial = Instant::now();
            device.pause = REDIAL.0;
        }
    }

    pub(super) fn dialled(&mut self, id: EndpointId, connection: Option<Connection>) {
        let Some(device) = self.devices.get_mut(&id) else {
            return;
        };
        device.dialling = false;
        device.next_dial = Instant::now() + device.pause;
        device.pause = (device.pause * 2).min(REDIAL.1);
        if let Some(connection) = connection {
            self.start_link(connection);
        }
    }

    /// A connection said hello. Of two between the same two runs, both sides keep the one that the device with
    /// the smaller id dialled; a connection of an earlier run is dead.
    pub(super) fn link_up(&mut self, link: Link) {
        let own = self.endpoint.id();
        let Some(device) = self.devices.get_mut(&link.device) else {
            link.close("not paired");
            return;
        };
        if device.row.paused {
            link.close("paused");
            return;
        }
        if let Some(old) = &device.link
            && old.boot == link.boot
            && old.connection.close_reason().is_none()
        {
            let wanted_dialler = own.as_bytes() < link.device.as_bytes();
            if old.dialled != link.dialled && link.dialled != wanted_dialler {
                link.close("one connection is enough");
                return;
            }
        }
        let id = link.device;
        let replaced = device.link.take();
        device.pause = REDIAL.0;
        device.row.name = link.name.clone();
        device.row.last_seen_ms = Some(crate::folder::now_ms());
        remember(&mut device.row, &link);
        device.link = Some(link);
        device.in_doubt.clear();
        let (store, row) = (self.store.clone(), device.row.clone());
        if let Err(error) = short(|| store.put_device(&row)) {
            tracing::warn!("remembering a device: {error}");
        }
        if let Some(old) = replaced {
            old.close("replaced by a newer connection");
            self.sessions_down(id);
        } else {
            let name = self.devices[&id].row.name.clone();
            self.journal.say(
                "connected",
                None,
                Some(name.clone()),
                format!("connected to {name}"),
            );
        }
        self.sessions_up(id);
    }

    pub(super) fn link_down(&mut self, id: EndpointId, link: usize, reason: &str) {
        let Some(device) = self.devices.get_mut(&id) else {
            return;
        };
        if device.link.as_ref().is_none_or(|l| l.id != link) {
            return;
        }
        device.link = None;
        device.in_doubt.clear();
        device.row.last_seen_ms = Some(crate::folder::now_ms());
        device.next_dial = Instant::now() + device.pause;
        let name = device.row.name.clone();
        tracing::debug!(peer = %id.fmt_short(), "connection ended: {reason}");
        self.journal.say(
            "disconnected",
            None,
            Some(name.clone()),
            format!("connection to {name} ended"),
        );
        self.sessions_down(id);
    }
}

/// Keeps the address that works first, and some that worked.
fn remember(row: &mut DeviceRow, link: &Link) {
    let known: Option<EndpointAddr> = postcard::from_bytes(&row.addrs).ok();
    let mut addr = EndpointAddr::new(link.device);
    for path in link.connection.paths().iter() {
        addr.addrs.insert(path.remote_addr().clone());
    }
    let room = MAX_ADDRS.saturating_sub(addr.addrs.len());
    let old = known.into_iter().flat_map(|k| k.addrs);
    addr.addrs.extend(
        old.filter(|a| matches!(a, TransportAddr::Ip(_) | TransportAddr::Relay(_)))
            .take(room),
    );
    if let Ok(bytes) = postcard::to_allocvec(&addr) {
        row.addrs = bytes;
    }
}
