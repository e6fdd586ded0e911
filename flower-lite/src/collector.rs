//! The one task that writes the state: it takes events in as they come, and four times a second looks after the clock
//! (which workers have fallen silent) and gives the beat to which streams are written.

use std::sync::Arc;
use std::time::Duration;

use celery_protocol::event::Event;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::live::Link;
use crate::monitor::Shared;
use crate::state::time::UnixTime;

/// How often streams are written and workers are judged.
pub const BEAT: Duration = Duration::from_millis(250);
/// How many events are applied before readers get a turn.
const AT_ONCE: usize = 256;

/// What the collector takes in.
#[derive(Debug)]
pub(crate) enum Input {
    /// Events, as they came off the wire together.
    Events {
        /// Those that could be read.
        events: Vec<Event>,
        /// How many could not.
        undecodable: u64,
        /// When they came in, where that isn't now: in a replay.
        received: Option<UnixTime>,
    },
    /// The connection to the broker was made, or lost.
    Link(Link),
}

/// Runs until `stop`, or until nobody can send any more.
pub(crate) async fn run(shared: Arc<Shared>, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gaps = Gaps::new(clock::now());
    loop {
        tokio::select! {
            // In a flood of events the beat must not starve, so it is asked for first.
            biased;
            () = stop.cancelled() => break,
            _ = beat.tick() => {
                let now = clock::now();
                if let Some(seconds) = gaps.beat(now) {
                    tracing::warn!(seconds, "nothing was taken in for a while: events may have been lost");
                    shared.state_mut().note_stalled(seconds);
                }
                look_after(&shared, now);
            }
            input = inputs.recv() => match input {
                Some(input) => {
                    if let Input::Link(link) = &input
                        && let Some(seconds) = gaps.link(*link, clock::now())
                    {
                        shared.state_mut().note_disconnected(seconds);
                    }
                    take(&shared, input).await;
                }
                None => break,
            },
        }
    }
    // What has come already is taken in.
    inputs.close();
    while let Ok(input) = inputs.try_recv() {
        take(&shared, input).await;
    }
    shared.save_all().await;
    shared.collected.cancel();
}

/// Finds the times in which nothing could come in.
#[derive(Debug)]
struct Gaps {
    beat: UnixTime,
    /// When the connection was lost. Before the first one nothing was missed: nobody had listened yet.
    lost: Option<UnixTime>,
}

impl Gaps {
    /// A beat that comes so many seconds late is a stall.
    const LATE: f64 = 5.0;

    fn new(now: UnixTime) -> Gaps {
        Gaps { beat: now, lost: None }
    }

    /// The seconds of a stall that ends with this beat.
    fn beat(&mut self, now: UnixTime) -> Option<f64> {
        let passed = now.since(std::mem::replace(&mut self.beat, now));
        (passed > Gaps::LATE).then_some(passed)
    }

    /// The seconds for which there was no connection, when one is made.
    fn link(&mut self, link: Link, now: UnixTime) -> Option<f64> {
        match link {
            Link::Lost => {
                self.lost.get_or_insert(now);
                None
            }
            Link::Connected => self.lost.take().map(|lost| now.since(lost).max(0.0)),
        }
    }
}

async fn take(shared: &Shared, input: Input) {
    match input {
        Input::Link(link) => {
            shared.set_link(link);
            // So that streams tell of it with their next overview.
            shared.state_mut().note_undecodable(0);
        }
        Input::Events { mut events, undecodable, received } => {
            events.iter_mut().for_each(|event| shared.options.redactor.event(event));
            if undecodable > 0 {
                shared.state_mut().note_undecodable(undecodable);
            }
            for some in events.chunks(AT_ONCE) {
                let received = received.unwrap_or_else(clock::now);
                if let Some(recorder) = &shared.options.recorder {
                    recorder.record(some, received);
                }
                apply(shared, some, received);
                tokio::task::yield_now().await;
            }
        }
    }
}

fn apply(shared: &Shared, events: &[Event], received: UnixTime) {
    let mut state = shared.state_mut();
    for event in events {
        state.apply(event, received);
    }
}

fn look_after(shared: &Shared, now: UnixTime) {
    let mut state = shared.state_mut();
    state.tick(now);
    if let Some(silence) = shared.options.purge_offline_workers {
        state.forget_silent_since(now.plus(-silence.as_secs_f64()));
    }
    let version = state.version();
    drop(state);
    shared.save();
    shared.send_beat(version);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_measured_from_loss_to_return() {
        let at = |seconds| UnixTime::EPOCH.plus(seconds);
        let mut gaps = Gaps::new(at(0.0));
        assert_eq!(gaps.link(Link::Connected, at(1.0)), None, "the first connection ends no gap");
        assert_eq!(gaps.link(Link::Lost, at(10.0)), None);
        assert_eq!(gaps.link(Link::Lost, at(12.0)), None);
        assert_eq!(gaps.link(Link::Connected, at(25.0)), Some(15.0));
        assert_eq!((gaps.beat(at(1.0)), gaps.beat(at(61.0)), gaps.beat(at(61.3))), (None, Some(60.0), None));
    }
}
