//! Being first on PATH breaks no script that means the `sync` of coreutils.

use std::os::unix::fs::symlink;

use crate::harness::*;

#[test]
fn no_arguments_do_what_coreutils_does() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    assert_eq!(device.ok([""; 0]), "");
    assert!(!device.home.exists(), "no state directory for that");
}

#[test]
fn existing_files_and_its_own_options_do_what_coreutils_does() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    write(device.corner.join("a file"), "x");
    write(device.corner.join("another"), "y");
    for args in [
        &["a file"][..],
        &["a file", "another"],
        &["-d", "a file"],
        &["--data", "a file"],
        &["-f", "a file"],
        &["--file-system", "a file"],
        &["."],
    ] {
        assert_eq!(device.ok(args), "", "sync {args:?} prints nothing");
    }
}

#[test]
fn what_is_neither_a_file_nor_a_subcommand_is_wrong_usage() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    device.fails(["/nonexistent-file-or-verb"], 2, &["/nonexistent-file-or-verb"]);
}

#[test]
fn a_file_named_as_a_subcommand_does_not_shadow_it() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    for verb in ["share", "status"] {
        write(device.corner.join(verb), "a file of this name");
    }
    device.fails(["share"], 2, &[]);
    device.fails(["status"], 1, &["engine"]);
    // Named as a path it is a file.
    assert_eq!(device.ok(["./share"]), "");
}

#[test]
fn first_on_path_it_does_not_call_itself_for_ever() {
    let lab = Lab::new();
    let mut device = lab.device("laptop");
    let bin = lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(device.command([""; 0]).get_program(), bin.join("sync")).unwrap();
    let mut path = bin.clone().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    device.set_env("PATH", path);
    write(device.corner.join("a file"), "x");
    device.ok([""; 0]);
    device.ok(["a file"]);
    // And when there is no other.
    device.set_env("PATH", bin);
    device.ok([""; 0]);
    device.ok(["a file"]);
}
