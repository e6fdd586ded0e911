//! A channel in confirm mode with a bounded number of messages in flight.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::connection::{Link, Session, State, within};
use super::inflight::InFlight;
use super::publisher::{Answer, Job, identity};
use super::returns::{Confirmed, Returns, Seq, Verdict};
use crate::error::{BrokerError, BrokerErrorKind};

/// Messages in flight on one lane. Beyond this RabbitMQ gains nothing, and after a lost channel all of them are unknown.
const WINDOW: usize = 1024;
/// For opening the channel.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// At the end, what is in flight may still be confirmed for this long.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// Pause after a channel could not be opened.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Lane {
    /// In metrics.
    name: &'static str,
    link: Link,
    jobs: mpsc::Receiver<Job>,
}

/// How a channel ended.
enum End {
    /// The next one is needed.
    Lost,
    /// The handle is being closed.
    Stop,
}

/// What lapin said about one publish.
type Outcome = (Seq, lapin::Result<Confirmation>);

impl Lane {
    pub(super) fn new(name: &'static str, link: Link, jobs: mpsc::Receiver<Job>) -> Self {
        Self { name, link, jobs }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut state = self.link.watch();
        loop {
            let session = match &*state.borrow_and_update() {
                State::Up(session) => Some(session.clone()),
                State::Down(_) => None,
                State::Closed => break,
            };
            let end = match session {
                Some(session) => self.hold(&session, &mut state, &stop).await,
                None => {
                    tokio::select! {
                        () = stop.cancelled() => End::Stop,
                        changed = state.changed() => if changed.is_ok() { End::Lost } else { End::Stop },
                    }
                }
            };
            if matches!(end, End::Stop) {
                break;
            }
        }
        // Those who wait are told that their messages were not sent.
        self.jobs.close();
    }

    async fn hold(
        &mut self,
        session: &Session,
        state: &mut watch::Receiver<State>,
        stop: &CancellationToken,
    ) -> End {
        let channel = match open(session).await {
            Ok(channel) => Arc::new(channel),
            Err(err) => {
                tracing::warn!("cannot open a channel for publishing: {err}");
                tokio::select! {
                    () = stop.cancelled() => return End::Stop,
                    () = tokio::time::sleep(REOPEN_PAUSE) => return End::Lost,
                }
            }
        };
        let mut flight = Flight::default();
        let send = |seq, message| send(Arc::clone(&channel), seq, message);
        let mut inflight = InFlight::new();
        let mut done = Vec::new();
        let mut blocked = session.blocked;
        let gauge = metrics::gauge!("celery_broker_publishes_in_flight", "lane" => self.name);
        loop {
            let room = !blocked && flight.load() < WINDOW;
            tokio::select! {
                biased;
                () = poll_fn(|cx| inflight.poll_ready(cx, &mut done)), if inflight.len() > 0 => {}
                job = self.jobs.recv(), if room => {
                    let Some(job) = job else { return End::Stop };
                    flight.queue(job, session.generation);
                    launch(&mut flight, &mut inflight, &mut done, send);
                    while flight.load() < WINDOW {
                        let Ok(job) = self.jobs.try_recv() else { break };
                        flight.queue(job, session.generation);
                        launch(&mut flight, &mut inflight, &mut done, send);
                    }
                }
                changed = state.changed() => {
                    match &*state.borrow_and_update() {
                        State::Up(now) if changed.is_ok() && now.generation == session.generation => {
                            blocked = now.blocked;
                        }
                        // What is in flight fails by itself, with a better reason; see `lost` below.
                        _ => {
                            flight.lose(&BrokerErrorKind::ConnectionLost);
                            return End::Lost;
                        }
                    }
                }
                () = stop.cancelled() => {
                    drain(&mut flight, &mut inflight, &mut done).await;
                    flight.lose(&BrokerErrorKind::Closed);
                    let _ = tokio::time::timeout(REOPEN_PAUSE, channel.close(200, "OK".into())).await;
                    return End::Stop;
                }
            }
            if let Some(kind) = flight.settle(&mut done) {
                flight.lose(&kind);
                metrics::counter!("celery_broker_publish_channels_lost_total").increment(1);
                return End::Lost;
            }
            launch(&mut flight, &mut inflight, &mut done, send);
            gauge.set(small(inflight.len()));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most WINDOW")]
fn small(count: usize) -> f64 {
    count as f64
}

async fn open(session: &Session) -> Result<lapin::Channel, BrokerError> {
    let channel = session.channel(OPEN_DEADLINE).await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    within(OPEN_DEADLINE, "confirm.select", select).await?;
    Ok(channel)
}

/// Hands everything that may be sent to lapin.
fn launch<F: Future<Output = Outcome>>(
    flight: &mut Flight,
    inflight: &mut InFlight<F>,
    done: &mut Vec<Outcome>,
    send: impl Fn(Seq, Message) -> F,
) {
    while let Some((seq, message)) = flight.next() {
        inflight.push(send(seq, message), done);
    }
}

/// The first poll puts the frames into the connection's queue, so messages go out in the order of the calls.
async fn send(channel: Arc<lapin::Channel>, seq: Seq, message: Message) -> Outcome {
    let Message { exchange, routing_key, mandatory, properties, body } = message;
    let options = BasicPublishOptions { mandatory, immediate: false };
    let published = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
    let confirmed = match published {
        Ok(confirm) => confirm.await,
        Err(err) => Err(err),
    };
    (seq, confirmed)
}

/// What of a job goes to the broker.
struct Message {
    exchange: lapin::types::ShortString,
    routing_key: lapin::types::ShortString,
    mandatory: bool,
    properties: lapin::BasicProperties,
    body: bytes::Bytes,
}

/// The messages of one channel between their callers and lapin.
#[derive(Default)]
struct Flight {
    returns: Returns,
    /// To be sent now.
    queue: VecDeque<Job>,
    /// Wait for the message of the same id that is in flight.
    parked: HashMap<String, VecDeque<Job>>,
    parked_count: usize,
    callers: HashMap<Seq, (String, oneshot::Sender<Answer>)>,
}

impl Flight {
    fn load(&self) -> usize {
        self.callers.len() + self.queue.len() + self.parked_count
    }

    fn queue(&mut self, job: Job, generation: u64) {
        if job.over.is_some_and(|only| only != generation) {
            if job.stage.send() {
                let lost = BrokerErrorKind::ConnectionLost;
                let _ = job.reply.send(Err(BrokerError::new(lost, "before it was sent")));
            }
            return;
        }
        if self.returns.contains(&job.id) || self.queue.iter().any(|queued| queued.id == job.id) {
            self.parked_count += 1;
            self.parked.entry(job.id.clone()).or_default().push_back(job);
        } else {
            self.queue.push_back(job);
        }
    }

    /// The next message to send, if its caller still waits.
    fn next(&mut self) -> Option<(Seq, Message)> {
        loop {
            let Job { id, exchange, routing_key, mandatory, properties, body, stage, reply, .. } =
                self.queue.pop_front()?;
            if !stage.send() {
                self.unpark(&id);
                continue;
            }
            let seq = self.returns.started(&id);
            self.callers.insert(seq, (id, reply));
            return Some((seq, Message { exchange, routing_key, mandatory, properties, body }));
        }
    }

    /// The id is free again.
    fn unpark(&mut self, id: &str) {
        if self.parked.is_empty() {
            return;
        }
        let Some(jobs) = self.parked.get_mut(id) else { return };
        if let Some(job) = jobs.pop_front() {
            self.parked_count -= 1;
            self.queue.push_back(job);
        }
        if jobs.is_empty() {
            self.parked.remove(id);
        }
    }

    /// Takes everything that lapin said at once and answers those whose fate is decided. `Some`: the channel is dead.
    fn settle(&mut self, done: &mut Vec<Outcome>) -> Option<BrokerErrorKind> {
        let mut batch = Vec::with_capacity(done.len());
        let mut dead = None;
        for (seq, outcome) in done.drain(..) {
            match outcome {
                Ok(Confirmation::Ack(returned)) => {
                    let returned = returned.and_then(|message| identity(&message.properties));
                    batch.push(Confirmed { seq, acked: true, returned });
                }
                Ok(Confirmation::Nack(returned)) => {
                    let returned = returned.and_then(|message| identity(&message.properties));
                    batch.push(Confirmed { seq, acked: false, returned });
                }
                // Only without confirm mode, which the channel is in.
                Ok(Confirmation::NotRequested) => {}
                Err(err) => {
                    let kind = super::fault::on_channel(err, "publish").kind().clone();
                    let kind = match kind {
                        BrokerErrorKind::ConnectionLost => kind,
                        _ => BrokerErrorKind::ChannelClosed,
                    };
                    dead = Some(kind);
                }
            }
        }
        for (seq, verdict) in self.returns.completed(&batch) {
            let Some((id, reply)) = self.callers.remove(&seq) else { continue };
            let answer = match verdict {
                Verdict::Accepted => Ok(()),
                Verdict::Unroutable => Err(BrokerError::new(BrokerErrorKind::Unroutable, "")),
                Verdict::Refused => {
                    Err(BrokerError::new(BrokerErrorKind::NotConfirmed, "a queue may be full"))
                }
            };
            // A caller that gave up has been told that the fate is unknown.
            let _ = reply.send(answer);
            self.unpark(&id);
        }
        dead
    }

    /// The channel is gone: the fate of what was sent is unknown, the rest was not sent.
    fn lose(&mut self, kind: &BrokerErrorKind) {
        for (_, (_, reply)) in self.callers.drain() {
            let _ = reply.send(Err(BrokerError::new(kind.clone(), "").unknown()));
        }
        let parked = self.parked.drain().flat_map(|(_, jobs)| jobs);
        for job in self.queue.drain(..).chain(parked) {
            if job.stage.send() {
                let _ = job.reply.send(Err(BrokerError::new(kind.clone(), "before it was sent")));
            }
        }
        self.parked_count = 0;
    }
}

/// At the end: gives what is in flight a moment to be confirmed.
async fn drain<F: Future<Output = Outcome>>(
    flight: &mut Flight,
    inflight: &mut InFlight<F>,
    done: &mut Vec<Outcome>,
) {
    let end = tokio::time::Instant::now() + DRAIN_DEADLINE;
    while inflight.len() > 0 {
        let ready = poll_fn(|cx| inflight.poll_ready(cx, done));
        if tokio::time::timeout_at(end, ready).await.is_err() || flight.settle(done).is_some() {
            return;
        }
    }
}
