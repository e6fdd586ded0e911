//! Command line, environment and file of `celery-beat`: the only place of this program that reads them.

use anyhow::{Context, Result, anyhow, bail};
use celery_broker::Celery;
use celery_broker::config::{CLIENT_SETTINGS, Layered, Sources};
use celery_worker::beat::entry::{self, Entry};
use celery_worker::beat::{self, Beat};
use celery_worker::config::{BEAT_PROGRAM_SETTINGS, BEAT_SETTINGS};
use celery_worker::health::Question;
use clap::{Arg, ArgMatches, Command};
use tracing_subscriber::EnvFilter;

/// All of it.
pub(crate) struct Config {
    /// The settings.
    pub(crate) settings: Layered,
    /// The schedule.
    pub(crate) entries: Vec<Entry>,
}

impl Config {
    /// The client and the beat that these settings describe.
    pub(crate) fn beat(self) -> Result<(Celery, Beat)> {
        let builder = Celery::builder("celery-beat").settings(&self.settings);
        let celery = beat::client(builder, &self.settings).start()?;
        let beat = Beat::from_config(celery.clone(), &self.settings)?.entries(self.entries);
        Ok((celery, beat))
    }
}

/// The command line.
pub(crate) fn command() -> Command {
    let mut command = Command::new("celery-beat")
        .about("Sends periodic tasks by the table `beat_schedule` of the configuration file.")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("TOML file with settings and `beat_schedule`"),
        )
        .arg(
            Arg::new("healthcheck")
                .long("healthcheck")
                .value_name("live|ready")
                .value_parser(["live", "ready"])
                .help("Ask the beat that keeps the health file, and end: 0 means yes"),
        )
        .arg(Arg::new("app").long("app").short('A').hide(true).help("accepted and does nothing"));
    for setting in [CLIENT_SETTINGS, BEAT_SETTINGS, BEAT_PROGRAM_SETTINGS].concat() {
        if setting.flag.is_empty() {
            continue;
        }
        let arg = Arg::new(setting.flag).long(setting.flag).value_name("VALUE").help(setting.doc);
        command = command.arg(match setting.flag {
            "broker" => arg.short('b'),
            "schedule" => arg.short('s'),
            "loglevel" => arg.short('l'),
            _ => arg,
        });
    }
    command
}

/// Reads everything.
pub(crate) fn load(matches: &ArgMatches) -> Result<Config> {
    let Some(path) = path(matches) else {
        bail!("there is no schedule: name a TOML file with a table `beat_schedule` by --config");
    };
    read(matches, Some(&path))
}

/// What a probe asks, and the settings that say which file has the answer; `None` if this is to be a beat.
pub(crate) fn question(matches: &ArgMatches) -> Result<Option<(Question, Layered)>> {
    let Some(question) = matches.get_one::<String>("healthcheck") else { return Ok(None) };
    let question = if question == "ready" { Question::Ready } else { Question::Live };
    Ok(Some((question, read(matches, path(matches).as_deref())?.settings)))
}

fn path(matches: &ArgMatches) -> Option<String> {
    matches.get_one::<String>("config").cloned().or_else(|| env("CELERY_CONFIG"))
}

fn read(matches: &ArgMatches, path: Option<&str>) -> Result<Config> {
    let flag = |name: &str| matches.get_one::<String>(name).cloned();
    let (file, entries) = match path {
        None => (None, Vec::new()),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--config: cannot read {path}"))?;
            let (rest, entries) = entry::take(&text).map_err(|error| anyhow!("{path}: {error}"))?;
            (Some((path, rest)), entries)
        }
    };
    let file = file.as_ref().map(|(path, rest)| (*path, rest.as_str()));
    let sources = Sources { flag: &flag, env: &env, file };
    let settings = Layered::load(&[CLIENT_SETTINGS, BEAT_SETTINGS, BEAT_PROGRAM_SETTINGS], &sources)?;
    Ok(Config { settings, entries })
}

/// Turns the log on.
pub(crate) fn start_log(settings: &Layered) -> Result<()> {
    let level = settings.text("beat_loglevel").unwrap_or("info").to_ascii_lowercase();
    let level = if level == "warning" { "warn" } else { &level };
    let directives = env("RUST_LOG").unwrap_or_else(|| {
        format!(
            "{},warn,celery_beat={level},celery_worker={level},celery_broker={level}",
            celery_broker::LOG_DIRECTIVES
        )
    });
    let filter = EnvFilter::try_new(&directives).with_context(|| format!("log filter {directives:?}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// A variable of the environment; one that is empty counts as not set.
#[expect(clippy::disallowed_methods, reason = "this is config.rs")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
