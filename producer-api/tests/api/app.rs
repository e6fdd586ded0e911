//! [`TestApp`]: a server of our own on a free port, a client to ask it, and the other side of the queue to answer.

use std::collections::HashMap;
use std::time::Duration;

use celery_broker::config::Sources;
use celery_broker::{Celery, ConsumeOptions, Consumer, ConsumerEvent, Delivery, QueueSpec};
use celery_protocol::result::{RemoteException, ResultMeta, TaskState};
use celery_protocol::{QueueName, TaskId, WireTime};
use celery_testkit::{Rabbit, Redis, wait};
use producer_api::config::Config;
use producer_api::startup::Application;
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// For everything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A server and both of its sides.
pub(crate) struct TestApp {
    base: String,
    http: reqwest::Client,
    /// The other side: what a worker, or another producer, would use.
    pub(crate) celery: Celery,
    stop: CancellationToken,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl TestApp {
    /// On the shared servers, in a vhost and a database of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`start`](Self::start), with these settings in the environment.
    pub(crate) async fn start_with(env: &[(&str, &str)]) -> Self {
        let broker = Rabbit::shared().await.vhost("api").await;
        let backend = Redis::shared().await.database();
        Self::start_on(&broker, &backend, env).await
    }

    /// On these servers; returns when it is ready.
    pub(crate) async fn start_on(broker: &str, backend: &str, env: &[(&str, &str)]) -> Self {
        let app = Self::launch(broker, backend, env);
        wait::until(SOON, "the server to be ready", async || {
            let answer = app.get("/readyz").await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text) }
        })
        .await;
        app
    }

    /// On these servers, whether they are there or not.
    pub(crate) fn launch(broker: &str, backend: &str, env: &[(&str, &str)]) -> Self {
        let mut settings: HashMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.insert("CELERY_BROKER_URL".into(), broker.into());
        settings.insert("CELERY_RESULT_BACKEND".into(), backend.into());
        settings.entry("PRODUCER_API_PORT".into()).or_insert("0".into());
        settings.entry("PRODUCER_API_HTTP_WORKERS".into()).or_insert("2".into());
        settings.entry("PRODUCER_API_DASHBOARD".into()).or_insert("false".into());
        let sources = Sources { flag: &|_| None, env: &|name| settings.get(name).cloned(), file: None };
        let config = Config::load(&sources).unwrap();
        let stop = CancellationToken::new();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn({
            let stop = stop.clone();
            move || {
                actix_web::rt::System::new().block_on(async {
                    let application = Application::build(&config).unwrap();
                    tell.send(application.address()).unwrap();
                    application.run_until(stop).await.unwrap();
                });
            }
        });
        let address = told.recv().unwrap();
        let celery = Celery::builder("test").broker(broker).backend(backend).start().unwrap();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        TestApp { base: format!("http://{address}"), http, celery, stop }
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Its address, `127.0.0.1:port`.
    pub(crate) fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// A request that the test completes.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// GET, waiting for a result.
    pub(crate) async fn get_waiting(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("prefer", "wait=20")).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Submits, and expects a 202.
    pub(crate) async fn submit(&self, body: &Value) -> TaskId {
        let answer = self.post("/v1/tasks", body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        TaskId::parse(answer.json()["id"].as_str().unwrap()).unwrap()
    }

    /// Declares a queue, and is its consumer.
    pub(crate) async fn consume(&self, queue: &str) -> Tap {
        let spec = QueueSpec::new(QueueName::parse(queue).unwrap());
        let mut consumer = self.celery.consume(ConsumeOptions::new(vec![spec]).prefetch(60_000)).unwrap();
        let mut events = Vec::new();
        wait::until(SOON, "the consumer to be connected", async || {
            consumer.recv_many(&mut events, 100).await;
            let up = events.iter().any(|event| matches!(event, ConsumerEvent::Connected { .. }));
            if up { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
        Tap { consumer, events, waiting: Vec::new() }
    }

    /// Declares a queue that keeps what is sent to it.
    pub(crate) async fn declare(&self, queue: &str) {
        self.consume(queue).await.consumer.close().await;
    }

    /// Stores a result as a worker would.
    pub(crate) async fn succeed(&self, id: &TaskId, result: &str) {
        let raw = RawValue::from_string(result.to_owned()).unwrap();
        self.store(ResultMeta::success(id.clone(), raw, now())).await;
    }

    /// Stores a failure as a worker would.
    pub(crate) async fn fail(&self, id: &TaskId, exception: &str, message: &str) {
        let exception = RemoteException::builtin(exception, message);
        self.store(ResultMeta::failure(id.clone(), &exception, Some("Traceback …".into()), now())).await;
    }

    /// Stores a state as a worker would.
    pub(crate) async fn state(&self, id: &TaskId, state: &str, result: Value) {
        let raw = serde_json::value::to_raw_value(&result).unwrap();
        self.store(ResultMeta::new(id.clone(), TaskState::from(state), raw)).await;
    }

    async fn store(&self, meta: ResultMeta) {
        self.celery.backend().store(&meta).await.unwrap();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The other end of a queue.
pub(crate) struct Tap {
    consumer: Consumer,
    events: Vec<ConsumerEvent>,
    /// Received, and not yet asked for.
    waiting: Vec<Delivery>,
}

impl Tap {
    /// The next message, settled.
    pub(crate) async fn next(&mut self) -> Delivery {
        self.take(1).await.remove(0)
    }

    /// The next `count` messages; they stay unsettled.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let taking = async {
            loop {
                self.waiting.extend(self.events.drain(..).filter_map(|event| match event {
                    ConsumerEvent::Delivery(delivery) => Some(delivery),
                    _ => None,
                }));
                if self.waiting.len() >= count {
                    return self.waiting.drain(..count).collect();
                }
                self.consumer.recv_many(&mut self.events, 1000).await;
            }
        };
        let taken = tokio::time::timeout(SOON, taking).await;
        taken.unwrap_or_else(|_| panic!("only {} of {count} messages came", self.waiting.len()))
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|err| panic!("{err}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem of this kind, complete in itself, and returns it.
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["type"], json!(format!("/problems/{slug}")), "{problem:#}");
        assert_eq!(problem["status"], json!(status));
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem:#}");
        let id = self.header("x-request-id");
        assert_eq!(problem["instance"], json!(format!("urn:uuid:{id}")), "{problem:#}");
        problem
    }
}

/// The present.
pub(crate) fn now() -> WireTime {
    WireTime::from(std::time::SystemTime::now())
}
