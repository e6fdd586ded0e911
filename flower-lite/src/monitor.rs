//! The handle that everything else holds: the state to read, and the beat to which streams are written.
//!
//! Only the [collector](crate::collector) writes the state. Readers take a read lock for as long as they build one
//! answer; a copy for each of them would cost more than waiting does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use celery_broker::Celery;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::Control;
use crate::actions::bulk::Jobs;
use crate::actions::queues::Pauses;
use crate::alerts::{AlertOptions, Alerts};
use crate::audit::Audit;
use crate::clock;
use crate::history::{Batch, History};
use crate::inspect::Answers;
use crate::live::Link;
use crate::queues::{Queues, Snapshot};
use crate::recording::Recorder;
use crate::redact::Redactor;
use crate::state::memory::SavedWorker;
use crate::state::{ClusterState, Limits};

/// How long the end of the history may take to be written.
const FINISH: Duration = Duration::from_secs(5);
/// How many bytes of tasks are handed to the history at a time.
const SAVED_AT_ONCE: usize = 16 << 20;

/// What a monitor does and how much it remembers.
#[derive(Clone, Debug)]
pub struct MonitorOptions {
    /// How much is remembered.
    pub limits: Limits,
    /// Tell all workers, again and again, to send events of their tasks, as Flower does. Default: yes.
    pub enable_events: bool,
    /// Forget workers that were silent for so long. Default: never.
    pub purge_offline_workers: Option<Duration>,
    /// How many live streams may be open at a time. Default: 512.
    pub max_streams: usize,
    /// Whether workers and tasks may be controlled. Default: no.
    pub control: Control,
    /// The history on disk. Default: none is kept.
    pub history: Option<History>,
    /// What records the events that come in. Default: nothing does.
    pub recorder: Option<Recorder>,
    /// What was changed through the monitor, and by whom. Default: only the log tells.
    pub audit: Option<Audit>,
    /// Queues that dead letters go to, besides those that workers' queues name.
    pub dead_letter_queues: Vec<String>,
    /// The schedules that beats share, by name. Default: none is known.
    pub schedules: Vec<String>,
    /// What is watched, and who is told. Default: nothing.
    pub alerts: AlertOptions,
    /// What takes values out of arguments and results before they are kept. Default: by [the usual
    /// names](crate::redact::USUAL).
    pub redactor: Redactor,
}

impl Default for MonitorOptions {
    fn default() -> MonitorOptions {
        MonitorOptions {
            limits: Limits::default(),
            enable_events: true,
            purge_offline_workers: None,
            max_streams: 512,
            control: Control::default(),
            history: None,
            recorder: None,
            audit: None,
            dead_letter_queues: Vec::new(),
            schedules: Vec::new(),
            alerts: AlertOptions::default(),
            redactor: Redactor::default(),
        }
    }
}

/// A running monitor. Cheap to clone; it stops when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

/// What the monitor's tasks and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<ClusterState>,
    connected: AtomicBool,
    /// Sent four times a second: the version to write up to.
    beat: watch::Sender<u64>,
    streams: AtomicUsize,
    pub(crate) answers: Answers,
    pub(crate) queues: Queues,
    pub(crate) pauses: Pauses,
    pub(crate) jobs: Jobs,
    pub(crate) alerts: Alerts,
    celery: Option<Celery>,
    stop: CancellationToken,
    /// Cancelled when the collector has ended.
    pub(crate) collected: CancellationToken,
    pub(crate) options: MonitorOptions,
}

impl Monitor {
    /// Ends the monitor: live streams end, and no event is taken in any more. What it knows can still be read.
    pub fn close(&self) {
        self.shared.stop.cancel();
    }

    /// Ends the monitor and waits, for a few seconds at the most, until what it knows is on disk.
    pub async fn finish(&self) {
        self.close();
        let written = async {
            self.shared.collected.cancelled().await;
            while self.history().is_some_and(|history| !history.is_idle()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(FINISH, written).await.is_err() {
            tracing::warn!("the end of the history could not be written in time");
        }
        if let Some(recorder) = &self.shared.options.recorder {
            recorder.flush();
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn shared_arc(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The client whose result backend knows more of a task than events tell.
    pub(crate) fn celery(&self) -> Option<&Celery> {
        self.shared.celery.as_ref()
    }

    pub(crate) fn new(shared: Arc<Shared>, stop: DropGuard) -> Monitor {
        Monitor { shared, _stop: Arc::new(stop) }
    }

    /// The state, to read. Not to be held across an `await`.
    pub fn state(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.shared.state()
    }

    /// Whether events can come in.
    #[must_use]
    pub fn link(&self) -> Link {
        if self.shared.connected.load(Ordering::Relaxed) { Link::Connected } else { Link::Lost }
    }

    /// Whether workers and tasks may be controlled.
    #[must_use]
    pub fn control(&self) -> Control {
        self.shared.options.control
    }

    /// What was changed through the monitor.
    #[must_use]
    pub fn audit(&self) -> Option<&Audit> {
        self.shared.options.audit.as_ref()
    }

    /// The queues that are paused.
    #[must_use]
    pub fn pauses(&self) -> &Pauses {
        &self.shared.pauses
    }

    /// What goes wrong.
    #[must_use]
    pub fn alerts(&self) -> &Alerts {
        &self.shared.alerts
    }

    /// What is done with many tasks.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    /// The schedules that beats share.
    pub(crate) fn schedules(&self) -> &[String] {
        &self.shared.options.schedules
    }

    /// The queues that the settings name for dead letters.
    pub(crate) fn dead_letter_queues(&self) -> &[String] {
        &self.shared.options.dead_letter_queues
    }

    /// What takes values out of what is shown.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.shared.options.redactor
    }

    /// What workers answered when they were asked.
    #[must_use]
    pub fn answers(&self) -> &Answers {
        &self.shared.answers
    }

    /// How deep queues are.
    #[must_use]
    pub fn queues(&self) -> &Queues {
        &self.shared.queues
    }

    /// The history on disk, if one is kept.
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        self.shared.options.history.as_ref()
    }

    /// Looks at the queues now.
    pub(crate) async fn look_at_queues(&self, celery: &Celery) {
        self.shared.look_at_queues(celery).await;
    }

    /// Cancelled when the monitor ends.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// The beat to which streams are written.
    pub(crate) fn beat(&self) -> watch::Receiver<u64> {
        self.shared.beat.subscribe()
    }

    /// A place among the open streams, if one is free.
    pub(crate) fn open_stream(&self) -> Option<StreamPlace> {
        let open = self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let place = StreamPlace { shared: self.shared.clone() };
        (open < self.shared.options.max_streams).then_some(place)
    }

    /// How many streams are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Takes over what the history has, if there is one.
    pub(crate) fn new(options: MonitorOptions, celery: Option<Celery>, stop: CancellationToken) -> Shared {
        let now = clock::now();
        let mut state = ClusterState::new(options.limits, now);
        if let Some(history) = &options.history {
            state.begin_saving();
            let path = history.path().display();
            match history.restore(&mut state, options.limits.max_tasks, now) {
                Ok(()) => tracing::info!(tasks = state.tasks().len(), %path, "took over the history"),
                Err(error) => tracing::error!(%error, %path, "the history could not be taken over"),
            }
        }
        let (beat, _) = watch::channel(state.version());
        Shared {
            state: RwLock::new(state),
            connected: AtomicBool::new(false),
            beat,
            streams: AtomicUsize::new(0),
            answers: Answers::new(options.redactor.clone()),
            queues: Queues::default(),
            pauses: Pauses::restore(options.audit.clone()),
            jobs: Jobs::default(),
            alerts: Alerts::new(&options.alerts),
            celery,
            stop,
            collected: CancellationToken::new(),
            options,
        }
    }

    /// The state, to read. Not to be held across an `await`.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what has changed to the history, if it can take it now; if not, changes pile up as one.
    pub(crate) fn save(&self) {
        let Some(history) = &self.options.history else { return };
        let mut all = false;
        while !all && history.is_ready() {
            let mut batch = Batch::default();
            all = self.state_mut().save(
                SAVED_AT_ONCE,
                |task| batch.tasks.push(task.clone()),
                |worker| batch.workers.push(SavedWorker::of(worker)),
            );
            history.write(batch);
        }
        history.note_skipped(self.state_mut().take_skipped());
    }

    /// Hands over what is left at the end, however long it takes until the history can take it: who waits for the end has
    /// a deadline.
    pub(crate) async fn save_all(&self) {
        let Some(history) = &self.options.history else { return };
        loop {
            self.save();
            if self.state().is_saved() {
                return;
            }
            while !history.is_ready() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    pub(crate) async fn look_at_queues(&self, celery: &Celery) {
        let judge = || Snapshot::of(&self.state(), clock::now());
        self.queues.look(celery, &self.answers, judge).await;
    }

    /// The state, to change: for the collector alone.
    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, ClusterState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.connected.store(link == Link::Connected, Ordering::Relaxed);
    }

    pub(crate) fn send_beat(&self, version: u64) {
        self.beat.send_replace(version);
    }
}

/// A place among the open streams; free again when dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    shared: Arc<Shared>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
