//! The intake: from delivered messages to jobs that may run now.
//!
//! One task owns everything in here: the consumer, what is held for its time, the rate limits, the prefetch. Others
//! send it an [`Order`]. What to do with a call is decided in [`admit`], what to tell about one that is refused in
//! [`crate::trace::settle`].

pub(crate) mod admit;
pub(crate) mod cluster_limit;
mod decode;
pub(crate) mod eta;
mod look_up;
mod order;
pub(crate) mod prefetch;
pub(crate) mod rate_limit;
pub(crate) mod revoked;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celery_broker::{BrokerError, Consumer, ConsumerEvent, Delivery, QueueSpec, Requeue};
use celery_protocol::{RawMessage, TaskName};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use admit::{Revocation, Verdict};
use cluster_limit::ClusterLimit;
use decode::Arrival;
use eta::Heap;
use look_up::LookedUp;
pub(crate) use order::{HeldJob, Order};
use prefetch::Prefetch;
use rate_limit::Limiter;

use crate::beat;
use crate::context::Interrupt;
use crate::pool::Job;
use crate::trace::settle;
use crate::trace::{Finished, Ticket, events, log};
use crate::worker::engine::Engine;

/// The most events taken from the consumer at once.
const BATCH: usize = 256;
/// How often the prefetch is reconsidered.
const TICK: Duration = Duration::from_millis(500);
/// How long the broker may take to end the subscriptions at shutdown.
const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// How long the booking of a start may take before the limit holds in this worker alone.
const BOOKING_DEADLINE: Duration = Duration::from_secs(3);
/// Far-off messages on their way back to the broker at the same time.
const MAX_FAR: usize = 256;
/// When a far-off message is tried again that found no room among those.
const FAR_AGAIN: Duration = Duration::from_secs(1);
/// When a far-off message is tried again that the broker did not take. It must not wait here until it is due: a broker gives
/// up consumers that keep messages for too long.
const FAR_REFUSED: Duration = Duration::from_secs(30);
/// Held messages beyond this are given back; the prefetch normally keeps their number far below.
const MAX_HELD: usize = 65_535;

/// The intake.
pub(crate) struct Intake {
    engine: Arc<Engine>,
    consumer: Consumer,
    queues: Vec<QueueSpec>,
    finished: mpsc::Sender<Vec<Finished>>,
    held: Heap<Held>,
    limiters: HashMap<TaskName, Limiter>,
    /// Limits over all workers, as remote control has left them.
    paces: HashMap<TaskName, ClusterLimit>,
    prefetch: Prefetch,
    /// What was last asked of the broker.
    asked: u16,
    connected: bool,
    /// What the statistics said when the prefetch was last reconsidered.
    seen: (u64, Duration),
    lookups: FuturesUnordered<BoxFuture<'static, LookedUp>>,
    /// Jobs on their way to the broker's delayed delivery.
    far: FuturesUnordered<BoxFuture<'static, PutOff>>,
    /// Starts that are being booked in the store.
    bookings: FuturesUnordered<BoxFuture<'static, Booked>>,
    /// In place of the store's, where it does not answer.
    fallbacks: HashMap<TaskName, Limiter>,
    /// Making sure that delayed messages find the quorum queues.
    ladders: FuturesUnordered<BoxFuture<'static, Result<(), BrokerError>>>,
    failure: Option<BrokerError>,
}

/// A job, and how long it has to wait by the store's word.
type Booked = (Arc<Job>, Option<Duration>);

/// A job that is due far off, when, and whether the broker holds it now.
type PutOff = (SystemTime, Arc<Job>, Result<(), BrokerError>);

/// A job that waits for its time.
#[derive(Debug)]
struct Held {
    job: Arc<Job>,
    wait: Wait,
}

/// What a held job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For its ETA, or for the broker to take it over.
    Time,
    /// For its turn: it has its rate limit's permission for that time.
    Turn,
    /// For its end on another worker.
    Elsewhere,
}

impl Intake {
    pub(crate) fn new(
        engine: Arc<Engine>,
        consumer: Consumer,
        queues: Vec<QueueSpec>,
        prefetch: Prefetch,
        finished: mpsc::Sender<Vec<Finished>>,
    ) -> Intake {
        let limiters = engine.catalog.sorted().into_iter().filter_map(|entry| {
            let limiter = Limiter::new(entry.rate_limit()?)?;
            Some((entry.task.name.clone(), limiter))
        });
        let limiters = limiters.collect();
        Intake {
            asked: prefetch.target(),
            paces: engine.cluster_limits.clone(),
            engine,
            consumer,
            queues,
            finished,
            held: Heap::new(MAX_HELD),
            limiters,
            prefetch,
            connected: false,
            seen: (0, Duration::ZERO),
            lookups: FuturesUnordered::new(),
            far: FuturesUnordered::new(),
            bookings: FuturesUnordered::new(),
            fallbacks: HashMap::new(),
            ladders: FuturesUnordered::new(),
            failure: None,
        }
    }

    /// Takes messages until `stop`; gives everything back that has not started, and returns the consumer, whose acks
    /// still work, with the error that ended it if it was one.
    pub(crate) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) -> (Consumer, Option<BrokerError>) {
        crate::control::revocations::load(&self.engine).await;
        let mut buffer = Vec::with_capacity(BATCH);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.failure.is_none() {
            let sleep = self.held.sleep(self.engine.now());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(order) = orders.recv() => self.obey(order).await,
                Some((job, wait)) = self.bookings.next() => self.booked(job, wait),
                Some(looked_up) = self.lookups.next() => self.looked_up(looked_up).await,
                Some(ladder) = self.ladders.next() => {
                    if let Err(error) = ladder {
                        tracing::warn!(%error, "delayed messages may not find every queue");
                    }
                }
                Some((due, job, sent)) = self.far.next() => self.far_done(due, job, sent),
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => self.release().await,
                count = self.consumer.recv_many(&mut buffer, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.take(&mut buffer).await;
                }
                _ = tick.tick() => self.adjust().await,
            }
        }
        self.give_back_all().await;
        (self.consumer, self.failure)
    }

    /// Sorts a batch of events: what may run goes to the pool in one push.
    async fn take(&mut self, buffer: &mut Vec<ConsumerEvent>) {
        let now = self.engine.now();
        let (mut ready, mut suspects, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for event in buffer.drain(..) {
            match event {
                ConsumerEvent::Delivery(delivery) => {
                    self.arrived(delivery, now, &mut ready, &mut suspects, &mut over)
                }
                ConsumerEvent::Connected { epoch } => {
                    self.connected = true;
                    tracing::info!(epoch, "consuming from {}", self.queue_names());
                    self.prepare_delayed();
                    self.engine.resync.notify_one();
                    self.engine.consuming();
                }
                ConsumerEvent::Lost { epoch, reason } => {
                    self.connected = false;
                    tracing::warn!(
                        epoch,
                        reason,
                        "the connection to the broker was lost; running tasks go on"
                    );
                    ready.retain(|job: &Arc<Job>| job.is_live());
                    self.cancel_running();
                    self.drop_stale();
                }
                ConsumerEvent::Cancelled { queue } => {
                    tracing::warn!(%queue, "the broker ended the subscription; it is being restored");
                }
                ConsumerEvent::Fatal(err) => self.failure = Some(err),
                other => tracing::debug!(?other, "unknown consumer event"),
            }
        }
        self.engine.pool.start(ready);
        self.look_up(suspects);
        self.hand_on(over).await;
    }

    fn arrived(
        &mut self,
        delivery: Delivery,
        now: SystemTime,
        ready: &mut Vec<Arc<Job>>,
        suspects: &mut Vec<Arc<Job>>,
        over: &mut Vec<Finished>,
    ) {
        let job = match decode::decode(delivery, &self.engine) {
            Arrival::Job(job) => job,
            Arrival::Refused(finished) => return over.push(finished),
        };
        self.sort(job, now, ready, suspects, over);
    }

    fn sort(
        &mut self,
        job: Arc<Job>,
        now: SystemTime,
        ready: &mut Vec<Arc<Job>>,
        suspects: &mut Vec<Arc<Job>>,
        over: &mut Vec<Finished>,
    ) {
        let again = job.request.delivery().redelivered || beat::is_sent_again(job.request.custom_headers());
        // What has begun is beyond expiry and revocation.
        let Some(job) = (if again { self.adopted(job) } else { Some(job) }) else { return };
        let suspect = again && self.may_be_known(&job);
        let verdict = self.engine.admit(&job, now);
        if let Verdict::Never(why) = verdict
            && !suspect
        {
            return over.push(self.revoked(job, why, now));
        }
        log::received(&job.request);
        self.engine.emit(job.rules, || events::received(&job.request));
        match verdict {
            Verdict::Later(due) => self.put_off(due, job, now),
            // One that was completed before is not revoked afterwards: the others are looked at again when they start.
            _ if suspect => suspects.push(job),
            _ => self.rate_limited(job, now, ready),
        }
    }

    fn revoked(&self, job: Arc<Job>, why: Revocation, now: SystemTime) -> Finished {
        log::discarding(&job.request, why);
        let settlement = settle::revoked(&job.request, job.rules, why, now, self.engine.wants(job.rules));
        Finished { ticket: Ticket::Job(job), settlement }
    }

    /// A job that runs here, or has run and is not settled yet, while its message comes again, because the connection was
    /// lost in between, is not run twice: it takes the new delivery over.
    fn adopted(&self, job: Arc<Job>) -> Option<Arc<Job>> {
        let same = |running: &Arc<Job>| {
            running.request.id() == job.request.id() && running.request.retries() == job.request.retries()
        };
        let running = self.engine.pool.running().into_iter().find(same);
        match running.or_else(|| self.engine.settling.find(same)) {
            Some(running) if running.adopt_from(&job) => {
                tracing::info!(id = %job.request.id(), "it has begun here before: the redelivered message is taken over");
                None
            }
            _ => Some(job),
        }
    }

    /// Starts a job unless its task has a rate limit that says later.
    fn rate_limited(&mut self, job: Arc<Job>, now: SystemTime, ready: &mut Vec<Arc<Job>>) {
        if let Some(limit) = self.paces.get(job.request.task()) {
            return self.book(job, limit);
        }
        match self.limiters.get_mut(job.request.task()) {
            None => ready.push(job),
            Some(limiter) => match limiter.book(now) {
                start if start <= now => ready.push(job),
                start => self.hold(start, Held { job, wait: Wait::Turn }),
            },
        }
    }

    /// Asks the store when the job may start.
    fn book(&self, job: Arc<Job>, limit: &ClusterLimit) {
        let (cluster, key, pace) = (self.engine.celery.cluster(), limit.key(&job.request), limit.pace);
        self.bookings.push(Box::pin(async move {
            let Some(cluster) = cluster else { return (job, None) };
            let wait = match tokio::time::timeout(BOOKING_DEADLINE, cluster.book(&key, pace)).await {
                Ok(Ok(wait)) => Some(wait),
                Ok(Err(err)) => {
                    tracing::warn!(%err, task = %job.request.task(), "the limit holds in this worker alone");
                    None
                }
                Err(_) => None,
            };
            (job, wait)
        }));
    }

    /// The store has said when the job may start, or it has not.
    fn booked(&mut self, job: Arc<Job>, wait: Option<Duration>) {
        if !job.is_live() {
            return;
        }
        let now = self.engine.now();
        let start = match wait {
            Some(wait) => now.checked_add(wait).unwrap_or(now),
            None => self.book_here(job.request.task(), now),
        };
        if start <= now {
            self.engine.pool.start([job]);
        } else {
            self.hold(start, Held { job, wait: Wait::Turn });
        }
    }

    fn book_here(&mut self, task: &TaskName, now: SystemTime) -> SystemTime {
        if !self.fallbacks.contains_key(task) {
            let local = self.paces.get(task).and_then(ClusterLimit::local);
            self.fallbacks.extend(local.map(|limiter| (task.clone(), limiter)));
        }
        self.fallbacks.get_mut(task).map_or(now, |limiter| limiter.book(now))
    }

    /// Holds a job until it is due, or lets the broker hold it if that is far off: a message that waits for an hour in
    /// one worker is safe from neither its crash nor the broker's patience with unacked messages.
    fn put_off(&mut self, due: SystemTime, job: Arc<Job>, now: SystemTime) {
        let delay = due.duration_since(now).unwrap_or_default();
        if delay <= self.engine.settings.eta_horizon {
            return self.hold(due, Held { job, wait: Wait::Time });
        }
        if self.far.len() >= MAX_FAR {
            return self.hold(now + FAR_AGAIN, Held { job, wait: Wait::Time });
        }
        let celery = self.engine.celery.clone();
        self.far.push(Box::pin(async move {
            let queue = job.request.delivery().queue.clone();
            let sent = celery.delay(&queue, again(&job), delay).await;
            (due, job, sent)
        }));
    }

    /// The broker has taken a far-off job over, or it has not.
    fn far_done(&mut self, due: SystemTime, job: Arc<Job>, sent: Result<(), BrokerError>) {
        match sent {
            Ok(()) => {
                tracing::debug!(id = %job.request.id(), "due far off: the broker holds it");
                job.ack();
            }
            Err(error) => {
                tracing::warn!(id = %job.request.id(), %error, "due far off, but the broker cannot hold it");
                if job.is_live() {
                    self.hold(due.min(self.engine.now() + FAR_REFUSED), Held { job, wait: Wait::Time });
                }
            }
        }
    }

    fn hold(&mut self, due: SystemTime, held: Held) {
        if let Err(held) = self.held.push(due, held) {
            tracing::warn!(id = %held.job.request.id(), "too many messages wait for their time; this one is given back");
            held.job.reject(Requeue::Yes);
        }
    }

    /// Starts what is due.
    async fn release(&mut self) {
        let now = self.engine.now();
        let (mut ready, mut suspects, mut over) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(held) = self.held.pop_due(now) {
            if held.wait == Wait::Elsewhere {
                suspects.push(held.job);
                continue;
            }
            match self.engine.admit(&held.job, now) {
                Verdict::Never(why) => over.push(self.revoked(held.job, why, now)),
                // Its turn has not come yet; perhaps the broker takes it over now.
                Verdict::Later(due) => self.put_off(due, held.job, now),
                Verdict::Run if held.wait == Wait::Turn => ready.push(held.job),
                Verdict::Run => self.rate_limited(held.job, now, &mut ready),
            }
        }
        self.engine.pool.start(ready);
        self.look_up(suspects);
        self.hand_on(over).await;
    }

    /// Python's producers delay messages for quorum queues in the broker: those must find their way here.
    fn prepare_delayed(&self) {
        for queue in self.queues.iter().filter(|queue| queue.is_quorum()) {
            let (celery, queue) = (self.engine.celery.clone(), queue.clone());
            self.ladders.push(Box::pin(async move { celery.prepare_delayed(&queue).await }));
        }
    }

    /// The connection is lost, and with it the messages of running late-ack tasks: they end, if the settings say so.
    fn cancel_running(&self) {
        if !self.engine.settings.cancel_on_connection_loss {
            return;
        }
        let lost = |job: &Arc<Job>| !job.is_settled() && !job.is_live();
        for job in self.engine.pool.running().into_iter().filter(lost) {
            tracing::warn!(id = %job.request.id(), "the connection was lost: this task is ended, its message comes again");
            job.interrupts.raise(Interrupt::Shutdown);
        }
    }

    /// Forgets what a lost channel delivered: it comes again.
    fn drop_stale(&mut self) {
        let waiting = self.engine.pool.take_back(|job| !job.is_live()).len();
        let held = self.held.take(|held| !held.job.is_live()).len();
        tracing::info!(waiting, held, "messages that had not started will be delivered again");
    }

    async fn give_back_all(&mut self) {
        if tokio::time::timeout(STOP_DEADLINE, self.consumer.stop()).await.is_err() {
            tracing::warn!("the broker did not end the subscriptions in time");
        }
        let mut buffer = Vec::new();
        // What was on its way when the subscriptions ended.
        while tokio::time::timeout(Duration::ZERO, self.consumer.recv_many(&mut buffer, BATCH))
            .await
            .is_ok_and(|n| n > 0)
        {}
        let mut count = 0;
        for event in buffer {
            if let ConsumerEvent::Delivery(delivery) = event {
                delivery.token.reject(Requeue::Yes);
                count += 1;
            }
        }
        let mut jobs = self.engine.pool.take_back(|_| true);
        jobs.extend(self.held.take(|_| true).into_iter().map(|held| held.job));
        // Each of these has a deadline of its own.
        while let Some(looked_up) = self.lookups.next().await {
            jobs.extend(looked_up.into_iter().map(|(job, _)| job));
        }
        while let Some((job, _)) = self.bookings.next().await {
            jobs.push(job);
        }
        for job in &jobs {
            job.reject(Requeue::Yes);
        }
        // What is on its way to the delayed delivery may arrive there: better twice than never.
        self.far.clear();
        count += jobs.len();
        if count > 0 {
            tracing::info!(count, "messages that had not started were given back to the broker");
        }
    }

    /// Reconsiders the prefetch.
    async fn adjust(&mut self) {
        let (ended, busy) = self.engine.stats.ended_so_far();
        self.prefetch.observe(ended - self.seen.0, busy.saturating_sub(self.seen.1));
        self.seen = (ended, busy);
        // As in Celery, the prefetch follows the most slots there may be.
        let slots = self.engine.autoscale.range().map_or(self.engine.pool.size(), |range| range.max);
        self.prefetch.set_concurrency(slots);
        self.prefetch.set_held(self.held.len());
        let target = self.prefetch.target();
        if target == self.asked || !self.connected {
            return;
        }
        match self.consumer.set_prefetch(target).await {
            Ok(()) => {
                tracing::debug!(from = self.asked, to = target, "prefetch changed");
                self.asked = target;
            }
            Err(err) => tracing::warn!(%err, target, "the prefetch could not be changed"),
        }
    }

    async fn hand_on(&mut self, over: Vec<Finished>) {
        if !over.is_empty() && self.finished.send(over).await.is_err() {
            tracing::error!("messages were refused after their results could be stored");
        }
    }

    fn queue_names(&self) -> String {
        self.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The message of a job, to be published again as it came. The property that makes the broker drop it when it expires is
/// left out: on the way through the delayed delivery it would only make it arrive early, and the header does the same.
fn again(job: &Job) -> RawMessage {
    let mut message = job.request.message().clone();
    message.properties.expiration = None;
    message.headers.extra = message.headers.extra_to_resend();
    message.into_raw()
}

#[cfg(test)]
mod tests;
