//! Names that one device's file system takes for one another: both stay in the folder, one of them is there, and
//! `status` says which is not. Runs where something that folds case can be mounted.

use std::fs;

use crate::harness::*;

/// Directories in which case does not count, by preference. Debian's kernels have all of them.
const FOLDING: [Make; 3] = [
    Make {
        mkfs: &["mkfs.ext4", "-q", "-F", "-O", "casefold"],
        mount: &["mount", "-o", "loop"],
    },
    Make {
        mkfs: &["mkfs.vfat"],
        mount: &["mount", "-t", "vfat", "-o", "loop"],
    },
    Make {
        mkfs: &["mkfs.xfs", "-q", "-n", "version=ci"],
        mount: &["mount", "-o", "loop"],
    },
];

/// `desktop`'s folder is on a file system that folds case. `None`, and said so, where there is none to be had.
fn folding(lab: &Lab, make: Make) -> Option<(Image, Device, Device)> {
    let disk = Image::new(lab.path("disk"), make)?;
    let (a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    b.folder = lab.path("disk/docs");
    fs::create_dir(&b.folder).unwrap();
    fs::create_dir(&a.folder).unwrap();
    // Of ext4 each directory is one way or the other.
    let _ = std::process::Command::new("chattr")
        .arg("+F")
        .arg(&b.folder)
        .status();
    write(b.path("probe"), "");
    let folds = b.path("PROBE").exists();
    fs::remove_file(b.path("probe")).unwrap();
    if !folds {
        eprintln!("NOT RUN: {:?} folds no case here", make.mkfs);
        return None;
    }
    Some((disk, a, b))
}

/// On the first of them that this machine can mount.
fn on_any(test: impl FnOnce(Device, Device)) {
    let lab = Lab::new();
    for make in FOLDING {
        if let Some((_disk, a, b)) = folding(&lab, make) {
            return test(a, b);
        }
        let _ = fs::remove_file(lab.path("disk.image"));
        for device in ["laptop", "desktop"] {
            let _ = fs::remove_dir_all(lab.path(device));
        }
    }
    eprintln!("NOT RUN: no file system that folds case can be mounted");
}

#[test]
fn one_of_two_names_is_there_and_the_other_comes_when_it_can() {
    on_any(|mut a, mut b| {
        write(a.path("README"), "upper");
        write(a.path("readme"), "lower");
        write(a.path("other"), "o");
        a.start();
        b.start();
        pair(&a, &b);
        eventually("it is said", LONG, || {
            b.field("problems")
                .to_string()
                .contains("takes its name for that of")
        });
        a.wait_in_sync();
        b.wait_in_sync();
        assert_eq!(names(&b.folder), ["README", "other"]);
        assert_eq!(a.field("root"), b.field("root"));
        b.restart();
        write(b.path("README"), "edited there");
        eventually("edits go on", LONG, || text(a.path("README")) == "edited there");
        assert_eq!(text(a.path("readme")), "lower", "never an edit of the other");
        fs::rename(a.path("README"), a.path("elsewhere")).unwrap();
        assert_converged(&[&a, &b]);
        assert_eq!(names(&b.folder), ["elsewhere", "other", "readme"]);
        assert_eq!(b.field("problems").to_string(), "[]");
    });
}

#[test]
fn a_rename_of_case_alone_goes_both_ways() {
    on_any(|mut a, mut b| {
        write(a.path("file"), "f");
        write(a.path("dir/deep/file"), "d");
        a.start();
        b.start();
        pair(&a, &b);
        assert_converged(&[&a, &b]);
        for (from, to) in [("file", "FILE"), ("dir", "Dir")] {
            fs::rename(a.path(from), a.path(to)).unwrap();
        }
        assert_converged(&[&a, &b]);
        assert_eq!(names(&b.folder), ["Dir", "Dir/deep", "Dir/deep/file", "FILE"]);
        for (from, to) in [("FILE", "File"), ("Dir", "DIR")] {
            fs::rename(b.path(from), b.path(to)).unwrap();
        }
        eventually("it goes back", LONG, || {
            names(&a.folder) == ["DIR", "DIR/deep", "DIR/deep/file", "File"]
        });
        assert_converged(&[&a, &b]);
    });
}
