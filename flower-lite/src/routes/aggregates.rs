//! `GET /api/v2/aggregates`: throughput, failures and percentiles over a window.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::parameters::{number, pairs, unknown};
use crate::clock;
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::state::rollup::{By, Histogram, Sum, WINDOWS};

/// What the window is, by names or workers.
pub async fn aggregates(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (mut window, mut by, mut limit, mut only) = (900, By::Name, 50, None);
    for (name, value) in pairs(&request)? {
        match &*name {
            "window" => {
                window = i64::try_from(number(&name, &value)?).unwrap_or(i64::MAX);
                if !WINDOWS.contains(&window) {
                    let (least, most) = (WINDOWS.start(), WINDOWS.end());
                    return Err(Problem::bad_parameter(
                        &name,
                        format!("must be from {least} to {most} seconds"),
                    ));
                }
            }
            "by" if value == "name" => by = By::Name,
            "by" if value == "worker" => by = By::Worker,
            "by" => return Err(Problem::bad_parameter(&name, "must be name or worker")),
            "key" => only = Some(value),
            "limit" => limit = number(&name, &value)?.clamp(1, 1_000),
            _ => return Err(unknown(&name)),
        }
    }
    let now = clock::now();
    let summary = monitor.state().rollup().summary(window, by, only.as_deref(), now);
    #[expect(clippy::cast_precision_loss, reason = "seconds of at most a day")]
    let seconds = (now.seconds() - summary.from as f64).max(1.0);
    let items: Vec<Value> =
        summary.items.iter().take(limit).map(|(key, sum)| aggregate(Some(key), sum, seconds)).collect();
    let series: Vec<Value> = summary.series.iter().map(|(begin, sum)| point(*begin, sum)).collect();
    Ok(HttpResponse::Ok().json(json!({
        "window": window,
        "from": summary.from,
        "to": now.seconds(),
        "step": summary.step,
        "total": aggregate(None, &summary.total, seconds),
        "items": items,
        "series": series,
    })))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
fn aggregate(key: Option<&str>, sum: &Sum, seconds: f64) -> Value {
    let ended = sum.ended();
    json!({
        "key": key,
        "ended": ended,
        "succeeded": sum.succeeded,
        "failed": sum.failed,
        "retried": sum.retried,
        "per_second": ended as f64 / seconds,
        "failure_rate": (ended > 0).then(|| sum.failed as f64 / ended as f64),
        "runtime": spread(&sum.runtime),
        "wait": spread(&sum.wait),
    })
}

fn spread(times: &Histogram) -> Value {
    json!({
        "count": times.count,
        "p50": times.quantile(0.5),
        "p95": times.quantile(0.95),
        "p99": times.quantile(0.99),
        "max": (times.count > 0).then_some(times.max),
    })
}

fn point(begin: i64, sum: &Sum) -> Value {
    json!({
        "t": begin,
        "ended": sum.ended(),
        "failed": sum.failed,
        "retried": sum.retried,
        "runtime_p50": sum.runtime.quantile(0.5),
        "runtime_p95": sum.runtime.quantile(0.95),
        "wait_p50": sum.wait.quantile(0.5),
        "wait_p95": sum.wait.quantile(0.95),
    })
}
