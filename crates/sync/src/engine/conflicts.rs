//! `sync conflicts` and `sync resolve`: finding the copies in HEAD, and the one that a person means. Settling it
//! is the folder thread's work.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_core::view::{Copy, Shown, copies};
use alike_store::FolderKey;
use iroh::EndpointId;

use super::Engine;
use super::folders::Slot;
use super::socket::Responder;
use crate::control::{ConflictInfo, FolderRef, Keep, Resolved};
use crate::error::Error;
use crate::folder::{FolderEvent, Place, ask};
use crate::status::json_text;
use crate::status::rfc3339;

impl Engine {
    /// Every conflict copy of a folder.
    pub(super) fn conflicts(&self, wanted: &FolderRef, responder: Responder) -> Result<(), Error> {
        let key = self.find_folder(wanted)?;
        let found = self.copies(key)?;
        let list: Vec<ConflictInfo> = found.iter().map(|copy| self.info(key, copy)).collect();
        responder.done(&list);
        Ok(())
    }

    fn copies(&self, key: FolderKey) -> Result<Vec<Copy>, Error> {
        let snapshot = self.store.snapshot()?;
        let head = snapshot.head(key)?;
        Ok(super::short(|| copies(&snapshot, &snapshot, head.state.root))?)
    }

    fn info(&self, key: FolderKey, found: &Copy) -> ConflictInfo {
        let Copy { dir, copy, original } = found;
        let name = copy.copy_of.as_ref().expect("it is a copy");
        let kind = match original.as_ref().map(|o| &o.value) {
            Some(Value::File { .. }) => "file",
            Some(Value::Symlink { .. }) => "symlink",
            Some(Value::Dir) => "dir",
            None => "gone",
        };
        let written = original.as_ref().filter(|o| o.value != Value::Dir);
        ConflictInfo {
            path: json_text(dir.join(&copy.name).as_bytes()),
            original: json_text(dir.join(name).as_bytes()),
            digest: copy.value.key().map(|d| d.to_hex()).unwrap_or_default(),
            size: copy.value.size(),
            time: time_of(copy),
            device: self.writer(key, copy),
            original_kind: kind.into(),
            original_size: written.map_or(0, |o| o.value.size()),
            original_time: written.map(time_of),
            original_device: written.map(|o| self.writer(key, o)).unwrap_or_default(),
        }
    }

    /// The name of the device that wrote it; empty if that is not known.
    fn writer(&self, key: FolderKey, shown: &Shown) -> String {
        let Some(Slot::Open(folder)) = self.folders.get(&key) else {
            return String::new();
        };
        let view = folder.thread.view.borrow();
        let claim = shown.dots.first().and_then(|dot| view.claims.get(dot.replica));
        match claim.and_then(|claim| EndpointId::from_bytes(&claim.device).ok()) {
            Some(device) if device == self.endpoint.id() => self.config.name.clone(),
            Some(device) => self
                .devices
                .get(&device)
                .map(|d| d.row.name.clone())
                .unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Settles the copy at `path`, or the only copy of what is at `path`.
    pub(super) fn resolve(&self, path: &Path, keep: Keep, responder: Responder) -> Result<(), Error> {
        let show = path.display();
        let around = |slot: &&Slot| path.starts_with(&slot.row().path) && path != slot.row().path;
        let Some(slot) = self.folders.values().find(around) else {
            return Err(Error::Refused(format!(
                "{show} is in no folder of this device; `sync conflicts` lists the copies"
            )));
        };
        let folder = match slot {
            Slot::Open(folder) => folder,
            Slot::Closed(closed) => return Err(Error::Refused(closed.reason.clone())),
        };
        let rest = path.strip_prefix(&folder.row.path).expect("it is below");
        let wanted = RelPath::parse(rest.as_os_str().as_bytes())
            .map_err(|e| Error::Refused(format!("{show}: {e}")))?;
        let found: Vec<Copy> = self
            .copies(folder.row.key)?
            .into_iter()
            .filter(|c| c.dir.join(&c.copy.name) == wanted || original_path(c) == wanted)
            .collect();
        let copy = match &found[..] {
            [] => {
                return Err(Error::Refused(format!(
                    "{show} is no conflict copy and has none; `sync conflicts` lists them"
                )));
            }
            [one] => one.clone(),
            several => match several.iter().find(|c| c.dir.join(&c.copy.name) == wanted) {
                Some(copy) => copy.clone(),
                None => {
                    let names: Vec<String> = several.iter().map(|c| shown_name(&folder.place, c)).collect();
                    return Err(Error::Refused(format!(
                        "{show} has several conflict copies, name one of them: {}",
                        names.join(", ")
                    )));
                }
            },
        };
        let done = Resolved {
            copy: json_text(copy.dir.join(&copy.copy.name).as_bytes()),
            original: json_text(original_path(&copy).as_bytes()),
        };
        let inbox = folder.thread.events.clone();
        tokio::spawn(async move {
            let copy = Box::new(copy);
            let answer = ask(&inbox, |reply| FolderEvent::Resolve { copy, keep, reply }).await;
            responder.answered(answer, &done);
        });
        Ok(())
    }
}

fn original_path(copy: &Copy) -> RelPath {
    copy.dir.join(copy.copy.copy_of.as_ref().expect("it is a copy"))
}

fn shown_name(place: &Place, copy: &Copy) -> String {
    let path = copy.dir.join(&copy.copy.name);
    place
        .row
        .path
        .join(OsStr::from_bytes(path.as_bytes()))
        .display()
        .to_string()
}

fn time_of(shown: &Shown) -> String {
    rfc3339(u64::try_from(shown.mtime / 1_000_000).unwrap_or(0))
}
