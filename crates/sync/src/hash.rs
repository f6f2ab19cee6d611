//! The content root of any directory, tracked or not: what its root would be if it were a folder. Never
//! reads or writes the index, never writes at all.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use alike_core::digest::Digest;
use alike_core::entry::{Entry, NamedEntry};
use alike_core::path::{MAX_DEPTH, MAX_PATH, Name, OWN_DIR, PathError, RelPath};
use alike_core::tree;

use crate::disk::{Buffer, Content, Dir, DiskError, Kind, Root, Stat};
use crate::ignore::{Ignore, RULES, Rules, Trouble};
use crate::scan::Pool;

/// Members of a directory that are one job.
const PART: usize = 512;
/// A file over this many bytes is a job of its own.
const LONG: u64 = 4 * 1024 * 1024;
/// Files of about this many bytes are hashed in one job; with more of them, threads share.
const SHARE: u64 = 16 * 1024 * 1024;

/// What a directory hashes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashReport {
    /// The root, 64 hex digits.
    pub root: String,
    /// What is not in it, as a scan would not take it: path and reason, sorted.
    pub skipped: Vec<(Vec<u8>, String)>,
}

/// Hashes `dir` and everything below it but its own `.alike`, and what the `.syncignore` files in it leave out.
pub fn hash_dir(dir: &Path) -> Result<HashReport, DiskError> {
    let root = Root::open(dir)?;
    let hashing = Hashing {
        root: &root,
        ignore: Ignore::default(),
        pool: Pool::new(),
        skipped: Mutex::default(),
        result: Mutex::default(),
    };
    hashing
        .pool
        .push(Job::Dir(RelPath::root(), Node::new(None), Rules::default()));
    hashing
        .pool
        .run(&Buffer::new, &|buffer, job| hashing.work(buffer, job));
    let result = hashing.result.into_inner().expect("no thread is left");
    let mut skipped = hashing.skipped.into_inner().expect("no thread is left");
    skipped.sort();
    result
        .expect("the root's node is finished last, or there was an error")
        .map(|digest| HashReport {
            root: digest.to_hex(),
            skipped,
        })
}

/// A directory whose members are being hashed.
struct Node {
    above: Option<(Arc<Node>, Name)>,
    entries: Mutex<Vec<NamedEntry>>,
    /// Jobs and directories below that still have entries to add.
    open: AtomicUsize,
}

impl Node {
    /// With one job under way.
    fn new(above: Option<(Arc<Node>, Name)>) -> Arc<Node> {
        Arc::new(Node {
            above,
            entries: Mutex::default(),
            open: AtomicUsize::new(1),
        })
    }

    fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    fn add(&self, name: Name, entry: Entry) {
        let mut entries = self.entries.lock().expect("not poisoned");
        entries.push(NamedEntry { name, entry });
    }
}

enum Job {
    Dir(RelPath, Arc<Node>, Rules),
    Part(RelPath, Arc<Node>, Rules, Vec<Name>),
    Files(RelPath, Arc<Node>, Vec<Name>),
}

struct Hashing<'a> {
    root: &'a Root,
    ignore: Ignore,
    pool: Pool<Job>,
    skipped: Mutex<Vec<(Vec<u8>, String)>>,
    result: Mutex<Option<Result<Digest, DiskError>>>,
}

impl Hashing<'_> {
    fn work(&self, buffer: &mut Buffer, job: Job) {
        let (node, done) = match job {
            Job::Dir(dir, node, above) => {
                let done = self.dir(buffer, &dir, &node, &above);
                (node, done)
            }
            Job::Part(dir, node, rules, names) => {
                let done = self
                    .open(&dir)
                    .and_then(|open| self.members(buffer, &open, &dir, &node, &rules, names));
                (node, done)
            }
            Job::Files(dir, node, names) => {
                let files = names.into_iter().map(|name| (name, None)).collect();
                let done = self
                    .open(&dir)
                    .and_then(|open| self.files(buffer, &open, &dir, &node, files));
                (node, done)
            }
        };
        match done {
            Ok(()) => self.finish(node),
            Err(error) => {
                self.result
                    .lock()
                    .expect("not poisoned")
                    .get_or_insert(Err(error));
                self.pool.stop();
            }
        }
    }

    /// One job of a directory is done; the last one makes it an entry of the directory above.
    fn finish(&self, mut node: Arc<Node>) {
        while node.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut entries = std::mem::take(&mut *node.entries.lock().expect("not poisoned"));
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let digest = tree::write(&entries, &mut |_, _| {});
            match &node.above {
                Some((above, name)) => {
                    above.add(name.clone(), Entry::Dir { digest });
                    node = above.clone();
                }
                None => {
                    self.result
                        .lock()
                        .expect("not poisoned")
                        .get_or_insert(Ok(digest));
                    return;
                }
            }
        }
    }

    fn dir(
        &self,
        buffer: &mut Buffer,
        dir: &RelPath,
        node: &Arc<Node>,
        above: &Rules,
    ) -> Result<(), DiskError> {
        let open = self.open(dir)?;
        let rules = self.rules(above, dir, &open)?;
        let listed = open.entries().map_err(|e| self.failed("read", dir, e))?;
        let mut names = Vec::with_capacity(listed.len());
        for (name, _) in listed {
            match Name::new(&name) {
                Ok(name) => names.push(name),
                Err(PathError::Reserved) if dir.is_root() && name == OWN_DIR.as_bytes() => {}
                Err(reason) => {
                    let mut path = dir.as_bytes().to_vec();
                    if !dir.is_root() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&name);
                    self.skip(path, reason.to_string());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        while names.len() > PART {
            let part = names.split_off(names.len() - PART);
            node.begin();
            self.pool
                .push(Job::Part(dir.clone(), node.clone(), rules.clone(), part));
        }
        self.members(buffer, &open, dir, node, &rules, names)
    }

    /// The rules of a directory; who cannot read them does not know what to hash.
    fn rules(&self, above: &Rules, dir: &RelPath, open: &Dir) -> Result<Rules, DiskError> {
        let (rules, trouble) = self.ignore.enter(above, dir, open);
        match trouble {
            Some(Trouble::Unreadable(reason)) => {
                let path = dir.join(&Name::new(RULES).expect("it is a name"));
                Err(self.failed("read the rules", &path, std::io::Error::other(reason)))
            }
            Some(Trouble::Again | Trouble::Bad(_)) | None => Ok(rules),
        }
    }

    fn members(
        &self,
        buffer: &mut Buffer,
        open: &Dir,
        dir: &RelPath,
        node: &Arc<Node>,
        rules: &Rules,
        names: Vec<Name>,
    ) -> Result<(), DiskError> {
        let room = MAX_PATH.saturating_sub(dir.as_bytes().len() + 1);
        let deepest = dir.depth() >= MAX_DEPTH;
        let (mut files, mut bytes) = (Vec::new(), 0);
        for name in names {
            let path = || dir.join(&name);
            if deepest || name.as_bytes().len() > room {
                self.skip(
                    path().into(),
                    "the path is too long or nested too deeply".to_owned(),
                );
                continue;
            }
            let stat = match open.stat(name.as_bytes()) {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(e) => return Err(self.failed("look at", &path(), e)),
            };
            if rules.ignores(&path(), stat.kind == Kind::Dir) {
                continue;
            }
            match stat.kind {
                _ if stat.dev != open.dev() => {
                    self.skip(path().into(), "another file system is mounted there".to_owned());
                }
                Kind::Special(what) => self.skip(path().into(), format!("it is a {what}")),
                Kind::Dir => {
                    node.begin();
                    let below = Node::new(Some((node.clone(), name.clone())));
                    self.pool.push(Job::Dir(path(), below, rules.clone()));
                }
                Kind::Symlink => {
                    let target = open
                        .read_link(name.as_bytes())
                        .map_err(|e| self.failed("read the link", &path(), e))?;
                    if target.len() < MAX_PATH {
                        let target = target.into();
                        node.add(name, Entry::Symlink { target });
                    } else {
                        self.skip(path().into(), "it points to a path that is too long".to_owned());
                    }
                }
                Kind::File if stat.fingerprint.size > LONG => {
                    node.begin();
                    self.pool
                        .push_long(Job::Files(dir.clone(), node.clone(), vec![name]));
                }
                Kind::File => {
                    if bytes > SHARE {
                        let names = files.drain(..).map(|(name, _)| name).collect();
                        node.begin();
                        self.pool.push(Job::Files(dir.clone(), node.clone(), names));
                        bytes = 0;
                    }
                    bytes += stat.fingerprint.size;
                    files.push((name, Some(stat)));
                }
            }
        }
        self.files(buffer, open, dir, node, files)
    }

    fn files(
        &self,
        buffer: &mut Buffer,
        open: &Dir,
        dir: &RelPath,
        node: &Arc<Node>,
        files: Vec<(Name, Option<Stat>)>,
    ) -> Result<(), DiskError> {
        files
            .into_iter()
            .try_for_each(|(name, stat)| self.file(buffer, open, dir, node, name, stat))
    }

    fn file(
        &self,
        buffer: &mut Buffer,
        open: &Dir,
        dir: &RelPath,
        node: &Node,
        name: Name,
        stat: Option<Stat>,
    ) -> Result<(), DiskError> {
        let content = open
            .hash(name.as_bytes(), stat, buffer, None, &mut |_| true)
            .map_err(|e| self.failed("read", &dir.join(&name), e))?;
        match content {
            Content::Is { digest, stat } => {
                let (size, exec) = (stat.fingerprint.size, stat.is_exec());
                node.add(name, Entry::File { digest, size, exec });
                Ok(())
            }
            Content::Gone => Ok(()),
            Content::Changing | Content::Stopped => Err(DiskError::Unfit {
                path: self.root.display(&dir.join(&name)),
                problem: "is being written",
                hint: "try again when it is not",
            }),
        }
    }

    fn open(&self, dir: &RelPath) -> Result<Dir, DiskError> {
        self.root.dir(dir).map_err(|e| self.failed("open", dir, e))
    }

    fn skip(&self, path: Vec<u8>, reason: String) {
        let mut skipped = self.skipped.lock().expect("not poisoned");
        skipped.push((path, reason));
    }

    fn failed(&self, what: &'static str, path: &RelPath, source: std::io::Error) -> DiskError {
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => "make it readable for you",
            std::io::ErrorKind::NotFound => "it was there a moment ago; try again",
            _ => "check the disk",
        };
        DiskError::Io {
            what,
            path: self.root.display(path),
            source,
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::disk::tests::folder;

    fn named(name: &[u8], entry: Entry) -> NamedEntry {
        NamedEntry {
            name: Name::new(name).unwrap(),
            entry,
        }
    }

    fn file(content: &[u8], exec: bool) -> Entry {
        Entry::File {
            digest: Digest::of(content),
            size: content.len() as u64,
            exec,
        }
    }

    fn root_of(entries: &[NamedEntry]) -> Digest {
        tree::write(entries, &mut |_, _| {})
    }

    #[test]
    fn a_tracked_and_an_untracked_directory_hash_alike() {
        let f = folder();
        let plain = tempfile::tempdir().unwrap();
        let large = vec![7; 5 << 20];
        for dir in [f.dir.path(), plain.path()] {
            fs::create_dir_all(dir.join("d/empty")).unwrap();
            fs::write(dir.join("d/x"), "x").unwrap();
            fs::set_permissions(dir.join("d/x"), fs::Permissions::from_mode(0o700)).unwrap();
            fs::write(dir.join("large"), &large).unwrap();
            symlink("d", dir.join("link")).unwrap();
        }
        let empty = root_of(&[]);
        let d = root_of(&[
            named(b"empty", Entry::Dir { digest: empty }),
            named(b"x", file(b"x", true)),
        ]);
        let target = b"d"[..].into();
        let root = root_of(&[
            named(b"d", Entry::Dir { digest: d }),
            named(b"large", file(&large, false)),
            named(b"link", Entry::Symlink { target }),
        ]);
        let report = hash_dir(plain.path()).unwrap();
        assert_eq!((report.root, report.skipped), (root.to_hex(), Vec::new()));
        assert_eq!(hash_dir(f.dir.path()).unwrap().root, root.to_hex());
    }

    #[test]
    fn what_a_scan_would_not_take_is_skipped_and_told() {
        let f = folder();
        let empty = hash_dir(f.dir.path()).unwrap();
        assert_eq!(empty.root, root_of(&[]).to_hex());
        std::os::unix::net::UnixListener::bind(f.at("sock")).unwrap();
        f.put(".Alike", "x");
        let report = hash_dir(f.dir.path()).unwrap();
        assert_eq!(report.root, empty.root);
        let skipped: Vec<_> = report.skipped.iter().map(|(path, _)| &path[..]).collect();
        assert_eq!(skipped, [&b".Alike"[..], b"sock"]);
        assert!(hash_dir(&f.at("sock")).is_err());
        assert!(hash_dir(&f.at("none")).is_err());
    }

    #[test]
    fn many_files_in_many_directories_hash_the_same_each_time() {
        let f = folder();
        for i in 0..600 {
            f.put(format!("d{}/{}/{i}", i % 3, i % 50), i.to_string());
        }
        for i in 0..1100 {
            f.put(format!("wide/{i}"), "");
        }
        let first = hash_dir(f.dir.path()).unwrap();
        for _ in 0..3 {
            assert_eq!(hash_dir(f.dir.path()).unwrap(), first);
        }
        f.put("d0/0/0", "changed");
        assert_ne!(hash_dir(f.dir.path()).unwrap().root, first.root);
    }
}
