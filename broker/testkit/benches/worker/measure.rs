//! The clock and the meters: what is done, counted in Redis or in the queue; processor time and memory from `/proc`.

use crate::contestant::{Contestant, Field, Ground};
use crate::queue;
use celery_testkit::{Program, wait};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// One drain, measured.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Tasks per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time per task: the program with its children, RabbitMQ, Redis.
    pub(crate) micros: [f64; 3],
    /// Memory of the program with its children, as the drain ended.
    pub(crate) memory: Memory,
}

/// Memory of a tree of processes in MB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// The sum of the peaks of what was resident.
    pub(crate) peak: f64,
    /// Shared pages counted once.
    pub(crate) pss: f64,
}

impl Row {
    /// The names of the columns that `Display` writes.
    pub(crate) const HEADER: &str = "                                tasks/s   CPU µs  RabbitMQ µs  Redis µs   PSS MB  peak MB   all rounds";

    /// The row for those who keep records.
    pub(crate) fn json(&self) -> Value {
        let [program, broker, redis] = self.micros;
        json!({"name": self.name, "rate": self.rate, "us": program, "us_rabbitmq": broker, "us_redis": redis,
               "pss_mb": self.memory.pss, "peak_mb": self.memory.peak})
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [program, broker, redis] = self.micros;
        let Memory { peak, pss } = self.memory;
        write!(
            f,
            "{:<30} {:>8.0} {program:>8.1} {broker:>12.1} {redis:>9.1} {pss:>8.1} {peak:>8.1}",
            self.name, self.rate
        )
    }
}

/// Lets a contestant drain what lies in the queue, and makes sure that nothing was left out.
pub(crate) async fn drain(field: &Field, ground: &Ground, who: &Contestant, count: u64) -> Row {
    let counter = Counter::open(ground, who, count).await.unwrap();
    let program = who.start(ground);
    let row = watch(who.name(), counter, count, field.pids(&program), &program).await.unwrap();
    wait::until(Duration::from_secs(60), "the last acks", async || {
        let queues = field.rabbit.queues(&ground.broker).await;
        let celery = queues.iter().filter(|queue| queue.name == queue::QUEUE);
        let left: u64 = celery.map(|queue| queue.ready + queue.unacked).sum();
        if left == 0 { Ok(()) } else { Err(format!("{left} messages left")) }
    })
    .await;
    crate::contestant::stop(&program).await;
    row
}

/// Says how many tasks are done.
enum Counter {
    Results(redis::aio::MultiplexedConnection),
    Queue { channel: Box<lapin::Channel>, _connection: Box<lapin::Connection>, all: u64 },
}

impl Counter {
    async fn open(ground: &Ground, who: &Contestant, all: u64) -> anyhow::Result<Self> {
        if who.stores_results() {
            return Ok(Self::Results(connect(&ground.backend).await?));
        }
        let connection = queue::connect(&ground.broker).await?;
        let channel = Box::new(connection.create_channel().await?);
        Ok(Self::Queue { channel, _connection: Box::new(connection), all })
    }

    async fn done(&mut self) -> anyhow::Result<u64> {
        match self {
            Self::Results(redis) => Ok(redis::cmd("DBSIZE").query_async(redis).await?),
            Self::Queue { channel, all, .. } => {
                Ok(all.saturating_sub(queue::depth(channel, queue::QUEUE).await?.0))
            }
        }
    }
}

/// Waits for `count` tasks to be done; the clock runs from the first to the last.
async fn watch(
    name: &str,
    mut counter: Counter,
    count: u64,
    pids: [u32; 3],
    program: &Program,
) -> anyhow::Result<Row> {
    let deadline = Instant::now() + Duration::from_secs(600);
    let mut step = tokio::time::interval(Duration::from_millis(5));
    let mut begin: Option<Moment> = None;
    loop {
        step.tick().await;
        let done = counter.done().await?;
        let over = begin.is_some() && done >= count;
        if begin.is_some() && !over {
            program.still_running()?;
            let late = Instant::now() > deadline;
            anyhow::ensure!(!late, "{done} of {count} tasks after 600 s\n{}", program.log_tail());
            continue;
        }
        let now = Moment { at: Instant::now(), done, spent: pids.map(processor_seconds) };
        match &begin {
            None if done > 0 => begin = Some(now),
            Some(begin) => {
                let tasks = as_f64((done - begin.done).max(1));
                let micros = std::array::from_fn(|of| (now.spent[of] - begin.spent[of]) * 1e6 / tasks);
                let rate = tasks / (now.at - begin.at).as_secs_f64();
                return Ok(Row { name: name.to_owned(), rate, micros, memory: memory(pids[0]) });
            }
            None => {
                program.still_running()?;
                let late = Instant::now() > deadline;
                anyhow::ensure!(!late, "nothing was done in 600 s\n{}", program.log_tail());
            }
        }
    }
}

struct Moment {
    at: Instant,
    done: u64,
    spent: [f64; 3],
}

/// A connection to a result store.
pub(crate) async fn connect(backend: &str) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(backend)?.get_multiplexed_async_connection().await?)
}

/// A sample of the results says what is expected of it.
pub(crate) async fn check_results(backend: &str, result: &Value) -> anyhow::Result<()> {
    let mut redis = connect(backend).await?;
    for _ in 0..10 {
        let key: String = redis::cmd("RANDOMKEY").query_async(&mut redis).await?;
        let meta: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut redis).await?;
        let meta: Value = serde_json::from_slice(&meta)?;
        anyhow::ensure!(meta["status"] == "SUCCESS" && meta["result"] == *result, "{key} holds {meta}");
    }
    Ok(())
}

/// User and system time so far of a process, its children and those that it has outlived.
pub(crate) fn processor_seconds(root: u32) -> f64 {
    let ticks: f64 = tree(root).iter().map(|&pid| stat(pid).map_or(0.0, |stat| stat.ticks)).sum();
    ticks / 100.0 // USER_HZ is 100 on every Linux
}

/// What a process and its children hold.
pub(crate) fn memory(root: u32) -> Memory {
    let mut sum = Memory::default();
    for pid in tree(root) {
        sum.peak += megabytes(&format!("/proc/{pid}/status"), "VmHWM:");
        sum.pss += megabytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    }
    sum
}

fn megabytes(file: &str, field: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

struct Stat {
    parent: u32,
    ticks: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces; the parent is the 2nd field after it, utime, stime, cutime and cstime
    // the 12th to 15th.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let number = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let parent = fields.get(1)?.parse().ok()?;
    Some(Stat { parent, ticks: (11..15).map(number).sum() })
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        found.push(pid);
        open.extend(children.remove(&pid).unwrap_or_default());
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}
