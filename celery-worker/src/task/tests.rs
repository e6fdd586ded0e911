//! The forms that a task can take, with and without the macro.

use celery_protocol::TaskName;
use celery_protocol::content::Compression;
use celery_protocol::options::{MaxRetries, Serializer};

use crate::prelude::*;
use crate::task::{ErrbackStyle, Registry, RegistryErrorKind, Task, TaskDef};

/// Positional arguments.
#[task(name = "tasks.add")]
async fn add(x: i64, y: i64) -> TaskResult<i64> {
    Ok(x + y)
}

/// A blocking task without arguments, without a doc test, behind a `cfg`.
#[cfg(not(any()))]
#[task(name = "tasks.now")]
pub(super) fn now() -> TaskResult<u64> {
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
crate::from_ref!(AppState { pool: Pool, name: String });

mod wording {
    pub(super) use crate::context::Context as Ctx;
}

/// Context and state by value and by reference, under other names; results with an error type of one's own.
#[task(name = "tasks.stateful")]
async fn stateful(
    #[ctx] call: wording::Ctx,
    #[state] pool: &Pool,
    x: i64,
    #[state] name: String,
) -> Result<i64, std::fmt::Error> {
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

/// A task without the macro, as in docs/tasks.md.
#[derive(Serialize, Deserialize)]
struct MulParams {
    x: i64,
    y: i64,
}

enum Mul {}

impl TaskDef for Mul {
    const NAME: &'static str = "tasks.mul";
    type Params = MulParams;
    type Output = i64;
}

impl<S> Task<S> for Mul {
    fn run(_: &S, _: Context, params: MulParams) -> impl Future<Output = TaskResult<i64>> + Send + 'static {
        async move { Ok(params.x * params.y) }
    }
}

#[test]
fn all_forms_can_be_registered() {
    // Inside a function, too.
    #[task(name = "tasks.inner")]
    async fn inner(x: Option<i64>) -> TaskResult<Option<i64>> {
        Ok(x)
    }
    let mut registry = Registry::new(AppState { pool: Pool, name: "shop".into() });
    registry.task::<add>().task::<now>().task::<report>().task::<stateful>().task::<names>();
    registry.task::<options>().task::<early>().task::<inner>().task::<Mul>();
    registry.raw_task("tasks.raw", TaskOptions::DEFAULT, |_, call| async move { Ok(call.args.len()) });
    let tasks = registry.build().unwrap();
    let own = |name: &&TaskName| !name.as_str().starts_with("celery.");
    assert_eq!(tasks.names().iter().filter(own).count(), 10);
    let mut blocking: Vec<_> =
        tasks.iter().filter(|task| task.blocking).map(|task| task.name.as_str()).collect();
    blocking.sort_unstable();
    assert_eq!(blocking, ["tasks.names", "tasks.now"]);
    let _: fn(i64, i64) -> _ = add;
}

#[test]
fn calls_are_built_as_python_would() {
    let check = |sig: Sig<()>, args: &str, kwargs: &str| {
        let signature = sig.into_signature().unwrap();
        assert_eq!((signature.args.to_raw().get(), signature.kwargs.to_raw().get()), (args, kwargs));
    };
    check(add::s(2, 3).returning(), "[2, 3]", "{}");
    check(add::partial(3).returning(), "[3]", "{}");
    check(names::partial(1, 2).returning(), "[1, 2]", "{}");
    check(stateful::s(1).returning(), "[1]", "{}");
    check(now::s().returning(), "[]", "{}");
    let labels = json!({"a": 1}).as_object().unwrap().clone();
    let report = report::s("Sales", None, vec![1, 2], 5, 7, labels);
    check(report.returning(), r#"["Sales", null, 1, 2]"#, r#"{"limit": 5, "from": 7, "a": 1}"#);
    assert_eq!(add::s(2, 3).into_signature().unwrap().task.as_str(), "tasks.add");
}

#[test]
fn calls_carry_the_options_of_their_task_unless_they_say_otherwise() {
    let sent = |sig: Sig<()>| sig.into_signature().unwrap().options.as_map().to_raw().get().to_owned();
    let own = r#"{"queue": "mail", "priority": 5, "expires": 172800.0, "serializer": "json", "compression": "application/x-gzip"}"#;
    assert_eq!(sent(options::s()), own);
    let other = sent(options::s().queue("fast").priority(9));
    assert_eq!(other, own.replace("mail", "fast").replace('5', "9"));
    assert_eq!(sent(early::s()), "{}");
}

#[test]
fn every_option_arrives() {
    let mut registry = Registry::new(());
    registry.task::<options>().task::<early>().task::<add>();
    let tasks = registry.build().unwrap();
    let task = |name: &str| tasks.get(&TaskName::parse(name).unwrap()).unwrap();
    let seconds = |n| Some(Duration::from_secs(n));
    let expected = TaskOptions {
        max_retries: Some(MaxRetries::Unlimited),
        default_retry_delay: Some(Duration::from_millis(1500)),
        retry_backoff: seconds(1),
        retry_backoff_max: seconds(600),
        retry_jitter: Some(false),
        acks_late: Some(true),
        acks_on_failure: Some(false),
        acks_on_timeout: Some(false),
        reject_on_worker_lost: Some(true),
        time_limit: seconds(3600),
        soft_time_limit: seconds(5),
        ignore_result: Some(true),
        track_started: Some(true),
        store_errors_even_if_ignored: Some(true),
        send_events: None,
        queue: Some("mail"),
        priority: Some(5),
        expires: seconds(172_800),
        rate_limit: Some("10/m".parse().unwrap()),
        serializer: Some(Serializer::Json),
        compression: Some(Compression::Zlib),
    };
    assert_eq!(task("tasks.options").options, expected);
    assert_eq!(task("tasks.options").errback, ErrbackStyle::New);
    let early = &task("tasks.early").options;
    assert_eq!((early.acks_late, early.retry_backoff), (Some(false), Some(Duration::from_millis(250))));
    assert_eq!(task("tasks.add").options, TaskOptions::DEFAULT);
    assert_eq!(task("tasks.add").errback, ErrbackStyle::Old);
}

#[test]
fn tasks_that_cannot_be_served_are_refused() {
    let build = |fill: &dyn Fn(&mut Registry<()>)| {
        let mut registry = Registry::new(());
        fill(&mut registry);
        registry.build().unwrap_err()
    };
    let twice = build(&|registry| {
        registry.task::<Mul>().task::<add>().task::<Mul>();
    });
    assert_eq!((twice.kind(), twice.task()), (&RegistryErrorKind::Duplicate, "tasks.mul"));
    let raw = |name: &'static str, options| {
        build(&move |registry| {
            registry.raw_task(name, options, |_, _| async { Ok(()) });
        })
    };
    assert!(matches!(raw("", TaskOptions::DEFAULT).kind(), RegistryErrorKind::Name(_)));
    let limit = |seconds| Some(Duration::from_secs(seconds));
    let limits = TaskOptions { soft_time_limit: limit(2), time_limit: limit(1), ..TaskOptions::DEFAULT };
    let error = raw("t", limits);
    assert_eq!(error.to_string(), r#"task "t": soft_time_limit (2s) must be shorter than time_limit (1s)"#);
}
