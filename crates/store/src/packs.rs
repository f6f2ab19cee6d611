//! Packs: contents of small files, kept when they are first hashed, so that an edit in place still has a past. Files
//! in the state directory, shared by all folders; a row of the database says where each content is. A row here ⇒ its
//! bytes are durable. Never holds what is not also named by a digest, and never rewrites a byte of a pack.
//!
//! A pack is `packs/<number, 8 hex digits>`: one entry after the other, each `digest (32) ++ length (u32,
//! little-endian) ++ content`. What no row names (an append that was cut off, a content that went) is waste until the
//! pack is written anew.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alike_core::digest::Digest;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use crate::error::{Fault, StoreError};
use crate::schema::PACKED;
use crate::snapshot::Snapshot;
use crate::store::Store;

mod sweep;

pub use sweep::PackSweep;

/// Contents over this (bytes) are not packed.
pub const MAX_PACKED: usize = 64 * 1024;
/// A pack that has grown over this (bytes) gets no more: what is collected is whole packs.
const ROLL: u64 = 64 * 1024 * 1024;
/// Contents that were appended and are in no commit yet, at most; over that they are forgotten (waste).
const MAX_FRESH: usize = 1 << 17;
/// What no commit has named for so long was overtaken. A commit follows what was read for it by seconds, by minutes
/// where the disk is slow.
const OVERTAKEN: Duration = Duration::from_secs(60 * 60);
/// Bytes of a page of memory, or a part of one.
const PAGE: u64 = 64 * 1024;
/// Appended bytes that are written together.
const BUFFER: usize = 1 << 20;
/// Packs that are held open for reading at most.
const MAX_READING: usize = 16;
/// Bytes before each content.
const HEADER: u64 = 36;
/// A hundredth of the file system stays free of packs, but no more than this (bytes): the past is worth less than room
/// to work.
const SPARE: u64 = 1 << 30;

/// Where a content is: pack, offset of its first byte, length.
pub(crate) type PackPlace = (u32, u64, u32);

/// The packs of a state directory.
pub(crate) struct Packs {
    dir: PathBuf,
    state: Mutex<State>,
    /// Packs that were read from lately.
    reading: Mutex<HashMap<u32, Arc<File>>>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Appended, and in no commit yet.
    fresh: HashMap<Digest, (PackPlace, Instant)>,
    /// Packs that a commit in flight names, once for each.
    naming: Vec<u32>,
    /// Contents that a commit to come may name, and that were not appended because they are there: these stay there.
    relied: HashMap<Digest, Instant>,
    /// Collections under way, and what commits have named since they began: it was marked, or not, before it came to be
    /// what is on disk.
    collecting: usize,
    lately: HashSet<Digest>,
}

impl State {
    fn rely(&mut self, digest: Digest) {
        if self.relied.len() >= MAX_FRESH {
            self.relied.clear();
        }
        self.relied.insert(digest, Instant::now());
    }
}

/// What a commit takes with it.
#[derive(Default)]
pub(crate) struct Taken {
    /// Rows to write: the bytes are durable.
    pub(crate) packed: Vec<(Digest, PackPlace)>,
    relied: Vec<Digest>,
}

struct Open {
    number: u32,
    file: Arc<File>,
    /// Bytes in the file.
    len: u64,
    /// What comes after them.
    buffer: Vec<u8>,
    /// Was written to since it was made durable.
    dirty: bool,
}

impl Open {
    /// Writes what was appended.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // If that fails it is tried again, over what was written of it.
        self.file.write_all_at(&self.buffer, self.len)?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        self.dirty = true;
        Ok(())
    }
}

impl Packs {
    pub(crate) fn new(home: &Path) -> Packs {
        Packs {
            dir: home.join("packs"),
            state: Mutex::default(),
            reading: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while he appends")
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08x}"))
    }

    /// Numbers and lengths of all packs.
    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().filter(|name| name.len() == 8);
            if let Some(number) = number.and_then(|name| u32::from_str_radix(name, 16).ok()) {
                found.push((number, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Seconds since a pack was last written to; 0 if nobody can tell.
    fn age(&self, number: u32) -> u64 {
        let modified = fs::metadata(self.path(number)).and_then(|meta| meta.modified());
        modified
            .ok()
            .and_then(|time| time.elapsed().ok())
            .map_or(0, |age| age.as_secs())
    }

    /// Appends to the open pack, or to a new one. Not in its file before it is flushed, nor durable before
    /// [`Packs::sync`].
    fn append(&self, state: &mut State, digest: &Digest, content: &[u8]) -> io::Result<PackPlace> {
        if state.open.as_ref().is_none_or(|open| open.len > ROLL) {
            self.sync(state)?;
            state.open = Some(self.begin()?);
        }
        let open = state.open.as_mut().expect("it was just opened");
        if open.buffer.len() >= BUFFER {
            open.flush()?;
        }
        let len = u32::try_from(content.len()).expect("a packed content is small");
        let offset = open.len + open.buffer.len() as u64 + HEADER;
        open.buffer.extend_from_slice(&digest.0);
        open.buffer.extend_from_slice(&len.to_le_bytes());
        open.buffer.extend_from_slice(content);
        Ok((open.number, offset, len))
    }

    /// A new pack after all others: one that an earlier run ended in the middle of may end in half an entry.
    fn begin(&self) -> io::Result<Open> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let number = self.list()?.last().map_or(0, |(last, _)| last + 1);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(number))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(Open {
            number,
            file: Arc::new(file),
            len: 0,
            buffer: Vec::new(),
            dirty: false,
        })
    }

    fn sync(&self, state: &mut State) -> io::Result<()> {
        let Some(open) = state.open.as_mut() else {
            return Ok(());
        };
        open.flush()?;
        if open.dirty {
            open.file.sync_data()?;
            open.dirty = false;
        }
        Ok(())
    }

    /// The same as [`Packs::sync`], while others append.
    fn sync_beside(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        // Packs that were open before were made durable when they were full.
        let Some(open) = state.open.as_mut() else {
            return Ok(());
        };
        open.flush()?;
        if !open.dirty {
            return Ok(());
        }
        let (number, len, file) = (open.number, open.len, open.file.clone());
        drop(state);
        file.sync_data()?;
        let mut state = self.state();
        if let Some(open) = state.open.as_mut()
            && (open.number, open.len) == (number, len)
        {
            open.dirty = false;
        }
        Ok(())
    }

    /// The file of a pack, for reading.
    fn reading(&self, number: u32) -> io::Result<Arc<File>> {
        let mut reading = self.reading.lock().expect("nobody panics while he opens");
        if let Some(file) = reading.get(&number) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(self.path(number))?);
        if reading.len() >= MAX_READING {
            reading.clear();
        }
        reading.insert(number, file.clone());
        Ok(file)
    }

    fn read(&self, digest: &Digest, (number, offset, len): PackPlace) -> io::Result<Option<Vec<u8>>> {
        let mut content = vec![0; len as usize];
        let file = match self.reading(number) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match file.read_exact_at(&mut content, offset) {
            Ok(()) => Ok((Digest::of(&content) == *digest).then_some(content)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Who reads this content next asks the disk, not the memory: for the bytes, and for the file of that name.
    fn forget(&self, (number, offset, len): PackPlace) {
        self.close(number);
        if let Ok(file) = self.reading(number) {
            // Only whole pages are forgotten.
            let (from, to) = (
                offset & !(PAGE - 1),
                (offset + u64::from(len)).next_multiple_of(PAGE),
            );
            let len = std::num::NonZeroU64::new(to - from);
            let _ = rustix::fs::fadvise(&file, from, len, rustix::fs::Advice::DontNeed);
        }
    }

    /// What of `digests` was appended and is in no commit yet; durable from here on. [`Packs::committed`] must follow.
    pub(crate) fn take_fresh<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> io::Result<Taken> {
        let mut state = self.state();
        let mut taken = Taken::default();
        for digest in digests {
            if let Some((digest, (place, _))) = state.fresh.remove_entry(digest) {
                taken.packed.push((digest, place));
            } else if state.relied.contains_key(digest) {
                taken.relied.push(*digest);
            }
            if state.collecting > 0 {
                state.lately.insert(*digest);
            }
        }
        // Before anybody else has a turn: a pack that is about to be named must not go.
        state.naming.extend(taken.packed.iter().map(|(_, place)| place.0));
        if taken.packed.is_empty() {
            return Ok(taken);
        }
        if let Err(error) = self.sync_beside(state) {
            self.committed(taken, false);
            return Err(error);
        }
        Ok(taken)
    }

    /// The commit that took these is there, or not.
    pub(crate) fn committed(&self, mut taken: Taken, done: bool) {
        if taken.packed.is_empty() && taken.relied.is_empty() {
            return;
        }
        let mut state = self.state();
        for (_, place) in &taken.packed {
            if let Some(at) = state.naming.iter().position(|number| *number == place.0) {
                state.naming.swap_remove(at);
            }
        }
        if !done {
            back(&mut state, &mut taken);
            return;
        }
        for digest in &taken.relied {
            state.relied.remove(digest);
        }
        if state.collecting > 0 {
            let packed = taken.packed.iter().map(|(digest, _)| *digest);
            state.lately.extend(packed.chain(taken.relied));
        }
    }

    /// Ends the open pack: the next append begins another. All packs, but for those that a commit to come may name.
    fn settle(&self) -> io::Result<Vec<(u32, u64)>> {
        let mut state = self.state();
        self.sync(&mut state)?;
        state.open = None;
        state.fresh.retain(|_, (_, since)| since.elapsed() < OVERTAKEN);
        state.relied.retain(|_, since| since.elapsed() < OVERTAKEN);
        let named: HashSet<u32> = state.fresh.values().map(|(place, _)| place.0).collect();
        let mut all = self.list()?;
        all.retain(|(number, _)| !named.contains(number) && !state.naming.contains(number));
        Ok(all)
    }

    fn close(&self, number: u32) {
        let mut reading = self.reading.lock().expect("nobody panics while he opens");
        reading.remove(&number);
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        self.close(number);
        fs::remove_file(self.path(number))
    }

    fn has_room(&self) -> bool {
        let home = self.dir.parent().unwrap_or(&self.dir);
        // Where nobody can tell, it is tried.
        rustix::fs::statvfs(home).map_or(true, |fs| {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let total = fs.f_blocks.saturating_mul(fs.f_frsize);
            total == 0 || free > SPARE.min(total / 100) + BUFFER as u64
        })
    }
}

/// A commit that takes nothing.
fn back(state: &mut State, taken: &mut Taken) {
    let now = Instant::now();
    let packed = taken.packed.drain(..);
    state
        .fresh
        .extend(packed.map(|(digest, place)| (digest, (place, now))));
}

/// While it lives, what commits name is not let go of by a sweep of the packs, whatever it was marked as before.
pub struct Collecting<'a>(Option<&'a Packs>);

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        if let Some(packs) = self.0 {
            let mut state = packs.state();
            state.collecting -= 1;
            if state.collecting == 0 {
                state.lately = HashSet::new();
            }
        }
    }
}

/// Rows for contents whose bytes are durable.
pub(crate) fn put(tx: &WriteTransaction, packed: &[(Digest, PackPlace)]) -> Result<(), Fault> {
    let mut table = tx.open_table(PACKED)?;
    for (digest, place) in packed {
        if table.get(&digest.0)?.is_none() {
            table.insert(&digest.0, *place)?;
        }
    }
    Ok(())
}

impl Snapshot {
    /// Is this content packed?
    pub fn is_packed(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.run(|| Ok(self.packed.get(&digest.0)?.is_some()))
    }
}

impl Store {
    /// Keeps a small content: it counts once a commit has put an index row with it. Nothing is kept where packs have
    /// no room, and of a store without a state directory.
    pub fn pack(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let Some(packs) = self.packs.as_ref().filter(|_| content.len() <= MAX_PACKED) else {
            return Ok(());
        };
        if content.is_empty() {
            return Ok(());
        }
        let mut state = packs.state();
        if let Some((_, since)) = state.fresh.get_mut(digest) {
            *since = Instant::now();
            return Ok(());
        }
        // Before the look: a sweep may be about to let go of it.
        state.rely(*digest);
        drop(state);
        if self.pack_place(digest)?.is_some() {
            return Ok(());
        }
        let mut state = packs.state();
        state.relied.remove(digest);
        if state.fresh.contains_key(digest) {
            return Ok(());
        }
        // Asked once a buffer: it takes as long as the rest.
        let is_full = state.open.as_ref().is_none_or(|open| open.buffer.len() >= BUFFER);
        if is_full && !packs.has_room() {
            return Ok(());
        }
        if state.fresh.len() >= MAX_FRESH {
            state.fresh.clear();
        }
        let place = packs
            .append(&mut state, digest, content)
            .map_err(|source| io_error("packing into", &packs.dir, source))?;
        state.fresh.insert(*digest, (place, Instant::now()));
        Ok(())
    }

    /// Where a packed content is, now.
    fn pack_place(&self, digest: &Digest) -> Result<Option<PackPlace>, StoreError> {
        self.run(|db| {
            let table = db.begin_read()?.open_table(PACKED)?;
            Ok(table.get(&digest.0)?.map(|row| row.value()))
        })
    }

    /// Has somebody found this content packed, who may commit it yet?
    pub fn is_relied(&self, digest: &Digest) -> bool {
        let packs = self.packs.as_ref();
        packs.is_some_and(|packs| packs.state().relied.contains_key(digest))
    }

    /// To be held by a collection, from before it marks anything.
    pub fn collecting(&self) -> Collecting<'_> {
        if let Some(packs) = &self.packs {
            packs.state().collecting += 1;
        }
        Collecting(self.packs.as_ref())
    }

    /// A packed content, verified; `None` if it is not packed, or damaged.
    pub fn packed(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(packs) = &self.packs else { return Ok(None) };
        // A pack may be written anew between the look at its row and the one at its bytes.
        for _ in 0..2 {
            let Some(place) = self.pack_place(digest)? else {
                return Ok(None);
            };
            let content = packs
                .read(digest, place)
                .map_err(|source| io_error("reading", &packs.path(place.0), source))?;
            if content.is_some() {
                return Ok(content);
            }
        }
        Ok(None)
    }

    /// Looks at every packed content: `seen` gets its digest, its bytes, and whether they are good; `false` ends it.
    pub fn check_packs(&self, seen: &mut dyn FnMut(&Digest, u64, bool) -> bool) -> Result<(), StoreError> {
        self.check_packed(None, usize::MAX, seen).map(drop)
    }

    /// The same for at most `limit` of them, those after `after`. The last one, where the next look begins; `None`: there
    /// are no more.
    pub fn check_packed(
        &self,
        after: Option<&Digest>,
        limit: usize,
        seen: &mut dyn FnMut(&Digest, u64, bool) -> bool,
    ) -> Result<Option<Digest>, StoreError> {
        let Some(packs) = &self.packs else { return Ok(None) };
        let snapshot = self.snapshot()?;
        let mut some = snapshot.run(|| {
            let from = after.map_or(Bound::Unbounded, |digest| Bound::Excluded(&digest.0));
            let mut some = Vec::new();
            for row in snapshot
                .packed
                .range::<&[u8; 32]>((from, Bound::Unbounded))?
                .take(limit)
            {
                let (key, place) = row?;
                some.push((place.value(), Digest(*key.value())));
            }
            Ok(some)
        })?;
        drop(snapshot);
        let last = some.last().map(|(_, digest)| *digest);
        some.sort_unstable();
        for (place, digest) in some {
            let is_good = self.is_packed_well(packs, &digest, place)?;
            if !seen(&digest, place.2.into(), is_good) {
                break;
            }
        }
        Ok(last)
    }

    fn is_packed_well(&self, packs: &Packs, digest: &Digest, place: PackPlace) -> Result<bool, StoreError> {
        packs.forget(place);
        Ok(packs.read(digest, place).is_ok_and(|content| content.is_some())
            // Written anew meanwhile?
            || self.packed(digest)?.is_some()
            || self.pack_place(digest)?.is_none())
    }

    /// Keeps a content that is packed already, but damaged, once more; `None`: it is packed no longer.
    pub fn pack_anew(&self, digest: &Digest, content: Option<&[u8]>) -> Result<(), StoreError> {
        let Some(packs) = &self.packs else { return Ok(()) };
        let io = |source| io_error("packing into", &packs.dir, source);
        let to = match content {
            Some(content) => {
                let mut state = packs.state();
                let to = packs.append(&mut state, digest, content).map_err(io)?;
                packs.sync(&mut state).map_err(io)?;
                Some(to)
            }
            None => None,
        };
        self.write_anyway(|tx| {
            let mut table = tx.open_table(PACKED)?;
            match to {
                Some(to) => drop(table.insert(&digest.0, to)?),
                None => drop(table.remove(&digest.0)?),
            }
            Ok(())
        })
    }

    /// Bytes of all packs.
    pub fn packs_bytes(&self) -> u64 {
        let Some(packs) = &self.packs else { return 0 };
        let buffered = packs
            .state()
            .open
            .as_ref()
            .map_or(0, |open| open.buffer.len() as u64);
        let list = packs.list().unwrap_or_default();
        list.into_iter().map(|(_, len)| len).sum::<u64>() + buffered
    }
}

pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
