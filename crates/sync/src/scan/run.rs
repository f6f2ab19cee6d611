//! The walk: targets become jobs, directories are compared with the index, files are hashed. Never looks at
//! one name itself (that is `look`).

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use alike_core::path::{MAX_DEPTH, MAX_PATH, Name, OWN_DIR, PathError, RelPath};
use alike_core::record::Value;
use alike_store::{IndexRow, Latest, MAX_PACKED};
use rustix::io::Errno;

use super::batch::Batches;
use super::gone::Gone;
use super::look::{self, Clock, Look};
use super::pool::Pool;
use super::{Found, Scan, ScanError, ScanReport, Target};
use crate::disk::{Buffer, Content, Dir, Kind, Stat, is_unreadable};
use crate::failpoint::point;
use crate::ignore::{RULES, Rules, Trouble};

/// Members of a directory that are one job; a directory with more is shared by the threads.
pub(super) const PART: usize = 512;
/// A file over this many bytes is a job of its own.
const LONG: u64 = 4 * 1024 * 1024;
/// Files of about this many bytes are hashed in one job (a few milliseconds); with more of them, threads share.
const SHARE: u64 = 16 * 1024 * 1024;
/// How often a directory that changes while it is listed is listed again.
const LIST_TRIES: usize = 3;

/// How far to look into a member that the index knows as the directory it is. Any other directory is looked
/// through wholly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Wholly.
    Tree,
    /// Its members.
    Members,
    /// Not at all.
    Itself,
}

/// A member of a directory, with what the index says.
pub(super) struct Member {
    pub(super) name: Name,
    pub(super) base: Option<IndexRow>,
}

pub(super) enum Job {
    /// Some paths in one directory.
    Paths(RelPath, Vec<Target>),
    /// Read a directory; with the rules from above it.
    Dir(RelPath, Depth, Rules),
    /// Look at some of its members; with its rules.
    Part(RelPath, Depth, Rules, Vec<Member>),
    /// Hash some files in it, and read links.
    Content(RelPath, Vec<Member>),
}

pub(super) struct Run<'a> {
    pub(super) scan: &'a Scan<'a>,
    pub(super) index: Latest<'a>,
    clock: Clock,
    pub(super) pool: Pool<Job>,
    pub(super) batches: Batches<'a>,
    gone: Mutex<Vec<Gone>>,
    error: Mutex<Option<ScanError>>,
    files: AtomicU64,
    dirs: AtomicU64,
    hashed: AtomicU64,
}

pub(super) fn run(
    scan: &Scan<'_>,
    targets: Vec<Target>,
    out: &(dyn Fn(Vec<Found>) + Sync),
) -> Result<ScanReport, ScanError> {
    scan.root.check_known().map_err(ScanError::Root)?;
    let run = Run {
        scan,
        index: scan.store.latest(),
        clock: Clock::new(scan.root),
        pool: Pool::new(),
        batches: Batches::new(out),
        gone: Mutex::default(),
        error: Mutex::default(),
        files: AtomicU64::new(0),
        dirs: AtomicU64::new(0),
        hashed: AtomicU64::new(0),
    };
    point("scan.begin");
    run.begin(targets);
    run.pool.run(&Buffer::new, &|buffer, job| run.work(buffer, job));
    let gone = run.gone.lock().expect("no thread is left").drain(..).collect();
    if let Some(error) = run.error.lock().expect("no thread is left").take() {
        run.batches.flush();
        return Err(error);
    }
    let complete = !(scan.cancelled)();
    let gone_dirs = if complete {
        point("scan.gone");
        let gone_dirs = run.report_gone(gone)?;
        point("scan.gone.reported");
        gone_dirs
    } else {
        Vec::new()
    };
    run.batches.flush();
    point("scan.end");
    Ok(ScanReport {
        files: run.files.into_inner(),
        dirs: run.dirs.into_inner(),
        hashed_bytes: run.hashed.into_inner(),
        complete,
        gone_dirs,
    })
}

impl Run<'_> {
    fn work(&self, buffer: &mut Buffer, job: Job) {
        if (self.scan.cancelled)() {
            self.pool.stop();
            return;
        }
        self.batches.tick();
        self.index.let_go();
        let done = match job {
            Job::Paths(dir, targets) => self.paths(buffer, &dir, targets),
            Job::Dir(dir, depth, above) => self.dir(buffer, &dir, depth, &above),
            Job::Part(dir, depth, rules, members) => match self.scan.root.dir(&dir) {
                Ok(open) => {
                    self.members(buffer, &open, &dir, depth, &rules, members);
                    Ok(())
                }
                Err(e) => {
                    self.no_dir(dir, &e);
                    Ok(())
                }
            },
            Job::Content(dir, members) => {
                match self.scan.root.dir(&dir) {
                    Ok(open) => {
                        let members = members.into_iter().map(|member| (member, None)).collect();
                        self.contents(buffer, &open, &dir, members);
                    }
                    Err(e) => self.no_dir(dir, &e),
                }
                Ok(())
            }
        };
        if let Err(error) = done {
            self.error.lock().expect("not poisoned").get_or_insert(error);
            self.pool.stop();
        }
    }

    /// Reads one directory and looks at its members.
    fn dir(&self, buffer: &mut Buffer, dir: &RelPath, depth: Depth, above: &Rules) -> Result<(), ScanError> {
        (self.scan.on_dir)(dir);
        // Before the directory is read: a row that is newer than that would be gone.
        let snapshot = self.index.snapshot()?;
        let (open, names) = match self.scan.root.dir(dir).and_then(|open| {
            let names = list(&open)?;
            Ok((open, names))
        }) {
            Ok(listed) => listed,
            Err(e) => {
                self.no_dir(dir.clone(), &e);
                return Ok(());
            }
        };
        self.dirs.fetch_add(1, Ordering::Relaxed);
        let names = self.check_names(dir, names);
        let rows = snapshot.index_dir(self.scan.folder, dir)?;
        drop(snapshot);
        let rules = self.rules(above, dir, &open);
        let mut members = self.join(dir, &rules, names, rows);
        while members.len() > PART {
            let part = members.split_off(members.len() - PART);
            self.pool.push(Job::Part(dir.clone(), depth, rules.clone(), part));
        }
        self.members(buffer, &open, dir, depth, &rules, members);
        Ok(())
    }

    /// The rules in a directory, with what is to say of them.
    pub(super) fn rules(&self, above: &Rules, dir: &RelPath, open: &Dir) -> Rules {
        let (rules, trouble) = self.scan.ignore.enter(above, dir, open);
        if let Some(trouble) = trouble {
            let path = dir.join(&Name::new(RULES).expect("it is a name"));
            self.batches.push(match trouble {
                Trouble::Again => Found::Busy(path),
                Trouble::Unreadable(reason) => look::unreadable_rules(dir.clone(), &reason),
                Trouble::Bad(reason) => look::bad_rules(path, &reason),
            });
        }
        rules
    }

    /// Takes out what is no name of ours; sorts.
    fn check_names(&self, dir: &RelPath, names: Vec<Vec<u8>>) -> Vec<Name> {
        let mut good = Vec::with_capacity(names.len());
        for name in names {
            match Name::new(&name) {
                Ok(name) => good.push(name),
                Err(PathError::Reserved) if dir.is_root() && name == OWN_DIR.as_bytes() => {}
                Err(reason) => self.batches.push(Found::Unnamable {
                    dir: dir.clone(),
                    name,
                    reason: reason.to_string(),
                }),
            }
        }
        good.sort_unstable();
        good.dedup();
        good
    }

    /// Names on disk with rows of the index; rows without a name are gone.
    fn join(
        &self,
        dir: &RelPath,
        rules: &Rules,
        names: Vec<Name>,
        rows: Vec<(Name, IndexRow)>,
    ) -> Vec<Member> {
        let gone = |name: &Name, row: IndexRow| {
            let path = dir.join(name);
            // What is left out is frozen: nobody knows whether it is gone.
            if !rules.ignores(&path, is_dir_row(Some(&row))) {
                self.gone(Gone::Path(path, Some(row)));
            }
        };
        let mut rows = rows.into_iter().peekable();
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            while let Some((old, row)) = rows.next_if(|(row, _)| *row < name) {
                gone(&old, row);
            }
            let base = rows.next_if(|(row, _)| *row == name).map(|(_, row)| row);
            members.push(Member { name, base });
        }
        for (old, row) in rows {
            gone(&old, row);
        }
        members
    }

    /// Looks at members: directories first, so that other threads have something to do.
    pub(super) fn members(
        &self,
        buffer: &mut Buffer,
        open: &Dir,
        dir: &RelPath,
        depth: Depth,
        rules: &Rules,
        members: Vec<Member>,
    ) {
        let (room, deepest) = (
            MAX_PATH.saturating_sub(dir.as_bytes().len() + 1),
            dir.depth() >= MAX_DEPTH,
        );
        let mut files = 0;
        let (mut changed, mut bytes) = (Vec::new(), 0);
        for member in members {
            let name = member.name.as_bytes();
            if deepest || name.len() > room {
                self.batches.push(look::too_long(dir.join(&member.name)));
                continue;
            }
            let stat = match open.stat(name) {
                Ok(Some(stat)) => stat,
                Ok(None) => {
                    self.gone_member(dir, rules, member);
                    continue;
                }
                Err(e) => {
                    self.batches.push(look::unreadable(dir.join(&member.name), &e));
                    continue;
                }
            };
            if rules.ignores(&dir.join(&member.name), stat.kind == Kind::Dir) {
                continue;
            }
            match stat.kind {
                _ if stat.dev != open.dev() => self.batches.push(look::elsewhere(dir.join(&member.name))),
                Kind::Special(what) => self.batches.push(look::special(dir.join(&member.name), what)),
                Kind::Dir => self.subdir(dir, depth, rules, member, &stat),
                Kind::File | Kind::Symlink => {
                    files += 1;
                    let closed = self.scan.closed;
                    let was_closed = !closed.is_empty() && closed.contains(&dir.join(&member.name));
                    if !was_closed && look::is_unchanged(&stat, member.base.as_ref()) {
                        continue;
                    }
                    let size = stat.fingerprint.size;
                    if stat.kind == Kind::File && size > LONG {
                        self.pool.push_long(Job::Content(dir.clone(), vec![member]));
                        continue;
                    }
                    if bytes > SHARE {
                        let job = changed.drain(..).map(|(member, _)| member).collect();
                        self.pool.push(Job::Content(dir.clone(), job));
                        bytes = 0;
                    }
                    bytes += size;
                    changed.push((member, Some(stat)));
                }
            }
        }
        self.files.fetch_add(files, Ordering::Relaxed);
        self.contents(buffer, open, dir, changed);
    }

    /// Hashes files and reads links, each with what it was a moment ago.
    fn contents(&self, buffer: &mut Buffer, open: &Dir, dir: &RelPath, members: Vec<(Member, Option<Stat>)>) {
        let mut looks = Vec::with_capacity(members.len());
        for (member, stat) in members {
            if (self.scan.cancelled)() {
                return;
            }
            let path = dir.join(&member.name);
            let had_dir = is_dir_row(member.base.as_ref());
            let is_link = match stat {
                Some(stat) => stat.kind == Kind::Symlink,
                None => {
                    matches!(open.stat(member.name.as_bytes()), Ok(Some(now)) if now.kind == Kind::Symlink)
                }
            };
            let look = if is_link {
                look::of_link(open, &member.name, path.clone(), member.base, self.clock)
            } else {
                let held = self.may_be_held(open, &member.name, stat);
                let content = self.hash(buffer, open, &member.name, (stat, held));
                match content {
                    Err(e) if is_unreadable(&e) => {
                        let stat = open.stat(member.name.as_bytes()).ok().flatten();
                        look::of_unreadable(path.clone(), &e, stat, member.base, self.clock)
                    }
                    content => look::of_content(path.clone(), content, member.base, self.clock, held),
                }
            };
            looks.push((path, had_dir, look));
        }
        let is_news = |look: &Look| matches!(look, Look::Found(Some(Found::Changed(_))));
        if looks.iter().any(|(_, _, look)| is_news(look)) && !self.is_still_at(open, dir) {
            // It was moved while it was read: what is in it may never have been at these paths.
            self.batches.push(Found::Busy(dir.clone()));
            return;
        }
        for (path, had_dir, look) in looks {
            self.looked(path, had_dir, look);
        }
    }

    /// Does `dir` still lead to this directory?
    fn is_still_at(&self, open: &Dir, dir: &RelPath) -> bool {
        match (open.stat_self(), self.scan.root.stat(dir)) {
            (Ok(own), Ok(Some(there))) => own.fingerprint.ino == there.fingerprint.ino,
            _ => false,
        }
    }

    fn subdir(&self, dir: &RelPath, depth: Depth, rules: &Rules, member: Member, stat: &Stat) {
        let path = dir.join(&member.name);
        // Before its members can be found by another thread.
        let known = match look::of_dir(path.clone(), stat, member.base) {
            Some(found) => {
                self.batches.push(found);
                false
            }
            None => true,
        };
        match depth {
            Depth::Members if known => self.pool.push(Job::Dir(path, Depth::Itself, rules.clone())),
            Depth::Itself if known => {}
            _ => self.pool.push(Job::Dir(path, Depth::Tree, rules.clone())),
        }
    }

    /// Could a program that has had it open for long write to it without a trace? Asked before it is read: who opens it
    /// after that leaves one.
    fn may_be_held(&self, open: &Dir, name: &Name, stat: Option<Stat>) -> bool {
        let stat = stat.or_else(|| open.stat(name.as_bytes()).ok().flatten());
        stat.is_some_and(|stat| self.clock.may_hide_a_map(&stat)) && open.may_be_written(name.as_bytes())
    }

    fn hash(
        &self,
        buffer: &mut Buffer,
        open: &Dir,
        name: &Name,
        (stat, held): (Option<Stat>, bool),
    ) -> io::Result<Content> {
        let mut tick = |bytes| {
            self.hashed.fetch_add(bytes, Ordering::Relaxed);
            self.batches.tick();
            !(self.scan.cancelled)()
        };
        point("scan.hash");
        // Whoever keeps writing to it should not wait for a clone again and again. It is hashed once more when he is done.
        let root = (!held).then_some(self.scan.root);
        let outboards = self.scan.keep_outboards;
        let content = open.hash_and_keep(root, (name.as_bytes(), stat), buffer, outboards, &mut tick);
        point("scan.hashed");
        if let Ok(Content::Is { digest, stat }) = &content
            && stat.fingerprint.size <= MAX_PACKED as u64
        {
            (self.scan.keep_small)(digest, buffer.start(stat.fingerprint.size as usize));
        }
        content
    }

    fn looked(&self, path: RelPath, had_dir: bool, look: Look) {
        match look {
            Look::Found(Some(mut found)) => {
                if let Found::Changed(finding) = &mut found {
                    finding.wrote = (self.scan.wrote)(&finding.path);
                }
                if had_dir && matches!(found, Found::Changed(_)) {
                    self.gone(Gone::Below(path));
                }
                self.batches.push(found);
            }
            Look::Found(None) | Look::Stopped => {}
            Look::Gone(Some(base)) => self.gone(Gone::Path(path, Some(base))),
            Look::Gone(None) => {}
        }
    }

    pub(super) fn gone_member(&self, dir: &RelPath, rules: &Rules, member: Member) {
        let path = dir.join(&member.name);
        if !rules.ignores(&path, is_dir_row(member.base.as_ref())) {
            // Without a row of its own there may still be rows below it.
            self.gone(Gone::Path(path, member.base));
        }
    }

    pub(super) fn gone(&self, gone: Gone) {
        self.gone.lock().expect("not poisoned").push(gone);
    }

    /// A directory cannot be read: nothing is known of what is below it.
    pub(super) fn no_dir(&self, dir: RelPath, e: &io::Error) {
        self.batches.push(if is_vanished(e) {
            Found::Busy(dir)
        } else if Errno::from_io_error(e) == Some(Errno::XDEV) {
            look::elsewhere(dir)
        } else {
            look::unreadable(dir, e)
        });
    }
}

pub(super) fn is_dir_row(row: Option<&IndexRow>) -> bool {
    row.is_some_and(|row| row.mat.value == Value::Dir)
}

/// Is it not a directory (any more)? Then there is no telling what it is.
pub(super) fn is_vanished(e: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(e),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN)
    )
}

/// The names in a directory, from one moment in which none came or went, as far as its times tell.
fn list(open: &Dir) -> io::Result<Vec<Vec<u8>>> {
    let mut before = open.stat_self()?;
    let mut names = Vec::new();
    for _ in 0..LIST_TRIES {
        names = open.entries()?.into_iter().map(|(name, _)| name).collect();
        let after = open.stat_self()?;
        if after == before {
            break;
        }
        before = after;
    }
    Ok(names)
}
