//! The moves: what changes users' files. Each looks at what is there before it acts, and again at what came
//! out, because between the two somebody may have saved. What was not expected goes back to its path.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use alike_core::path::RelPath;
use alike_core::record::Value;
use alike_store::Fingerprint;
use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use super::{
    Buffer, Content, Dir, Expected, Kind, MoveError, Place, Root, Stat, Ways, failed, io_failed, lease, sys,
};
use crate::failpoint::{may_fail, point};

mod relocate;
#[cfg(test)]
mod tests;

pub(crate) use relocate::NotRelocated;

/// What somebody else does at each point of a move at which that matters, in turn.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Meanwhile(std::sync::Mutex<std::collections::VecDeque<Box<dyn FnOnce() + Send>>>);

#[cfg(test)]
impl Meanwhile {
    pub(super) fn act(&self) {
        let act = self.0.lock().expect("not poisoned").pop_front();
        if let Some(act) = act {
            act();
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// What is the matter with a name that is listed in another way than it was given: the next scan would take it for
/// renamed by somebody.
const RESPELLED: &str = "it writes that name in another way";
/// How often two parties may change one path in turn before we stop and keep what we hold.
const SWAP_TRIES: usize = 8;

impl Root {
    /// Puts a temporary file or link where nothing is.
    pub(crate) fn create(&self, temp: &[u8], path: &RelPath) -> Result<Fingerprint, MoveError> {
        let place = self.place(path)?;
        let tmp = self.tmp_for(path)?;
        let ours = self.temp_stat(&tmp, temp, path)?;
        point("move.create");
        self.rename_new(&tmp, temp, &place.dir, place.name.as_bytes())
            .map_err(|errno| match errno {
                Errno::EXIST => self.taken(path),
                Errno::NOENT | Errno::NOTDIR => MoveError::Changed,
                errno => failed("create", path, errno),
            })?;
        point("move.created");
        if place.is_respelled() {
            self.rename_away(&place, &tmp, temp)
                .map_err(|errno| failed("take back", path, errno))?;
            return Err(MoveError::Unsupported(RESPELLED.to_owned()));
        }
        // Ours was there: if somebody has changed it already, that is a change of ours, and for the next scan.
        Ok(landed(&place, &ours).unwrap_or(ours.fingerprint))
    }

    /// Puts a temporary file or link in the place of the file or link that `expect` describes, which is kept.
    /// Whoever looks at the path sees the whole old or the whole new content.
    pub(crate) fn replace(
        &self,
        temp: &[u8],
        path: &RelPath,
        expect: &Expected,
    ) -> Result<Fingerprint, MoveError> {
        let place = self.place(path)?;
        let tmp = self.tmp_for(path)?;
        let before = as_expected(&place, expect)?;
        place.must_be_closed()?;
        let ours = inherit(&tmp, temp, &before, self.temp_stat(&tmp, temp, path)?, path)?;
        if !Ways::has(&self.ways.exchange) {
            return self.replace_in_steps(&tmp, temp, &place, &before, &ours, expect);
        }
        // From here on nothing under this name is ever removed, wherever we are killed.
        let aside = self.aside_of(path);
        point("move.replace");
        self.rename_new(&tmp, temp, &tmp, &aside)
            .map_err(|errno| failed("replace", path, errno))?;
        self.meanwhile();
        if let Err(errno) = exchange(&tmp, &aside, &place) {
            self.give_back(&tmp, &aside, temp);
            return match errno {
                Errno::NOENT | Errno::NOTDIR => Err(MoveError::Changed),
                Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                    self.ways.exchange.store(false, Ordering::Relaxed);
                    self.replace_in_steps(&tmp, temp, &place, &before, &ours, expect)
                }
                errno => Err(failed("replace", path, errno)),
            };
        }
        point("move.exchanged");
        // What cannot be looked at may be anybody's: it goes back too.
        let out = self.temp_stat(&tmp, &aside, path);
        if !matches!(&out, Ok(out) if out.is_same_but_renamed(&before)) {
            point("move.unexpected");
            self.meanwhile();
            self.swap_back(&tmp, &aside, &place, &ours, temp);
            point("move.back");
            return Err(out.err().unwrap_or(MoveError::Changed));
        }
        // Whoever opened it before the exchange would write into what is displaced; by now nobody can any more.
        if lease::is_being_written(&tmp, &aside) {
            point("move.open");
            self.swap_back(&tmp, &aside, &place, &ours, temp);
            return Err(MoveError::BeingWritten);
        }
        // Ours was there: if somebody has changed it already, that is a change of ours, and for the next scan.
        let there = landed(&place, &ours).unwrap_or(ours.fingerprint);
        point("move.verified");
        self.keep_displaced_as(&tmp, &aside, expect);
        point("move.kept");
        Ok(there)
    }

    /// Takes the file or link that `expect` describes away; it is kept.
    pub(crate) fn remove(&self, path: &RelPath, expect: &Expected) -> Result<(), MoveError> {
        let place = self.place(path)?;
        let tmp = self.tmp_for(path)?;
        let before = as_expected(&place, expect)?;
        place.must_be_closed()?;
        point("move.remove");
        self.meanwhile();
        let aside = self.take_aside(&tmp, &place, &before)?;
        self.keep_displaced_as(&tmp, &aside, expect);
        point("move.removed");
        Ok(())
    }

    /// Makes a directory; one that is there already will do.
    pub(crate) fn mkdir(&self, path: &RelPath) -> Result<Fingerprint, MoveError> {
        let place = self.place(path)?;
        point("move.dir.make");
        let made = match sys::mkdirat(&place.dir, place.name.as_bytes(), Mode::from_raw_mode(0o777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => return Err(MoveError::Changed),
            Err(errno) => return Err(failed("make the directory", path, errno)),
        };
        point("move.dir.made");
        match place.stat()? {
            Some(_) if made && place.is_respelled() => {
                // Empty as it is: if somebody has put something into it, it stays.
                let _ = sys::unlinkat(&place.dir, place.name.as_bytes(), AtFlags::REMOVEDIR);
                Err(MoveError::Unsupported(RESPELLED.to_owned()))
            }
            Some(stat)
                if !place
                    .is_listed(&stat)
                    .map_err(|e| io_failed("look at", path, e))? =>
            {
                Err(self.taken(path))
            }
            Some(stat) if stat.kind == Kind::Dir && stat.dev == self.dev => Ok(stat.fingerprint),
            _ => Err(MoveError::Changed),
        }
    }

    /// Something is where nothing should be: a change, or another name that this file system takes for the same.
    fn taken(&self, path: &RelPath) -> MoveError {
        match self.taken_by(path) {
            Ok(Some(by)) => MoveError::NameTaken(by),
            Ok(None) => MoveError::Changed,
            Err(source) => io_failed("look at", path, source),
        }
    }

    /// Removes an empty directory; it may be gone already.
    pub(crate) fn rmdir(&self, path: &RelPath) -> Result<(), MoveError> {
        let (dir, name) = path.split().ok_or(MoveError::Busy)?;
        let dir = match self.place_dir(&dir) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(MoveError::Changed),
            Err(errno) => return Err(failed("remove the directory", path, errno)),
        };
        // One that is called otherwise is another one: this one is gone.
        let look = |source| io_failed("look at", path, source);
        if dir.other_name(name.as_bytes()).map_err(look)?.is_some() {
            return Ok(());
        }
        point("move.dir.remove");
        match sys::unlinkat(&dir, name.as_bytes(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                point("move.dir.removed");
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(MoveError::NotEmpty),
            Err(Errno::NOTDIR) => Err(MoveError::Changed),
            Err(errno) => Err(failed("remove the directory", path, errno)),
        }
    }

    /// Sets or clears the exec bits of the file that `expect` describes: whoever may read it may execute it.
    pub(crate) fn set_exec(
        &self,
        path: &RelPath,
        exec: bool,
        expect: &Expected,
    ) -> Result<Fingerprint, MoveError> {
        let place = self.place(path)?;
        let before = as_expected(&place, expect)?;
        if before.kind != Kind::File {
            return Err(MoveError::Changed);
        }
        // Where no exec bit is kept it is kept for the others.
        if before.is_exec() == exec || !self.keeps_exec() {
            return Ok(before.fingerprint);
        }
        let file = place
            .dir
            .open_file(place.name.as_bytes())
            .map_err(|source| io_failed("open", path, source))?;
        let opened = fstat(&file, path)?;
        if opened != before {
            return Err(MoveError::Changed);
        }
        let mode = with_exec(before.fingerprint.mode, exec);
        point("move.exec");
        sys::fchmod(&file, Mode::from_raw_mode(mode))
            .map_err(|errno| failed("set the mode of", path, errno))?;
        point("move.exec.set");
        let wanted = Stat {
            fingerprint: Fingerprint {
                mode: before.fingerprint.mode & !0o7777 | mode,
                ..before.fingerprint
            },
            ..before
        };
        landed(&place, &wanted)
    }

    /// Where names cannot be exchanged: the old one is moved away, then the new one moved in. The path is
    /// empty for a moment, but nothing is lost whatever happens in it.
    fn replace_in_steps(
        &self,
        tmp: &Dir,
        temp: &[u8],
        place: &Place,
        before: &Stat,
        ours: &Stat,
        expect: &Expected,
    ) -> Result<Fingerprint, MoveError> {
        self.meanwhile();
        let aside = self.take_aside(tmp, place, before)?;
        point("move.steps");
        self.meanwhile();
        let put = self.rename_new(tmp, temp, &place.dir, place.name.as_bytes());
        point("move.steps.put");
        match put {
            Ok(()) => {
                self.keep_displaced_as(tmp, &aside, expect);
                // Ours was there: if somebody has changed it already, that is a change of ours.
                Ok(landed(place, ours).unwrap_or(ours.fingerprint))
            }
            Err(Errno::EXIST) => {
                self.keep_displaced_as(tmp, &aside, expect);
                Err(MoveError::Displaced)
            }
            Err(_) if self.put_back(tmp, &aside, place).is_err() => Err(MoveError::Displaced),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(MoveError::Changed),
            Err(errno) => Err(failed("replace", &place.path, errno)),
        }
    }

    /// Renames what is at the place to a name that is never removed, if it is what it was `before`.
    fn take_aside(&self, tmp: &Dir, place: &Place, before: &Stat) -> Result<Vec<u8>, MoveError> {
        let aside = self.aside_of(&place.path);
        self.rename_away(place, tmp, &aside)
            .map_err(|errno| match (errno, place.stat()) {
                (Errno::NOENT | Errno::NOTDIR, _) => MoveError::Changed,
                // Not every way of moving can move a directory.
                (_, Ok(now)) if now.is_none_or(|now| now.kind != before.kind) => MoveError::Changed,
                (errno, _) => failed("move away", &place.path, errno),
            })?;
        point("move.taken");
        let out = tmp.stat(&aside);
        let is_it = matches!(&out, Ok(Some(out)) if out.is_same_but_renamed(before));
        if is_it && !lease::is_being_written(tmp, &aside) {
            return Ok(aside);
        }
        self.meanwhile();
        Err(match (self.put_back(tmp, &aside, place), out) {
            (Ok(()), _) if is_it => MoveError::BeingWritten,
            // What cannot be looked at may be anybody's: it went back too.
            (Ok(()), Err(source)) => io_failed("look at", &place.path, source),
            // Whoever has taken its place overwrote a version of his own.
            (Ok(()) | Err(Errno::EXIST), _) => MoveError::Changed,
            (Err(_), _) => MoveError::Displaced,
        })
    }

    /// Puts what was taken aside back. If its place is taken by now it goes beside it, or is kept as an object.
    pub(super) fn put_back(&self, tmp: &Dir, aside: &[u8], place: &Place) -> rustix::io::Result<()> {
        let put = self.rename_new(tmp, aside, &place.dir, place.name.as_bytes());
        if let Err(errno) = put
            && !(errno == Errno::EXIST && self.put_beside(tmp, aside, place))
        {
            tracing::warn!(path = %place.path, %errno, "a version was kept that could not go back to its path");
            self.keep_whatever(tmp, aside);
        }
        put
    }

    /// Undoes an exchange that brought out what was not expected, until what it brings out is what we had put
    /// there: everything else is newer than what we hold. Ours gets its name `temp` again.
    fn swap_back(&self, tmp: &Dir, aside: &[u8], place: &Place, ours: &Stat, temp: &[u8]) {
        let mut put = Some(ours.fingerprint.ino);
        for _ in 0..SWAP_TRIES {
            let held = tmp.stat(aside);
            match exchange(tmp, aside, place) {
                Ok(()) => {}
                // Ours was removed: what we hold goes back all the same.
                Err(Errno::NOENT) => match self.rename_new(tmp, aside, &place.dir, place.name.as_bytes()) {
                    Ok(()) => return,
                    Err(_) => continue,
                },
                Err(_) => continue,
            }
            point("move.swapped");
            let Ok(Some(out)) = tmp.stat(aside) else { break };
            if out.is_same_but_renamed(ours) {
                self.give_back(tmp, aside, temp);
                return;
            }
            if Some(out.fingerprint.ino) == put {
                break;
            }
            put = held.ok().flatten().map(|held| held.fingerprint.ino);
        }
        // What we hold now is not ours, or was written to: it is no temporary file any more.
        self.keep_whatever(tmp, aside);
    }

    /// A temporary file that was not used gets its name again.
    fn give_back(&self, tmp: &Dir, aside: &[u8], temp: &[u8]) {
        if let Err(errno) = self.rename_new(tmp, aside, tmp, temp) {
            tracing::debug!(%errno, "a temporary file did not get its name again");
        }
    }

    /// Keeps what was displaced and is what was expected.
    fn keep_displaced_as(&self, tmp: &Dir, aside: &[u8], expect: &Expected) {
        match &expect.value {
            // Never under the name of what it should be.
            Value::File { .. } if expect.damaged => self.keep_whatever(tmp, aside),
            Value::File { digest, .. } => self.or_later(aside, self.keep_as(tmp, aside, digest)),
            // The target is in the record; nothing else is in a link.
            Value::Symlink { .. } => {
                if let Err(errno) = sys::unlinkat(tmp, aside, AtFlags::empty()) {
                    tracing::warn!(%errno, "a displaced link stays in .alike/tmp");
                }
            }
            Value::Dir => {}
        }
    }

    /// Where tests let somebody else act, in the middle of a move.
    #[cfg(test)]
    fn meanwhile(&self) {
        self.meanwhile.act();
    }

    #[cfg(not(test))]
    fn meanwhile(&self) {}

    fn tmp_for(&self, path: &RelPath) -> Result<Arc<Dir>, MoveError> {
        self.tmp()
            .map_err(|errno| failed("open .alike/tmp for", path, errno))
    }

    fn temp_stat(&self, tmp: &Dir, temp: &[u8], path: &RelPath) -> Result<Stat, MoveError> {
        let io = |source| MoveError::Io {
            what: "find the temporary file for",
            path: path.clone(),
            source,
        };
        tmp.stat(temp)
            .map_err(io)?
            .ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))
    }
}

pub(super) fn exchange(tmp: &Dir, temp: &[u8], place: &Place) -> rustix::io::Result<()> {
    may_fail("move.exchange").map_err(|_| Errno::INVAL)?;
    sys::renameat_with(
        tmp,
        temp,
        &place.dir,
        place.name.as_bytes(),
        RenameFlags::EXCHANGE,
    )
}

/// What is at the place, if that is what MAT says.
fn as_expected(place: &Place, expect: &Expected) -> Result<Stat, MoveError> {
    let stat = place.stat()?.ok_or(MoveError::Changed)?;
    let kind = match &expect.value {
        Value::File { .. } => Kind::File,
        Value::Symlink { .. } => Kind::Symlink,
        Value::Dir => return Err(MoveError::Changed),
    };
    if stat.kind != kind || stat.dev != place.dir.dev() {
        return Err(MoveError::Changed);
    }
    // Somebody has renamed it to what this file system takes for the same name.
    if !place
        .is_listed(&stat)
        .map_err(|source| io_failed("look at", &place.path, source))?
    {
        return Err(MoveError::Changed);
    }
    if let Some(fingerprint) = expect.fingerprint {
        return if stat.fingerprint == fingerprint {
            Ok(stat)
        } else {
            Err(MoveError::Changed)
        };
    }
    let look = |source| io_failed("read", &place.path, source);
    let name = place.name.as_bytes();
    match &expect.value {
        Value::File { digest, size } => {
            if stat.fingerprint.size != *size {
                return Err(MoveError::Changed);
            }
            match place
                .dir
                .hash(name, None, &mut Buffer::new(), None, &mut |_| true)
                .map_err(look)?
            {
                Content::Is { digest: found, stat } if found == *digest => Ok(stat),
                Content::Is { .. } | Content::Changing | Content::Gone | Content::Stopped => {
                    Err(MoveError::Changed)
                }
            }
        }
        Value::Symlink { target } => match place.dir.read_link(name) {
            Ok(found) if found[..] == target[..] => Ok(stat),
            Ok(_) => Err(MoveError::Changed),
            Err(source) => Err(look(source)),
        },
        Value::Dir => Err(MoveError::Changed),
    }
}

/// Is what we put there, there, and as we made it? Its fingerprint.
fn landed(place: &Place, ours: &Stat) -> Result<Fingerprint, MoveError> {
    match place.stat()? {
        Some(stat) if stat.is_same_but_renamed(ours) => Ok(stat.fingerprint),
        _ => Err(MoveError::Changed),
    }
}

/// A file that takes another one's place takes over who may read it: a private file stays private.
fn inherit(tmp: &Dir, temp: &[u8], old: &Stat, ours: Stat, path: &RelPath) -> Result<Stat, MoveError> {
    if old.kind != Kind::File || ours.kind != Kind::File {
        return Ok(ours);
    }
    let mode = with_exec(old.fingerprint.mode, ours.is_exec());
    if mode == ours.fingerprint.mode & 0o7777 && old.owner == ours.owner {
        return Ok(ours);
    }
    let file = tmp
        .open_file(temp)
        .map_err(|source| io_failed("open the temporary file for", path, source))?;
    if old.owner != ours.owner {
        let (user, group) = (
            rustix::fs::Uid::from_raw(old.owner.0),
            rustix::fs::Gid::from_raw(old.owner.1),
        );
        // Only root can, mostly; then the file is ours, as if we had saved it in an editor.
        if sys::fchown(&file, Some(user), Some(group)).is_err() {
            let _ = sys::fchown(&file, None, Some(group));
        }
    }
    match sys::fchmod(&file, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(failed("set the mode of", path, errno)),
    }
    fstat(&file, path)
}

fn fstat(file: &std::fs::File, path: &RelPath) -> Result<Stat, MoveError> {
    let stat = sys::fstat(file).map_err(|errno| failed("look at", path, errno))?;
    Ok(super::dir::stat_of(&stat))
}

/// The permission bits of `mode` with the exec bits as they should be. No set-id bits.
fn with_exec(mode: u32, exec: bool) -> u32 {
    let mode = mode & 0o777;
    if exec {
        mode | (mode & 0o444) >> 2 | 0o100
    } else {
        mode & !0o111
    }
}
