//! Streams: of one task, of a group or batch, of everything.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use celery_protocol::{TaskId, glob};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::groups::answer;
use super::openapi::ReadProblems;
use super::results;
use crate::dto::stream::ServerSentEvent;
use crate::extract::PathId;
use crate::hub::{Change, Said, Subscription, What};
use crate::problem::{Kind, Problem};
use crate::registry::{self, Set};
use crate::sets;
use crate::sse::{self, Frame};
use crate::state::Api;
use crate::tickets::{self, Grant};
use crate::view::{self, Include};

/// Between attempts to read after a break.
const PAUSE: Duration = Duration::from_secs(1);
/// Between looks at a batch that is still being streamed in.
const GROWTH: Duration = Duration::from_secs(1);

/// How to follow tasks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// A one-time ticket instead of a token.
    #[expect(dead_code, reason = "read by the middleware")]
    ticket: Option<String>,
    /// As the header `Last-Event-ID`, for those who cannot set it.
    last_event_id: Option<String>,
}

/// Follows a task until it has ended.
///
/// Events: `snapshot` (the task as it is), `state`, `progress`, `retry`, `result`, `error`, and `end` with its `reason`
/// (`terminal`, `draining`, `forgotten`). A stream that was opened with a ticket begins with `ticket`.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    tag = "streams",
    operation_id = "follow_task",
    params(
        ("id" = String, Path, description = "The task's id.", pattern = "^[A-Za-z0-9._~:@+-]{1,200}$", example = "order-42"),
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen: it, and the snapshot, are left out."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = ServerSentEvent, content_type = "text/event-stream"),
        ReadProblems,
    )
)]
pub async fn task(
    api: web::Data<Api>,
    id: PathId,
    query: web::Query<StreamQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let id = id.0;
    let found = results::find(&api, &id, false, None).await?;
    if request.method() == Method::HEAD {
        return Ok(sse::head());
    }
    let pass = sets::pass(&api)?;
    let ticket = next_ticket(&api, &request).await?;
    let states = api.celery.backend().watch(&id).await.map_err(|err| Problem::from_backend(&err))?;
    let seen = last_seen(&request, query.last_event_id.as_deref());
    let snapshot = seen.is_none().then(|| {
        let task = view::task(&id, found.record.as_ref(), found.meta.as_ref(), Include::default());
        Frame::json(None, "snapshot", &task)
    });
    let record = found.record;
    let changes = states.filter_map(move |meta| {
        let change = Change::of(&meta, record.as_ref());
        let event = results::mark(&change.state, change.data.as_bytes());
        let known = seen.as_deref() == Some(event.as_str());
        std::future::ready((!known).then(|| Frame::raw(Some(&event), change.event, &change.data)))
    });
    let frames = stream::iter(snapshot).chain(changes).chain(stream::iter([Frame::end("terminal")]));
    Ok(sse::respond(&api, pass, ticket, frames.boxed()))
}

/// Follows a group until all its tasks have ended.
///
/// Events: `snapshot` (the group as it is; again after a break), then those of its tasks, and `end`.
#[utoipa::path(
    get,
    path = "/v1/groups/{id}/events",
    tag = "streams",
    operation_id = "follow_group",
    params(
        ("id" = String, Path, description = "The group's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"),
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen: the stream goes on behind it."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = ServerSentEvent, content_type = "text/event-stream"),
        ReadProblems,
    )
)]
pub async fn group(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<StreamQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    follow(api, Set::Group, &id, query.last_event_id.as_deref(), &request).await
}

/// Follows a batch until all its tasks have ended, as a group.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/events",
    tag = "streams",
    operation_id = "follow_batch",
    params(
        ("id" = String, Path, description = "The batch's id.", example = "0b0e2c3a-9f53-4b6e-a1a6-3a1f5f0e9f0b"),
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen: the stream goes on behind it."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = ServerSentEvent, content_type = "text/event-stream"),
        ReadProblems,
    )
)]
pub async fn batch(
    api: web::Data<Api>,
    id: web::Path<String>,
    query: web::Query<StreamQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    follow(api, Set::Batch, &id, query.last_event_id.as_deref(), &request).await
}

/// How to follow everything.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EverythingQuery {
    /// A glob of task names; tasks whose name is not known are left out then.
    #[param(example = "demo.*")]
    task: Option<String>,
    /// States, separated by commas.
    #[param(example = "FAILURE,REVOKED")]
    state: Option<String>,
    /// The queue; tasks whose queue is not known are left out then.
    queue: Option<String>,
    /// A one-time ticket instead of a token.
    #[expect(dead_code, reason = "read by the middleware")]
    ticket: Option<String>,
    /// As the header `Last-Event-ID`, for those who cannot set it.
    last_event_id: Option<String>,
}

/// Follows every task that the result backend announces, by whomever it was submitted.
///
/// Events: `state`, `progress`, `retry`, `result`, `error`; `lagged` when some were missed, with their number if that is
/// known; `end` at shutdown. Events of the last minutes are kept for those who come back.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "streams",
    operation_id = "follow_everything",
    params(
        EverythingQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen: the stream goes on behind it."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = ServerSentEvent, content_type = "text/event-stream"),
        ReadProblems,
    )
)]
pub async fn everything(
    api: web::Data<Api>,
    query: web::Query<EverythingQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    if request.method() == Method::HEAD {
        return Ok(sse::head());
    }
    let query = query.into_inner();
    let pass = sets::pass(&api)?;
    let ticket = next_ticket(&api, &request).await?;
    let seen = last_seen(&request, query.last_event_id.as_deref());
    let subscription = api.hub.subscribe(seen.as_deref()).await?;
    let states: Vec<String> = query
        .state
        .iter()
        .flat_map(|list| list.split(','))
        .map(|state| state.trim().to_ascii_uppercase())
        .collect();
    let wanted = move |change: &Change| {
        (states.is_empty() || states.contains(&change.state))
            && query
                .task
                .as_ref()
                .is_none_or(|pattern| change.task.as_ref().is_some_and(|name| glob::matches(pattern, name)))
            && query.queue.as_ref().is_none_or(|queue| change.queue.as_ref() == Some(queue))
    };
    let lost = subscription.lost.then(|| lagged(None));
    let hub_of = api.clone();
    let frames = heard(subscription).filter_map(move |heard| {
        let frame = match heard {
            Heard::Said(said) => match &said.what {
                What::State(change) if wanted(change) => {
                    Some(Frame::raw(Some(&hub_of.hub.event_id(&said)), change.event, &change.data))
                }
                What::State(_) => None,
                What::Gap => Some(lagged(None)),
            },
            Heard::Missed(count) => Some(lagged(Some(count))),
        };
        std::future::ready(frame)
    });
    Ok(sse::respond(&api, pass, ticket, stream::iter(lost).chain(frames).boxed()))
}

fn lagged(dropped: Option<u64>) -> Frame {
    Frame::json(None, "lagged", &json!({ "dropped": dropped }))
}

async fn follow(
    api: web::Data<Api>,
    set: Set,
    id: &str,
    seen: Option<&str>,
    request: &HttpRequest,
) -> Result<HttpResponse, Problem> {
    let seen = last_seen(request, seen);
    let (_, ids) = registry::read(&api, set, id).await?;
    if request.method() == Method::HEAD {
        return Ok(sse::head());
    }
    let pass = sets::pass(&api)?;
    let ticket = next_ticket(&api, request).await?;
    let subscription = api.hub.subscribe(seen.as_deref()).await?;
    let resumed = seen.is_some() && !subscription.lost;
    let mut following = Following {
        api: api.clone(),
        set,
        id: id.to_owned(),
        ids: ids.into_iter().collect(),
        open: HashSet::new(),
        ready: VecDeque::new(),
        growing: false,
        over: false,
        heard: heard(subscription),
    };
    let snapshot = following.look().await?;
    if !resumed {
        following.ready.push_back(snapshot);
    }
    let frames =
        stream::unfold(following, |mut following| async move { Some((following.next().await?, following)) });
    Ok(sse::respond(&api, pass, ticket, frames.boxed()))
}

/// A stream of a group or batch.
struct Following {
    api: web::Data<Api>,
    set: Set,
    id: String,
    ids: HashSet<TaskId>,
    /// Those that have not ended, as far as is known.
    open: HashSet<TaskId>,
    ready: VecDeque<Frame>,
    /// A batch that is still being streamed in; how many of its tasks are written down is only found by reading.
    growing: bool,
    over: bool,
    heard: BoxStream<'static, Heard>,
}

impl Following {
    /// Reads all states.
    async fn look(&mut self) -> Result<Frame, Problem> {
        let (head, ids) = registry::read(&self.api, self.set, &self.id).await?;
        let metas = sets::states(&self.api, &ids).await?;
        let open = ids.iter().zip(&metas).filter(|(_, meta)| !sets::ended(meta.as_ref()));
        self.open = open.map(|(id, _)| id.clone()).collect();
        self.growing = head.growing;
        self.ids = ids.iter().cloned().collect();
        Ok(Frame::json(None, "snapshot", &answer(self.set, &self.id, &head, &ids, &metas)))
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            if self.open.is_empty() && !self.growing {
                // What was said before the snapshot was read is in line still: a client that comes back wants it.
                while let Some(Some(Heard::Said(said))) =
                    futures_util::FutureExt::now_or_never(self.heard.next())
                {
                    self.take(&said);
                }
                self.over = true;
                self.ready.push_back(Frame::end("terminal"));
                continue;
            }
            let growth = async {
                match self.growing {
                    true => tokio::time::sleep(GROWTH).await,
                    false => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = self.heard.next() => heard?,
                () = growth => {
                    self.grow().await;
                    continue;
                }
            };
            match heard {
                Heard::Said(said) => {
                    let gap = matches!(said.what, What::Gap);
                    self.take(&said);
                    if gap {
                        self.catch_up().await;
                    }
                }
                Heard::Missed(_) => self.catch_up().await,
            }
        }
    }

    fn take(&mut self, said: &Said) {
        if let What::State(change) = &said.what
            && self.ids.contains(&change.id)
        {
            if change.ready {
                self.open.remove(&change.id);
            }
            let id = self.api.hub.event_id(said);
            self.ready.push_back(Frame::raw(Some(&id), change.event, &change.data));
        }
    }

    /// Reads again what was written down of a batch that grows; shows it if that is more than was known.
    async fn grow(&mut self) {
        let known = (self.ids.len(), self.growing);
        let ready = self.ready.len();
        self.catch_up().await;
        if !self.over && known == (self.ids.len(), self.growing) {
            self.ready.truncate(ready);
        }
    }

    /// After a break: reads again, for as long as that takes.
    async fn catch_up(&mut self) {
        loop {
            match self.look().await {
                Ok(snapshot) => return self.ready.push_back(snapshot),
                Err(problem) if problem.kind() == Kind::ResultBackendUnavailable => {
                    tracing::warn!("a stream waits for the result backend: {problem}");
                    tokio::time::sleep(PAUSE).await;
                }
                // Deleted, or lost with the backend's memory.
                Err(_) => {
                    self.over = true;
                    return self.ready.push_back(Frame::end("forgotten"));
                }
            }
        }
    }
}

/// What a listener hears.
enum Heard {
    Said(std::sync::Arc<Said>),
    /// So many things were missed.
    Missed(u64),
}

/// What was missed, and what is said from now on.
fn heard(subscription: Subscription) -> BoxStream<'static, Heard> {
    let Subscription { missed, said, .. } = subscription;
    let live = stream::unfold(said, |mut said| async move {
        match said.recv().await {
            Ok(heard) => Some((Heard::Said(heard), said)),
            Err(RecvError::Lagged(count)) => Some((Heard::Missed(count), said)),
            Err(RecvError::Closed) => None,
        }
    });
    stream::iter(missed).map(Heard::Said).chain(live).boxed()
}

/// The last event that a client saw.
fn last_seen(request: &HttpRequest, parameter: Option<&str>) -> Option<String> {
    let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    header.or(parameter).filter(|id| !id.is_empty()).map(str::to_owned)
}

/// The ticket for the next time, where this stream was opened with one.
async fn next_ticket(api: &Api, request: &HttpRequest) -> Result<Option<Frame>, Problem> {
    let grant = request.extensions().get::<Grant>().cloned();
    match grant {
        None => Ok(None),
        Some(grant) => Ok(Some(Frame::json(None, "ticket", &tickets::issue(api, &grant).await?))),
    }
}
