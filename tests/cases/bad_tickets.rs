//! Tickets that must not work: a clear message, exit code 1, and nothing changed on either side.

use std::time::{Duration, Instant};

use crate::harness::*;

/// `laptop` has made `ticket`; `desktop` must be refused with it.
#[track_caller]
fn refused(a: &Device, b: &Device, ticket: &str, says: &[&str]) {
    let peers = |device: &Device| {
        let peers = device.field("peers");
        peers
            .as_array()
            .expect("a list")
            .iter()
            .map(|p| p["id"].clone())
            .collect::<Vec<_>>()
    };
    let before = (snapshot(&a.folder), peers(a));
    b.fails(b.pair_args(ticket), 1, says);
    assert!(
        !b.folder.exists(),
        "nothing was made for a ticket that does not work"
    );
    assert_eq!(b.status()["folders"], serde_json::json!([]));
    assert_eq!((snapshot(&a.folder), peers(a)), before);
}

fn sharing() -> (Lab, Device, Device) {
    let lab = Lab::new();
    let (a, b) = (lab.running("laptop"), lab.running("desktop"));
    write(a.path("file"), "x");
    (lab, a, b)
}

#[test]
fn a_mangled_ticket_is_refused() {
    let (_lab, a, b) = sharing();
    let ticket = a.share();
    let mut flipped: Vec<char> = ticket.chars().collect();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == 'a' { 'b' } else { 'a' };
    let flipped: String = flipped.into_iter().collect();
    let cut = &ticket[..ticket.len() - 7];
    for bad in ["garbage", flipped.as_str(), cut] {
        refused(&a, &b, bad, &["ticket"]);
    }
    // The real one was not spent by that.
    b.ok(b.pair_args(&ticket));
    assert_converged(&[&a, &b]);
}

#[test]
fn a_used_ticket_is_refused() {
    let (lab, a, b) = sharing();
    let ticket = a.share();
    b.ok(b.pair_args(&ticket));
    assert_converged(&[&a, &b]);
    let thief = lab.running("thief");
    refused(&a, &thief, &ticket, &["ticket", "used"]);
}

#[test]
fn an_expired_ticket_is_refused() {
    let (_lab, a, b) = sharing();
    let made = Instant::now();
    let ticket = a.share_with(&["--expires", "1s"]);
    eventually("a second has gone by", LONG, || {
        made.elapsed() > Duration::from_millis(2100)
    });
    refused(&a, &b, &ticket, &["ticket", "expired"]);
}

#[test]
fn a_revoked_ticket_is_refused() {
    let (_lab, a, b) = sharing();
    let ticket = a.share();
    let listed = a.ok(["tickets"]);
    let is_id = |word: &&str| word.len() >= 6 && word.chars().all(|c| c.is_ascii_hexdigit());
    let id = listed
        .split_whitespace()
        .find(is_id)
        .unwrap_or_else(|| panic!("no id in: {listed}"));
    a.ok(["revoke", id]);
    assert!(!a.ok(["tickets"]).contains(id), "a revoked ticket is not listed");
    refused(&a, &b, &ticket, &["ticket", "revoked"]);
}

#[test]
fn a_ticket_of_an_engine_that_does_not_run_is_refused_in_time() {
    let (_lab, mut a, b) = sharing();
    let ticket = a.share();
    a.stop();
    b.fails(b.pair_args(&ticket), 1, &[]);
    assert!(!b.folder.exists());
    // And it is not spent.
    a.start();
    b.ok(b.pair_args(&ticket));
    assert_converged(&[&a, &b]);
}

#[test]
fn revoking_what_is_no_ticket_fails() {
    let (_lab, a, _b) = sharing();
    a.share();
    a.fails(["revoke", "no-such-ticket"], 1, &["no-such-ticket"]);
}
