//! `sync status`: folders, peers, transfers and problems, for a person or as JSON (a contract). Never computes a
//! state: the engine's report is the truth.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use alike_sync::control::{self, Request};
use alike_sync::status::{FolderState, FolderStatus, PeerStatus, Pending, StatusReport};

use crate::Exit;
use crate::args::Status;
use crate::context::Context;
use crate::render::{self, Paint};

/// A rate needs two looks at least this far apart.
const RATE_STEP: Duration = Duration::from_millis(800);

/// Clears what is below the top left corner of the terminal, and goes there.
const REDRAW: &str = "\x1b[H\x1b[J";

pub(crate) fn run(context: &Context, args: &Status) -> anyhow::Result<Exit> {
    match (args.watch, args.json) {
        (false, true) => render::json(&control::status(&context.home)?)?,
        (false, false) => once(context)?,
        (true, json) => watch(context, json)?,
    }
    Ok(Exit::Done)
}

fn once(context: &Context) -> anyhow::Result<()> {
    let mut rates = Rates::default();
    let mut report = control::status(&context.home)?;
    rates.look(&report, Instant::now());
    if transfers(&report).any(|(_, left)| left != Pending::default()) {
        std::thread::sleep(RATE_STEP);
        report = control::status(&context.home)?;
        rates.look(&report, Instant::now());
    }
    render::out(layout(&report, &rates, SystemTime::now(), context.paint()))
}

fn watch(context: &Context, json: bool) -> anyhow::Result<()> {
    let (mut rates, paint, redraw) = (Rates::default(), context.paint(), render::stdout_is_terminal());
    let mut shown = Ok(());
    control::call(&context.home, &Request::WatchStatus, |value| {
        let Ok(report) = serde_json::from_value::<StatusReport>(value) else {
            return true;
        };
        rates.look(&report, Instant::now());
        shown = if json {
            render::json_line(&report)
        } else {
            let text = layout(&report, &rates, SystemTime::now(), paint);
            render::out(if redraw {
                format!("{REDRAW}{text}")
            } else {
                format!("{text}\n")
            })
        };
        shown.is_ok()
    })?;
    shown
}

/// How fast each transfer goes, from the reports seen.
#[derive(Default)]
struct Rates {
    seen: HashMap<String, Seen>,
}

struct Seen {
    at: Instant,
    bytes: u64,
    per_second: Option<f64>,
}

impl Rates {
    fn look(&mut self, report: &StatusReport, now: Instant) {
        for (key, left) in transfers(report) {
            let bytes = left.bytes;
            let seen = self.seen.entry(key).or_insert(Seen {
                at: now,
                bytes,
                per_second: None,
            });
            let passed = now - seen.at;
            // More than before: something new came up, measure afresh.
            if bytes > seen.bytes || bytes == 0 {
                *seen = Seen {
                    at: now,
                    bytes,
                    per_second: seen.per_second.filter(|_| bytes > 0),
                };
            } else if passed >= RATE_STEP {
                let fresh = (seen.bytes - bytes) as f64 / passed.as_secs_f64();
                let smooth = seen.per_second.map_or(fresh, |old| 0.6 * old + 0.4 * fresh);
                *seen = Seen {
                    at: now,
                    bytes,
                    per_second: Some(smooth),
                };
            }
        }
    }

    /// `12 files, 3.4 MiB left, 1.2 MiB/s, ETA 3 s`
    fn describe(&self, key: &str, left: Pending) -> String {
        let mut text = format!(
            "{}, {} left",
            render::things(left.files, "file", "files"),
            render::size(left.bytes)
        );
        let rate = self
            .seen
            .get(key)
            .and_then(|seen| seen.per_second)
            .filter(|rate| *rate >= 1.0);
        if let Some(rate) = rate {
            let eta = Duration::from_secs_f64((left.bytes as f64 / rate).min(1e9));
            text.push_str(&format!(
                ", {}/s, ETA {}",
                render::size(rate as u64),
                render::span(eta)
            ));
        }
        text
    }
}

/// Everything that moves, by a key that stays: each folder here, and on each of its peers.
fn transfers(report: &StatusReport) -> impl Iterator<Item = (String, Pending)> {
    report.folders.iter().flat_map(|folder| {
        let peers = folder
            .peers
            .iter()
            .map(|peer| (peer_key(folder, peer), peer.pending));
        std::iter::once((folder.id.clone(), folder.pending)).chain(peers)
    })
}

fn peer_key(folder: &FolderStatus, peer: &PeerStatus) -> String {
    format!("{}/{}", folder.id, peer.id)
}

/// The word for a state, as in the JSON.
pub(super) fn state_word(state: FolderState) -> &'static str {
    match state {
        FolderState::Idle => "idle",
        FolderState::Scanning => "scanning",
        FolderState::Syncing => "syncing",
        FolderState::Paused => "paused",
        FolderState::Held => "held",
        FolderState::Frozen => "frozen",
        FolderState::Error => "error",
    }
}

/// The report as a person reads it.
fn layout(report: &StatusReport, rates: &Rates, now: SystemTime, paint: Paint) -> String {
    let device = &report.device;
    let mut shown = format!(
        "{}  {}\n",
        paint.bold(&render::text(&device.name)),
        paint.dim(&format!(
            "{}  alike {}",
            render::short(&device.id),
            render::text(&report.version)
        )),
    );
    if let Some(last) = &report.scrub.last_round {
        let line = format!(
            "everything was last read again and compared {}",
            render::moment(last, now)
        );
        shown.push_str(&format!("{}\n", paint.dim(&line)));
    }
    if report.folders.is_empty() {
        shown.push_str("\nno folders yet: `sync share DIR` shares one, `sync pair TICKET` joins one\n");
    }
    for folder in &report.folders {
        shown.push('\n');
        shown.push_str(&folder_layout(folder, rates, now, paint));
    }
    shown
}

fn folder_layout(folder: &FolderStatus, rates: &Rates, now: SystemTime, paint: Paint) -> String {
    let name = paint.bold(&render::text(&folder.name));
    let mut lines = vec![format!(
        "{name}  {}  {}",
        state(folder, paint),
        render::json_name(&folder.path)
    )];
    lines.push(format!(
        "  {}, {}, {}; generation {}, root {}",
        render::things(folder.files, "file", "files"),
        render::things(folder.dirs, "directory", "directories"),
        render::size(folder.bytes),
        folder.generation,
        render::short(&folder.root),
    ));
    if folder.pending != Pending::default() {
        lines.push(format!(
            "  to fetch: {}",
            rates.describe(&folder.id, folder.pending)
        ));
    }
    if folder.received_bytes + folder.sent_bytes > 0 {
        let (received, sent) = (
            render::size(folder.received_bytes),
            render::size(folder.sent_bytes),
        );
        lines.push(format!(
            "  received {received}, sent {sent} since the engine started"
        ));
    }
    if folder.history_bytes > 0 {
        lines.push(format!(
            "  {} of earlier versions are kept in .alike/objects",
            render::size(folder.history_bytes)
        ));
    }
    if !folder.watching && folder.state != FolderState::Paused {
        lines.push(format!(
            "  {}",
            paint.yellow("changes are found by periodic scans only")
        ));
    }
    if folder.conflicts > 0 {
        let copies = render::things(folder.conflicts, "conflict copy", "conflict copies");
        lines.push(format!(
            "  {} (`sync conflicts` lists them)",
            paint.yellow(&copies)
        ));
    }
    if folder.peers.is_empty() {
        lines.push("  no peers yet: `sync share` makes a ticket for one".into());
    }
    lines.extend(
        folder
            .peers
            .iter()
            .map(|peer| peer_line(folder, peer, rates, now, paint)),
    );
    for problem in &folder.problems {
        let (path, reason) = (render::json_name(&problem.path), render::text(&problem.reason));
        let path = if path.is_empty() {
            path
        } else {
            format!("{path}: ")
        };
        lines.push(format!("  {} {path}{reason}", paint.red("problem:")));
        if !problem.hint.is_empty() {
            lines.push(format!("    {}", render::text(&problem.hint)));
        }
    }
    lines.join("\n") + "\n"
}

fn state(folder: &FolderStatus, paint: Paint) -> String {
    let word = state_word(folder.state);
    match folder.state {
        FolderState::Idle => paint.green(word),
        FolderState::Scanning | FolderState::Syncing | FolderState::Paused => paint.yellow(word),
        FolderState::Held | FolderState::Frozen | FolderState::Error => paint.red(word),
    }
}

fn peer_line(
    folder: &FolderStatus,
    peer: &PeerStatus,
    rates: &Rates,
    now: SystemTime,
    paint: Paint,
) -> String {
    let mut facts = Vec::new();
    if peer.connected {
        let rtt = peer.rtt_ms.map_or(String::new(), |ms| format!(" {ms:.1} ms"));
        facts.push(format!("connected, {}{rtt}", render::text(&peer.path)));
    } else {
        facts.push(match &peer.last_seen {
            Some(seen) => format!("not connected, seen {}", render::moment(seen, now)),
            None => "never connected".into(),
        });
    }
    if peer.pending != Pending::default() {
        facts.push(rates.describe(&peer_key(folder, peer), peer.pending));
    } else if peer.in_sync {
        facts.push(paint.green("in sync"));
    } else {
        facts.push(paint.yellow("not in sync"));
    }
    if peer.access != "read-write" {
        facts.push(render::text(&peer.access));
    }
    format!("  {}: {}", render::text(&peer.name), facts.join("; "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with one folder, one peer and one problem.
    pub(in crate::cmd) fn report() -> StatusReport {
        let json = serde_json::json!({
            "version": "0.1.0", "device": { "id": "aa".repeat(32), "name": "laptop" },
            "folders": [{
                "id": "f1", "name": "docs", "path": { "bytes": "2fff" }, "state": "syncing",
                "root": "1a2b3c4d5e6f7a8b", "generation": 12, "files": 80123, "dirs": 1, "bytes": 1536,
                "received_bytes": 1024, "sent_bytes": 0,
                "pending": { "files": 2, "bytes": 2048 }, "conflicts": 1, "watching": true,
                "problems": [{ "path": "a\u{1b}b", "reason": "no access", "hint": "chmod it" }],
                "peers": [{
                    "id": "d1", "name": "desktop", "connected": true, "in_sync": false, "root": "", "path": "direct",
                    "rtt_ms": 0.42, "access": "read-only", "pending": { "files": 0, "bytes": 0 }, "last_seen": null
                }]
            }]
        });
        serde_json::from_value(json).expect("the contract's shape")
    }

    fn show(report: &StatusReport, rates: &Rates) -> String {
        layout(report, rates, SystemTime::UNIX_EPOCH, Paint::new(false))
    }

    #[test]
    fn a_person_sees_everything_that_matters() {
        let shown = show(&report(), &Rates::default());
        let wanted = "\
laptop  aaaaaaaaaaaa  alike 0.1.0

docs  syncing  /\\xff
  80,123 files, 1 directory, 1.5 KiB; generation 12, root 1a2b3c4d5e6f
  to fetch: 2 files, 2.0 KiB left
  received 1.0 KiB, sent 0 B since the engine started
  1 conflict copy (`sync conflicts` lists them)
  desktop: connected, direct 0.4 ms; not in sync; read-only
  problem: a\\x1bb: no access
    chmod it
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn rates_come_from_two_looks() {
        let (mut report, mut rates, start) = (report(), Rates::default(), Instant::now());
        report.folders[0].pending.bytes = 10 * 1024 * 1024;
        rates.look(&report, start);
        report.folders[0].pending.bytes = 8 * 1024 * 1024;
        rates.look(&report, start + Duration::from_millis(100));
        assert!(!show(&report, &rates).contains("/s"), "too soon to tell");
        rates.look(&report, start + Duration::from_secs(2));
        assert!(show(&report, &rates).contains("2 files, 8.0 MiB left, 1.0 MiB/s, ETA 8 s"));
        report.folders[0].pending = Pending::default();
        rates.look(&report, start + Duration::from_secs(3));
        assert!(rates.seen["f1"].per_second.is_none());
    }

    #[test]
    fn json_keeps_the_contracts_order() {
        let text = serde_json::to_string(&report()).expect("plain data");
        let keys = [
            "\"version\"",
            "\"device\"",
            "\"folders\"",
            "\"generation\"",
            "\"pending\"",
            "\"peers\"",
        ];
        let places: Vec<_> = keys.iter().map(|key| text.find(key).expect("there")).collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn nothing_yet_says_what_to_do() {
        let mut report = report();
        report.folders.clear();
        assert!(show(&report, &Rates::default()).contains("sync share DIR"));
    }
}
