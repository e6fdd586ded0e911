//! `GET /api/v2/stream`: server-sent events, see [`crate::live`].

use actix_web::http::header::ContentType;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::parameters::{pairs, parse, unknown};
use crate::error::Problem;
use crate::live::{self, Topics};
use crate::monitor::Monitor;

/// Follows changes from now on, or from `Last-Event-ID` (or `?since=`, for a first connection) on.
pub async fn stream(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut topics = Topics::overview();
    let mut since = None;
    for (name, value) in pairs(&request)? {
        match &*name {
            "topics" => topics = parse(&name, &value)?,
            "since" => since = Some(parse(&name, &value)?),
            _ => return Err(unknown(&name)),
        }
    }
    // A browser sends it by itself when it reconnects. One that isn't ours is like an old one: start over.
    if let Some(last) = request.headers().get("Last-Event-ID") {
        since = Some(last.to_str().ok().and_then(|last| last.parse().ok()).unwrap_or(0));
    }
    let place = monitor.open_stream().ok_or_else(Problem::too_many_streams)?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType("text/event-stream".parse().unwrap_or(mime_guess::mime::TEXT_PLAIN)))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(live::follow(monitor.get_ref().clone(), topics, since, place)))
}
