//! Results as messages to whoever called (`rpc://`, celery/backends/rpc.py): each state goes to the queue that the call names
//! in `reply_to`. Nothing is kept, so only the caller can read it, and chords are impossible.

use celery_protocol::message::HeaderMap;
use celery_protocol::{GroupId, Properties, RawMessage, ResultMeta, ResultTuple, TaskId};
use futures_util::stream::BoxStream;

use super::called::Callers;
use super::{Answer, Called, ResultBackend, unsupported};
use crate::amqp::{PublishOptions, Publisher, Route};
use crate::error::{BackendError, BackendErrorKind, BrokerErrorKind};

const READING: &str = "results over rpc:// go to the client that called: nobody else can read them";

/// Sends results to callers.
#[derive(Debug)]
pub(crate) struct RpcBackend {
    publisher: Publisher,
    callers: Callers,
}

impl RpcBackend {
    pub(crate) fn new(publisher: Publisher) -> Self {
        Self { publisher, callers: Callers::default() }
    }

    async fn send(&self, meta: &ResultMeta) -> Result<(), BackendError> {
        let Some(caller) = self.callers.get(&meta.task_id) else { return Ok(()) };
        let properties = Properties {
            content_type: Some("application/json".to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            correlation_id: Some(caller.correlation_id),
            delivery_mode: Some(1),
            ..Properties::default()
        };
        let message = RawMessage { properties, headers: HeaderMap::new(), body: meta.encode().into() };
        let options = PublishOptions { mandatory: false, ..PublishOptions::default() };
        match self.publisher.publish(&Route::queue(caller.queue), message, options).await {
            Ok(()) => Ok(()),
            // The caller is gone.
            Err(err) if *err.kind() == BrokerErrorKind::Unroutable => Ok(()),
            Err(err) => Err(BackendError::new(BackendErrorKind::Connect, "sending a result").caused_by(err)),
        }
    }
}

fn done<'a>() -> Answer<'a, ()> {
    Box::pin(std::future::ready(Ok(())))
}

impl ResultBackend for RpcBackend {
    fn called(&self, id: &TaskId, properties: &Properties) -> Called {
        self.callers.remember(id, properties)
    }

    fn store_many<'a>(&'a self, metas: &'a [ResultMeta]) -> Answer<'a, ()> {
        Box::pin(async move {
            for sent in futures_util::future::join_all(metas.iter().map(|meta| self.send(meta))).await {
                sent?;
            }
            Ok(())
        })
    }

    fn get<'a>(&'a self, _id: &'a TaskId) -> Answer<'a, Option<ResultMeta>> {
        unsupported(READING)
    }

    fn get_many<'a>(&'a self, _ids: &'a [TaskId]) -> Answer<'a, Vec<Option<ResultMeta>>> {
        unsupported(READING)
    }

    fn watch<'a>(&'a self, _id: &'a TaskId) -> Answer<'a, BoxStream<'static, ResultMeta>> {
        unsupported(READING)
    }

    fn forget<'a>(&'a self, _id: &'a TaskId) -> Answer<'a, ()> {
        done()
    }

    fn store_group<'a>(&'a self, _group: &'a ResultTuple) -> Answer<'a, ()> {
        unsupported(READING)
    }

    fn get_group<'a>(&'a self, _id: &'a GroupId) -> Answer<'a, Option<ResultTuple>> {
        unsupported(READING)
    }

    fn forget_group<'a>(&'a self, _id: &'a GroupId) -> Answer<'a, ()> {
        done()
    }

    fn ping(&self) -> Answer<'_, ()> {
        done()
    }

    fn name(&self) -> &'static str {
        "rpc"
    }
}
