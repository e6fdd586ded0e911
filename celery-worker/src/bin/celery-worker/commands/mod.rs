//! Celery's other commands, for those who have no Python: `inspect`, `control`, `status`, `report`, `call`, `result`,
//! `purge`, `events`. They work on Python's workers as on ours.

mod events;
mod remote;
mod tasks;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use celery_broker::Celery;
use celery_broker::config::{CLIENT_SETTINGS, Kind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{cli, config};

/// Celery's status for "nobody answered" (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// How long the connections may take to close at the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// The commands by name, with what they do.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("inspect", "Ask workers something"),
    ("control", "Tell workers to change something"),
    ("status", "Name the workers that are online"),
    ("report", "Ask workers for what a bug report needs"),
    ("call", "Call a task by name and print its id"),
    ("result", "Print the result of a task"),
    ("purge", "Delete all messages of queues"),
    ("events", "Print events as they come"),
];

/// Runs the command that the arguments name, if they name one.
pub(crate) fn run(args: &[String]) -> Option<ExitCode> {
    cli::first_word(args).filter(|word| NAMES.iter().any(|(name, _)| name == word))?;
    let matches = command().get_matches_from(args);
    Some(match execute(&matches) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// All commands. Which settings there are is the table's word.
fn command() -> Command {
    let mut top = Command::new("celery-worker")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg(text("config").value_name("FILE").global(true).help("TOML file with settings by their names"))
        .arg(text("app").short('A').global(true).hide(true));
    for setting in CLIENT_SETTINGS.iter().filter(|setting| !setting.flag.is_empty()) {
        let arg = text(setting.flag).global(true).help(setting.doc);
        let arg = if setting.flag == "broker" { arg.short('b') } else { arg };
        let arg = match setting.kind {
            Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        };
        top = top.arg(arg);
    }
    for (name, about) in NAMES {
        let command = Command::new(*name).about(*about);
        top = top.subcommand(match *name {
            "call" | "result" | "purge" => tasks::arguments(command),
            "events" => events::arguments(command),
            _ => remote::arguments(command),
        });
    }
    top
}

fn text(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

fn flag(name: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(name).long(name).short(short).action(ArgAction::SetTrue).help(help)
}

fn execute(matches: &ArgMatches) -> Result<ExitCode> {
    let (name, matches) = matches.subcommand().context("no command")?;
    let (config, _) = config::load(matches)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no threads")?;
    runtime.block_on(async {
        let celery = Celery::builder("celery-worker").settings(&config).connect().await?;
        let done = match name {
            "call" => tasks::call(&celery, matches).await,
            "result" => tasks::result(&celery, matches).await,
            "purge" => tasks::purge(&celery, matches).await,
            "events" => events::dump(&celery).await,
            other => remote::ask(&celery, other, matches).await,
        };
        let _ = tokio::time::timeout(CLOSE_DEADLINE, celery.close()).await;
        done
    })
}

/// A number of seconds, `2`, `0.5` or `1m`.
fn seconds(text: &str) -> Result<Duration, String> {
    celery_broker::config::parse_duration(text)
        .ok_or_else(|| "write seconds, such as 2, 0.5 or 1m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn commands_are_found_behind_global_options() {
        let word = |line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            cli::first_word(&args).map(str::to_owned)
        };
        assert_eq!(word("x -A proj -b amqp://h inspect active").as_deref(), Some("inspect"));
        assert_eq!(word("x -Q control -c 2"), None);
        assert_eq!(word("x worker -Q purge").as_deref(), Some("worker"));
    }
}
