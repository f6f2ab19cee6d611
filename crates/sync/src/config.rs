//! The settings of one state directory: from what the caller looks up (the environment), then `config.toml`.
//! Never reads the environment or asks the system for a name itself; never writes the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alike_core::retention::Policy;
use toml::{Table, Value};

/// The settings' file name inside the state directory.
pub const FILE: &str = "config.toml";

/// Longest device name in bytes: it is shown on other people's screens and sent with every greeting.
pub const NAME_LIMIT: usize = 128;

/// The name of a device whose host has none.
const NAMELESS: &str = "device";

/// In how long everything is read again once, where nothing is set.
const SCRUB: Duration = Duration::from_secs(30 * 86_400);

/// Every key of `config.toml`, each with the setting that wins over it.
const KEYS: [(&str, &str); 11] = [
    ("relay", "ALIKE_RELAY"),
    ("discovery", "ALIKE_DISCOVERY"),
    ("bind", "ALIKE_BIND"),
    ("name", "ALIKE_NAME"),
    ("log", "ALIKE_LOG"),
    ("no_autostart", "ALIKE_NO_AUTOSTART"),
    ("no_color", "NO_COLOR"),
    ("history_keep", "ALIKE_HISTORY_KEEP"),
    ("history_days", "ALIKE_HISTORY_DAYS"),
    ("history_daily_days", "ALIKE_HISTORY_DAILY_DAYS"),
    ("scrub_days", "ALIKE_SCRUB_DAYS"),
];

/// Everything a person can set for one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The state directory (absolute).
    pub home: PathBuf,
    /// This device's name: one line, 1 to [`NAME_LIMIT`] bytes.
    pub name: String,
    /// Which relays help devices that cannot reach each other directly.
    pub relay: Relay,
    /// How devices find each other's addresses.
    pub discovery: Discovery,
    /// Where to listen; `None` = any address, any port. Port 0 = any port.
    pub bind: Option<SocketAddr>,
    /// A tracing filter; `None` = the command's own default.
    pub log: Option<String>,
    /// Commands must not start an engine in the background.
    pub no_autostart: bool,
    /// No colours on the terminal.
    pub no_color: bool,
    /// How long the past is kept.
    pub retention: Policy,
    /// In how long everything is read again and compared once; `None`: only when asked.
    pub scrub: Option<Duration>,
}

/// Which relays to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Relay {
    /// The public ones.
    #[default]
    Default,
    /// None: direct connections only.
    Disabled,
    /// This one (`http://` or `https://`).
    Url(String),
}

/// How to find the addresses of a device whose key is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The local network and the public lookup service.
    #[default]
    Default,
    /// The local network only.
    Local,
    /// Only the addresses in tickets and those seen before.
    None,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// The file has a key that means nothing.
    #[error("{}: unknown key `{key}` (known: {})", path.display(), known_keys())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that cannot be used.
    #[error("{place} is `{value}`, which is not allowed: use {allowed}")]
    BadValue {
        /// The variable, or the key and its file.
        place: String,
        /// What was found.
        value: String,
        /// What is allowed there.
        allowed: &'static str,
    },
}

impl Config {
    /// The settings of the state directory `home`. `setting` looks one up by its variable's name and wins over
    /// the file; an empty answer counts as none. `host_name` names the device where nothing else does.
    pub fn load(
        home: PathBuf,
        setting: impl Fn(&str) -> Option<String>,
        host_name: String,
    ) -> Result<Config, ConfigError> {
        let file = File::read(home.join(FILE))?;
        let find = |key: &str| -> Option<Found> {
            let variable = KEYS
                .iter()
                .find(|(k, _)| *k == key)
                .expect("only keys of KEYS are asked for")
                .1;
            let set = setting(variable).filter(|text| !text.is_empty());
            set.map(|text| Found {
                place: variable.to_owned(),
                text,
            })
            .or_else(|| file.find(key))
        };
        Ok(Config {
            name: find("name").map_or_else(|| Ok(tame_name(&host_name)), |f| f.parse(NAME, parse_name))?,
            relay: find("relay").map_or(Ok(Relay::default()), |f| f.parse(RELAY, parse_relay))?,
            discovery: find("discovery")
                .map_or(Ok(Discovery::default()), |f| f.parse(DISCOVERY, parse_discovery))?,
            bind: find("bind")
                .map(|f| f.parse(BIND, |text| text.parse().ok()))
                .transpose()?,
            log: find("log").map(|f| f.text),
            no_autostart: find("no_autostart").is_some_and(|f| f.is_on()),
            no_color: find("no_color").is_some_and(|f| f.is_on()),
            retention: retention(|key| find(key))?,
            scrub: find("scrub_days").map_or(Ok(Some(SCRUB)), |f| f.parse(SCRUB_DAYS, parse_scrub))?,
            home,
        })
    }
}

const RELAY: &str = "`default`, `disabled` or the http:// or https:// URL of a relay";
const DISCOVERY: &str = "`default`, `local` or `none`";
const BIND: &str = "ADDR:PORT, for example `0.0.0.0:4433` or `[::]:0` (port 0 = any)";
const NUMBER: &str = "a whole number, 0 or more";
const SCRUB_DAYS: &str = "a number of days, or `off`";
const NAME: &str = "one line of 1 to 128 bytes without control characters";

/// A value and where it was found.
struct Found {
    place: String,
    text: String,
}

impl Found {
    fn parse<T>(self, allowed: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        let Found { place, text } = self;
        parse(&text).ok_or(ConfigError::BadValue {
            place,
            value: text,
            allowed,
        })
    }

    /// A switch in the environment is on by being there: `1`, `yes`, anything but an explicit no.
    fn is_on(&self) -> bool {
        !matches!(self.text.as_str(), "0" | "false" | "no")
    }
}

/// `config.toml`, its keys and types checked.
struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// A missing file is an empty one.
    fn read(path: PathBuf) -> Result<File, ConfigError> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let table: Table = text.parse().map_err(|e| syntax_error(&path, &text, &e))?;
        let file = File { path, table };
        for (key, value) in &file.table {
            file.check(key, value)?;
        }
        Ok(file)
    }

    fn check(&self, key: &str, value: &Value) -> Result<(), ConfigError> {
        let (allowed, fits) = match key {
            "no_autostart" | "no_color" => ("`true` or `false`", value.is_bool()),
            "history_keep" | "history_days" | "history_daily_days" => {
                (NUMBER, value.as_integer().is_some_and(|n| n >= 0))
            }
            "scrub_days" => (
                SCRUB_DAYS,
                value.is_integer() || value.is_float() || value.as_str() == Some("off"),
            ),
            "relay" | "discovery" | "bind" | "name" | "log" => ("a text in quotes", value.is_str()),
            _ => {
                return Err(ConfigError::UnknownKey {
                    path: self.path.clone(),
                    key: key.to_owned(),
                });
            }
        };
        if fits {
            return Ok(());
        }
        Err(ConfigError::BadValue {
            place: self.place(key),
            value: value_text(value),
            allowed,
        })
    }

    fn find(&self, key: &str) -> Option<Found> {
        self.table.get(key).map(|value| Found {
            place: self.place(key),
            text: value_text(value),
        })
    }

    fn place(&self, key: &str) -> String {
        format!("`{key}` in {}", self.path.display())
    }
}

/// The text of a text or a switch; of anything else, what kind of thing it is (for the error that follows).
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Boolean(on) => on.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Datetime(_) => "a date".into(),
        Value::Array(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
    }
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
    ConfigError::Syntax {
        path: path.to_owned(),
        line,
        message: error.message().trim().to_owned(),
    }
}

fn known_keys() -> String {
    KEYS.map(|(key, _)| key).join(", ")
}

/// The policy for the past; what is not set is as by default.
fn retention(find: impl Fn(&str) -> Option<Found>) -> Result<Policy, ConfigError> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let number = |key| {
        find(key)
            .map(|f| f.parse(NUMBER, |text| text.parse::<u64>().ok()))
            .transpose()
    };
    let default = Policy::default();
    Ok(Policy {
        newest: number("history_keep")?.unwrap_or(default.newest),
        all_ms: number("history_days")?.map_or(default.all_ms, |days| days.saturating_mul(DAY_MS)),
        daily_ms: number("history_daily_days")?.map_or(default.daily_ms, |days| days.saturating_mul(DAY_MS)),
        ..default
    })
}

/// `Some(None)`: never.
#[expect(clippy::option_option, reason = "the outer one says whether it can be used")]
fn parse_scrub(text: &str) -> Option<Option<Duration>> {
    if text == "off" {
        return Some(None);
    }
    let days: f64 = text.parse().ok().filter(|days| *days >= 0.0)?;
    let round = Duration::try_from_secs_f64(days * 86_400.0).ok()?;
    Some((!round.is_zero()).then_some(round))
}

fn parse_relay(text: &str) -> Option<Relay> {
    match text {
        "default" => Some(Relay::Default),
        "disabled" => Some(Relay::Disabled),
        url => {
            let rest = url
                .strip_prefix("https://")
                .or_else(|| url.strip_prefix("http://"))?;
            let has_host = !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']);
            let plain = !url.contains(|c: char| c.is_whitespace() || c.is_control());
            (has_host && plain).then(|| Relay::Url(url.to_owned()))
        }
    }
}

fn parse_discovery(text: &str) -> Option<Discovery> {
    match text {
        "default" => Some(Discovery::Default),
        "local" => Some(Discovery::Local),
        "none" => Some(Discovery::None),
        _ => None,
    }
}

fn parse_name(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = !name.is_empty() && name.len() <= NAME_LIMIT && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

/// A host name is nobody's mistake here: what does not fit is left out instead of refused.
fn tame_name(host_name: &str) -> String {
    let mut name: String = host_name.trim().chars().filter(|c| !c.is_control()).collect();
    while name.len() > NAME_LIMIT {
        name.pop();
    }
    if name.is_empty() {
        NAMELESS.to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads with the file's text (if any) and the settings given.
    fn load(file: Option<&str>, settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().expect("a temporary directory");
        if let Some(text) = file {
            std::fs::write(home.path().join(FILE), text).expect("writable");
        }
        let setting = |name: &str| {
            settings
                .iter()
                .find(|(k, _)| *k == name)
                .map(|(_, value)| value.to_string())
        };
        Config::load(home.path().to_owned(), setting, "laptop".into())
    }

    fn error(file: Option<&str>, settings: &[(&str, &str)]) -> String {
        load(file, settings).expect_err("must be refused").to_string()
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let config = load(None, &[]).expect("valid");
        assert_eq!(config.name, "laptop");
        assert_eq!(config.relay, Relay::Default);
        assert_eq!(config.discovery, Discovery::Default);
        assert_eq!((config.bind, config.log), (None, None));
        assert!(!config.no_autostart && !config.no_color);
    }

    #[test]
    fn the_file_sets_and_the_environment_wins() {
        let file = "relay = \"disabled\"\ndiscovery = \"local\"\nbind = \"127.0.0.1:0\"\nname = \"attic\"\n\
                    log = \"debug\"\nno_autostart = true\nno_color = false\n";
        let config = load(Some(file), &[]).expect("valid");
        assert_eq!(
            (config.relay, config.discovery),
            (Relay::Disabled, Discovery::Local)
        );
        assert_eq!(config.bind, Some("127.0.0.1:0".parse().expect("an address")));
        assert_eq!(
            (config.name.as_str(), config.log.as_deref()),
            ("attic", Some("debug"))
        );
        assert!(config.no_autostart && !config.no_color);

        let set = [
            ("ALIKE_RELAY", "https://relay.example"),
            ("ALIKE_NAME", "cellar"),
            ("NO_COLOR", "1"),
        ];
        let config = load(Some(file), &set).expect("valid");
        assert_eq!(config.relay, Relay::Url("https://relay.example".into()));
        assert_eq!(
            (config.name.as_str(), config.discovery),
            ("cellar", Discovery::Local)
        );
        assert!(config.no_color);
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let config = load(
            Some("relay = \"disabled\""),
            &[("ALIKE_RELAY", ""), ("ALIKE_NO_AUTOSTART", "")],
        );
        let config = config.expect("valid");
        assert_eq!(config.relay, Relay::Disabled);
        assert!(!config.no_autostart);
    }

    #[test]
    fn the_scrub_takes_days_parts_of_them_or_none() {
        let scrub = |file: Option<&str>, set: &[(&str, &str)]| load(file, set).expect("valid").scrub;
        let days = |days: f64| Some(Duration::from_secs_f64(days * 86_400.0));
        assert_eq!(scrub(None, &[]), days(30.0));
        assert_eq!(scrub(Some("scrub_days = 7"), &[]), days(7.0));
        assert_eq!(scrub(Some("scrub_days = 0.5"), &[]), days(0.5));
        assert_eq!(scrub(Some("scrub_days = \"off\""), &[]), None);
        assert_eq!(scrub(Some("scrub_days = 0"), &[]), None);
        assert_eq!(
            scrub(Some("scrub_days = 7"), &[("ALIKE_SCRUB_DAYS", "off")]),
            None
        );
        for wrong in ["-1", "often", "nan", "1e300"] {
            assert!(
                error(None, &[("ALIKE_SCRUB_DAYS", wrong)]).contains(SCRUB_DAYS),
                "{wrong}"
            );
        }
        assert!(error(Some("scrub_days = \"often\""), &[]).contains(SCRUB_DAYS));
    }

    #[test]
    fn a_switch_set_to_no_is_off() {
        let config = load(Some("no_autostart = true"), &[("ALIKE_NO_AUTOSTART", "0")]).expect("valid");
        assert!(!config.no_autostart);
    }

    #[test]
    fn bad_values_name_the_place_the_value_and_what_is_allowed() {
        for (variable, value, allowed) in [
            ("ALIKE_RELAY", "maybe", RELAY),
            ("ALIKE_RELAY", "https://", RELAY),
            ("ALIKE_RELAY", "https:///path", RELAY),
            ("ALIKE_RELAY", "https://a b", RELAY),
            ("ALIKE_DISCOVERY", "Local", DISCOVERY),
            ("ALIKE_BIND", "4433", BIND),
            ("ALIKE_BIND", "localhost:1", BIND),
            ("ALIKE_BIND", "127.0.0.1:70000", BIND),
            ("ALIKE_NAME", "two\nlines", NAME),
            ("ALIKE_NAME", "   ", NAME),
        ] {
            let text = error(None, &[(variable, value)]);
            assert_eq!(
                text,
                format!("{variable} is `{value}`, which is not allowed: use {allowed}")
            );
        }
        let text = error(Some("discovery = \"far\""), &[]);
        assert!(
            text.starts_with("`discovery` in /") && text.contains("config.toml is `far`"),
            "{text}"
        );
    }

    #[test]
    fn wrong_types_are_refused() {
        assert!(error(Some("relay = 3"), &[]).contains("is `3`, which is not allowed: use a text in quotes"));
        assert!(error(Some("no_color = \"x\""), &[]).contains("use `true` or `false`"));
        assert!(error(Some("[bind]\nport = 1"), &[]).contains("`bind` in"));
    }

    #[test]
    fn unknown_keys_and_bad_toml_are_named() {
        let text = error(Some("relays = \"default\""), &[]);
        assert!(
            text.contains("config.toml: unknown key `relays` (known: relay, discovery"),
            "{text}"
        );
        let text = error(Some("relay = \"default\"\nname = attic\n"), &[]);
        assert!(text.contains("config.toml, line 2: "), "{text}");
    }

    #[test]
    fn a_strange_host_name_is_tamed() {
        assert_eq!(tame_name("  \u{7}box\n"), "box");
        assert_eq!(tame_name(""), NAMELESS);
        assert_eq!(tame_name(&"é".repeat(100)).len(), NAME_LIMIT);
    }
}
