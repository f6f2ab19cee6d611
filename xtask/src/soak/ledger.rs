//! What the users of the soak wrote, and what they overwrote or deleted knowingly: the truth that the folders
//! are held to. Never looks at a folder.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;

/// The number that a piece of content carries in it: no other piece has it.
pub(crate) type Id = u64;
/// BLAKE3 of a whole content.
pub(crate) type Digest = [u8; 32];

/// How an id is written into content and into the targets of links.
const MARK: &[u8] = b"@id:";
const DIGITS: usize = 10;

/// What an action does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Makes or changes it.
    Touch,
    /// Makes or changes it and anything below it.
    TouchBelow,
    /// Takes it away, with everything below it.
    Gone,
    /// Gives it another time, and nothing else.
    Time,
}

/// One action on one path.
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
}

/// What became of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Written, and nobody took it away.
    Alive,
    /// Overwritten or deleted by a user who had it there.
    Destroyed,
    /// Written into a file that had been replaced after it was opened.
    Raced,
}

/// Where an id was written.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) state: State,
    pub(crate) device: usize,
    pub(crate) path: Vec<u8>,
    pub(crate) at: Duration,
}

/// The books; shared by all users.
pub(crate) struct Ledger {
    start: Instant,
    books: Mutex<Books>,
}

/// What is in them since the last time everything was quiet.
pub(crate) struct Books {
    log: File,
    next: Id,
    pub(crate) ids: HashMap<Id, Fate>,
    /// Every content that somebody had at some path, also for a moment.
    pub(crate) contents: HashMap<Digest, Arc<[Id]>>,
    pub(crate) events: Vec<Event>,
    /// Gone when everything was quiet: must never come back.
    pub(crate) dead: HashSet<Id>,
    pub(crate) actions: u64,
    pub(crate) raced: u64,
    pub(crate) unknowing: u64,
    /// How often everything was quiet.
    pub(crate) rounds: u64,
}

impl Ledger {
    pub(crate) fn new(log: &Path) -> Result<Self> {
        let mut books = Books {
            log: File::create(log)?,
            next: 1,
            ids: HashMap::new(),
            contents: HashMap::new(),
            events: Vec::new(),
            dead: HashSet::new(),
            actions: 0,
            raced: 0,
            unknowing: 0,
            rounds: 0,
        };
        books.knows(&[], &[]);
        Ok(Ledger {
            start: Instant::now(),
            books: Mutex::new(books),
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no user panics with the books open")
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A line for people, in the log only.
    pub(crate) fn note(&self, device: usize, text: &str) {
        let at = self.now();
        let mut books = self.books();
        let _ = writeln!(books.log, "{:9.3} d{device} {text}", at.as_secs_f64());
    }

    /// An action on a path.
    pub(crate) fn event(&self, device: usize, kind: Kind, path: &[u8], why: &str) {
        let at = self.now();
        let mut books = self.books();
        let _ = writeln!(
            books.log,
            "{:9.3} d{device} {kind:?} {} ({why})",
            at.as_secs_f64(),
            path.escape_ascii()
        );
        books.actions += 1;
        books.events.push(Event {
            kind,
            path: path.to_vec(),
        });
    }

    /// A new id; alive from [`Ledger::wrote`] on.
    pub(crate) fn new_id(&self) -> Id {
        let mut books = self.books();
        books.next += 1;
        books.next
    }

    /// `device` will write `ids` at `path`.
    pub(crate) fn wrote(&self, device: usize, path: &[u8], ids: &[Id]) {
        let at = self.now();
        let mut books = self.books();
        for id in ids {
            let _ = writeln!(
                books.log,
                "{:9.3} d{device} writes {id:010x} at {}",
                at.as_secs_f64(),
                path.escape_ascii()
            );
            let fate = Fate {
                state: State::Alive,
                device,
                path: path.to_vec(),
                at,
            };
            // Twins: whoever wrote it first has said where.
            books.ids.entry(*id).or_insert(fate);
        }
    }

    /// A content that may be seen from now on.
    pub(crate) fn knows(&self, content: &[u8], ids: &[Id]) {
        self.books().knows(content, ids);
    }

    /// The same, by digest.
    pub(crate) fn knows_digest(&self, digest: Digest, ids: &[Id]) {
        self.books().contents.insert(digest, ids.into());
    }

    /// The ids in a content.
    pub(crate) fn ids_in(&self, content: &[u8]) -> Arc<[Id]> {
        let digest = *blake3::hash(content).as_bytes();
        let known = self.books().contents.get(&digest).cloned();
        known.unwrap_or_else(|| scan(content).into())
    }

    /// A user took `ids` away knowingly.
    pub(crate) fn destroyed(&self, device: usize, ids: &[Id]) {
        self.set(device, ids, State::Destroyed);
    }

    /// A user wrote `ids` into a file that was at its path no more.
    pub(crate) fn raced(&self, device: usize, ids: &[Id]) {
        self.books().raced += ids.len() as u64;
        self.set(device, ids, State::Raced);
    }

    /// A user took something away without knowing what it was.
    pub(crate) fn unknowing(&self, device: usize, path: &[u8]) {
        self.note(
            device,
            &format!("took away something unknown at {}", path.escape_ascii()),
        );
        self.books().unknowing += 1;
    }

    fn set(&self, device: usize, ids: &[Id], state: State) {
        let at = self.now();
        let mut books = self.books();
        for id in ids {
            let _ = writeln!(
                books.log,
                "{:9.3} d{device} {state:?} {id:010x}",
                at.as_secs_f64()
            );
            if let Some(fate) = books.ids.get_mut(id)
                && fate.state != State::Raced
            {
                fate.state = state;
            }
        }
    }
}

impl Books {
    fn knows(&mut self, content: &[u8], ids: &[Id]) {
        self.contents
            .insert(*blake3::hash(content).as_bytes(), ids.into());
    }

    /// Everything is quiet and `ids` in `contents` are all there is: the books begin anew.
    pub(crate) fn compact(&mut self, present: &HashSet<Id>, contents: &HashSet<Digest>) {
        let gone: Vec<Id> = self
            .ids
            .keys()
            .filter(|id| !present.contains(id))
            .copied()
            .collect();
        self.dead.extend(gone);
        self.ids.retain(|id, _| present.contains(id));
        // What still exists somewhere is alive, whoever deleted another copy of it.
        self.ids.values_mut().for_each(|fate| fate.state = State::Alive);
        self.contents.retain(|digest, _| contents.contains(digest));
        self.knows(&[], &[]);
        self.events.clear();
        self.rounds += 1;
    }
}

/// The text of an id.
pub(crate) fn mark(id: Id) -> Vec<u8> {
    [MARK, format!("{id:0DIGITS$x};").as_bytes()].concat()
}

/// All ids in a content, by looking through it.
pub(crate) fn scan(content: &[u8]) -> Vec<Id> {
    let mut ids = Vec::new();
    for (at, window) in content.windows(MARK.len() + DIGITS + 1).enumerate() {
        if window.starts_with(MARK) && window.last() == Some(&b';') {
            let digits = &content[at + MARK.len()..][..DIGITS];
            let id = std::str::from_utf8(digits)
                .ok()
                .and_then(|d| Id::from_str_radix(d, 16).ok());
            ids.extend(id);
        }
    }
    ids
}
