//! The rules for a Rust file, checked on its text: first line, length, forbidden words. Never parses Rust:
//! it only tells code from comments and literals.

use super::Broken;

/// Longer is an error.
const MAX_LINES: usize = 600;
/// Longer is worth a note.
const GOOD_LINES: usize = 400;
/// Behind the one sleep of the test suite.
const SLEEP_MARKER: &str = "// tidy: the only sleep";

/// Nowhere, in any file.
const NEVER: &[&str] = &["#[ignore", "todo!(", "unimplemented!("];

/// What the code of `core` (not its tests) must not name below `std`: the world outside. A shorter path would
/// open the door to these.
const WORLD: &[&[&str]] = &[
    &["fs"],
    &["net"],
    &["thread"],
    &["env"],
    &["process"],
    &["time", "SystemTime"],
    &["time", "Instant"],
];

/// What was found in one file.
#[derive(Default)]
pub(super) struct Report {
    pub(super) broken: Vec<Broken>,
    pub(super) notes: Vec<String>,
    /// Where the tests' one sleep is, if it is here.
    pub(super) sleeps: Vec<String>,
}

/// Checks one file; `name` is its path from the workspace's root.
pub(super) fn check(name: &str, text: &str) -> Report {
    let mut report = Report::default();
    if !text.starts_with("//!") {
        report.broken.push(format!(
            "{name}:1: the first line says what the file owns: `//! …`"
        ));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        report
            .broken
            .push(format!("{name}: {lines} lines, at most {MAX_LINES}: split it"));
    } else if lines > GOOD_LINES {
        report.notes.push(format!(
            "{name}: {lines} lines, about {GOOD_LINES} is a good file"
        ));
    }
    let code = code_only(text);
    for (number, (line, raw)) in code.lines().zip(text.lines()).enumerate() {
        let place = format!("{name}:{}", number + 1);
        for word in NEVER.iter().filter(|word| line.contains(**word)) {
            report
                .broken
                .push(format!("{place}: `{word}` is not for this house"));
        }
        if name.starts_with("tests/") && line.contains("sleep(") {
            if raw.contains(SLEEP_MARKER) {
                report.sleeps.push(place);
            } else {
                report.broken.push(format!(
                    "{place}: tests do not sleep, they wait with `eventually`"
                ));
            }
        }
    }
    if name.starts_with("crates/core/src/") {
        report.broken.extend(worldly(name, &code));
    }
    report
}

/// Uses of the world outside in code that may know nothing of it.
fn worldly(name: &str, code: &str) -> Vec<Broken> {
    let tokens = tokens(code);
    let mut broken = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let is_path = tokens.get(at + 1).is_some_and(|(_, next)| *next == "::");
        if *token == "rand" && is_path {
            broken.push(format!("{name}:{line}: core draws no random numbers"));
        }
        if *token == "std" && is_path {
            let mut paths = Vec::new();
            let mut rest = tokens[at + 2..].iter().map(|(_, token)| *token).peekable();
            use_tree(&mut rest, &mut Vec::new(), &mut paths);
            for path in paths.iter().filter(|path| names_the_world(path)) {
                broken.push(format!(
                    "{name}:{line}: core does not know std::{}",
                    path.join("::")
                ));
            }
        }
    }
    broken
}

/// Does `path` lead into, or hold, something of the world? (`std::time` holds `Instant`, `Duration` does not.)
fn names_the_world(path: &[&str]) -> bool {
    let path = path
        .strip_suffix(&["*"])
        .or(path.strip_suffix(&["self"]))
        .unwrap_or(path);
    WORLD
        .iter()
        .any(|world| path.starts_with(world) || world.starts_with(path))
}

/// Collects the paths of `a::{b, c::d}` from behind `std::`.
fn use_tree<'a>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    prefix: &mut Vec<&'a str>,
    paths: &mut Vec<Vec<&'a str>>,
) {
    match tokens.next() {
        Some("{") => {
            while let Some(token) = tokens.peek() {
                match *token {
                    "}" => {
                        tokens.next();
                        break;
                    }
                    "," => {
                        tokens.next();
                    }
                    _ => {
                        use_tree(tokens, prefix, paths);
                        // Skip `as name`.
                        while tokens.peek().is_some_and(|t| !matches!(*t, "," | "}")) {
                            tokens.next();
                        }
                    }
                }
            }
        }
        Some(name) if name == "*" || is_word(name) => {
            prefix.push(name);
            if tokens.peek() == Some(&"::") {
                tokens.next();
                use_tree(tokens, prefix, paths);
            } else {
                paths.push(prefix.clone());
            }
            prefix.pop();
        }
        _ => paths.push(prefix.clone()),
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single other characters, each with its line number.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(rest) {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            all.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    all
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            'r' | 'b' | 'c' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => prefixed(rest),
            '\'' if is_char_literal(rest) => quoted(rest, '\''),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of a literal that starts with its quote and knows escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`, `b'…'`; 0 if it is only a word.
fn prefixed(text: &str) -> usize {
    let letters = text.len() - text.trim_start_matches(['r', 'b', 'c']).len();
    let after = &text[letters..];
    if letters > 2 {
        return 0;
    }
    if !text[..letters].contains('r') {
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        return quote.map_or(0, |quote| letters + quoted(after, quote));
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = letters + hashes + 1;
    text[inside..]
        .find(&end)
        .map_or(text.len(), |at| inside + at + end.len())
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char_literal(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    let first = chars.next();
    first == Some('\\') || chars.next() == Some('\'')
}

#[cfg(test)]
mod tests;
