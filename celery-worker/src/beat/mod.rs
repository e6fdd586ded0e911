//! Periodic tasks: [`Beat`], the scheduler behind `celery-beat`.
//!
//! [`entry`] is one periodic task, as it is written in a schedule; [`schedule`], [`crontab`] and [`solar`] say when it is due;
//! [`plan`] knows what is due now. Alone on its schedule a beat remembers its runs in a file ([`store`]); several share one through
//! Redis, and one of them leads (`shared`).

pub mod crontab;
pub mod entry;
pub mod plan;
pub mod schedule;
pub mod solar;
pub mod store;

mod send;
mod service;
mod shared;

pub(crate) use send::is_sent_again;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use celery_broker::config::Layered;
use celery_broker::{Celery, CeleryBuilder};
use celery_protocol::zone::{Zone, ZoneError};
use tokio_util::sync::CancellationToken;

use entry::Entry;
use plan::Plan;
use shared::Shared;
use store::Store;

/// A lease lasts for at least so many AMQP heartbeats: the broker closes a silent connection after three at the latest.
pub const HEARTBEATS_IN_LEASE: u32 = 4;

/// Sends periodic tasks.
///
/// ```no_run
/// use celery_worker::beat::{Beat, entry::Entry};
/// use celery_worker::prelude::*;
/// use tokio_util::sync::CancellationToken;
///
/// #[task(name = "docs.clean_up")]
/// async fn clean_up() -> TaskResult<()> {
///     Ok(())
/// }
///
/// # async fn example(celery: Celery) -> Result<(), Box<dyn std::error::Error>> {
/// let beat = Beat::new(celery)
///     .entry(Entry::every("often", Duration::from_secs(10), clean_up::s())?)
///     .entry(Entry::crontab("nightly", "30 4 * * *", clean_up::s())?)
///     .timezone("Europe/Berlin".parse()?);
/// beat.run(CancellationToken::new()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Beat {
    celery: Celery,
    entries: Vec<Entry>,
    zone: Zone,
    memory: Memory,
}

/// Where runs are remembered.
#[derive(Debug)]
enum Memory {
    Process,
    File(PathBuf),
    Shared { name: String, lease: Duration },
}

/// Why a beat did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeatError {
    /// The state file cannot be read, or is another program's.
    #[error("{0}")]
    Store(#[from] io::Error),
    /// Two entries have one name.
    #[error("two entries of the schedule are called {0:?}: give one of them another name")]
    Duplicate(String),
    /// There is no such time zone.
    #[error("timezone: {0}")]
    Zone(#[from] ZoneError),
    /// A shared schedule is kept in Redis.
    #[error("a shared schedule needs a Redis: set result_backend")]
    NoRedis,
    /// A beat that is frozen could send after another has taken over.
    #[error(
        "beat_lease ({lease:?}) must be at least {HEARTBEATS_IN_LEASE} times broker_heartbeat ({heartbeat:?}), and that must not be 0"
    )]
    ShortLease {
        /// `beat_lease`
        lease: Duration,
        /// `broker_heartbeat`
        heartbeat: Duration,
    },
}

/// The client that a beat with these settings needs: on a shared schedule its heartbeat is short enough for the lease.
#[must_use]
pub fn client(builder: CeleryBuilder, config: &Layered) -> CeleryBuilder {
    if shared_name(config).is_none() {
        return builder;
    }
    let lease = config.duration("beat_lease").unwrap_or_default();
    let heartbeat = config.duration("broker_heartbeat").unwrap_or_default();
    builder.heartbeat(heartbeat.min(lease / HEARTBEATS_IN_LEASE))
}

fn shared_name(config: &Layered) -> Option<&str> {
    config.text("beat_shared_schedule").filter(|name| !name.is_empty())
}

impl Beat {
    /// Without entries, by universal time, remembering nothing over a restart.
    #[must_use]
    pub fn new(celery: Celery) -> Beat {
        Beat { celery, entries: Vec::new(), zone: Zone::utc(), memory: Memory::Process }
    }

    /// As the values of [`BEAT_SETTINGS`](crate::config::BEAT_SETTINGS) say.
    ///
    /// # Errors
    /// There is no such time zone.
    pub fn from_config(celery: Celery, config: &Layered) -> Result<Beat, BeatError> {
        let beat = Beat::new(celery).timezone(config.text("timezone").unwrap_or("UTC").parse()?);
        Ok(match shared_name(config) {
            Some(name) => beat.shared(name, config.duration("beat_lease").unwrap_or_default()),
            None => beat.file(config.text("beat_schedule_filename").unwrap_or_default()),
        })
    }

    /// With one more periodic task.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Beat {
        self.entries.push(entry);
        self
    }

    /// With more periodic tasks.
    #[must_use]
    pub fn entries(mut self, entries: impl IntoIterator<Item = Entry>) -> Beat {
        self.entries.extend(entries);
        self
    }

    /// The wall clock that crontabs are matched against. Default: UTC.
    #[must_use]
    pub fn timezone(mut self, zone: Zone) -> Beat {
        self.zone = zone;
        self
    }

    /// Remembers in this file when each entry ran last, so that a restart neither repeats nor forgets.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Beat {
        self.memory = Memory::File(path.into());
        self
    }

    /// Shares the schedule `name` with other beats through the Redis of the results. One leads as long as its lease lasts;
    /// another takes over when it has ended.
    #[must_use]
    pub fn shared(mut self, name: impl Into<String>, lease: Duration) -> Beat {
        self.memory = Memory::Shared { name: name.into(), lease };
        self
    }

    /// Sends what is due until `stop`.
    ///
    /// # Errors
    /// Entries, file, Redis or lease are not as they must be. Once it runs, trouble is logged and waited out.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BeatError> {
        let Beat { celery, entries, zone, memory } = self;
        let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BeatError::Duplicate(twice[0].to_owned()));
        }
        let (store, remembered) = match memory {
            Memory::Shared { name, lease } => {
                let fenced = celery.fenced().ok_or(BeatError::NoRedis)?;
                let heartbeat = celery.heartbeat();
                if heartbeat.is_zero() || lease < heartbeat * HEARTBEATS_IN_LEASE {
                    return Err(BeatError::ShortLease { lease, heartbeat });
                }
                Shared::new(&celery, fenced, name, lease, entries, zone).run(&stop).await;
                return Ok(());
            }
            Memory::File(path) => {
                let store = Store::new(path);
                let remembered = store.load()?;
                (Some(store), remembered)
            }
            Memory::Process => (None, BTreeMap::new()),
        };
        let now = celery.clock().now();
        let plan = Plan::new(entries, &remembered, zone, now);
        for (entry, next) in plan.upcoming() {
            let seconds = next.and_then(|next| next.duration_since(now).ok()).unwrap_or_default().as_secs();
            tracing::info!("{}: {} next in {seconds} s", entry.name, entry.signature.task);
        }
        service::run(&celery, plan, store, &stop).await;
        Ok(())
    }
}
