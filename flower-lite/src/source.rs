//! Where events come from: the broker's event exchange, for as long as the monitor runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use celery_broker::control::Destination;
use celery_broker::event::{EventsOptions, Received, Receiver};
use celery_broker::{BackendError, BackendErrorKind, BrokerError, Celery};
use celery_protocol::control::Command;
use celery_protocol::{ResultMeta, TaskId, TaskState};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::collector::Input;
use crate::live::Link;
use crate::monitor::Shared;
use crate::state::order::Place;
use crate::state::time::UnixTime;
use crate::stored;

/// How many messages are taken in at a time.
const AT_ONCE: usize = 500;
/// Celery drops events that wait for more than 5 s, which loses a third of them in a burst.
const MESSAGE_TTL: Duration = Duration::from_secs(60);
/// How often workers are told to send events of their tasks; Flower's.
const ENABLE_EVENTS: Duration = Duration::from_secs(5);
/// How often it is looked whether a worker has appeared.
const LOOK: Duration = Duration::from_secs(1);
/// How often all workers are asked.
const ASK: Duration = Duration::from_secs(60);
/// The same, while one of them has not answered yet.
const ASK_SOON: Duration = Duration::from_secs(5);
/// How often the result backend is asked for what events may have missed.
const COMPLETE: Duration = Duration::from_secs(10);
/// How long a task is in its state before anybody asks.
const LEFT: Duration = Duration::from_secs(30);
/// For how many tasks of each state the backend is asked at a time.
const ASKED_AT_ONCE: usize = 250;
/// How long the answers of a worker are kept that is gone.
const KEEP_ANSWERS: Duration = Duration::from_secs(3_600);
/// How often queues are looked at.
const LOOK_AT_QUEUES: Duration = Duration::from_secs(5);

/// Begins to listen.
///
/// # Errors
/// When this can't be done with such a client.
pub(crate) fn listen(celery: &Celery) -> Result<Receiver, BrokerError> {
    celery.events(&EventsOptions { message_ttl: MESSAGE_TTL, ..EventsOptions::default() })
}

/// Hands over what comes in until `stop`, or until the collector is gone.
pub(crate) async fn run(
    mut receiver: Receiver,
    celery: Celery,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
) {
    let mut received = Vec::new();
    loop {
        let count = tokio::select! {
            () = stop.cancelled() => break,
            count = receiver.recv_many(&mut received, AT_ONCE) => count,
        };
        if count == 0 {
            break;
        }
        for input in batches(&mut received) {
            if matches!(input, Input::Link(Link::Connected)) {
                tell(&celery, &Command::Heartbeat).await;
            }
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
    receiver.close().await;
}

/// Tells all workers to send events of their tasks, again and again: those that come later have not heard it.
pub(crate) async fn keep_events_on(celery: Celery, stop: CancellationToken) {
    let mut again = tokio::time::interval(ENABLE_EVENTS);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => {}
        }
        if celery.health().connected {
            tell(&celery, &Command::EnableEvents).await;
        }
    }
}

/// Keeps what workers answer up to date: asks when one is heard of that has not answered yet, and once a minute.
pub(crate) async fn keep_asking(shared: Arc<Shared>, celery: Celery, stop: CancellationToken) {
    let mut again = tokio::time::interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => {}
        }
        let online: BTreeSet<String> = shared
            .state()
            .workers()
            .into_iter()
            .filter(|worker| worker.is_online())
            .map(|worker| worker.name().to_string())
            .collect();
        let passed = asked.map(|at| at.elapsed());
        let unasked = online.iter().any(|worker| !shared.answers.knows(worker));
        // A worker that never answers must not have everybody asked all the time.
        let due = passed.is_none_or(|passed| passed >= ASK || unasked && passed >= ASK_SOON);
        if due && !online.is_empty() && celery.health().connected {
            asked = Some(Instant::now());
            if let Err(error) = shared.answers.refresh(&celery, None).await {
                tracing::debug!(%error, "workers could not be asked");
            }
            shared.answers.forget(&online, clock::now().seconds() - KEEP_ANSWERS.as_secs_f64());
        }
    }
}

/// Keeps the numbers of queues up to date.
pub(crate) async fn keep_looking_at_queues(shared: Arc<Shared>, celery: Celery, stop: CancellationToken) {
    let mut again = tokio::time::interval(LOOK_AT_QUEUES);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => {}
        }
        if celery.health().connected {
            shared.look_at_queues(&celery).await;
        }
    }
}

/// Asks the result backend for tasks that seem to run for long, or whose worker is gone: the event of their end may have
/// been lost.
pub(crate) async fn keep_completing(shared: Arc<Shared>, celery: Celery, stop: CancellationToken) {
    let mut again = tokio::time::interval(COMPLETE);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turns = [(TaskState::Started, None), (TaskState::Received, None), (TaskState::Retry, None)];
    while celery.backend().name() != "disabled" {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => {}
        }
        for (state, after) in &mut turns {
            let left = {
                let before = clock::now().plus(-LEFT.as_secs_f64());
                let cluster = shared.state();
                let left = cluster.tasks().left_in(state, *after, before, ASKED_AT_ONCE);
                left.map(|task| (task.key(), Place::new(task.listed_at(), task.serial()))).collect::<Vec<_>>()
            };
            // From the beginning again once all had their turn.
            *after = left.last().filter(|_| left.len() == ASKED_AT_ONCE).map(|(_, place)| *place);
            let ids: Vec<TaskId> =
                left.iter().filter_map(|(id, _)| TaskId::parse(id.as_str()).ok()).collect();
            if ids.is_empty() {
                continue;
            }
            match ask_backend(&celery, &ids).await {
                Ok(metas) => metas.iter().for_each(|meta| complete(&shared, meta)),
                Err(error) => tracing::debug!(%error, "the result backend could not be asked"),
            }
        }
    }
}

/// What the backend knows of these tasks. A result that can't be read must not hide the others: then each is asked for by
/// itself.
async fn ask_backend(celery: &Celery, ids: &[TaskId]) -> Result<Vec<ResultMeta>, BackendError> {
    match celery.backend().get_many(ids).await {
        Err(error) if error.kind() == BackendErrorKind::Decode => {}
        told => return told.map(|metas| metas.into_iter().flatten().collect()),
    }
    let mut metas = Vec::new();
    for id in ids {
        match celery.backend().get(id).await {
            Ok(meta) => metas.extend(meta),
            Err(error) if error.kind() == BackendErrorKind::Decode => {
                tracing::debug!(%error, task = %id, "a stored result can't be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(metas)
}

fn complete(shared: &Shared, meta: &ResultMeta) {
    if let Some(what) = stored::ending(meta, &shared.options.limits, &shared.options.redactor) {
        let at = meta.date_done.and_then(|date| UnixTime::new(date.unix_seconds()));
        shared.state_mut().complete(meta.task_id.as_str(), at, what, clock::now());
    }
}

async fn tell(celery: &Celery, command: &Command) {
    if let Err(error) = celery.control().cast(command, Destination::All).await {
        tracing::debug!(%error, ?command, "workers could not be told");
    }
}

/// What was received, with neighbouring events together.
fn batches(received: &mut Vec<Received>) -> Vec<Input> {
    let mut batches = Vec::new();
    let (mut events, mut undecodable) = (Vec::new(), 0);
    for one in received.drain(..) {
        let link = match one {
            Received::Event { event, .. } => {
                events.push(*event);
                continue;
            }
            Received::Undecodable { reason } => {
                tracing::debug!(reason, "a message on the event exchange is no event");
                undecodable += 1;
                continue;
            }
            Received::Connected => {
                tracing::info!("listening to events");
                Link::Connected
            }
            Received::Lost { reason } => {
                tracing::warn!(reason, "no events come in");
                Link::Lost
            }
            Received::Fatal(error) => {
                tracing::error!(%error, "listening to events can't go on");
                Link::Lost
            }
            _ => continue,
        };
        batches.push(Input::Events { events: std::mem::take(&mut events), undecodable, received: None });
        undecodable = 0;
        batches.push(Input::Link(link));
    }
    batches.push(Input::Events { events, undecodable, received: None });
    batches
}
