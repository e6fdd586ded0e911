//! The log: lines as Celery writes them, or JSON.

use std::fmt;
use std::fs::OpenOptions;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use celery_broker::config::Layered;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Turns the log on. `logfile` is the expanded path, if the log goes to a file.
pub(crate) fn start(config: &Layered, logfile: Option<&str>) -> Result<()> {
    let level = config.text("worker_loglevel").unwrap_or("WARNING");
    let directives = super::config::env("RUST_LOG").map_or_else(|| filter(level), Ok)?;
    let filter = EnvFilter::try_new(&directives).with_context(|| format!("log filter {directives:?}"))?;
    let writer = match logfile {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            BoxMakeWriter::new(Mutex::new(file.with_context(|| format!("--logfile: cannot open {path}"))?))
        }
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    if config.text("worker_log_format") == Some("json") {
        builder.json().init();
    } else {
        builder.event_format(CeleryLines).init();
    }
    Ok(())
}

/// A filter for one of Celery's level names. Libraries below speak up one level later.
fn filter(level: &str) -> Result<String> {
    let (own, others) = match level.to_ascii_uppercase().as_str() {
        "DEBUG" => ("debug", "info"),
        "INFO" => ("info", "warn"),
        "WARNING" | "WARN" => ("warn", "warn"),
        "ERROR" => ("error", "error"),
        "CRITICAL" | "FATAL" => ("error", "error"),
        other => bail!("--loglevel {other}: use DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    };
    Ok(format!(
        "{},{others},celery_worker={own},celery_broker={own},celery_protocol={own}",
        celery_broker::LOG_DIRECTIVES
    ))
}

/// `[2026-11-24 05:31:00,123: INFO/MainProcess] message field=value`
struct CeleryLines;

impl<S, N> FormatEvent<S, N> for CeleryLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        write!(out, "[{}: {level}/MainProcess] ", python_time(&time))?;
        // A task's own lines say which task they belong to.
        if let Some(span) = ctx.lookup_current().filter(|span| span.name() == "task") {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<tracing_subscriber::fmt::FormattedFields<N>>() {
                write!(out, "{{{fields}}} ")?;
            }
        }
        ctx.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// `2026-11-24T05:31:00.123456Z` as Python's logging writes it: `2026-11-24 05:31:00,123`.
fn python_time(rfc3339: &str) -> String {
    let cut = rfc3339.get(..23).unwrap_or(rfc3339);
    cut.replacen('T', " ", 1).replacen('.', ",", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn celerys_level_names_make_a_filter() {
        for level in ["debug", "INFO", "Warning", "error", "CRITICAL"] {
            assert!(EnvFilter::try_new(filter(level).unwrap()).is_ok(), "{level}");
        }
        assert!(filter("loud").unwrap_err().to_string().contains("use DEBUG"));
    }

    #[test]
    fn times_look_like_pythons() {
        assert_eq!(python_time("2026-11-24T05:31:00.123456Z"), "2026-11-24 05:31:00,123");
    }
}
