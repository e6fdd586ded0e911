//! Probes and metrics.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::problem::ProblemBody;
use crate::state::Api;

/// Says that the process answers; nothing else is checked.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "system",
    responses(
        (status = 200, description = "The process is alive.", body = String, content_type = "text/plain", example = "ok"),
        (status = 405, description = "Another method.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn livez() -> HttpResponse {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// How to ask whether the server is ready.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadyQuery {
    /// Lists each check when present.
    verbose: Option<String>,
    /// Leaves out these checks: `broker`, `backend`, separated by commas.
    #[param(example = "backend")]
    exclude: Option<String>,
}

/// Says whether submissions and reads would work now: the broker is connected and takes messages, the result backend
/// answers, and the server is not shutting down.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "system",
    params(ReadyQuery),
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain", example = "ok"),
        (status = 400, description = "A parameter cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Not ready; the failed checks are listed.", body = String, content_type = "text/plain"),
    )
)]
pub async fn readyz(api: web::Data<Api>, query: web::Query<ReadyQuery>) -> HttpResponse {
    let excluded: Vec<&str> =
        query.exclude.as_deref().unwrap_or_default().split(',').map(str::trim).collect();
    let mut checks: Vec<(&str, Result<(), String>)> = Vec::new();
    if !excluded.contains(&"broker") {
        checks.push(("broker", api.broker_ready()));
    }
    if !excluded.contains(&"backend") {
        checks.push(("backend", api.backend_ready().await));
    }
    checks.push(("draining", if api.is_draining() { Err("shutting down".to_owned()) } else { Ok(()) }));
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if ready && query.verbose.is_none() {
        return text(status, "ok\n".to_owned());
    }
    let lines: String = checks
        .iter()
        .map(|(name, result)| match result {
            Ok(()) => format!("[+] {name} ok\n"),
            Err(reason) => format!("[-] {name} {reason}\n"),
        })
        .collect();
    text(status, lines)
}

/// The same as `/readyz`, for those who look here.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "system",
    params(ReadyQuery),
    responses(
        (status = 200, description = "Ready.", body = String, content_type = "text/plain", example = "ok"),
        (status = 400, description = "A parameter cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Not ready; the failed checks are listed.", body = String, content_type = "text/plain"),
    )
)]
pub async fn healthz(api: web::Data<Api>, query: web::Query<ReadyQuery>) -> HttpResponse {
    readyz(api, query).await
}

/// Measurements in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "system",
    responses(
        (status = 200, description = "Prometheus metrics.", body = String, content_type = "text/plain"),
        (status = 401, description = "A token is required.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn metrics(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(api.render_metrics())
}

fn text(status: StatusCode, body: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body)
}
