//! How fast the monitor takes events in, what a task costs, and how long questions take.
//!
//! `cargo bench -p flower-lite --bench monitor -- [--tasks 100000] [--rows 1000000]`. Everything happens in this process: no
//! broker, no HTTP. Events are those of a prefork worker: batches of 24, 2 % failures with a traceback.

#![expect(clippy::expect_used, clippy::cast_precision_loss, reason = "a bench that can't go on ends")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use celery_protocol::TaskState;
use celery_protocol::event::decode;
use flower_lite::clock;
use flower_lite::flower::search::{self, Listing};
use flower_lite::history::search::Query;
use flower_lite::history::{Batch, History, HistoryOptions, Retention};
use flower_lite::state::query::{self, Filter, Sort};
use flower_lite::state::{ClusterState, Limits};
use serde_json::{Value, json};

/// Events of one message.
const TOGETHER: usize = 24;
/// Tasks that are written to the history at a time.
const WRITTEN: usize = 2_000;

fn main() {
    let tasks = argument("--tasks", 100_000);
    let rows = argument("--rows", 1_000_000);
    ingest(tasks);
    if rows > 0 {
        history(rows);
    }
}

fn argument(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let value = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The events of the task with the number `i`, `ago` seconds ago.
fn events(i: usize, ago: f64) -> Vec<Value> {
    let id = format!("{:08x}-7a1b-4c2d-8e3f-{:012x}", i.wrapping_mul(2_654_435_761) & 0xffff_ffff, i);
    let at = clock::now().seconds() - ago;
    let common = |kind: &str, clock: usize, later: f64| {
        json!({ "type": kind, "uuid": id, "hostname": format!("bench{}@host", i % 4), "utcoffset": 0, "pid": 1000 + i % 4,
                "timestamp": at + later, "clock": 3 * i + clock })
    };
    let mut received = common("task-received", 1, 0.0);
    let call = json!({ "name": format!("bench.task_{}", i % 10), "args": format!("({i}, {})", i * 2), "root_id": id,
        "kwargs": format!("{{'order_id': {i}, 'note': '{}'}}", "x".repeat(80)), "parent_id": null, "retries": 0,
        "eta": null, "expires": null });
    if let (Value::Object(received), Value::Object(call)) = (&mut received, call) {
        received.extend(call);
    }
    let started = common("task-started", 2, 0.001);
    let ended = if i.is_multiple_of(50) {
        let mut failed = common("task-failed", 3, 0.01);
        failed["exception"] = json!(format!("ValueError('bad value {i}')"));
        failed["traceback"] =
            json!("  File \"/srv/app/module.py\", line 13, in step\n    return step(x)\n".repeat(10));
        failed
    } else {
        let mut succeeded = common("task-succeeded", 3, 0.01);
        succeeded["result"] = json!(format!("'ok {i}'"));
        succeeded["runtime"] = json!((i % 1_000) as f64 / 1_000.0);
        succeeded
    };
    vec![received, started, ended]
}

fn ingest(tasks: usize) {
    let mut bodies = Vec::new();
    let mut together = Vec::new();
    for i in 0..tasks {
        together.extend(events(i, 5.0));
        if together.len() >= TOGETHER {
            bodies.push(Value::Array(std::mem::take(&mut together)).to_string());
        }
    }
    bodies.push(Value::Array(together).to_string());
    let limits = Limits { max_tasks: tasks.max(1), max_bytes: usize::MAX, ..Limits::default() };
    let mut state = ClusterState::new(limits, clock::now());
    let (before, cpu, begun) = (resident(), cpu_seconds(), Instant::now());
    let mut decoding = Duration::ZERO;
    for body in &bodies {
        let start = Instant::now();
        let events = decode(body.as_bytes()).expect("a body");
        decoding += start.elapsed();
        let now = clock::now();
        for event in events {
            state.apply(&event.expect("an event"), now);
        }
    }
    let (took, cpu) = (begun.elapsed(), cpu_seconds() - cpu);
    let count = state.totals().received as f64;
    println!(
        "events taken in            {:>10.0}/s   ({count} in {:.2} s, of which decoding {:.2} s)",
        count / took.as_secs_f64(),
        took.as_secs_f64(),
        decoding.as_secs_f64()
    );
    println!(
        "CPU of an event            {:>10.2} µs   ({:.0}/s on a core of its own)",
        cpu * 1e6 / count,
        count / cpu
    );
    let grown = resident().saturating_sub(before) as f64;
    println!(
        "memory of a task           {:>10.0} B    (estimated {:.0} B)",
        grown / tasks as f64,
        state.tasks().weight() as f64 / tasks as f64
    );

    let all = || Listing {
        name: None,
        worker: None,
        state: None,
        start: None,
        end: None,
        query: search::Query::All,
        sort: None,
        offset: 0,
        limit: 100,
    };
    timed("Flower's /api/tasks?limit=100", 200, || all().run(state.tasks()).tasks.len());
    timed("  &state=FAILURE", 200, || {
        Listing { state: Some(TaskState::Failure), ..all() }.run(state.tasks()).tasks.len()
    });
    timed("/api/v2/tasks, newest", 200, || {
        query::page(state.tasks(), &Filter::default(), Sort::NEWEST, None, 100).tasks.len()
    });
}

fn history(rows: usize) {
    let folder = std::env::temp_dir().join(format!("flower-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path: PathBuf = folder.join("flower.db");
    let retention = Retention { age: Duration::from_secs(1 << 30), bytes: u64::MAX };
    let history = History::open(&HistoryOptions { path: path.clone(), retention }).expect("it opens");
    let limits = Limits { max_tasks: 2 * WRITTEN, ..Limits::default() };
    let mut state = ClusterState::new(limits, clock::now());
    state.begin_saving();
    let begun = Instant::now();
    for i in 0..rows {
        for event in events(i, (rows - i) as f64) {
            for event in decode(event.to_string().as_bytes()).expect("a body") {
                state.apply(&event.expect("an event"), clock::now());
            }
        }
        if i % WRITTEN == WRITTEN - 1 || i + 1 == rows {
            let mut batch = Batch::default();
            state.save(usize::MAX, |task| batch.tasks.push(task.clone()), |_| {});
            while !history.is_ready() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            history.write(batch);
        }
    }
    while !history.is_idle() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let took = begun.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!(
        "tasks written              {:>10.0}/s   ({rows} in {took:.1} s, {:.0} B each)",
        rows as f64 / took,
        bytes as f64 / rows as f64
    );

    let now = clock::now().seconds();
    let (first, last) = (now - rows as f64, now);
    let at = |part: f64| first + (last - first) * part;
    let query = || Query { limit: 100, ..Query::default() };
    let some = |text: &str| Some(text.to_owned());
    let asked: Vec<(&str, Query)> = vec![
        ("newest", query()),
        ("state", Query { states: vec!["FAILURE".into()], ..query() }),
        ("name", Query { name: some("bench.task_3"), ..query() }),
        (
            "name glob and worker",
            Query { name: some("bench.task_[37]"), worker: some("bench3@host"), ..query() },
        ),
        ("name and state", Query { name: some("bench.task_0"), states: vec!["FAILURE".into()], ..query() }),
        ("an hour long ago", Query { since: Some(at(0.1)), until: Some(at(0.1) + 3_600.0), ..query() }),
        ("failures of long ago", Query { states: vec!["FAILURE".into()], until: Some(at(0.2)), ..query() }),
        ("longest runs", Query { min_runtime: Some(0.998), ..query() }),
        ("longest runs of a name", Query { min_runtime: Some(0.99), name: some("bench.task_9"), ..query() }),
        ("text in one task", Query { text: Some(format!("bad value {}'", rows / 100 * 50)), ..query() }),
        ("text in 2 % of tasks", Query { text: some("bad value"), ..query() }),
        ("text in all tasks", Query { text: some("order_id"), ..query() }),
        ("text in no task", Query { text: some("nothing has this"), ..query() }),
        ("text and state", Query { text: some("bad value 12"), states: vec!["FAILURE".into()], ..query() }),
        (
            "text that another state has",
            Query { text: some("bad value"), states: vec!["SUCCESS".into()], ..query() },
        ),
    ];
    let mut everything = Vec::new();
    for (name, query) in asked {
        everything.extend(timed(name, 60, || history.search(&query).expect("it reads").tasks.len()));
    }
    everything.sort();
    println!(
        "all of these               p95 {:>8.2} ms, worst {:.2} ms",
        ms(everything[everything.len() * 95 / 100]),
        ms(*everything.last().expect("some"))
    );
    let _ = std::fs::remove_dir_all(&folder);
}

fn timed(name: &str, times: usize, mut act: impl FnMut() -> usize) -> Vec<Duration> {
    let mut found = 0;
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Instant::now();
            found = act();
            start.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "{name:<28} p50 {:>8.2} ms  p95 {:>8.2} ms  ({found} rows)",
        ms(took[times / 2]),
        ms(took[times * 95 / 100])
    );
    took
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Seconds that this thread has run: unlike the clock on the wall, they don't depend on what else the machine does.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).map_or(0, |kib| kib * 1_024)
}
