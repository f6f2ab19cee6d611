//! The system calls of `disk::sys`, on the machine that is simulated on this thread; on the real one where none
//! is. Each is a moment at which something else may happen. Never knows what alike is doing.
//!
//! Descriptors are real ones, so that nothing else has to know: of a file, one to its bytes in memory; of a
//! directory, one to nothing in particular. Which node it means is looked up by its number.

mod names;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, Stat, Timestamps};
use rustix::io::Errno;
use rustix::path::Arg;

use super::disk::{Attr, Disk, Kind, Oid};
use super::{Sim, current};

pub(crate) use names::{linkat, mkdirat, readlinkat, renameat_with, symlinkat, unlinkat};

type Result<T> = rustix::io::Result<T>;

/// The device number of every simulated file system.
const DEV: u64 = 77;
const EXT4: u32 = 0xef53;

fn bytes_of(path: impl Arg) -> Result<Vec<u8>> {
    Ok(path.as_cow_c_str()?.to_bytes().to_vec())
}

/// A descriptor for a file with these bytes.
fn memory(bytes: &[u8]) -> OwnedFd {
    let fd = rustix::fs::memfd_create("sim", MemfdFlags::CLOEXEC).expect("memory");
    let mut at = 0;
    while at < bytes.len() {
        at += rustix::io::pwrite(&fd, &bytes[at..], at as u64).expect("memory");
    }
    fd
}

/// Another open file over the same bytes, with its own position.
fn reopened(fd: &OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("a file in memory")
}

/// The machine and node that a descriptor means.
fn node(sim: &Sim, fd: impl AsFd) -> (usize, Oid) {
    *sim.handles
        .borrow()
        .get(&fd.as_fd().as_raw_fd())
        .expect("every descriptor on this thread is simulated")
}

impl Sim {
    fn handle(&self, machine: usize, node: Oid, fd: OwnedFd) -> OwnedFd {
        self.handles.borrow_mut().insert(fd.as_raw_fd(), (machine, node));
        fd
    }

    fn placeholder(&self, machine: usize, node: Oid) -> OwnedFd {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.nothing, 3).expect("a descriptor");
        self.handle(machine, node, fd)
    }

    fn disk<T>(&self, machine: usize, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.machines[machine].disk.borrow_mut())
    }
}

/// The database is about to write or to sync.
pub(super) fn on_medium(what: &'static str) -> io::Result<()> {
    match current() {
        Some(sim) => sim.on_medium(what),
        None => Ok(()),
    }
}

/// A look at how a name is spelled: nothing happens in the middle of it, and it does not fail.
pub(crate) fn quietly<T>(look: impl FnOnce() -> T) -> T {
    let Some(sim) = current() else { return look() };
    let before = sim.quiet.replace(true);
    let result = look();
    sim.quiet.set(before);
    result
}

/// Whether files keep exec bits, if that need not be tried.
pub(crate) fn keeps_exec(fd: impl AsFd) -> Option<bool> {
    let sim = current()?;
    let (machine, _) = node(&sim, fd);
    Some(sim.machines[machine].ways.exec)
}

fn file_mode(attr: &Attr) -> u32 {
    let kind = match attr.kind {
        Kind::File => 0o100_000,
        Kind::Dir => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::Fifo => 0o010_000,
    };
    kind | attr.mode
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the types of these fields differ between machines"
)]
fn stat_of(sim: &Sim, disk: &Disk, node: Oid) -> Stat {
    let attr = &disk.nodes[&node].attr;
    let mut stat = sim.blank;
    stat.st_dev = DEV as _;
    stat.st_ino = attr.ino as _;
    stat.st_mode = file_mode(attr) as _;
    stat.st_size = match attr.kind {
        Kind::File => disk.bytes(node).len() as _,
        Kind::Symlink => attr.target.len() as _,
        Kind::Dir | Kind::Fifo => 0,
    };
    stat.st_nlink = disk.links(node) as _;
    stat.st_uid = 1000;
    stat.st_gid = 1000;
    stat.st_mtime = attr.mtime.div_euclid(1_000_000_000) as _;
    stat.st_mtime_nsec = attr.mtime.rem_euclid(1_000_000_000) as _;
    stat.st_ctime = attr.ctime.div_euclid(1_000_000_000) as _;
    stat.st_ctime_nsec = attr.ctime.rem_euclid(1_000_000_000) as _;
    stat
}

/// `machine/folder`: the only paths that alike opens as such.
fn root_of(sim: &Sim, path: &[u8]) -> Result<(usize, Oid)> {
    let text = std::str::from_utf8(path).map_err(|_| Errno::NOENT)?;
    let machine = text
        .strip_prefix("/machine")
        .and_then(|rest| rest.strip_suffix("/folder"))
        .and_then(|n| n.parse().ok())
        .expect("alike opens nothing by its whole path but folders");
    let folder = sim.disk(machine, |d| d.child(super::disk::TOP, b"folder"));
    Ok((machine, folder.ok_or(Errno::NOENT)?))
}

pub(crate) fn open<P: Arg>(path: P, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let Some(sim) = current() else {
        return rustix::fs::open(path, flags, mode);
    };
    let (machine, node) = root_of(&sim, &bytes_of(path)?)?;
    sim.point(machine, "open")?;
    Ok(sim.placeholder(machine, node))
}

pub(crate) fn stat<P: Arg>(path: P) -> Result<Stat> {
    let Some(sim) = current() else {
        return rustix::fs::stat(path);
    };
    let (machine, node) = root_of(&sim, &bytes_of(path)?)?;
    sim.point(machine, "stat")?;
    Ok(sim.disk(machine, |d| stat_of(&sim, d, node)))
}

pub(crate) fn fstat<F: AsFd>(fd: F) -> Result<Stat> {
    let Some(sim) = current() else {
        return rustix::fs::fstat(fd);
    };
    let (machine, node) = node(&sim, fd);
    sim.point(machine, "fstat")?;
    Ok(sim.disk(machine, |d| stat_of(&sim, d, node)))
}

pub(crate) fn statat<P: Arg, F: AsFd>(fd: F, path: P, flags: AtFlags) -> Result<Stat> {
    let Some(sim) = current() else {
        return rustix::fs::statat(fd, path, flags);
    };
    let (machine, dir) = node(&sim, fd);
    let name = bytes_of(path)?;
    sim.point(machine, "statat")?;
    sim.disk(machine, |d| {
        Ok(stat_of(&sim, d, d.child(dir, &name).ok_or(Errno::NOENT)?))
    })
}

pub(crate) fn openat2<F: AsFd, P: Arg>(
    fd: F,
    path: P,
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> Result<OwnedFd> {
    let Some(sim) = current() else {
        return rustix::fs::openat2(fd, path, flags, mode, how);
    };
    let (machine, start) = node(&sim, fd);
    let path = bytes_of(path)?;
    if !sim.machines[machine].ways.openat2 {
        return Err(Errno::NOSYS);
    }
    assert!(
        how.contains(ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS),
        "every walk stays below the root"
    );
    sim.point(machine, "openat2")?;
    if path == b"." {
        return Ok(sim.placeholder(machine, start));
    }
    let found = sim.disk(machine, |d| {
        let mut at = start;
        for name in path.split(|&b| b == b'/') {
            match d.kind(at) {
                Kind::Dir => at = d.child(at, name).ok_or(Errno::NOENT)?,
                Kind::Symlink => return Err(Errno::LOOP),
                Kind::File | Kind::Fifo => return Err(Errno::NOTDIR),
            }
        }
        match d.kind(at) {
            Kind::Dir => Ok(at),
            Kind::Symlink => Err(Errno::LOOP),
            Kind::File | Kind::Fifo => Err(Errno::NOTDIR),
        }
    })?;
    assert!(
        flags.contains(OFlags::DIRECTORY),
        "only directories are walked to"
    );
    Ok(sim.placeholder(machine, found))
}

pub(crate) fn openat<P: Arg, F: AsFd>(fd: F, path: P, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let Some(sim) = current() else {
        return rustix::fs::openat(fd, path, flags, mode);
    };
    let (machine, dir) = node(&sim, fd);
    let name = bytes_of(path)?;
    let makes = flags.contains(OFlags::CREATE);
    sim.point(machine, if makes { "openat to make" } else { "openat" })?;
    if name == b"." {
        return Ok(sim.placeholder(machine, dir));
    }
    let now = sim.file_time(machine);
    let found = sim.disk(machine, |d| {
        if d.kind(dir) != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        match d.child(dir, &name) {
            Some(_) if makes && flags.contains(OFlags::EXCL) => Err(Errno::EXIST),
            Some(node) => match d.kind(node) {
                Kind::Dir => Ok(node),
                Kind::Symlink if flags.contains(OFlags::PATH) && !flags.contains(OFlags::DIRECTORY) => {
                    Ok(node)
                }
                Kind::Symlink if flags.contains(OFlags::NOFOLLOW) && !flags.contains(OFlags::DIRECTORY) => {
                    Err(Errno::LOOP)
                }
                Kind::File | Kind::Symlink | Kind::Fifo if flags.contains(OFlags::DIRECTORY) => {
                    Err(Errno::NOTDIR)
                }
                Kind::File if d.nodes[&node].attr.mode & 0o400 == 0 => Err(Errno::ACCESS),
                Kind::Symlink | Kind::Fifo | Kind::File => Ok(node),
            },
            None if makes => {
                sim.may_change(d, dir, "make a file in");
                let made = d.make(Kind::File, mode.as_raw_mode() & 0o777, now, Vec::new());
                d.nodes.get_mut(&made).expect("just made").fresh = true;
                d.link(dir, &name, made, now);
                Ok(made)
            }
            None => Err(Errno::NOENT),
        }
    })?;
    if sim.disk(machine, |d| d.kind(found)) != Kind::File {
        return Ok(sim.placeholder(machine, found));
    }
    let bytes = sim.disk(machine, |d| d.bytes(found));
    let writes = flags.intersects(OFlags::RDWR | OFlags::WRONLY);
    let fd = memory(&bytes);
    if writes {
        sim.disk(machine, |d| {
            sim.may_write(d, found, "open for writing");
            d.written_through(found, reopened(&fd));
        });
    }
    Ok(sim.handle(machine, found, fd))
}

pub(crate) fn dup(fd: impl AsFd) -> Result<OwnedFd> {
    let copy = crate::disk::real::dup(&fd)?;
    match current() {
        Some(sim) => {
            let (machine, node) = node(&sim, fd);
            Ok(sim.handle(machine, node, copy))
        }
        None => Ok(copy),
    }
}

/// Both files have the same bytes from here on, until one is written to. On the medium, as if they had been copied.
pub(crate) fn ficlone<F: AsFd, G: AsFd>(to: F, from: G) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::ioctl_ficlone(to, from);
    };
    let ((machine, source), (_, target)) = (node(&sim, from), node(&sim, &to));
    sim.point(machine, "ficlone")?;
    if !sim.machines[machine].ways.clones {
        return Err(Errno::OPNOTSUPP);
    }
    let bytes = sim.disk(machine, |d| {
        sim.may_write(d, target, "clone into");
        d.bytes(source)
    });
    let mut at = 0;
    while at < bytes.len() {
        at += rustix::io::pwrite(&to, &bytes[at..], at as u64)?;
    }
    Ok(())
}

pub(crate) fn file_system(fd: impl AsFd) -> Result<u32> {
    match current() {
        Some(_) => Ok(EXT4),
        None => crate::disk::real::file_system(fd),
    }
}

/// There is always room: `ENOSPC` comes without a warning.
pub(crate) fn fstatvfs<F: AsFd>(fd: F) -> Result<rustix::fs::StatVfs> {
    let Some(sim) = current() else {
        return rustix::fs::fstatvfs(fd);
    };
    let (machine, _) = node(&sim, fd);
    sim.point(machine, "fstatvfs")?;
    let mut room = rustix::fs::fstatvfs(&sim.nothing)?;
    room.f_frsize = 4096;
    room.f_blocks = 1 << 28;
    room.f_bfree = 1 << 27;
    room.f_bavail = 1 << 27;
    Ok(room)
}

pub(crate) fn entries(fd: impl AsFd) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let Some(sim) = current() else {
        return crate::disk::real::entries(fd);
    };
    let (machine, dir) = node(&sim, fd);
    sim.point(machine, "getdents")?;
    Ok(sim.disk(machine, |d| {
        let entries = &d.nodes[&dir].entries;
        entries
            .iter()
            .map(|(name, node)| {
                (
                    name.clone(),
                    FileType::from_raw_mode(file_mode(&d.nodes[node].attr)),
                )
            })
            .collect()
    }))
}

pub(crate) fn syncfs<F: AsFd>(fd: F) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::syncfs(fd);
    };
    let (machine, _) = node(&sim, fd);
    sim.point(machine, "syncfs")?;
    sim.disk(machine, Disk::sync);
    Ok(())
}

pub(crate) fn fsync<F: AsFd>(fd: F) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::fsync(fd);
    };
    let (machine, node) = node(&sim, fd);
    sim.point(machine, "fsync")?;
    sim.disk(machine, |d| d.sync_file(node));
    Ok(())
}

/// Leases: a machine has them or not.
pub(crate) fn is_being_written(file: &std::fs::File) -> bool {
    let Some(sim) = current() else {
        return crate::disk::probe_lease(file);
    };
    let (machine, node) = node(&sim, file);
    let here = &sim.machines[machine];
    here.ways.leases && here.hands.borrow().contains(&node)
}

/// The same; `true` where nobody can tell.
pub(crate) fn may_be_written(file: &std::fs::File) -> bool {
    match current() {
        None => crate::disk::probe_lease_doubting(file),
        Some(sim) => {
            let (machine, node) = node(&sim, file);
            let here = &sim.machines[machine];
            !here.ways.leases || here.hands.borrow().contains(&node)
        }
    }
}

fn mtime(times: &Timestamps) -> i64 {
    let time = &times.last_modification;
    time.tv_sec * 1_000_000_000 + i64::from(time.tv_nsec as i32)
}

pub(crate) fn utimensat<P: Arg, F: AsFd>(fd: F, path: P, times: &Timestamps, flags: AtFlags) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::utimensat(fd, path, times, flags);
    };
    let (machine, dir) = node(&sim, fd);
    let name = bytes_of(path)?;
    sim.point(machine, "utimensat")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let found = d.child(dir, &name).ok_or(Errno::NOENT)?;
        sim.may_write(d, found, "set the times of");
        d.alter(found, now, |attr| attr.mtime = mtime(times));
        Ok(())
    })
}

pub(crate) fn futimens<F: AsFd>(fd: F, times: &Timestamps) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::futimens(fd, times);
    };
    let (machine, found) = node(&sim, fd);
    sim.point(machine, "futimens")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        sim.may_write(d, found, "set the times of");
        // A temporary file is finished with this.
        d.settle(found);
        d.alter(found, now, |attr| attr.mtime = mtime(times));
        Ok(())
    })
}

pub(crate) fn fchmod<F: AsFd>(fd: F, mode: Mode) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::fchmod(fd, mode);
    };
    let (machine, found) = node(&sim, fd);
    sim.point(machine, "fchmod")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let mut mode = mode.as_raw_mode() & 0o7777;
        if !sim.machines[machine].ways.exec && d.kind(found) == Kind::File {
            mode &= !0o111;
        }
        d.alter(found, now, |attr| attr.mode = mode)
    });
    Ok(())
}

pub(crate) fn fchown<F: AsFd>(
    fd: F,
    owner: Option<rustix::fs::Uid>,
    group: Option<rustix::fs::Gid>,
) -> Result<()> {
    match current() {
        Some(_) => Ok(()),
        None => rustix::fs::fchown(fd, owner, group),
    }
}
