//! What every test needs: a virtual host, a database, a client, a worker with test tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celery_broker::{Celery, ConsumeOptions, ConsumerEvent, PublishOptions, QueueSpec, Requeue, Route};
use celery_protocol::message::NewCall;
use celery_protocol::options::{SendOptions, TaskOptions, resolve};
use celery_protocol::{
    Message, QueueName, RawArgs, RawKwargs, RawMessage, ResultMeta, TaskId, TaskName, WireTime,
};
use celery_testkit::{Rabbit, Redis, wait};
use celery_worker::context::Context;
use celery_worker::task::{Failure, RawCall, TaskError, TaskResult};
use celery_worker::{Settings, Stopped, Worker, WorkerBuilder, WorkerError, WorkerHandle};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);

/// Servers and a client of them.
pub struct Stage {
    pub broker: String,
    pub backend: String,
    pub celery: Celery,
    pub witness: Arc<Witness>,
    /// A server of its own, if it has one.
    own: Option<Rabbit>,
}

/// What the test tasks saw.
#[derive(Default)]
pub struct Witness {
    pub runs: AtomicUsize,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    pub runs_of_sleep: AtomicUsize,
}

/// A worker that runs in this process.
pub struct Running {
    pub handle: WorkerHandle,
    worker: JoinSet<Result<Stopped, WorkerError>>,
}

impl Stage {
    /// On the shared servers, with a virtual host and a database of its own.
    pub async fn new(name: &str) -> Stage {
        let broker = Rabbit::shared().await.vhost(name).await;
        let backend = Redis::shared().await.database();
        Stage::on(broker, backend).await
    }

    /// On these servers.
    pub async fn on(broker: String, backend: String) -> Stage {
        let celery = Celery::builder("test").broker(&broker).backend(&backend).connect().await.unwrap();
        Stage { broker, backend, celery, witness: Arc::default(), own: None }
    }

    /// On a RabbitMQ of its own.
    pub async fn on_own(rabbit: Rabbit) -> Stage {
        let stage = Stage::on(rabbit.url(), Redis::shared().await.database()).await;
        Stage { own: Some(rabbit), ..stage }
    }

    /// Its RabbitMQ.
    pub async fn rabbit(&self) -> &Rabbit {
        match &self.own {
            Some(rabbit) => rabbit,
            None => Rabbit::shared().await,
        }
    }

    /// A worker with the test tasks, two slots, quick to give up.
    pub async fn worker(&self) -> WorkerBuilder<()> {
        self.worker_of(
            Celery::builder("worker").broker(&self.broker).backend(&self.backend).connect().await.unwrap(),
        )
    }

    /// As `worker`, on connections of its own.
    pub fn worker_of(&self, celery: Celery) -> WorkerBuilder<()> {
        let builder = Worker::builder(celery, ()).concurrency(2).configure(quick);
        register(builder, &self.witness)
    }

    /// Starts a worker and waits until it consumes.
    pub async fn run(&self, builder: WorkerBuilder<()>) -> Running {
        let worker = builder.build().unwrap();
        let handle = worker.handle();
        let queue = worker.queues().next().unwrap_or("celery").to_owned();
        let mut running = Running { handle, worker: JoinSet::new() };
        running.worker.spawn(worker.run_until(std::future::pending()));
        wait::until(SOON, "the worker consumes", async || match self.consumers(&queue).await {
            0 => Err("no consumer".to_owned()),
            n => Ok(n),
        })
        .await;
        running
    }

    /// The usual worker, running.
    pub async fn running(&self) -> Running {
        self.run(self.worker().await).await
    }

    async fn consumers(&self, queue: &str) -> u64 {
        let queues = self.rabbit().await.queues(&self.broker).await;
        queues.into_iter().find(|state| state.name == queue).map_or(0, |state| state.consumers)
    }

    /// Ready and unacked messages of a queue.
    pub async fn depth(&self, queue: &str) -> (u64, u64) {
        let queues = self.rabbit().await.queues(&self.broker).await;
        queues
            .into_iter()
            .find(|state| state.name == queue)
            .map_or((0, 0), |state| (state.ready, state.unacked))
    }

    /// Waits until the queue holds nothing, ready or unacked.
    pub async fn drained(&self, queue: &str) {
        wait::until(SOON, "the queue is empty", async || match self.depth(queue).await {
            (0, 0) => Ok(()),
            depth => Err(format!("{depth:?}")),
        })
        .await;
    }

    /// A call as a message, with Celery's headers.
    pub fn message(&self, task: &str, args: Value) -> Message {
        let now = WireTime::from(std::time::SystemTime::now());
        let defaults = TaskOptions::DEFAULT;
        let options = resolve(SendOptions::default(), SendOptions::default(), &defaults, &defaults, now);
        let args: RawArgs = celery_protocol::pyjson::from_str(&args.to_string()).unwrap();
        let (task, id) = (TaskName::parse(task).unwrap(), TaskId::from(uuid::Uuid::new_v4()));
        let kwargs = RawKwargs::new();
        NewCall { task, id, args, kwargs, options, origin: "gen1@test".into() }.into_message().unwrap()
    }

    /// Publishes a message to the queue `celery`.
    pub async fn publish(&self, message: &Message) {
        self.publish_raw("celery", message.encode()).await;
    }

    /// Publishes any bytes to a queue.
    pub async fn publish_raw(&self, queue: &str, mut raw: RawMessage) {
        // The publisher finds returns by this.
        raw.properties.correlation_id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        self.celery.publisher().publish(&Route::queue(queue), raw, PublishOptions::default()).await.unwrap();
    }

    /// Takes a message from a queue and gives it back, so that it is delivered again.
    pub async fn give_back(&self, queue: &str) {
        let spec = QueueSpec::new(QueueName::parse(queue).unwrap());
        let mut consumer = self.celery.consume(ConsumeOptions::new(vec![spec])).unwrap();
        let mut events = Vec::new();
        let token = loop {
            assert!(consumer.recv_many(&mut events, 1).await > 0);
            if let Some(ConsumerEvent::Delivery(delivery)) = events.pop() {
                break delivery.token;
            }
        };
        token.reject(Requeue::Yes);
        consumer.flush().await.unwrap();
        consumer.close().await;
    }

    /// Sends a call; its id.
    pub async fn call(&self, task: &str, args: Value) -> TaskId {
        let message = self.message(task, args);
        self.publish(&message).await;
        message.headers.id
    }

    /// What is stored about a call once it has ended.
    pub async fn end_of(&self, id: &TaskId) -> ResultMeta {
        wait::until(SOON, "the task ends", async || match self.celery.backend().get(id).await.unwrap() {
            Some(meta) if meta.status.is_ready() => Ok(meta),
            Some(meta) => Err(format!("{id} is {:?}", meta.status)),
            None => Err(format!("{id} is unknown")),
        })
        .await
    }

    /// Calls a task and waits for its end.
    pub async fn outcome(&self, task: &str, args: Value) -> ResultMeta {
        let id = self.call(task, args).await;
        self.end_of(&id).await
    }

    /// The bytes stored about a call.
    pub async fn stored(&self, id: &TaskId) -> String {
        let database = self.backend.rsplit('/').next().unwrap().to_owned();
        let key = format!("celery-task-meta-{id}");
        Redis::shared().await.cli(&["-n", &database, "GET", &key]).await.trim_end().to_owned()
    }
}

impl Running {
    /// Stops the worker and waits for its end.
    pub async fn stop(mut self) -> Stopped {
        self.handle.stop();
        self.ended().await.unwrap()
    }

    /// Waits for the worker's end.
    pub async fn ended(&mut self) -> Result<Stopped, WorkerError> {
        tokio::time::timeout(SOON, self.worker.join_next()).await.expect("the worker ends").unwrap().unwrap()
    }
}

fn quick(settings: &mut Settings) {
    settings.store_patience = Duration::from_secs(5);
    settings.nodename = Some(format!("w{}@test", uuid::Uuid::new_v4().simple()));
}

fn register(builder: WorkerBuilder<()>, witness: &Arc<Witness>) -> WorkerBuilder<()> {
    let (counted, slow) = (witness.clone(), witness.clone());
    builder
        .raw_task("t.add", TaskOptions::DEFAULT, |_ctx, call| async move {
            let (x, y): (i64, i64) = arguments(&call)?;
            Ok(x + y)
        })
        .raw_task("t.fail", TaskOptions::DEFAULT, |_ctx, call| async move {
            let (message,): (String,) = arguments(&call)?;
            TaskResult::<()>::Err(Failure::new("ValueError", message).into())
        })
        .raw_task("t.panic", TaskOptions::DEFAULT, |_ctx, _call| async move {
            let nothing: Option<u32> = None;
            Ok(nothing.expect("out of cheese"))
        })
        .raw_task("t.count", TaskOptions::DEFAULT, move |_ctx, _call| {
            let counted = counted.clone();
            async move { Ok(counted.runs.fetch_add(1, Ordering::SeqCst) + 1) }
        })
        .raw_task("t.sleep", TaskOptions::DEFAULT, move |_ctx, call| {
            let witness = slow.clone();
            async move {
                let (milliseconds,): (u64,) = arguments(&call)?;
                witness.runs_of_sleep.fetch_add(1, Ordering::SeqCst);
                let now = witness.running.fetch_add(1, Ordering::SeqCst) + 1;
                witness.most_running.fetch_max(now, Ordering::SeqCst);
                let _leave = Leave(witness);
                wait::nothing_for(Duration::from_millis(milliseconds)).await;
                Ok(milliseconds)
            }
        })
        .raw_task("t.retry", TaskOptions::DEFAULT, |ctx: Context, call| async move {
            let (times, milliseconds): (u32, u64) = arguments(&call)?;
            let retries = ctx.request().retries();
            if retries < times {
                let because = Failure::new("ConnectionError", format!("attempt {retries}"));
                let retry = ctx.retry().countdown(Duration::from_millis(milliseconds)).because(because);
                return Err(TaskError::from(retry));
            }
            Ok(retries)
        })
        .raw_task("t.ignore", TaskOptions::DEFAULT, |_ctx, _call| async move {
            TaskResult::<()>::Err(TaskError::Ignore)
        })
        .raw_task("t.reject", TaskOptions::DEFAULT, |ctx: Context, call| async move {
            let (requeue,): (bool,) = arguments(&call)?;
            if requeue && ctx.request().delivery().redelivered {
                return Ok("second time");
            }
            Err(TaskError::Reject { requeue, reason: "no".into() })
        })
        .raw_task("t.request", TaskOptions::DEFAULT, |ctx: Context, _call| async move {
            let request = ctx.request();
            Ok(json!({
                "id": request.id().as_str(),
                "retries": request.retries(),
                "hostname": request.hostname().as_str(),
                "headers": request.custom_headers(),
                "routing_key": request.delivery().routing_key,
            }))
        })
        .raw_task("t.list", TaskOptions::DEFAULT, |_ctx, call| async move { Ok(call.args) })
}

/// The arguments of a call as a tuple.
pub fn arguments<T: serde::de::DeserializeOwned>(call: &RawCall) -> TaskResult<T> {
    celery_protocol::pyjson::from_str(call.args.to_raw().get())
        .map_err(|err| Failure::new("TypeError", err.to_string()).into())
}

struct Leave(Arc<Witness>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
