//! Which tasks belong to a batch or a group, so that they can be read, waited for and forgotten together.
//!
//! Kept as notes in the result backend: the ids in pieces, and a head that says how many pieces there are. Celery's own
//! record of a group is not written: for a chord it would change what its workers do. It is read, though.

use std::time::Duration;

use celery_protocol::{GroupId, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::{Kind, Problem};
use crate::state::Api;
use crate::submit::within;

/// Ids in one piece.
pub const PIECE: usize = 1000;
/// Pieces that are kept: a batch of more tasks is only partly read back.
const MAX_PIECES: usize = 100;

/// A batch or group, without its ids.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Head {
    /// When it was submitted (RFC 3339).
    pub submitted_at: String,
    /// Items of the batch.
    pub total: usize,
    /// Items that a queue has.
    pub accepted: usize,
    /// Items that failed.
    pub failed: usize,
    /// Whether all items have been seen; a streamed batch may have broken off.
    pub complete: bool,
    /// Whether more tasks are coming: a streamed batch that is still being read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub growing: bool,
    /// The group that the batch is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
    /// The task that gets the results of the group, if it is a chord.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_id: Option<TaskId>,
    /// How many pieces of ids there are.
    pub pieces: usize,
}

/// What kind of set it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// What was submitted in one request.
    Batch,
    /// A group of Celery's.
    Group,
}

impl Set {
    fn key(self, id: &str) -> String {
        match self {
            Set::Batch => format!("batch:{id}"),
            Set::Group => format!("group:{id}"),
        }
    }

    /// The problem that it is not known.
    pub fn unknown(self) -> Problem {
        let kind = match self {
            Set::Batch => Kind::BatchUnknown,
            Set::Group => Kind::GroupUnknown,
        };
        Problem::new(kind, "it was never submitted here, or its record has expired")
    }
}

/// Writes down a set while it is being submitted.
#[derive(Debug)]
pub struct Writer {
    set: Set,
    id: String,
    ttl: Duration,
    waiting: Vec<TaskId>,
    /// What is known so far.
    pub head: Head,
}

impl Writer {
    /// A set of this id.
    pub fn new(api: &Api, set: Set, id: &str) -> Self {
        let head = Head { submitted_at: crate::clock::now().isoformat(), ..Head::default() };
        Writer { set, id: id.to_owned(), ttl: api.limits.submission, waiting: Vec::new(), head }
    }

    /// Adds a task.
    pub fn push(&mut self, id: TaskId) {
        self.waiting.push(id);
    }

    /// Writes what is there.
    ///
    /// # Errors
    /// The reason in words.
    pub async fn flush(&mut self, api: &Api) -> Result<(), String> {
        let Some(notes) = api.celery.notes() else {
            return Err("the result backend keeps no notes".to_owned());
        };
        let key = self.set.key(&self.id);
        let waiting = std::mem::take(&mut self.waiting);
        for piece in waiting.chunks(PIECE) {
            if self.head.pieces < MAX_PIECES {
                let value = serde_json::to_vec(piece).unwrap_or_default();
                within(notes.put(&format!("{key}:{}", self.head.pieces), &value, self.ttl)).await?;
                self.head.pieces += 1;
            }
        }
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        within(notes.put(&key, &head, self.ttl)).await
    }
}

/// Reads a set with its ids.
///
/// # Errors
/// `group-unknown`, `batch-unknown`, `result-backend-unavailable`.
pub async fn read(api: &Api, set: Set, id: &str) -> Result<(Head, Vec<TaskId>), Problem> {
    let key = set.key(id);
    let Some(head) = note::<Head>(api, &key).await? else {
        return match set {
            Set::Batch => Err(set.unknown()),
            Set::Group => saved_by_celery(api, id).await,
        };
    };
    let mut ids = Vec::new();
    for piece in 0..head.pieces {
        ids.extend(note::<Vec<TaskId>>(api, &format!("{key}:{piece}")).await?.unwrap_or_default());
    }
    Ok((head, ids))
}

/// Forgets a set; its tasks are not touched.
///
/// # Errors
/// `result-backend-unavailable`.
pub async fn forget(api: &Api, set: Set, id: &str) -> Result<(), Problem> {
    let key = set.key(id);
    let (head, _) = read(api, set, id).await?;
    if let Some(notes) = api.celery.notes() {
        let pieces = (0..head.pieces).map(|piece| format!("{key}:{piece}"));
        for key in pieces.chain([key.clone()]) {
            notes.take(&key).await.map_err(|err| Problem::from_backend(&err))?;
        }
    }
    if let (Set::Group, Ok(group)) = (set, GroupId::parse(id)) {
        api.celery.backend().forget_group(&group).await.map_err(|err| Problem::from_backend(&err))?;
    }
    Ok(())
}

/// A group that another program has saved.
async fn saved_by_celery(api: &Api, id: &str) -> Result<(Head, Vec<TaskId>), Problem> {
    let Ok(group) = GroupId::parse(id) else { return Err(Set::Group.unknown()) };
    let saved = api.celery.backend().get_group(&group).await.map_err(|err| Problem::from_backend(&err))?;
    let members = saved.and_then(|tuple| tuple.members).ok_or_else(|| Set::Group.unknown())?;
    let ids: Vec<TaskId> = members.into_iter().map(|member| member.id).collect();
    let head = Head { total: ids.len(), accepted: ids.len(), complete: true, ..Head::default() };
    Ok((head, ids))
}

async fn note<T: DeserializeOwned>(api: &Api, key: &str) -> Result<Option<T>, Problem> {
    let Some(notes) = api.celery.notes() else { return Ok(None) };
    let bytes = notes.get(key).await.map_err(|err| Problem::from_backend(&err))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
