//! Starting workflows.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::openapi::SubmitProblems;
use crate::canvas::plan::{Act, plan};
use crate::canvas::{read, run};
use crate::dto::canvas::{CanvasAnswer, CanvasDryRun, CanvasLinks, SubmitCanvas, TreeNode};
use crate::dto::dry_run::DryRun;
use crate::extract::{Admission, JsonText};
use crate::idempotency::{self, Ids, Settled};
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;
use crate::submitter::Submitter;

/// How to start a workflow.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CanvasQuery {
    /// Publish nothing; answer with the exact messages that would be published.
    dry_run: Option<bool>,
}

/// Starts a workflow: chain, group, chord, map, starmap, chunks, nested at will.
///
/// 202 means: the broker has confirmed every message that starts it. If one of them fails, those before it are revoked,
/// and the problem names them in `published`: their ids are used up then. An id that a task has already is refused.
#[utoipa::path(
    post,
    path = "/v1/canvas",
    tag = "tasks",
    operation_id = "submit_canvas",
    params(
        CanvasQuery,
        ("Idempotency-Key" = Option<String>, Header, pattern = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\-.-:<-\[\]-~]{1,255})$"#, description = "As for `POST /v1/tasks`."),
        ("traceparent" = Option<String>, Header, description = "As for `POST /v1/tasks`."),
    ),
    request_body = SubmitCanvas,
    responses(
        (status = 202, description = "Started.", body = CanvasAnswer,
            headers(("Location" = String, description = "The state of its last task, or of its group."))),
        (status = 200, description = "With `dry_run`: the messages.", body = CanvasDryRun),
        SubmitProblems,
    )
)]
pub async fn submit(
    admission: Admission,
    api: web::Data<Api>,
    query: web::Query<CanvasQuery>,
    body: JsonText,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let submitter = Submitter::new(api.clone(), &request);
    if query.dry_run.unwrap_or(false) {
        idempotency::key(&request)?;
        return dry_run(&submitter, body.as_str());
    }
    let what = body.as_str().to_owned();
    let run = move |ids| async move {
        let started = start(&submitter, body.as_str(), &ids).await;
        drop(admission);
        match started {
            Ok(response) => Ok((response, Settled::Done)),
            Err(problem) if problem.called_back() => Ok((problem.error_response(), Settled::CalledBack)),
            Err(problem) => Err(problem),
        }
    };
    idempotency::once(api, &request, &what, run).await
}

fn dry_run(submitter: &Submitter, text: &str) -> Result<HttpResponse, Problem> {
    let context = submitter.context();
    let workflow = read::read(text, &context).map_err(super::tasks::not_published)?;
    let planned = plan(workflow, &submitter.api().celery, &context, &Ids::RANDOM)?;
    let messages = planned.acts.iter().filter_map(|act| match act {
        Act::Publish { route, message, .. } => Some(DryRun::show(route, message)),
        _ => None,
    });
    let tree = TreeNode::of(&planned.result);
    Ok(HttpResponse::Ok().json(CanvasDryRun { valid: true, tree, messages: messages.collect() }))
}

async fn start(submitter: &Submitter, text: &str, ids: &Ids) -> Result<HttpResponse, Problem> {
    let planned = {
        let context = submitter.context();
        let workflow = read::read(text, &context).map_err(super::tasks::not_published)?;
        plan(workflow, &submitter.api().celery, &context, ids)?
    };
    let api = submitter.api().clone();
    let tree = TreeNode::of(&planned.result);
    let links = CanvasLinks::of(&planned.result);
    let id = planned.result.id.to_string();
    let published = planned.acts.iter().filter(|act| matches!(act, Act::Publish { .. })).count();
    // To its end, also when the client has gone: half a workflow is nobody's wish.
    let running = submitter.api().under_way.spawn(async move { run::run(&api, &planned).await });
    let warnings = match running.await {
        Ok(ran) => ran?,
        Err(err) => {
            let problem = Problem::new(Kind::Internal, format!("the submission broke off: {err}"));
            return Err(problem.outcome(Outcome::Unknown));
        }
    };
    let location = links.this.clone();
    let answer = CanvasAnswer { id, tree, published, warnings, links };
    Ok(accepted(&location, &answer))
}

fn accepted(location: &str, answer: &impl Serialize) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .insert_header((header::RETRY_AFTER, "1"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(answer)
}
