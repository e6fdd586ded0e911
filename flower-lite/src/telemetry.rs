//! Where log lines go, and how they look.

use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Writes log lines to stderr from now on.
///
/// # Errors
/// When the filter can't be read.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{},{}", celery_broker::LOG_DIRECTIVES, config.log_level))
        .map_err(|error| format!("log_level (FLOWER_LOG, --log-level): `{}`: {error}", config.log_level))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails where a program that mounts this one logs already: then its way is right.
    let _ = if config.log_json { log.json().try_init() } else { log.with_ansi(false).try_init() };
    Ok(())
}
