//! The place of one test: a temporary directory, its devices, and how they come together.
//! Limits how many tests run at once; never shares a port or a path between two.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use super::device::Device;
use super::poll::{LONG, eventually};
use super::tree::{assert_same_tree, set_mode};

/// Each test runs two or three engines: more of them at once only measure the machine.
const MAX_LABS: usize = 4;

static LABS: Mutex<usize> = Mutex::new(0);
static LAB_FREE: Condvar = Condvar::new();

/// The place of one test. Declare it before its devices: it must go last.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// An empty place, when there is room for one more.
    pub(crate) fn new() -> Self {
        let mut labs = LABS.lock().unwrap_or_else(PoisonError::into_inner);
        while *labs >= MAX_LABS {
            labs = LAB_FREE.wait(labs).unwrap_or_else(PoisonError::into_inner);
        }
        *labs += 1;
        drop(labs);
        let dir = tempfile::Builder::new()
            .prefix("alike-test-")
            .tempdir()
            .expect("a temporary directory");
        set_mode(dir.path(), 0o755);
        Self { dir }
    }

    /// A path in this place that belongs to no device.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// A device; its engine is not started.
    pub(crate) fn device(&self, name: &str) -> Device {
        Device::new(name, self.corner(name), sync_binary(), false)
    }

    /// A device whose corner is at `corner` in this place; what is there stays.
    pub(crate) fn device_at(&self, name: &str, corner: &str) -> Device {
        let corner = self.path(corner);
        std::fs::create_dir_all(&corner).expect("make the corner");
        Device::new(
            name,
            corner.canonicalize().expect("just made"),
            sync_binary(),
            false,
        )
    }

    /// A device with its engine started.
    pub(crate) fn running(&self, name: &str) -> Device {
        let mut device = self.device(name);
        device.start();
        device
    }

    /// A device whose engine can be made to fail at named points; not started.
    pub(crate) fn fallible(&self, name: &str) -> Device {
        Device::new(name, self.corner(name), fail_binary(), false)
    }

    /// A device that permissions bind, also when root runs the tests.
    pub(crate) fn unprivileged(&self, name: &str) -> Device {
        if !rustix::process::getuid().is_root() {
            return self.device(name);
        }
        // The build directory may be closed to others: give them a way to the binary.
        let bin = self.path("sync");
        if !bin.exists() && std::fs::hard_link(sync_binary(), &bin).is_err() {
            std::fs::copy(sync_binary(), &bin).expect("copy the binary");
        }
        Device::new(name, self.corner(name), bin, true)
    }

    fn corner(&self, name: &str) -> PathBuf {
        let corner = self.path(name);
        std::fs::create_dir(&corner).expect("each device has its own name");
        // Paths in messages are compared: what /tmp may point to must not matter.
        corner.canonicalize().expect("just made")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        *LABS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LAB_FREE.notify_one();
    }
}

/// `laptop` shares what `fill` makes, `desktop` pairs; returned when both have it.
#[track_caller]
pub(crate) fn paired(fill: impl FnOnce(&Path)) -> (Lab, Device, Device) {
    let (lab, a, b) = paired_in_part(fill);
    assert_same_tree(&a.folder, &b.folder);
    (lab, a, b)
}

/// The same where something is to be on the laptop only.
#[track_caller]
pub(crate) fn paired_in_part(fill: impl FnOnce(&Path)) -> (Lab, Device, Device) {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    let mut b = lab.device("desktop");
    std::fs::create_dir(&a.folder).expect("make the folder");
    fill(&a.folder);
    a.start();
    b.start();
    pair(&a, &b);
    settle(&[&a, &b]);
    (lab, a, b)
}

/// `a` shares its folder, `b` pairs its own with it.
#[track_caller]
pub(crate) fn pair(a: &Device, b: &Device) {
    let ticket = a.share();
    b.ok(b.pair_args(&ticket));
}

/// Returns when all of `devices` have seen their own disks and agree.
#[track_caller]
pub(crate) fn settle(devices: &[&Device]) {
    for device in devices {
        device.wait_in_sync();
    }
    // `sync wait` speaks of direct peers; in a line of three the ends are further apart.
    eventually("all devices have the same root", LONG, || {
        let mut roots = devices.iter().map(|d| d.field("root"));
        let first = roots.next().expect("at least one device");
        roots.all(|root| root == first)
    });
}

/// `settle`, then all folders must be equal.
#[track_caller]
pub(crate) fn assert_converged(devices: &[&Device]) {
    settle(devices);
    for other in &devices[1..] {
        assert_same_tree(&devices[0].folder, &other.folder);
    }
}

/// The binary under test: `ALIKE_TEST_BIN`, or the one built beside this test's own executable.
pub(crate) fn sync_binary() -> PathBuf {
    binary("ALIKE_TEST_BIN", "sync")
}

/// The same with fail points: `ALIKE_TEST_FAIL_BIN`, or where `cargo xtask test` puts it.
pub(crate) fn fail_binary() -> PathBuf {
    binary("ALIKE_TEST_FAIL_BIN", "sync-failpoints")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().expect("the test knows its own path");
            let profile = own
                .parent()
                .and_then(Path::parent)
                .expect("<target>/<profile>/deps/<test>");
            profile.join(name)
        }
    };
    assert!(
        path.is_file(),
        "no `{name}` binary at {}: run `cargo xtask test`, or set {variable} to the absolute path of one",
        path.display()
    );
    path
}
