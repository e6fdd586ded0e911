//! The same for many tasks: run again or revoke those of a list, a filter, or a group of failures. One after the other, in
//! the background, with a bound; how far it is can be asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_protocol::TaskState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tasks::{self, Retry};
use super::{Doing, note, read, seen_by};
use crate::access::{self, Action, Role, Visitor, secret};
use crate::audit::Outcome;
use crate::clock;
use crate::error::Problem;
use crate::failures;
use crate::monitor::Monitor;
use crate::startup;
use crate::state::query::{self, Filter, Sort};

/// The most tasks of one job.
const MAX_TASKS: usize = 10_000;
/// Jobs that run at a time.
const MAX_RUNNING: usize = 4;
/// Jobs that are remembered.
const MAX_JOBS: usize = 50;
/// Errors of a job that are shown.
const ERRORS_SHOWN: usize = 20;
/// New tasks of a job that are shown.
const CREATED_SHOWN: usize = 100;
/// Tasks that a dry run shows.
const SAMPLE: usize = 10;
/// Tasks that are revoked with one message.
const REVOKED_AT_ONCE: usize = 500;

/// Jobs, the newest last.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Mutex<VecDeque<Arc<Mutex<Job>>>>,
}

/// How far a job is.
#[derive(Clone, Debug, Serialize)]
struct Job {
    id: String,
    action: &'static str,
    state: &'static str,
    user: String,
    started_at: f64,
    ended_at: Option<f64>,
    total: usize,
    done: usize,
    succeeded: usize,
    failed: usize,
    errors: Vec<Value>,
    created: Vec<String>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Mutex<Job>>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<Arc<Mutex<Job>>> {
        self.lock().iter().find(|job| held(job).id == id).cloned()
    }

    /// Remembers a new job, if another one may run.
    fn add(&self, job: Job) -> Option<Arc<Mutex<Job>>> {
        let mut jobs = self.lock();
        if jobs.iter().filter(|job| held(job).state == "running").count() >= MAX_RUNNING {
            return None;
        }
        if jobs.len() >= MAX_JOBS
            && let Some(oldest) = jobs.iter().position(|job| held(job).state != "running")
        {
            jobs.remove(oldest);
        }
        let job = Arc::new(Mutex::new(job));
        jobs.push_back(job.clone());
        Some(job)
    }
}

fn held(job: &Mutex<Job>) -> MutexGuard<'_, Job> {
    job.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be done, and with which tasks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    action: String,
    ids: Option<Vec<String>>,
    filter: Option<Which>,
    failure: Option<Group>,
    #[serde(default)]
    terminate: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    state: Vec<String>,
    name: Option<String>,
    worker: Option<String>,
    q: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: Option<String>,
    exception: String,
}

/// `POST /api/v2/bulk`.
pub async fn begin(
    monitor: Data<Monitor>,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let asked: Asked = read(&body)?;
    let action = match &*asked.action {
        "task.retry" => Action::TaskRetry,
        "task.revoke" => Action::TaskRevoke,
        _ => return Err(Problem::bad_parameter("action", "must be task.retry or task.revoke")),
    };
    let mut params: Value = serde_json::from_slice(&body).unwrap_or_default();
    monitor.redactor().json(&mut params);
    let name = format!("bulk.{}", action.name());
    let visitor = match access::permit(monitor.control(), &request, action) {
        Ok(visitor) => visitor,
        Err(told) => {
            let visitor = Visitor::of(&request, monitor.control());
            let detail = Some(told.0.clone());
            note(&monitor, &visitor, &request, &name, String::new(), params, Outcome::Denied, detail).await;
            return Err(Problem::not_permitted(&told));
        }
    };
    let (ids, more) = select(&monitor, &asked)?;
    if asked.dry_run {
        let sample: Vec<&String> = ids.iter().take(SAMPLE).collect();
        return Ok(HttpResponse::Ok().json(json!({ "total": ids.len(), "ids": sample, "more": more })));
    }
    if monitor.celery().is_none() {
        return Err(Problem::no_broker());
    }
    let job = Job {
        id: secret::hex(&secret::random::<8>().map_err(|error| Problem::unavailable(&error))?),
        action: action.name(),
        state: "running",
        user: visitor.called().to_owned(),
        started_at: clock::now().seconds(),
        ended_at: None,
        total: ids.len(),
        done: 0,
        succeeded: 0,
        failed: 0,
        errors: Vec::new(),
        created: Vec::new(),
    };
    let (id, shown) = (job.id.clone(), json!(job));
    let told = format!("job {id} with {} tasks", ids.len());
    let Some(job) = monitor.jobs().add(job) else {
        return Err(Problem::too_many("as many jobs are running as may: wait for one to end, or cancel one"));
    };
    note(&monitor, &visitor, &request, &name, id, params, Outcome::Ok, Some(told)).await;
    let monitor = monitor.get_ref().clone();
    startup::begin(Work { monitor, visitor, action, ids, terminate: asked.terminate, job });
    Ok(HttpResponse::Accepted().json(shown))
}

/// The tasks that are asked for, and whether there are more of them.
fn select(monitor: &Monitor, asked: &Asked) -> Result<(Vec<String>, bool), Problem> {
    let state = monitor.state();
    let mut ids: Vec<String> = match (&asked.ids, &asked.filter, &asked.failure) {
        (Some(ids), None, None) if ids.len() <= MAX_TASKS => ids.clone(),
        (Some(_), None, None) => return Err(Problem::bad_parameter("ids", format!("more than {MAX_TASKS}"))),
        (None, Some(which), None) => {
            let text =
                |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Into::into);
            let filter = Filter {
                states: which.state.iter().map(|state| TaskState::from(&*state.to_uppercase())).collect(),
                name: text(&which.name),
                worker: text(&which.worker),
                text: text(&which.q),
            };
            let page = query::page(state.tasks(), &filter, Sort::NEWEST, None, MAX_TASKS + 1);
            page.tasks.iter().map(|task| task.id().to_owned()).collect()
        }
        (None, None, Some(group)) => {
            failures::members(state.tasks(), group.name.as_deref(), &group.exception, MAX_TASKS + 1)
        }
        _ => return Err(Problem::bad_parameter("ids", "give one of ids, filter and failure")),
    };
    let more = ids.len() > MAX_TASKS;
    ids.truncate(MAX_TASKS);
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok((ids, more))
}

/// A job that runs.
pub(crate) struct Work {
    monitor: Monitor,
    visitor: Visitor,
    action: Action,
    ids: Vec<String>,
    terminate: bool,
    job: Arc<Mutex<Job>>,
}

impl Work {
    /// Until it is done, cancelled, or the monitor ends.
    pub(crate) async fn run(self) {
        let Work { monitor, visitor, action, ids, terminate, job } = self;
        let ended = monitor.ended();
        let Some(celery) = monitor.celery() else { return };
        let doing = Doing { monitor: &monitor, celery, visitor: &visitor, action };
        let step = if action == Action::TaskRevoke { REVOKED_AT_ONCE } else { 1 };
        for some in ids.chunks(step) {
            if held(&job).state != "running" || ended.is_cancelled() {
                break;
            }
            let outcome = match (action, some) {
                (Action::TaskRetry, [id]) => tasks::again(&doing, Retry::of(id)).await.map(Some),
                _ => tasks::revoke_all(&doing, some, terminate, "SIGTERM").await.map(|()| None),
            };
            let mut job = held(&job);
            job.done += some.len();
            match outcome {
                Ok(new) => {
                    job.succeeded += some.len();
                    if let Some(new) = new.filter(|_| job.created.len() < CREATED_SHOWN) {
                        job.created.push(new);
                    }
                }
                Err(problem) => {
                    job.failed += some.len();
                    if job.errors.len() < ERRORS_SHOWN {
                        job.errors.push(json!({ "target": some.first(), "said": problem.to_string() }));
                    }
                }
            }
        }
        let mut job = held(&job);
        job.state = if job.state == "running" && job.done == job.total { "done" } else { "cancelled" };
        job.ended_at = Some(clock::now().seconds());
        let Job { id, succeeded, failed, .. } = &*job;
        tracing::info!(id, succeeded, failed, state = job.state, "a job has ended");
    }
}

/// `GET /api/v2/bulk`.
pub async fn list(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    seen_by(&monitor, &request, Role::Operator, "looking at jobs")?;
    let items: Vec<Job> = monitor.jobs().lock().iter().rev().map(|job| held(job).clone()).collect();
    Ok(HttpResponse::Ok().json(json!({ "items": items })))
}

/// `GET /api/v2/bulk/{id}`.
pub async fn one(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    seen_by(&monitor, &request, Role::Operator, "looking at jobs")?;
    let job = monitor.jobs().find(&id).ok_or_else(|| unknown(&id))?;
    let shown = held(&job).clone();
    Ok(HttpResponse::Ok().json(shown))
}

/// `DELETE /api/v2/bulk/{id}`: what was not begun by now is not done.
pub async fn cancel(
    monitor: Data<Monitor>,
    id: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let visitor = access::permit(monitor.control(), &request, Action::TaskRetry)
        .map_err(|told| Problem::not_permitted(&told))?;
    let job = monitor.jobs().find(&id).ok_or_else(|| unknown(&id))?;
    let shown = {
        let mut job = held(&job);
        if job.state == "running" {
            job.state = "cancelled";
        }
        job.clone()
    };
    note(&monitor, &visitor, &request, "bulk.cancel", id.into_inner(), json!({}), Outcome::Ok, None).await;
    Ok(HttpResponse::Ok().json(shown))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("no job {id} is remembered"))
}
