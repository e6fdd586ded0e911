//! Submitting many tasks in one request: as one JSON text, or streamed line by line ([`super::ndjson`]).

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use celery_protocol::{GroupId, QueueName, TaskId};
use futures_util::StreamExt;

use super::ndjson;
use super::openapi::SubmitProblems;
use super::results;
use crate::depth;
use crate::dto::batch::{
    Batch, BatchAnswer, BatchLinks, BatchTask, ItemAnswer, SubmitBatch, Summary, aborted,
};
use crate::dto::submit::SubmitTask;
use crate::dto::task::Warning;
use crate::extract::{Admission, Prefer, json_text};
use crate::idempotency::{self, Ids, Settled};
use crate::plan::Plan;
use crate::problem::{Kind, Outcome, Problem, ProblemBody};
use crate::registry::{Set, Writer};
use crate::state::Api;
use crate::submit::{Done, Identity};
use crate::submitter::Submitter;
use crate::view;

/// Items of one request that wait for the broker at once.
pub const WINDOW: usize = 64;
/// The id of the batch itself and of its group, among the ids of the request.
const BATCH: usize = usize::MAX;
const GROUP: usize = usize::MAX - 1;

/// Submits many tasks.
///
/// As `application/json` up to 1000 in one body: 202 if all were accepted, 207 if some were (each item has a `status` of
/// its own), else the most severe of their statuses. As `application/x-ndjson` any number, one task a line: the answer is
/// streamed, one line for each, and a last one with a summary; reading goes only as fast as the broker confirms.
#[utoipa::path(
    post,
    path = "/v1/tasks/batch",
    tag = "tasks",
    operation_id = "submit_batch",
    params(
        ("Prefer" = Option<String>, Header, description = "`return=minimal`: answer with ids instead of tasks."),
        ("Idempotency-Key" = Option<String>, Header, pattern = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\-.-:<-\[\]-~]{1,255})$"#, description = "As for `POST /v1/tasks`, for the whole batch. Not for NDJSON: give its items a `task_id`."),
        ("traceparent" = Option<String>, Header, description = "As for `POST /v1/tasks`."),
    ),
    request_body(content((SubmitBatch = "application/json"), (BatchTask = "application/x-ndjson", example = json!({"task": "demo.add", "args": [2, 3], "ref": "row-1"})))),
    responses(
        (status = 202, description = "All tasks are queued; or NDJSON: each line says what became of its task.",
            content((BatchAnswer = "application/json"), (Summary = "application/x-ndjson")),
            headers(("Location" = String, description = "The batch."))),
        (status = 207, description = "Some are queued, some are not.", body = BatchAnswer),
        SubmitProblems,
        (status = 400, description = "The body or a header cannot be read; or no task is queued, and this is the most severe reason.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 403, description = "No task is queued: none may be submitted.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 409, description = "No task is queued: their ids belong to others.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 413, description = "The body is too large; or no task is queued, and one is too large.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 422, description = "No task is queued: each item says why. Or the batch itself is not valid.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 424, description = "The batch is atomic, and an item is not valid.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 503, description = "No task is queued: the broker cannot take them now.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
        (status = 504, description = "No task is certainly queued: the broker did not confirm in time.",
            content((BatchAnswer = "application/json"), (ProblemBody = "application/problem+json"))),
    )
)]
pub async fn submit(
    admission: Admission,
    api: web::Data<Api>,
    prefer: Prefer,
    payload: web::Payload,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let submitter = Submitter::new(api.clone(), &request);
    if is_ndjson(request.headers()) {
        return ndjson::submit(admission, submitter, prefer.0.minimal, payload, &request);
    }
    let mut payload = payload.into_inner();
    let body = json_text(&request, &mut payload, api.limits.batch, api.limits.json_depth + 2).await?;
    let what = body.as_str().to_owned();
    let minimal = prefer.0.minimal;
    let run = move |ids| async move {
        let batch = Batch::parse(body.as_str()).map_err(|problem| problem.outcome(Outcome::NotPublished))?;
        let answer = Running { submitter: &submitter, ids: &ids, minimal }.run(batch).await;
        drop(admission);
        Ok(answer)
    };
    idempotency::once(api, &request, &what, run).await
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let essence = |value: &header::HeaderValue| {
        let text = value.to_str().ok()?;
        Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    };
    matches!(
        headers.get(header::CONTENT_TYPE).and_then(essence).as_deref(),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl")
    )
}

/// A task that is ready to be published, or why it is not.
pub type Ready = Result<(TaskId, Identity, Plan), Problem>;

/// A batch on its way through.
struct Running<'a> {
    submitter: &'a Submitter,
    ids: &'a Ids,
    minimal: bool,
}

impl Running<'_> {
    async fn run(&self, batch: Batch) -> (HttpResponse, Settled) {
        let api = self.submitter.api();
        let group: Option<GroupId> = batch.group.then(|| self.ids.id(GROUP).into());
        let batch_id = self.ids.id(BATCH);
        let mut references = Vec::with_capacity(batch.items.len());
        let mut ready = Vec::with_capacity(batch.items.len());
        for (index, item) in batch.items.into_iter().enumerate() {
            references.push(item.reference);
            ready.push(item.task.and_then(|task| self.prepare(task, index, group.as_ref())));
        }
        if batch.atomic {
            let missing = missing_queues(api, &ready).await;
            for (item, missing) in ready.iter_mut().zip(missing) {
                if let Some(problem) = missing {
                    *item = Err(problem);
                }
            }
            if ready.iter().any(Result::is_err) {
                ready = ready.into_iter().map(|item| item.and_then(|_| Err(aborted()))).collect();
            }
        }
        let publish = |item: Ready| async move {
            let (id, identity, plan) = item?;
            self.submitter.publish(id, identity, plan).await
        };
        let results: Vec<_> = futures_util::stream::iter(ready).map(publish).buffered(WINDOW).collect().await;
        let mut warnings = Vec::new();
        if let Err(reason) = self.register(&batch_id, group.as_ref(), &results).await {
            let detail = format!("the tasks are queued, but the batch cannot be read as a whole: {reason}");
            warnings.push(Warning { code: "batch-not-recorded", detail });
        }
        let answers: Vec<ItemAnswer> = results
            .into_iter()
            .zip(references)
            .enumerate()
            .map(|(index, (result, reference))| answer(index, reference, result, self.minimal))
            .collect();
        let accepted = answers.iter().filter(|item| item.status < 300).count();
        let links = BatchLinks::of(batch_id.as_str(), group.as_ref());
        let body = BatchAnswer {
            batch_id: batch_id.to_string(),
            group_id: group,
            accepted,
            deduplicated: answers.iter().filter(|item| item.status == 200).count(),
            failed: answers.len() - accepted,
            items: answers,
            warnings,
            links,
        };
        let settled = settled(&body);
        (respond(&body, self.minimal, &batch_id), settled)
    }

    fn prepare(&self, mut task: SubmitTask, index: usize, group: Option<&GroupId>) -> Ready {
        let (id, identity) = match task.task_id.take() {
            Some(chosen) => (chosen, Identity::Chosen),
            None => (self.ids.id(index), self.ids.identity()),
        };
        if let Some(group) = group {
            task.group_id = Some(group.clone());
            task.group_index = u32::try_from(index).ok();
        }
        let plan =
            self.submitter.plan(task, &id).map_err(|problem| problem.within(&format!("/tasks/{index}")))?;
        Ok((id, identity, plan))
    }

    /// Writes down which tasks the batch has.
    async fn register(
        &self,
        id: &TaskId,
        group: Option<&GroupId>,
        results: &[Result<Done, Problem>],
    ) -> Result<(), String> {
        let api = self.submitter.api();
        let possible: Vec<TaskId> = results
            .iter()
            .filter_map(|result| match result {
                Ok(done) => Some(done.id.clone()),
                Err(problem) => possibly_queued(problem),
            })
            .collect();
        if possible.is_empty() {
            return Ok(());
        }
        let sets = [(Set::Batch, Some(id.as_str())), (Set::Group, group.map(GroupId::as_str))];
        for (set, id) in sets {
            let Some(id) = id else { continue };
            let mut writer = Writer::new(api, set, id);
            possible.iter().cloned().for_each(|task| writer.push(task));
            writer.head.total = results.len();
            writer.head.accepted = results.iter().filter(|result| result.is_ok()).count();
            writer.head.failed = writer.head.total - writer.head.accepted;
            writer.head.complete = true;
            writer.head.group_id = group.cloned();
            writer.flush(api).await?;
        }
        Ok(())
    }
}

/// The id of a task that failed, and may be queued all the same.
pub fn possibly_queued(problem: &Problem) -> Option<TaskId> {
    let unknown = problem.known_outcome() == Some(Outcome::Unknown);
    problem.body().task_id.filter(|_| unknown).and_then(|id| TaskId::parse(id).ok())
}

/// The answer to one item.
pub fn answer(
    index: usize,
    reference: Option<String>,
    result: Result<Done, Problem>,
    minimal: bool,
) -> ItemAnswer {
    let mut answer = ItemAnswer { index, reference, status: 202, id: None, task: None, problem: None };
    match result {
        Ok(done) => {
            answer.status = if done.deduplicated { 200 } else { 202 };
            if minimal && done.warnings.is_empty() {
                answer.id = Some(done.id.to_string());
            } else {
                let mut handle = view::handle(&done.id, Some(&done.record), "PENDING");
                handle.deduplicated = done.deduplicated;
                answer.task = Some(Box::new(view::warned(handle, done.warnings)));
            }
        }
        Err(problem) => {
            let problem = match problem.known_outcome() {
                None => problem.outcome(Outcome::NotPublished),
                Some(_) => problem,
            };
            answer.status = problem.kind().status().as_u16();
            answer.problem = Some(Box::new(problem.body()));
        }
    }
    answer
}

/// For each item, why its queue cannot take it, as far as that can be known without publishing.
async fn missing_queues(api: &Api, ready: &[Ready]) -> Vec<Option<Problem>> {
    let mut missing = Vec::with_capacity(ready.len());
    for (index, item) in ready.iter().enumerate() {
        let queue = item.as_ref().ok().filter(|(_, _, plan)| plan.route.exchange.is_empty());
        let queue = queue.and_then(|(_, _, plan)| QueueName::parse(plan.route.routing_key.as_str()).ok());
        let problem = match queue.filter(|queue| !api.own_queues.contains(queue.as_str())) {
            None => None,
            Some(queue) => match depth::of(api, &queue).await {
                Ok(Some(_)) => None,
                Ok(None) => {
                    let pointer = format!("/tasks/{index}/queue");
                    let problem =
                        Problem::field(Kind::Unroutable, pointer, format!("there is no queue {queue}"));
                    Some(problem.outcome(Outcome::NotPublished))
                }
                Err(problem) => Some(problem),
            },
        };
        missing.push(problem);
    }
    missing
}

/// What a batch means when it is sent again.
fn settled(body: &BatchAnswer) -> Settled {
    let unknown = |item: &ItemAnswer| {
        item.problem.as_ref().is_some_and(|problem| problem.outcome == Some(Outcome::Unknown))
    };
    if body.items.iter().any(unknown) {
        Settled::Unknown
    } else if body.accepted == 0 {
        Settled::Nothing
    } else {
        Settled::Done
    }
}

fn respond(body: &BatchAnswer, minimal: bool, id: &TaskId) -> HttpResponse {
    let status = match (body.accepted, body.failed) {
        (_, 0) => StatusCode::ACCEPTED,
        (0, _) => {
            let worst = body.items.iter().map(|item| item.status).max().unwrap_or(500);
            StatusCode::from_u16(worst).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
        _ => StatusCode::MULTI_STATUS,
    };
    let mut response: HttpResponseBuilder = HttpResponse::build(status);
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    if body.accepted > 0 {
        response.insert_header((header::LOCATION, format!("/v1/batches/{id}")));
    }
    results::preference_applied(&mut response, None, minimal, std::time::Duration::ZERO);
    response.json(body)
}
