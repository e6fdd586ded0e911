//! Answers as Flower gives them: JSON, or the reason as plain text.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use celery_broker::{BackendError, BrokerError};

/// Why a request can't be served, in Flower's words.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    /// A parameter or a body that can't be used.
    pub(crate) fn bad(message: impl Into<String>) -> Refused {
        Refused { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// It may not be done, or the worker would not do it.
    pub(crate) fn forbidden(message: impl Into<String>) -> Refused {
        Refused { status: StatusCode::FORBIDDEN, message: message.into() }
    }

    /// There is no such worker or task.
    pub(crate) fn unknown(kind: &str, name: &str) -> Refused {
        Refused { status: StatusCode::NOT_FOUND, message: format!("Unknown {kind} '{name}'") }
    }

    /// No result backend is configured.
    pub(crate) fn no_backend() -> Refused {
        Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "No result backend is configured (CELERY_RESULT_BACKEND)".into(),
        }
    }

    /// Broker or backend can't be reached.
    pub(crate) fn unavailable(cause: &dyn fmt::Display) -> Refused {
        tracing::warn!(%cause, "a request could not be carried out");
        Refused {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "Broker or result backend unavailable".into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl From<BrokerError> for Refused {
    fn from(error: BrokerError) -> Refused {
        Refused::unavailable(&error)
    }
}

impl From<BackendError> for Refused {
    fn from(error: BackendError) -> Refused {
        Refused::unavailable(&error)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).content_type("text/plain; charset=UTF-8").body(self.message.clone())
    }
}
