//! Extractors: what a handler gets has passed the limits, and what does not pass is answered with a problem.
//!
//! actix's own JSON extractor answers in plain text, takes compressed bodies and waits for ever for a slow one; so the
//! body is read here.

use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use celery_protocol::TaskId;
use futures_util::StreamExt;

use crate::gate::Pass;
use crate::json;
use crate::prefer::Preferences;
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;

/// A JSON body that passed every check of [`json::check`]; parsing it is the handler's work.
#[derive(Debug)]
pub struct JsonText(Bytes);

impl JsonText {
    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked to be UTF-8 on construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromRequest for JsonText {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let limits = &api(request).limits;
        Box::pin(json_text(request, payload, limits.body, limits.json_depth))
    }
}

/// Reads a body of at most `limit` bytes, nested at most `depth` deep.
pub fn json_text(
    request: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
    depth: usize,
) -> impl Future<Output = Result<JsonText, Problem>> + use<> {
    let checked = check_head(request.headers(), limit);
    let reading = read_body(request, payload, limit);
    async move {
        checked?;
        let body = reading.await?;
        JsonText::check(body, depth)
    }
}

impl JsonText {
    /// Takes a text that is JSON with nothing to object to.
    ///
    /// # Errors
    /// `malformed-json`.
    pub fn check(body: Bytes, depth: usize) -> Result<Self, Problem> {
        match json::check(&body, depth) {
            Ok(_) => Ok(JsonText(body)),
            Err(fault) => Err(Problem::field(Kind::MalformedJson, fault.pointer.clone(), fault.to_string())
                .outcome(Outcome::NotPublished)),
        }
    }
}

/// As [`JsonText`], where a request may have no body at all.
#[derive(Debug)]
pub struct OptionalJson(pub Option<JsonText>);

impl FromRequest for OptionalJson {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let headers = request.headers();
        let limits = api(request).limits.clone();
        let checked = match headers.contains_key(header::CONTENT_TYPE) {
            true => check_head(headers, limits.body),
            false => Ok(()),
        };
        let untyped = !headers.contains_key(header::CONTENT_TYPE);
        let reading = read_body(request, payload, limits.body);
        Box::pin(async move {
            checked?;
            let body = reading.await?;
            match body.is_empty() {
                true => Ok(OptionalJson(None)),
                false if untyped => Err(unsupported("a body needs Content-Type: application/json")),
                false => Ok(OptionalJson(Some(JsonText::check(body, limits.json_depth)?))),
            }
        })
    }
}

/// A small form body (`application/x-www-form-urlencoded`); empty when the request has none.
#[derive(Debug)]
pub struct FormText(pub String);

impl FromRequest for FormText {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_form = request.content_type().eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let reading = read_body(request, payload, api(request).limits.body);
        Box::pin(async move {
            let body = reading.await?;
            match String::from_utf8(body.to_vec()) {
                Ok(text) if is_form => Ok(FormText(text)),
                _ => Ok(FormText(String::new())),
            }
        })
    }
}

/// Refuses by the head alone what need not be read.
fn check_head(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    uncompressed(headers)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !is_json(content_type) {
        return Err(unsupported("Content-Type must be application/json in UTF-8")
            .header(header::ACCEPT, HeaderValue::from_static("application/json")));
    }
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match declared.and_then(|text| text.parse::<usize>().ok()) {
        Some(length) if length > limit => Err(too_large(limit)),
        _ => Ok(()),
    }
}

/// Refuses compressed bodies.
///
/// # Errors
/// `unsupported-media-type`.
pub fn uncompressed(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(unsupported("Content-Encoding must be absent: compressed bodies are not taken")
                .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
        }
        _ => Ok(()),
    }
}

/// `application/json`, with no charset or with UTF-8, which is the only one that JSON has.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(Kind::UnsupportedMediaType, detail).outcome(Outcome::NotPublished).closing()
}

/// The refusal of a body of more than `limit` bytes.
pub fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("the limit is {limit} bytes"))
        .outcome(Outcome::NotPublished)
        .closing()
}

/// Reads the body up to the limit and the deadline.
fn read_body(
    request: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
) -> impl Future<Output = Result<Bytes, Problem>> + use<> {
    let patience = api(request).limits.body_timeout;
    let mut payload = payload.take();
    async move {
        let reading = async {
            let mut body = BytesMut::new();
            while let Some(chunk) = payload.next().await {
                let chunk = chunk.map_err(|err| {
                    Problem::new(Kind::MalformedJson, format!("the body cannot be read: {err}"))
                        .outcome(Outcome::NotPublished)
                        .closing()
                })?;
                if body.len() + chunk.len() > limit {
                    return Err(too_large(limit));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body.freeze())
        };
        tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| {
            let detail = format!("the whole body must arrive within {} s", patience.as_secs_f64());
            Err(Problem::new(Kind::RequestTimeout, detail).outcome(Outcome::NotPublished).closing())
        })
    }
}

/// The shared state. It is set by `startup.rs` for every route.
fn api(request: &HttpRequest) -> &Api {
    match request.app_data::<web::Data<Api>>() {
        Some(api) => api,
        None => unreachable!("startup::Application gives every App its Api"),
    }
}

/// A place among the submissions in flight; taken before the body is read, so that overload costs little.
#[derive(Debug)]
pub struct Admission {
    _pass: Option<Pass>,
}

impl FromRequest for Admission {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A dry run publishes nothing and works without a broker.
        let dry_run = request.query_string().split('&').any(|part| part == "dry_run=true");
        ready(match dry_run {
            true => Ok(Admission { _pass: None }),
            false => api(request).admit().map(|pass| Admission { _pass: Some(pass) }),
        })
    }
}

/// The task id in the path.
#[derive(Debug)]
pub struct PathId(pub TaskId);

impl FromRequest for PathId {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = web::Path::<String>::extract(request).into_inner();
        ready(match text {
            Ok(text) => TaskId::parse(text.into_inner())
                .map(PathId)
                .map_err(|err| Problem::field(Kind::InvalidParameter, "id", err.to_string())),
            Err(err) => Err(Problem::field(Kind::InvalidParameter, "id", err.to_string())),
        })
    }
}

/// What the client prefers.
#[derive(Debug, Clone, Copy)]
pub struct Prefer(pub Preferences);

impl FromRequest for Prefer {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let headers = request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
        ready(Ok(Prefer(Preferences::parse(headers))))
    }
}

/// A parameter that cannot be read, as a problem (for actix's own query and path extractors).
pub fn parameter_problem(err: impl std::fmt::Display) -> actix_web::Error {
    Problem::new(Kind::InvalidParameter, err.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf8_json_is_json() {
        for good in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"; x=y"]
        {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json; charset=utf-16",
            "application/problem+json",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
