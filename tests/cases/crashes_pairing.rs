//! An engine ends by SIGKILL at each point of pairing, on either side. Whoever tries again gets through with the
//! same ticket, and nothing is there twice: no folder, no device, no file.

use std::process::Stdio;

use crate::harness::*;

/// The tests that share the points between them.
const SHARES: usize = 2;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Of the ticket.
    Maker,
    /// Of the ticket.
    Holder,
}

/// Whose way leads past a point.
fn roles(point: &str) -> &'static [Role] {
    match point {
        "pair.stored" => &[Role::Maker, Role::Holder],
        "pair.ticket" | "pair.ticket.stored" | "pair.asked" | "pair.judged" | "pair.replied" => {
            &[Role::Maker]
        }
        "pair.dialled" | "pair.proof" | "pair.proof.sent" | "pair.reply" | "pair.tracked" => &[Role::Holder],
        _ if point.starts_with("track.") => &[Role::Maker, Role::Holder],
        _ => &[],
    }
}

/// One pairing with a crash in it.
fn pair_with_crash(point: &str, role: Role) {
    eprintln!("{point}: the ticket's {role:?} dies");
    let lab = Lab::new();
    let (mut maker, mut holder) = (lab.fallible("laptop"), lab.fallible("desktop"));
    write(maker.path("from the maker"), "1");
    write(maker.path("on both"), "the same");
    write(holder.path("from the holder"), "2");
    write(holder.path("on both"), "the same");
    let before = [inodes(&maker.folder), inodes(&holder.folder)];
    let kill = format!("{point}=kill");
    let shares = role == Role::Maker && (point.starts_with("track.") || point.starts_with("pair.ticket"));
    let mut ticket = None;
    if role == Role::Maker {
        maker.launch(&kill);
        eventually("the engine answers", LONG, || maker.cmd(["status"]).code == 0);
    } else {
        maker.start();
    }
    if shares {
        let args = [std::ffi::OsStr::new("share"), maker.folder.as_os_str()];
        assert_ne!(maker.cmd(args).code, 0, "{point}: a share that was cut off");
    } else {
        ticket = Some(maker.share());
    }
    if role == Role::Holder {
        holder.launch(&kill);
        eventually("the engine answers", LONG, || holder.cmd(["status"]).code == 0);
    } else {
        holder.start();
    }
    let victim_falls = |victim: &mut Device| {
        eventually(&format!("{point}: the engine falls"), LONG, || victim.fell());
        victim.start();
    };
    if let Some(ticket) = &ticket {
        let mut asked = holder.command(holder.pair_args(ticket));
        let mut asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match role {
            Role::Maker => victim_falls(&mut maker),
            Role::Holder => victim_falls(&mut holder),
        }
        // Whoever waits for the answer of a maker that is gone does so for a while; a person would give up, too.
        asked.kill().unwrap();
        asked.wait().unwrap();
    } else {
        victim_falls(&mut maker);
    }
    let ticket = ticket.unwrap_or_else(|| maker.share());
    holder.ok(holder.pair_args(&ticket));

    assert_converged(&[&maker, &holder]);
    assert_eq!(
        names(&maker.folder),
        ["from the holder", "from the maker", "on both"],
        "{point}"
    );
    for (device, before) in [&maker, &holder].into_iter().zip(before) {
        let after = inodes(&device.folder);
        let untouched = before.iter().all(|(path, inode)| after[path] == *inode);
        assert!(
            untouched,
            "{point}: files were written anew on the {}",
            device.name
        );
        let status = device.folder_status();
        assert_eq!(status["conflicts"], 0);
        assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "{status:#}");
    }
}

fn share(share: usize) {
    let points = fail_points();
    let cases = points
        .iter()
        .flat_map(|point| roles(point).iter().map(move |role| (point, *role)));
    for (_, (point, role)) in cases.enumerate().filter(|(n, _)| n % SHARES == share) {
        pair_with_crash(point, role);
    }
}

#[test]
fn killed_at_each_point_of_pairing_share_0() {
    share(0);
}

#[test]
fn killed_at_each_point_of_pairing_share_1() {
    share(1);
}

#[test]
fn each_point_of_pairing_is_gone_through() {
    for point in fail_points() {
        let is_ours = point.starts_with("pair.") || point.starts_with("track.");
        assert_eq!(is_ours, !roles(&point).is_empty(), "{point}");
    }
}

/// A ticket that was used up lets in nobody but the device that used it.
#[test]
fn a_used_ticket_works_again_for_its_user_alone() {
    let lab = Lab::new();
    let (maker, holder, other) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("tablet"),
    );
    write(maker.path("file"), "x");
    let ticket = maker.share();
    holder.ok(holder.pair_args(&ticket));
    holder.ok(holder.pair_args(&ticket));
    other.fails(other.pair_args(&ticket), 1, &["ticket"]);
    assert_converged(&[&maker, &holder]);
    assert_eq!(maker.field("peers").as_array().map(Vec::len), Some(1));
}

/// What a device may do is not widened by a used ticket of somebody else.
#[test]
fn a_used_ticket_of_another_device_gives_no_more_rights() {
    let lab = Lab::new();
    let (maker, writer, reader) = (
        lab.running("laptop"),
        lab.running("desktop"),
        lab.running("tablet"),
    );
    write(maker.path("file"), "x");
    let wide = maker.share();
    let narrow = maker.share_with(&["--read-only"]);
    writer.ok(writer.pair_args(&wide));
    reader.ok(reader.pair_args(&narrow));
    reader.ok(reader.pair_args(&wide));
    assert_converged(&[&maker, &reader]);
    let status = maker.folder_status();
    let peers = status["peers"].as_array().expect("a list");
    let tablet = peers
        .iter()
        .find(|peer| peer["name"] == "tablet")
        .expect("paired");
    assert_eq!(tablet["access"], "read-only");
}
