//! Everything that reaches the terminal: writing, escaping, colours, numbers. The only module that writes to
//! standard output and standard error; never asks the engine anything.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

pub(crate) use alike_sync::units::size;

/// The reader of our output has gone. Not a failure: `sync status | head -1` is fine.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for OutputClosed {}

/// Writes to standard output, at once.
pub(crate) fn out(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        done => done.context("cannot write to standard output"),
    }
}

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    out(format!("{text}\n"))
}

/// Writes JSON: indented for a person, one line for a program.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let to_text = if stdout_is_terminal() {
        serde_json::to_string_pretty
    } else {
        serde_json::to_string
    };
    line(&to_text(value).expect("answers are plain data"))
}

/// Writes JSON on one line, whoever reads it.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value).expect("answers are plain data"))
}

/// Says on standard error what went wrong.
pub(crate) fn error(message: &str) {
    note(&format!("sync: {}", escape_lines(message)));
}

/// Writes a line to standard error. If that is closed there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Is a person reading standard output?
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Is a person reading standard error?
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Columns of the terminal on standard output.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// A name as it may be shown: control characters, escape sequences, characters that change the direction of
/// the text and bytes that are not UTF-8 become visible and harmless.
pub(crate) fn escape(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for part in name.utf8_chunks() {
        for c in part.valid().chars() {
            escape_char(c, &mut shown);
        }
        for byte in part.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// As [`escape`], for text.
pub(crate) fn text(name: &str) -> String {
    escape(name.as_bytes())
}

/// As [`escape`], for a path.
pub(crate) fn path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// As [`escape`], for a message of several lines.
pub(crate) fn escape_lines(message: &str) -> String {
    message
        .trim_end()
        .split('\n')
        .map(text)
        .collect::<Vec<_>>()
        .join("\n")
}

/// As [`escape`], for a name as JSON: a string or `{"bytes":"hex"}`.
pub(crate) fn json_name(name: &Value) -> String {
    let bytes = || {
        let hex = name.get("bytes")?.as_str()?.as_bytes();
        let digits = hex
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        digits.collect::<Option<Vec<u8>>>()
    };
    match name {
        Value::String(name) => text(name),
        other => bytes().map_or_else(|| text(&other.to_string()), |bytes| escape(&bytes)),
    }
}

fn escape_char(c: char, shown: &mut String) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        '\0'..='\u{7f}' if c.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if c.is_control() || is_deceptive(c) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        c => shown.push(c),
    }
}

/// Marks that reorder, break or hide text. Joiners stay: names in many scripts need them.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours if `on`.
    pub(crate) fn new(on: bool) -> Paint {
        Paint { on }
    }

    /// Are there colours?
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The first digits of a root or an id: enough for a person to tell it from any other.
pub(crate) fn short(hex: &str) -> String {
    text(&hex.chars().take(12).collect::<String>())
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Says on stderr which paths have content that no connected device has; the exit code that this is.
pub(crate) fn missing(paths: &[serde_json::Value], what: &str) -> crate::Exit {
    const SHOWN: usize = 20;
    for path in paths.iter().take(SHOWN) {
        error(&format!(
            "{} {what}: its content is on no device that is connected now",
            json_name(path)
        ));
    }
    if paths.len() > SHOWN {
        error(&format!("… and {} more", paths.len() - SHOWN));
    }
    if paths.is_empty() {
        crate::Exit::Done
    } else {
        crate::Exit::Failed
    }
}

/// A number of things: `1 file`, `2 files`.
pub(crate) fn things(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A length of time, roughly: `45 s`, `12 min`, `3 h`, `5 days`.
pub(crate) fn span(time: Duration) -> String {
    match time.as_secs() {
        s if s < 100 => format!("{s} s"),
        s if s < 100 * 60 => format!("{} min", (s + 30) / 60),
        s if s < 48 * 3600 => format!("{} h", (s + 1800) / 3600),
        s => format!("{} days", (s + 43_200) / 86_400),
    }
}

/// A moment given in RFC 3339, seen from `now`: `in 3 h`, `5 min ago`; as it is if it cannot be read.
pub(crate) fn moment(rfc3339: &str, now: SystemTime) -> String {
    let Ok(at) = humantime::parse_rfc3339_weak(rfc3339) else {
        return text(rfc3339);
    };
    match at.duration_since(now) {
        Ok(ahead) => format!("in {}", span(ahead)),
        Err(behind) => format!("{} ago", span(behind.duration())),
    }
}

/// Rows in columns, two spaces between; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|row| row.get(c))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut shown = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        shown.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_act_on_the_terminal() {
        assert_eq!(text("plain ümlaut 日本 👩‍🚀"), "plain ümlaut 日本 👩‍🚀");
        assert_eq!(text("\x1b[2Jgone\x07\x7f"), "\\x1b[2Jgone\\x07\\x7f");
        assert_eq!(text("a\nb\tc\rd\0"), "a\\nb\\tc\\rd\\x00");
        assert_eq!(
            text("cod\u{202e}txt.exe\u{2066}\u{200f}\u{61c}"),
            "cod\\u{202e}txt.exe\\u{2066}\\u{200f}\\u{61c}"
        );
        assert_eq!(text("csi\u{9b}2J"), "csi\\u{9b}2J");
        assert_eq!(
            text("a\u{2028}b\u{feff}c\u{e0041}"),
            "a\\u{2028}b\\u{feff}c\\u{e0041}"
        );
        assert_eq!(escape(b"caf\xe9 \xff\xc3\xa9"), "caf\\xe9 \\xff\u{e9}");
        assert_eq!(escape_lines("one\x1b\ntwo\n"), "one\\x1b\ntwo");
    }

    #[test]
    fn names_in_json_are_shown_like_any_other() {
        assert_eq!(json_name(&Value::from("a\x1bb")), "a\\x1bb");
        assert_eq!(json_name(&serde_json::json!({ "bytes": "61ff0a" })), "a\\xff\\n");
        assert_eq!(
            json_name(&serde_json::json!({ "bytes": "6é" })),
            "{\"bytes\":\"6é\"}"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0, 999, 1000, 80123, 1234567].map(count).join(" "),
            "0 999 1,000 80,123 1,234,567"
        );
        let sizes = [
            0,
            1023,
            1024,
            1536,
            320 << 20,
            (1 << 20) - 1,
            (1 << 30) + (1 << 29),
            u64::MAX,
        ]
        .map(size);
        assert_eq!(
            sizes.join("|"),
            "0 B|1023 B|1.0 KiB|1.5 KiB|320 MiB|1.0 MiB|1.5 GiB|16.0 EiB"
        );
        let spans = [0, 99, 100, 5999, 6000, 172_799, 172_800].map(|s| span(Duration::from_secs(s)));
        assert_eq!(spans.join("|"), "0 s|99 s|2 min|100 min|2 h|48 h|2 days");
        assert_eq!(
            things(1, "file", "files") + " " + &things(1000, "file", "files"),
            "1 file 1,000 files"
        );
    }

    #[test]
    fn moments_are_seen_from_now() {
        let now = humantime::parse_rfc3339("2026-01-02T00:00:00Z").expect("valid");
        assert_eq!(moment("2026-01-02T00:00:30.5Z", now), "in 30 s");
        assert_eq!(moment("2026-01-01T23:00:00Z", now), "60 min ago");
        assert_eq!(moment("yesterday", now), "yesterday");
    }

    #[test]
    fn tables_line_up() {
        let rows = [
            vec!["a".into(), "long".into(), "x".into()],
            vec!["bcd".into(), "e".into(), String::new()],
        ];
        assert_eq!(table(&rows), "a    long  x\nbcd  e\n");
    }

    #[test]
    fn no_colour_means_no_escape_sequence() {
        assert_eq!(Paint::new(false).red("x"), "x");
        assert_eq!(Paint::new(true).red("x"), "\x1b[31mx\x1b[0m");
    }
}
