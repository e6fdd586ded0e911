//! Every setting of the program in one table, and the one place that reads flags, environment and files.
//!
//! The table makes `--help` and docs/configuration.md; [`Config`] is what the values mean. A value comes from the first
//! of flag, environment variable, TOML file, default.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use celery_broker::config::{CLIENT_SETTINGS, Kind, Layered, Setting, Sources};

use crate::auth::Tokens;
use crate::policy::Policy;

/// All settings of this program: its own, and those of every client of the broker.
pub fn settings() -> Vec<Setting> {
    let client = CLIENT_SETTINGS.iter().map(|setting| match setting.name {
        // An API without results is of little use, so here they are on by default.
        "result_backend" => Setting { default: Some("redis://localhost:6379/0"), ..*setting },
        "task_routes" => Setting { flag: "routes", env: "PRODUCER_API_TASK_ROUTES", ..*setting },
        _ => *setting,
    });
    OWN.iter().copied().chain(client).collect()
}

/// The settings of this program alone.
const OWN: &[Setting] = &[
    setting(
        "api_bind",
        "bind",
        "PRODUCER_API_BIND",
        Kind::Text,
        Some("127.0.0.1"),
        "Address to listen on. Other than loopback it needs `api_tokens` or `insecure_no_auth`.",
    ),
    setting(
        "api_port",
        "port",
        "PRODUCER_API_PORT",
        Kind::Integer { min: 0, max: 65_535 },
        Some("8080"),
        "Port to listen on; 0 takes a free one.",
    ),
    Setting {
        secret: true,
        ..setting(
            "api_tokens",
            "tokens",
            "PRODUCER_API_TOKENS",
            Kind::List,
            None,
            "Bearer tokens that clients may use. Without any, no token is asked for.",
        )
    },
    setting(
        "insecure_no_auth",
        "insecure-no-auth",
        "PRODUCER_API_INSECURE_NO_AUTH",
        Kind::Bool,
        Some("false"),
        "Listen beyond loopback without tokens: everybody who reaches the port may run any task.",
    ),
    setting(
        "allow_tasks",
        "allow-tasks",
        "PRODUCER_API_ALLOW_TASKS",
        Kind::List,
        None,
        "Globs of the task names that may be submitted; empty allows all. Holds for callbacks too.",
    ),
    setting(
        "allow_queues",
        "allow-queues",
        "PRODUCER_API_ALLOW_QUEUES",
        Kind::List,
        None,
        "Globs of the queues that may be published to; empty allows all. For a named exchange its name counts.",
    ),
    setting(
        "declare_queues",
        "declare-queues",
        "PRODUCER_API_DECLARE_QUEUES",
        Kind::Bool,
        Some("true"),
        "Declare `task_default_queue` and the queues of `task_routes` when a task finds them missing, as Celery's clients do. Queues that only a client names are never declared.",
    ),
    setting(
        "body_limit",
        "body-limit",
        "PRODUCER_API_BODY_LIMIT",
        Kind::Integer { min: 1024, max: 134_217_728 },
        Some("1048576"),
        "Largest request body in bytes.",
    ),
    setting(
        "batch_limit",
        "batch-limit",
        "PRODUCER_API_BATCH_LIMIT",
        Kind::Integer { min: 1024, max: 134_217_728 },
        Some("8388608"),
        "Largest body of a JSON batch in bytes. A streamed batch has no limit, its lines have `body_limit`.",
    ),
    setting(
        "body_timeout",
        "body-timeout",
        "PRODUCER_API_BODY_TIMEOUT",
        Kind::Duration,
        Some("10s"),
        "Time for a whole request body to arrive; of a streamed batch, for its next line.",
    ),
    setting(
        "json_depth",
        "json-depth",
        "PRODUCER_API_JSON_DEPTH",
        Kind::Integer { min: 4, max: 256 },
        Some("64"),
        "Deepest nesting of a request body.",
    ),
    setting(
        "header_limit",
        "header-limit",
        "PRODUCER_API_HEADER_LIMIT",
        Kind::Integer { min: 4096, max: 131_072 },
        Some("65536"),
        "Largest header table of a message in bytes.",
    ),
    setting(
        "max_in_flight",
        "max-in-flight",
        "PRODUCER_API_MAX_IN_FLIGHT",
        Kind::Integer { min: 1, max: 1_000_000 },
        Some("1000"),
        "Submissions that may wait for the broker at once; more are answered with 503.",
    ),
    setting(
        "max_waits",
        "max-waits",
        "PRODUCER_API_MAX_WAITS",
        Kind::Integer { min: 0, max: 1_000_000 },
        Some("10000"),
        "Requests that may wait for a result at once; more are answered with 429.",
    ),
    setting(
        "max_connections",
        "max-connections",
        "PRODUCER_API_MAX_CONNECTIONS",
        Kind::Integer { min: 1, max: 1_000_000 },
        Some("25000"),
        "Connections that are open at once, never more than the files that the process may open allow; further ones are taken when others have ended.",
    ),
    setting(
        "max_wait",
        "max-wait",
        "PRODUCER_API_MAX_WAIT",
        Kind::Duration,
        Some("30s"),
        "Longest time that one request may wait for a result.",
    ),
    setting(
        "max_eta",
        "max-eta",
        "PRODUCER_API_MAX_ETA",
        Kind::Duration,
        Some("30d"),
        "How far ahead `eta` and `countdown` may lie.",
    ),
    setting(
        "submission_expires",
        "submission-expires",
        "PRODUCER_API_SUBMISSION_EXPIRES",
        Kind::Duration,
        Some("1d"),
        "How long the record of a submission is kept, counted from its `eta`; as long as results are.",
    ),
    setting(
        "walkthrough",
        "walkthrough",
        "PRODUCER_API_WALKTHROUGH",
        Kind::Bool,
        Some("true"),
        "Serve the endpoints of the 2016 walkthrough (`/`, `/results`).",
    ),
    setting(
        "dashboard",
        "dashboard",
        "PRODUCER_API_DASHBOARD",
        Kind::Bool,
        Some("true"),
        "Serve the monitor at `/dashboard`.",
    ),
    setting(
        "http_workers",
        "http-workers",
        "PRODUCER_API_HTTP_WORKERS",
        Kind::Integer { min: 1, max: 1024 },
        None,
        "Threads that serve HTTP. Default: one per processor.",
    ),
    setting(
        "keep_alive",
        "keep-alive",
        "PRODUCER_API_KEEP_ALIVE",
        Kind::Duration,
        Some("75s"),
        "How long an idle connection is kept; longer than a proxy in front keeps its own.",
    ),
    setting(
        "read_timeout",
        "read-timeout",
        "PRODUCER_API_READ_TIMEOUT",
        Kind::Duration,
        Some("30s"),
        "A client that takes nothing of its answer for this long is cut.",
    ),
    setting(
        "drain_delay",
        "drain-delay",
        "PRODUCER_API_DRAIN_DELAY",
        Kind::Duration,
        Some("0"),
        "After SIGTERM: time to go on serving while `/readyz` says 503, for load balancers to notice.",
    ),
    setting(
        "shutdown_timeout",
        "shutdown-timeout",
        "PRODUCER_API_SHUTDOWN_TIMEOUT",
        Kind::Duration,
        Some("15s"),
        "After that: time for requests in progress to end.",
    ),
    setting(
        "log_format",
        "log-format",
        "PRODUCER_API_LOG_FORMAT",
        Kind::Choice(&["json", "text"]),
        Some("json"),
        "How log lines look.",
    ),
    setting(
        "log_level",
        "log-level",
        "PRODUCER_API_LOG",
        Kind::Text,
        Some("info"),
        "What is logged, in `tracing`'s filter syntax: `info`, `warn,http=info`.",
    ),
];

const fn setting(
    name: &'static str,
    flag: &'static str,
    env: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Setting {
    Setting { name, flag, env, kind, default, secret: false, doc }
}

/// What the settings mean.
#[derive(Debug, Clone)]
pub struct Config {
    /// Broker and backend settings, for the [`Celery`](celery_broker::Celery) handle.
    pub client: Layered,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Accepted tokens.
    pub tokens: Tokens,
    /// Allow-lists.
    pub policy: Policy,
    /// The queues that routes lead to.
    pub routed_queues: Vec<String>,
    /// Whether missing queues of the server's own are declared.
    pub declare_queues: bool,
    /// Bounds of requests.
    pub limits: Limits,
    /// Which optional addresses are served.
    pub walkthrough: bool,
    /// Whether the monitor is mounted.
    pub dashboard: bool,
    /// Threads that serve HTTP.
    pub http_workers: Option<usize>,
    /// Open connections.
    pub max_connections: usize,
    /// Idle connections.
    pub keep_alive: Duration,
    /// For a client to take what it was sent.
    pub read_timeout: Duration,
    /// Between SIGTERM and the end of accepting.
    pub drain_delay: Duration,
    /// For requests in progress at the end.
    pub shutdown_timeout: Duration,
    /// JSON log lines, or text.
    pub log_json: bool,
    /// Filter of log lines.
    pub log_level: String,
}

/// Bounds that requests are held to.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of the body of a JSON batch.
    pub batch: usize,
    /// For the whole body to arrive.
    pub body_timeout: Duration,
    /// Nesting of a body.
    pub json_depth: usize,
    /// Bytes of a message's header table.
    pub headers: usize,
    /// Submissions in flight.
    pub in_flight: usize,
    /// Open waits.
    pub waits: usize,
    /// One wait.
    pub wait: Duration,
    /// `eta` and `countdown`.
    pub eta: Duration,
    /// For the broker's confirm, unless the client says otherwise.
    pub publish: Duration,
    /// Life of a submission's record.
    pub submission: Duration,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run the server.
    Serve(Box<Config>),
    /// Print this and end well: `--help`, `--version`.
    Print(String),
}

impl Invocation {
    /// Reads the command line, the environment and the file named by `--config`.
    ///
    /// # Errors
    /// One sentence per mistake: the setting, where its value stands, and what would be right.
    pub fn read() -> Result<Self, String> {
        #[expect(clippy::disallowed_methods, reason = "this is the config.rs that reads the environment")]
        let env = |name: &str| std::env::var(name).ok();
        match command().try_get_matches() {
            Ok(matches) => {
                let path =
                    matches.get_one::<String>("config").cloned().or_else(|| env("PRODUCER_API_CONFIG"));
                let text = match &path {
                    Some(path) => {
                        let text = std::fs::read_to_string(path)
                            .map_err(|err| format!("--config: cannot read {path}: {err}"))?;
                        Some((path.as_str(), text))
                    }
                    None => None,
                };
                let flag = |name: &str| matches.get_one::<String>(name).cloned();
                let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
                Ok(Invocation::Serve(Box::new(Config::load(&Sources { flag: &flag, env: &env, file })?)))
            }
            Err(err) if err.use_stderr() => Err(err.to_string()),
            Err(err) => Ok(Invocation::Print(err.to_string())),
        }
    }
}

/// The command line, made from the tables.
fn command() -> clap::Command {
    let config = clap::Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A TOML file with settings by their names [env: PRODUCER_API_CONFIG]");
    settings().into_iter().filter(|setting| !setting.flag.is_empty()).fold(
        clap::Command::new("producer-api")
            .version(env!("CARGO_PKG_VERSION"))
            .about("HTTP in, Celery messages out: submit tasks, read states and results")
            .disable_help_subcommand(true)
            .arg(config),
        |command, setting| {
            let default = setting.default.map_or(String::new(), |value| format!(" [default: {value}]"));
            let help = format!("{}{default} [env: {}]", setting.doc, setting.env);
            let arg = clap::Arg::new(setting.flag).long(setting.flag).help(help);
            command.arg(match setting.kind {
                // `--flag` alone means true.
                Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ => arg.allow_hyphen_values(true),
            })
        },
    )
}

impl Config {
    /// Reads all settings from the given sources.
    ///
    /// # Errors
    /// One sentence per mistake.
    pub fn load(sources: &Sources<'_>) -> Result<Self, String> {
        let client = Layered::load(&[&settings()], sources).map_err(|err| err.to_string())?;
        let mut problems = Vec::new();
        let size = |name: &str| client.integer(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let time = |name: &str| client.duration(name).unwrap_or_default();
        let bind: Option<IpAddr> = match client.text("api_bind").unwrap_or_default() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            text => text.parse().ok(),
        };
        if bind.is_none() {
            problems.push(format!(
                "api_bind: `{}` is not an IP address; use 127.0.0.1, or 0.0.0.0 for all interfaces",
                client.text("api_bind").unwrap_or_default()
            ));
        }
        let ip = bind.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let port = client.integer("api_port").and_then(|n| u16::try_from(n).ok()).unwrap_or(8080);
        let tokens = Tokens::parse(client.text("api_tokens").unwrap_or_default());
        if !ip.is_loopback() && tokens.is_empty() && !client.boolean("insecure_no_auth") {
            problems.push(format!(
                "api_bind: {ip} is reachable from other machines and no token protects it, so everybody could run any \
                 task; set api_tokens (PRODUCER_API_TOKENS), or listen on 127.0.0.1, or take the risk with \
                 --insecure-no-auth"
            ));
        }
        // Read before, when the value was checked.
        let routers = client.text("task_routes").map(celery_broker::config::routes::parse);
        let routed = routers.and_then(Result::ok).into_iter().flatten().flatten();
        let routed_queues = routed.filter_map(|(_, target)| Some(target.queue?.to_string())).collect();
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        Ok(Config {
            listen: SocketAddr::new(ip, port),
            tokens,
            policy: Policy::new(client.list("allow_tasks"), client.list("allow_queues")),
            routed_queues,
            declare_queues: client.boolean("declare_queues"),
            limits: Limits {
                body: size("body_limit"),
                batch: size("batch_limit"),
                body_timeout: time("body_timeout"),
                json_depth: size("json_depth"),
                headers: size("header_limit"),
                in_flight: size("max_in_flight"),
                waits: size("max_waits"),
                wait: time("max_wait"),
                eta: time("max_eta"),
                publish: time("publish_timeout"),
                submission: time("submission_expires"),
            },
            walkthrough: client.boolean("walkthrough"),
            dashboard: client.boolean("dashboard"),
            http_workers: client.integer("http_workers").and_then(|n| usize::try_from(n).ok()),
            max_connections: size("max_connections"),
            keep_alive: time("keep_alive"),
            read_timeout: time("read_timeout"),
            drain_delay: time("drain_delay"),
            shutdown_timeout: time("shutdown_timeout"),
            log_json: client.text("log_format") == Some("json"),
            log_level: client.text("log_level").unwrap_or("info").to_owned(),
            client,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table() {
        // What differs from other clients is listed here too.
        let own = |setting: &Setting| {
            let values = |one: &Setting| (one.name, one.default, one.env);
            let same = |client: &Setting| values(client) == values(setting);
            !CLIENT_SETTINGS.iter().any(same)
        };
        let table: Vec<Setting> = settings().into_iter().filter(own).collect();
        let text = celery_broker::config::markdown(&table);
        celery_testkit::golden::section("docs/configuration.md", "producer-api", &text);
    }

    fn load(env: &[(&str, &str)]) -> Result<Config, String> {
        let find =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::load(&Sources { flag: &|_| None, env: &find, file: None })
    }

    #[test]
    fn the_defaults_are_loopback_only() {
        let config = load(&[]).expect("defaults");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.limits.body, 1 << 20);
        assert!(config.tokens.is_empty());
    }

    #[test]
    fn beyond_loopback_something_must_protect() {
        let err = load(&[("PRODUCER_API_BIND", "0.0.0.0")]).expect_err("unprotected");
        assert!(err.contains("--insecure-no-auth") && err.contains("PRODUCER_API_TOKENS"), "{err}");
        assert!(load(&[("PRODUCER_API_BIND", "0.0.0.0"), ("PRODUCER_API_TOKENS", "s3cret")]).is_ok());
        assert!(load(&[("PRODUCER_API_BIND", "::"), ("PRODUCER_API_INSECURE_NO_AUTH", "1")]).is_ok());
        assert!(load(&[("PRODUCER_API_BIND", "::1")]).is_ok());
    }

    #[test]
    fn a_bad_value_names_setting_and_remedy() {
        let err = load(&[("PRODUCER_API_PORT", "http")]).expect_err("bad port");
        assert!(
            err.contains("api_port") && err.contains("PRODUCER_API_PORT") && err.contains("65535"),
            "{err}"
        );
        let err = load(&[("PRODUCER_API_BIND", "nowhere")]).expect_err("no address");
        assert!(err.contains("api_bind"), "{err}");
        let err = load(&[("PRODUCER_API_TASK_ROUTES", "a")]).expect_err("no route");
        assert!(err.contains("task_routes") && err.contains("pattern=queue"), "{err}");
        let config = load(&[("PRODUCER_API_TASK_ROUTES", "a.*=one, b=two")]).expect("routes");
        assert_eq!(config.routed_queues, ["one", "two"]);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config = load(&[
            ("PRODUCER_API_TOKENS", "canary1"),
            ("CELERY_BROKER_URL", "amqp://u:canary2@h//"),
            ("CELERY_RESULT_BACKEND", "redis://:canary3@h/0"),
        ])
        .expect("valid");
        let shown = format!("{config:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn help_comes_from_the_table() {
        command().debug_assert();
        let help = command().render_long_help().to_string();
        for setting in settings() {
            assert!(help.contains(&format!("--{}", setting.flag)), "{}", setting.name);
        }
    }
}
