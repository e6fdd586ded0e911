//! Settings and URLs.
//!
//! [`routes`] reads `task_routes`. [`table`] is the one table type from which each program reads its settings, whatever their source, and from which
//! `docs/configuration.md` is made. [`url`] reads broker and result-backend URLs as Celery writes them. Nothing in here
//! prints a secret.

pub mod routes;
pub mod table;
pub mod url;
mod zone;

pub use table::{ConfigError, Kind, Layered, Setting, Source, Sources, markdown, parse_duration};
pub use url::{BackendUrl, BrokerUrls, RedisUrl, redact};

/// The settings that every program with a [`Celery`](crate::Celery) handle has.
pub const CLIENT_SETTINGS: &[Setting] = &[
    Setting {
        name: "broker_url",
        flag: "broker",
        env: "CELERY_BROKER_URL",
        kind: Kind::Text,
        default: Some("amqp://guest:guest@localhost:5672//"),
        secret: true,
        doc: "RabbitMQ, `amqp://user:password@host:port/vhost` or `amqps://…`. Several, separated by `;`, are tried in turn.",
    },
    Setting {
        name: "result_backend",
        flag: "result-backend",
        env: "CELERY_RESULT_BACKEND",
        kind: Kind::Text,
        default: None,
        secret: true,
        doc: "Where results go: `redis://:password@host:port/db`, `rediss://…?ssl_cert_reqs=required`, `rpc://` (to the caller), or `disabled://`.",
    },
    Setting {
        name: "task_default_queue",
        flag: "default-queue",
        env: "CELERY_TASK_DEFAULT_QUEUE",
        kind: Kind::Text,
        default: Some("celery"),
        secret: false,
        doc: "Queue of tasks that no route names.",
    },
    Setting {
        name: "task_routes",
        flag: "",
        env: "CELERY_TASK_ROUTES",
        kind: Kind::Routes,
        default: None,
        secret: false,
        doc: "Where tasks go that do not say, by name, glob (`mail.*`) or regular expression (`^mail\\.`): the name of a queue, or a table of options. In the environment as JSON, or short, `mail.*=mail,shop.report=reports`.",
    },
    Setting {
        name: "result_expires",
        flag: "result-expires",
        env: "CELERY_RESULT_EXPIRES",
        kind: Kind::Duration,
        default: Some("1d"),
        secret: false,
        doc: "How long results are kept; 0 keeps them for ever.",
    },
    Setting {
        name: "result_failure_expires",
        flag: "result-failure-expires",
        env: "CELERY_RESULT_FAILURE_EXPIRES",
        kind: Kind::Duration,
        default: None,
        secret: false,
        doc: "How long failures are kept; 0 keeps them for ever. Default: as `result_expires`.",
    },
    Setting {
        name: "chord_deadline",
        flag: "chord-deadline",
        env: "CELERY_CHORD_DEADLINE",
        kind: Kind::Duration,
        default: Some("12h"),
        secret: false,
        doc: "How long nothing may happen in a chord before it ends as FAILURE, because a member was lost; 0 waits for ever, as Celery does. Shorter than `result_expires`.",
    },
    Setting {
        name: "broker_connection_timeout",
        flag: "broker-connection-timeout",
        env: "CELERY_BROKER_CONNECTION_TIMEOUT",
        kind: Kind::Duration,
        default: Some("10s"),
        secret: false,
        doc: "Time for TCP, TLS and AMQP handshake of one connection attempt.",
    },
    Setting {
        name: "broker_heartbeat",
        flag: "broker-heartbeat",
        env: "CELERY_BROKER_HEARTBEAT",
        kind: Kind::Duration,
        default: Some("10s"),
        secret: false,
        doc: "AMQP heartbeat; a silent broker is given up after twice this time.",
    },
    Setting {
        name: "publish_timeout",
        flag: "publish-timeout",
        env: "CELERY_PUBLISH_TIMEOUT",
        kind: Kind::Duration,
        default: Some("5s"),
        secret: false,
        doc: "Time for the broker to confirm a message before its fate counts as unknown.",
    },
    Setting {
        name: "task_send_sent_event",
        flag: "task-send-sent-event",
        env: "CELERY_TASK_SEND_SENT_EVENT",
        kind: Kind::Bool,
        default: Some("false"),
        secret: false,
        doc: "Send a `task-sent` event with each task.",
    },
    Setting {
        name: "result_global_keyprefix",
        flag: "result-global-keyprefix",
        env: "CELERY_RESULT_GLOBAL_KEYPREFIX",
        kind: Kind::Text,
        default: None,
        secret: false,
        doc: "Prefix of all keys in Redis (Celery: `result_backend_transport_options.global_keyprefix`).",
    },
];

/// The name of this machine, as Celery puts it into node names.
pub fn hostname() -> String {
    // The kernel's name, also inside containers, where /etc/hostname may be missing.
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Hours west of UTC right now, as events carry them: New York 5.0 (in summer 4.0), Oslo -1.0.
pub fn hours_west_of_utc() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let zone = std::env::var("TZ").ok();
    zone::hours_west_of_utc(zone.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table() {
        celery_testkit::golden::section("docs/configuration.md", "clients", &markdown(CLIENT_SETTINGS));
    }
}
