//! The command line: Celery's flags, made from the table of settings, and what is accepted only so that scripts
//! written for Celery keep working.

use celery_broker::config::{Kind, Setting};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::TABLES;

/// Celery's short flags by their long names.
const SHORT: &[(&str, char)] = &[
    ("broker", 'b'),
    ("concurrency", 'c'),
    ("exclude-queues", 'X'),
    ("hostname", 'n'),
    ("logfile", 'f'),
    ("loglevel", 'l'),
    ("pool", 'P'),
    ("queues", 'Q'),
    ("schedule", 's'),
    ("statedb", 'S'),
    ("task-events", 'E'),
];

/// Flags of Celery that take a value and mean nothing here: name, short, and why.
const IGNORED_WITH_VALUE: &[(&str, Option<char>, &str)] = &[
    ("app", Some('A'), "tasks are compiled in"),
    ("include", Some('I'), "tasks are compiled in"),
    ("optimization", Some('O'), "tasks start as soon as a slot is free"),
    ("workdir", None, "start the program where it is to run"),
    ("loader", None, "tasks are compiled in"),
];

/// Flags of Celery without value that mean nothing here.
const IGNORED: &[(&str, Option<char>, &str)] = &[
    ("without-gossip", None, "this worker does not gossip"),
    ("no-color", None, "the log has no colours"),
    ("skip-checks", None, "there are none"),
];

/// Flags of Celery that would mean something else than asked if they were ignored.
const REFUSED: &[(&str, Option<char>, &str)] = &[
    ("detach", Some('D'), "let systemd, Kubernetes or a shell put it into the background"),
    ("purge", None, "purge queues with `celery purge` or RabbitMQ's own tools"),
];

/// The command line.
pub(crate) fn command(tables: &[&[Setting]]) -> Command {
    let about = "Runs Celery tasks written in Rust: the demo tasks of Celeriac.";
    let mut command = Command::new("celery-worker")
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("Other commands, each with a --help of its own: inspect, control, status, report, call, result, purge, events.\n\nEach setting can also come from its environment variable or from the file of --config.")
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("TOML file with settings by their names"),
        )
        .arg(
            Arg::new("healthcheck")
                .long("healthcheck")
                .value_name("live|ready")
                .value_parser(["live", "ready"])
                .help("Ask the worker that keeps the health file, and end: 0 means yes"),
        )
        .arg(flag("quiet", Some('q')).help("Print no banner"))
        .arg(
            flag("beat", Some('B')).help("Send periodic tasks too, by the table `beat_schedule` of the file"),
        )
        .arg(flag("without-heartbeat", None).help("Send no heartbeat events"))
        .arg(flag("without-mingle", None).help("Do not greet the other workers at start"));
    for setting in tables.iter().flat_map(|table| table.iter()).filter(|setting| !setting.flag.is_empty()) {
        command = command.arg(argument(setting));
    }
    for (name, short, why) in IGNORED_WITH_VALUE {
        command = command.arg(with_short(Arg::new(*name).long(*name), *short).hide(true).help(*why));
    }
    for (name, short, why) in IGNORED.iter().chain(REFUSED) {
        command = command.arg(flag(name, *short).hide(true).help(*why));
    }
    command
}

fn argument(setting: &Setting) -> Arg {
    let short = SHORT.iter().find(|(long, _)| *long == setting.flag).map(|(_, short)| *short);
    let arg = with_short(Arg::new(setting.flag).long(setting.flag), short);
    let mut help = setting.doc.to_owned();
    if let Some(default) = setting.default.filter(|_| !setting.secret) {
        help.push_str(&format!(" [default: {default}]"));
    }
    if !setting.env.is_empty() {
        help.push_str(&format!(" [env: {}]", setting.env));
    }
    let arg = arg.help(help);
    match setting.kind {
        // `-E` and `--task-events=false` both work.
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg.value_name("VALUE"),
    }
}

fn flag(name: &'static str, short: Option<char>) -> Arg {
    with_short(Arg::new(name).long(name), short).action(ArgAction::SetTrue)
}

fn with_short(arg: Arg, short: Option<char>) -> Arg {
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// The arguments without the word `worker`, which Celery's command line has between its global options and the
/// worker's: `celery -A proj worker -l info`.
pub(crate) fn without_subcommand(args: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = false;
    let mut after_option = false;
    let mut kept = Vec::new();
    for (index, arg) in args.into_iter().enumerate() {
        let is_word = index > 0 && !seen && !after_option && arg == "worker";
        after_option = takes_value(&arg);
        if is_word {
            seen = true;
            continue;
        }
        kept.push(arg);
    }
    kept
}

/// The first argument that is neither an option nor the value of one.
pub(crate) fn first_word(args: &[String]) -> Option<&str> {
    let mut after_option = false;
    for arg in args.iter().skip(1) {
        if !after_option && !arg.starts_with('-') {
            return Some(arg);
        }
        after_option = takes_value(arg);
    }
    None
}

/// Whether the next argument is this one's value, so that a queue may be called `worker`.
fn takes_value(arg: &str) -> bool {
    let valued = |long: &str| {
        let of_setting = |setting: &Setting| setting.flag == long && setting.kind != Kind::Bool;
        TABLES.iter().copied().flatten().any(of_setting)
            || IGNORED_WITH_VALUE.iter().any(|(name, ..)| *name == long)
            || long == "config"
    };
    if let Some(long) = arg.strip_prefix("--") {
        return valued(long);
    }
    let mut letters = arg.strip_prefix('-').into_iter().flat_map(str::chars);
    let (Some(letter), None) = (letters.next(), letters.next()) else { return false };
    SHORT.iter().any(|(long, short)| *short == letter && valued(long))
        || IGNORED_WITH_VALUE.iter().any(|(_, short, _)| *short == Some(letter))
}

/// What to say about flags that were given and are ignored; or the one that is refused.
///
/// # Errors
/// A flag that would mean something else than asked if it were ignored, with what to do instead.
pub(crate) fn notes(matches: &ArgMatches) -> Result<Vec<String>, String> {
    for (name, _, instead) in REFUSED {
        if matches.get_flag(name) {
            return Err(format!("--{name} is not supported: {instead}"));
        }
    }
    let valued = IGNORED_WITH_VALUE.iter().filter(|(name, ..)| matches.contains_id(name));
    let bare = IGNORED.iter().filter(|(name, ..)| matches.get_flag(name));
    Ok(valued
        .chain(bare)
        .map(|(name, _, why)| format!("--{name} is accepted and does nothing: {why}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ArgMatches, clap::Error> {
        let args = std::iter::once("celery-worker").chain(args.iter().copied()).map(str::to_owned);
        command(&TABLES).try_get_matches_from(without_subcommand(args))
    }

    #[test]
    fn celerys_command_lines_are_understood() {
        let line = "-A proj worker -l info -c 4 -n w1@%h -Q celery,mail -E -O fair --without-gossip --prefetch-multiplier 8";
        let matches = parse(&line.split(' ').collect::<Vec<_>>()).unwrap();
        let value = |name: &str| matches.get_one::<String>(name).map(String::as_str);
        assert_eq!(value("loglevel"), Some("info"));
        assert_eq!(value("concurrency"), Some("4"));
        assert_eq!(value("hostname"), Some("w1@%h"));
        assert_eq!(value("queues"), Some("celery,mail"));
        assert_eq!(value("task-events"), Some("true"));
        assert_eq!(value("prefetch-multiplier"), Some("8"));
        assert_eq!(notes(&matches).unwrap().len(), 3);
    }

    #[test]
    fn only_the_subcommand_is_dropped() {
        let kept = |line: &str| without_subcommand(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(kept("x worker -Q worker"), "x -Q worker");
        assert_eq!(kept("x --queues worker"), "x --queues worker");
        assert_eq!(kept("x -E worker"), "x -E");
        assert_eq!(kept("x -A worker worker"), "x -A worker");
    }

    #[test]
    fn what_would_be_misunderstood_is_refused() {
        let refusal = notes(&parse(&["-D"]).unwrap()).unwrap_err();
        assert!(refusal.contains("systemd"), "{refusal}");
        assert!(parse(&["-B", "-s", "state.json"]).unwrap().get_flag("beat"));
        assert!(parse(&["--no-such-flag"]).is_err());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command(&TABLES).debug_assert();
    }
}
