//! What is printed at start: who runs, where, with what. No secrets.

use std::fmt::Write as _;

use celery_broker::config::{Layered, redact};
use celery_worker::Worker;

/// The banner.
pub(crate) fn banner(worker: &Worker, config: &Layered) -> String {
    let settings = worker.settings();
    let url = |name: &str| config.text(name).map_or_else(|| "disabled://".to_owned(), redact);
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(String::new());
    line(format!(" -------------- {} v{} (celeriac)", worker.nodename(), env!("CARGO_PKG_VERSION")));
    line("--- ***** -----".to_owned());
    line(format!("-- ******* ---- Linux-{} pid {}", std::env::consts::ARCH, std::process::id()));
    line("- *** --- * ---".to_owned());
    line("- ** ---------- [config]".to_owned());
    line(format!("- ** ---------- .> transport:   {}", url("broker_url")));
    line(format!("- ** ---------- .> results:     {}", url("result_backend")));
    line(format!(
        "- *** --- * --- .> concurrency: {} (async tasks and blocking threads)",
        settings.concurrency
    ));
    let events = if settings.task_events { "ON" } else { "OFF (enable -E to monitor tasks in this worker)" };
    line(format!("-- ******* ---- .> task events: {events}"));
    line("--- ***** -----".to_owned());
    line(" -------------- [queues]".to_owned());
    for queue in worker.queues() {
        line(format!("                .> {queue}"));
    }
    line(String::new());
    line("[tasks]".to_owned());
    for name in worker.tasks().names().into_iter().filter(|name| !name.as_str().starts_with("celery.")) {
        line(format!("  . {name}"));
    }
    out
}
