//! Listing and searching what was submitted here: a walk over the submission index, newest first.
//!
//! The index is walked from a cursor, joined with the states, and filtered here; one request looks at a bounded number
//! of tasks, so that a filter that fits nothing cannot hold the server up.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use celery_broker::submission::Listed;
use celery_protocol::{TaskId, WireTime, glob};
use serde_json::Value;
use utoipa::IntoParams;

use super::openapi::ReadProblems;
use super::results;
use crate::dto::list::TaskPage;
use crate::dto::submit::Moment;
use crate::dto::task::Task;
use crate::problem::{Kind, Problem};
use crate::sets;
use crate::state::Api;
use crate::submission::Stage;
use crate::view::{self, Include};

/// Tasks on a page.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// Tasks that one request looks at.
const MAX_LOOKED_AT: usize = 5000;
/// Tasks that are read in one go.
const PIECE: usize = 500;

/// What to list.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "what the document shows; the query itself is read by Search")]
pub struct ListQuery {
    /// States, separated by commas.
    #[param(example = "PENDING,STARTED")]
    state: Option<String>,
    /// A glob of task names.
    #[param(example = "demo.*")]
    task: Option<String>,
    /// The queue.
    queue: Option<String>,
    /// The group.
    group: Option<String>,
    /// Submitted at or after this (RFC 3339 with offset).
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<f64>,
    /// Submitted before this (RFC 3339 with offset).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<f64>,
    /// A stamp and its value, `name=value`; for more than one, or in short, `stamp.name=value`.
    #[param(example = "tenant=a")]
    stamp: Option<String>,
    /// Tasks on a page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(min_length = 1)]
    cursor: Option<String>,
}

/// Lists and searches the tasks that were submitted here, newest first.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    tag = "tasks",
    operation_id = "list_tasks",
    params(
        ListQuery,
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before: the answer is 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "A page.", body = TaskPage,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`."), ("ETag" = String, description = "Changes with the page."))),
        (status = 304, description = "Nothing has changed."),
        ReadProblems,
    )
)]
pub async fn list(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let search = Search::parse(request.query_string())?;
    let (items, next) = search.run(&api).await?;
    let next = next.map(|listed| encode(&listed));
    let link = next.as_ref().map(|cursor| search.next_page(cursor));
    let body = serde_json::to_vec(&TaskPage { items, next_cursor: next })
        .map_err(|err| Problem::new(Kind::Internal, err.to_string()))?;
    Ok(results::conditional(&request, "page", false, body, |response| {
        response.content_type("application/json");
        if let Some(link) = link {
            response.insert_header((header::LINK, link));
        }
    }))
}

/// A search, as asked for.
#[derive(Debug, Default)]
struct Search {
    states: Vec<String>,
    task: Option<String>,
    queue: Option<String>,
    group: Option<String>,
    /// Microseconds since 1970.
    since: u64,
    stamps: Vec<(String, String)>,
    limit: usize,
    before: Option<Listed>,
    /// What was asked for, without the cursor.
    query: Vec<(String, String)>,
}

impl Search {
    fn parse(query: &str) -> Result<Self, Problem> {
        let refuse = |name: &str, detail: String| Err(Problem::field(Kind::InvalidParameter, name, detail));
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|err| Problem::new(Kind::InvalidParameter, err.to_string()))?
            .into_inner();
        let mut search = Search { limit: DEFAULT_LIMIT, ..Search::default() };
        let mut until = None;
        for (name, value) in pairs {
            match name.as_str() {
                "state" => {
                    search.states.extend(value.split(',').map(|state| state.trim().to_ascii_uppercase()))
                }
                "task" => search.task = Some(value.clone()),
                "queue" => search.queue = Some(value.clone()),
                "group" => search.group = Some(value.clone()),
                "since" => search.since = micros(&name, &value)?,
                "until" => until = Some(micros(&name, &value)?),
                "stamp" => match value.split_once('=') {
                    Some((stamp, wanted)) => search.stamps.push((stamp.to_owned(), wanted.to_owned())),
                    None => return refuse("stamp", "must be name=value".to_owned()),
                },
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => search.limit = limit,
                    _ => return refuse("limit", format!("must be 1 to {MAX_LIMIT}")),
                },
                "cursor" => match decode(&value) {
                    Some(listed) => {
                        search.before = Some(listed);
                        continue;
                    }
                    None => return refuse("cursor", "must be next_cursor of a page".to_owned()),
                },
                name => match name.strip_prefix("stamp.") {
                    Some(stamp) if !stamp.is_empty() => search.stamps.push((stamp.to_owned(), value.clone())),
                    _ => return refuse(name, "is not a known parameter".to_owned()),
                },
            }
            search.query.push((name, value));
        }
        if search.before.is_none()
            && let (Some(at), Ok(id)) = (until, TaskId::parse("+"))
        {
            // `+` comes before all other ids of its microsecond, and is not one of them.
            search.before = Some(Listed { at, id });
        }
        Ok(search)
    }

    async fn run(&self, api: &Api) -> Result<(Vec<Task>, Option<Listed>), Problem> {
        let Some(index) = api.celery.submissions() else { return Ok((Vec::new(), None)) };
        let mut items = Vec::new();
        let mut before = self.before.clone();
        let mut looked_at = 0;
        while looked_at < MAX_LOOKED_AT {
            let page = index.page(before.as_ref(), PIECE).await.map_err(|err| Problem::from_backend(&err))?;
            looked_at += page.len();
            let last_piece = page.len() < PIECE;
            let ids: Vec<TaskId> = page.iter().map(|listed| listed.id.clone()).collect();
            let (records, metas) =
                futures_util::future::try_join(results::records(api, &ids), sets::states(api, &ids)).await?;
            for ((listed, record), meta) in page.into_iter().zip(records).zip(metas) {
                if listed.at < self.since {
                    return Ok((items, None));
                }
                before = Some(listed.clone());
                // A record that has expired leaves its place on the list for a while.
                let Some(record) = record.filter(|record| record.stage != Stage::Forgotten) else { continue };
                let task = view::task(&listed.id, Some(&record), meta.as_ref(), Include::default());
                if self.fits(&task) {
                    items.push(task);
                }
                if items.len() == self.limit {
                    return Ok((items, before));
                }
            }
            if last_piece {
                return Ok((items, None));
            }
        }
        Ok((items, before))
    }

    fn fits(&self, task: &Task) -> bool {
        let handle = &task.handle;
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        let stamped = |(name, wanted): &(String, String)| {
            task.stamps.get(name).is_some_and(|value| match value {
                Value::String(text) => text == wanted,
                Value::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
                other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
            })
        };
        (self.states.is_empty() || self.states.contains(&handle.state))
            && self
                .task
                .as_ref()
                .is_none_or(|pattern| handle.task.as_ref().is_some_and(|name| glob::matches(pattern, name)))
            && is(&self.queue, &handle.queue)
            && is(&self.group, &handle.group_id)
            && self.stamps.iter().all(stamped)
    }

    fn next_page(&self, cursor: &str) -> String {
        let mut query = String::new();
        for (name, value) in &self.query {
            query.push_str(&format!("{}={}&", encoded(name), encoded(value)));
        }
        format!("</v1/tasks?{query}cursor={cursor}>; rel=\"next\"")
    }
}

/// A moment in microseconds since 1970.
fn micros(name: &str, value: &str) -> Result<u64, Problem> {
    let moment: Result<Moment, _> = serde_json::from_value(Value::from(value));
    match moment {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Ok(Moment(at)) => Ok((WireTime::unix_seconds(at) * 1e6) as u64),
        Err(err) => Err(Problem::field(Kind::InvalidParameter, name, err.to_string())),
    }
}

fn encode(listed: &Listed) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", listed.at, listed.id))
}

fn decode(cursor: &str) -> Option<Listed> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (at, id) = std::str::from_utf8(&bytes).ok()?.split_once(' ')?;
    Some(Listed { at: at.parse().ok()?, id: TaskId::parse(id).ok()? })
}

/// A text as part of a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_judged() {
        let search = Search::parse(
            "state=pending,STARTED&stamp.tenant=a&stamp=b=c&limit=7&since=2026-01-01T00:00:00Z",
        )
        .expect("valid");
        assert_eq!(search.states, ["PENDING", "STARTED"]);
        assert_eq!(search.stamps, [("tenant".to_owned(), "a".to_owned()), ("b".to_owned(), "c".to_owned())]);
        assert_eq!((search.limit, search.since), (7, 1_767_225_600_000_000));
        assert!(search.next_page("x").starts_with("</v1/tasks?state=pending%2CSTARTED&stamp.tenant=a&"));
        for query in [
            "limit=0",
            "limit=1000000000000",
            "limit=-1",
            "offset=-1",
            "cursor=x",
            "since=yesterday",
            "until=2026-01-01",
            "stamp=x",
            "stamp.=x",
            "sort=__proto__",
        ] {
            assert_eq!(Search::parse(query).expect_err(query).kind(), Kind::InvalidParameter);
        }
    }

    #[test]
    fn a_cursor_comes_back() {
        let listed = Listed { at: 1_767_225_600_000_000, id: TaskId::parse("a:b@c").expect("id") };
        assert_eq!(decode(&encode(&listed)), Some(listed));
    }
}
