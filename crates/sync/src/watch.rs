//! Watches on the directories of a folder: hints where to look, never facts. Switched off, a full scan finds
//! the same. Never reads a directory itself and never decides when to scan.
//!
//! Watches are put on directories one by one, by the scan, before it reads each of them: what changes after
//! that gives a hint, what changed before is seen. The kernel watches inodes, so a directory that is moved
//! keeps its watch, under its old path here, until it is added under the new one. What to do after a scan:
//! call [`Watch::remove_below`] for each of its `gone_dirs`. Nothing else: [`Watch::add`] has already given
//! a moved directory its new path, and such a watch is not removed with the old one.
//!
//! This speaks inotify itself, because the `notify` crate also asks for `IN_OPEN`: every file that a scan
//! reads would be an event, a scan of many files would overflow the queue, and an overflow asks for a scan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use alike_core::path::{Name, OWN_DIR, RelPath};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::disk::Root;

/// Bytes of events read at once: a thousand or more.
const EVENTS_BUFFER: usize = 64 * 1024;
/// Begins the names of the files made for [`Watch::cookie`].
const COOKIE: &str = "cookie-";

/// What can mean a change of a directory's members. Not opening, reading or closing without a write.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hint {
    /// Something about this path, or a name in this directory.
    Dirty(RelPath),
    /// A program has closed this file that it had open for writing. What it wrote by way of a shared memory map
    /// may have left no other sign.
    Closed(RelPath),
    /// A program has written to this file by a call of the kernel.
    Written(RelPath),
    /// Hints were lost: anything may have changed.
    Overflow,
    /// The cookie of this number: all hints of what happened before it are out.
    Cookie(u64),
    /// No more hints will come.
    Failed(String),
}

/// Why a directory is not watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The system has no more watches for this user.
    #[error("no more watches: raise fs.inotify.max_user_watches")]
    Limit,
    /// It is not there, or no directory.
    #[error("the directory is gone")]
    Gone,
    /// It may not be read.
    #[error("the directory may not be read")]
    Denied,
    /// Anything else.
    #[error("cannot watch: {0}")]
    Other(#[source] io::Error),
}

/// The watches of one folder. Dropped, it gives no more hints.
pub(crate) struct Watch {
    inner: Arc<Inner>,
}

struct Inner {
    root: Root,
    inotify: OwnedFd,
    names: Mutex<Names>,
    stopped: AtomicBool,
}

/// Which watch is of which directory. Locked while a watch is made, so that no event comes before its name.
#[derive(Default)]
struct Names {
    by_wd: HashMap<i32, RelPath>,
    by_path: BTreeMap<Vec<u8>, i32>,
    /// The watch of `.alike`.
    own: Option<i32>,
}

impl Watch {
    /// Begins. `hints` is called from a thread of its own, which blocks while it does, and ends by itself
    /// when the watch is dropped.
    pub(crate) fn new(root: &Root, hints: impl Fn(Hint) + Send + 'static) -> Result<Watch, String> {
        let inotify = inotify::init(CreateFlags::CLOEXEC).map_err(|errno| match errno {
            Errno::MFILE => "no more watchers: raise fs.inotify.max_user_instances".to_owned(),
            errno => format!("cannot watch: {errno}"),
        })?;
        let inner = Arc::new(Inner {
            root: root.again().map_err(|e| format!("cannot watch: {e}"))?,
            inotify,
            names: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        inner
            .add_own()
            .map_err(|e| format!("cannot watch {}/{OWN_DIR}: {e}", root.path().display()))?;
        let thread = inner.clone();
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || thread.read_events(&hints))
            .map_err(|e| format!("cannot watch: {e}"))?;
        Ok(Watch { inner })
    }

    /// Watches the directory that is at `dir` now. To be called before it is read. Cheap and harmless where
    /// it is watched already; corrects the path of one that was moved here. Was it not watched before?
    pub(crate) fn add(&self, dir: &RelPath) -> Result<bool, WatchError> {
        self.inner.add(dir)
    }

    /// Is the directory at this path watched, as far as is known here?
    pub(crate) fn is_watched(&self, dir: &RelPath) -> bool {
        self.inner.names().by_path.contains_key(dir.as_bytes())
    }

    /// Removes the watches of `dir` and all below it, but not of those that were added under another path
    /// since they were moved away.
    pub(crate) fn remove_below(&self, dir: &RelPath) {
        let mut names = self.inner.names();
        let mut below = dir.as_bytes().to_vec();
        let mut wds: Vec<i32> = names.by_path.remove(&below).into_iter().collect();
        if !dir.is_root() {
            below.push(b'/');
        }
        let paths: Vec<Vec<u8>> = names
            .by_path
            .range(below.clone()..)
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(path, _)| path.clone())
            .collect();
        wds.extend(paths.iter().filter_map(|path| names.by_path.remove(path)));
        for wd in wds {
            names.by_wd.remove(&wd);
            // It may be gone with its directory.
            let _ = inotify::remove_watch(&self.inner.inotify, wd);
        }
    }

    /// Makes and removes a file in `.alike`; [`Hint::Cookie`] comes after the hints of all that happened
    /// before.
    pub(crate) fn cookie(&self, n: u64) -> io::Result<()> {
        self.inner.add_own().map_err(io::Error::from)?;
        self.inner.root.touch_own(&format!("{COOKIE}{n}"))
    }

    /// How many directories are watched.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.inner.names().by_path.len()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Release);
        // Removing a watch is itself an event, which wakes the thread.
        let own = self.inner.names().own.take();
        let woken = own.is_some_and(|wd| inotify::remove_watch(&self.inner.inotify, wd).is_ok());
        if !woken && let Ok(wd) = inotify::add_watch(&self.inner.inotify, "/", WatchFlags::DELETE_SELF) {
            let _ = inotify::remove_watch(&self.inner.inotify, wd);
        }
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("nothing panics with the names locked")
    }

    fn add(&self, dir: &RelPath) -> Result<bool, WatchError> {
        let open = self.root.watch_dir(dir).map_err(|e| watch_error(&e))?;
        let mut names = self.names();
        let wd = self.watch(&open, CHANGES).map_err(|errno| match errno {
            Errno::NOSPC => WatchError::Limit,
            Errno::ACCESS => WatchError::Denied,
            errno => WatchError::Other(errno.into()),
        })?;
        if let Some(old_path) = names.by_wd.insert(wd, dir.clone())
            && old_path != *dir
            && names.by_path.get(old_path.as_bytes()) == Some(&wd)
        {
            names.by_path.remove(old_path.as_bytes());
        }
        let old_wd = names.by_path.insert(dir.as_bytes().to_vec(), wd);
        if let Some(old_wd) = old_wd
            && old_wd != wd
        {
            // Another directory was here, and may live on elsewhere: its events are not about this path.
            names.by_wd.remove(&old_wd);
            let _ = inotify::remove_watch(&self.inotify, old_wd);
        }
        Ok(old_wd != Some(wd))
    }

    /// Watches `.alike`, for cookies alone.
    fn add_own(&self) -> rustix::io::Result<()> {
        let open = self.root.own_dir_fd()?;
        let mut names = self.names();
        let wd = self.watch(&open, WatchFlags::CREATE | WatchFlags::ONLYDIR)?;
        names.own = Some(wd);
        Ok(())
    }

    /// By way of the open directory, not of its path: that may lead elsewhere by now.
    fn watch(&self, dir: &impl AsFd, flags: WatchFlags) -> rustix::io::Result<i32> {
        let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        inotify::add_watch(&self.inotify, path, flags)
    }

    fn read_events(&self, hints: &dyn Fn(Hint)) {
        let mut buffer = vec![MaybeUninit::uninit(); EVENTS_BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        // What was said since the last read need not be said again before the next one.
        let mut said = HashSet::new();
        loop {
            if reader.is_buffer_empty() {
                said.clear();
            }
            let hint = match reader.next() {
                _ if self.stopped.load(Ordering::Acquire) => return,
                Ok(event) => self.hint(
                    event.wd(),
                    event.events(),
                    event.file_name().map(|n| n.to_bytes()),
                ),
                Err(Errno::INTR) => None,
                Err(errno) => {
                    hints(Hint::Failed(format!("watching stopped: {errno}")));
                    return;
                }
            };
            match hint {
                Some(hint @ (Hint::Dirty(_) | Hint::Closed(_) | Hint::Written(_)))
                    if !said.insert(hint.clone()) => {}
                Some(hint) => hints(hint),
                None => {}
            }
        }
    }

    fn hint(&self, wd: i32, events: ReadFlags, name: Option<&[u8]>) -> Option<Hint> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Hint::Overflow);
        }
        let mut names = self.names();
        if names.own == Some(wd) {
            if events.contains(ReadFlags::IGNORED) {
                names.own = None;
            }
            let number = name?.strip_prefix(COOKIE.as_bytes())?;
            return Some(Hint::Cookie(std::str::from_utf8(number).ok()?.parse().ok()?));
        }
        let dir = names.by_wd.get(&wd)?.clone();
        if events.contains(ReadFlags::IGNORED) {
            names.by_wd.remove(&wd);
            if names.by_path.get(dir.as_bytes()) == Some(&wd) {
                names.by_path.remove(dir.as_bytes());
            }
            return None;
        }
        let Some(name) = name else {
            // About the directory itself. Its parent's watch says so too, but for the root, and where it
            // takes the whole directory with it.
            let ends = ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT;
            return (dir.is_root() || events.intersects(ends)).then_some(Hint::Dirty(dir));
        };
        match Name::new(name).map(|name| dir.join(&name)) {
            Ok(path) if path.fits() && events.contains(ReadFlags::CLOSE_WRITE) => Some(Hint::Closed(path)),
            Ok(path) if path.fits() && events.contains(ReadFlags::MODIFY) => Some(Hint::Written(path)),
            Ok(path) if path.fits() => Some(Hint::Dirty(path)),
            Err(_) if dir.is_root() && name == OWN_DIR.as_bytes() => {
                let ends = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
                events.intersects(ends).then_some(Hint::Dirty(dir))
            }
            _ => Some(Hint::Dirty(dir)),
        }
    }
}

fn watch_error(e: &io::Error) -> WatchError {
    match Errno::from_io_error(e) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => WatchError::Gone,
        Some(Errno::ACCESS) => WatchError::Denied,
        Some(errno) => WatchError::Other(errno.into()),
        None => WatchError::Other(io::Error::other(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::disk::tests::{Folder, folder, rel};

    struct Watched {
        f: Folder,
        watch: Watch,
        hints: mpsc::Receiver<Hint>,
        cookies: std::cell::Cell<u64>,
    }

    fn watched(dirs: &[&str]) -> Watched {
        let f = folder();
        for dir in dirs {
            fs::create_dir_all(f.at(dir)).unwrap();
        }
        let (send, hints) = mpsc::channel();
        let watch = Watch::new(&f.root, move |hint| drop(send.send(hint))).unwrap();
        watch.add(&RelPath::root()).unwrap();
        for dir in dirs {
            watch.add(&rel(dir)).unwrap();
        }
        Watched {
            f,
            watch,
            hints,
            cookies: std::cell::Cell::new(0),
        }
    }

    impl Watched {
        /// All paths that were hinted at since the last call, in order, none twice.
        fn dirty(&self) -> Vec<String> {
            let cookie = self.cookies.get() + 1;
            self.cookies.set(cookie);
            self.watch.cookie(cookie).unwrap();
            let mut paths: Vec<String> = Vec::new();
            loop {
                match self.hints.recv_timeout(Duration::from_secs(10)).unwrap() {
                    Hint::Dirty(path) | Hint::Closed(path) | Hint::Written(path) => {
                        let path = path.to_string();
                        if !paths.contains(&path) {
                            paths.push(path);
                        }
                    }
                    Hint::Cookie(n) => {
                        assert_eq!(n, cookie);
                        return paths;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn changes_are_hinted_at_before_the_cookie_and_reading_is_not() {
        let w = watched(&["d"]);
        w.f.put("a", "x");
        assert_eq!(w.dirty(), ["a"]);
        w.f.put("d/b", "x");
        fs::rename(w.f.at("a"), w.f.at("d/c")).unwrap();
        assert_eq!(w.dirty(), ["d/b", "a", "d/c"]);
        w.f.get("d/b");
        fs::read_dir(w.f.at("d")).unwrap().count();
        assert!(w.dirty().is_empty());
        fs::remove_file(w.f.at("d/b")).unwrap();
        assert_eq!(w.dirty(), ["d/b"]);
        let permissions = fs::metadata(w.f.at("d/c")).unwrap().permissions();
        fs::set_permissions(w.f.at("d/c"), permissions).unwrap();
        assert_eq!(w.dirty(), ["d/c"]);
        fs::create_dir(w.f.at("n")).unwrap();
        w.f.put("n/unseen", "x");
        assert_eq!(w.dirty(), ["n"]);
        w.f.put(b"d/\xff", "x");
        assert_eq!(w.dirty(), ["d/\\xff"]);
        for n in 0..300 {
            w.f.put(format!("d/{n}"), "x");
        }
        assert_eq!(w.dirty().len(), 300);
    }

    #[test]
    fn our_own_files_give_no_hints() {
        let w = watched(&[]);
        w.f.temp("x");
        w.f.put(".alike/other", "x");
        w.f.put(".alike/cookie-x", "x");
        assert!(w.dirty().is_empty());
        w.f.put(".ALIKE/x", "x");
        assert_eq!(w.dirty(), [""]);
        fs::rename(w.f.at(".alike"), w.f.at("gone")).unwrap();
        fs::rename(w.f.at("gone"), w.f.at(".alike")).unwrap();
        assert_eq!(w.dirty(), ["", "gone"]);
        fs::remove_dir_all(w.f.at(".alike")).unwrap();
        assert!(w.watch.cookie(100).is_err());
        w.f.root.ensure_own_dir([0; 16]).unwrap();
        assert_eq!(w.dirty(), [""]);
    }

    #[test]
    fn a_directory_removed_and_created_again_stays_watched() {
        let w = watched(&["d", "d/e"]);
        for i in 0..20 {
            fs::remove_dir_all(w.f.at("d")).unwrap();
            fs::create_dir_all(w.f.at("d/e")).unwrap();
            // Whether or not the end of the old one was heard of yet.
            if i % 2 == 0 {
                w.dirty();
            }
            w.watch.add(&rel("d")).unwrap();
            w.watch.add(&rel("d/e")).unwrap();
            w.dirty();
            w.f.put("d/e/x", "x");
            assert_eq!(w.dirty(), ["d/e/x"]);
            assert_eq!(w.watch.watched(), 3);
        }
    }

    #[test]
    fn a_moved_directory_is_hinted_at_under_its_new_path() {
        let w = watched(&["d", "d/e"]);
        fs::rename(w.f.at("d"), w.f.at("m")).unwrap();
        assert_eq!(w.dirty(), ["d", "m"]);
        // What a scan does: adds what is new, then gives up what is gone.
        w.watch.add(&rel("m")).unwrap();
        w.watch.add(&rel("m/e")).unwrap();
        w.watch.remove_below(&rel("d"));
        w.f.put("m/e/x", "x");
        w.f.put("m/y", "y");
        assert_eq!(w.dirty(), ["m/e/x", "m/y"]);
        assert_eq!(w.watch.watched(), 3);
        // And in the other order.
        fs::rename(w.f.at("m"), w.f.at("n")).unwrap();
        w.watch.remove_below(&rel("m"));
        w.watch.add(&rel("n")).unwrap();
        w.watch.add(&rel("n/e")).unwrap();
        w.dirty();
        w.f.put("n/e/x", "xx");
        assert_eq!(w.dirty(), ["n/e/x"]);
    }

    #[test]
    fn directories_that_change_places_are_told_apart() {
        let w = watched(&["a", "b"]);
        fs::rename(w.f.at("a"), w.f.at("t")).unwrap();
        fs::rename(w.f.at("b"), w.f.at("a")).unwrap();
        fs::rename(w.f.at("t"), w.f.at("b")).unwrap();
        w.watch.add(&rel("a")).unwrap();
        w.watch.add(&rel("b")).unwrap();
        w.dirty();
        w.f.put("a/x", "x");
        assert_eq!(w.dirty(), ["a/x"]);
        w.f.put("b/x", "x");
        assert_eq!(w.dirty(), ["b/x"]);
        assert_eq!(w.watch.watched(), 3);
    }

    #[test]
    fn what_is_moved_out_is_not_hinted_at() {
        let w = watched(&["d", "d/e", "dd"]);
        let outside = tempfile::tempdir().unwrap();
        fs::rename(w.f.at("d"), outside.path().join("d")).unwrap();
        w.watch.remove_below(&rel("d"));
        w.dirty();
        fs::write(outside.path().join("d/e/x"), "x").unwrap();
        assert!(w.dirty().is_empty());
        w.f.put("dd/x", "x");
        assert_eq!(w.dirty(), ["dd/x"]);
        assert!(matches!(w.watch.add(&rel("d")), Err(WatchError::Gone)));
        std::os::unix::fs::symlink(outside.path(), w.f.at("d")).unwrap();
        assert!(matches!(w.watch.add(&rel("d")), Err(WatchError::Gone)));
        assert!(matches!(w.watch.add(&rel("d/d")), Err(WatchError::Gone)));
    }

    #[test]
    fn an_overflow_is_told() {
        let f = folder();
        let (send, hints) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let watch = Watch::new(&f.root, move |hint| {
            let _ = wait.recv();
            drop(send.send(hint));
        })
        .unwrap();
        watch.add(&RelPath::root()).unwrap();
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        if limit > 100_000 {
            return;
        }
        f.put("a", "");
        f.put("b", "");
        for i in 0..limit + 5000 {
            // In turn, for equal events in a row are one.
            let (path, mode) = (f.at(["a", "b"][i % 2]), rustix::fs::Mode::RWXU);
            rustix::fs::chmod(path, mode).unwrap();
        }
        drop(go);
        loop {
            match hints.recv_timeout(Duration::from_secs(10)).unwrap() {
                Hint::Overflow => break,
                Hint::Dirty(_) | Hint::Closed(_) | Hint::Written(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn dropped_it_ends() {
        for gone in [false, true] {
            let w = watched(&["d"]);
            if gone {
                fs::remove_dir_all(w.f.at(".alike")).unwrap();
            }
            drop(w.watch);
            // The sender goes with the thread.
            loop {
                match w.hints.recv_timeout(Duration::from_secs(10)) {
                    Ok(_) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                    Err(mpsc::RecvTimeoutError::Timeout) => panic!("still there"),
                }
            }
        }
    }
}
