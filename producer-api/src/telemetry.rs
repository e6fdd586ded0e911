//! Log lines and measurements of the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Seconds that an answer or a confirm usually takes, and a bit more.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Writes log lines to stderr as the configuration says.
///
/// # Errors
/// The filter cannot be read; the setting is named.
pub fn init_log(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{},{}", celery_broker::LOG_DIRECTIVES, config.log_level))
        .map_err(|err| {
            format!("log_level: `{}` is not a filter such as info or warn,http=info: {err}", config.log_level)
        })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as in tests, changes nothing.
    let _ = if config.log_json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
    Ok(())
}

/// The process's recorder of measurements, installed on the first call.
pub fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder =
                match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS) {
                    Ok(builder) => builder,
                    Err(_) => PrometheusBuilder::new(),
                };
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Somebody else's recorder stays; then this one renders nothing.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}
