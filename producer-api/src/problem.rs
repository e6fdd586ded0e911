//! Every refusal this API can answer with: one catalogue, one body (RFC 9457 `application/problem+json`).
//!
//! A handler returns `Err(Problem)`; so do the extractors. The catalogue is the only place that pairs a slug with its
//! status and its explanation, and `GET /problems/{slug}` shows that explanation to people. What a client needs most
//! after a failed submission is `outcome`: whether the task may have been published all the same.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use celery_broker::{BackendError, BrokerError, BrokerErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::request_id;

/// Declares [`Kind`] and its look-ups from one table.
macro_rules! catalogue {
    ($($variant:ident $slug:literal $status:literal $title:literal $doc:literal)*) => {
        /// A kind of problem: its slug is the last part of the problem's `type`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $(#[doc = $doc] $variant,)* }

        impl Kind {
            /// Every kind, in the order of their status.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// The name in `type`.
            pub fn slug(self) -> &'static str { match self { $(Kind::$variant => $slug,)* } }

            /// The HTTP status it is answered with.
            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Kind::$variant => $status,)* };
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// The short, constant summary.
            pub fn title(self) -> &'static str { match self { $(Kind::$variant => $title,)* } }

            /// What it means and what to do, for `GET /problems/{slug}`.
            pub fn explanation(self) -> &'static str { match self { $(Kind::$variant => $doc,)* } }
        }
    };
}

catalogue! {
    MalformedJson "malformed-json" 400 "The body is not acceptable JSON"
        "The body is not one JSON text in UTF-8, or it holds what JSON does not define or leaves ambiguous: NaN, a duplicate key, half a surrogate pair, nesting beyond the limit. `errors[0].pointer` names the place."
    InvalidParameter "invalid-parameter" 400 "A parameter is invalid"
        "A path, query or header parameter, or a task id, cannot be read. `errors` names it."
    Unauthenticated "unauthenticated" 401 "A token is required"
        "Send `Authorization: Bearer <token>` with one of the tokens that this server was configured with."
    TaskForbidden "task-forbidden" 403 "This task may not be submitted"
        "The server's list of allowed tasks does not include the task, or one of its callbacks."
    QueueForbidden "queue-forbidden" 403 "This queue may not be published to"
        "The server's list of allowed queues does not include the queue of the task or of one of its callbacks."
    NotFound "not-found" 404 "There is nothing at this address"
        "The path is not one of this API. `/openapi.json` lists them all."
    TaskUnknown "task-unknown" 404 "No task is known by this id"
        "Neither a submission through this API nor a state in the result backend exists for the id: it was never submitted here, or its record has expired. For tasks submitted by other programs ask with `?assume_pending=true`."
    GroupUnknown "group-unknown" 404 "No group is known by this id"
        "No workflow or batch with a group of this id was submitted here, or its record has expired, and no group of this id was saved by another program."
    BatchUnknown "batch-unknown" 404 "No batch is known by this id"
        "No batch of this id was submitted here, or its record has expired."
    MethodNotAllowed "method-not-allowed" 405 "This address does not know the method"
        "The `Allow` header lists the methods it knows."
    RequestTimeout "request-timeout" 408 "The body did not arrive in time"
        "The server waits a limited time for the whole body. Send it faster, or in smaller parts."
    TaskExists "task-exists" 409 "Another task has this id"
        "A task was submitted with this id and a different body. Nothing was published. Choose another id, or read the existing task."
    SubmissionInProgress "submission-in-progress" 409 "The same submission is being published"
        "Another request with this id has not finished yet. Send it again after `Retry-After`: it is answered from that request's outcome."
    IdempotencyInProgress "idempotency-in-progress" 409 "A request with this key is in progress"
        "The first request with this `Idempotency-Key` has not been answered yet. Send it again after `Retry-After`."
    AnswerNotKept "answer-not-kept" 409 "The answer to this request was too long to be kept"
        "The first request with this `Idempotency-Key` was carried out, and its answer was longer than what is kept of answers. Nothing was published now. `Location` has the address of what was submitted, where there is one."
    DedupeRejected "dedupe-rejected" 409 "A task with this dedupe key is pending or running"
        "`dedupe.on_conflict` is `reject`, and the task in `task_id` has not ended. Nothing was published."
    TaskNotFinished "task-not-finished" 409 "The task has not finished"
        "A worker would write the result again. Wait until the task has finished, or add `?force=true`."
    ResultIgnored "result-ignored" 409 "The result of this task is not kept"
        "The task was submitted with `ignore_result`: its state never changes in the result backend, so waiting is of no use."
    TaskForgotten "task-forgotten" 410 "The task has been forgotten"
        "Its result was deleted by request."
    PreconditionFailed "precondition-failed" 412 "A condition of the request does not hold"
        "The request had `If-None-Match: *`, and a task with this id is known. Nothing was published."
    BodyTooLarge "body-too-large" 413 "The body is too large"
        "The body, as sent, exceeds the server's limit."
    UnsupportedMediaType "unsupported-media-type" 415 "The body has the wrong type"
        "Send `Content-Type: application/json` in UTF-8 and without `Content-Encoding`."
    InvalidOption "invalid-option" 422 "The task is not valid"
        "One or more members of the body have the wrong type or an impossible value. `errors` lists all of them by JSON pointer."
    UnknownField "unknown-field" 422 "The body has a member that is not known"
        "Unknown members are refused, so that a misspelt option is not silently ignored. `errors` lists them."
    NameTooLong "name-too-long" 422 "A name is too long"
        "AMQP names are at most 255 bytes."
    HeadersTooLarge "headers-too-large" 422 "The message headers are too large"
        "The encoded header table would exceed the server's limit; a frame that is too large would close the connection for everybody."
    Unroutable "unroutable" 422 "No queue takes this message"
        "The broker returned the message: no queue is bound for its exchange and routing key. Nothing is queued. Is the queue's name right, and has a worker declared it?"
    ExchangeNotFound "exchange-not-found" 422 "The exchange does not exist"
        "Nothing was published."
    QueueUnknown "queue-unknown" 422 "The length of the queue cannot be told"
        "`queue_limit` needs a queue that exists and is named, by the submission or by the server's routes."
    CanvasInvalid "canvas-invalid" 422 "The workflow is not valid"
        "It is empty, a chord lacks what it needs, or a part of it is not a signature. `errors` names the place."
    IdempotencyKeyReused "idempotency-key-reused" 422 "The key belongs to another request"
        "An earlier request had this `Idempotency-Key` and another body. Nothing was published. Take a new key for a new request."
    TaskFailed "task-failed" 424 "The task has failed"
        "The task ended without a result. `error` says how."
    TaskRevoked "task-revoked" 424 "The task was revoked"
        "The task was cancelled or expired before it had a result."
    BatchAborted "batch-aborted" 424 "Another item of the batch is not valid"
        "The batch is `atomic`, so nothing of it was published. The other items say what is wrong."
    TooManyWaits "too-many-waits" 429 "Too many clients are waiting"
        "The server limits how many requests may wait for a result at once. Ask again later, without waiting, or read the state."
    Internal "internal" 500 "The server made a mistake"
        "This should not happen. The server's log has the details under the request id in `instance`."
    BrokerUnavailable "broker-unavailable" 503 "The broker cannot be reached"
        "There is no connection to the broker. Nothing was published."
    BrokerBlocked "broker-blocked" 503 "The broker takes no messages at the moment"
        "The broker has raised a memory or disk alarm."
    BrokerNack "broker-nack" 503 "The broker has refused the message"
        "A queue is full and rejects publishes. Nothing was queued."
    ResultBackendUnavailable "result-backend-unavailable" 503 "The result backend cannot be reached"
        "Redis did not answer in time, so the state of the task cannot be told. The task itself is not affected."
    QueueLimit "queue-limit" 503 "The queue is too long"
        "More messages wait in the queue than `queue_limit` allows. Nothing was published."
    Overloaded "overloaded" 503 "Too many submissions are in flight"
        "The server limits how many submissions wait for the broker at once. Nothing was published."
    Draining "draining" 503 "The server is shutting down"
        "Nothing was published. Another replica, or this one after its restart, will take the request."
    PublishUnconfirmed "publish-unconfirmed" 504 "The broker did not confirm in time"
        "The message was sent, but whether the broker has it is unknown. Send the same body again with `PUT /v1/tasks/{task_id}`: the same id makes a second copy recognisable."
}

impl Kind {
    /// The kind of a slug.
    pub fn from_slug(slug: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }

    /// Whether sending the same request again later may succeed.
    pub fn retryable(self) -> bool {
        matches!(self.status().as_u16(), 408 | 429 | 503 | 504)
            || matches!(
                self,
                Kind::SubmissionInProgress
                    | Kind::IdempotencyInProgress
                    | Kind::DedupeRejected
                    | Kind::TaskNotFinished
            )
    }
}

/// Whether a submission that was not answered with a 2xx may have reached a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It certainly has not.
    NotPublished,
    /// It may have. Sending the same id again is safe.
    Unknown,
    /// It has.
    Published,
}

/// One thing wrong with the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body, or the name of a query parameter or header.
    #[schema(example = "/countdown")]
    pub pointer: String,
    /// What is wrong with it, and what would be right.
    pub detail: String,
}

impl FieldError {
    /// An error at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    outcome: Option<Outcome>,
    task_id: Option<String>,
    published: Vec<String>,
    retry_after: Option<u64>,
    error: Option<Box<serde_json::value::RawValue>>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    closes: bool,
}

impl Problem {
    /// A problem of this kind; `detail` is about this occurrence.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem(Box::new(Inner {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            outcome: None,
            task_id: None,
            published: Vec::new(),
            retry_after: None,
            error: None,
            headers: Vec::new(),
            closes: false,
        }))
    }

    /// A problem made of field errors; the first of them is also the `detail`.
    pub fn fields(kind: Kind, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [] => String::new(),
            [only] => format!("{}: {}", only.pointer, only.detail),
            [first, rest @ ..] => format!("{}: {} (and {} more)", first.pointer, first.detail, rest.len()),
        };
        let mut problem = Problem::new(kind, detail);
        problem.0.errors = errors;
        problem
    }

    /// A problem with one parameter or member.
    pub fn field(kind: Kind, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem::fields(kind, vec![FieldError::new(pointer, detail)])
    }

    /// Says whether the task may have been published.
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = Some(outcome);
        self
    }

    /// Names the task that this is about.
    pub fn task(mut self, id: impl fmt::Display) -> Self {
        self.0.task_id = Some(id.to_string());
        self
    }

    /// Names the tasks of a workflow that may be queued.
    pub fn published(mut self, ids: Vec<String>) -> Self {
        self.0.published = ids;
        self
    }

    /// Tells the client when to try again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// How the task failed.
    pub fn error(mut self, error: Option<Box<serde_json::value::RawValue>>) -> Self {
        self.0.error = error;
        self
    }

    /// Says that the pointers are relative to `place` in the body.
    pub fn within(mut self, place: &str) -> Self {
        if !place.is_empty() {
            for error in &mut self.0.errors {
                error.pointer.insert_str(0, place);
            }
            if !self.0.errors.is_empty() {
                self.0.detail.insert_str(0, place);
            }
        }
        self
    }

    /// Adds a response header.
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Closes the connection after the answer: there may be body left that nobody will read.
    pub fn closing(mut self) -> Self {
        self.0.closes = true;
        self
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the task may have been published, if this is about a submission.
    pub fn known_outcome(&self) -> Option<Outcome> {
        self.0.outcome
    }

    /// Whether part of a workflow was published and revoked again: its ids are of no more use.
    pub fn called_back(&self) -> bool {
        !self.0.published.is_empty()
    }

    /// Why a publish failed.
    pub fn from_broker(err: &BrokerError) -> Self {
        use BrokerErrorKind as Broker;
        if err.outcome() == celery_broker::Outcome::Unknown {
            let detail = format!("{err}; send the same body to PUT /v1/tasks/{{task_id}} to make sure");
            return Problem::new(Kind::PublishUnconfirmed, detail).outcome(Outcome::Unknown).retry_after(1);
        }
        let (kind, retry) = match err.kind() {
            Broker::Unroutable | Broker::NotFound => (Kind::Unroutable, None),
            Broker::ExchangeNotFound => (Kind::ExchangeNotFound, None),
            Broker::MessageTooLarge => (Kind::BodyTooLarge, None),
            Broker::Encode => (Kind::InvalidOption, None),
            Broker::AccessRefused => (Kind::QueueForbidden, None),
            Broker::Blocked => (Kind::BrokerBlocked, Some(5)),
            Broker::NotConfirmed => (Kind::BrokerNack, Some(5)),
            _ => (Kind::BrokerUnavailable, Some(2)),
        };
        let problem = Problem::new(kind, err.to_string()).outcome(Outcome::NotPublished);
        match retry {
            Some(seconds) => problem.retry_after(seconds),
            None => problem,
        }
    }

    /// Why a state could not be read.
    pub fn from_backend(err: &BackendError) -> Self {
        Problem::new(Kind::ResultBackendUnavailable, err.to_string()).retry_after(2)
    }

    /// The body that a client gets.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            r#type: format!("/problems/{}", self.0.kind.slug()),
            title: self.0.kind.title().to_owned(),
            status: self.0.kind.status().as_u16(),
            detail: self.0.detail.clone(),
            instance: request_id::current().map(|id| format!("urn:uuid:{id}")),
            retryable: self.0.kind.retryable(),
            outcome: self.0.outcome,
            task_id: self.0.task_id.clone(),
            published: self.0.published.clone(),
            error: self.0.error.clone(),
            errors: self.0.errors.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.slug(), self.0.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response
            .content_type("application/problem+json")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::CONTENT_LANGUAGE, "en"));
        if let Some(seconds) = self.0.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        for (name, value) in &self.0.headers {
            response.append_header((name, value));
        }
        if self.0.closes {
            response.force_close();
        }
        // Strings, numbers and raw JSON only: this cannot fail.
        response.body(serde_json::to_vec(&self.body()).unwrap_or_default())
    }
}

/// A problem, as sent (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Which kind of problem; the address of a page that explains it.
    #[schema(example = "/problems/unroutable")]
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The request, as in the `X-Request-Id` header and the server's log.
    #[schema(example = "urn:uuid:8b7a1f9e-6f0e-4b5e-9c39-0d2f5b0b8f2c")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// For submissions: whether the task may have been published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The task that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Tasks of a workflow that may be queued; workers were told to revoke them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<String>,
    /// How the task failed, for `task-failed` and `task-revoked`.
    #[schema(value_type = Option<crate::dto::task::TaskError>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<serde_json::value::RawValue>>,
    /// Everything that is wrong with the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_found_again() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_slug(kind.slug()), Some(*kind));
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
            assert!(kind.slug().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert_eq!(Kind::from_slug("nope"), None);
        let statuses: Vec<u16> = Kind::ALL.iter().map(|kind| kind.status().as_u16()).collect();
        assert!(statuses.is_sorted());
    }

    #[test]
    fn the_body_says_what_a_client_needs() {
        let problem = Problem::field(Kind::InvalidOption, "/countdown", "must be at least 0")
            .outcome(Outcome::NotPublished)
            .task("order-42");
        let body = serde_json::to_value(problem.body()).expect("serialises");
        assert_eq!(body["type"], "/problems/invalid-option");
        assert_eq!(body["status"], 422);
        assert_eq!(body["outcome"], "not_published");
        assert_eq!(body["task_id"], "order-42");
        assert_eq!(body["retryable"], false);
        assert_eq!(body["detail"], "/countdown: must be at least 0");
        assert_eq!(body["errors"][0]["pointer"], "/countdown");
    }
}
