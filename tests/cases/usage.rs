//! What the command says when it is called wrongly, or when no engine runs. Never starts a sync.

use crate::harness::*;

#[test]
fn wrong_usage_exits_with_2() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    for args in [
        &["frobnicate"][..],
        &["share"],
        &["pair"],
        &["hash"],
        &["unpair"],
        &["revoke"],
        &["status", "--no-such-option"],
        &["wait", "--timeout", "soon"],
        &["share", ".", "--expires", "never ever"],
        &["share", ".", "--uses", "some"],
    ] {
        let out = device.cmd(args);
        assert_eq!(out.code, 2, "sync {args:?}: {}{}", out.stdout, out.stderr);
        assert!(!out.stderr.trim().is_empty(), "sync {args:?} says what is wrong");
    }
    assert!(!device.home.exists(), "wrong usage makes no state directory");
}

#[test]
fn help_and_version_exit_with_0() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    let help = device.ok(["--help"]);
    for verb in [
        "share", "pair", "watch", "stop", "status", "wait", "hash", "unpair", "forget",
    ] {
        assert!(help.contains(verb), "`{verb}` is in the help: {help}");
    }
    assert!(device.ok(["--version"]).contains(char::is_numeric));
}

#[test]
fn without_an_engine_commands_say_so() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    write(device.path("file"), "x");
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["wait"],
        &["devices"],
        &["tickets"],
        &["pause"],
        &["resume"],
        &["stop"],
        &["unpair", "desktop"],
        &["forget", "docs"],
    ] {
        device.fails(args, 1, &["engine"]);
    }
    // Not started in the background, as ALIKE_NO_AUTOSTART=1 asks.
    device.fails(["share", "docs"], 1, &["engine"]);
    device.fails(["pair", "ticket", "docs"], 1, &[]);
    device.fails(["status"], 1, &["engine"]);
}

#[test]
fn hash_of_what_is_no_directory_fails_naming_it() {
    let lab = Lab::new();
    let device = lab.device("laptop");
    device.fails(["hash", "no/such/dir"], 1, &["no/such/dir"]);
}

#[test]
fn naming_what_does_not_exist_fails_naming_it() {
    let lab = Lab::new();
    let device = lab.running("laptop");
    write(device.path("file"), "x");
    device.share();
    for args in [
        &["unpair", "nobody-here"][..],
        &["forget", "nobody-here"],
        &["wait", "nobody-here", "--timeout", "1s"],
    ] {
        device.fails(args, 1, &["nobody-here"]);
    }
    eventually("the folder is idle", LONG, || device.field("state") == "idle");
}
