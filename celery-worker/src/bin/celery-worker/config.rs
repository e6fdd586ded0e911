//! Where settings come from: the only place of this program that reads environment and files.

use anyhow::{Context, Result, anyhow};
use celery_broker::config::{CLIENT_SETTINGS, Layered, Setting, Sources};
use celery_worker::beat::entry::{self, Entry};
use celery_worker::config::{BEAT_SETTINGS, SETTINGS};
use clap::ArgMatches;

/// All tables of this program.
pub(crate) const TABLES: [&[Setting]; 3] = [CLIENT_SETTINGS, SETTINGS, BEAT_SETTINGS];

/// Reads all settings: command line, then environment, then the file of `--config`, then defaults. The file may hold the
/// schedule of a beat, too.
pub(crate) fn load(matches: &ArgMatches) -> Result<(Layered, Vec<Entry>)> {
    let path = matches.try_get_one::<String>("config").ok().flatten();
    let file = match path {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("--config: cannot read {path}"))?;
            Some((path.as_str(), entry::take(&text).map_err(|error| anyhow!("{path}: {error}"))?))
        }
        None => None,
    };
    let flag = |name: &str| flag(matches, name);
    let text = file.as_ref().map(|(path, (rest, _))| (*path, rest.as_str()));
    let settings = Layered::load(&TABLES, &Sources { flag: &flag, env: &env, file: text })?;
    Ok((settings, file.map(|(_, (_, entries))| entries).unwrap_or_default()))
}

fn flag(matches: &ArgMatches, name: &str) -> Option<String> {
    // The other commands do not have the worker's flags.
    if name == "heartbeat-interval" && matches.try_get_one("without-heartbeat").ok().flatten() == Some(&true)
    {
        return Some("0".to_owned());
    }
    matches.try_get_one::<String>(name).ok().flatten().cloned()
}

/// A variable of the environment; one that is empty counts as not set.
#[expect(clippy::disallowed_methods, reason = "this is config.rs")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
