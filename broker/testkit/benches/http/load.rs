//! The load and the meters: wrk, and processor time from `/proc`.

use crate::contestant::Contestant;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::Path;

/// What wrk says of a run.
#[derive(Debug, Clone, Deserialize)]
struct Wrk {
    requests: f64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    broken: u64,
    refused: u64,
}

/// One run, measured.
pub(crate) struct Row {
    name: &'static str,
    wrk: Wrk,
    /// Microseconds of processor time a request: the program, RabbitMQ, Redis.
    micros: [f64; 3],
}

impl Row {
    /// The names of the columns that `Display` writes.
    pub(crate) const HEADER: &str =
        "                requests/s   p50 ms   p99 ms   program µs   RabbitMQ µs   Redis µs";

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.wrk.requests / self.wrk.seconds
    }

    /// The time within which all but one in a hundred are answered.
    pub(crate) fn p99(&self) -> f64 {
        self.wrk.p99_ms
    }

    /// Requests that were answered with a 2xx.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    pub(crate) fn accepted(&self) -> u64 {
        self.wrk.requests as u64 - self.wrk.refused
    }

    /// Requests that were not.
    pub(crate) fn failed(&self) -> u64 {
        self.wrk.refused + self.wrk.broken
    }

    /// The row for those who keep records.
    pub(crate) fn json(&self) -> Value {
        let [program, rabbitmq, redis] = self.micros;
        serde_json::json!({"name": self.name, "rate": self.rate(), "p50_ms": self.wrk.p50_ms, "p99_ms": self.wrk.p99_ms,
                           "failed": self.failed(), "us": program, "us_rabbitmq": rabbitmq, "us_redis": redis})
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [program, rabbitmq, redis] = self.micros;
        let Wrk { p50_ms, p99_ms, .. } = self.wrk;
        let rate = self.rate();
        write!(
            f,
            "{:<14} {rate:>11.0} {p50_ms:>8.2} {p99_ms:>8.2} {program:>12.1} {rabbitmq:>13.1} {redis:>10.1}",
            self.name
        )
    }
}

/// Puts load on a contestant for so many seconds; `servers` are RabbitMQ's and Redis's processes.
pub(crate) async fn put(
    name: &'static str,
    contestant: &Contestant,
    servers: [u32; 2],
    seconds: u32,
    clients: u32,
) -> anyhow::Result<Row> {
    let groups = [contestant.process().pid(), servers[0], servers[1]];
    let before = groups.map(group_seconds);
    let wrk = wrk(contestant, seconds, clients).await?;
    let after = groups.map(group_seconds);
    let micros = std::array::from_fn(|of| (after[of] - before[of]) * 1e6 / wrk.requests.max(1.0));
    Ok(Row { name, wrk, micros })
}

async fn wrk(contestant: &Contestant, seconds: u32, clients: u32) -> anyhow::Result<Wrk> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/http/report.lua");
    let output = tokio::process::Command::new("wrk")
        .args(["-t1", &format!("-c{clients}"), &format!("-d{seconds}s"), "--timeout", "30s", "-s"])
        .arg(&script)
        .arg(&contestant.url)
        .env("BENCH_BODY", contestant.body)
        .kill_on_drop(true)
        .output()
        .await
        .context("wrk is missing: broker/testkit/scripts/deps.sh bench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(serde_json::from_str(line)?)
}

/// User and system time of a process group so far.
fn group_seconds(leader: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.map(|stat| seconds_in_group(&stat, leader)).sum()
}

fn seconds_in_group(stat: &str, leader: u32) -> f64 {
    // The name, in parentheses, may hold spaces; the group is the third field after it, utime and stime the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    if fields.get(2).and_then(|group| group.parse().ok()) != Some(leader) {
        return 0.0;
    }
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0 // USER_HZ is 100 on every Linux
}
