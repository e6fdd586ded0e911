//! Counters of a worker and what the kernel says about its process: the numbers of `inspect stats` and heartbeats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Clock ticks per second of `/proc/<pid>/stat`: a constant of the kernel's interface on Linux.
const TICKS: f64 = 100.0;

/// Counters; shared, never reset.
#[derive(Debug)]
pub(crate) struct Stats {
    started: Instant,
    /// Tasks that ended, whatever their outcome: the `processed` of heartbeats.
    processed: AtomicU64,
    /// Time spent in tasks, in microseconds.
    busy: AtomicU64,
}

impl Stats {
    pub(crate) fn new() -> Stats {
        Stats { started: Instant::now(), processed: AtomicU64::new(0), busy: AtomicU64::new(0) }
    }

    /// Counts a task that ended.
    pub(crate) fn ended(&self, runtime: Duration) {
        self.processed.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(u64::try_from(runtime.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many tasks ended, and the time they took altogether.
    pub(crate) fn ended_so_far(&self) -> (u64, Duration) {
        (self.processed.load(Ordering::Relaxed), Duration::from_micros(self.busy.load(Ordering::Relaxed)))
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The load of the last 1, 5 and 15 minutes, with two decimals.
pub(crate) fn load_average() -> [f64; 3] {
    parse_load_average(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default())
}

fn parse_load_average(text: &str) -> [f64; 3] {
    let mut values = text.split_whitespace().map(|value| value.parse().unwrap_or(0.0));
    std::array::from_fn(|_| values.next().unwrap_or(0.0))
}

/// The `rusage` of `inspect stats`; `"N/A"` where the kernel does not say.
pub(crate) fn resource_usage() -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    parse_resource_usage(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/self/io"))
}

fn parse_resource_usage(stat: &str, status: &str, io: &str) -> Value {
    // The command name may hold spaces and parentheses: fields are counted after the last ')'.
    let Some((_, fields)) = stat.rsplit_once(')') else { return json!("N/A") };
    let field: Vec<&str> = fields.split_whitespace().collect();
    let count =
        |number: usize| field.get(number - 3).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
    let line = |text: &str, key: &str| -> u64 {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    json!({
        "utime": f64::from(count(14)) / TICKS,
        "stime": f64::from(count(15)) / TICKS,
        "maxrss": line(status, "VmHWM:"),
        "ixrss": 0,
        "idrss": 0,
        "isrss": 0,
        "minflt": count(10),
        "majflt": count(12),
        "nswap": 0,
        "inblock": line(io, "read_bytes:") / 512,
        "oublock": line(io, "write_bytes:") / 512,
        "msgsnd": 0,
        "msgrcv": 0,
        "nsignals": 0,
        "nvcsw": line(status, "voluntary_ctxt_switches:"),
        "nivcsw": line(status, "nonvoluntary_ctxt_switches:"),
    })
}

/// Resident memory of this process as Celery's `memsample` writes it.
pub(crate) fn memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(format!("{:.2}MB", kib / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(parse_load_average("1.61 0.92 0.38 2/345 6789\n"), [1.61, 0.92, 0.38]);
        assert_eq!(parse_load_average(""), [0.0; 3]);
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 1500 0 7 0 250 125 0 0 20 0 3 0 1 1 1";
        let status =
            "Name:\tx\nVmHWM:\t   12345 kB\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t4\n";
        let usage = parse_resource_usage(stat, status, "read_bytes: 1024\n");
        assert_eq!(usage["utime"], 2.5);
        assert_eq!(usage["stime"], 1.25);
        assert_eq!(usage["minflt"], 1500);
        assert_eq!(usage["majflt"], 7);
        assert_eq!(
            [&usage["maxrss"], &usage["nvcsw"], &usage["nivcsw"], &usage["inblock"]],
            [12345, 9, 4, 2]
        );
        assert_eq!(parse_resource_usage("", "", ""), "N/A");
    }

    #[test]
    fn this_process_has_memory_and_time() {
        assert!(memory().unwrap().ends_with("MB"));
        assert!(resource_usage()["maxrss"].as_u64().unwrap() > 0);
    }
}
