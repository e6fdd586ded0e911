//! Failures by what was raised and by whom: one row for a thousand tasks that failed for one reason. Pure.

use std::collections::{BTreeSet, HashMap};

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use celery_protocol::{TaskState, glob};
use serde::Serialize;
use serde_json::json;

use crate::clock;
use crate::error::Problem;
use crate::monitor::Monitor;
use crate::routes::parameters::{number, pairs, seconds, unknown};
use crate::state::mark::Kind;
use crate::state::task::Task;
use crate::state::tasks::Tasks;
use crate::state::text::contains_ignoring_case;

/// Groups that are kept apart; what is beyond is counted only.
const MAX_GROUPS: usize = 2_000;
/// Workers, and tasks, that a group names.
const SHOWN: usize = 10;
/// Columns of a group's little chart.
const COLUMNS: usize = 24;
/// What a task without a known exception has raised.
const UNKNOWN: &str = "unknown";

/// Tasks that failed alike.
#[derive(Debug, Serialize)]
pub struct Group {
    key: String,
    name: Option<String>,
    exception: String,
    /// What the newest one said.
    message: Option<String>,
    count: usize,
    first: f64,
    last: f64,
    workers: BTreeSet<String>,
    /// The newest ones.
    samples: Vec<String>,
    /// How many in each part of the span.
    series: [usize; COLUMNS],
}

/// Which failures are asked for.
#[derive(Debug, Default)]
pub struct Query {
    /// At this time or later.
    pub since: Option<f64>,
    /// Of tasks with a name that matches this glob.
    pub name: Option<String>,
    /// At this worker.
    pub worker: Option<String>,
    /// With this text in exception or name.
    pub text: Option<String>,
}

/// The type of an exception of which the `repr` is known: `ValueError` of `ValueError('x')`.
#[must_use]
pub fn kind_of(exception: &str) -> &str {
    let end = exception.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')));
    let kind = end.map_or(exception, |end| &exception[..end]);
    // `<Wrapper: ValueError('x')>` and the like.
    match exception.strip_prefix('<') {
        Some(inside) => inside.split_once(": ").map_or(UNKNOWN, |(_, inner)| kind_of(inner)),
        None if kind.is_empty() => UNKNOWN,
        None => kind,
    }
}

fn kind(task: &Task) -> &str {
    let exception = task.trouble().and_then(|trouble| trouble.exception);
    exception.map_or(UNKNOWN, kind_of)
}

/// All failed tasks, newest first.
fn failed(tasks: &Tasks) -> impl Iterator<Item = &Task> {
    let places = tasks.in_state(&TaskState::Failure).into_iter().flat_map(|places| places.iter().rev());
    places.filter_map(|place| tasks.at(place))
}

/// The name of a task, and the type of what it raised.
type Alike<'a> = (Option<&'a str>, &'a str);

/// The groups, the largest first, and how many failures there are in all.
#[must_use]
pub fn groups(tasks: &Tasks, query: &Query, now: f64) -> (Vec<Group>, usize) {
    let mut found: HashMap<Alike<'_>, (Group, Vec<f64>)> = HashMap::new();
    let (mut total, mut oldest) = (0, now);
    for task in failed(tasks) {
        let at = task.when(Kind::Failed).unwrap_or_else(|| task.timestamp()).seconds();
        let name = task.name().map(|name| &**name);
        let exception = task.trouble().and_then(|trouble| trouble.exception);
        let worker = task.worker().map(|worker| &**worker);
        let wanted = query.since.is_none_or(|since| at >= since)
            && query.name.as_deref().is_none_or(|glob| name.is_some_and(|name| glob::matches(glob, name)))
            && query.worker.as_deref().is_none_or(|wanted| worker == Some(wanted))
            && query.text.as_deref().is_none_or(|text| {
                [exception, name].into_iter().flatten().any(|field| contains_ignoring_case(field, text))
            });
        if !wanted {
            continue;
        }
        total += 1;
        oldest = oldest.min(at);
        let kind = kind(task);
        if found.len() >= MAX_GROUPS && !found.contains_key(&(name, kind)) {
            continue;
        }
        let (group, times) = found.entry((name, kind)).or_insert_with(|| {
            let group = Group {
                key: format!("{}/{kind}", name.unwrap_or_default()),
                name: name.map(str::to_owned),
                exception: kind.to_owned(),
                message: exception.map(str::to_owned),
                count: 0,
                first: at,
                last: at,
                workers: BTreeSet::new(),
                samples: Vec::new(),
                series: [0; COLUMNS],
            };
            (group, Vec::new())
        });
        group.count += 1;
        group.first = group.first.min(at);
        if at > group.last {
            group.last = at;
            group.message = exception.map(str::to_owned);
        }
        if let Some(worker) = worker.filter(|_| group.workers.len() < SHOWN) {
            group.workers.insert(worker.to_owned());
        }
        if group.samples.len() < SHOWN {
            group.samples.push(task.id().to_owned());
        }
        times.push(at);
    }
    let since = query.since.unwrap_or(oldest);
    let mut groups: Vec<Group> = found
        .into_values()
        .map(|(mut group, times)| {
            times.into_iter().for_each(|at| group.series[column(at, since, now)] += 1);
            group
        })
        .collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.last.total_cmp(&a.last)).then(a.key.cmp(&b.key)));
    (groups, total)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped, and a float cast saturates"
)]
fn column(at: f64, since: f64, now: f64) -> usize {
    let part = (at - since) / (now - since).max(1.0);
    ((part * 24.0).max(0.0) as usize).min(COLUMNS - 1)
}

/// The tasks of one group, newest first.
#[must_use]
pub fn members(tasks: &Tasks, name: Option<&str>, exception: &str, limit: usize) -> Vec<String> {
    let of_group = |task: &&Task| task.name().map(|name| &**name) == name && kind(task) == exception;
    failed(tasks).filter(of_group).take(limit).map(|task| task.id().to_owned()).collect()
}

/// `GET /api/v2/failures`.
pub async fn list(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::default();
    let mut limit = 100;
    for (name, value) in pairs(&request)? {
        if value.is_empty() {
            continue;
        }
        match &*name {
            "since" => query.since = Some(seconds(&name, &value)?),
            "name" => query.name = Some(value),
            "worker" => query.worker = Some(value),
            "q" => query.text = Some(value),
            "limit" => limit = number(&name, &value)?.clamp(1, 1_000),
            _ => return Err(unknown(&name)),
        }
    }
    let state = monitor.state();
    let (mut groups, total) = groups(state.tasks(), &query, clock::now().seconds());
    let count = groups.len();
    groups.truncate(limit);
    Ok(HttpResponse::Ok().json(json!({
        "version": state.version(),
        "items": groups,
        "total": total,
        "groups": count,
        "more": count > limit,
    })))
}

#[cfg(test)]
mod tests {
    use celery_protocol::event;

    use super::*;
    use crate::state::time::UnixTime;
    use crate::state::{ClusterState, Limits};

    #[test]
    fn an_exception_is_known_by_its_type() {
        for (exception, kind) in [
            ("ValueError('x')", "ValueError"),
            ("shop.errors.Empty()", "shop.errors.Empty"),
            ("KeyError", "KeyError"),
            ("<ExceptionInfo: ZeroDivisionError('by 0')>", "ZeroDivisionError"),
            ("<what>", UNKNOWN),
            ("", UNKNOWN),
            ("('x',)", UNKNOWN),
        ] {
            assert_eq!(kind_of(exception), kind, "{exception}");
        }
    }

    #[test]
    fn failures_are_told_once_for_all_that_are_alike() {
        let mut state = ClusterState::new(Limits::default(), UnixTime::EPOCH.plus(1_000.0));
        let fail = |id: &str, at: f64, name: &str, exception: &str| {
            json!([
                {"type": "task-received", "uuid": id, "hostname": "a@h", "timestamp": at, "clock": 1, "name": name},
                {"type": "task-failed", "uuid": id, "hostname": "a@h", "timestamp": at, "clock": 2, "exception": exception},
            ])
        };
        for (id, at, name, exception) in [
            ("1", 100.0, "t.a", "ValueError('old')"),
            ("2", 900.0, "t.a", "ValueError('new')"),
            ("3", 500.0, "t.a", "KeyError('k')"),
            ("4", 600.0, "t.b", "ValueError('x')"),
        ] {
            for event in event::decode(fail(id, at, name, exception).to_string().as_bytes()).expect("events")
            {
                state.apply(&event.expect("an event"), UnixTime::EPOCH.plus(at));
            }
        }
        let (groups, total) = groups(state.tasks(), &Query::default(), 1_000.0);
        assert_eq!((groups.len(), total), (3, 4));
        let first = &groups[0];
        assert_eq!(
            (&*first.exception, first.count, first.first, first.last),
            ("ValueError", 2, 100.0, 900.0)
        );
        assert_eq!(first.message.as_deref(), Some("ValueError('new')"));
        assert_eq!((first.samples.len(), first.series[0], first.series.iter().sum::<usize>()), (2, 1, 2));
        let mut ids = members(state.tasks(), Some("t.a"), "ValueError", 10);
        ids.sort();
        assert_eq!(ids, ["1", "2"]);
        let count = |query: Query| super::groups(state.tasks(), &query, 1_000.0).1;
        assert_eq!(count(Query { since: Some(550.0), ..Query::default() }), 2);
        assert_eq!(count(Query { name: Some("t.b".into()), ..Query::default() }), 1);
        assert_eq!(count(Query { text: Some("keyerr".into()), ..Query::default() }), 1);
        assert_eq!(count(Query { worker: Some("b@h".into()), ..Query::default() }), 0);
    }
}
