//! Small file systems for one test. Never leaves one mounted: also a test that fails unmounts its own.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted tmpfs. Declare it before the devices on it: it must go after their engines.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many KiB at `path`, which is made. `None`, and said so, where that is not allowed: only
    /// root can.
    pub(crate) fn new(path: impl AsRef<Path>, kib: u64) -> Option<Self> {
        let path = path.as_ref();
        if !rustix::process::getuid().is_root() {
            eprintln!("NOT RUN: mounting {} needs root", path.display());
            return None;
        }
        std::fs::create_dir_all(path).expect("make the mount point");
        let size = format!("size={kib}k,mode=0700");
        call(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", &path.to_string_lossy()],
        );
        Some(Self(path.to_owned()))
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, kib: u64) {
        let size = format!("remount,size={kib}k");
        call("mount", &["-o", &size, &self.0.to_string_lossy()]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// How a file system in a file is made and mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Make {
    /// Makes it, before the name of the file.
    pub(crate) mkfs: &'static [&'static str],
    /// Mounts it, before the name of the file and of the mount point.
    pub(crate) mount: &'static [&'static str],
}

/// ext4: fine times, which also tell what is written through a map.
pub(crate) const EXT4: Make = Make {
    mkfs: &["mkfs.ext4", "-q", "-F"],
    mount: &["mount", "-o", "loop"],
};

/// XFS, which can share the bytes of two files.
pub(crate) const XFS: Make = Make {
    mkfs: &["mkfs.xfs", "-q"],
    mount: EXT4.mount,
};

/// btrfs, which can too.
pub(crate) const BTRFS: Make = Make {
    mkfs: &["mkfs.btrfs", "-q"],
    mount: EXT4.mount,
};

/// A file system in a file, mounted. Declare it before the devices on it: it must go after their engines.
pub(crate) struct Image(PathBuf);

impl Image {
    /// Makes and mounts one at `path`, which is made. `None`, and said so, where that cannot be: only root can, and only
    /// with the programs and a kernel for it (`cargo xtask test` says what is missing).
    pub(crate) fn new(path: impl AsRef<Path>, make: Make) -> Option<Self> {
        let path = path.as_ref();
        let not_run = |why: &str| eprintln!("NOT RUN: {:?} for {}: {why}", make.mkfs, path.display());
        if !rustix::process::getuid().is_root() {
            not_run("mounting needs root");
            return None;
        }
        std::fs::create_dir_all(path).expect("make the mount point");
        let image = path.with_extension("image");
        let file = std::fs::File::create_new(&image).expect("make the image");
        file.set_len(IMAGE).expect("give it a size: nothing is written");
        let run = |args: &[&str], rest: &[&Path]| {
            let mut command = Command::new(args[0]);
            command.args(&args[1..]).args(rest).stdout(Stdio::null());
            command
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !run(make.mkfs, &[&image]) {
            not_run("it cannot be made on this machine");
            return None;
        }
        if !run(make.mount, &[&image, path]) {
            not_run("this kernel does not mount it");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    /// Changes a bit of a file's content on the disk below it: of the byte at `offset`, wherever that content is. Nobody has
    /// written to the file, and nothing says that anybody has.
    #[track_caller]
    pub(crate) fn rot(&self, file: &Path, offset: usize) {
        let content = std::fs::read(file).expect("read the file");
        let needle = &content[offset..(offset + 256).min(content.len())];
        let open = std::fs::File::open(file).expect("open the file");
        rustix::fs::syncfs(&open).expect("write everything back");
        let image = std::fs::File::options()
            .read(true)
            .write(true)
            .open(self.0.with_extension("image"))
            .expect("open the image");
        let places = find(&image, needle);
        assert!(!places.is_empty(), "{} is on the disk", file.display());
        // Also where it was before, and is nobody's any more.
        for place in places {
            image
                .write_all_at(&[needle[0] ^ 1], place)
                .expect("change a byte");
        }
        image.sync_all().expect("sync the image");
        // What is in memory is not what is on the disk any more.
        rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed).expect("forget it");
        let now = std::fs::read(file);
        assert!(
            now.is_err() || now.is_ok_and(|now| now != content),
            "it has changed"
        );
    }

    /// Another one with everything that is in it, down to the numbers of inodes and the times at which they were made.
    pub(crate) fn clone_to(&self, path: impl AsRef<Path>, make: Make) -> Self {
        let path = path.as_ref();
        std::fs::create_dir_all(path).expect("make the mount point");
        let (from, to) = (self.0.with_extension("image"), path.with_extension("image"));
        call("fsfreeze", &["--freeze", &self.0.to_string_lossy()]);
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([&from, &to])
            .status();
        call("fsfreeze", &["--unfreeze", &self.0.to_string_lossy()]);
        assert!(copied.is_ok_and(|status| status.success()), "cp of an image");
        let args: Vec<_> = make.mount[1..]
            .iter()
            .map(|arg| (*arg).into())
            .chain([to, path.to_owned()])
            .collect();
        let mounted = Command::new(make.mount[0]).args::<_, PathBuf>(args).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "the first was mounted too"
        );
        Self(path.to_owned())
    }
}

/// Where in what is written of a sparse file these bytes are.
fn find(image: &std::fs::File, needle: &[u8]) -> Vec<u64> {
    use rustix::fs::{SeekFrom, seek};
    let mut places = Vec::new();
    let mut end = 0;
    while let Ok(start) = seek(image, SeekFrom::Data(end)) {
        end = seek(image, SeekFrom::Hole(start)).expect("each extent ends");
        let mut bytes = vec![0; (end - start) as usize];
        image.read_exact_at(&mut bytes, start).expect("read the image");
        let last = bytes.len().saturating_sub(needle.len());
        let here = (0..=last).filter(|at| bytes[*at] == needle[0] && bytes[*at..].starts_with(needle));
        places.extend(here.map(|at| start + at as u64));
    }
    places
}

/// Bytes of a file system in a file: XFS makes no smaller ones than 300 MiB. Hardly any of it is ever written.
const IMAGE: u64 = 512 << 20;

impl Drop for Image {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Lazily: a process that is still ending must not keep it.
fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

#[track_caller]
fn call(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "{program} {args:?}: {status:?}"
    );
}
