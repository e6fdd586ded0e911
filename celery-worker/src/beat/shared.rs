//! Several beats on one schedule: one leads and sends, the others wait for its lease to end.
//!
//! Lease and memory are in Redis. A tick is claimed before it is sent: one script compares the lease's token and what was
//! remembered of the entry, and writes when the tick was due and under which id it goes out. So one tick is claimed once,
//! whoever believes to lead. What was claimed and not reported as sent is sent by the next leader, under the same id.
//!
//! A leader that was frozen after its claim must not send when it is thawed, because the next leader has. It can't: it
//! sends over the connection that it had before the claim, and the broker closes the connection of a silent client long
//! before the lease ends. That is why the lease must last for four heartbeats.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celery_broker::fenced::{Change, Fenced, Hold, Records};
use celery_broker::{BackendError, Celery};
use celery_protocol::TaskId;
use celery_protocol::zone::Zone;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::entry::{self, Entry};
use super::plan::{Plan, Tick};
use super::send::{Identity, Sent, send};
use super::store::LastRun;

/// The pause before a tick that could not be sent is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How time passes: tests have their own.
pub(super) type Sleep = Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// One of the beats that share a schedule.
pub(super) struct Shared {
    celery: Celery,
    fenced: Arc<dyn Fenced>,
    name: String,
    token: String,
    lease: Duration,
    /// The schedule without what is edited in Redis.
    own: Vec<Entry>,
    zone: Zone,
    /// What this process has sent and could not report.
    unreported: HashSet<TaskId>,
    sleep: Sleep,
}

/// What is remembered of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    last: LastRun,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed: Option<Claimed>,
    /// The entry as whoever led last had it: for those who look at the schedule.
    #[serde(default, rename = "entry", skip_serializing_if = "Option::is_none")]
    shown: Option<Value>,
}

/// A tick that is being sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claimed {
    id: TaskId,
    /// Unix time.
    due: f64,
    /// The entry as it was then, as it is written.
    entry: Value,
}

/// Why a leader stops leading, if only to look again.
#[derive(Debug)]
enum Over {
    /// Somebody else leads, or somebody else has changed what only a leader changes.
    Lost,
    /// The store does not answer.
    Store(BackendError),
    /// The broker has taken nothing for as long as a lease lasts.
    NoBroker,
}

impl From<BackendError> for Over {
    fn from(error: BackendError) -> Self {
        Over::Store(error)
    }
}

/// What the leader knows.
struct Leader {
    plan: Plan,
    /// What is stored, byte for byte.
    records: Records,
    /// What was edited, as it was read last.
    edited: Records,
}

impl Shared {
    pub(super) fn new(
        celery: &Celery,
        fenced: Arc<dyn Fenced>,
        name: String,
        lease: Duration,
        own: Vec<Entry>,
        zone: Zone,
    ) -> Self {
        let token = Uuid::new_v4().to_string();
        let unreported = HashSet::new();
        let sleep: Sleep = Box::new(|pause| Box::pin(tokio::time::sleep(pause)));
        Self { celery: celery.clone(), fenced, name, token, lease, own, zone, unreported, sleep }
    }

    fn hold(&self) -> Hold<'_> {
        Hold { name: &self.name, token: &self.token, ttl: self.lease }
    }

    fn now(&self) -> SystemTime {
        self.celery.clock().now()
    }

    /// Leads when nobody else does, until `stop`; then gives the lease up, so that the next one need not wait.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        let mut waiting = false;
        while !stop.is_cancelled() {
            match self.fenced.hold(self.hold()).await {
                Ok(true) => {
                    tracing::info!(schedule = self.name, "beat: Leading");
                    waiting = false;
                    match self.lead(stop).await {
                        Ok(()) => break,
                        Err(Over::Lost) => tracing::warn!(schedule = self.name, "beat: the lease was lost"),
                        Err(Over::Store(error)) => {
                            tracing::error!(%error, "beat: the schedule's state cannot be reached")
                        }
                        Err(Over::NoBroker) => {
                            tracing::error!(
                                schedule = self.name,
                                "beat: The broker has taken nothing for {:?}; another beat may lead",
                                self.lease
                            );
                            self.give_up().await;
                            // The others look at the lease twice before this one does again.
                            self.pause(self.lease / 2, stop).await;
                            continue;
                        }
                    }
                }
                Ok(false) if !waiting => {
                    tracing::info!(
                        schedule = self.name,
                        "beat: Another beat leads; waiting for its lease to end"
                    );
                    waiting = true;
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "beat: the lease cannot be asked for"),
            }
            self.pause(self.lease / 4, stop).await;
        }
        self.give_up().await;
    }

    async fn give_up(&self) {
        if let Err(error) = self.fenced.release(self.hold()).await {
            tracing::warn!(%error, "beat: the lease could not be given up; it ends by itself");
        }
    }

    /// True if it was interrupted by `stop`.
    async fn pause(&self, pause: Duration, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => true,
            () = (self.sleep)(pause) => false,
        }
    }

    async fn lead(&mut self, stop: &CancellationToken) -> Result<(), Over> {
        let mut leader = self.take_over().await?;
        self.finish_claims(&mut leader, stop).await?;
        while !stop.is_cancelled() {
            self.look_for_edits(&mut leader).await?;
            for tick in leader.plan.due(self.now()) {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.dispatch(&mut leader, &tick, stop).await?;
            }
            let pause = leader.plan.sleep(self.now()).min(self.lease / 4);
            if self.pause(pause, stop).await {
                return Ok(());
            }
            if !self.fenced.hold(self.hold()).await? {
                return Err(Over::Lost);
            }
        }
        Ok(())
    }

    /// Reads what the leaders before have left, and notes entries that are new.
    async fn take_over(&self) -> Result<Leader, Over> {
        let edited = self.fenced.entries(&self.name).await?;
        let records = self.fenced.records(&self.name).await?;
        let last = |(name, bytes): (&String, &Vec<u8>)| Some((name.clone(), read(name, bytes)?.last));
        let remembered: BTreeMap<_, _> = records.iter().filter_map(last).collect();
        let entries = merged(&self.own, &edited);
        let plan = Plan::new(entries, &remembered, self.zone.clone(), self.now()).catching_up(self.lease * 2);
        let mut leader = Leader { plan, records, edited };
        self.note_new(&mut leader).await?;
        Ok(leader)
    }

    /// An entry that is new counts from now, for the next leader too.
    async fn note_new(&self, leader: &mut Leader) -> Result<(), Over> {
        let shown: BTreeMap<_, _> = leader.plan.entries().map(|e| (e.name.clone(), e.shown())).collect();
        for (name, last) in leader.plan.last_runs() {
            let shown = shown.get(&name).cloned();
            let record = match leader.records.get(&name).and_then(|bytes| read(&name, bytes)) {
                Some(known) if known.shown == shown => continue,
                Some(known) => Record { shown, ..known },
                None => Record { last, claimed: None, shown },
            };
            self.write(leader, &name, &record).await?;
        }
        Ok(())
    }

    async fn look_for_edits(&self, leader: &mut Leader) -> Result<(), Over> {
        let edited = self.fenced.entries(&self.name).await?;
        if edited == leader.edited {
            return Ok(());
        }
        leader.plan.edit(merged(&self.own, &edited), self.now());
        leader.edited = edited;
        let names: Vec<_> = leader.plan.entries().map(|entry| entry.name.as_str()).collect();
        tracing::info!(schedule = self.name, entries = ?names, "beat: The schedule was edited");
        self.note_new(leader).await
    }

    /// Sends what was claimed by a leader that was lost before it could report.
    async fn finish_claims(&mut self, leader: &mut Leader, stop: &CancellationToken) -> Result<(), Over> {
        for (name, bytes) in leader.records.clone() {
            let Some(Record { last, claimed: Some(claimed), shown }) = read(&name, &bytes) else { continue };
            let known = self.unreported.contains(&claimed.id)
                || self.celery.backend().get(&claimed.id).await.is_ok_and(|result| result.is_some());
            let done = Record { last, claimed: None, shown: shown.clone() };
            if !known && let Some(entry) = entry_of(&name, &claimed.entry) {
                tracing::warn!(id = %claimed.id, "beat: {name} was claimed by a beat that was lost; sending it");
                let due = LastRun::unix_time(claimed.due);
                let identity = Identity { id: claimed.id.clone(), due, again: true };
                let claim = Record { last, claimed: Some(claimed.clone()), shown };
                if !self.deliver(leader, &entry, identity, &claim, stop).await? {
                    return Ok(());
                }
            }
            self.report(leader, &name, &claimed.id, &done).await?;
        }
        Ok(())
    }

    async fn dispatch(
        &mut self,
        leader: &mut Leader,
        tick: &Tick,
        stop: &CancellationToken,
    ) -> Result<(), Over> {
        let name = tick.entry.name.clone();
        let id = TaskId::from(Uuid::new_v4());
        let claimed = Claimed { id: id.clone(), due: LastRun::unix(tick.due), entry: tick.entry.written() };
        let shown = Some(tick.entry.shown());
        let claim = Record { last: tick.then, claimed: Some(claimed), shown: shown.clone() };
        let identity = Identity { id: id.clone(), due: tick.due, again: false };
        if self.deliver(leader, &tick.entry, identity, &claim, stop).await? {
            leader.plan.sent(tick);
            self.report(leader, &name, &id, &Record { last: tick.then, claimed: None, shown }).await?;
        }
        Ok(())
    }

    /// Claims a tick and sends it, until the broker has taken or refused it. False if `stop` came first: if it was claimed,
    /// the next leader sends it. Whoever finds no broker for as long as a lease lasts leads no more: another may find one.
    async fn deliver(
        &mut self,
        leader: &mut Leader,
        entry: &Entry,
        mut identity: Identity,
        claim: &Record,
        stop: &CancellationToken,
    ) -> Result<bool, Over> {
        let begin = self.now();
        loop {
            // The connection first, then the claim: whoever is frozen in between finds the connection closed.
            if let Ok(pinned) = self.celery.pinned() {
                self.write(leader, &entry.name, claim).await?;
                match send(&pinned, entry, &identity).await {
                    Sent::Confirmed | Sent::Refused => {
                        self.unreported.insert(identity.id);
                        return Ok(true);
                    }
                    Sent::Failed => identity.again = true,
                }
            } else if !self.fenced.hold(self.hold()).await? {
                return Err(Over::Lost);
            }
            // A clock that was put back only makes it wait for longer.
            if self.now().duration_since(begin).unwrap_or_default() >= self.lease {
                let ours = self.fenced.hold(self.hold()).await?;
                return Err(if ours { Over::NoBroker } else { Over::Lost });
            }
            if self.pause(RETRY, stop).await {
                return Ok(false);
            }
        }
    }

    async fn report(
        &mut self,
        leader: &mut Leader,
        name: &str,
        id: &TaskId,
        done: &Record,
    ) -> Result<(), Over> {
        self.write(leader, name, done).await?;
        self.unreported.remove(id);
        Ok(())
    }

    /// Writes a record, if the lease is still ours and nobody else has written it.
    async fn write(&self, leader: &mut Leader, name: &str, record: &Record) -> Result<(), Over> {
        let Ok(bytes) = serde_json::to_vec(record) else { return Err(Over::Lost) };
        let expected = leader.records.get(name).map(Vec::as_slice);
        match self.fenced.replace(self.hold(), name, expected, Some(&bytes)).await? {
            Change::Made => {
                leader.records.insert(name.to_owned(), bytes);
                Ok(())
            }
            Change::NotHolder | Change::Differs => Err(Over::Lost),
        }
    }
}

fn read(name: &str, bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(%error, "beat: what is remembered of {name} cannot be read; it counts as new"))
        .ok()
}

fn entry_of(name: &str, written: &Value) -> Option<Entry> {
    entry::read(&Map::from_iter([(name.to_owned(), written.clone())])).ok()?.pop()
}

/// The schedule with the edits: an edited entry takes the place of that of the same name; one that cannot be read is left out
/// and told of.
fn merged(own: &[Entry], edited: &Records) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        own.iter().filter(|entry| !edited.contains_key(&entry.name)).cloned().collect();
    for (name, bytes) in edited {
        let written = serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
        let read = written.and_then(|written| {
            entry::read(&Map::from_iter([(name.clone(), written)])).map_err(|error| error.to_string())
        });
        match read {
            Ok(read) => entries.extend(read),
            Err(error) => tracing::error!("beat: the edited entry {name} is left out: {error}"),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use celery_broker::Outbox;
    use celery_broker::clock::Clock;
    use celery_broker::fenced::MemoryFenced;
    use celery_protocol::{Limits, Message};
    use serde_json::json;

    use super::*;
    use crate::beat::{Beat, BeatError};

    const LEASE: Duration = Duration::from_secs(40);
    const DUE: &str = "celery_beat_due";

    /// Time that stands still until the test moves it: seconds since its begin, and when somebody wants to go on.
    #[derive(Clone, Default)]
    struct Hands(Arc<Mutex<(Duration, BTreeSet<Duration>)>>);

    impl Hands {
        fn clock(&self) -> Clock {
            let hands = self.clone();
            Clock::from_fn(move || {
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + hands.0.lock().unwrap().0
            })
        }

        fn sleep(&self) -> Sleep {
            let hands = self.clone();
            Box::new(move |pause| {
                let until = hands.0.lock().unwrap().0 + pause;
                let hands = hands.clone();
                Box::pin(poll_fn(move |_| {
                    let (now, wanted) = &mut *hands.0.lock().unwrap();
                    if *now >= until {
                        return Poll::Ready(());
                    }
                    wanted.insert(until);
                    Poll::Pending
                }))
            })
        }
    }

    /// Beats on one schedule, of which some may be frozen.
    struct World {
        hands: Hands,
        celery: Celery,
        outbox: Outbox,
        fenced: MemoryFenced,
    }

    type Running = BoxFuture<'static, ()>;

    impl World {
        fn new() -> World {
            let hands = Hands::default();
            let (celery, outbox) = Celery::builder("test").clock(hands.clock()).offline().unwrap();
            let fenced = MemoryFenced::with_clock(hands.clock());
            World { hands, celery, outbox, fenced }
        }

        fn beat(&self) -> (Running, CancellationToken) {
            self.beat_of(&self.celery)
        }

        /// A beat whose messages go this way.
        fn beat_of(&self, celery: &Celery) -> (Running, CancellationToken) {
            let table = json!({"second": {"task": "t.second", "schedule": 1}});
            let own = entry::read(table.as_object().unwrap()).unwrap();
            let (fenced, name) = (Arc::new(self.fenced.clone()), "s".to_owned());
            let mut shared = Shared::new(celery, fenced, name, LEASE, own, Zone::utc());
            shared.sleep = self.hands.sleep();
            let stop = CancellationToken::new();
            let stopped = stop.clone();
            (Box::pin(async move { shared.run(&stopped).await }), stop)
        }

        /// Lets time pass for these beats; all others are frozen.
        fn pass(&self, seconds: u64, beats: &mut [&mut Running]) {
            let end = self.hands.0.lock().unwrap().0 + Duration::from_secs(seconds);
            loop {
                self.hands.0.lock().unwrap().1.clear();
                for beat in &mut *beats {
                    let _ = beat.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                let (now, wanted) = &mut *self.hands.0.lock().unwrap();
                match wanted.first() {
                    Some(next) if *next <= end => *now = *next,
                    _ => {
                        *now = end;
                        return;
                    }
                }
            }
        }

        /// Task and due time of each message.
        fn sent(&self) -> Vec<(String, String)> {
            let decode = |(_, raw)| Message::decode(raw, &Limits::DEFAULT).unwrap();
            let messages = self.outbox.take().into_iter().map(decode);
            let tick = |message: Message| {
                let due = message.headers.extra[DUE].as_str().unwrap().to_owned();
                (message.headers.task.to_string(), due)
            };
            messages.map(tick).collect()
        }

        fn tasks(&self) -> BTreeSet<String> {
            self.sent().into_iter().map(|(task, _)| task).collect()
        }
    }

    /// Each tick once, and `expected` of them.
    fn assert_ticks(sent: &[(String, String)], expected: usize) {
        assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "a tick was sent twice: {sent:?}");
        assert_eq!(sent.len(), expected);
    }

    #[tokio::test]
    async fn a_beat_takes_over_from_one_that_stops() {
        let world = World::new();
        let ((mut one, stop), (mut two, _)) = (world.beat(), world.beat());
        world.pass(100, &mut [&mut one, &mut two]);
        assert_ticks(&world.sent(), 100);
        stop.cancel();
        let _ = one.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        world.pass(100, &mut [&mut two]);
        // What was due until the other one looked at the lease is made up for.
        assert_ticks(&world.sent(), 100);
    }

    #[tokio::test]
    async fn a_beat_that_is_killed_loses_no_tick() {
        let world = World::new();
        let ((mut one, _), (mut two, _)) = (world.beat(), world.beat());
        world.pass(100, &mut [&mut one, &mut two]);
        drop(one);
        world.pass(200, &mut [&mut two]);
        assert_ticks(&world.sent(), 300);
    }

    #[tokio::test]
    async fn a_leader_without_a_broker_lets_another_lead() {
        let world = World::new();
        // Nobody answers there.
        let away =
            Celery::builder("test").broker("amqp://127.0.0.1:1").clock(world.hands.clock()).start().unwrap();
        let ((mut one, _), (mut two, _)) = (world.beat_of(&away), world.beat());
        world.pass(5, &mut [&mut one]);
        world.pass(200, &mut [&mut one, &mut two]);
        let sent = world.sent();
        // One lease, and then what was due meanwhile, too.
        assert_ticks(&sent, 205);
        away.close().await;
    }

    #[tokio::test]
    async fn a_beat_that_is_frozen_and_thawed_sends_nothing_twice() {
        let world = World::new();
        let ((mut one, _), (mut two, _)) = (world.beat(), world.beat());
        world.pass(10, &mut [&mut one, &mut two]);
        world.pass(200, &mut [&mut two]);
        world.pass(100, &mut [&mut one, &mut two]);
        // And the other way round.
        world.pass(200, &mut [&mut one]);
        world.pass(100, &mut [&mut one, &mut two]);
        assert_ticks(&world.sent(), 610);
    }

    #[tokio::test]
    async fn what_was_claimed_and_not_reported_is_sent_under_the_same_id() {
        let world = World::new();
        let hold = Hold { name: "s", token: "lost", ttl: LEASE };
        assert!(world.fenced.hold(hold).await.unwrap());
        let now = world.celery.clock().now();
        let claimed = Claimed {
            id: TaskId::parse("claimed").unwrap(),
            due: LastRun::unix(now),
            entry: json!({"task": "t.second", "schedule": 1, "args": [7]}),
        };
        let record = Record { last: LastRun::first_seen(now), claimed: Some(claimed), shown: None };
        let bytes = serde_json::to_vec(&record).unwrap();
        let change = world.fenced.replace(hold, "second", None, Some(&bytes)).await.unwrap();
        assert_eq!(change, Change::Made);
        let (mut one, _) = world.beat();
        world.pass(45, &mut [&mut one]);
        let first = Message::decode(world.outbox.take().remove(0).1, &Limits::DEFAULT).unwrap();
        assert_eq!(first.headers.id.as_str(), "claimed");
        assert_eq!(first.headers.extra["celery_beat_again"], true);
        assert_eq!(first.body(&Limits::DEFAULT).unwrap().args.to_raw().get(), "[7]");
        let record = read("second", &world.fenced.records("s").await.unwrap()["second"]).unwrap();
        assert_eq!((record.claimed, record.shown), (None, Some(json!({"task": "t.second", "schedule": 1}))));
    }

    #[tokio::test]
    async fn a_schedule_is_edited_while_it_runs() {
        let world = World::new();
        let (mut one, _) = world.beat();
        let edit =
            async |name: &str, entry: Option<&[u8]>| world.fenced.edit("s", name, entry).await.unwrap();
        world.pass(5, &mut [&mut one]);
        assert_eq!(world.tasks(), BTreeSet::from(["t.second".to_owned()]));
        edit("second", Some(br#"{"task": "t", "schedule": 1, "enabled": false}"#)).await;
        edit("new", Some(br#"{"task": "t.new", "schedule": "2s"}"#)).await;
        edit("bad", Some(b"{")).await;
        world.pass(11, &mut [&mut one]);
        world.tasks();
        world.pass(5, &mut [&mut one]);
        assert_eq!(world.tasks(), BTreeSet::from(["t.new".to_owned()]));
        edit("second", None).await;
        world.pass(11, &mut [&mut one]);
        assert_eq!(world.tasks().len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_shared_safely_is_refused() {
        let (celery, _) = Celery::builder("test").offline().unwrap();
        let short = Duration::from_secs(39);
        let short = Beat::new(celery.clone()).shared("s", short).run(CancellationToken::new());
        assert!(short.await.unwrap_err().to_string().contains("at least 4 times broker_heartbeat"));
        let call = || celery_protocol::Sig::<()>::new("t");
        let entry = || Entry::every("e", Duration::from_secs(1), call()).unwrap();
        let twice = Beat::new(celery).entry(entry()).entry(entry()).run(CancellationToken::new());
        assert!(matches!(twice.await.unwrap_err(), BeatError::Duplicate(name) if name == "e"));
    }
}
