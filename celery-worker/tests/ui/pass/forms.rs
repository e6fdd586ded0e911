//! The forms that a task can take.

#![deny(warnings)]

use celery_worker::prelude::*;

/// Positional arguments.
#[task(name = "tasks.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

/// A blocking task without arguments, without a doc test, behind a `cfg`.
#[cfg(not(any()))]
#[task(name = "tasks.now")]
pub fn now() -> TaskResult<u64> {
    Ok(0)
}

fn ten() -> u32 {
    10
}

/// Everything that Python's calling rules have.
#[task(name = "tasks.report")]
pub(crate) async fn report(
    mut title: String,
    r#type: Option<String>,
    #[args] rows: Vec<i64>,
    #[serde(default = "ten")] limit: u32,
    #[serde(rename = "from")] start: i64,
    #[kwargs] labels: Map<String, Value>,
) -> TaskResult<String> {
    title.push_str(r#type.as_deref().unwrap_or_default());
    Ok(format!("{title} {} {limit} {start} {}", rows.len(), labels.len()))
}

#[derive(Clone)]
struct Pool;
struct AppState {
    pool: Pool,
    name: String,
}
celery_worker::from_ref!(AppState { pool: Pool, name: String });

mod wording {
    pub use celery_worker::context::Context as Ctx;
}

/// Context and state by value and by reference, under other names; results with an error type of one's own.
#[task(name = "tasks.stateful")]
async fn stateful(#[ctx] call: wording::Ctx, #[state] pool: &Pool, x: i64, #[state] name: String) -> Result<i64, std::fmt::Error> {
    let _ = (call.request().id(), pool, name);
    Ok(x)
}

/// Parameters named like what the macro uses.
#[task(name = "tasks.names")]
fn names(#[ctx] state: &Context, ctx: i64, params: i64, s: i64) -> TaskResult<i64> {
    state.checkpoint()?;
    Ok(ctx + params + s)
}

const LIMIT: Duration = Duration::from_secs(5);

/// Every option.
#[task(
    name = "tasks.options",
    max_retries = unlimited,
    default_retry_delay = "1.5s",
    retry_backoff,
    retry_backoff_max = "10m",
    retry_jitter = false,
    autoretry_for(std::io::Error, "ConnectionError"),
    dont_autoretry_for("PermissionError"),
    throws(std::num::ParseIntError),
    acks_late,
    acks_on_failure = false,
    acks_on_timeout = false,
    reject_on_worker_lost,
    time_limit = "1h",
    soft_time_limit = LIMIT,
    ignore_result,
    track_started,
    store_errors_even_if_ignored,
    queue = "mail",
    priority = 5,
    expires = "2d",
    rate_limit = "10/m",
    serializer = "json",
    compression = "gzip",
    errback,
)]
async fn options() -> TaskResult<()> {
    Ok(())
}

#[task(name = "tasks.early", acks_early, max_retries = 0, retry_backoff = "250ms")]
async fn early() -> TaskResult<()> {
    raise!("ValueError", "{} is too early", 4)
}

fn main() {
    let mut registry = celery_worker::task::Registry::new(AppState { pool: Pool, name: "shop".into() });
    registry.task::<add>().task::<now>().task::<report>().task::<stateful>();
    registry.task::<names>().task::<options>().task::<early>();

    // Inside a function, too.
    #[task(name = "tasks.inner")]
    async fn inner(x: Option<i64>) -> TaskResult<Option<i64>> {
        Ok(x)
    }
    registry.task::<inner>();
    let tasks = registry.build().unwrap();
    assert_eq!(tasks.names().len(), 8);
    let names: Vec<_> = tasks.iter().filter(|task| task.blocking).map(|task| task.name.to_string()).collect();
    assert_eq!(names.len(), 2);

    let sig = add::s(2, 3).into_signature().unwrap();
    assert_eq!((sig.task.as_str(), sig.args.to_raw().get()), ("tasks.add", "[2, 3]"));
    assert_eq!(add::partial(3).into_signature().unwrap().args.to_raw().get(), "[3]");
    let labels = json!({"a": 1}).as_object().unwrap().clone();
    let sig = report::s("Sales", None, vec![1, 2], 5, 7, labels).into_signature().unwrap();
    assert_eq!(sig.args.to_raw().get(), r#"["Sales", null, 1, 2]"#);
    assert_eq!(sig.kwargs.to_raw().get(), r#"{"limit": 5, "from": 7, "a": 1}"#);
    let _ = (inner::s(None), now::s(), names::partial(1, 2), stateful::s(1));
    let _: fn(i64, i64) -> _ = add;
}
