//! Where settings come from: the only place of this program that reads environment and files.

use anyhow::{Context, Result};
use celery_broker::config::{CLIENT_SETTINGS, Layered, Sources};
use celery_worker::config::SETTINGS;
use clap::ArgMatches;

/// Reads all settings: command line, then environment, then the file of `--config`, then defaults.
pub(crate) fn load(matches: &ArgMatches) -> Result<Layered> {
    let path = matches.try_get_one::<String>("config").ok().flatten();
    let text = match path {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("--config: cannot read {path}"))?)
        }
        None => None,
    };
    let file = path.zip(text.as_ref()).map(|(path, text)| (path.as_str(), text.as_str()));
    let flag = |name: &str| flag(matches, name);
    Ok(Layered::load(&[CLIENT_SETTINGS, SETTINGS], &Sources { flag: &flag, env: &env, file })?)
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
