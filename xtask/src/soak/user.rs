//! A user who works in the folder of one device without plan: picks what to do, by the seed and by what is
//! there. Never looks at another device.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hands::{EDITABLE, Hands};
use super::random::Random;

mod actions;

/// More files than this, and more is deleted than made.
const MANY: usize = 500;
/// Fewer, and more is made.
const FEW: usize = 300;
/// No directory with more files is deleted at once: the devices hold mass deletions.
const MAX_DELETED: usize = 25;
/// How deep to go down.
const DEPTH: usize = 9;
/// Where all users meet.
const HOT: &[&str] = &["hot", "hot/one", "hot/two.txt", "swap", "swap/a", "swap/b.d"];
/// Names that programs have tripped over.
const ODD: &[&[u8]] = &[
    b"with space",
    b" lead",
    b"trail ",
    b"-rf",
    b"--help",
    b"new\nline",
    b"tab\there",
    b"quote'\"s",
    b"back\\slash",
    b"star*?[x]",
    b"$(HOME)",
    b"~",
    b"#auto#",
    b".hidden",
    b"..three",
    b"dot.",
    "grün.txt".as_bytes(),
    "gru\u{308}n.txt".as_bytes(),
    "日本語".as_bytes(),
    b"\xff\xfe raw",
    b"latin\xe9.txt",
    b"CON",
    b"aux.c",
    b"Case",
    b"case",
    b"plan (conflict 01234567).txt",
    b"plan.txt",
    b"x (conflict 89abcdef)",
];

/// One kind of thing to do.
type Act = fn(&mut User) -> io::Result<()>;

/// One user.
pub(crate) struct User {
    pub(crate) hands: Hands,
    random: Random,
    files: usize,
    serial: usize,
}

impl User {
    pub(crate) fn new(hands: Hands, seed: u64) -> Self {
        let random = Random::new(seed, 100 + hands.device as u64);
        User {
            hands,
            random,
            files: 0,
            serial: 0,
        }
    }

    /// Some actions in a row. What cannot be done, because of what an engine did meanwhile, is left.
    pub(crate) fn burst(&mut self) {
        self.files = count(&self.hands.root, usize::MAX);
        let len = match self.random.below(10) {
            0 => self.random.between(20, 60),
            1..=4 => self.random.between(4, 15),
            _ => self.random.between(1, 3),
        };
        for _ in 0..len {
            if let Err(error) = self.act() {
                let text = format!("  (that failed: {error})");
                self.hands.ledger.note(self.hands.device, &text);
            }
        }
    }

    /// How long until the next burst.
    pub(crate) fn pause(&mut self) -> Duration {
        let ms = match self.random.below(10) {
            0 => self.random.between(1000, 4000),
            1..=3 => self.random.between(200, 800),
            _ => self.random.between(5, 120),
        };
        Duration::from_millis(ms as u64)
    }

    /// Fills an empty folder.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        for top in ["hot", "swap", "work", "deep"] {
            self.hands.mkdir(&self.hands.root.join(top), "fill")?;
        }
        while count(&self.hands.root, usize::MAX) < FEW {
            let _ = match self.random.below(6) {
                0 => self.make_dir(),
                1 => self.make_link(),
                _ => self.make_file(),
            };
        }
        Ok(())
    }

    fn act(&mut self) -> io::Result<()> {
        let (grow, shrink) = match self.files {
            n if n > 2 * MANY => (2, 40),
            n if n > MANY => (4, 14),
            n if n < FEW => (16, 3),
            _ => (9, 6),
        };
        let weights: [(usize, Act); 22] = [
            (grow, Self::make_file),
            (2, Self::make_twin),
            (grow / 2, Self::make_dir),
            (grow / 3, Self::make_link),
            (1, Self::make_big),
            (10, Self::overwrite),
            (8, Self::append),
            (4, Self::edit),
            (2, Self::truncate),
            (12, Self::save_by_rename),
            (3, Self::save_with_backup),
            (shrink, Self::delete_file),
            (shrink / 3, Self::delete_dir),
            (5, Self::rename_file),
            (2, Self::rename_over),
            (3, Self::rename_dir),
            (6, Self::swap_type),
            (3, Self::retarget),
            (4, Self::chmod),
            (2, Self::old_file),
            (1, Self::touch),
            (1, Self::many_at_once),
        ];
        let total = weights.iter().map(|(weight, _)| weight).sum();
        let mut at = self.random.below(total);
        for (weight, act) in weights {
            if at < weight {
                return act(self);
            }
            at -= weight;
        }
        Ok(())
    }

    fn members(&self, dir: &Path) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.file_name() != Some(".alike".as_ref()))
            .collect();
        all.sort();
        all
    }

    /// Something of a kind, if it is found soon.
    fn pick(&mut self, wanted: impl Fn(&fs::Metadata) -> bool) -> io::Result<PathBuf> {
        for _ in 0..20 {
            let mut at = self.hands.root.clone();
            if self.random.percent(25) {
                at.push(self.random.pick(HOT));
            }
            for _ in 0..DEPTH {
                let members = self.members(&at);
                if members.is_empty() {
                    break;
                }
                at = self.random.pick(&members).clone();
                let Ok(meta) = fs::symlink_metadata(&at) else {
                    break;
                };
                if wanted(&meta) && (!meta.is_dir() || self.random.percent(40)) {
                    return Ok(at);
                }
                if !meta.is_dir() {
                    break;
                }
            }
        }
        Err(io::Error::other("nothing of that kind found"))
    }

    fn a_file(&mut self) -> io::Result<PathBuf> {
        self.pick(fs::Metadata::is_file)
    }

    fn an_editable(&mut self) -> io::Result<PathBuf> {
        self.pick(|meta| meta.is_file() && meta.len() <= EDITABLE)
    }

    /// A directory, not one of the top.
    fn a_dir(&mut self) -> io::Result<PathBuf> {
        let dir = self.pick(fs::Metadata::is_dir)?;
        if dir.parent() == Some(&self.hands.root) && !self.random.percent(15) {
            return Err(io::Error::other("not at the top"));
        }
        Ok(dir)
    }

    /// A place for something new; others may choose the same.
    fn a_place(&mut self) -> PathBuf {
        let dir = match self.random.below(4) {
            0 => self.hands.root.clone(),
            1 => self.hands.root.join(self.random.pick(HOT)),
            _ => self
                .pick(fs::Metadata::is_dir)
                .unwrap_or_else(|_| self.hands.root.clone()),
        };
        let dir = match fs::symlink_metadata(&dir) {
            Ok(meta) if meta.is_dir() => dir,
            _ => self.hands.root.clone(),
        };
        let name = self.a_name();
        dir.join(std::ffi::OsString::from_vec(name))
    }

    fn a_name(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 | 1 => self.random.pick(ODD).to_vec(),
            2 => {
                let stem = ["x", "é", "long-"][self.random.below(3)];
                let mut name = stem.repeat(255 / stem.len());
                name.truncate(250 / stem.len() * stem.len());
                format!("{name}{}", self.random.below(9)).into_bytes()
            }
            3..=5 => format!("n{}", self.random.below(25)).into_bytes(),
            6 | 7 => format!("doc{}.txt", self.random.below(25)).into_bytes(),
            _ => {
                self.serial += 1;
                format!("d{}-{}.dat", self.hands.device, self.serial).into_bytes()
            }
        }
    }

    fn a_size(&mut self) -> usize {
        match self.random.below(12) {
            0 => self.random.between(20_000, 200_000),
            1 => self.random.between(2_000, 20_000),
            _ => self.random.between(1, 800),
        }
    }

    /// How long a program holds a file open before it writes.
    fn a_gap(&mut self) -> Duration {
        match self.random.below(20) {
            0 => Duration::from_millis(self.random.between(1, 120) as u64),
            _ => Duration::ZERO,
        }
    }
}

/// Files and links below `dir`, counted up to `max`.
fn count(dir: &Path, max: usize) -> usize {
    let mut open = vec![dir.to_path_buf()];
    let mut n = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() == ".alike" {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => n += 1,
            }
            if n >= max {
                return n;
            }
        }
    }
    n
}
