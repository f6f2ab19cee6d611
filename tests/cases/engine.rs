//! The engine as a process: one to a state directory, ended by SIGTERM or `sync stop`, started when needed.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

use crate::harness::*;

#[test]
fn a_state_directory_has_one_engine() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    a.fails(["watch"], 1, &[&a.home.to_string_lossy()]);
    a.ok(["status"]);
}

#[test]
fn a_port_in_use_is_named() {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    a.set_env("ALIKE_BIND", format!("127.0.0.1:{port}"));
    a.fails(["watch"], 1, &[&port]);
}

#[test]
fn watch_tracks_the_directory_it_is_given() {
    let lab = Lab::new();
    let mut a = lab.device("laptop");
    write(a.path("file"), "x");
    a.start_with(&["watch", "docs"]);
    eventually("the folder is scanned", LONG, || {
        a.status()["folders"].as_array().is_some_and(|f| f.len() == 1) && a.field("files") == 1
    });
    assert_eq!(a.field("path"), a.folder.to_str().expect("test paths are UTF-8"));
}

#[test]
fn the_state_directory_is_closed_to_others() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    let mode = std::fs::metadata(&a.home).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

#[test]
fn an_open_state_directory_is_refused() {
    let lab = Lab::new();
    let mut a = lab.running("laptop");
    a.stop();
    set_mode(&a.home, 0o755);
    a.fails(["watch"], 1, &[&a.home.to_string_lossy()]);
    set_mode(&a.home, 0o700);
    a.start();
}

#[test]
fn sigterm_ends_an_engine_in_the_middle_of_a_first_sync() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.running("laptop"), lab.running("desktop"));
    for n in 0..2000 {
        write(a.path(format!("{}/{n}", n % 50)), format!("file {n}"));
    }
    write(a.path("large"), noise("sigterm", 16 << 20));
    pair(&a, &b);
    b.stop();
    b.start();
    a.stop();
    a.start();
    assert_converged(&[&a, &b]);
    assert_eq!(a.field("conflicts"), 0);
}

#[test]
fn stop_ends_an_engine_in_the_foreground_too() {
    let lab = Lab::new();
    let a = lab.running("laptop");
    a.ok(["stop"]);
    a.fails(["status"], 1, &["engine"]);
}

#[test]
fn engines_start_by_themselves_and_stop_when_told() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.device("laptop"), lab.device("desktop"));
    for device in [&mut a, &mut b] {
        device.set_env("ALIKE_NO_AUTOSTART", "");
    }
    write(a.path("file"), "by engines in the background");
    pair(&a, &b);
    assert_converged(&[&a, &b]);
    for device in [&a, &b] {
        device.ok(["stop"]);
        device.fails(["status"], 1, &["engine"]);
    }
    // The next one finds everything as it was.
    a.share();
    b.share();
    write(b.path("file"), "and again");
    assert_converged(&[&b, &a]);
}

#[test]
fn the_identity_survives_restarts() {
    let (_lab, mut a, b) = paired(|dir| write(dir.join("file"), "x"));
    let before = (a.status()["device"].clone(), a.field("id"), a.field("root"));
    a.restart();
    settle(&[&a, &b]);
    assert_eq!(
        (a.status()["device"].clone(), a.field("id"), a.field("root")),
        before
    );
}
