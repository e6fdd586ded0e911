//! The services of a worker, and the order in which they start and stop.
//!
//! intake (messages to jobs) → lanes (jobs to settlements) → settler (settlements to broker and store), and beside them
//! heartbeat and remote control. They stop in the order of the flow, each when nothing can come from the one before;
//! heartbeats go on until the last ack.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use celery_broker::{BrokerError, ConsumeOptions, Consumer};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Lines, Runner};
use super::supervisor::{ServiceEnded, Supervisor};
use super::{Stopped, Worker, WorkerError, WorkerHandle};
use crate::consumer::Intake;
use crate::consumer::prefetch::Prefetch;
use crate::context::Interrupt;
use crate::pool::{autoscale, crashes, leases};
use crate::trace::{overdue, settler};
use crate::{control, heartbeat};

/// Batches of ended tasks that may wait for the settler.
const FINISHED: usize = 64;
/// Orders that may wait for the intake.
const ORDERS: usize = 64;
/// How long the intake may take to give back what has not started.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(5);
/// How long tasks that listen may take to end once they are cut off.
const CUT_OFF: Duration = Duration::from_secs(1);
/// How long the broker may take to be told the last acks and events.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
/// How long the last services may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Blocking tasks of this many more than the slots may hold a thread after they were given up.
const ABANDONED_THREADS: usize = 256;

/// A worker whose services run.
pub(super) struct Running {
    engine: Arc<Engine>,
    handle: WorkerHandle,
    /// Intake and settler.
    flow: Supervisor,
    lanes: Supervisor,
    /// Heartbeat and remote control.
    side: Supervisor,
    tasks: TaskRuntime,
    runner: Arc<Runner>,
    grow: mpsc::Receiver<usize>,
    stop_intake: CancellationToken,
    stop_side: CancellationToken,
    intake: oneshot::Receiver<(Consumer, Option<BrokerError>)>,
}

impl Running {
    /// Starts all services.
    pub(super) fn start(worker: Worker) -> Result<Running, WorkerError> {
        let Worker { celery, tasks, settings, queues, nodename, handle } = worker;
        let runtime =
            TaskRuntime::new(settings.threads(), settings.most_slots()).map_err(WorkerError::Runtime)?;
        let prefetch = Prefetch::new(settings.prefetch_multiplier, settings.most_slots(), settings.eta_limit);
        let options = ConsumeOptions::new(queues.clone()).prefetch(prefetch.target());
        let consumer = celery.consume(options).map_err(WorkerError::Broker)?;
        let (orders, order_receiver) = mpsc::channel(ORDERS);
        let (grow_sender, grow) = mpsc::channel(1);
        let (finished, finished_receiver) = mpsc::channel(FINISHED);
        let lines = Lines { orders, grow: grow_sender, shutdown: handle.warm.clone() };
        let engine = Arc::new(Engine::new(celery, &tasks, settings, nodename, lines));
        let (stop_intake, stop_side) = (CancellationToken::new(), CancellationToken::new());

        let mut flow = Supervisor::new(stop_intake.clone());
        let (intake_ended, intake) = oneshot::channel();
        let service = Intake::new(engine.clone(), consumer, queues, prefetch, finished.clone());
        let stop = stop_intake.clone();
        flow.spawn("intake", async move {
            let _ = intake_ended.send(service.run(order_receiver, stop).await);
        });
        flow.spawn("settler", settler::run(engine.clone(), finished_receiver));

        let mut side = Supervisor::new(stop_side.clone());
        if let Some(every) = engine.settings.heartbeat {
            side.spawn("heartbeat", heartbeat::run(engine.clone(), every, stop_side.clone()));
        }
        if engine.settings.autoscale.is_some() {
            side.spawn("autoscale", autoscale::run(engine.clone(), stop_side.clone()));
        }
        side.spawn("leases", leases::run(engine.clone(), stop_side.clone()));
        side.spawn("revocations", control::revocations::run(engine.clone(), stop_side.clone()));
        if engine.settings.remote_control {
            let node = engine.celery.control_node(&engine.nodename);
            side.spawn("remote control", control::run(engine.clone(), node, stop_side.clone()));
            if engine.settings.mingle {
                side.spawn("mingle", control::mingle::run(engine.clone(), stop_side.clone()));
            }
        }

        if let (Some(patience), Some(watch)) =
            (engine.celery.chord_deadline(), engine.celery.backend().chord_watch())
        {
            side.spawn("chord watch", overdue::run(engine.clone(), watch, patience, stop_side.clone()));
        }

        let runner = Arc::new(Runner { engine: engine.clone(), finished });
        let lanes = Supervisor::new(stop_intake.clone());
        let mut running = Running {
            engine,
            handle,
            flow,
            lanes,
            side,
            tasks: runtime,
            runner,
            grow,
            stop_intake,
            stop_side,
            intake,
        };
        if running.engine.processes.is_some() {
            let (engine, runtime) = (running.engine.clone(), running.tasks.handle());
            running.lanes.spawn_finite(&runtime, "children", async move {
                if let Some(processes) = &engine.processes {
                    processes.warm_up(engine.settings.first_slots()).await;
                }
            });
        }
        running.add_lanes(running.engine.settings.first_slots());
        Ok(running)
    }

    fn add_lanes(&mut self, count: usize) {
        for _ in 0..count {
            let lane = self.engine.pool.add_lane();
            let (engine, runner) = (self.engine.clone(), self.runner.clone());
            let life = async move { engine.pool.run_lane(lane, &*runner).await };
            self.lanes.spawn_finite(&self.tasks.handle(), "lane", life);
        }
    }

    /// Runs until told to stop or until a service ends, then stops in order.
    pub(super) async fn run(mut self) -> Result<Stopped, WorkerError> {
        let warm = self.handle.warm.clone();
        let failed = loop {
            tokio::select! {
                () = warm.cancelled() => break None,
                ended = self.flow.failed() => break Some(ended),
                ended = self.lanes.failed() => break Some(ended),
                ended = self.side.failed() => break Some(ended),
                Some(count) = self.grow.recv() => self.add_lanes(count),
            }
        };
        self.stop(failed).await
    }

    async fn stop(mut self, failed: Option<ServiceEnded>) -> Result<Stopped, WorkerError> {
        match &failed {
            Some(ended) => tracing::error!(%ended, "the worker stops because one of its services has ended"),
            None => {
                tracing::info!("warm shutdown: running tasks are finished, all others go back to the broker")
            }
        }
        self.stop_intake.cancel();
        let (consumer, broker_error) = match tokio::time::timeout(GIVE_BACK_DEADLINE, &mut self.intake).await
        {
            Ok(Ok((consumer, error))) => (Some(consumer), error),
            _ => (None, None),
        };
        self.engine.pool.close();
        let mut clean = self.finish_running().await;

        if self.engine.processes.is_some() {
            let (engine, runtime) = (self.engine.clone(), self.tasks.handle());
            self.lanes.spawn_finite(&runtime, "children", async move {
                if let Some(processes) = &engine.processes {
                    processes.close().await;
                }
            });
            self.lanes.end_within(STOP_DEADLINE).await;
        }
        // The lanes are gone and the intake is: with the last sender the settler ends when it has settled everything.
        drop(self.runner);
        let patience = self.engine.settings.store_patience + FLUSH_DEADLINE;
        clean &= tokio::select! {
            good = self.flow.end_within(patience) => good,
            () = cold(&self.handle, self.engine.settings.soft_shutdown_timeout) => false,
        };
        if let Some(consumer) = consumer {
            if tokio::time::timeout(FLUSH_DEADLINE, consumer.flush()).await.is_err() {
                tracing::warn!("the broker was not told the last acks in time");
                clean = false;
            }
            let _ = tokio::time::timeout(FLUSH_DEADLINE, consumer.close()).await;
        }

        self.stop_side.cancel();
        self.side.end_within(STOP_DEADLINE).await;
        if let Some(every) = self.engine.settings.heartbeat {
            heartbeat::offline(&self.engine, every);
        }
        let _ = tokio::time::timeout(FLUSH_DEADLINE, self.engine.emitter.flush()).await;
        match (broker_error, failed) {
            (Some(error), _) => Err(WorkerError::Broker(error)),
            (None, Some(ended)) => Err(WorkerError::Service(ended.to_string())),
            (None, None) if clean => Ok(Stopped::Clean),
            (None, None) => Ok(Stopped::CutOff),
        }
    }

    /// Waits for running tasks; those that are not finished in time are cut off. False if there were any.
    async fn finish_running(&mut self) -> bool {
        let grace = async {
            match self.engine.settings.shutdown_grace {
                Some(grace) => tokio::time::sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        let (handle, settings) = (self.handle.clone(), &self.engine.settings);
        let mut soft = pin!(async {
            handle.soft.cancelled().await;
            tokio::time::sleep(settings.soft_shutdown_timeout).await;
        });
        tokio::select! {
            good = self.lanes.ended() => {
                if handle.soft.is_cancelled() && settings.soft_shutdown_on_idle {
                    tokio::select! {
                        () = soft => {}
                        () = self.handle.cold.cancelled() => {}
                    }
                }
                return good;
            }
            () = &mut soft => tracing::warn!("cold shutdown"),
            () = grace => tracing::warn!("the grace of the shutdown is over"),
            () = self.handle.cold.cancelled() => tracing::warn!("cold shutdown"),
        }
        let running = self.engine.pool.running();
        tracing::warn!(
            count = running.len(),
            "running tasks are cut off; their messages will be delivered again"
        );
        for job in &running {
            job.interrupts.raise(Interrupt::Shutdown);
        }
        if tokio::time::timeout(CUT_OFF, self.lanes.ended()).await.is_err() {
            self.lanes.cut_off().await;
        }
        for job in &running {
            job.reject(celery_broker::Requeue::Yes);
        }
        // Cut off in good order: that is no crash.
        for job in &running {
            crashes::end(&self.engine, job).await;
            leases::end(&self.engine, job, false).await;
        }
        false
    }
}

/// Resolves when results are not waited for any more: a while after the cold shutdown began.
async fn cold(handle: &WorkerHandle, soft: Duration) {
    tokio::select! {
        () = handle.cold.cancelled() => {}
        () = handle.soft.cancelled() => tokio::time::sleep(soft).await,
    }
    tokio::time::sleep(FLUSH_DEADLINE).await;
}

/// The runtime whose threads run the tasks. It is never waited for: a blocking task that does not end must not keep
/// the process from ending.
pub(crate) struct TaskRuntime(Option<Runtime>);

impl TaskRuntime {
    pub(crate) fn new(threads: usize, concurrency: usize) -> std::io::Result<TaskRuntime> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(concurrency.saturating_mul(2).max(64) + ABANDONED_THREADS)
            .thread_name("celery-task")
            .enable_all()
            .build()?;
        Ok(TaskRuntime(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            None => Handle::current(),
        }
    }
}

impl Drop for TaskRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
