//! A person's answer to a held mass removal, on its way to the folder's thread; and the words for what is held.
//! Never decides what is held; the folder does.

use alike_core::digest::Digest;
use alike_core::session::Input;
use alike_store::FolderKey;
use iroh::EndpointId;

use super::folders::Slot;
use super::socket::Responder;
use super::{Engine, Event};
use crate::control::{Answered, FolderRef};
use crate::error::Error;
use crate::folder::{FolderEvent, HeldView, ask, tell};

impl Engine {
    /// `sync accept` and `sync reject`.
    pub(super) fn answer_hold(
        &mut self,
        wanted: &FolderRef,
        accept: bool,
        responder: Responder,
    ) -> Result<(), Error> {
        let key = self.find_folder(wanted)?;
        let (name, folder) = match &self.folders[&key] {
            Slot::Open(folder) => (folder.row.name.clone(), folder),
            Slot::Closed(closed) => return Err(Error::Refused(closed.reason.clone())),
        };
        let held = folder.thread.view.borrow().held.clone();
        if held.is_empty() {
            return Err(Error::Refused(format!(
                "nothing is held in the folder “{name}”; `sync status` shows what is"
            )));
        }
        let inbox = folder.thread.events.clone();
        let held: Vec<String> = held.iter().map(|held| self.held_words(held)).collect();
        let events = self.events.clone();
        tokio::spawn(async move {
            let answer = ask(&inbox, |reply| FolderEvent::Answer { accept, reply }).await;
            if let Some(Ok(())) = &answer {
                let _ = events.send(Event::Answered(key)).await;
            }
            responder.answered(answer, &Answered { folder: name, held });
        });
        Ok(())
    }

    /// What was held is asked for again.
    pub(super) fn hold_answered(&mut self, key: FolderKey) {
        let devices: Vec<EndpointId> = match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder.sessions.keys().copied().collect(),
            _ => Vec::new(),
        };
        self.announce(key);
        for device in devices {
            self.input(key, device, Input::Retry);
        }
    }

    /// Is a state of this device held?
    pub(super) fn holds(&self, key: FolderKey, device: EndpointId) -> bool {
        let by = Some(*device.as_bytes());
        match self.folders.get(&key) {
            Some(Slot::Open(folder)) => folder.thread.view.borrow().held.iter().any(|h| h.by == by),
            _ => false,
        }
    }

    /// A peer announced a state that there is no need to pull: is it another one than what is held of it?
    pub(super) fn check_held(&self, key: FolderKey, device: EndpointId, state: Option<Digest>) {
        let by = Some(*device.as_bytes());
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return;
        };
        let view = folder.thread.view.borrow();
        if view.held.iter().any(|h| h.by == by && h.state != state) {
            self.let_go(key, device);
        }
    }

    /// What a device did is not held any more.
    pub(super) fn let_go(&self, key: FolderKey, device: EndpointId) {
        if let Some(Slot::Open(folder)) = self.folders.get(&key) {
            let (inbox, by) = (folder.thread.events.clone(), *device.as_bytes());
            tokio::spawn(async move { tell(&inbox, FolderEvent::LetGo(by)).await });
        }
    }

    /// What is held, for a person.
    pub(super) fn held_words(&self, held: &HeldView) -> String {
        let (gone, files) = (held.gone, held.files);
        let device = held.by.and_then(|by| EndpointId::from_bytes(&by).ok());
        match device {
            Some(id) => {
                let name = self
                    .devices
                    .get(&id)
                    .map_or_else(|| id.fmt_short().to_string(), |d| d.row.name.clone());
                format!("{name} removed {gone} of {files} files at once")
            }
            None => format!("{gone} of {files} files were removed from this device at once"),
        }
    }
}
