//! `.syncignore`: which paths the rules of a folder leave out, in gitignore syntax, at any level. Rules are read from
//! the disk, whenever somebody asks. Never decides what becomes of a path that is left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use alike_core::path::RelPath;
use alike_store::Fingerprint;

use crate::clock::{now_ns, steady};
use crate::disk::{Dir, Kind, Root};

/// The name of a file of rules; it counts for its directory and all below. It is never left out itself.
pub(crate) const RULES: &[u8] = b".syncignore";

/// Bytes of a file of rules; one with more is not read.
const MAX_SIZE: u64 = 1 << 20;
/// Rules that were changed count together with those before them for so long: whoever writes them may not be done, and a
/// file that is empty for a moment must not publish all that it keeps back.
const SETTLE: Duration = Duration::from_secs(1);
/// A file with times so young may change again without its fingerprint telling (ns).
const YOUNG: i64 = 2_000_000_000;

/// What one file of rules says.
#[derive(Debug)]
enum Text {
    /// Rules, and what of it makes no sense.
    Rules {
        text: Vec<u8>,
        matcher: Gitignore,
        bad: Option<String>,
    },
    /// It cannot be read: then nobody knows what is left out, and nothing is touched.
    Unknown(String),
}

/// What is remembered of a directory that has rules, or had them a moment ago.
#[derive(Debug, Default)]
struct Known {
    print: Option<Fingerprint>,
    now: Option<Arc<Text>>,
    /// What was there before, and when that changed ([`steady`]).
    before: Option<(Option<Arc<Text>>, Duration)>,
}

/// The rules of a folder.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    known: Mutex<HashMap<RelPath, Known>>,
    changed: AtomicBool,
    /// Some are known that count only for a while: asked for while others look at the disk.
    settling: AtomicBool,
}

/// What is to say of a directory's own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// They are not as they will be: look again.
    Again,
    /// They cannot be read, so that everything counts as left out.
    Unreadable(String),
    /// Some of them count for nothing.
    Bad(String),
}

/// The rules that count in one directory, its own and those from above. Mostly none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Option<Arc<Level>>);

#[derive(Debug)]
struct Level {
    above: Rules,
    dir: RelPath,
    now: Option<Arc<Text>>,
    /// What else counts for a while.
    before: Option<Option<Arc<Text>>>,
}

impl Rules {
    /// Is this member of the directory left out? If it is a directory, so is all that is in it.
    pub(crate) fn ignores(&self, path: &RelPath, is_dir: bool) -> bool {
        let Some(level) = &self.0 else { return false };
        !is_rules(path) && (level.ignores(path, is_dir, false) || level.ignores(path, is_dir, true))
    }
}

/// Is this a file of rules?
pub(crate) fn is_rules(path: &RelPath) -> bool {
    path.as_bytes().rsplit(|&b| b == b'/').next() == Some(RULES)
}

impl Level {
    /// The nearest rule decides.
    fn ignores(&self, path: &RelPath, is_dir: bool, as_before: bool) -> bool {
        let text = match &self.before {
            Some(before) if as_before => before,
            _ => &self.now,
        };
        let decided = match text.as_deref() {
            None => None,
            Some(Text::Unknown(_)) => Some(true),
            Some(Text::Rules { matcher, .. }) => {
                let path = path.as_bytes();
                let from = match self.dir.as_bytes().len() {
                    0 => 0,
                    dir => dir + 1,
                };
                match matcher.matched(Path::new(OsStr::from_bytes(&path[from..])), is_dir) {
                    Match::None => None,
                    Match::Ignore(_) => Some(true),
                    Match::Whitelist(_) => Some(false),
                }
            }
        };
        match (decided, &self.above.0) {
            (Some(decided), _) => decided,
            (None, Some(above)) => above.ignores(path, is_dir, as_before),
            (None, None) => false,
        }
    }
}

impl Ignore {
    fn known(&self) -> MutexGuard<'_, HashMap<RelPath, Known>> {
        self.known.lock().expect("nobody panics with it")
    }

    /// Have rules changed since this was asked last, so that what they left out has to be looked at again?
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// Are there rules that count only for a while, until those of before them are forgotten, or did nobody ask yet
    /// what changed?
    pub(crate) fn is_settling(&self) -> bool {
        self.changed.load(Ordering::Relaxed) || self.settling.load(Ordering::Relaxed)
    }

    /// The rules in `dir`, which is open, given those above.
    pub(crate) fn enter(&self, above: &Rules, dir: &RelPath, open: &Dir) -> (Rules, Option<Trouble>) {
        let mut known = self.known();
        self.look(&mut known, dir, open);
        let Some(here) = known.get(dir) else {
            return (above.clone(), None);
        };
        let trouble = match here.now.as_deref() {
            Some(Text::Unknown(reason)) => Some(Trouble::Unreadable(reason.clone())),
            _ if here.before.is_some() => Some(Trouble::Again),
            Some(Text::Rules { bad: Some(bad), .. }) => Some(Trouble::Bad(bad.clone())),
            Some(Text::Rules { bad: None, .. }) | None => None,
        };
        let level = Level {
            above: above.clone(),
            dir: dir.clone(),
            now: here.now.clone(),
            before: here.before.as_ref().map(|(before, _)| before.clone()),
        };
        (Rules(Some(Arc::new(level))), trouble)
    }

    /// Rules were just put here whole: they count at once, and alone.
    pub(crate) fn written(&self, root: &Root, dir: &RelPath) {
        let mut known = self.known();
        if let Ok(open) = root.dir(dir) {
            self.look(&mut known, dir, &open);
        } else {
            known.remove(dir);
        }
        if let Some(here) = known.get_mut(dir) {
            here.before = None;
            if here.now.is_none() {
                known.remove(dir);
            }
        }
        self.changed.store(true, Ordering::Relaxed);
        self.see_settling(&known);
    }

    /// Forgets rules that were settling in directories that are gone: nobody enters those again.
    pub(crate) fn drop_gone(&self, root: &Root) {
        if !self.settling.load(Ordering::Relaxed) {
            return;
        }
        let settling = |here: &Known| here.before.is_some();
        let mut dirs: Vec<RelPath> = {
            let known = self.known();
            let all = known.iter().filter(|(_, here)| settling(here));
            all.map(|(dir, _)| dir.clone()).collect()
        };
        let is_gone =
            |e: io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        dirs.retain(|dir| root.dir(dir).err().is_some_and(is_gone));
        if !dirs.is_empty() {
            let mut known = self.known();
            known.retain(|dir, here| !(settling(here) && dirs.contains(dir)));
            self.changed.store(true, Ordering::Relaxed);
            self.see_settling(&known);
        }
    }

    /// Looks again at rules that could not be read.
    pub(crate) fn try_unknown(&self, root: &Root) {
        let mut known = self.known();
        let unknown = |here: &Known| matches!(here.now.as_deref(), Some(Text::Unknown(_)));
        let dirs: Vec<RelPath> = known
            .iter()
            .filter(|(_, here)| unknown(here))
            .map(|(dir, _)| dir.clone())
            .collect();
        for dir in dirs {
            match root.dir(&dir) {
                Ok(open) => self.look(&mut known, &dir, &open),
                Err(_) => {
                    known.remove(&dir);
                    self.changed.store(true, Ordering::Relaxed);
                }
            }
        }
        self.see_settling(&known);
    }

    /// Reads a directory's own rules, if they are other ones than before.
    fn look(&self, known: &mut HashMap<RelPath, Known>, dir: &RelPath, open: &Dir) {
        let stat = open.stat(RULES);
        let print = match &stat {
            Ok(Some(stat)) => Some(stat.fingerprint),
            _ => None,
        };
        let here = known.get(dir);
        let is_old = |print: &Fingerprint| {
            let since = now_ns().saturating_sub(YOUNG);
            print.mtime_ns < since && print.ctime_ns < since
        };
        let same = here.is_some_and(|here| here.print == print && print.as_ref().is_some_and(is_old));
        if !same {
            let text = match stat {
                Ok(None) => None,
                Ok(Some(stat)) if stat.kind == Kind::File => match read(open, stat.fingerprint.size) {
                    Ok(text) => Some(parse(text)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                    Err(e) => Some(Text::Unknown(e.to_string())),
                },
                Ok(Some(stat)) if stat.kind == Kind::Dir => None,
                Ok(Some(_)) => Some(Text::Unknown("it is no file".to_owned())),
                Err(e) => Some(Text::Unknown(e.to_string())),
            };
            self.note(known, dir, print, text);
        }
        let Some(here) = known.get_mut(dir) else { return };
        if let Some((_, since)) = here.before
            && steady().saturating_sub(since) >= SETTLE
        {
            here.before = None;
            self.changed.store(true, Ordering::Relaxed);
        }
        if here.now.is_none() && here.before.is_none() {
            known.remove(dir);
        }
        self.see_settling(known);
    }

    fn see_settling(&self, known: &HashMap<RelPath, Known>) {
        let settling = known.values().any(|known| known.before.is_some());
        self.settling.store(settling, Ordering::Relaxed);
    }

    /// Remembers what the rules are, and what they were.
    fn note(
        &self,
        known: &mut HashMap<RelPath, Known>,
        dir: &RelPath,
        print: Option<Fingerprint>,
        text: Option<Text>,
    ) {
        let Some(here) = known.get_mut(dir) else {
            if text.is_some() {
                let now = text.map(Arc::new);
                known.insert(
                    dir.clone(),
                    Known {
                        print,
                        now,
                        before: None,
                    },
                );
            }
            return;
        };
        here.print = print;
        let same = match (here.now.as_deref(), &text) {
            (None, None) => true,
            (Some(Text::Rules { text: a, .. }), Some(Text::Rules { text: b, .. })) => a == b,
            (Some(Text::Unknown(a)), Some(Text::Unknown(b))) => a == b,
            _ => false,
        };
        if same {
            return;
        }
        let now = text.map(Arc::new);
        let was = std::mem::replace(&mut here.now, now);
        match was.as_deref() {
            // Nobody knew what they were: nothing to join them with, and all is to be looked at.
            Some(Text::Unknown(_)) => {
                if here.before.is_none() {
                    self.changed.store(true, Ordering::Relaxed);
                }
            }
            _ => {
                let before = here.before.take().map_or(was, |(before, _)| before);
                here.before = Some((before, steady()));
            }
        }
    }
}

fn read(open: &Dir, size: u64) -> io::Result<Vec<u8>> {
    let too_big = || io::Error::other(format!("it has more than {MAX_SIZE} bytes"));
    if size > MAX_SIZE {
        return Err(too_big());
    }
    let mut text = Vec::new();
    open.open_file(RULES)?.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(too_big());
    }
    Ok(text)
}

fn parse(text: Vec<u8>) -> Text {
    let mut builder = GitignoreBuilder::new("");
    let mut bad = None;
    let body = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    for (n, line) in body.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let added = match std::str::from_utf8(line) {
            Ok(line) => builder
                .add_line(None, line)
                .map(|_| ())
                .map_err(|e| e.to_string()),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        if let Err(reason) = added {
            bad.get_or_insert(format!("line {}: {reason}", n + 1));
        }
    }
    match builder.build() {
        Ok(matcher) => Text::Rules { text, matcher, bad },
        Err(e) => Text::Unknown(e.to_string()),
    }
}

/// Asks for one path after the other, and remembers the rules of their directories meanwhile.
pub(crate) struct Asker<'a> {
    ignore: &'a Ignore,
    root: &'a Root,
    /// `None`: the directory itself is left out.
    dirs: HashMap<RelPath, Option<Rules>>,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(ignore: &'a Ignore, root: &'a Root) -> Self {
        Asker {
            ignore,
            root,
            dirs: HashMap::new(),
        }
    }

    /// The rules in a directory; `None` if it is left out.
    pub(crate) fn rules(&mut self, dir: &RelPath) -> Option<Rules> {
        if let Some(known) = self.dirs.get(dir) {
            return known.clone();
        }
        // A directory that is not there has no rules of its own.
        let rules = self.above(dir).map(|above| match self.root.dir(dir) {
            Ok(open) => self.ignore.enter(&above, dir, &open).0,
            Err(_) => above,
        });
        self.dirs.insert(dir.clone(), rules.clone());
        rules
    }

    /// The rules that a directory gets from those it is in; `None` if it is left out.
    pub(crate) fn above(&mut self, dir: &RelPath) -> Option<Rules> {
        match dir.parent() {
            None => Some(Rules::default()),
            Some(above) => self.rules(&above).filter(|rules| !rules.ignores(dir, true)),
        }
    }

    /// Is the path left out?
    pub(crate) fn ignores(&mut self, path: &RelPath, is_dir: bool) -> bool {
        match path.parent() {
            Some(dir) => self.rules(&dir).is_none_or(|rules| rules.ignores(path, is_dir)),
            None => false,
        }
    }

    /// Rules have changed.
    pub(crate) fn forget(&mut self) {
        self.dirs.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;
    use crate::disk::tests::{Folder, folder, rel};

    fn left_out(f: &Folder, ignore: &Ignore, path: &str) -> bool {
        let (path, is_dir) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        Asker::new(ignore, &f.root).ignores(&rel(path), is_dir)
    }

    #[test]
    fn the_nearest_rule_decides_and_nothing_comes_back_from_a_directory_that_is_left_out() {
        let f = folder();
        f.put(
            ".syncignore",
            "# made\r\n*.o\r\n/build/\r\nlogs\n!logs/kept\n**/deep/*.tmp\n",
        );
        f.put("src/.syncignore", "!keep.o\n.syncignore\n*\n!*.c\n!*/\n!keep.o");
        f.put("build/.syncignore", "!*");
        let ignore = Ignore::default();
        for (path, out) in [
            ("a.o", true),
            ("x/y/a.o", true),
            ("a.c", false),
            ("build/", true),
            ("build", false),
            ("build/made.c", true),
            ("x/build/", false),
            ("logs", true),
            ("logs/kept", true),
            ("x/deep/a.tmp", true),
            ("a.tmp", false),
            ("src/keep.o", false),
            ("src/b.o", true),
            ("src/x/keep.o", false),
            ("src/a.c", false),
            ("src/.syncignore", false),
            (".syncignore", false),
        ] {
            assert_eq!(left_out(&f, &ignore, path), out, "{path}");
        }
    }

    #[test]
    fn rules_that_are_being_written_leave_out_what_they_did_before() {
        let f = folder();
        f.put(".syncignore", "*.key");
        let ignore = Ignore::default();
        assert!(left_out(&f, &ignore, "a.key") && !ignore.is_settling());
        f.put(".syncignore", "");
        let began = Instant::now();
        let still = left_out(&f, &ignore, "a.key");
        assert!(
            still || began.elapsed() > SETTLE,
            "an empty moment publishes nothing"
        );
        f.put(".syncignore", "*.pem");
        let still = left_out(&f, &ignore, "a.key") && left_out(&f, &ignore, "a.pem");
        assert!(still || began.elapsed() > SETTLE, "both count");
        while left_out(&f, &ignore, "a.key") {
            assert!(began.elapsed() < SETTLE * 20, "there is an end to it");
            std::thread::yield_now();
        }
        assert!(left_out(&f, &ignore, "a.pem") && ignore.take_changed() && !ignore.is_settling());
        fs::remove_file(f.at(".syncignore")).expect("it is there");
        ignore.written(&f.root, &RelPath::root());
        assert!(!left_out(&f, &ignore, "a.pem") && ignore.take_changed());
    }

    #[test]
    fn where_rules_cannot_be_read_nothing_is_touched() {
        let f = folder();
        f.put("d/.syncignore", vec![b'#'; MAX_SIZE as usize + 1]);
        std::os::unix::fs::symlink("d", f.at("link")).expect("made");
        fs::create_dir(f.at("e")).expect("made");
        std::os::unix::fs::symlink("/etc/passwd", f.at("e/.syncignore")).expect("made");
        let ignore = Ignore::default();
        assert!(left_out(&f, &ignore, "d/x") && left_out(&f, &ignore, "e/x"));
        assert!(!left_out(&f, &ignore, "d/.syncignore") && !left_out(&f, &ignore, "x"));
        f.put("d/.syncignore", "*.o");
        ignore.try_unknown(&f.root);
        assert!(ignore.take_changed() && !left_out(&f, &ignore, "d/x") && left_out(&f, &ignore, "d/x.o"));
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_named_and_the_others_count() {
        let f = folder();
        f.put(".syncignore", b"*.o\n[z-a]\n\xff\n");
        let ignore = Ignore::default();
        let open = f.root.dir(&RelPath::root()).expect("open");
        let (rules, trouble) = ignore.enter(&Rules::default(), &RelPath::root(), &open);
        assert!(rules.ignores(&rel("x.o"), false));
        assert!(matches!(trouble, Some(Trouble::Bad(reason)) if reason.starts_with("line 2: ")));
    }
}
