//! The calls that give names and take them: made, removed, renamed, linked. Never the bytes of a file.

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::os::fd::AsFd;

use super::super::current;
use super::super::disk::Kind;
use super::{Result, bytes_of, node};

pub(crate) fn mkdirat<P: Arg, F: AsFd>(fd: F, path: P, mode: Mode) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::mkdirat(fd, path, mode);
    };
    let (machine, start) = node(&sim, fd);
    let path = bytes_of(path)?;
    sim.point(machine, "mkdirat")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let mut names: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
        let name = names.pop().expect("a path has a name");
        let dir = names
            .iter()
            .try_fold(start, |at, name| d.child(at, name))
            .ok_or(Errno::NOENT)?;
        if d.child(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        if !sim.is_linked(d, dir) {
            return Err(Errno::NOENT);
        }
        sim.may_change(d, dir, "make a directory in");
        let made = d.make(Kind::Dir, mode.as_raw_mode() & 0o755, now, Vec::new());
        d.link(dir, name, made, now);
        Ok(())
    })
}

pub(crate) fn unlinkat<P: Arg, F: AsFd>(fd: F, path: P, flags: AtFlags) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::unlinkat(fd, path, flags);
    };
    let (machine, dir) = node(&sim, fd);
    let name = bytes_of(path)?;
    sim.point(machine, "unlinkat")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let found = d.child(dir, &name).ok_or(Errno::NOENT)?;
        let is_dir = d.kind(found) == Kind::Dir;
        match (is_dir, flags.contains(AtFlags::REMOVEDIR)) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !d.nodes[&found].entries.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        sim.may_change(d, dir, "remove a name from");
        sim.may_unlink(d, found);
        d.unlink(dir, &name, now);
        Ok(())
    })
}

pub(crate) fn renameat_with<P: Arg, Q: Arg, F: AsFd, G: AsFd>(
    from: F,
    path: P,
    to: G,
    new: Q,
    flags: RenameFlags,
) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::renameat_with(from, path, to, new, flags);
    };
    let ((machine, from), (_, to)) = (node(&sim, from), node(&sim, to));
    let (name, new) = (bytes_of(path)?, bytes_of(new)?);
    let ways = &sim.machines[machine].ways;
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let spares = flags.contains(RenameFlags::NOREPLACE);
    if (exchange && !ways.exchange) || (spares && !ways.no_replace) {
        return Err(Errno::INVAL);
    }
    sim.point(machine, if exchange { "exchange" } else { "rename" })?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let found = d.child(from, &name).ok_or(Errno::NOENT)?;
        if !sim.is_linked(d, to) {
            return Err(Errno::NOENT);
        }
        sim.may_change(d, from, "rename in");
        sim.may_change(d, to, "rename in");
        let mut above = Some(to);
        while let Some(at) = above {
            if at == found {
                return Err(Errno::INVAL);
            }
            above = d.parent(at);
        }
        match (d.child(to, &new), exchange) {
            (Some(_), false) if spares => Err(Errno::EXIST),
            (Some(there), false) => {
                // Over what is there: only a directory, and that over an empty one.
                let is_dir = |node| d.kind(node) == Kind::Dir;
                assert!(is_dir(found), "a rename of alike's spares what is there");
                match is_dir(there) {
                    true if d.nodes[&there].entries.is_empty() => {
                        d.unlink(to, &new, now);
                        d.rename(from, &name, to, &new, now);
                        Ok(())
                    }
                    true => Err(Errno::NOTEMPTY),
                    false => Err(Errno::NOTDIR),
                }
            }
            (None, false) => {
                d.rename(from, &name, to, &new, now);
                Ok(())
            }
            (None, true) => Err(Errno::NOENT),
            (Some(_), true) => {
                d.exchange(from, &name, to, &new, now);
                Ok(())
            }
        }
    })
}

pub(crate) fn linkat<P: Arg, Q: Arg, F: AsFd, G: AsFd>(
    from: F,
    path: P,
    to: G,
    new: Q,
    flags: AtFlags,
) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::linkat(from, path, to, new, flags);
    };
    let ((machine, from), (_, to)) = (node(&sim, from), node(&sim, to));
    let (name, new) = (bytes_of(path)?, bytes_of(new)?);
    sim.point(machine, "linkat")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        let found = d.child(from, &name).ok_or(Errno::NOENT)?;
        if d.kind(found) == Kind::Dir {
            return Err(Errno::PERM);
        }
        if d.child(to, &new).is_some() {
            return Err(Errno::EXIST);
        }
        if !sim.is_linked(d, to) {
            return Err(Errno::NOENT);
        }
        sim.may_change(d, to, "link in");
        d.link(to, &new, found, now);
        Ok(())
    })
}

pub(crate) fn symlinkat<P: Arg, Q: Arg, F: AsFd>(target: P, fd: F, path: Q) -> Result<()> {
    let Some(sim) = current() else {
        return rustix::fs::symlinkat(target, fd, path);
    };
    let (machine, dir) = node(&sim, fd);
    let (target, name) = (bytes_of(target)?, bytes_of(path)?);
    sim.point(machine, "symlinkat")?;
    let now = sim.file_time(machine);
    sim.disk(machine, |d| {
        if d.child(dir, &name).is_some() {
            return Err(Errno::EXIST);
        }
        sim.may_change(d, dir, "make a link in");
        let made = d.make(Kind::Symlink, 0o777, now, target);
        d.link(dir, &name, made, now);
        Ok(())
    })
}

pub(crate) fn readlinkat<P: Arg, F: AsFd, B: Into<Vec<u8>>>(
    fd: F,
    path: P,
    reuse: B,
) -> Result<std::ffi::CString> {
    let Some(sim) = current() else {
        return rustix::fs::readlinkat(fd, path, reuse);
    };
    let (machine, dir) = node(&sim, fd);
    let name = bytes_of(path)?;
    sim.point(machine, "readlinkat")?;
    sim.disk(machine, |d| {
        let found = d.child(dir, &name).ok_or(Errno::NOENT)?;
        match d.kind(found) {
            Kind::Symlink => {
                Ok(std::ffi::CString::new(d.nodes[&found].attr.target.clone()).expect("no NUL in it"))
            }
            Kind::File | Kind::Dir | Kind::Fifo => Err(Errno::INVAL),
        }
    })
}
