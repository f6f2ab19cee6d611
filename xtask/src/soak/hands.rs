//! What the hands of a user do to a folder, system call by system call, and what of it goes into the books:
//! every content as it may be seen, and what was taken away by somebody who had it. Never decides what to do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::ledger::{Id, Kind, Ledger, mark, scan};

/// Larger files are only appended to, replaced, moved and deleted.
pub(crate) const EDITABLE: u64 = 256 * 1024;
/// Not to follow a link that came meanwhile.
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// The hands of the user of one device.
pub(crate) struct Hands {
    pub(crate) device: usize,
    /// The folder.
    pub(crate) root: PathBuf,
    /// On the same file system, outside: what is deleted by moving it away.
    pub(crate) scratch: PathBuf,
    pub(crate) ledger: Arc<Ledger>,
    serial: AtomicU64,
}

impl Hands {
    pub(crate) fn new(device: usize, root: PathBuf, scratch: PathBuf, ledger: Arc<Ledger>) -> Self {
        Hands {
            device,
            root,
            scratch,
            ledger,
            serial: AtomicU64::new(0),
        }
    }

    /// A name in the scratch directory that nothing has.
    fn aside(&self) -> PathBuf {
        let n = self.serial.fetch_add(1, Ordering::Relaxed);
        self.scratch.join(format!("{n}"))
    }

    /// Fails if the way to `path` leads through a link: the books know everything by its real path.
    fn real(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(path);
        match parent.canonicalize()? == parent {
            true => Ok(()),
            false => Err(io::Error::other("it is behind a link")),
        }
    }

    fn event(&self, kind: Kind, path: &Path, why: &str) {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        self.ledger
            .event(self.device, kind, relative.as_os_str().as_bytes(), why);
    }

    fn wrote(&self, path: &Path, ids: &[Id]) {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        self.ledger
            .wrote(self.device, relative.as_os_str().as_bytes(), ids);
    }

    fn unknowing(&self, path: &Path) {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        self.ledger
            .unknowing(self.device, relative.as_os_str().as_bytes());
    }

    // The books say what is gone only once it is; that something may come they say before.

    /// New content of about `size` bytes.
    fn content(&self, id: Id, size: usize) -> Vec<u8> {
        let mut content = mark(id);
        content.push(b'\n');
        let from = content.len();
        content.resize(from.max(size), 0);
        blake3::Hasher::new()
            .update(&id.to_le_bytes())
            .finalize_xof()
            .fill(&mut content[from..]);
        content
    }

    /// Is the open file still the one at the path? If not, what was just written into it went elsewhere.
    fn still_there(path: &Path, file: &File) -> bool {
        match (fs::symlink_metadata(path), file.metadata()) {
            (Ok(there), Ok(open)) => there.ino() == open.ino() && there.dev() == open.dev(),
            _ => false,
        }
    }

    /// Writes `content` behind `before` in so many pieces; each state of the file goes into the books first.
    fn put(
        &self,
        file: &mut File,
        before: &[u8],
        content: &[u8],
        pieces: usize,
        ids: &[Id],
    ) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(before);
        let mut written = 0;
        for piece in content.chunks(content.len().div_ceil(pieces.max(1)).max(1)) {
            hasher.update(piece);
            written += piece.len();
            // The new id comes last in the list and first in the content.
            let whole = ids.len() - usize::from(written < mark(0).len());
            self.ledger
                .knows_digest(*hasher.finalize().as_bytes(), &ids[..whole]);
            file.write_all(piece)?;
        }
        Ok(())
    }

    /// A new empty file, where nothing is.
    pub(crate) fn create_empty(&self, path: &Path) -> io::Result<()> {
        self.real(path)?;
        self.event(Kind::Touch, path, "new empty file");
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map(drop)
    }

    /// A new file, where nothing is.
    pub(crate) fn create(
        &self,
        path: &Path,
        id: Id,
        size: usize,
        pieces: usize,
        why: &str,
    ) -> io::Result<()> {
        self.real(path)?;
        self.event(Kind::Touch, path, why);
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.wrote(path, &[id]);
        let content = self.content(id, size);
        self.put(&mut file, &[], &content, pieces, &[id])?;
        self.check(path, &file, &[id]);
        Ok(())
    }

    fn check(&self, path: &Path, file: &File, ids: &[Id]) {
        if !Self::still_there(path, file) {
            self.ledger.raced(self.device, ids);
        }
    }

    fn open(&self, path: &Path) -> io::Result<(File, Vec<u8>)> {
        self.real(path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(NOFOLLOW)
            .open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok((file, content))
    }

    /// Truncates and writes, as many editors do.
    pub(crate) fn overwrite(
        &self,
        path: &Path,
        id: Id,
        size: usize,
        pieces: usize,
        gap: Duration,
    ) -> io::Result<()> {
        let (mut file, old) = self.open(path)?;
        let old = self.ledger.ids_in(&old);
        self.event(Kind::Touch, path, "overwrite in place");
        self.wrote(path, &[id]);
        file.set_len(0)?;
        file.rewind()?;
        self.ledger.destroyed(self.device, &old);
        std::thread::sleep(gap);
        let content = self.content(id, size);
        self.put(&mut file, &[], &content, pieces, &[id])?;
        self.check(path, &file, &[id]);
        Ok(())
    }

    /// Adds to the end.
    pub(crate) fn append(&self, path: &Path, id: Id, gap: Duration) -> io::Result<()> {
        let (mut file, old) = self.open(path)?;
        let ids: Vec<Id> = self.ledger.ids_in(&old).iter().copied().chain([id]).collect();
        self.event(Kind::Touch, path, "append");
        std::thread::sleep(gap);
        self.wrote(path, &[id]);
        let line = [&mark(id)[..], b" appended\n"].concat();
        self.put(&mut file, &old, &line, 1, &ids)?;
        self.check(path, &file, &[id]);
        Ok(())
    }

    /// Changes a part in the middle.
    pub(crate) fn edit(&self, path: &Path, id: Id, at: usize, gap: Duration) -> io::Result<()> {
        let (mut file, old) = self.open(path)?;
        self.event(Kind::Touch, path, "edit in the middle");
        let line = [&mark(id)[..], b" edited\n"].concat();
        let at = at % (old.len() + 1);
        let mut new = old.clone();
        new.resize(new.len().max(at + line.len()), 0);
        new[at..at + line.len()].copy_from_slice(&line);
        let (before, after) = (scan(&old), scan(&new));
        std::thread::sleep(gap);
        self.wrote(path, &[id]);
        self.ledger.knows(&new, &after);
        file.seek(io::SeekFrom::Start(at as u64))?;
        file.write_all(&line)?;
        self.check(path, &file, &[id]);
        let clobbered: Vec<Id> = before.into_iter().filter(|id| !after.contains(id)).collect();
        self.ledger.destroyed(self.device, &clobbered);
        Ok(())
    }

    /// Cuts it shorter.
    pub(crate) fn truncate(&self, path: &Path, to: usize) -> io::Result<()> {
        let (file, old) = self.open(path)?;
        self.event(Kind::Touch, path, "truncate");
        let to = to % (old.len() + 1);
        let (before, after) = (scan(&old), scan(&old[..to]));
        self.ledger.knows(&old[..to], &after);
        file.set_len(to as u64)?;
        let cut: Vec<Id> = before.into_iter().filter(|id| !after.contains(id)).collect();
        self.ledger.destroyed(self.device, &cut);
        Ok(())
    }

    /// Writes a new file beside `path` and renames it over it. `exchange`: looks at what it displaced.
    pub(crate) fn save_over(
        &self,
        path: &Path,
        temp: &Path,
        id: Id,
        size: usize,
        exchange: bool,
    ) -> io::Result<()> {
        self.create(temp, id, size, 1, "new version beside")?;
        if let Ok(meta) = fs::symlink_metadata(path)
            && meta.is_file()
        {
            let _ = fs::set_permissions(temp, meta.permissions());
        }
        self.move_over(temp, path, exchange)
    }

    /// Renames `from` over the file or link `to`, if there is one.
    pub(crate) fn move_over(&self, from: &Path, to: &Path, exchange: bool) -> io::Result<()> {
        self.real(from)?;
        self.real(to)?;
        self.event(Kind::TouchBelow, to, "renamed to");
        if exchange {
            match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    self.event(Kind::Gone, to, "displaced by a rename");
                    return self.discard(from, "displaced by a rename");
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let held = self.hold(to);
        fs::rename(from, to)?;
        self.event(Kind::Gone, from, "renamed from");
        self.released(to, held);
        Ok(())
    }

    /// Renames a directory, or anything else, to where nothing or an empty directory is.
    pub(crate) fn rename(&self, from: &Path, to: &Path, why: &str) -> io::Result<()> {
        self.real(from)?;
        self.real(to)?;
        self.event(Kind::TouchBelow, to, why);
        if from.is_dir() && to.is_dir() {
            fs::rename(from, to)?;
        } else {
            renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
        }
        self.event(Kind::Gone, from, why);
        Ok(())
    }

    /// Deletes a file, link or whole directory in one step; what was in it is read later.
    pub(crate) fn discard(&self, path: &Path, why: &str) -> io::Result<()> {
        self.real(path)?;
        fs::rename(path, self.aside())?;
        self.event(Kind::Gone, path, why);
        Ok(())
    }

    /// What is at the path, to tell afterwards whether it was this that went.
    fn hold(&self, path: &Path) -> Held {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return Held::Nothing;
        };
        if meta.is_symlink() {
            let target = fs::read_link(path).unwrap_or_default();
            return Held::Link(scan(target.as_os_str().as_bytes()));
        }
        let mut content = Vec::new();
        let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path);
        match file.and_then(|mut file| file.read_to_end(&mut content).map(|_| file)) {
            Ok(file) => Held::File(file, self.ledger.ids_in(&content).to_vec()),
            Err(_) => Held::Nothing,
        }
    }

    fn released(&self, path: &Path, held: Held) {
        match held {
            // Somebody may have put something there between the two, and it is gone now.
            Held::Nothing => {}
            Held::Link(ids) => self.ledger.destroyed(self.device, &ids),
            Held::File(file, ids) => match file.metadata() {
                Ok(meta) if meta.nlink() == 0 => self.ledger.destroyed(self.device, &ids),
                _ => self.unknowing(path),
            },
        }
    }

    /// `unlink`.
    pub(crate) fn unlink(&self, path: &Path, why: &str) -> io::Result<()> {
        self.real(path)?;
        let held = self.hold(path);
        fs::remove_file(path)?;
        self.event(Kind::Gone, path, why);
        self.released(path, held);
        Ok(())
    }

    /// `rm -r`, one by one.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.real(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.remove_tree(&entry.path())?;
            } else {
                self.unlink(&entry.path(), "rm -r")?;
            }
        }
        fs::remove_dir(path)?;
        self.event(Kind::Gone, path, "rm -r");
        Ok(())
    }

    /// A new directory.
    pub(crate) fn mkdir(&self, path: &Path, why: &str) -> io::Result<()> {
        self.real(path)?;
        self.event(Kind::Touch, path, why);
        fs::create_dir(path)
    }

    /// A new symbolic link; `to`: an existing place, else a dangling one that carries `id`.
    pub(crate) fn link(&self, path: &Path, to: Option<&Path>, id: Id, why: &str) -> io::Result<()> {
        self.real(path)?;
        self.event(Kind::Touch, path, why);
        match to {
            Some(to) => symlink(to, path),
            None => {
                let target = [b"gone/".as_slice(), &mark(id)].concat();
                symlink(std::ffi::OsStr::from_bytes(&target), path)?;
                self.wrote(path, &[id]);
                Ok(())
            }
        }
    }

    /// Flips the exec bits.
    pub(crate) fn flip_exec(&self, path: &Path) -> io::Result<()> {
        self.real(path)?;
        let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path)?;
        self.event(Kind::Touch, path, "chmod");
        let mode = file.metadata()?.mode() & 0o777;
        file.set_permissions(fs::Permissions::from_mode(mode ^ 0o111))
    }

    /// Sets the modification time to `ago`.
    pub(crate) fn set_time(&self, path: &Path, ago: Duration) -> io::Result<()> {
        self.real(path)?;
        let file = OpenOptions::new().write(true).custom_flags(NOFOLLOW).open(path)?;
        self.event(Kind::Time, path, "time set back");
        file.set_modified(SystemTime::now() - ago)
    }

    /// What was moved to the scratch directory was taken away knowingly.
    pub(crate) fn settle_scratch(&self) -> io::Result<()> {
        let mut open = vec![self.scratch.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                let meta = fs::symlink_metadata(&path)?;
                if meta.is_dir() {
                    open.push(path);
                } else if meta.is_symlink() {
                    let target = fs::read_link(&path)?;
                    self.ledger
                        .destroyed(self.device, &scan(target.as_os_str().as_bytes()));
                } else {
                    let ids = self.ledger.ids_in(&fs::read(&path)?);
                    self.ledger.destroyed(self.device, &ids);
                }
            }
        }
        for entry in fs::read_dir(&self.scratch)? {
            let path = entry?.path();
            if fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

enum Held {
    Nothing,
    Link(Vec<Id>),
    File(File, Vec<Id>),
}
