//! The settings of the program, in one table, and what their values mean. The only place that reads the environment.
//!
//! Names of the environment are Flower's where Flower has the setting.

mod settings;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use celery_broker::config::{CLIENT_SETTINGS, Kind as Of, Layered, Setting, Sources};
use clap::{Arg, Command};

use crate::access::oidc::{self, Grant, OidcOptions};
use crate::access::{Access, AccessOptions, Control, Oidc, Users, secret};
use crate::alerts::AlertOptions;
use crate::alerts::engine::{Kind, Rule};
use crate::alerts::webhook::Webhook;
use crate::guard::Hosts;
use crate::history::{HistoryOptions, Retention};
use crate::monitor::MonitorOptions;
use crate::outbound;
use crate::redact::Redactor;
use crate::startup::ServeOptions;
use crate::state::Limits;

pub use settings::OWN_SETTINGS;

/// Every setting of the program.
pub const TABLES: [&[Setting]; 2] = [OWN_SETTINGS, CLIENT_SETTINGS];

/// The shortest secret that signs sessions.
const MIN_SECRET: usize = 32;
/// The shortest password that is hashed.
const MIN_PASSWORD: usize = 8;

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
    /// For how long the audit log keeps an entry.
    pub audit_retain: Duration,
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
    /// To print the hash of the password that comes in.
    HashPassword,
    /// To print a new token, and its digest.
    NewToken,
}

/// Reads the command line, then the environment, then the file that `--config` names.
///
/// # Errors
/// Says, for each value that can't be used, where it stands and what would be right.
pub fn read() -> Result<Asked, String> {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(told) if !told.use_stderr() => return Ok(Asked::Print(told.to_string())),
        Err(told) => return Err(told.to_string()),
    };
    match matches.subcommand_name() {
        Some("hash-password") => return Ok(Asked::HashPassword),
        Some("new-token") => return Ok(Asked::NewToken),
        _ => {}
    }
    let flag = |name: &str| matches.get_one::<String>(name).cloned();
    #[expect(clippy::disallowed_methods, reason = "I7: the environment is read here")]
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = matches.get_one::<String>("config").cloned().or_else(|| env("FLOWER_CONFIG"));
    let text = path.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .map_err(|error| format!("--config (FLOWER_CONFIG): {path} can't be read: {error}"))
    });
    let text = text.transpose()?;
    let file = path.as_deref().zip(text.as_deref());
    let config = Config::load(&Sources { flag: &flag, env: &env, file })?;
    Ok(Asked::Run(Box::new(config)))
}

/// The command line, as the table says.
#[must_use]
pub fn command() -> Command {
    let program = Command::new("flower-lite")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A live monitor for Celery: workers and tasks as pages, JSON and metrics")
        .subcommand(
            Command::new("hash-password")
                .about("Reads a password from standard input, prints its hash for `users`"),
        )
        .subcommand(Command::new("new-token").about("Prints a new token and its digest for `tokens`"))
        .arg(Arg::new("config").long("config").value_name("FILE").help(
            "A TOML file with settings by their names; flags and environment go first [env: FLOWER_CONFIG]",
        ));
    let flags = TABLES.iter().copied().flatten().filter(|setting| !setting.flag.is_empty());
    program.args(flags.map(|setting| {
        let default = setting.default.map_or(String::new(), |value| format!(" [default: {value}]"));
        let flag = Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(if setting.kind == Of::Bool { "BOOL" } else { "VALUE" })
            .help(format!("{}{default} [env: {}]", setting.doc, setting.env));
        if setting.kind == Of::Bool {
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
        let users = Users::parse(&values.list("basic_auth"), &values.list("users"), &values.list("tokens"))?;
        let nobody = users.is_empty() && values.text("oidc_issuer").is_none();
        let address = address(&values, nobody)?;
        let control = match (values.boolean("read_only"), values.boolean("unauthenticated_api")) {
            (true, _) => Control::ReadOnly,
            (false, false) if nobody => Control::NeedsAuthentication,
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
            audit: None,
            dead_letter_queues: values.list("dead_letter_queues"),
            schedules: values.list("beat_schedules"),
            alerts: alerts(&values)?,
            redactor: Redactor::new(values.list("redact").iter().map(String::as_str)),
        };
        let history = values.text("db").map(|path| HistoryOptions {
            path: path.into(),
            retention: Retention {
                age: values.duration("retain").unwrap_or(Duration::from_secs(604_800)),
                bytes: number("max_db_size", 2_048) as u64 * (1 << 20),
            },
        });
        let names = values.list("allowed_hosts");
        let serve = ServeOptions {
            address,
            prefix: values.text("url_prefix").unwrap_or_default().to_owned(),
            hosts: match (address.ip().is_loopback(), names.is_empty()) {
                (true, _) => Hosts::Loopback(names),
                (false, false) => Hosts::Named(names),
                (false, true) => Hosts::Any,
            },
            access: access(&values, users)?,
        };
        Ok(Config {
            serve,
            monitor,
            brokers: brokers(&values.list("brokers"))?,
            record: values.text("record").map(PathBuf::from),
            replay: values.text("replay").map(PathBuf::from),
            replay_speed: values.float("replay_speed").unwrap_or(0.0).max(0.0),
            history,
            audit_retain: values.duration("audit_retain").unwrap_or(Duration::from_secs(7_776_000)),
            log_level: values.text("log_level").unwrap_or("info").to_owned(),
            log_json: values.text("log_format") == Some("json"),
            values,
        })
    }
}

fn is_loopback(values: &Layered) -> bool {
    let text = values.text("address").unwrap_or_default();
    text == "localhost" || text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Who vouches for people.
fn oidc(values: &Layered) -> Result<Option<OidcOptions>, String> {
    let Some(issuer) = values.text("oidc_issuer") else { return Ok(None) };
    oidc::endpoint(issuer)
        .map_err(|what| format!("oidc_issuer (FLOWER_OIDC_ISSUER, --oidc-issuer): {what}"))?;
    let client_id = values.text("oidc_client_id").ok_or(
        "oidc_client_id (FLOWER_OIDC_CLIENT_ID, --oidc-client-id): must be set to what the provider calls this monitor",
    )?;
    let mut roles = Vec::new();
    for (index, text) in values.list("oidc_roles").iter().enumerate() {
        let told = |what| format!("oidc_roles (FLOWER_OIDC_ROLES, --oidc-roles): entry {} {what}", index + 1);
        roles.push(Grant::parse(text).map_err(told)?);
    }
    if roles.is_empty() {
        return Err("oidc_roles (FLOWER_OIDC_ROLES, --oidc-roles): must say who may come in, for instance \
                    groups:sre=operator,email:*@example.com=viewer"
            .to_owned());
    }
    Ok(Some(OidcOptions {
        issuer: issuer.to_owned(),
        client_id: client_id.to_owned(),
        client_secret: values.text("oidc_client_secret").map(str::to_owned),
        scopes: values.text("oidc_scopes").unwrap_or("openid email profile").to_owned(),
        label: values.text("oidc_label").unwrap_or("Log in").to_owned(),
        roles,
    }))
}

/// How people come in.
fn access(values: &Layered, users: Users) -> Result<Access, String> {
    let secret = values.text("cookie_secret").map(str::to_owned);
    if secret.as_ref().is_some_and(|secret| secret.chars().count() < MIN_SECRET) {
        return Err(format!(
            "cookie_secret (FLOWER_COOKIE_SECRET, --cookie-secret): has fewer than {MIN_SECRET} characters; \
             `openssl rand -hex 32` makes one"
        ));
    }
    let public_url = values.text("public_url").map(|url| url.trim_end_matches('/').to_owned());
    let host =
        public_url.as_deref().map(|url| url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")));
    if host.is_some_and(|host| host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@'])))
    {
        return Err("public_url (FLOWER_PUBLIC_URL, --public-url): must be like https://monitor.example, without a path; \
                    the path is url_prefix"
            .to_owned());
    }
    let lifetime = values.duration("session_lifetime").unwrap_or(Duration::from_secs(43_200));
    let oidc = oidc(values)?;
    if let Some(what) = oidc.as_ref().filter(|_| public_url.is_none() && !is_loopback(values)) {
        return Err(format!(
            "public_url (FLOWER_PUBLIC_URL, --public-url): must be set, since {} sends browsers back to it",
            what.issuer
        ));
    }
    let oidc = oidc.map(Oidc::new).transpose()?;
    Access::new(AccessOptions { users, secret, lifetime, public_url, oidc })
}

/// What is watched, and who is told.
fn alerts(values: &Layered) -> Result<AlertOptions, String> {
    let hold = values.duration("alert_for").unwrap_or(Duration::from_secs(60)).as_secs_f64();
    let seconds =
        |name: &str| values.duration(name).map(|time| time.as_secs_f64()).filter(|time| *time > 0.0);
    let rate = values.float("alert_failure_rate").filter(|rate| *rate > 0.0);
    let lonely = values.boolean("alert_no_worker").then_some(0.0);
    let thresholds = [
        (Kind::FailureRate, rate),
        (Kind::NoWorker, lonely),
        (Kind::BacklogAge, seconds("alert_backlog_age")),
        (Kind::StuckChord, seconds("alert_stuck_chord")),
    ];
    let rule = |(kind, threshold): (Kind, Option<f64>)| Some(Rule { kind, threshold: threshold?, hold });
    let webhook = values.text("alert_webhook").map(|url| {
        let url = outbound::address(url).map_err(|what| {
            format!("alert_webhook (FLOWER_ALERT_WEBHOOK, --alert-webhook): the address {what}")
        });
        url.map(|url| Arc::new(Webhook::new(url, values.text("alert_webhook_secret"))))
    });
    Ok(AlertOptions {
        rules: thresholds.into_iter().filter_map(rule).collect(),
        webhook: webhook.transpose()?,
    })
}

/// The hash of a password that was read as a line.
///
/// # Errors
/// There is none, or it is too short to be one.
pub fn hash_line(line: &str) -> Result<String, String> {
    let password = line.trim_end_matches(['\r', '\n']);
    if password.chars().count() < MIN_PASSWORD {
        return Err(format!(
            "hash-password: the password on standard input has fewer than {MIN_PASSWORD} characters"
        ));
    }
    secret::hash_password(password)
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
fn address(values: &Layered, nobody: bool) -> Result<SocketAddr, String> {
    let text = values.text("address").unwrap_or_default();
    let ip: IpAddr = match text {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        text => text.parse().map_err(|_| {
            format!("address (FLOWER_ADDRESS, --address): `{text}` is not an IP address, such as 127.0.0.1")
        })?,
    };
    if !ip.is_loopback() && nobody && !values.boolean("insecure_no_auth") {
        return Err(format!(
            "address (FLOWER_ADDRESS, --address): {ip} can be reached from other machines, and nobody is asked who they \
             are: say who may come in with --basic-auth user:password or --users, listen on 127.0.0.1 and put a proxy with \
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
        assert!(config.serve.access.asks() && config.serve.access.takes_passwords());
        let token = format!("ci:viewer:{}", "0a".repeat(32));
        let config = load(&[("FLOWER_TOKENS", &token), ("FLOWER_ADDRESS", "0.0.0.0")]).expect("asked");
        assert!(config.serve.access.asks() && !config.serve.access.takes_passwords());
    }

    #[test]
    fn what_keeps_others_out_is_checked() {
        for (name, value) in [
            ("FLOWER_COOKIE_SECRET", "canary"),
            ("FLOWER_PUBLIC_URL", "monitor.example"),
            ("FLOWER_PUBLIC_URL", "https://u:canary@monitor.example"),
            ("FLOWER_PUBLIC_URL", "https://monitor.example/flower"),
            ("FLOWER_USERS", "anna:admin:canary"),
            ("FLOWER_OIDC_ISSUER", "http://idp.example"),
            ("FLOWER_ALERT_WEBHOOK", "https://u:canary@h/x"),
        ] {
            let told = load(&[(name, value)]).expect_err(value);
            assert!(told.contains(name) && !told.contains("canary"), "{told}");
        }
        let mut oidc = vec![
            ("FLOWER_OIDC_ISSUER", "https://idp.example"),
            ("FLOWER_OIDC_CLIENT_ID", "us"),
            ("FLOWER_OIDC_ROLES", "groups:sre=operator"),
            ("FLOWER_OIDC_CLIENT_SECRET", "canary"),
        ];
        let config = load(&oidc).expect("right");
        assert!(config.serve.access.asks() && config.monitor.control == Control::On);
        assert!(!format!("{config:?}").contains("canary"));
        oidc.push(("FLOWER_ADDRESS", "0.0.0.0"));
        assert!(load(&oidc).is_err_and(|told| told.contains("FLOWER_PUBLIC_URL")));
        assert!(load(&oidc[..1]).is_err_and(|told| told.contains("FLOWER_OIDC_CLIENT_ID")));
        assert!(load(&oidc[..2]).is_err_and(|told| told.contains("FLOWER_OIDC_ROLES")));
        let named = load(&[
            ("FLOWER_ADDRESS", "::"),
            ("FLOWER_BASIC_AUTH", "a:b"),
            ("FLOWER_ALLOWED_HOSTS", "m.example"),
        ])
        .expect("right");
        assert!(named.serve.hosts.allow(Some("m.example")) && !named.serve.hosts.allow(Some("evil.example")));
        assert!(hash_line("short\n").is_err());
        assert!(hash_line("long enough\n").is_ok_and(|hash| {
            secret::Password::parse_hash(&hash).is_ok_and(|known| known.is("long enough"))
        }));
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let file = Some((
            "flower.toml",
            "users = [\"a:admin:$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWE$YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE\"]\nport = 1\nmax_tasks = 5",
        ));
        let flag = |name: &str| (name == "port").then(|| "3".to_owned());
        let env = |name: &str| matches!(name, "FLOWER_PORT" | "FLOWER_MAX_TASKS").then(|| "2".to_owned());
        let config = Config::load(&Sources { flag: &flag, env: &env, file }).expect("right");
        assert_eq!((config.serve.address.port(), config.monitor.limits.max_tasks), (3, 2));
        assert!(config.serve.access.takes_passwords(), "commas in hashes don't separate users");
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
