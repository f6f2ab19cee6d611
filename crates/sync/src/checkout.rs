//! A generation written into a new directory. Every content is verified; nothing else is touched, and nothing is left
//! behind where it fails. Never asks a peer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::RelPath;
use alike_core::tree;
use alike_store::{Generation, Snapshot};

use crate::blobs;
use crate::clock::now_ns;
use crate::disk::Root;
use crate::disk::temp::copy;
use crate::error::Error;
use crate::folder::{Look, Place, now_ms};

/// What a checkout wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Whose content is not here.
    pub(crate) missing: Vec<RelPath>,
}

/// Every file of a generation's tree.
pub(crate) fn contents(snapshot: &Snapshot, root: Digest) -> Result<Vec<(Digest, u64)>, Error> {
    let mut found = HashSet::new();
    let mut open = vec![root];
    let mut seen = HashSet::new();
    while let Some(dir) = open.pop() {
        if !seen.insert(dir) {
            continue;
        }
        for entry in tree::read::<NamedEntry>(snapshot, dir)? {
            match entry.entry {
                Entry::Dir { digest } => open.push(digest),
                Entry::File { digest, size, .. } => drop(found.insert((digest, size))),
                Entry::Symlink { .. } => {}
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// May `dir` be written to: is it new, or empty?
pub(crate) fn check_target(dir: &Path) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::Refused(format!("{} {why}", dir.display())));
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => refuse("is not empty: name a directory that is not there yet"),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            refuse("is a file: name a directory that is not there yet")
        }
        Err(e) => refuse(&format!("cannot be looked at: {e}")),
    }
}

/// Writes the generation to `dir`. `progress` gets the number of files written; `false` ends it.
pub(crate) fn write(
    place: &Place,
    generation: &Generation,
    dir: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Written, Error> {
    check_target(dir)?;
    let snapshot = place.store.snapshot()?;
    let mut work = Work {
        place,
        snapshot: &snapshot,
        past: Look::new(&snapshot, generation.state),
        written: Written::default(),
        made: None,
        progress,
    };
    // One that is there may be a mount, and has its own mode: it is filled. A new one is there when it is whole.
    let done = if dir.is_dir() {
        work.fill(generation.root, dir)
    } else {
        work.make(generation.root, dir)
    };
    done.map(|()| work.written)
}

/// Nobody waits for the checkout any more.
pub(crate) fn ended() -> Error {
    Error::Refused("the command was ended".into())
}

fn failed(dir: &Path, source: &io::Error) -> Error {
    Error::Refused(format!("writing {} failed: {source}", dir.display()))
}

struct Work<'a> {
    place: &'a Place,
    snapshot: &'a Snapshot,
    past: Look<'a>,
    written: Written,
    /// What was made so far, where it is to be taken away again one by one.
    made: Option<Vec<PathBuf>>,
    progress: &'a mut dyn FnMut(u64) -> bool,
}

impl Work<'_> {
    /// Writes into an empty directory.
    fn fill(&mut self, root: Digest, dir: &Path) -> Result<(), Error> {
        self.made = Some(Vec::new());
        let done = self.dir(root, &RelPath::root(), dir);
        let made = self.made.take().unwrap_or_default();
        if done.is_err() {
            // Not what somebody else has put there meanwhile.
            for path in made.iter().rev() {
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            }
        }
        done
    }

    /// Writes beside `dir` and gives it its name at the end.
    fn make(&mut self, root: Digest, dir: &Path) -> Result<(), Error> {
        let parent = dir.parent().unwrap_or(Path::new("/"));
        let absent: Vec<&Path> = parent.ancestors().take_while(|above| !above.exists()).collect();
        let temp = parent.join(format!(".alike-checkout-{}-{}", std::process::id(), now_ms()));
        let failed = |source| failed(dir, &source);
        let done = fs::create_dir_all(parent)
            .and_then(|()| fs::create_dir(&temp))
            .map_err(failed)
            .and_then(|()| self.dir(root, &RelPath::root(), &temp))
            .and_then(|()| fs::rename(&temp, dir).map_err(failed));
        if done.is_err() {
            let _ = fs::remove_dir_all(&temp);
            absent.iter().for_each(|above| drop(fs::remove_dir(above)));
        }
        done
    }

    fn dir(&mut self, digest: Digest, at: &RelPath, to: &Path) -> Result<(), Error> {
        for entry in tree::read::<NamedEntry>(self.snapshot, digest)? {
            let path = at.join(&entry.name);
            let target = to.join(OsStr::from_bytes(entry.name.as_bytes()));
            let failed = |source: io::Error| Error::Refused(format!("writing {path} failed: {source}"));
            match &entry.entry {
                Entry::Dir { digest } => {
                    fs::create_dir(&target).map_err(failed)?;
                    self.made(&target);
                    self.dir(*digest, &path, &target)?;
                }
                Entry::Symlink { target: to } => {
                    symlink(OsStr::from_bytes(to), &target).map_err(failed)?;
                    self.made(&target);
                    self.written.files += 1;
                }
                Entry::File { digest, size, exec } => {
                    if self
                        .file((digest, *size, *exec), &path, &target)
                        .map_err(failed)?
                    {
                        self.written.files += 1;
                        self.written.bytes += size;
                    } else {
                        self.written.missing.push(path.clone());
                    }
                }
            }
            if !(self.progress)(self.written.files) {
                return Err(ended());
            }
        }
        Ok(())
    }

    fn made(&mut self, path: &Path) {
        if let Some(made) = &mut self.made {
            made.push(path.to_owned());
        }
    }

    /// `false`: its content is not here.
    fn file(
        &mut self,
        (digest, size, exec): (&Digest, u64, bool),
        path: &RelPath,
        to: &Path,
    ) -> io::Result<bool> {
        let mtime = self.past.at(path).ok().flatten().map(|shown| shown.mtime);
        let mtime = mtime.unwrap_or_else(now_ns);
        let file = File::options().read(true).write(true).create_new(true).open(to)?;
        self.made(to);
        let finish = |file: &File| Root::finish_temp(file, exec, mtime).map(|()| true);
        let afresh = || file.set_len(0).and_then(|()| io::Seek::rewind(&mut &file));
        if size == 0 {
            return finish(&file);
        }
        for source in blobs::files(self.place, self.snapshot, digest) {
            if source.metadata()?.len() != size {
                continue;
            }
            afresh()?;
            match copy(&source, size, &file) {
                Ok(copied) if copied == *digest => return finish(&file),
                // Another one may do.
                Ok(_) => {}
                Err(error) if is_the_target(&error) => return Err(error),
                Err(error) => tracing::debug!(%path, "a source of a checkout: {error}"),
            }
        }
        if let Some(content) = self.place.store.packed(digest).map_err(io::Error::other)? {
            afresh()?;
            (&file).write_all(&content)?;
            return finish(&file);
        }
        drop(file);
        fs::remove_file(to)?;
        Ok(false)
    }
}

/// Is it where the copy goes that failed, so that no other source helps?
fn is_the_target(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
    )
}
