//! Dead letters: messages that were rejected, expired or pushed out, in a queue where they wait for somebody to look.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_broker::{Route, Verdict};
use celery_protocol::message::RawMessage;
use celery_protocol::{Limits, Message, QueueName, WireTime};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Doing, Done, broker};
use crate::access::Role;
use crate::error::Problem;
use crate::monitor::Monitor;

/// The most messages that one action looks at.
const MAX_LETTERS: usize = 10_000;
/// The most that are shown.
const MAX_SHOWN: usize = 500;
/// The longest text of arguments that is shown.
const MAX_TEXT: usize = 1_024;

type Outcome = Result<(String, Vec<Done>), Problem>;

/// Dead letters that are to be sent where they came from, or elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requeue {
    queue: String,
    ids: Option<BTreeSet<String>>,
    to: Option<String>,
}

pub(super) async fn requeue(doing: &Doing<'_>, asked: Requeue) -> Outcome {
    let Requeue { queue, ids, to } = asked;
    let name = QueueName::parse(queue.clone()).map_err(|error| Problem::bad_parameter("queue", error))?;
    if let Some(to) = &to {
        let to = QueueName::parse(to.clone()).map_err(|error| Problem::bad_parameter("to", error))?;
        if to == name {
            return Err(Problem::bad_parameter("to", "is the queue itself"));
        }
    }
    let mut problems = Vec::new();
    let mut sent = 0_u64;
    let celery = doing.celery;
    let sifted = celery
        .sift(&name, MAX_LETTERS, async |message: &RawMessage| {
            if !wanted(ids.as_ref(), message) {
                return Verdict::Keep;
            }
            let letter = Letter::of(message);
            let route = to.as_ref().map(Route::queue).or(letter.home);
            let Some(route) = route else {
                problems.push(Done::failed(
                    letter.id,
                    "nothing says where it came from: say where to, with `to`",
                ));
                return Verdict::Keep;
            };
            match celery.publish(&route, without_death(message)).await {
                Ok(()) => {
                    sent += 1;
                    Verdict::Take
                }
                Err(error) => {
                    problems.push(Done::failed(letter.id, error.to_string()));
                    // Without the broker all others would fail too.
                    if problems.len() > 20 { Verdict::Stop } else { Verdict::Keep }
                }
            }
        })
        .await
        .map_err(|error| broker(&error))?;
    let sifted = sifted.ok_or_else(|| Problem::not_found(format!("the broker has no queue {queue}")))?;
    report(&queue, "were sent again", sent, sifted, ids.as_ref(), problems)
}

/// Dead letters that are to be deleted; the queue's name stands there twice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToDrop {
    queue: String,
    ids: Option<BTreeSet<String>>,
    #[serde(default)]
    confirm: String,
}

pub(super) async fn drop_letters(doing: &Doing<'_>, asked: ToDrop) -> Outcome {
    let ToDrop { queue, ids, confirm } = asked;
    if confirm != queue {
        return Err(Problem::bad_parameter("confirm", "must be the name of the queue"));
    }
    let name = QueueName::parse(queue.clone()).map_err(|error| Problem::bad_parameter("queue", error))?;
    let mut dropped = 0;
    let sifted = doing
        .celery
        .sift(&name, MAX_LETTERS, async |message: &RawMessage| {
            if wanted(ids.as_ref(), message) {
                dropped += 1;
                Verdict::Take
            } else {
                Verdict::Keep
            }
        })
        .await
        .map_err(|error| broker(&error))?;
    let sifted = sifted.ok_or_else(|| Problem::not_found(format!("the broker has no queue {queue}")))?;
    report(&queue, "were deleted", dropped, sifted, ids.as_ref(), Vec::new())
}

fn report(
    queue: &str,
    what: &str,
    count: u64,
    complete: bool,
    ids: Option<&BTreeSet<String>>,
    problems: Vec<Done>,
) -> Outcome {
    let mut message = format!("{count} dead letters of {queue} {what}");
    let missing = ids.map_or(0, |ids| (ids.len() as u64).saturating_sub(count + problems.len() as u64));
    if missing > 0 {
        message.push_str(&format!("; {missing} were not there"));
    }
    if !complete {
        message.push_str("; there are more");
    }
    let own = Done { target: queue.to_owned(), ok: missing == 0, count: Some(count), ..Done::default() };
    Ok((message, std::iter::once(own).chain(problems).collect()))
}

fn wanted(ids: Option<&BTreeSet<String>>, message: &RawMessage) -> bool {
    ids.is_none_or(|ids| ids.contains(&id_of(message)))
}

fn id_of(message: &RawMessage) -> String {
    let id = message.headers.get("id").and_then(Value::as_str).map(str::to_owned);
    id.or_else(|| message.properties.correlation_id.clone()).unwrap_or_default()
}

/// What a dead letter tells of itself.
#[derive(Debug, PartialEq)]
struct Letter {
    id: String,
    reason: Option<String>,
    from: Option<String>,
    died_at: Option<f64>,
    count: Option<u64>,
    home: Option<Route>,
}

impl Letter {
    /// RabbitMQ writes each death into the header `x-death`, the newest first.
    fn of(message: &RawMessage) -> Letter {
        let death = message.headers.get("x-death").and_then(|deaths| deaths.get(0));
        let text = |name: &str| death.and_then(|death| death.get(name)?.as_str()).map(str::to_owned);
        let from = text("queue");
        let key = death.and_then(|death| death.get("routing-keys")?.get(0)?.as_str());
        let exchange = text("exchange");
        let home = match (exchange, key) {
            (Some(exchange), Some(key)) => Some(Route { exchange, routing_key: key.to_owned() }),
            _ => from.as_deref().map(Route::queue),
        };
        Letter {
            id: id_of(message),
            reason: text("reason"),
            died_at: death.and_then(|death| time(death.get("time")?)),
            count: death.and_then(|death| death.get("count")?.as_u64()),
            from,
            home,
        }
    }
}

/// A time as the broker writes it: seconds, or a text.
fn time(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| WireTime::parse(value.as_str()?).ok().map(|time| time.unix_seconds()))
}

/// A message as it was before it died, so that its next death counts as the first.
fn without_death(message: &RawMessage) -> RawMessage {
    let mut message = message.clone();
    // The broker would refuse one that says to be from somebody else.
    message.properties.user_id = None;
    message.headers.retain(|name, _| {
        !name.starts_with("x-death")
            && !name.starts_with("x-first-death-")
            && !name.starts_with("x-last-death-")
    });
    message
}

/// `GET /api/v2/dead-letters`: the queues that dead letters go to.
pub async fn list(monitor: Data<Monitor>) -> Result<HttpResponse, Problem> {
    let mut queues: BTreeMap<String, BTreeSet<String>> =
        monitor.dead_letter_queues().iter().map(|queue| (queue.clone(), BTreeSet::new())).collect();
    for info in monitor.answers().all().into_values() {
        let active = info.get("active_queues").and_then(Value::as_array).cloned().unwrap_or_default();
        for queue in active {
            let arguments = queue.get("queue_arguments");
            let argument = |name: &str| arguments.and_then(|all| all.get(name)?.as_str()).map(str::to_owned);
            // Through another exchange than the default one nobody can tell where they go.
            let direct = argument("x-dead-letter-exchange").is_some_and(|exchange| exchange.is_empty());
            if let (true, Some(to), Some(from)) =
                (direct, argument("x-dead-letter-routing-key"), queue.get("name").and_then(Value::as_str))
            {
                queues.entry(to).or_default().insert(from.to_owned());
            }
        }
    }
    let mut items = Vec::new();
    for (queue, from) in queues {
        let depth = match (QueueName::parse(queue.clone()), monitor.celery()) {
            (Ok(name), Some(celery)) => celery.queue_depth(&name).await.ok().flatten(),
            _ => None,
        };
        items.push(json!({ "queue": queue, "ready": depth.map(|depth| depth.ready), "from": from }));
    }
    Ok(HttpResponse::Ok().json(json!({ "items": items })))
}

/// `GET /api/v2/dead-letters/{queue}`: looks at the oldest ones, and leaves them there.
pub async fn peek(
    monitor: Data<Monitor>,
    queue: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    use crate::routes::parameters::{number, pairs, unknown};
    super::seen_by(&monitor, &request, Role::Operator, "looking at messages")?;
    let mut limit = 50;
    for (name, value) in pairs(&request)? {
        match &*name {
            "limit" => limit = number(&name, &value)?.clamp(1, MAX_SHOWN),
            _ => return Err(unknown(&name)),
        }
    }
    let celery = monitor.celery().ok_or_else(Problem::no_broker)?;
    let name = QueueName::parse(queue.as_str()).map_err(|error| Problem::bad_parameter("queue", error))?;
    let mut items = Vec::new();
    let sifted = celery
        .sift(&name, limit, async |message: &RawMessage| {
            items.push(shown(&monitor, message));
            Verdict::Keep
        })
        .await
        .map_err(|error| broker(&error))?;
    let complete = sifted.ok_or_else(|| Problem::not_found(format!("the broker has no queue {queue}")))?;
    let depth = celery.queue_depth(&name).await.ok().flatten();
    Ok(HttpResponse::Ok().json(json!({
        "queue": &**queue,
        "ready": depth.map(|depth| depth.ready),
        "items": items,
        "complete": complete,
    })))
}

fn shown(monitor: &Monitor, message: &RawMessage) -> Value {
    let letter = Letter::of(message);
    let header = |name: &str| {
        let text = message.headers.get(name)?.as_str()?;
        let text: String = text.chars().take(MAX_TEXT).collect();
        Some(monitor.redactor().text(&text).unwrap_or(text))
    };
    let task = Message::decode(message.clone(), &Limits::DEFAULT)
        .ok()
        .map(|message| message.headers.task.to_string());
    json!({
        "id": letter.id,
        "name": task,
        "args": header("argsrepr"),
        "kwargs": header("kwargsrepr"),
        "reason": letter.reason,
        "from": letter.from,
        "died_at": letter.died_at,
        "count": letter.count,
        "bytes": message.body.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_tells_where_it_came_from() {
        let mut message = RawMessage::default();
        message.headers.insert("id".into(), json!("one"));
        assert_eq!((Letter::of(&message).home, id_of(&message)), (None, "one".to_owned()));
        message.headers.insert(
            "x-death".into(),
            json!([{"queue": "shop", "reason": "rejected", "exchange": "", "routing-keys": ["shop"], "count": 2, "time": 5}]),
        );
        message.headers.insert("x-first-death-queue".into(), json!("shop"));
        let letter = Letter::of(&message);
        assert_eq!(
            (letter.reason.as_deref(), letter.count, letter.died_at),
            (Some("rejected"), Some(2), Some(5.0))
        );
        assert_eq!(letter.home, Some(Route { exchange: String::new(), routing_key: "shop".into() }));
        let again = without_death(&message);
        assert_eq!(again.headers.keys().collect::<Vec<_>>(), ["id"]);
    }
}
