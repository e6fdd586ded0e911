//! From a call to its consequences: run the task, decide what follows, do it.

mod apply;
mod chord;
pub(crate) mod events;
pub(crate) mod execute;
pub(crate) mod log;
mod meta;
pub(crate) mod overdue;
mod patience;
mod resend;
pub(crate) mod settle;
pub(crate) mod settler;
pub(crate) mod settling;

use std::collections::HashSet;
use std::sync::Arc;

use celery_broker::{Celery, Requeue, Token};
use celery_protocol::{Signature, TaskId, TaskName};

pub(crate) use chord::{leaves, nested, shown};
pub(crate) use execute::execute;
pub(crate) use meta::result_meta;
use settle::{Disposition, Settlement, Step};

use tokio::sync::oneshot;

use crate::pool::Job;
use crate::task::Failure;

/// Something that has ended, and what follows from it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ticket: Ticket,
    pub(crate) settlement: Settlement,
}

/// The right to settle a message.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A job's.
    Job(Arc<Job>),
    /// That of a message which never became a job.
    Token(Token),
    /// A job's whose message another process settles; it waits to be told how.
    Elsewhere(Arc<Job>, oneshot::Sender<Disposition>),
}

impl Ticket {
    /// The job, if there is one.
    pub(crate) fn job(&self) -> Option<&Arc<Job>> {
        match self {
            Ticket::Job(job) | Ticket::Elsewhere(job, _) => Some(job),
            Ticket::Token(_) => None,
        }
    }

    /// Settles the message, if it is not settled yet.
    pub(crate) fn settle(self, disposition: Disposition) {
        match (self, disposition) {
            (Ticket::Job(job), Disposition::Ack) => job.ack(),
            (Ticket::Job(job), Disposition::Discard) => job.reject(Requeue::No),
            (Ticket::Job(job), Disposition::Requeue) => job.reject(Requeue::Yes),
            (Ticket::Elsewhere(_, whoever), disposition) => {
                // Nobody waits any more when the other process is gone.
                let _ = whoever.send(disposition);
            }
            (Ticket::Token(token), Disposition::Ack) => token.ack(),
            (Ticket::Token(token), Disposition::Discard) => token.reject(Requeue::No),
            (Ticket::Token(token), Disposition::Requeue) => token.reject(Requeue::Yes),
        }
    }
}

/// Ends a chord without its body, on `celery` alone: stores the failure of the body and calls its errbacks. False if that
/// could not be done.
pub(crate) async fn fail_chord(
    celery: &Celery,
    body: &Signature,
    root_id: &TaskId,
    failure: &Failure,
    new_style: &HashSet<TaskName>,
) -> bool {
    let ground = settler::Ground::alone(celery, new_style);
    chord::fail_body(&ground, body, root_id, failure, &[]).await.is_ok()
}

/// Carries steps out on `celery` alone, without a worker: what is published and stored goes there. False if something
/// could not be done.
pub(crate) async fn carry_out(
    celery: &Celery,
    task_id: &TaskId,
    steps: Vec<Step>,
    new_style: &HashSet<TaskName>,
) -> bool {
    settler::perform(settler::Ground::alone(celery, new_style), Some(task_id), steps).await.is_ok()
}
