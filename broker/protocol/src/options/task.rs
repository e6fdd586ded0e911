//! Options of a task, and of an app for all its tasks.

use std::{fmt, str::FromStr, time::Duration};

use crate::content::{Compression, ContentType};

/// What a task says about its calls and runs. `None` leaves it to the app's options, and these to the default.
///
/// The value for the app has the same type: each field is what Celery's setting of that name says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TaskOptions {
    /// How often a failed run is repeated. Default: 3.
    pub max_retries: Option<MaxRetries>,
    /// How long to wait before a retry that names no delay. Default: 3 minutes.
    pub default_retry_delay: Option<Duration>,
    /// First delay of automatic retries; each further one is twice as long. Default: no back-off.
    pub retry_backoff: Option<Duration>,
    /// Longest delay of automatic retries. Default: 10 minutes.
    pub retry_backoff_max: Option<Duration>,
    /// Whether the delay of automatic retries is drawn between zero and its length. Default: yes.
    pub retry_jitter: Option<bool>,
    /// Whether the message is acknowledged after the run and not before. Default: yes, unlike Celery.
    pub acks_late: Option<bool>,
    /// With late acks: whether a failed run is acknowledged (else rejected). Default: yes.
    pub acks_on_failure: Option<bool>,
    /// With late acks: whether a run that was ended at its time limit is acknowledged (else requeued). Default: as
    /// `acks_on_failure`.
    pub acks_on_timeout: Option<bool>,
    /// With late acks: whether a run that was lost with its process is requeued. Default: no.
    pub reject_on_worker_lost: Option<bool>,
    /// After how long a run is ended. Default: never.
    pub time_limit: Option<Duration>,
    /// After how long a run is asked to end. Default: never.
    pub soft_time_limit: Option<Duration>,
    /// Whether results are thrown away. Default: no.
    pub ignore_result: Option<bool>,
    /// Whether failures are stored though results are thrown away. Default: no.
    pub store_errors_even_if_ignored: Option<bool>,
    /// Whether the state STARTED is stored. Default: no.
    pub track_started: Option<bool>,
    /// Whether events are sent about the task. Default: yes.
    pub send_events: Option<bool>,
    /// The queue for calls. Default: as routes say.
    pub queue: Option<&'static str>,
    /// The priority of calls, higher is more urgent. Default: none.
    pub priority: Option<u8>,
    /// How long after sending a call is no longer to be run. Default: for ever.
    pub expires: Option<Duration>,
    /// How often the task is run at most, in each worker. Default: no limit.
    pub rate_limit: Option<RateLimit>,
    /// How calls are written. Default: JSON.
    pub serializer: Option<Serializer>,
    /// How the bodies of calls are packed. Default: not at all.
    pub compression: Option<Compression>,
}

/// How often a failed run is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRetries {
    /// This many times.
    Times(u32),
    /// For ever.
    Unlimited,
}

/// A number of runs per second, minute or hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// How many runs.
    pub runs: f64,
    /// In how long.
    pub per: RatePeriod,
}

/// The period of a [`RateLimit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RatePeriod {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

/// How calls are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Serializer {
    /// JSON as Python writes it.
    #[default]
    Json,
    /// `MessagePack`.
    Msgpack,
    /// YAML.
    Yaml,
}

impl Serializer {
    /// Recognises one of Celery's names or a MIME type; pickle is none.
    pub fn parse(name: &str) -> Option<Self> {
        match ContentType::parse(name) {
            Some(ContentType::Json) => Some(Self::Json),
            Some(ContentType::Msgpack) => Some(Self::Msgpack),
            Some(ContentType::Yaml) => Some(Self::Yaml),
            _ => None,
        }
    }

    /// Celery's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Msgpack => "msgpack",
            Self::Yaml => "yaml",
        }
    }
}

/// Options for a run, all decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Execution {
    /// How often a failed run is repeated.
    pub max_retries: MaxRetries,
    /// How long to wait before a retry that names no delay.
    pub default_retry_delay: Duration,
    /// First delay of automatic retries; `None`: no back-off.
    pub retry_backoff: Option<Duration>,
    /// Longest delay of automatic retries.
    pub retry_backoff_max: Duration,
    /// Whether the delay of automatic retries is drawn between zero and its length.
    pub retry_jitter: bool,
    /// Whether the message is acknowledged after the run and not before.
    pub acks_late: bool,
    /// With late acks: whether a failed run is acknowledged.
    pub acks_on_failure: bool,
    /// With late acks: whether a run that was ended at its time limit is acknowledged.
    pub acks_on_timeout: bool,
    /// With late acks: whether a run that was lost with its process is requeued.
    pub reject_on_worker_lost: bool,
    /// After how long a run is ended.
    pub time_limit: Option<Duration>,
    /// After how long a run is asked to end.
    pub soft_time_limit: Option<Duration>,
    /// Whether results are thrown away.
    pub ignore_result: bool,
    /// Whether failures are stored though results are thrown away.
    pub store_errors_even_if_ignored: bool,
    /// Whether the state STARTED is stored.
    pub track_started: bool,
    /// Whether events are sent about the task.
    pub send_events: bool,
    /// How often the task is run at most.
    pub rate_limit: Option<RateLimit>,
}

impl TaskOptions {
    /// Nothing said.
    pub const DEFAULT: TaskOptions = TaskOptions {
        max_retries: None,
        default_retry_delay: None,
        retry_backoff: None,
        retry_backoff_max: None,
        retry_jitter: None,
        acks_late: None,
        acks_on_failure: None,
        acks_on_timeout: None,
        reject_on_worker_lost: None,
        time_limit: None,
        soft_time_limit: None,
        ignore_result: None,
        store_errors_even_if_ignored: None,
        track_started: None,
        send_events: None,
        queue: None,
        priority: None,
        expires: None,
        rate_limit: None,
        serializer: None,
        compression: None,
    };

    /// These options for a run, where they say nothing the app's, and where those say nothing the defaults.
    pub fn resolve(&self, app: &TaskOptions) -> Execution {
        let acks_on_failure = self.acks_on_failure.or(app.acks_on_failure).unwrap_or(true);
        Execution {
            max_retries: self.max_retries.or(app.max_retries).unwrap_or(MaxRetries::Times(3)),
            default_retry_delay: self
                .default_retry_delay
                .or(app.default_retry_delay)
                .unwrap_or(Duration::from_secs(180)),
            retry_backoff: self.retry_backoff.or(app.retry_backoff),
            retry_backoff_max: self
                .retry_backoff_max
                .or(app.retry_backoff_max)
                .unwrap_or(Duration::from_secs(600)),
            retry_jitter: self.retry_jitter.or(app.retry_jitter).unwrap_or(true),
            acks_late: self.acks_late.or(app.acks_late).unwrap_or(true),
            acks_on_failure,
            acks_on_timeout: self.acks_on_timeout.or(app.acks_on_timeout).unwrap_or(acks_on_failure),
            reject_on_worker_lost: self.reject_on_worker_lost.or(app.reject_on_worker_lost).unwrap_or(false),
            time_limit: self.time_limit.or(app.time_limit),
            soft_time_limit: self.soft_time_limit.or(app.soft_time_limit),
            ignore_result: self.ignore_result.or(app.ignore_result).unwrap_or(false),
            store_errors_even_if_ignored: self
                .store_errors_even_if_ignored
                .or(app.store_errors_even_if_ignored)
                .unwrap_or(false),
            track_started: self.track_started.or(app.track_started).unwrap_or(false),
            send_events: self.send_events.or(app.send_events).unwrap_or(true),
            rate_limit: self.rate_limit.or(app.rate_limit),
        }
    }
}

impl RateLimit {
    /// How many runs per second.
    pub fn per_second(self) -> f64 {
        let seconds = match self.per {
            RatePeriod::Second => 1.0,
            RatePeriod::Minute => 60.0,
            RatePeriod::Hour => 3600.0,
        };
        self.runs / seconds
    }
}

/// A text that is not a rate limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rate limit such as \"10/s\", \"100/m\" or \"5.5/h\": {0:?}")]
pub struct RateLimitError(String);

impl FromStr for RateLimit {
    type Err = RateLimitError;

    fn from_str(text: &str) -> Result<Self, RateLimitError> {
        let (runs, per) = text.split_once('/').unwrap_or((text, "s"));
        let per = match per.trim() {
            "s" => RatePeriod::Second,
            "m" => RatePeriod::Minute,
            "h" => RatePeriod::Hour,
            _ => return Err(RateLimitError(text.chars().take(64).collect())),
        };
        match runs.trim().parse::<f64>() {
            Ok(runs) if runs.is_finite() && runs >= 0.0 => Ok(Self { runs, per }),
            _ => Err(RateLimitError(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            RatePeriod::Second => 's',
            RatePeriod::Minute => 'm',
            RatePeriod::Hour => 'h',
        };
        write!(f, "{}/{per}", self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_written_in_a_constant() {
        const OPTIONS: TaskOptions = TaskOptions {
            max_retries: Some(MaxRetries::Times(5)),
            queue: Some("mail"),
            ..TaskOptions::DEFAULT
        };
        assert_eq!(OPTIONS.resolve(&TaskOptions::DEFAULT).max_retries, MaxRetries::Times(5));
    }

    #[test]
    fn the_task_wins_over_the_app_and_the_app_over_the_default() {
        let app = TaskOptions { acks_late: Some(false), track_started: Some(true), ..TaskOptions::DEFAULT };
        let task =
            TaskOptions { track_started: Some(false), acks_on_failure: Some(false), ..TaskOptions::DEFAULT };
        let run = task.resolve(&app);
        assert!(!run.acks_late && !run.track_started && !run.acks_on_timeout && run.retry_jitter);
        assert!(TaskOptions::DEFAULT.resolve(&TaskOptions::DEFAULT).acks_late);
    }

    #[test]
    fn rate_limits() {
        for (text, per_second) in [("10/s", 10.0), ("90/m", 1.5), ("7200/h", 2.0), ("3", 3.0), ("0.5/s", 0.5)]
        {
            let limit: RateLimit = text.parse().unwrap();
            assert!((limit.per_second() - per_second).abs() < 1e-9);
        }
        assert_eq!("100/m".parse::<RateLimit>().unwrap().to_string(), "100/m");
        for text in ["abc", "1/y", "-1", "NaN", "inf/s", "", "1/"] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
