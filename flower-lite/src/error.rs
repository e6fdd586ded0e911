//! Errors of the HTTP API, as `application/problem+json` (RFC 9457).

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

/// Why a request can't be served.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// Nothing is known by that name.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    /// A parameter has a value that can't be used; `detail` names it.
    #[must_use]
    pub fn bad_parameter(name: &str, detail: impl fmt::Display) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Bad parameter", format!("{name}: {detail}"))
    }

    /// The address is right, the method is not.
    #[must_use]
    pub fn wrong_method() -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "only GET is served here")
    }

    /// As many are served as may be.
    #[must_use]
    pub fn too_many_streams() -> Problem {
        let detail = "as many live streams are open as this monitor allows";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too many streams", detail)
    }

    /// The request is for another host than this one answers for.
    #[must_use]
    pub fn wrong_host() -> Problem {
        let detail = "this monitor answers for its own address only; add others with --allowed-hosts";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "Wrong host", detail)
    }

    /// Nobody said who they are, or what they said is wrong.
    #[must_use]
    pub fn who_is_it() -> Problem {
        let detail = "log in, or send a user's name and password or a token with the request";
        Problem::new(StatusCode::UNAUTHORIZED, "Not logged in", detail)
    }

    /// They were wrong too often.
    #[must_use]
    pub fn wait(seconds: f64) -> Problem {
        let detail = format!("too many wrong passwords: try again in {:.0} seconds", seconds.ceil());
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many log-ins", detail)
    }

    /// There is no broker to ask.
    #[must_use]
    pub fn no_broker() -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "No broker",
            "this monitor has no broker: it shows a recording",
        )
    }

    /// Broker or result backend can't be reached, or do not do it.
    #[must_use]
    pub fn unavailable(cause: &dyn fmt::Display) -> Problem {
        tracing::warn!(%cause, "an action could not be carried out");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Broker or result backend unavailable",
            cause.to_string(),
        )
    }

    /// As many are at work as may be.
    #[must_use]
    pub fn too_many(detail: &str) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many", detail)
    }

    /// It may not be done.
    #[must_use]
    pub fn not_permitted(why: &dyn fmt::Display) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "Not permitted", why.to_string())
    }

    /// The history on disk can't be read.
    #[must_use]
    pub fn history(cause: &dyn fmt::Display) -> Problem {
        tracing::error!(%cause, "the history can't be read");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "History unavailable",
            "the history can't be read; see the log",
        )
    }

    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem { kind: "about:blank", title, status, detail: detail.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => response.insert_header(("Allow", "GET, HEAD")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                response.insert_header(("Retry-After", "5"))
            }
            _ => &mut response,
        };
        let body = serde_json::to_string(self).unwrap_or_default();
        response.content_type("application/problem+json").body(body)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
