//! What Flower's API shows: tasks, workers, queues.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use celery_broker::config::hours_west_of_utc;
use serde_json::{Value, json};

use super::answer::Refused;
use super::parameters::Parameters;
use super::search::{self, Listing, SortKey};
use super::shape::{self, Listed, Task};
use crate::monitor::Monitor;
use crate::state::time::UnixTime;

/// Rows of a list that asks for no limit. Flower then sends everything it has, which at 100,000 tasks is 90 MB.
const DEFAULT_LIMIT: usize = 10_000;

/// `GET /api/tasks`.
pub(super) async fn tasks(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Refused> {
    let asked = Parameters::of(&request)?;
    let limit = asked.integer("limit")?.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(0));
    let offset = asked.integer("offset")?.map_or(0, |offset| usize::try_from(offset).unwrap_or(0));
    let sort = match asked.text("sort_by") {
        None => None,
        Some(text) => Some(sort(text).ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            Refused::bad(format!("Invalid sort_by '{shown}', expected one of name, received, started, state"))
        })?),
    };
    let range = |name: &str| asked.text(name).map(local_minute).transpose();
    let (Ok(start), Ok(end)) = (range("received_start"), range("received_end")) else {
        return Err(Refused::bad(
            "Invalid received_start or received_end, expected format 'YYYY-MM-DD HH:MM'",
        ));
    };
    let query = match search::parse(asked.text("search").unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return Ok(HttpResponse::BadRequest().json(json!({ "error": error.to_string() }))),
    };
    let listing = Listing {
        name: asked.filter("taskname"),
        worker: asked.filter("workername"),
        state: asked.filter("state").map(shape::state),
        start,
        end,
        query,
        sort,
        offset,
        limit,
    };
    let state = monitor.state();
    let found = listing.run(state.tasks());
    let shown = Listed(found.tasks.iter().map(|task| Task::of(&state, task)).collect());
    let mut response = HttpResponse::Ok();
    if let Some(total) = found.total {
        response.insert_header(("X-Total-Count", total.to_string()));
    }
    Ok(response.content_type(JSON).json(shown))
}

/// Flower's content type, to the letter.
pub(super) const JSON: &str = "application/json; charset=UTF-8";

fn sort(text: &str) -> Option<(SortKey, bool)> {
    let key = match text.trim_start_matches('-') {
        "name" => SortKey::Name,
        "state" => SortKey::State,
        "received" => SortKey::Received,
        "started" => SortKey::Started,
        _ => return None,
    };
    Some((key, text.starts_with('-')))
}

/// `YYYY-MM-DD HH:MM` in this machine's time zone, as Flower reads it.
fn local_minute(text: &str) -> Result<UnixTime, ()> {
    let (date, time) = text.split_once(' ').ok_or(())?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let mut time = time.trim().split(':').map(str::parse::<i64>);
    let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day)), None) =
        (date.next(), date.next(), date.next(), date.next())
    else {
        return Err(());
    };
    let (Some(Ok(hour)), Some(Ok(minute)), None) = (time.next(), time.next(), time.next()) else {
        return Err(());
    };
    let sound = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute);
    if !sound {
        return Err(());
    }
    // Days from 1970 to the first of March of the year, then to the day: leap days come last in such a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    #[expect(clippy::cast_precision_loss, reason = "seconds until the year 9999 are exact")]
    let seconds = ((days * 24 + hour) * 60 + minute) as f64 * 60.0 + hours_west_of_utc() * 3_600.0;
    UnixTime::new(seconds).ok_or(())
}

/// `GET /api/task/types`: the names that were seen.
pub(super) async fn types(monitor: Data<Monitor>) -> HttpResponse {
    let state = monitor.state();
    let names: BTreeSet<&str> = state.tasks().count_by_name().map(|(name, _)| &**name).collect();
    HttpResponse::Ok().content_type(JSON).json(json!({ "task-types": names }))
}

/// `GET /api/task/info/{id}`, also of a task that only the history knows any more.
pub(super) async fn info(monitor: Data<Monitor>, id: Path<String>) -> Result<HttpResponse, Refused> {
    let remembered = {
        let state = monitor.state();
        state.tasks().get(&id).map(|task| Task::of(&state, task))
    };
    let known = match (remembered, monitor.history().cloned()) {
        (None, Some(history)) => {
            let of = id.clone();
            let found = web::block(move || history.task(&of)).await;
            let found = found.map_err(|error| Refused::unavailable(&error))?;
            let found = found.map_err(|error| Refused::unavailable(&error))?;
            found.map(|task| Task::of(&monitor.state(), &task))
        }
        (remembered, _) => remembered,
    };
    let task = known.ok_or_else(|| Refused::unknown("task", &id))?;
    Ok(HttpResponse::Ok().content_type(JSON).json(task))
}

/// `GET /api/workers`.
pub(super) async fn workers(monitor: Data<Monitor>, request: HttpRequest) -> Result<HttpResponse, Refused> {
    let asked = Parameters::of(&request)?;
    let (refresh, status) = (asked.flag("refresh")?, asked.flag("status")?);
    let worker = asked.text("workername");
    let answers = monitor.answers();
    let heard = worker.is_some_and(|worker| monitor.state().worker(worker).is_some());
    let unasked = heard && !status && worker.is_some_and(|worker| !answers.knows(worker));
    if let Some(celery) = monitor.celery().filter(|_| refresh || unasked) {
        answers.refresh(celery, worker).await.map_err(|error| Refused::unavailable(&error))?;
    }
    if status {
        let state = monitor.state();
        let status: BTreeMap<String, bool> = state
            .workers()
            .into_iter()
            .map(|worker| (worker.name().to_string(), worker.is_online()))
            .collect();
        return Ok(HttpResponse::Ok().content_type(JSON).json(status));
    }
    let shown = match worker {
        None => json!(answers.all()),
        Some(name) => {
            let info = answers.of(name).ok_or_else(|| Refused::unknown("worker", name))?;
            json!({ name: info })
        }
    };
    Ok(HttpResponse::Ok().content_type(JSON).json(shown))
}

/// `GET /workers?json=1`.
pub(super) async fn workers_table(monitor: Data<Monitor>) -> HttpResponse {
    let state = monitor.state();
    let rows: Vec<Value> = state.workers().into_iter().map(shape::worker).collect();
    HttpResponse::Ok().content_type(JSON).json(json!({ "data": rows }))
}

/// `GET /api/queues/length`: the queues that workers read. Flower passes on what RabbitMQ's management says of each; here
/// are the fields that the broker tells without it.
pub(super) async fn queues(monitor: Data<Monitor>) -> HttpResponse {
    if let Some(celery) = monitor.celery() {
        monitor.look_at_queues(celery).await;
    }
    let queues: Vec<Value> = monitor
        .queues()
        .all()
        .into_iter()
        .map(|(name, queue)| {
            json!({
                "name": name,
                "messages": queue.ready.unwrap_or(0),
                "messages_ready": queue.ready.unwrap_or(0),
                "consumers": queue.consumers.unwrap_or(0),
            })
        })
        .collect();
    HttpResponse::Ok().content_type(JSON).json(json!({ "active_queues": queues }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_of_the_calendar_are_those_of_the_epoch() {
        let west = hours_west_of_utc() * 3_600.0;
        for (text, seconds) in [
            ("1970-01-01 00:00", 0.0),
            ("2000-02-29 23:59", 951_868_740.0),
            ("2026-11-24 02:00", 1_795_485_600.0),
            ("2100-03-01 00:00", 4_107_542_400.0),
        ] {
            assert_eq!(local_minute(text).map(UnixTime::seconds), Ok(seconds + west), "{text}");
        }
        for wrong in
            ["bad", "2026-11-24", "2026-13-01 00:00", "2026-11-24 24:00", "2026-11-24 02:00:00", "x-1-1 0:0"]
        {
            assert!(local_minute(wrong).is_err(), "{wrong}");
        }
    }
}
