//! The OpenAPI document and the pages that show it.

use std::sync::LazyLock;

use actix_web::{HttpResponse, web};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    batch, canvas, events, groups, health, list, lookup, problems, results, tasks, tickets, walkthrough,
};
use crate::problem::ProblemBody;

/// The document. Which paths it has is compared with the table of routes by a test.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "producer-api",
        description = "Submit tasks to Celery workers over HTTP, and read what became of them.\n\nA 2xx to a submission means that the broker has confirmed the message and a queue took it. Every other answer is a problem (RFC 9457); for submissions its `outcome` says whether the task may have been published all the same.",
        contact(name = "Celeriac", url = "https://github.com/celeriac/celeriac"),
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server.")),
    paths(
        tasks::submit,
        tasks::submit_as,
        tasks::call,
        batch::submit,
        canvas::submit,
        list::list,
        lookup::lookup,
        results::read,
        results::result,
        results::forget,
        groups::read,
        groups::read_results,
        groups::forget,
        groups::read_batch,
        groups::forget_batch,
        events::task,
        events::group,
        events::batch,
        events::everything,
        tickets::create,
        walkthrough::start,
        walkthrough::start_by_post,
        walkthrough::queued,
        walkthrough::result,
        health::livez,
        health::readyz,
        health::healthz,
        health::metrics,
        problems::explain,
        document,
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "tasks", description = "Submit tasks and read what became of them."),
        (name = "groups", description = "Read the tasks of a group or batch together."),
        (name = "streams", description = "Follow tasks by server-sent events."),
        (name = "walkthrough", description = "The web application of the 2016 walkthrough, as it was."),
        (name = "system", description = "Probes, metrics and documentation."),
    ),
    modifiers(&Bearer, &Described, &Exact),
    security((), ("bearer" = [])),
)]
pub struct Document;

/// Adds the token scheme.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of the server's tokens, where it has any."))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Gives every operation a description: tools want one, also where the summary says it all.
struct Described;

impl Modify for Described {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                if operation.description.as_deref().unwrap_or_default().is_empty() {
                    operation.description.clone_from(&operation.summary);
                }
            }
        }
    }
}

/// Says of every object whether it may have other members than are listed. Generated clients take the silence of JSON
/// Schema in two ways, and a `kwargs` that may hold nothing is of no use.
struct Exact;

/// What clients send: a member that is not known is refused.
const SENT: [&str; 9] = [
    "BatchTask",
    "CanvasNode",
    "Dedupe",
    "LookupRequest",
    "PublishOptions",
    "SubmitBatch",
    "SubmitCanvas",
    "SubmitTask",
    "TicketRequest",
];

impl Modify for Exact {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let schemas = &mut document.components.get_or_insert_default().schemas;
        if let Some(RefOr::T(Schema::Object(task))) = schemas.get("SubmitTask").cloned()
            && let Some(RefOr::T(item)) = schemas.get_mut("BatchTask")
        {
            flatten(item, task);
        }
        schemas.values_mut().for_each(open);
        for name in SENT {
            if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name) {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

/// Makes one object of a part with members of its own and `whole`, all of whose members it has too: what is closed cannot
/// be a part of `allOf`.
fn flatten(item: &mut Schema, mut whole: Object) {
    let Schema::AllOf(all) = item else { return };
    whole.description = all.description.take();
    whole.example = all.example.take();
    for part in &all.items {
        if let RefOr::T(Schema::Object(own)) = part {
            whole.properties.extend(own.properties.clone());
        }
    }
    *item = Schema::Object(whole);
}

/// Objects without a list of members may have any.
fn open(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            let is_object = match &object.schema_type {
                SchemaType::Type(one) => *one == Type::Object,
                SchemaType::Array(several) => several.contains(&Type::Object),
                SchemaType::AnyValue => false,
            };
            if is_object && object.properties.is_empty() && object.additional_properties.is_none() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
            }
            object.properties.values_mut().for_each(open);
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                open(items);
            }
        }
        Schema::OneOf(some) => some.items.iter_mut().for_each(open),
        Schema::AllOf(some) => some.items.iter_mut().for_each(open),
        Schema::AnyOf(some) => some.items.iter_mut().for_each(open),
        _ => {}
    }
}

/// Problems of every submission.
#[derive(IntoResponses)]
pub enum SubmitProblems {
    /// The body or a parameter cannot be read (`malformed-json`, `invalid-parameter`).
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(ProblemBody),
    /// A token is required.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(ProblemBody),
    /// The task or queue is not on the server's list.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody),
    /// The body did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    RequestTimeout(ProblemBody),
    /// Another task has this id, or the same submission is in progress.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemBody),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemBody),
    /// The body is not `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(ProblemBody),
    /// The task is not valid, or no queue takes it (`invalid-option`, `unknown-field`, `unroutable`, …).
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(ProblemBody),
    /// Too many requests are waiting.
    #[response(status = 429, content_type = "application/problem+json")]
    TooManyWaits(ProblemBody),
    /// The broker or the result backend cannot take it now; nothing was published.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody),
    /// The broker did not confirm in time: `outcome` is `unknown`.
    #[response(status = 504, content_type = "application/problem+json")]
    Unconfirmed(ProblemBody),
}

/// Problems of every reading.
#[derive(IntoResponses)]
pub enum ReadProblems {
    /// A parameter cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(ProblemBody),
    /// A token is required.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(ProblemBody),
    /// No task is known by this id.
    #[response(status = 404, content_type = "application/problem+json")]
    Unknown(ProblemBody),
    /// The task was deleted by request.
    #[response(status = 410, content_type = "application/problem+json")]
    Forgotten(ProblemBody),
    /// Too many requests are waiting.
    #[response(status = 429, content_type = "application/problem+json")]
    TooManyWaits(ProblemBody),
    /// The result backend cannot be reached.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody),
}

/// The document as JSON, made once.
static JSON: LazyLock<String> = LazyLock::new(|| {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
});

/// The document as JSON, as it is served and as it is checked in.
pub fn json() -> &'static str {
    &JSON
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "system",
    operation_id = "openapi",
    responses(
        (status = 200, description = "The OpenAPI 3.1 document of this API.", body = serde_json::Value),
        (status = 405, description = "Another method.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(json())
}

/// Serves Swagger UI from the binary at `/docs/`.
pub fn configure_ui(config: &mut web::ServiceConfig) {
    config.service(web::redirect("/docs", "/docs/"));
    config.service(SwaggerUi::new("/docs/{_:.*}").config(Config::from("/openapi.json")));
}
