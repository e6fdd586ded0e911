//! The clock and the meters: results counted in Redis, processor time and memory from `/proc`.

use celery_testkit::Program;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// One drain, measured.
pub(crate) struct Row {
    name: String,
    /// Tasks per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time per task: the program, RabbitMQ, Redis.
    micros: [f64; 3],
    /// Peak resident memory of the program, in MB.
    peak_mb: f64,
}

impl Row {
    /// The names of the columns that `Display` writes.
    pub(crate) const HEADER: &str =
        "                 tasks/s   program µs   RabbitMQ µs   Redis µs   peak MB";

    /// The row for those who keep records.
    pub(crate) fn json(&self) -> Value {
        let [program, broker, redis] = self.micros;
        serde_json::json!({"rate": self.rate, "us": program, "us_rabbitmq": broker, "us_redis": redis,
                           "peak_mb": self.peak_mb})
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [program, broker, redis] = self.micros;
        write!(
            f,
            "{:<14} {:>9.0} {program:>12.1} {broker:>13.1} {redis:>10.1} {:>9.1}",
            self.name, self.rate, self.peak_mb
        )
    }
}

/// Waits for the results in `backend` to become `count`; the clock runs from the first to the last.
pub(crate) async fn watch(
    name: &str,
    backend: &str,
    count: u64,
    pids: [u32; 3],
    program: &Program,
) -> anyhow::Result<Row> {
    let mut redis = connect(backend).await?;
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut step = tokio::time::interval(Duration::from_millis(5));
    let mut begin: Option<Moment> = None;
    loop {
        step.tick().await;
        let done: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await?;
        let now = Moment { at: Instant::now(), done, spent: pids.map(processor_seconds) };
        match &begin {
            None if done > 0 => begin = Some(now),
            Some(begin) if done >= count => {
                let tasks = as_f64((done - begin.done).max(1));
                let micros = std::array::from_fn(|of| (now.spent[of] - begin.spent[of]) * 1e6 / tasks);
                let rate = tasks / (now.at - begin.at).as_secs_f64();
                return Ok(Row { name: name.to_owned(), rate, micros, peak_mb: peak_mb(pids[0]) });
            }
            _ => {
                program.still_running()?;
                let late = now.at > deadline;
                anyhow::ensure!(!late, "{done} of {count} results after 300 s\n{}", program.log_tail());
            }
        }
    }
}

struct Moment {
    at: Instant,
    done: u64,
    spent: [f64; 3],
}

async fn connect(backend: &str) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(backend)?.get_multiplexed_async_connection().await?)
}

/// A sample of the results says what `demo.add(1, 2)` is.
pub(crate) async fn check_results(backend: &str) -> anyhow::Result<()> {
    let mut redis = connect(backend).await?;
    for _ in 0..10 {
        let key: String = redis::cmd("RANDOMKEY").query_async(&mut redis).await?;
        let meta: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut redis).await?;
        let meta: Value = serde_json::from_slice(&meta)?;
        anyhow::ensure!(meta["status"] == "SUCCESS" && meta["result"] == 3, "{key} holds {meta}");
    }
    Ok(())
}

/// User and system time of a process so far.
fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0 // USER_HZ is 100 on every Linux
}

fn peak_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
