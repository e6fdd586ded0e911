//! Query parameters, checked by name: an unknown one is an error, since a misspelt filter that is ignored shows the
//! wrong rows as if they were the right ones.

use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::web::Query;
use celery_protocol::TaskState;

use crate::error::Problem;
use crate::state::query::{Cursor, Filter, Sort};

/// The longest text that is looked for.
const MAX_TEXT: usize = 256;
/// How many states may be asked for at a time.
const MAX_STATES: usize = 32;
/// Rows of a page, when nothing is said.
const DEFAULT_LIMIT: usize = 50;
/// The most rows of a page.
const MAX_LIMIT: usize = 1_000;

/// A list of tasks that is asked for.
#[derive(Debug)]
pub struct TaskListing {
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// After which row.
    pub cursor: Option<Cursor>,
    /// How many.
    pub limit: usize,
    /// With facets.
    pub facets: bool,
}

impl TaskListing {
    /// Reads the parameters of a list of tasks.
    ///
    /// # Errors
    /// Names the parameter that can't be used.
    pub fn parse(request: &HttpRequest) -> Result<TaskListing, Problem> {
        let mut filter = Filter::default();
        let mut sort = None;
        let mut cursor = None;
        let mut limit = DEFAULT_LIMIT;
        let mut facets = false;
        for (name, value) in pairs(request)? {
            if value.is_empty() {
                continue;
            }
            if value.len() > MAX_TEXT && name != "cursor" {
                return Err(Problem::bad_parameter(&name, format!("is longer than {MAX_TEXT} bytes")));
            }
            match &*name {
                "state" => filter.states = states(&value)?,
                "name" => filter.name = Some(value.into()),
                "worker" => filter.worker = Some(value.into()),
                "q" => filter.text = Some(value.into()),
                "sort" => sort = Some(parse(&name, &value)?),
                "limit" => limit = number(&name, &value)?.clamp(1, MAX_LIMIT),
                "cursor" => cursor = Some(value),
                "facets" => facets = flag(&name, &value)?,
                _ => return Err(unknown(&name)),
            }
        }
        let sort = sort.unwrap_or(Sort::NEWEST);
        let cursor = cursor
            .map(|text| Cursor::parse(&text, sort).map_err(|error| Problem::bad_parameter("cursor", error)))
            .transpose()?;
        Ok(TaskListing { filter, sort, cursor, limit, facets })
    }
}

/// The query as pairs, decoded.
pub(crate) fn pairs(request: &HttpRequest) -> Result<Vec<(String, String)>, Problem> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string());
    query.map(Query::into_inner).map_err(|_| Problem::bad_parameter("query", "is not a query string"))
}

/// A parameter that isn't known here.
pub(crate) fn unknown(name: &str) -> Problem {
    Problem::bad_parameter(name, "there is no such parameter")
}

/// A parameter by its own rules.
pub(crate) fn parse<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|error| Problem::bad_parameter(name, error))
}

/// A whole number; one that is too large to be held is the largest.
pub(crate) fn number(name: &str, value: &str) -> Result<usize, Problem> {
    if value.bytes().all(|digit| digit.is_ascii_digit()) {
        Ok(value.parse().unwrap_or(usize::MAX))
    } else {
        Err(Problem::bad_parameter(name, "must be a whole number, 0 or more"))
    }
}

pub(crate) fn seconds(name: &str, value: &str) -> Result<f64, Problem> {
    let number: Option<f64> = value.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| Problem::bad_parameter(name, "must be a number of seconds"))
}

pub(crate) fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Problem::bad_parameter(name, "must be 1 or 0")),
    }
}

pub(crate) fn states(list: &str) -> Result<Vec<TaskState>, Problem> {
    let states: Vec<TaskState> = list
        .split(',')
        .filter(|state| !state.is_empty())
        .map(|state| TaskState::from(&*state.to_uppercase()))
        .collect();
    if states.len() > MAX_STATES {
        return Err(Problem::bad_parameter("state", format!("more than {MAX_STATES} states")));
    }
    Ok(states)
}
