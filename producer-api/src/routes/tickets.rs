//! Tickets for streams.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use celery_protocol::{GroupId, TaskId};

use super::openapi::ReadProblems;
use crate::dto::form::Form;
use crate::dto::stream::{Ticket, TicketRequest};
use crate::extract::JsonText;
use crate::problem::{Kind, Problem, ProblemBody};
use crate::state::Api;
use crate::tickets::{self, Grant};

/// Streams of one kind that a ticket may name.
const MAX_STREAMS: usize = 100;
/// Seconds for which a ticket can be used.
const DEFAULT_TTL: u64 = 300;
const MAX_TTL: f64 = 3600.0;

/// Makes a one-time ticket for streams, for browsers: `EventSource` can send no token.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    tag = "streams",
    operation_id = "create_ticket",
    request_body = TicketRequest,
    responses(
        (status = 201, description = "A ticket.", body = Ticket),
        (status = 413, description = "The body is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The request is not valid.", body = ProblemBody, content_type = "application/problem+json"),
        ReadProblems,
    )
)]
pub async fn create(api: web::Data<Api>, body: JsonText) -> Result<HttpResponse, Problem> {
    let grant = read(body.as_str())?;
    let ticket = tickets::issue(&api, &grant).await?;
    Ok(HttpResponse::Created().insert_header((header::CACHE_CONTROL, "no-store")).json(ticket))
}

fn read(text: &str) -> Result<Grant, Problem> {
    let mut form = Form::split(text)?;
    let tasks: Vec<TaskId> = form.list("task_ids");
    let groups: Vec<GroupId> = form.list("group_ids");
    let batches: Vec<TaskId> = form.list("batch_ids");
    let everything = form.optional("everything").unwrap_or(false);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "judged just before")]
    let ttl = match form.optional::<f64>("ttl") {
        None => DEFAULT_TTL,
        Some(seconds) if (1.0..=MAX_TTL).contains(&seconds) => seconds as u64,
        Some(_) => {
            form.refuse("ttl", format!("must be from 1 to {MAX_TTL} seconds"));
            DEFAULT_TTL
        }
    };
    for (name, count) in
        [("task_ids", tasks.len()), ("group_ids", groups.len()), ("batch_ids", batches.len())]
    {
        if count > MAX_STREAMS {
            form.refuse(name, format!("are more than {MAX_STREAMS}"));
        }
    }
    form.finish()?;
    let paths: Vec<String> = tasks
        .iter()
        .map(|id| format!("/v1/tasks/{id}/events"))
        .chain(groups.iter().map(|id| format!("/v1/groups/{id}/events")))
        .chain(batches.iter().map(|id| format!("/v1/batches/{id}/events")))
        .chain(everything.then(|| "/v1/events".to_owned()))
        .collect();
    if paths.is_empty() {
        let detail = "names no stream: give task_ids, group_ids, batch_ids or everything";
        return Err(Problem::field(Kind::InvalidOption, "", detail));
    }
    Ok(Grant { paths, ttl })
}
