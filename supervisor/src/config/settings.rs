//! The daemon's settings: `<home>/config.toml`, all optional. Flags stand above the file.
//!
//! ```toml
//! logLevel = "info"                  # error | warn | info | debug | trace
//! plugins = ["/opt/dvb-plugin-x"]    # further executables, or folders of them; relative to the home
//!
//! [keep]                             # how much of the past the store keeps
//! changes = 10000
//! events = 20000
//! transactions = 10000               # finished ones, of each devnet
//!
//! [logs]                             # of nodes; sizes as in 200Mi, times as in 336h
//! rotate = "10Mi"                    # a running node's file above this is rotated
//! node = "200Mi"                     # beyond these caps the oldest lines go
//! devnet = "1Gi"
//! age = "336h"
//! diskFloor = "1Gi"                  # with less left on the disk, lines go instead of being copied; default: 2 %, at least 1 Gi
//! ```

use crate::model::{ByteSize, MIN_LOG, Span};
use serde::Deserialize;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use toml_edit::{Document, Item};

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}:{line}: unknown key `{key}`{}", path.display(), nearest.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default())]
    UnknownKey { path: PathBuf, line: usize, key: String, nearest: Option<String> },
    #[error("{}: {key} {message}", path.display())]
    Value { path: PathBuf, key: &'static str, message: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    pub log_level: LogLevel,
    /// Absolute after `load`.
    pub plugins: Vec<PathBuf>,
    pub keep: Keep,
    pub logs: LogSettings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    pub rotate: ByteSize,
    pub node: ByteSize,
    pub devnet: ByteSize,
    pub age: Span,
    pub disk_floor: Option<ByteSize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Keep {
    /// Entries of the change feed: how far back a watch can resume.
    pub changes: usize,
    pub events: usize,
    /// Finished transactions of each devnet.
    pub transactions: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Default for Keep {
    fn default() -> Self {
        Self { changes: 10_000, events: 20_000, transactions: 10_000 }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        let (rotate, node, devnet) = (ByteSize(10 << 20), ByteSize(200 << 20), ByteSize(1 << 30));
        Self { rotate, node, devnet, age: Span::secs(14 * 86_400), disk_floor: None }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl FromStr for LogLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` is no log level; take error, warn, info, debug or trace"))
    }
}

impl Settings {
    /// The file's settings over the defaults; the defaults when there is no file. Blocking.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SettingsError::Io { path: path.to_owned(), source }),
        }
    }

    /// `path` is for messages, and its folder is what relative paths are relative to.
    fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let syntax = |message: String| SettingsError::Syntax { path: path.to_owned(), message: message.trim_end().to_owned() };
        let document = Document::parse(text).map_err(|error| syntax(error.to_string()))?;
        check_keys(path, text, document.as_item(), KEYS)?;
        for (table, known) in [("keep", KEEP_KEYS), ("logs", LOGS_KEYS)] {
            document.get(table).map_or(Ok(()), |table| check_keys(path, text, table, known))?;
        }
        let mut settings: Self = toml_edit::de::from_str(text).map_err(|error| syntax(error.to_string()))?;
        if settings.keep.changes < 100 || settings.keep.events < 100 {
            return Err(SettingsError::Value { path: path.to_owned(), key: "keep", message: "must be at least 100 changes and 100 events".into() });
        }
        if settings.logs.rotate < MIN_LOG || settings.logs.node < settings.logs.rotate || settings.logs.devnet < settings.logs.rotate {
            let message = "must rotate at 64Ki or more, and keep at least as much per node and devnet".into();
            return Err(SettingsError::Value { path: path.to_owned(), key: "logs", message });
        }
        let base = path.parent().unwrap_or(Path::new("/"));
        settings.plugins.iter_mut().for_each(|plugin| *plugin = base.join(&*plugin));
        Ok(settings)
    }
}

const KEYS: &[&str] = &["logLevel", "plugins", "keep", "logs"];
const KEEP_KEYS: &[&str] = &["changes", "events", "transactions"];
const LOGS_KEYS: &[&str] = &["rotate", "node", "devnet", "age", "diskFloor"];

fn check_keys(path: &Path, text: &str, item: &Item, known: &[&str]) -> Result<(), SettingsError> {
    let Some(table) = item.as_table_like() else { return Ok(()) };
    let unknown = table.iter().map(|(key, _)| key).find(|key| !known.contains(key));
    let Some(key) = unknown else { return Ok(()) };
    let at = table.key(key).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
    let line = text[..at].matches('\n').count() + 1;
    let likeness = |name: &&str| strsim::jaro_winkler(&key.to_lowercase().replace(['_', '-'], ""), &name.to_lowercase());
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.75);
    Err(SettingsError::UnknownKey { path: path.to_owned(), line, key: key.to_owned(), nearest: nearest.map(|name| (*name).to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("/home/config.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn no_file_and_an_empty_file_mean_the_defaults() {
        assert_eq!(Settings::load(Path::new("/nowhere/config.toml")).unwrap(), Settings::default());
        assert_eq!(parse("").unwrap(), Settings::default());
    }

    #[test]
    fn a_file_sets_what_it_names_and_relative_plugins_lie_in_the_home() {
        let text = "logLevel = \"debug\"\nplugins = [\"mine/dvb-plugin-x\", \"/opt/y\"]\n[keep]\nevents = 500\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.log_level, LogLevel::Debug);
        assert_eq!(settings.plugins, [Path::new("/home/mine/dvb-plugin-x"), Path::new("/opt/y")]);
        assert_eq!(settings.keep, Keep { events: 500, ..Keep::default() });
    }

    #[test]
    fn limits_of_logs_are_sizes_and_times() {
        let logs = parse("[logs]\nrotate = \"1Mi\"\nage = \"1h\"\ndiskFloor = \"5Gi\"").unwrap().logs;
        let expect = LogSettings { rotate: ByteSize(1 << 20), age: Span::secs(3_600), disk_floor: Some(ByteSize(5 << 30)), ..LogSettings::default() };
        assert_eq!(logs, expect);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_the_nearest_key() {
        let check = |text: &str, expect: &[&str]| {
            let error = parse(text).unwrap_err();
            assert!(expect.iter().all(|part| error.contains(part)), "{error}");
        };
        check("\n\nlog_level = \"debug\"", &["/home/config.toml:3", "`log_level`", "did you mean `logLevel`?"]);
        check("plugin = []", &["`plugin`", "`plugins`"]);
        check("[keep]\nevent = 1", &[":2:", "`events`"]);
        check("zzz = 1", &["unknown key `zzz`"]);
        check("logLevel = \"loud\"", &["loud", "debug"]);
        check("logLevel = ", &["/home/config.toml", "line 1"]);
        check("[keep]\nevents = 1", &["at least 100"]);
        check("[logs]\nrotte = \"1Mi\"", &[":2:", "`rotate`"]);
        check("[logs]\nnode = \"much\"", &["`much` is not a size"]);
        check("[logs]\nrotate = \"1Ki\"", &["64Ki or more"]);
        check("[logs]\nnode = \"1Mi\"", &["at least as much"]);
    }
}
