//! The settings of the program, in one table, and what their values mean. The only place that reads the environment.
//!
//! Names of the environment are Flower's where Flower has the setting.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use celery_broker::config::{CLIENT_SETTINGS, Kind, Layered, Setting, Sources};
use clap::{Arg, Command};

use crate::access::{Control, Users};
use crate::guard::Hosts;
use crate::history::{HistoryOptions, Retention};
use crate::monitor::MonitorOptions;
use crate::startup::ServeOptions;
use crate::state::Limits;

/// The settings that only this program has.
pub const OWN_SETTINGS: &[Setting] = &[
    Setting {
        name: "address",
        flag: "address",
        env: "FLOWER_ADDRESS",
        kind: Kind::Text,
        default: Some("127.0.0.1"),
        secret: false,
        doc: "Where to listen. Other machines can reach it only with `--basic-auth`, or with `--insecure-no-auth`.",
    },
    Setting {
        name: "port",
        flag: "port",
        env: "FLOWER_PORT",
        kind: Kind::Integer { min: 0, max: 65_535 },
        default: Some("5555"),
        secret: false,
        doc: "The port to listen on; 0 takes any that is free.",
    },
    Setting {
        name: "url_prefix",
        flag: "url-prefix",
        env: "FLOWER_URL_PREFIX",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "Serve under this path instead of the root.",
    },
    Setting {
        name: "insecure_no_auth",
        flag: "insecure-no-auth",
        env: "FLOWER_INSECURE_NO_AUTH",
        kind: Kind::Bool,
        default: Some("false"),
        secret: false,
        doc: "Listen where other machines can reach it, though nobody is asked who they are.",
    },
    Setting {
        name: "basic_auth",
        flag: "basic-auth",
        env: "FLOWER_BASIC_AUTH",
        kind: Kind::List,
        default: None,
        secret: true,
        doc: "Who may come in: `user:password`, several with commas between. They may also control workers and tasks.",
    },
    Setting {
        name: "unauthenticated_api",
        flag: "unauthenticated-api",
        env: "FLOWER_UNAUTHENTICATED_API",
        kind: Kind::Bool,
        default: Some("false"),
        secret: false,
        doc: "Let whoever reaches the monitor control workers and tasks, though nobody is asked who they are.",
    },
    Setting {
        name: "read_only",
        flag: "read-only",
        env: "FLOWER_READ_ONLY",
        kind: Kind::Bool,
        default: Some("false"),
        secret: false,
        doc: "Control nothing, whoever asks. Without `basic_auth` and `unauthenticated_api` that is so anyway.",
    },
    Setting {
        name: "allowed_hosts",
        flag: "allowed-hosts",
        env: "FLOWER_ALLOWED_HOSTS",
        kind: Kind::List,
        default: None,
        secret: false,
        doc: "Names by which a monitor on loopback may be called besides localhost, as by a proxy in front of it.",
    },
    Setting {
        name: "enable_events",
        flag: "enable-events",
        env: "FLOWER_ENABLE_EVENTS",
        kind: Kind::Bool,
        default: Some("true"),
        secret: false,
        doc: "Tell all workers, again and again, to send events of their tasks.",
    },
    Setting {
        name: "max_tasks",
        flag: "max-tasks",
        env: "FLOWER_MAX_TASKS",
        kind: Kind::Integer { min: 1, max: 100_000_000 },
        default: Some("100000"),
        secret: false,
        doc: "How many tasks are remembered.",
    },
    Setting {
        name: "memory_budget",
        flag: "memory-budget",
        env: "FLOWER_MEMORY_BUDGET",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("256"),
        secret: false,
        doc: "How much memory tasks may take, in MiB, estimated; what was changed longest ago is forgotten first.",
    },
    Setting {
        name: "max_workers",
        flag: "max-workers",
        env: "FLOWER_MAX_WORKERS",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("5000"),
        secret: false,
        doc: "How many workers are remembered.",
    },
    Setting {
        name: "purge_offline_workers",
        flag: "purge-offline-workers",
        env: "FLOWER_PURGE_OFFLINE_WORKERS",
        kind: Kind::Duration,
        default: None,
        secret: false,
        doc: "Forget a worker that was silent for so long. Unset: never.",
    },
    Setting {
        name: "db",
        flag: "db",
        env: "FLOWER_DB",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "A file to keep the history in (SQLite). Unset: what is known is gone when the monitor ends.",
    },
    Setting {
        name: "retain",
        flag: "retain",
        env: "FLOWER_RETAIN",
        kind: Kind::Duration,
        default: Some("7d"),
        secret: false,
        doc: "For how long the history keeps a task.",
    },
    Setting {
        name: "max_db_size",
        flag: "max-db-size",
        env: "FLOWER_MAX_DB_SIZE",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("2048"),
        secret: false,
        doc: "How large the history may become, in MiB; then the oldest tasks are removed.",
    },
    Setting {
        name: "brokers",
        flag: "brokers",
        env: "FLOWER_BROKERS",
        kind: Kind::List,
        default: None,
        secret: true,
        doc: "More brokers or virtual hosts to watch, as `name=url`; each is served under /brokers/<name>.",
    },
    Setting {
        name: "record",
        flag: "record",
        env: "FLOWER_RECORD",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "A file to record the events in that come in, for a replay. It holds what events hold: arguments, results.",
    },
    Setting {
        name: "replay",
        flag: "replay",
        env: "FLOWER_REPLAY",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "A recording to show instead of what a broker tells.",
    },
    Setting {
        name: "replay_speed",
        flag: "replay-speed",
        env: "FLOWER_REPLAY_SPEED",
        kind: Kind::Float,
        default: Some("0"),
        secret: false,
        doc: "How fast a recording is replayed: 1 as it happened, 10 ten times as fast, 0 all at once.",
    },
    Setting {
        name: "max_streams",
        flag: "max-streams",
        env: "FLOWER_MAX_STREAMS",
        kind: Kind::Integer { min: 1, max: 100_000 },
        default: Some("512"),
        secret: false,
        doc: "How many live streams may be open at a time.",
    },
    Setting {
        name: "log_level",
        flag: "log-level",
        env: "FLOWER_LOG",
        kind: Kind::Text,
        default: Some("info"),
        secret: false,
        doc: "What is logged: a level, or a filter such as `warn,flower_lite=debug`.",
    },
    Setting {
        name: "log_format",
        flag: "log-format",
        env: "FLOWER_LOG_FORMAT",
        kind: Kind::Choice(&["text", "json"]),
        default: Some("text"),
        secret: false,
        doc: "How log lines look.",
    },
];

/// Every setting of the program.
pub const TABLES: [&[Setting]; 2] = [OWN_SETTINGS, CLIENT_SETTINGS];

/// What the values mean.
#[derive(Clone)]
pub struct Config {
    /// How the monitor is served.
    pub serve: ServeOptions,
    /// What the monitor does.
    pub monitor: MonitorOptions,
    /// More brokers: their names and addresses.
    pub brokers: Vec<(String, String)>,
    /// A file to record events in.
    pub record: Option<PathBuf>,
    /// A recording to show.
    pub replay: Option<PathBuf>,
    /// How fast it is shown.
    pub replay_speed: f64,
    /// Where the history is kept.
    pub history: Option<HistoryOptions>,
    /// What is logged.
    pub log_level: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// The values themselves: those of broker and result backend are read from here.
    pub values: Layered,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To run.
    Run(Box<Config>),
    /// To print this, and no more.
    Print(String),
}

/// Reads the command line, then the environment.
///
/// # Errors
/// Says, for each value that can't be used, where it stands and what would be right.
pub fn read() -> Result<Asked, String> {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(told) if !told.use_stderr() => return Ok(Asked::Print(told.to_string())),
        Err(told) => return Err(told.to_string()),
    };
    let flag = |name: &str| matches.get_one::<String>(name).cloned();
    #[expect(clippy::disallowed_methods, reason = "I7: the environment is read here")]
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = Config::load(&Sources { flag: &flag, env: &env, file: None })?;
    Ok(Asked::Run(Box::new(config)))
}

/// The command line, as the table says.
#[must_use]
pub fn command() -> Command {
    let program = Command::new("flower-lite")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A live monitor for Celery: workers and tasks as pages, JSON and metrics");
    let flags = TABLES.iter().copied().flatten().filter(|setting| !setting.flag.is_empty());
    program.args(flags.map(|setting| {
        let default = setting.default.map_or(String::new(), |value| format!(" [default: {value}]"));
        let flag = Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(if setting.kind == Kind::Bool { "BOOL" } else { "VALUE" })
            .help(format!("{}{default} [env: {}]", setting.doc, setting.env));
        if setting.kind == Kind::Bool {
            flag.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            flag.allow_hyphen_values(true)
        }
    }))
}

impl fmt::Debug for Config {
    /// Without the addresses of more brokers, which hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("serve", &self.serve)
            .field("monitor", &self.monitor)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the values and what they mean.
    ///
    /// # Errors
    /// Says, for each value that can't be used, where it stands and what would be right.
    pub fn load(sources: &Sources<'_>) -> Result<Config, String> {
        let values = Layered::load(&TABLES, sources).map_err(|error| error.to_string())?;
        let number = |name: &str, otherwise: usize| {
            values.integer(name).and_then(|value| usize::try_from(value).ok()).unwrap_or(otherwise)
        };
        let usual = Limits::default();
        let users = Users::parse(&values.list("basic_auth"))?;
        let control = match (values.boolean("read_only"), values.boolean("unauthenticated_api")) {
            (true, _) => Control::ReadOnly,
            (false, false) if users.is_empty() => Control::NeedsAuthentication,
            (false, _) => Control::On,
        };
        let monitor = MonitorOptions {
            limits: Limits {
                max_tasks: number("max_tasks", usual.max_tasks),
                max_bytes: number("memory_budget", 256).saturating_mul(1 << 20),
                max_workers: number("max_workers", usual.max_workers),
                ..usual
            },
            enable_events: values.boolean("enable_events"),
            purge_offline_workers: values.duration("purge_offline_workers"),
            max_streams: number("max_streams", MonitorOptions::default().max_streams),
            control,
            history: None,
            recorder: None,
        };
        let history = values.text("db").map(|path| HistoryOptions {
            path: path.into(),
            retention: Retention {
                age: values.duration("retain").unwrap_or(Duration::from_secs(604_800)),
                bytes: number("max_db_size", 2_048) as u64 * (1 << 20),
            },
        });
        let address = address(&values)?;
        let serve = ServeOptions {
            address,
            prefix: values.text("url_prefix").unwrap_or_default().to_owned(),
            hosts: if address.ip().is_loopback() {
                Hosts::Loopback(values.list("allowed_hosts"))
            } else {
                Hosts::Any
            },
            users,
        };
        Ok(Config {
            serve,
            monitor,
            brokers: brokers(&values.list("brokers"))?,
            record: values.text("record").map(PathBuf::from),
            replay: values.text("replay").map(PathBuf::from),
            replay_speed: values.float("replay_speed").unwrap_or(0.0).max(0.0),
            history,
            log_level: values.text("log_level").unwrap_or("info").to_owned(),
            log_json: values.text("log_format") == Some("json"),
            values,
        })
    }
}

/// Brokers by name; a name is a part of an address.
fn brokers(pairs: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut brokers: Vec<(String, String)> = Vec::new();
    for (index, pair) in pairs.iter().enumerate() {
        let told =
            |what: &str| Err(format!("brokers (FLOWER_BROKERS, --brokers): entry {} {what}", index + 1));
        let Some((name, url)) = pair.split_once('=') else { return told("is not name=url") };
        let sound = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if name.is_empty() || !sound {
            return told("has a name that isn't made of letters, digits, `-` and `_`");
        }
        if brokers.iter().any(|(known, _)| known == name) {
            return told("has the name of another one");
        }
        brokers.push((name.to_owned(), url.to_owned()));
    }
    Ok(brokers)
}

/// Where to listen: on loopback, unless it was said that anyone may come.
fn address(values: &Layered) -> Result<SocketAddr, String> {
    let text = values.text("address").unwrap_or_default();
    let ip: IpAddr = match text {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        text => text.parse().map_err(|_| {
            format!("address (FLOWER_ADDRESS, --address): `{text}` is not an IP address, such as 127.0.0.1")
        })?,
    };
    let asked = !values.list("basic_auth").is_empty() || values.boolean("insecure_no_auth");
    if !ip.is_loopback() && !asked {
        return Err(format!(
            "address (FLOWER_ADDRESS, --address): {ip} can be reached from other machines, and nobody is asked who they \
             are: say who may come in with --basic-auth user:password, listen on 127.0.0.1 and put a proxy with \
             authentication in front, or say --insecure-no-auth"
        ));
    }
    let port = values.integer("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(5_555);
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table() {
        let text = celery_broker::config::markdown(OWN_SETTINGS);
        celery_testkit::golden::section("docs/configuration.md", "flower-lite", &text);
    }

    fn load(env: &[(&str, &str)]) -> Result<Config, String> {
        let find =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::load(&Sources { flag: &|_| None, env: &find, file: None })
    }

    #[test]
    fn by_default_nobody_else_can_reach_it() {
        let config = load(&[]).expect("the defaults are right");
        assert_eq!(config.serve.address.to_string(), "127.0.0.1:5555");
        assert!(!config.serve.hosts.allow(Some("evil.example")));
        assert_eq!(config.monitor.limits, Limits::default());
    }

    #[test]
    fn other_machines_are_let_in_on_request_only() {
        let refused = load(&[("FLOWER_ADDRESS", "0.0.0.0")]).expect_err("nobody said so");
        assert!(refused.contains("FLOWER_ADDRESS") && refused.contains("--insecure-no-auth"), "{refused}");
        let open = load(&[("FLOWER_ADDRESS", "::"), ("FLOWER_INSECURE_NO_AUTH", "1")]).expect("somebody did");
        assert!(open.serve.hosts.allow(Some("monitor.example")));
        assert!(load(&[("FLOWER_ADDRESS", "nowhere")]).is_err_and(|error| error.contains("nowhere")));
    }

    #[test]
    fn control_is_for_those_who_were_asked_who_they_are() {
        let control = |env: &[(&str, &str)]| load(env).map(|config| config.monitor.control);
        assert_eq!(control(&[]), Ok(Control::NeedsAuthentication));
        assert_eq!(control(&[("FLOWER_BASIC_AUTH", "user:canary")]), Ok(Control::On));
        assert_eq!(control(&[("FLOWER_UNAUTHENTICATED_API", "true")]), Ok(Control::On));
        let both = [("FLOWER_BASIC_AUTH", "user:canary"), ("FLOWER_READ_ONLY", "1")];
        assert_eq!(control(&both), Ok(Control::ReadOnly));
        let config =
            load(&[("FLOWER_BASIC_AUTH", "user:canary"), ("FLOWER_ADDRESS", "0.0.0.0")]).expect("asked");
        assert!(!format!("{config:?}").contains("canary"));
        assert!(!config.serve.users.is_empty());
    }

    #[test]
    fn more_brokers_have_names_that_can_be_addresses() {
        let config =
            load(&[("FLOWER_BROKERS", "east=amqp://u:canary@e//, west-2=amqp://w/x")]).expect("right");
        let names: Vec<&str> = config.brokers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["east", "west-2"]);
        for wrong in
            ["amqp://u:canary@e//", "a/b=amqp://u:canary@e//", "=amqp://x", "a=amqp://x,a=amqp://u:canary@y"]
        {
            let told = load(&[("FLOWER_BROKERS", wrong)]).expect_err("not right");
            assert!(told.contains("FLOWER_BROKERS") && !told.contains("canary"), "{told}");
        }
    }

    #[test]
    fn flowers_names_are_understood() {
        let config = load(&[
            ("FLOWER_PORT", "0"),
            ("FLOWER_MAX_TASKS", "500"),
            ("FLOWER_URL_PREFIX", "flower"),
            ("FLOWER_PURGE_OFFLINE_WORKERS", "60"),
            ("FLOWER_ENABLE_EVENTS", "False"),
        ])
        .expect("all are right");
        assert_eq!((config.serve.address.port(), &*config.serve.prefix), (0, "flower"));
        assert_eq!(config.monitor.limits.max_tasks, 500);
        assert_eq!(config.monitor.purge_offline_workers, Some(Duration::from_secs(60)));
        assert!(!config.monitor.enable_events);
        assert_eq!(config.history, None, "nothing is written unless asked for");
        let kept = load(&[("FLOWER_DB", "/tmp/f.db"), ("FLOWER_RETAIN", "1h")]).expect("right").history;
        let kept = kept.expect("asked for");
        assert_eq!((kept.retention.age.as_secs(), kept.retention.bytes), (3_600, 2 << 30));
    }

    #[test]
    fn mistakes_are_told_together_and_secrets_never() {
        let told = load(&[("FLOWER_PORT", "http"), ("FLOWER_MAX_TASKS", "0")]).expect_err("two mistakes");
        assert!(told.contains("FLOWER_PORT") && told.contains("FLOWER_MAX_TASKS"), "{told}");
        let config = load(&[("CELERY_BROKER_URL", "amqp://user:canary@host//")]).expect("right");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn help_is_made_of_the_table() {
        let help = command().render_long_help().to_string();
        for setting in TABLES.iter().copied().flatten().filter(|setting| !setting.flag.is_empty()) {
            assert!(help.contains(&format!("--{}", setting.flag)), "{}", setting.name);
        }
        command().debug_assert();
    }
}
