//! A worker's child process: the same program, which finds that it is one when its worker is to run.
//!
//! It consumes nothing. It takes one call after the other from the socket that is its standard input, runs it, does all
//! that follows from it (results, follow-ups, events), and says what becomes of the message, which is its parent's. When
//! the parent is gone, so is the child.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use celery_protocol::{Limits, Message, QueueName, TimeLimits};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::frame::{Ending, Run, ToChild, ToWorker, Wire};
use crate::context::{DeliveryInfo, Interrupt, Request};
use crate::pool::Job;
use crate::trace::settle::Disposition;
use crate::trace::{Finished, Ticket, settler};
use crate::worker::engine::{Engine, Lines};
use crate::worker::running::TaskRuntime;
use crate::worker::supervisor::Supervisor;
use crate::worker::{Stopped, Worker, WorkerError};

/// How long the broker may take to get the events of a call.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// Runs what the parent sends, until it is gone.
pub(crate) async fn run(worker: Worker) -> Result<Stopped, WorkerError> {
    // A terminal's Ctrl-C reaches the whole group: the parent decides what it means.
    let ignore = |kind| signal(kind).map_err(WorkerError::Signals);
    let _ignored = [
        ignore(SignalKind::interrupt())?,
        ignore(SignalKind::terminate())?,
        ignore(SignalKind::quit())?,
        ignore(SignalKind::hangup())?,
    ];
    let own = std::io::stdin().as_fd().try_clone_to_owned().map_err(WorkerError::Runtime)?;
    let mut wire = Wire::new(UnixStream::from(own)).map_err(WorkerError::Runtime)?;
    let Worker { celery, tasks, settings, nodename, handle, .. } = worker;
    let runtime = TaskRuntime::new(1, 1).map_err(WorkerError::Runtime)?;
    // Nobody asks for the intake or for lanes here.
    let (orders, _orders) = mpsc::channel(1);
    let (grow, _grow) = mpsc::channel(1);
    let lines = Lines { orders, grow, shutdown: handle.warm.clone() };
    let engine = Arc::new(Engine::new(celery, &tasks, settings, nodename, lines));
    let mut lanes = Supervisor::new(handle.warm.clone());
    let ready = wire.send(&ToWorker::Ready, &[]).await;
    ready.map_err(WorkerError::Runtime)?;
    loop {
        let (mut run, body) = match wire.recv::<ToChild>().await {
            Ok(Some((ToChild::Run(run), body))) => (run, body),
            // Its call has ended meanwhile.
            Ok(Some((ToChild::End { .. }, _))) => continue,
            Ok(None) | Err(_) => return Ok(Stopped::Clean),
        };
        engine.switch_events(run.events);
        let Some(job) = job(&engine, &mut run, body) else {
            tell(&mut wire, Disposition::Discard).await?;
            continue;
        };
        let ((done, mut ended), (over, mut run_over)) = (oneshot::channel(), oneshot::channel());
        let (own, call) = (engine.clone(), job.clone());
        lanes.spawn_finite(&runtime.handle(), "job", async move {
            let _ = done.send(carry_out(&own, &call, over).await);
        });
        let mut running = true;
        let disposition = loop {
            tokio::select! {
                disposition = &mut ended => match disposition {
                    Ok(disposition) => break disposition,
                    Err(_) => {
                        let ended = lanes.failed().await.to_string();
                        return Err(WorkerError::Service(ended));
                    }
                },
                _ = &mut run_over, if running => {
                    running = false;
                    wire.send(&ToWorker::Ended, &[]).await.map_err(WorkerError::Runtime)?;
                }
                frame = wire.recv::<ToChild>() => match frame {
                    Ok(Some((ToChild::End { terminated: true }, _))) => job.interrupts.raise(Interrupt::Terminated),
                    Ok(Some((ToChild::End { terminated: false }, _))) => job.interrupts.raise(Interrupt::Shutdown),
                    Ok(Some((ToChild::Run(_), _))) => tracing::error!("a second call at the same time; this is a bug"),
                    Ok(None) | Err(_) => return Ok(Stopped::CutOff),
                },
            }
        };
        tell(&mut wire, disposition).await?;
    }
}

async fn tell(wire: &mut Wire, disposition: Disposition) -> Result<(), WorkerError> {
    let done = ToWorker::Done { disposition: Ending::from(disposition) };
    wire.send(&done, &[]).await.map_err(WorkerError::Runtime)
}

/// The call as a job that has no message to settle. The parent has read the message before: it can be read.
fn job(engine: &Engine, run: &mut Run, body: Bytes) -> Option<Arc<Job>> {
    let limits = Limits { accept: engine.settings.accept, ..Limits::DEFAULT };
    let message = Message::decode(run.message(body), &limits).ok()?;
    let entry = engine.catalog.get(&message.headers.task)?.clone();
    let body = message.body(&limits).ok()?;
    let delivery = DeliveryInfo {
        exchange: std::mem::take(&mut run.exchange),
        routing_key: std::mem::take(&mut run.routing_key),
        priority: message.properties.priority,
        redelivered: run.redelivered,
        queue: QueueName::parse(std::mem::take(&mut run.queue)).ok()?,
    };
    let called = engine.celery.backend().called(&message.headers.id, &message.properties);
    let request = Request::new(message, body, delivery, engine.nodename.clone());
    let mut job = Job::without_message(Arc::new(request), entry, called);
    job.limits = TimeLimits { soft: run.soft, hard: run.hard };
    Some(Arc::new(job))
}

/// Runs the job, says when it is `over`, and does all that follows but settling its message.
async fn carry_out(engine: &Arc<Engine>, job: &Arc<Job>, over: oneshot::Sender<()>) -> Disposition {
    let settlement = engine.execute_job(job).await;
    let _ = over.send(());
    let (ticket, disposition) = oneshot::channel();
    let finished = Finished { ticket: Ticket::Elsewhere(job.clone(), ticket), settlement };
    settler::settle_one(engine, finished).await;
    if engine.wants_events() {
        let _ = tokio::time::timeout(FLUSH_DEADLINE, engine.emitter.flush()).await;
    }
    disposition.await.unwrap_or(Disposition::Requeue)
}
