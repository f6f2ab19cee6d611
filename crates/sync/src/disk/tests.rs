//! Roots, the way into them, temporary files and objects.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use alike_core::digest::Digest;

/// A folder to play in.
pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: Root,
}

pub(crate) const MARKER: [u8; 16] = [7; 16];

pub(crate) fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    assert_eq!(root.ensure_own_dir(MARKER).unwrap(), MARKER);
    Folder { dir, root }
}

pub(crate) fn rel(path: impl AsRef<[u8]>) -> RelPath {
    RelPath::parse(path.as_ref()).unwrap()
}

impl Folder {
    pub(crate) fn at(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.dir.path().join(OsStr::from_bytes(path.as_ref()))
    }

    pub(crate) fn put(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn get(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        fs::read(self.at(path)).unwrap()
    }

    /// A finished temporary file.
    pub(crate) fn temp(&self, content: impl AsRef<[u8]>) -> Vec<u8> {
        let (name, mut file) = self.root.temp_file().unwrap();
        file.write_all(content.as_ref()).unwrap();
        Root::finish_temp(&file, false, 1_000_000_007).unwrap();
        name
    }

    pub(crate) fn print(&self, path: impl AsRef<[u8]>) -> Fingerprint {
        self.root.stat(&rel(path)).unwrap().unwrap().fingerprint
    }

    /// What MAT would say of what is there now.
    pub(crate) fn expect(&self, path: impl AsRef<[u8]>) -> Expected {
        let content = self.get(&path);
        Expected {
            damaged: false,
            fingerprint: Some(self.print(&path)),
            value: Value::File {
                digest: Digest::of(&content),
                size: content.len() as u64,
            },
        }
    }

    pub(crate) fn object(&self, content: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let digest = Digest::of(content.as_ref());
        let mut file = self.root.open_object(&digest).unwrap()?;
        let mut found = Vec::new();
        io::Read::read_to_end(&mut file, &mut found).unwrap();
        Some(found)
    }

    /// Names left in `.alike/tmp`.
    pub(crate) fn temps(&self) -> usize {
        fs::read_dir(self.at(".alike/tmp")).unwrap().count()
    }
}

#[test]
fn the_marker_is_made_once_and_tells_a_replaced_root() {
    let f = folder();
    assert_eq!(
        f.get(".alike/marker"),
        format!("{}\n", "07".repeat(16)).into_bytes()
    );
    assert_eq!(f.root.ensure_own_dir([9; 16]).unwrap(), MARKER);
    assert_eq!(fs::metadata(f.at(".alike")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(f.root.check(&MARKER), Ok(()));
    assert!(f.root.check(&[9; 16]).unwrap_err().contains("another folder"));
    fs::write(f.at(".alike/marker"), "x").unwrap();
    assert!(f.root.check(&MARKER).unwrap_err().contains("damaged"));
    fs::remove_file(f.at(".alike/marker")).unwrap();
    assert!(f.root.check(&MARKER).unwrap_err().contains("missing"));

    let moved = f.dir.path().with_extension("moved");
    fs::rename(f.dir.path(), &moved).unwrap();
    assert!(f.root.check(&MARKER).unwrap_err().contains("gone"));
    fs::create_dir(f.dir.path()).unwrap();
    assert!(f.root.check(&MARKER).unwrap_err().contains("replaced"));
    fs::remove_dir_all(moved).unwrap();
}

#[test]
fn an_own_directory_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    symlink(other.path(), dir.path().join(".alike")).unwrap();
    let error = Root::open(dir.path())
        .unwrap()
        .ensure_own_dir(MARKER)
        .unwrap_err();
    assert!(matches!(error, DiskError::Unfit { .. }), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    assert!(matches!(
        Root::open(&dir.path().join("no")),
        Err(DiskError::Io { .. })
    ));
}

/// Both ways of walking: by openat2, and by steps.
fn both_ways(test: impl Fn(&Folder)) {
    test(&folder());
    let old = folder();
    old.root.ways.openat2.store(false, Ordering::Relaxed);
    test(&old);
}

#[test]
fn links_are_never_followed_on_the_way() {
    both_ways(|f| {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x"), "secret").unwrap();
        f.put("d/x", "mine");
        symlink(outside.path(), f.at("out")).unwrap();
        symlink("d", f.at("in")).unwrap();
        symlink("d/x", f.at("file")).unwrap();
        for dir in ["out", "in", "d/x", "none"] {
            assert!(f.root.open_dir(&rel(dir)).is_err(), "{dir}");
            assert!(f.root.read_dir(&rel(dir)).is_err(), "{dir}");
            let below = rel(format!("{dir}/x"));
            assert!(f.root.open_file(&below).is_err(), "{dir}");
            assert_eq!(f.root.stat(&below).unwrap(), None, "{dir}");
            assert!(matches!(f.root.mkdir(&below), Err(MoveError::Changed)), "{dir}");
            let temp = f.temp("new");
            assert!(
                matches!(f.root.create(&temp, &below), Err(MoveError::Changed)),
                "{dir}"
            );
        }
        assert!(f.root.open_file(&rel("file")).is_err());
        assert_eq!(f.root.read_link(&rel("file")).unwrap(), b"d/x");
        assert_eq!(f.root.stat(&rel("out")).unwrap().unwrap().kind, Kind::Symlink);
        assert_eq!(f.root.stat(&RelPath::root()).unwrap().unwrap().kind, Kind::Dir);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        let names: Vec<_> = f.root.read_dir(&RelPath::root()).unwrap();
        assert_eq!(names.len(), 5, "{names:?}");
    });
}

#[test]
fn another_file_system_is_not_entered() {
    // The root of all: /proc is mounted in it wherever tests run.
    let root = Root::open(Path::new("/")).unwrap();
    let errno = |e: io::Error| rustix::io::Errno::from_io_error(&e);
    let into = root.open_dir(&rel("proc")).map_err(errno);
    assert_eq!(into.unwrap_err(), Some(rustix::io::Errno::XDEV));
    root.ways.openat2.store(false, Ordering::Relaxed);
    let into = root.open_dir(&rel("proc/self")).map_err(errno);
    assert_eq!(into.unwrap_err(), Some(rustix::io::Errno::XDEV));
    let temp = root.mkdir(&rel("proc/x"));
    assert!(matches!(temp, Err(MoveError::Unsupported(_))), "{temp:?}");
}

#[test]
fn temporary_files_come_and_go() {
    let f = folder();
    let (a, mut file) = f.root.temp_file().unwrap();
    file.write_all(b"abc").unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    Root::finish_temp(&file, true, -1_500_000_000).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.mode() & 0o700, 0o700);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 500_000_000));
    f.root.temp_named(b"big", true).unwrap();
    assert!(f.root.temp_named(b"other", false).is_err());
    for bad in [&b""[..], b".", b"..", b"../x", b"aside-1"] {
        assert!(f.root.temp_named(bad, true).is_err());
    }
    let link = f.root.temp_symlink(b"somewhere/\xff", 5_000_000_000).unwrap();
    let stat = fs::symlink_metadata(f.at(b".alike/tmp/").join(OsStr::from_bytes(&link))).unwrap();
    assert_eq!(stat.mtime(), 5);
    assert!(f.root.temp_symlink(&[b'x'; 4096], 0).is_err());
    f.put(".alike/tmp/aside-x", "found");
    f.root.remove_temp(b"aside-x");
    f.root
        .clear_temps(|name| name == b"big" || name == &a[..])
        .unwrap();
    assert_eq!(f.temps(), 3);
    f.root.keep_displaced(&Default::default()).unwrap();
    assert_eq!(f.object("found").unwrap(), b"found");
    f.root.keep_temp(&a).unwrap();
    f.root.keep_temp(b"none").unwrap();
    assert_eq!(f.object("abc").unwrap(), b"abc");
    assert_eq!(f.temps(), 1);
    fs::remove_dir_all(f.at(".alike/tmp")).unwrap();
    f.temp("made again");
}

#[test]
fn a_displaced_link_goes_only_if_it_is_known() {
    let f = folder();
    for name in ["known", "strange"] {
        std::os::unix::fs::symlink(name, f.at(format!(".alike/tmp/aside-{name}"))).unwrap();
    }
    let known = [&b"known"[..]].into_iter().collect();
    f.root.keep_displaced(&known).unwrap();
    assert!(fs::symlink_metadata(f.at(".alike/tmp/aside-known")).is_err());
    assert!(fs::symlink_metadata(f.at(".alike/tmp/aside-strange")).is_ok());
}

#[test]
fn copies_are_verified() {
    let f = folder();
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|i| i.to_le_bytes()).collect();
    for content in [&b"small"[..], b"", &large] {
        f.put("source", content);
        let (print, digest) = (f.print("source"), Digest::of(content));
        let copy = f
            .root
            .temp_from_local(&rel("source"), &print, &digest)
            .unwrap()
            .unwrap();
        assert_eq!(f.get([b".alike/tmp/", &copy[..]].concat()), content);
        let other = Digest::of(b"other");
        assert_eq!(
            f.root.temp_from_local(&rel("source"), &print, &other).unwrap(),
            None
        );
        let old = Fingerprint { mtime_ns: 1, ..print };
        assert_eq!(
            f.root.temp_from_local(&rel("source"), &old, &digest).unwrap(),
            None
        );
    }
    assert_eq!(
        f.root
            .temp_from_local(&rel("no"), &f.print("source"), &Digest::of(b""))
            .unwrap(),
        None
    );
    assert_eq!(f.temps(), 3);
}

#[test]
fn copies_of_sparse_files_are_sparse() {
    let f = folder();
    let file = File::create(f.at("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 40 << 20).unwrap();
    file.set_len(80 << 20).unwrap();
    let content = f.get("sparse");
    let copy = f
        .root
        .temp_from_local(&rel("sparse"), &f.print("sparse"), &Digest::of(&content))
        .unwrap();
    let copy = f.at([b".alike/tmp/", &copy.unwrap()[..]].concat());
    assert_eq!(fs::read(&copy).unwrap(), content);
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_damaged_object_is_not_used_and_not_lost() {
    let f = folder();
    let displace = |content: &str| {
        f.put("a", content);
        f.root.remove(&rel("a"), &f.expect("a")).unwrap();
    };
    displace("version 1");
    displace("version 1");
    assert_eq!(f.temps(), 0);
    let digest = Digest::of(b"version 1");
    let temp = f.root.temp_from_object(&digest).unwrap().unwrap();
    f.root.remove_temp(&temp);
    let hex = digest.to_hex();
    f.put(
        format!(".alike/objects/{}/{hex}", &hex[..2]),
        "written by one who had it open",
    );
    assert_eq!(f.root.temp_from_object(&digest).unwrap(), None);
    displace("version 1");
    assert_eq!(f.object("version 1").unwrap(), b"version 1");
    assert!(f.object("written by one who had it open").is_some());
    assert_eq!(f.temps(), 0);
    assert_eq!(f.root.temp_from_object(&Digest::of(b"never")).unwrap(), None);
}

#[test]
fn special_things_are_told_and_not_opened() {
    let f = folder();
    rustix::fs::mkfifoat(&f.root.fd, "pipe", Mode::RUSR | Mode::WUSR).unwrap();
    std::os::unix::net::UnixListener::bind(f.at("sock")).unwrap();
    let kind = |path: &str| f.root.stat(&rel(path)).unwrap().unwrap().kind;
    assert_eq!(kind("pipe"), Kind::Special("named pipe"));
    assert_eq!(kind("sock"), Kind::Special("socket"));
    // Would block for ever.
    f.root.open_file(&rel("pipe")).unwrap();
    let temp = f.temp("x");
    assert!(matches!(
        f.root.create(&temp, &rel("pipe")),
        Err(MoveError::Changed)
    ));
    assert!(matches!(f.root.mkdir(&rel("sock")), Err(MoveError::Changed)));
}

/// A move that gives a file its second name and is killed before it takes the first one.
#[test]
fn a_temporary_file_that_is_a_users_by_now_is_not_written() {
    let f = folder();
    f.root
        .temp_named(b"big", true)
        .unwrap()
        .write_all(b"whole")
        .unwrap();
    fs::hard_link(f.at(".alike/tmp/big"), f.at("a")).unwrap();
    f.root.temp_named(b"big", true).unwrap().write_all(b"X").unwrap();
    assert_eq!(f.get("a"), b"whole");
    assert_eq!(f.get(".alike/tmp/big"), b"X");
}

#[test]
fn hashing_sees_one_moment_of_a_file() {
    let f = folder();
    f.put("a", vec![1; 1_000_000]);
    let dir = f.root.dir(&RelPath::root()).unwrap();
    let mut buffer = Buffer::new();
    let content = dir.hash(b"a", None, &mut buffer, None, &mut |_| true).unwrap();
    assert!(matches!(content, Content::Is { digest, .. } if digest == Digest::of(&[1; 1_000_000])));
    let mut grow = |_| {
        let mut file = fs::OpenOptions::new().append(true).open(f.at("a")).unwrap();
        file.write_all(b"more").unwrap();
        true
    };
    let content = dir.hash(b"a", None, &mut buffer, None, &mut grow).unwrap();
    assert!(matches!(content, Content::Changing), "{content:?}");
    let content = dir.hash(b"a", None, &mut buffer, None, &mut |_| false).unwrap();
    assert!(matches!(content, Content::Stopped), "{content:?}");
    let mut swap = |_| {
        if f.at("b").exists() {
            return true;
        }
        fs::rename(f.at("a"), f.at("b")).unwrap();
        symlink("b", f.at("a")).unwrap();
        true
    };
    let content = dir.hash(b"a", None, &mut buffer, None, &mut swap).unwrap();
    assert!(matches!(content, Content::Changing), "{content:?}");
    let content = dir.hash(b"none", None, &mut buffer, None, &mut |_| true).unwrap();
    assert!(matches!(content, Content::Gone), "{content:?}");
    let mut cut = |_| {
        File::options()
            .write(true)
            .open(f.at("b"))
            .unwrap()
            .set_len(10)
            .unwrap();
        true
    };
    let content = dir.hash(b"b", None, &mut buffer, None, &mut cut).unwrap();
    assert!(
        matches!(content, Content::Is { .. } | Content::Changing),
        "{content:?}"
    );
    fs::set_permissions(f.at("b"), fs::Permissions::from_mode(0o0)).unwrap();
    let content = dir.hash(b"b", None, &mut buffer, None, &mut |_| true);
    // Root may read everything.
    assert!(content.is_err() || rustix::process::geteuid().is_root());
}
