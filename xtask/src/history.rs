//! `cargo xtask history`: many rounds of edits from two sides; then every round's generation is written out again and
//! must be what it was. Says what the past costs. Never touches anything but what it made.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::device::Device;
use crate::soak::random::Random;
use crate::{cargo, target_dir};

/// How long both sides may take to agree.
const WAIT: [&str; 3] = ["wait", "--timeout", "15m"];

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    rounds: usize,
    /// Made in a round, about.
    changes: usize,
    files: usize,
    seed: u64,
    /// Where the files come from; none: they are made.
    tree: Option<PathBuf>,
    bin: Option<PathBuf>,
    place: Option<PathBuf>,
}

impl Options {
    /// From the command line; `None` where it makes no sense.
    pub(crate) fn parse(args: &[&str]) -> Option<Options> {
        let mut options = Options {
            rounds: 200,
            changes: 20,
            files: 20_000,
            seed: 1,
            tree: None,
            bin: None,
            place: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next()?;
            match *arg {
                "--rounds" => options.rounds = value.parse().ok()?,
                "--changes" => options.changes = value.parse().ok().filter(|n| *n >= 1)?,
                "--files" => options.files = value.parse().ok().filter(|n| *n >= 100)?,
                "--seed" => options.seed = value.parse().ok()?,
                "--tree" => options.tree = Some(value.into()),
                "--bin" => options.bin = Some(value.into()),
                "--place" => options.place = Some(value.into()),
                _ => return None,
            }
        }
        Some(options)
    }
}

pub(crate) fn run(options: Options) -> Result<()> {
    let bin = match &options.bin {
        Some(bin) => fs::canonicalize(bin).with_context(|| bin.display().to_string())?,
        None => {
            let status = cargo(&["build", "--release", "-p", "alike-cli"]).status()?;
            ensure!(status.success(), "cargo build: {status}");
            target_dir()?.join("release/sync")
        }
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix("alike-history-");
    let place = match &options.place {
        Some(place) => builder.tempdir_in(place)?,
        None => builder.tempdir()?,
    };
    History::new(&options, &bin, place.path())?.run()
}

/// A generation, and the root that its folder had then.
struct Was {
    generation: String,
    root: String,
}

/// What a side keeps of contents (megabytes).
struct Kept {
    /// Their bytes.
    contents: f64,
    /// What the disk gives for them.
    space: f64,
}

struct History<'a> {
    options: &'a Options,
    place: &'a Path,
    sides: [Device; 2],
    random: Random,
    /// The files of both sides, by path.
    files: BTreeSet<PathBuf>,
    made: usize,
    start: Instant,
}

impl<'a> History<'a> {
    fn new(options: &'a Options, bin: &Path, place: &'a Path) -> Result<Self> {
        Ok(History {
            options,
            place,
            sides: [
                Device::start(bin, place, "left")?,
                Device::start(bin, place, "right")?,
            ],
            random: Random::new(options.seed, 7),
            files: BTreeSet::new(),
            made: 0,
            start: Instant::now(),
        })
    }

    fn run(&mut self) -> Result<()> {
        self.fill()?;
        let [left, right] = &self.sides;
        let ticket = left.sync(["share".as_ref(), left.folder.as_os_str()])?;
        right.sync(["pair".as_ref(), ticket.trim().as_ref(), right.folder.as_os_str()])?;
        let mut was = vec![self.settled(0)?];
        self.say(&format!("{} files are synced", self.files.len()));
        for round in 1..=self.options.rounds {
            let side = round % 2;
            let changes = self.options.changes;
            for _ in 0..self.random.between(changes.div_ceil(2), changes + changes / 2) {
                self.change(side)?;
            }
            was.push(self.settled(side)?);
            if round.is_multiple_of(50) {
                self.say(&format!("{round} rounds"));
            }
        }
        let before = self.database();
        for side in &self.sides {
            side.sync(["gc"])?;
        }
        let all = self.database();
        self.say(&format!(
            "the database of the left side: {before:.1} MB, {all:.1} MB after `sync gc`"
        ));
        for was in &was {
            self.compare(was)?;
        }
        self.say(&format!("{} generations written out, all equal", was.len()));
        let kept = self.kept()?;
        self.sides[0].sync(["gc", "--keep", "1"])?;
        let one = self.database();
        let rows = all - one;
        self.say(&format!(
            "beside {:.1} MB of packed and displaced contents: {:.1} MB of headers and blocks, {rows:.1} MB of database \
             ({one:.1} MB with one generation): {:.1} %",
            kept.contents,
            kept.space - kept.contents,
            100.0 * (kept.space - kept.contents + rows) / kept.contents
        ));
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// Fills the left side.
    fn fill(&mut self) -> Result<()> {
        let folder = self.sides[0].folder.clone();
        if let Some(tree) = self.options.tree.clone() {
            let mut dirs = vec![PathBuf::new()];
            while let Some(dir) = dirs.pop() {
                let mut entries: Vec<_> = fs::read_dir(tree.join(&dir))?.collect::<Result<_, _>>()?;
                entries.sort_by_key(fs::DirEntry::file_name);
                for entry in entries {
                    let path = dir.join(entry.file_name());
                    let kind = entry.file_type()?;
                    if kind.is_dir() {
                        dirs.push(path);
                    } else if kind.is_file() && self.files.len() < self.options.files {
                        fs::create_dir_all(folder.join(&dir))?;
                        fs::copy(entry.path(), folder.join(&path))?;
                        self.files.insert(path);
                    }
                }
            }
        }
        while self.files.len() < self.options.files {
            self.create(0)?;
        }
        Ok(())
    }

    /// A file that was never there.
    fn create(&mut self, side: usize) -> Result<()> {
        self.made += 1;
        let path = PathBuf::from(format!("made/{:03}/{}", self.made % 200, self.made));
        self.write(side, &path)?;
        self.files.insert(path);
        Ok(())
    }

    fn write(&mut self, side: usize, path: &Path) -> Result<()> {
        // Mostly small, as people's files are.
        let len = 1 << self.random.between(0, 17);
        let mut content = Vec::with_capacity(len + 8);
        while content.len() < len {
            content.extend_from_slice(&self.random.next().to_le_bytes());
        }
        let to = self.sides[side].folder.join(path);
        fs::create_dir_all(to.parent().expect("it is in the folder"))?;
        fs::write(&to, content).with_context(|| to.display().to_string())
    }

    fn any(&mut self) -> PathBuf {
        let at = self.random.below(self.files.len());
        self.files.iter().nth(at).expect("there are so many").clone()
    }

    /// One thing that a user does.
    fn change(&mut self, side: usize) -> Result<()> {
        let path = self.any();
        let folder = self.sides[side].folder.clone();
        match self.random.below(100) {
            0..60 => self.write(side, &path)?,
            60..75 => self.create(side)?,
            75..85 => {
                fs::remove_file(folder.join(&path))?;
                self.files.remove(&path);
            }
            85..97 => {
                self.made += 1;
                let to = path.with_file_name(format!("renamed {}", self.made));
                fs::rename(folder.join(&path), folder.join(&to))?;
                self.files.remove(&path);
                self.files.insert(to);
            }
            _ => {
                let Some(dir) = path.parent().filter(|dir| dir.components().count() > 1) else {
                    return Ok(());
                };
                self.made += 1;
                let to = dir.with_file_name(format!("renamed {}", self.made));
                fs::rename(folder.join(dir), folder.join(&to))?;
                let moved = |path: &PathBuf| match path.strip_prefix(dir) {
                    Ok(rest) => to.join(rest),
                    Err(_) => path.clone(),
                };
                self.files = self.files.iter().map(moved).collect();
            }
        }
        Ok(())
    }

    /// Both sides agree: what the side that was worked on has now, by the left side's number.
    fn settled(&self, side: usize) -> Result<Was> {
        for device in [&self.sides[side], &self.sides[1 - side]] {
            device.sync(WAIT)?;
        }
        let [left, right] = &self.sides;
        let hash = |device: &Device| device.sync(["hash".as_ref(), device.folder.as_os_str()]);
        let root = hash(left)?.trim().to_owned();
        ensure!(hash(right)?.trim() == root, "the sides differ after they agreed");
        let log: serde_json::Value = serde_json::from_str(&left.sync(["log", "--json", "-n", "1"])?)?;
        let newest = &log[0];
        ensure!(
            newest["root"] == root,
            "the newest generation is {newest}, the folder {root}"
        );
        Ok(Was {
            generation: newest["generation"].to_string(),
            root,
        })
    }

    fn compare(&self, was: &Was) -> Result<()> {
        let [left, _] = &self.sides;
        let out = self.place.join("out");
        left.sync(["checkout".as_ref(), was.generation.as_ref(), out.as_os_str()])?;
        let hash = left.sync(["hash".as_ref(), out.as_os_str()])?;
        ensure!(
            hash.trim() == was.root,
            "generation {} was {}, written out it is {}",
            was.generation,
            was.root,
            hash.trim()
        );
        fs::remove_dir_all(&out).context("remove what was written out")
    }

    /// What the left side keeps of contents: its packs, and what was displaced.
    fn kept(&self) -> Result<Kept> {
        let corner = self.place.join("left");
        let mut space = 0;
        // By name, so that nothing counts twice.
        let mut contents = HashMap::new();
        for pack in fs::read_dir(corner.join("state/packs"))? {
            let pack = pack?;
            space += pack.metadata()?.blocks() * 512;
            packed(&fs::read(pack.path())?, &mut contents)
                .with_context(|| pack.path().display().to_string())?;
        }
        let mut dirs = vec![self.sides[0].folder.join(".alike/objects")];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else {
                    contents.insert(entry.file_name().to_string_lossy().into_owned(), meta.len());
                    space += meta.blocks() * 512;
                }
            }
        }
        let mb = |bytes: u64| bytes as f64 / 1e6;
        Ok(Kept {
            contents: mb(contents.values().sum()),
            space: mb(space),
        })
    }

    /// Megabytes that the left side's database takes.
    fn database(&self) -> f64 {
        let path = self.place.join("left/state/alike.redb");
        fs::metadata(path).map_or(0.0, |meta| meta.len() as f64 / 1e6)
    }
}

/// Notes the contents of a pack by digest: entries of a digest (32 bytes), a length (4) and so many bytes.
fn packed(mut pack: &[u8], contents: &mut HashMap<String, u64>) -> Result<()> {
    while let Some((digest, rest)) = pack.split_at_checked(32) {
        let (len, rest) = rest.split_at_checked(4).context("it ends within a header")?;
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        let (_, rest) = rest.split_at_checked(len).context("it ends within a content")?;
        let name = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        contents.insert(name, len as u64);
        pack = rest;
    }
    ensure!(pack.is_empty(), "it ends within a header");
    Ok(())
}
