//! Results in Redis, as Celery 5.7 keeps them: same keys, same bytes, same rules.

mod chord;
mod chord_watch;
mod cluster;
mod connection;
mod fault;
mod feed;
mod fenced;
mod notes;
mod script;
mod store;
mod submission;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use celery_protocol::result::keys::Prefix;
use celery_protocol::{GroupId, ResultMeta, ResultTuple, TaskId};
use futures_util::stream::BoxStream;

use self::chord_watch::RedisChordWatch;
use self::cluster::RedisCluster;
use self::connection::Connector;
use self::fenced::RedisFenced;
use self::notes::RedisNotes;
use self::store::Store;
use self::submission::RedisSubmissions;
use self::wait::Watcher;
use super::{Answer, ChordClaim, ChordMember, ChordPart, ChordProgress, ResultBackend};
use crate::chord_watch::ChordWatch;
use crate::config::RedisUrl;
use crate::control::Cluster;
use crate::error::BrokerError;
use crate::fenced::Fenced;
use crate::notes::Notes;
use crate::submission::SubmissionIndex;
use crate::tasks::Tasks;

/// The Redis backend.
pub(crate) struct RedisBackend {
    store: Store,
    watcher: Watcher,
    submissions: Arc<dyn SubmissionIndex>,
    notes: Arc<dyn Notes>,
    fenced: Arc<dyn Fenced>,
    chords: Arc<dyn ChordWatch>,
    cluster: Arc<dyn Cluster>,
}

impl RedisBackend {
    /// Connects with the first command.
    pub(crate) fn start(
        url: &RedisUrl,
        key_prefix: &str,
        expires: Expires,
        tasks: &Tasks,
    ) -> Result<Self, BrokerError> {
        let connector = Connector::new(url, tasks)?;
        let prefix = Prefix::new(key_prefix);
        let submissions = Arc::new(RedisSubmissions::new(connector.clone(), prefix.as_str()));
        let notes = Arc::new(RedisNotes::new(connector.clone(), prefix.as_str()));
        let fenced = Arc::new(RedisFenced::new(connector.clone(), prefix.as_str()));
        let chords = Arc::new(RedisChordWatch::new(connector.clone(), prefix.clone()));
        let cluster = Arc::new(RedisCluster::new(connector.clone(), prefix.as_str()));
        let (ttl, failure_ttl) = (seconds(expires.results), seconds(expires.failures));
        let store = Store { connector, prefix, ttl, failure_ttl };
        let watcher = Watcher::new(store.clone(), tasks);
        Ok(Self { store, watcher, submissions, notes, fenced, chords, cluster })
    }
}

/// How long things are kept; zero is for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expires {
    pub(crate) results: Duration,
    pub(crate) failures: Duration,
}

/// A fraction of a second must not become for ever.
fn seconds(expires: Duration) -> u64 {
    if expires.is_zero() { 0 } else { expires.as_secs().max(1) }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisBackend").field(&self.store.connector.address()).finish()
    }
}

impl ResultBackend for RedisBackend {
    fn store_many<'a>(&'a self, metas: &'a [ResultMeta]) -> Answer<'a, ()> {
        Box::pin(self.store.store_many(metas))
    }

    fn get<'a>(&'a self, id: &'a TaskId) -> Answer<'a, Option<ResultMeta>> {
        Box::pin(self.store.get(id))
    }

    fn get_many<'a>(&'a self, ids: &'a [TaskId]) -> Answer<'a, Vec<Option<ResultMeta>>> {
        Box::pin(self.store.get_many(ids))
    }

    fn watch<'a>(&'a self, id: &'a TaskId) -> Answer<'a, BoxStream<'static, ResultMeta>> {
        Box::pin(self.watcher.watch(id))
    }

    fn forget<'a>(&'a self, id: &'a TaskId) -> Answer<'a, ()> {
        Box::pin(self.store.forget(id))
    }

    fn store_group<'a>(&'a self, group: &'a ResultTuple) -> Answer<'a, ()> {
        Box::pin(self.store.store_group(group))
    }

    fn get_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, Option<ResultTuple>> {
        Box::pin(self.store.get_group(id))
    }

    fn forget_group<'a>(&'a self, id: &'a GroupId) -> Answer<'a, ()> {
        Box::pin(self.store.forget_group(id))
    }

    fn chord_start<'a>(&'a self, group: &'a GroupId, size: u64) -> Answer<'a, ()> {
        Box::pin(self.store.chord_start(group, size))
    }

    fn chord_grow<'a>(&'a self, group: &'a GroupId, by: i64) -> Answer<'a, ()> {
        Box::pin(self.store.chord_grow(group, by))
    }

    fn chord_part<'a>(&'a self, part: &'a ChordPart) -> Answer<'a, ChordProgress> {
        Box::pin(self.store.chord_part(part))
    }

    fn chord_results<'a>(&'a self, group: &'a GroupId) -> Answer<'a, Vec<ChordMember>> {
        Box::pin(self.store.chord_results(group))
    }

    fn chord_extend<'a>(&'a self, claim: &'a ChordClaim, seconds: u64) -> Answer<'a, bool> {
        Box::pin(self.store.chord_extend(claim, seconds))
    }

    fn chord_release<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        Box::pin(self.store.chord_release(claim))
    }

    fn chord_done<'a>(&'a self, claim: &'a ChordClaim) -> Answer<'a, ()> {
        Box::pin(self.store.chord_done(claim))
    }

    fn chord_abort<'a>(&'a self, group: &'a GroupId) -> Answer<'a, ()> {
        Box::pin(self.store.chord_abort(group))
    }

    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(self.store.ping())
    }

    fn submissions(&self) -> Option<Arc<dyn SubmissionIndex>> {
        Some(Arc::clone(&self.submissions))
    }

    fn fenced(&self) -> Option<Arc<dyn Fenced>> {
        Some(Arc::clone(&self.fenced))
    }

    fn notes(&self) -> Option<Arc<dyn Notes>> {
        Some(Arc::clone(&self.notes))
    }

    fn chord_watch(&self) -> Option<Arc<dyn ChordWatch>> {
        Some(Arc::clone(&self.chords))
    }

    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        Some(Arc::clone(&self.cluster))
    }

    fn watch_all(&self) -> Answer<'_, BoxStream<'static, ResultMeta>> {
        Box::pin(feed::open(&self.store))
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}
