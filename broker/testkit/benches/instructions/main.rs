//! How many instructions the hot paths take, counted by valgrind's callgrind: figures that can be repeated, unlike times,
//! and are compared with `baseline.json`. A path that takes more than [`TOLERANCE`] over its baseline fails the run; with
//! `UPDATE=1` the baseline is written anew.
//!
//! * `worker`: a task from its delivery to its ack, in the real `celery-worker`, which drains a real queue.
//! * `submit`: a submission from its JSON to the message that would be published, in `producer-api`'s library.
//! * `ingest`: an event of a batch as the monitor takes it in, in `flower-lite`'s library.
//!
//! Each is counted twice, with `n` and `2 n` repetitions; the difference is what repetitions cost, without the start.
//! `--profile NAME FILE` keeps callgrind's output for `callgrind_annotate` or KCachegrind.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something does not work")]

mod paths;
#[path = "../worker/queue.rs"]
#[expect(dead_code, reason = "the other benchmark uses all of it")]
mod queue;

use celery_testkit::{Program, Rabbit, Redis, binary};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How this program is told to walk a path.
const COMMAND: &str = "walk";
/// How much more than the baseline is still the same: other batches, another compiler.
const TOLERANCE: f64 = 0.10;
/// Repetitions by path.
const PATHS: [(&str, u64); 3] = [("worker", 2_000), ("submit", 2_000), ("ingest", 6_000)];
/// Under valgrind everything is slow.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [COMMAND, path, count] => paths::walk(path, count.parse().unwrap()),
        ["--profile", path, file] => {
            let (_, count) = PATHS.into_iter().find(|(name, _)| name == path).unwrap();
            measured(path, count, Path::new(file));
        }
        [] => compare(),
        other => give_up(&format!("unknown arguments {other:?}")),
    }
}

fn compare() {
    let update = std::env::var_os("UPDATE").is_some();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.json");
    let baseline: Map<String, Value> =
        std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let (mut found, mut worse) = (Map::new(), Vec::new());
    println!("instructions      now   baseline   change");
    for (path, count) in PATHS {
        let scratch = std::env::temp_dir().join(format!("instructions-{}", std::process::id()));
        let [once, twice] = [count, 2 * count].map(|count| measured(path, count, &scratch));
        std::fs::remove_file(&scratch).unwrap();
        let each = (twice - once) / as_f64(count);
        let before = baseline.get(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let change = each / before - 1.0;
        println!("{path:<12} {each:>8.0} {before:>10.0} {:>7.1} %", change * 100.0);
        if change > TOLERANCE {
            worse.push(path);
        }
        found.insert(path.to_owned(), json!(each.round()));
    }
    if update {
        std::fs::write(&file, format!("{:#}\n", Value::Object(found))).unwrap();
    } else if !worse.is_empty() {
        give_up(&format!(
            "{worse:?} took more than {:.0} % over the baseline: find out why, or set a new one with `make instructions UPDATE=1`",
            TOLERANCE * 100.0
        ));
    }
}

/// The instructions of one run.
fn measured(path: &str, count: u64, output: &Path) -> f64 {
    if path == "worker" {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.unwrap().block_on(drained(count, output));
    } else {
        let me = std::env::current_exe().unwrap();
        let status = valgrind(output, &me).args([COMMAND, path, &count.to_string()]).status().unwrap();
        assert!(status.success(), "{path} under valgrind: {status}");
    }
    total(output)
}

/// Lets `celery-worker` drain a queue under callgrind.
async fn drained(count: u64, output: &Path) {
    let (rabbit, redis) = (Rabbit::shared().await, Redis::shared().await);
    let (broker, backend) = (rabbit.vhost("instructions").await, redis.database());
    queue::fill(&broker, &queue::Load::additions(count)).await.unwrap();
    let worker = binary("celery-worker");
    let mut args: Vec<String> = callgrind(output);
    args.push(worker.to_string_lossy().into_owned());
    args.extend(["-c", "1", "-l", "warning", "--without-mingle", "--without-gossip"].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let env = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
    let program = Program::start("/usr/bin/valgrind", &args, &env);
    celery_testkit::wait::until(PATIENCE, "the queue to be drained", async || {
        program.still_running().map_err(|err| err.to_string())?;
        let size: u64 = redis_size(&backend).await;
        if size == count { Ok(()) } else { Err(format!("{size} of {count} results")) }
    })
    .await;
    program.term();
    program.wait_exit(PATIENCE).await;
}

async fn redis_size(backend: &str) -> u64 {
    let client = redis::Client::open(backend).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap()
}

fn valgrind(output: &Path, program: &PathBuf) -> Command {
    let mut command = Command::new("valgrind");
    command.args(callgrind(output)).arg(program);
    command
}

fn callgrind(output: &Path) -> Vec<String> {
    let file = format!("--callgrind-out-file={}", output.display());
    ["-q", "--tool=callgrind", "--trace-children=no"].map(str::to_owned).into_iter().chain([file]).collect()
}

/// The sum that callgrind wrote at the end of its output.
fn total(output: &Path) -> f64 {
    let text = std::fs::read_to_string(output).unwrap();
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals:")).unwrap();
    line.trim().parse().unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

fn give_up(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1)
}
