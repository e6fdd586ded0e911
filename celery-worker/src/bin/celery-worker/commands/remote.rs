//! `inspect`, `control`, `status` and `report`: a command to workers, and their answers as Celery prints them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use celery_broker::Celery;
use celery_broker::control::{Destination, Revocation};
use celery_protocol::TaskId;
use celery_protocol::control::{Command as Remote, Reply, Request};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::{UNAVAILABLE, flag, seconds, text};

/// How long a revocation is kept for workers that start later.
const REVOKED_FOR: Duration = Duration::from_secs(10_800);

/// How the words after a command become its arguments.
enum Words {
    /// By position: these names.
    Named(&'static [&'static str]),
    /// After these, all others are one list.
    List(&'static [&'static str], &'static str),
}

const INSPECT: &[(&str, Words)] = &[
    ("active", Words::Named(&[])),
    ("active_queues", Words::Named(&[])),
    ("clock", Words::Named(&[])),
    ("conf", Words::Named(&["with_defaults"])),
    ("memdump", Words::Named(&["samples"])),
    ("memsample", Words::Named(&[])),
    ("objgraph", Words::Named(&["type", "num", "max_depth"])),
    ("ping", Words::Named(&[])),
    ("query_task", Words::List(&[], "ids")),
    ("registered", Words::List(&[], "taskinfoitems")),
    ("report", Words::Named(&[])),
    ("reserved", Words::Named(&[])),
    ("revoked", Words::Named(&[])),
    ("scheduled", Words::Named(&[])),
    ("stats", Words::Named(&[])),
];

const CONTROL: &[(&str, Words)] = &[
    ("add_consumer", Words::Named(&["queue", "exchange", "exchange_type", "routing_key"])),
    ("autoscale", Words::Named(&["max", "min"])),
    ("cancel_consumer", Words::Named(&["queue"])),
    ("disable_events", Words::Named(&[])),
    ("election", Words::Named(&["id", "topic", "action"])),
    ("enable_events", Words::Named(&[])),
    ("heartbeat", Words::Named(&[])),
    ("pool_grow", Words::Named(&["n"])),
    ("pool_restart", Words::Named(&[])),
    ("pool_shrink", Words::Named(&["n"])),
    ("rate_limit", Words::Named(&["task_name", "rate_limit"])),
    ("revoke", Words::List(&[], "task_id")),
    ("revoke_by_stamped_headers", Words::List(&[], "headers")),
    ("shutdown", Words::Named(&[])),
    ("terminate", Words::List(&["signal"], "task_id")),
    ("time_limit", Words::Named(&["task_name", "soft", "hard"])),
];

pub(super) fn arguments(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let command = command
        .arg(
            text("timeout")
                .short('t')
                .value_parser(seconds)
                .default_value("1")
                .help("How long workers may take to answer"),
        )
        .arg(text("destination").short('d').help("Names of workers, separated by commas; all if left out"))
        .arg(flag("json", 'j', "Print the answers as JSON"));
    match name.as_str() {
        "inspect" | "control" => command
            .arg(Arg::new("method").required(true).help(listed(&name)))
            .arg(Arg::new("words").num_args(0..).action(ArgAction::Append).help("What the command is about")),
        _ => command,
    }
}

fn table(kind: &str) -> &'static [(&'static str, Words)] {
    if kind == "control" { CONTROL } else { INSPECT }
}

fn listed(kind: &str) -> String {
    table(kind).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The request that words stand for; checked as a worker would.
fn request(kind: &str, method: &str, words: &[String]) -> Result<Remote> {
    let Some((_, shape)) = table(kind).iter().find(|(name, _)| *name == method) else {
        bail!("{kind} {method}: no such command; there are {}", listed(kind));
    };
    let (names, rest) = match shape {
        Words::Named(names) => (*names, None),
        Words::List(names, rest) => (*names, Some(*rest)),
    };
    if rest.is_none() && words.len() > names.len() {
        bail!("{kind} {method}: {} is one word too many", words.last().map_or("", String::as_str));
    }
    let mut arguments = Map::new();
    for (name, word) in names.iter().zip(words) {
        let value = match (*name, word.as_str()) {
            ("with_defaults", word) => json!(matches!(word, "1" | "yes" | "true" | "on")),
            (_, word) => json!(word),
        };
        arguments.insert((*name).to_owned(), value);
    }
    if let Some(rest) = rest {
        let words: Vec<&String> = words.iter().skip(names.len()).collect();
        arguments.insert(rest.to_owned(), json!(words));
    }
    Remote::parse(&Request::new(method, arguments)).map_err(|error| anyhow!("{kind} {method}: {error}"))
}

pub(super) async fn ask(celery: &Celery, kind: &str, matches: &ArgMatches) -> Result<ExitCode> {
    let words: Vec<String> = match kind {
        "inspect" | "control" => matches.get_many("words").into_iter().flatten().cloned().collect(),
        _ => Vec::new(),
    };
    let (kind, method) = match kind {
        "status" => ("inspect", "ping"),
        "report" => ("inspect", "report"),
        other => (other, matches.get_one::<String>("method").map_or("", String::as_str)),
    };
    let command = request(kind, method, &words)?;
    let to = match matches.get_one::<String>("destination") {
        Some(names) => Destination::Nodes(names.split(',').map(|name| name.trim().to_owned()).collect()),
        None => Destination::All,
    };
    if let Remote::Revoke { ids, .. } = &command {
        keep(celery, ids).await;
    }
    let timeout = matches.get_one::<Duration>("timeout").copied().unwrap_or(Duration::from_secs(1));
    let mut replies = celery.control().call(&command, to, timeout).await?;
    replies.sort_by(|a, b| a.node.cmp(&b.node));
    if replies.is_empty() && !matches!(command, Remote::Shutdown) {
        eprintln!("Error: No nodes replied within time constraint");
        return Ok(ExitCode::from(UNAVAILABLE));
    }
    let shown = if matches.get_flag("json") { json_text(&replies) } else { plain(&replies) };
    writeln!(std::io::stdout(), "{shown}")?;
    Ok(ExitCode::SUCCESS)
}

/// Workers that are away or start later are to know it too.
async fn keep(celery: &Celery, ids: &[String]) {
    let Some(cluster) = celery.cluster() else { return };
    let ids = ids.iter().filter_map(|id| TaskId::parse(id.as_str()).ok()).map(Revocation::Task);
    if let Err(err) = cluster.revoke(&ids.collect::<Vec<_>>(), REVOKED_FOR).await {
        eprintln!("Warning: the revocation is not kept for workers that start later: {err}");
    }
}

fn json_text(replies: &[Reply]) -> String {
    let all: Map<String, Value> =
        replies.iter().map(|reply| (reply.node.clone(), reply.value.clone())).collect();
    Value::Object(all).to_string()
}

/// `->  node: OK`, the answer, and how many answered.
fn plain(replies: &[Reply]) -> String {
    let mut out = String::new();
    for Reply { node, value } in replies {
        let (status, body) = match value.as_object().and_then(|object| object.iter().next()) {
            Some((key, text)) if key == "ok" => ("OK", lines(text)),
            Some((key, text)) if key == "error" => ("ERROR", lines(text)),
            _ => ("OK", lines(value)),
        };
        out.push_str(&format!("->  {node}: {status}\n"));
        for line in body.lines() {
            out.push_str(&format!("        {line}\n"));
        }
    }
    let nodes = if replies.len() == 1 { "node" } else { "nodes" };
    out.push_str(&format!("\n{} {nodes} online.", replies.len()));
    out
}

fn lines(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "- empty -".to_owned(),
        Value::Array(items) => {
            let shown =
                |item: &Value| format!("* {}", item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            items.iter().map(shown).collect::<Vec<_>>().join("\n")
        }
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_become_arguments_in_celerys_order() {
        for (kind, method, line, expected) in [
            ("inspect", "ping", "", Remote::Ping),
            (
                "control",
                "time_limit",
                "t 5 7.5",
                Remote::TimeLimit { task_name: "t".into(), hard: Some(7.5), soft: Some(5.0) },
            ),
            (
                "control",
                "terminate",
                "KILL a b",
                Remote::Terminate { ids: words("a b"), signal: "KILL".into() },
            ),
            ("inspect", "query_task", "a", Remote::QueryTask { ids: words("a") }),
            ("control", "autoscale", "3", Remote::Autoscale { max: Some(3), min: None }),
            ("inspect", "conf", "yes", Remote::Conf { with_defaults: true }),
        ] {
            assert_eq!(request(kind, method, &words(line)).unwrap(), expected, "{kind} {method} {line}");
        }
    }

    #[test]
    fn what_a_worker_would_refuse_is_not_sent() {
        for (kind, method, line, problem) in [
            ("inspect", "shutdown", "", "no such command; there are active"),
            ("control", "pool_grow", "1 2", "2 is one word too many"),
            ("control", "pool_grow", "x", "must be a number"),
            ("control", "cancel_consumer", "", "missing 1 required"),
        ] {
            let error = request(kind, method, &words(line)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn answers_look_like_celerys() {
        let replies = [
            Reply { node: "a@h".into(), value: json!({"ok": "pong"}) },
            Reply { node: "b@h".into(), value: json!([]) },
            Reply { node: "c@h".into(), value: json!({"error": "no"}) },
        ];
        let text = "->  a@h: OK\n        pong\n->  b@h: OK\n        - empty -\n->  c@h: ERROR\n        no\n\n3 nodes online.";
        assert_eq!(plain(&replies), text);
    }
}
