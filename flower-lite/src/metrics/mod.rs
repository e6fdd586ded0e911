//! The numbers that Prometheus reads: under Flower's names, under celery-exporter's, and those that neither has.
//!
//! Written out by hand from the state: there is nothing to count here that the state doesn't know, and a process-wide
//! recorder would collide with that of a program that mounts this one.

mod exporter;
mod flower;
mod own;
mod page;

use std::collections::BTreeMap;

use crate::live::Link;
use crate::queues::Queue;
use crate::state::ClusterState;
use crate::state::time::UnixTime;

use page::Page;

/// What the numbers are of, besides the state.
#[derive(Debug)]
pub struct Surroundings {
    /// Whether events can come in.
    pub link: Link,
    /// How many live streams are open.
    pub streams: usize,
    /// The queues.
    pub queues: BTreeMap<String, Queue>,
    /// Processes or slots of each worker, where they are known.
    pub concurrency: BTreeMap<String, usize>,
    /// Of the history on disk, if there is one.
    pub history: Option<HistoryNumbers>,
    /// How many things fire for each rule of alerts.
    pub firing: Vec<(&'static str, usize)>,
    /// Now.
    pub now: UnixTime,
}

/// The numbers of the history on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryNumbers {
    /// Tasks in it.
    pub tasks: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Batches that could not be written.
    pub failures: u64,
    /// Tasks that could not be written, since the disk was slower than the events.
    pub skipped: u64,
}

/// All numbers, in the text format of Prometheus.
#[must_use]
pub fn render(state: &ClusterState, around: &Surroundings) -> String {
    let mut page = Page::default();
    flower::render(&mut page, state);
    own::render(&mut page, state, around);
    exporter::render(&mut page, state, around);
    page.text
}
