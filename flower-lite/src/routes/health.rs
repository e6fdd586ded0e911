//! What machines ask: is it alive, is it ready, what are its numbers.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::clock;
use crate::history::History;
use crate::live::Link;
use crate::metrics::{self, Surroundings};
use crate::monitor::Monitor;

/// `GET /healthcheck`: Flower's; `OK` while it serves.
pub async fn healthcheck() -> &'static str {
    "OK"
}

/// `GET /livez`: it serves.
pub async fn livez() -> &'static str {
    "ok"
}

/// `GET /readyz`: it serves, and events can come in.
pub async fn readyz(monitor: Data<Monitor>) -> HttpResponse {
    match monitor.link() {
        Link::Connected => HttpResponse::Ok().body("ok"),
        Link::Lost => HttpResponse::ServiceUnavailable().body("not connected to the broker"),
    }
}

/// `GET /metrics`: for Prometheus.
pub async fn metrics(monitor: Data<Monitor>) -> HttpResponse {
    let mut concurrency = BTreeMap::new();
    for reader in monitor.answers().readers().into_values().flatten() {
        concurrency.insert(reader.worker, reader.processes);
    }
    let around = Surroundings {
        link: monitor.link(),
        streams: monitor.open_streams(),
        queues: monitor.queues().all(),
        concurrency,
        history: monitor.history().map(History::numbers),
        firing: monitor.alerts().firing().into_iter().map(|(rule, count)| (rule.as_str(), count)).collect(),
        now: clock::now(),
    };
    let text = metrics::render(&monitor.state(), &around);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}
