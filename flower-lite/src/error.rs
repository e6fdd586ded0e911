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
            StatusCode::SERVICE_UNAVAILABLE => response.insert_header(("Retry-After", "5")),
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
