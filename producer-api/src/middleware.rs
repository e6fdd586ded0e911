//! What happens around every request: an id, security headers, one log line, one measurement.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;

use crate::request_id;

/// The header that carries the request's id both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that probes and scrapers ask for every few seconds; they are measured but not logged.
const QUIET: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];

/// What Swagger UI needs: its own files, styles written into the page, pictures written into the styles.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Wraps the whole application.
///
/// # Errors
/// Only what the inner service fails with.
pub async fn observe<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let id = request_id::choose(request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()));
    let started = Instant::now();
    let method = known_method(request.method());
    request_id::scope(id, async move {
        let mut response = next.call(request).await?;
        let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
        let status = response.status().as_u16();
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        harden(response.headers_mut(), &route);
        let elapsed = started.elapsed();
        metrics::histogram!(
            "http_server_request_duration_seconds",
            "method" => method, "route" => route.clone(), "code" => status.to_string()
        )
        .record(elapsed.as_secs_f64());
        if !QUIET.contains(&route.as_str()) {
            let path = response.request().path();
            tracing::info!(target: "http", method, route, ?path, status, duration_ms = elapsed.as_secs_f64() * 1e3, request_id = %id);
        }
        Ok(response)
    })
    .await
}

/// The method as a label: clients may invent methods, but not labels.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Headers that no answer of an API should lack; a page that needs more sets its own.
fn harden(headers: &mut HeaderMap, route: &str) {
    let policy =
        if route.starts_with("/docs/") { DOCS_POLICY } else { "default-src 'none'; frame-ancestors 'none'" };
    let defaults = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in defaults {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}
