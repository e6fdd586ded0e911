//! No results are kept. Storing succeeds and does nothing, reading is an error: pending for ever would be a lie.

use celery_protocol::{GroupId, ResultMeta, ResultTuple, TaskId};
use futures_util::stream::BoxStream;

use super::{Answer, ResultBackend, unsupported};

const READING: &str = "results are disabled (set result_backend)";

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct DisabledBackend;

fn done<'a>() -> Answer<'a, ()> {
    Box::pin(std::future::ready(Ok(())))
}

impl ResultBackend for DisabledBackend {
    fn store_many<'a>(&'a self, _metas: &'a [ResultMeta]) -> Answer<'a, ()> {
        done()
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
        done()
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
        "disabled"
    }
}
