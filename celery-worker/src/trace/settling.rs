//! The jobs that have ended and whose messages are not settled yet, because what follows from them is still being done.
//!
//! A message that comes again meanwhile, because the connection was lost, belongs to one of these and must not be run a
//! second time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::Job;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    next: u64,
    jobs: HashMap<u64, Vec<Arc<Job>>>,
}

/// Some that are settled together; dropped when they are.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    all: &'a Settling,
    number: u64,
}

impl Settling {
    /// These are being settled until the answer is dropped.
    pub(crate) fn begin(&self, jobs: Vec<Arc<Job>>) -> Batch<'_> {
        let mut batches = self.lock();
        batches.next += 1;
        let number = batches.next;
        batches.jobs.insert(number, jobs);
        Batch { all: self, number }
    }

    /// One for which `wanted` holds.
    pub(crate) fn find(&self, wanted: impl Fn(&Arc<Job>) -> bool) -> Option<Arc<Job>> {
        self.lock().jobs.values().flatten().find(|job| wanted(job)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Batches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.all.lock().jobs.remove(&self.number);
    }
}
