//! Temporary files in `.alike/tmp`: content on its way to its place, made durable there first. Those whose
//! name begins with [`ASIDE`] hold what was found at a path, and are never removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use alike_core::digest::Digest;
use alike_core::path::{MAX_PATH, RelPath};
use alike_store::Fingerprint;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::own::TMP;
use super::{Dir, Kind, Root, Stat, sys};

/// Begins the names of displaced files that are not in the object directory yet.
pub(super) const ASIDE: &[u8] = b"aside-";
/// Files up to this size are copied through memory, hashed on the way (bytes).
const COPY_IN_MEMORY: u64 = 256 * 1024;

/// Makes names differ from those of other runs.
pub(super) fn seed() -> u64 {
    let now = crate::clock::now_ns() as u64;
    let pid = u64::from(std::process::id());
    now ^ pid.rotate_left(48)
}

/// The process's umask, which cannot be asked for without setting it.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
                u32::from_str_radix(line.trim(), 8).ok()
            })
            .unwrap_or(0o022)
    })
}

impl Root {
    pub(crate) fn tmp(&self) -> rustix::io::Result<Arc<Dir>> {
        self.near_tmp(|| match self.own_dir(TMP) {
            // Somebody tidied up.
            Err(Errno::NOENT) => {
                sys::mkdirat(&self.fd, TMP, Mode::RWXU)?;
                self.own_dir(TMP)
            }
            other => other,
        })
    }

    /// A name that nothing in `.alike/tmp` has.
    pub(super) fn fresh_name(&self, prefix: &[u8]) -> Vec<u8> {
        let n = self.temp_count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut name = prefix.to_vec();
        name.extend_from_slice(format!("{:016x}-{n}", self.temp_seed).as_bytes());
        name
    }

    /// Makes an empty file, readable and writable by us alone until it is finished.
    pub(crate) fn temp_file(&self) -> io::Result<(Vec<u8>, File)> {
        self.temp_file_in(&*self.tmp()?)
    }

    /// The same in `.alike/tmp` as it was opened for several.
    pub(crate) fn temp_file_in(&self, tmp: &Dir) -> io::Result<(Vec<u8>, File)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = self.fresh_name(b"t");
            match sys::openat(tmp, &name[..], flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => return Ok((name, File::from(fd))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A new temporary file with this content.
    pub(crate) fn temp_of(&self, content: &[u8]) -> io::Result<Vec<u8>> {
        let (name, mut file) = self.temp_file()?;
        match file.write_all(content) {
            Ok(()) => Ok(name),
            Err(e) => {
                self.remove_temp(&name);
                Err(e)
            }
        }
    }

    /// Opens the temporary file `name` for reading and writing; `create`: makes it if it is not there.
    pub(crate) fn temp_named(&self, name: &[u8], create: bool) -> io::Result<File> {
        check_name(name)?;
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if create {
            flags |= OFlags::CREATE;
        }
        let tmp = self.tmp()?;
        let open = || sys::openat(&tmp, name, flags, Mode::RUSR | Mode::WUSR);
        let fd = open()?;
        if sys::fstat(&fd)?.st_nlink > 1 {
            // A move was cut off between its two names: by the other one it is a user's file.
            sys::unlinkat(&tmp, name, AtFlags::empty())?;
            return Ok(File::from(open()?));
        }
        Ok(File::from(fd))
    }

    /// Makes a symbolic link; returns its temporary name.
    pub(crate) fn temp_symlink(&self, target: &[u8], mtime_ns: i64) -> io::Result<Vec<u8>> {
        if target.is_empty() || target.len() >= MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let tmp = self.tmp()?;
        loop {
            let name = self.fresh_name(b"t");
            match sys::symlinkat(target, &tmp, &name[..]) {
                Ok(()) => {
                    let times = times(mtime_ns);
                    // Not every file system gives links times; no content hangs on it.
                    match sys::utimensat(&tmp, &name[..], &times, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => return Ok(name),
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Removes a temporary file, if it is there. Not one that holds what was found at a path.
    pub(crate) fn remove_temp(&self, name: &[u8]) {
        if check_name(name).is_err() {
            return;
        }
        let removed = self
            .tmp()
            .and_then(|tmp| sys::unlinkat(&tmp, name, AtFlags::empty()));
        if let Err(errno) = removed
            && errno != Errno::NOENT
        {
            tracing::debug!(name = %name.escape_ascii(), %errno, "a temporary file could not be removed");
        }
    }

    /// Gives a temporary file the mode and the modification time that it will have at its place.
    pub(crate) fn finish_temp(file: &File, exec: bool, mtime_ns: i64) -> io::Result<()> {
        let mode = if exec { 0o777 } else { 0o666 };
        // Ours to read and write, and executable if it should be, whatever the umask: the next scan looks.
        let own = if exec { 0o700 } else { 0o600 };
        match sys::fchmod(file, Mode::from_raw_mode((mode & !umask()) | own)) {
            // FAT and its like have no modes to set.
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(sys::futimens(file, &times(mtime_ns))?)
    }

    /// Empties `.alike/tmp`, but for the names that `keep` wants, and for what was displaced.
    pub(crate) fn clear_temps(&self, keep: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let tmp = self.tmp()?;
        for (name, _) in tmp.entries()? {
            let is_dir = |stat: Option<Stat>| stat.is_none_or(|stat| stat.kind == Kind::Dir);
            if name.starts_with(ASIDE) || keep(&name) || is_dir(tmp.stat(&name)?) {
                continue;
            }
            sys::unlinkat(&tmp, &name[..], AtFlags::empty())?;
        }
        Ok(())
    }

    /// Puts a temporary file into the objects, under the digest of what is in it: it may have been exchanged
    /// with what was at a path before alike was stopped. A link goes: its target is in the record.
    pub(crate) fn keep_temp(&self, name: &[u8]) -> io::Result<()> {
        check_name(name)?;
        let tmp = self.tmp()?;
        match tmp.stat(name)?.map(|stat| stat.kind) {
            Some(Kind::File) => self.keep_as_found(&tmp, name).map(drop),
            Some(Kind::Symlink) => Ok(sys::unlinkat(&tmp, name, AtFlags::empty())?),
            _ => Ok(()),
        }
    }

    /// Puts what alike held when it was stopped in the middle of a move into the objects, each under the
    /// digest of what is in it; links that point where `known` ones do go. To be called before any move; nothing
    /// in there is thrown away unseen.
    pub(crate) fn keep_displaced(&self, known: &HashSet<&[u8]>) -> io::Result<()> {
        let tmp = self.tmp()?;
        for (name, _) in tmp.entries()? {
            if !name.starts_with(ASIDE) {
                continue;
            }
            let kept = match tmp.stat(&name)?.map(|stat| stat.kind) {
                Some(Kind::File) => self.keep_as_found(&tmp, &name).map(drop),
                Some(Kind::Symlink) if known.contains(&tmp.read_link(&name)?[..]) => {
                    sys::unlinkat(&tmp, &name[..], AtFlags::empty()).map_err(io::Error::from)
                }
                // Other links, and directories, get here only if somebody put them at a path in the moment in
                // which it was changed, and something else in the next: left to whoever looks for them.
                _ => Ok(()),
            };
            if let Err(error) = kept {
                tracing::warn!(name = %name.escape_ascii(), %error, "a displaced version stays in .alike/tmp");
            }
        }
        Ok(())
    }

    /// What could not be kept when it was displaced is kept now, if that is possible by now.
    pub(crate) fn keep_left(&self) {
        let left = std::mem::take(&mut *self.left.lock().expect("not poisoned"));
        if left.is_empty() {
            return;
        }
        let Ok(tmp) = self.tmp() else {
            self.left.lock().expect("not poisoned").extend(left);
            return;
        };
        left.iter().for_each(|name| self.keep_whatever(&tmp, name));
    }

    /// Keeps a file whose content nobody has looked at; later, if that fails. A link or directory stays where it is.
    pub(super) fn keep_whatever(&self, tmp: &Dir, aside: &[u8]) {
        if !matches!(tmp.stat(aside), Ok(Some(stat)) if stat.kind != Kind::File) {
            self.or_later(aside, self.keep_as_found(tmp, aside).map(drop));
        }
    }

    /// What cannot be kept now keeps its name, which is never removed, and is tried again.
    pub(super) fn or_later(&self, aside: &[u8], kept: io::Result<()>) {
        let Err(error) = kept else { return };
        tracing::warn!(name = %aside.escape_ascii(), %error, "a displaced version stays in .alike/tmp for now");
        self.left.lock().expect("not poisoned").push(aside.to_vec());
    }

    /// Copies the content of a local file into a new temporary file (cloned where the file system can), and
    /// verifies the copy. `None` if the source is not what `expect` says, or the copy is not `digest`.
    pub(crate) fn temp_from_local(
        &self,
        source: &RelPath,
        expect: &Fingerprint,
        digest: &Digest,
    ) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_file(source) {
            Ok(file) => file,
            Err(e) if is_absent_io(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let stat = super::dir::stat_of(&sys::fstat(&file)?);
        if stat.kind != Kind::File || stat.fingerprint != *expect {
            return Ok(None);
        }
        self.temp_copy(&file, &stat, digest)
    }

    /// Copies `file` into a new temporary file, if its content is `digest`.
    pub(super) fn temp_copy(&self, file: &File, stat: &Stat, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let (name, temp) = self.temp_file()?;
        match copy(file, stat.fingerprint.size, &temp) {
            Ok(copied) if copied == *digest => Ok(Some(name)),
            Ok(_) => {
                self.remove_temp(&name);
                Ok(None)
            }
            // Cut off while it was copied.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.remove_temp(&name);
                Ok(None)
            }
            Err(e) => {
                self.remove_temp(&name);
                Err(e)
            }
        }
    }
}

pub(super) fn is_absent_io(e: &io::Error) -> bool {
    Errno::from_io_error(e).is_some_and(super::is_absent)
}

/// Is this the name of a temporary file, and not of a displaced one?
fn check_name(name: &[u8]) -> io::Result<()> {
    let fits = matches!(name.len(), 1..=255) && !name.contains(&b'/') && name != b"." && name != b"..";
    if fits && !name.starts_with(ASIDE) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no name of a temporary file",
        ))
    }
}

pub(super) fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        },
    }
}

/// Copies `size` bytes (shared with the source where the file system can) and returns the digest of what arrived.
pub(crate) fn copy(from: &File, size: u64, to: &File) -> io::Result<Digest> {
    if size <= COPY_IN_MEMORY {
        let mut content = vec![0; size as usize];
        from.read_exact_at(&mut content, 0)?;
        (&mut &*to).write_all(&content)?;
        return Ok(Digest::of(&content));
    }
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        copy_extents(from, size, to)?;
    }
    // What was written is read back: a clone or a copy in the kernel was never seen on its way.
    crate::outboard::hash_with_outboard(to, size, None).map(|(digest, _)| digest)
}

/// Copies what is not a hole, so that sparse files stay sparse.
fn copy_extents(from: &File, size: u64, to: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.max(at),
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = match seek(from, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(size),
            _ => size,
        };
        copy_range(from, start, end, to)?;
        at = end;
    }
    Ok(())
}

fn copy_range(from: &File, start: u64, end: u64, to: &File) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let (mut from_at, mut to_at) = (at, at);
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            // Not between these two; by hand.
            Err(_) => {
                let mut buffer = vec![0; super::content::BUFFER];
                while at < end {
                    let part = &mut buffer[..(end - at).min(super::content::BUFFER as u64) as usize];
                    from.read_exact_at(part, at)?;
                    to.write_all_at(part, at)?;
                    at += part.len() as u64;
                }
            }
        }
    }
    Ok(())
}
