//! One table per program: name, flag, environment variable, kind, default and meaning of each setting.
//!
//! A value comes from the first of: command line, environment, TOML file, default. Values are checked when loaded, and
//! all mistakes are reported together, each with where it stands and what would be right.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Celery's name where there is one, `snake_case`.
    pub name: &'static str,
    /// Long flag without dashes; empty if there is none.
    pub flag: &'static str,
    /// Environment variable; empty if there is none. For secrets, `<env>_FILE` may name a file that holds the value.
    pub env: &'static str,
    /// What values look like.
    pub kind: Kind,
    /// The value when nobody says anything; `None`: unset.
    pub default: Option<&'static str>,
    /// Never shown.
    pub secret: bool,
    /// Meaning, in a sentence or two.
    pub doc: &'static str,
}

/// What values of a setting look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text.
    Text,
    /// `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`.
    Bool,
    /// A whole number within bounds.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number.
    Float,
    /// Seconds (`30`, `0.5`) or a number with unit (`500ms`, `30s`, `5m`, `2h`, `1d`).
    Duration,
    /// Texts separated by commas.
    List,
    /// Routes of tasks, in one of the forms of [`routes`](super::routes).
    Routes,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Float => f.write_str("a number"),
            Self::Duration => f.write_str("a duration such as 30, 0.5, 500ms, 5m or 1d"),
            Self::List => f.write_str("a list separated by commas"),
            Self::Routes => f.write_str("a table of routes"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The table's default.
    Default,
    /// The TOML file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// Access to the sources, so that this module itself reads neither environment nor files.
pub struct Sources<'a> {
    /// Values of the command line, by flag.
    pub flag: &'a dyn Fn(&str) -> Option<String>,
    /// Values of the environment, by variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Name and text of the TOML file.
    pub file: Option<(&'a str, &'a str)>,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file.map(|(name, _)| name)).finish_non_exhaustive()
    }
}

/// All mistakes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One sentence per mistake.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for crate::BrokerError {
    fn from(err: ConfigError) -> Self {
        Self::config(err.to_string())
    }
}

/// The checked values of a table.
#[derive(Clone)]
pub struct Layered {
    table: Vec<Setting>,
    values: BTreeMap<&'static str, (String, Source)>,
}

impl Layered {
    /// Reads every setting of `tables` from its sources.
    ///
    /// # Errors
    /// Values that do not fit their kind, keys of the file that no table knows, unreadable TOML: all of them together.
    pub fn load(tables: &[&[Setting]], sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let table: Vec<Setting> = tables.iter().flat_map(|table| table.iter().copied()).collect();
        let mut problems = Vec::new();
        let file = sources.file.map(|(name, text)| (name, read_file(name, text, &table, &mut problems)));
        let mut values = BTreeMap::new();
        for setting in &table {
            let found = from_flag(setting, sources)
                .or_else(|| from_env(setting, sources, &mut problems))
                .or_else(|| {
                    let (name, entries) = file.as_ref()?;
                    let value = entries.get(setting.name)?.clone();
                    Some((value, Source::File, format!("{} in {name}", setting.name)))
                })
                .or_else(|| {
                    setting.default.map(|value| (value.to_owned(), Source::Default, "the default".to_owned()))
                });
            let Some((value, source, origin)) = found else { continue };
            if let Err(expected) = check(setting.kind, &value) {
                let shown = if setting.secret { "the given value".to_owned() } else { format!("`{value}`") };
                problems.push(format!("{}: {shown} ({origin}) is not {expected}", setting.name));
                continue;
            }
            values.insert(setting.name, (value, source));
        }
        if problems.is_empty() { Ok(Self { table, values }) } else { Err(ConfigError { problems }) }
    }

    /// The value as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(self.table.iter().any(|setting| setting.name == name), "no setting `{name}`");
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// The value of a [`Kind::Bool`]; unset is `false`.
    pub fn boolean(&self, name: &str) -> bool {
        self.text(name).and_then(parse_bool).unwrap_or(false)
    }

    /// The value of a [`Kind::Integer`].
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.trim().parse().ok()
    }

    /// The value of a [`Kind::Float`].
    pub fn float(&self, name: &str) -> Option<f64> {
        self.text(name)?.trim().parse().ok()
    }

    /// The value of a [`Kind::Duration`].
    pub fn duration(&self, name: &str) -> Option<Duration> {
        parse_duration(self.text(name)?)
    }

    /// The value of a [`Kind::List`]; unset is empty.
    pub fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// Where the value came from; `None` if unset.
    pub fn source(&self, name: &str) -> Option<Source> {
        self.values.get(name).map(|(_, source)| *source)
    }

    /// All settings with their values; secrets are masked, URLs in other settings lose their password.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, Option<String>)> + '_ {
        self.table.iter().map(|setting| {
            let value = self.values.get(setting.name).map(|(value, _)| {
                if setting.secret && !value.contains("://") {
                    "********".to_owned()
                } else {
                    super::url::redact(value)
                }
            });
            (setting.name, value)
        })
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

/// The table as the Markdown table of `docs/configuration.md`.
pub fn markdown(table: &[Setting]) -> String {
    let mut text =
        String::from("| setting | flag | environment | default | meaning |\n|---|---|---|---|---|\n");
    let code = |word: &str| if word.is_empty() { "–".to_owned() } else { format!("`{word}`") };
    for setting in table {
        let secret = setting.secret && !setting.env.is_empty();
        let file = if secret { format!(", `{}_FILE`", setting.env) } else { String::new() };
        let flag = if setting.flag.is_empty() { String::new() } else { format!("--{}", setting.flag) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {}{file} | {} | {} ({}) |",
            setting.name,
            code(&flag),
            code(setting.env),
            setting.default.map_or("–".to_owned(), code),
            setting.doc.replace('|', "\\|"),
            setting.kind.to_string().replace('|', "\\|"),
        );
    }
    text
}

type Found = (String, Source, String);

fn from_flag(setting: &Setting, sources: &Sources<'_>) -> Option<Found> {
    if setting.flag.is_empty() {
        return None;
    }
    let value = (sources.flag)(setting.flag)?;
    Some((value, Source::Flag, format!("--{}", setting.flag)))
}

fn from_env(setting: &Setting, sources: &Sources<'_>, problems: &mut Vec<String>) -> Option<Found> {
    if setting.env.is_empty() {
        return None;
    }
    if let Some(value) = (sources.env)(setting.env) {
        return Some((value, Source::Environment, setting.env.to_owned()));
    }
    if !setting.secret {
        return None;
    }
    let variable = format!("{}_FILE", setting.env);
    let path = (sources.env)(&variable)?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Some((text.trim().to_owned(), Source::Environment, variable)),
        Err(err) => {
            problems.push(format!("{}: cannot read {path} ({variable}): {err}", setting.name));
            None
        }
    }
}

fn read_file(
    name: &str,
    text: &str,
    table: &[Setting],
    problems: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let parsed: toml::Table = match text.parse() {
        Ok(parsed) => parsed,
        Err(err) => {
            // The message quotes lines of the file, which may hold secrets: keep only where it went wrong.
            let at = err_line(&err, text);
            problems.push(format!("{name}: not valid TOML{at}"));
            return BTreeMap::new();
        }
    };
    let mut entries = BTreeMap::new();
    for (key, value) in parsed {
        let Some(setting) = table.iter().find(|setting| setting.name == key) else {
            problems.push(format!("{name}: there is no setting `{key}`"));
            continue;
        };
        let value = match (setting.kind, &value) {
            (Kind::Routes, toml::Value::Table(_) | toml::Value::Array(_)) => {
                Some(super::routes::json(&value))
            }
            _ => scalar(&value),
        };
        match value {
            Some(value) => drop(entries.insert(key, value)),
            None => problems.push(format!("{key} in {name}: tables are not supported here")),
        }
    }
    entries
}

fn err_line(err: &toml::de::Error, text: &str) -> String {
    err.span().map_or_else(String::new, |span| {
        let line = text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1;
        format!(" (line {line})")
    })
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn check(kind: Kind, value: &str) -> Result<(), String> {
    if kind == Kind::Routes {
        return super::routes::parse(value).map(drop).map_err(|problem| format!("{kind}: {problem}"));
    }
    let fits = match kind {
        Kind::Text | Kind::List | Kind::Routes => true,
        Kind::Bool => parse_bool(value).is_some(),
        Kind::Integer { min, max } => value.trim().parse().is_ok_and(|n: i64| (min..=max).contains(&n)),
        Kind::Float => value.trim().parse().is_ok_and(|n: f64| n.is_finite()),
        Kind::Duration => parse_duration(value).is_some(),
        Kind::Choice(words) => words.contains(&value),
    };
    if fits { Ok(()) } else { Err(kind.to_string()) }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

/// Reads `30`, `0.5`, `500ms`, `30s`, `5m`, `2h`, `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit.trim() {
        "" | "s" => number,
        "ms" => number / 1e3,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Setting] = &[
        Setting {
            name: "broker_url",
            flag: "broker",
            env: "CELERY_BROKER_URL",
            kind: Kind::Text,
            default: Some("amqp://"),
            secret: true,
            doc: "the broker",
        },
        Setting {
            name: "concurrency",
            flag: "concurrency",
            env: "",
            kind: Kind::Integer { min: 1, max: 10_000 },
            default: None,
            secret: false,
            doc: "how many",
        },
        Setting {
            name: "grace",
            flag: "",
            env: "GRACE",
            kind: Kind::Duration,
            default: Some("30s"),
            secret: false,
            doc: "how long",
        },
    ];

    fn load(
        flags: &[(&str, &str)],
        env: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Layered, ConfigError> {
        let find = |list: &[(&str, &str)], name: &str| {
            list.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Layered::load(
            &[TABLE],
            &Sources {
                flag: &|name| find(flags, name),
                env: &|name| find(env, name),
                file: file.map(|text| ("celery.toml", text)),
            },
        )
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let all = load(&[("broker", "a")], &[("CELERY_BROKER_URL", "b")], Some("broker_url = 'c'")).unwrap();
        assert_eq!((all.text("broker_url"), all.source("broker_url")), (Some("a"), Some(Source::Flag)));
        let env = load(&[], &[("CELERY_BROKER_URL", "b")], Some("broker_url = 'c'")).unwrap();
        assert_eq!(
            (env.text("broker_url"), env.source("broker_url")),
            (Some("b"), Some(Source::Environment))
        );
        let file = load(&[], &[], Some("broker_url = 'c'\nconcurrency = 4")).unwrap();
        assert_eq!((file.text("broker_url"), file.integer("concurrency")), (Some("c"), Some(4)));
        let none = load(&[], &[], None).unwrap();
        assert_eq!((none.text("broker_url"), none.integer("concurrency")), (Some("amqp://"), None));
        assert_eq!(none.duration("grace"), Some(Duration::from_secs(30)));
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_without_secrets() {
        let err = load(
            &[("concurrency", "0")],
            &[("GRACE", "soon")],
            Some("broker_ur = 'amqp://u:secret@h'\ngrace = 1"),
        )
        .unwrap_err();
        assert_eq!(
            err.problems(),
            [
                "celery.toml: there is no setting `broker_ur`",
                "concurrency: `0` (--concurrency) is not a whole number from 1 to 10000",
                "grace: `soon` (GRACE) is not a duration such as 30, 0.5, 500ms, 5m or 1d",
            ]
        );
        let err = load(&[], &[], Some("ok = 1\nbroker_url = amqp://u:secret@h")).unwrap_err();
        assert_eq!(err.problems(), ["celery.toml: not valid TOML (line 2)"]);
    }

    #[test]
    fn debug_masks_passwords() {
        let layered = load(&[("broker", "amqp://u:secret@h/v;amqps://u:secret@h2")], &[], None).unwrap();
        let shown = format!("{layered:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("amqp://u:**@h/v"), "{shown}");
    }

    #[test]
    fn durations() {
        for (text, millis) in
            [("30", 30_000), ("0.5", 500), ("500ms", 500), ("5m", 300_000), ("2h", 7_200_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "1w", "s", "1e400", "nan"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_table_makes_its_own_documentation() {
        let text = markdown(TABLE);
        assert!(
            text.contains(
                "| `broker_url` | `--broker` | `CELERY_BROKER_URL`, `CELERY_BROKER_URL_FILE` | `amqp://` | the broker (text) |"
            )
        );
        assert!(text.contains(
            "| `concurrency` | `--concurrency` | – | – | how many (a whole number from 1 to 10000) |"
        ));
    }
}
