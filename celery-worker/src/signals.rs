//! What signals ask of a worker, as Celery reads them: SIGTERM and SIGINT for the warm shutdown, SIGQUIT (or a second
//! SIGINT) for the cold one, and again to wait for nothing more.
//!
//! | signal | running | warm | soft | cold |
//! |---|---|---|---|---|
//! | SIGTERM | warm | – | – | – |
//! | SIGINT | warm | soft | cold | gone |
//! | SIGQUIT | soft | soft | cold | gone |
//!
//! *Soft* gives running tasks `worker_soft_shutdown_timeout`, and is *cold* at once where that is 0. *Gone* leaves
//! everything as it is. With `REMAP_SIGTERM=SIGQUIT` SIGTERM is read as SIGQUIT.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::worker::{Stopped, Worker, WorkerError};

/// How long a cold shutdown may take before the process is left to its end: whatever hangs then will not stop hanging.
const COLD_DEADLINE: Duration = Duration::from_secs(20);

/// How far the shutdown has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Warm,
    Soft,
    Cold,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Term,
    Int,
    Quit,
}

impl Stage {
    fn after(self, signal: Signal) -> Stage {
        match (signal, self) {
            (Signal::Term | Signal::Int, Stage::Running) => Stage::Warm,
            (Signal::Term, stage) => stage,
            (Signal::Int | Signal::Quit, Stage::Running | Stage::Warm) => Stage::Soft,
            (Signal::Int | Signal::Quit, Stage::Soft) => Stage::Cold,
            (Signal::Int | Signal::Quit, Stage::Cold | Stage::Gone) => Stage::Gone,
        }
    }
}

impl Worker {
    /// Runs until a signal says stop, as Celery's worker does: SIGTERM and SIGINT let running tasks finish, SIGQUIT gives
    /// them [`soft_shutdown_timeout`](crate::Settings::soft_shutdown_timeout), and more of it ends the wait. SIGHUP
    /// is logged and ignored.
    ///
    /// # Errors
    /// When the worker cannot go on; an orchestrator should restart it.
    pub async fn run_until_signalled(self) -> Result<Stopped, WorkerError> {
        let listen = |kind| signal(kind).map_err(WorkerError::Signals);
        let mut term = listen(SignalKind::terminate())?;
        let mut int = listen(SignalKind::interrupt())?;
        let mut quit = listen(SignalKind::quit())?;
        let mut hup = listen(SignalKind::hangup())?;
        let term_means = if self.settings().sigterm_is_cold { Signal::Quit } else { Signal::Term };
        let handle = self.handle();
        let soft = self.settings().soft_shutdown_timeout;
        let mut running = pin!(self.run_until(pending()));
        let mut stage = Stage::Running;
        let mut deadline = pin!(tokio::time::sleep(Duration::MAX));
        loop {
            let signal = tokio::select! {
                stopped = &mut running => return stopped,
                () = &mut deadline, if stage >= Stage::Soft => {
                    tracing::error!("the shutdown hangs; the process ends without it");
                    return Ok(Stopped::CutOff);
                }
                Some(()) = term.recv() => term_means,
                Some(()) = int.recv() => Signal::Int,
                Some(()) = quit.recv() => Signal::Quit,
                Some(()) = hup.recv() => {
                    tracing::warn!("SIGHUP is ignored: restart the worker to load a new configuration");
                    continue;
                }
            };
            let next = stage.after(signal);
            if next == stage {
                tracing::warn!("{signal:?}: already stopping; SIGQUIT does not wait for running tasks");
                continue;
            }
            stage = next;
            match stage {
                Stage::Running => {}
                Stage::Warm => {
                    tracing::warn!("{signal:?}: warm shutdown; SIGQUIT does not wait for running tasks");
                    handle.stop();
                }
                Stage::Soft => {
                    tracing::warn!(?soft, "{signal:?}: running tasks are cut off after the soft shutdown");
                    handle.stop_soft();
                    deadline.as_mut().reset(tokio::time::Instant::now() + soft + COLD_DEADLINE);
                }
                Stage::Cold => {
                    tracing::warn!("{signal:?} again: cold shutdown");
                    handle.stop_now();
                    deadline.as_mut().reset(tokio::time::Instant::now() + COLD_DEADLINE);
                }
                Stage::Gone => {
                    tracing::warn!("{signal:?} again: the worker is gone");
                    return Ok(Stopped::CutOff);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_take_the_stages_of_celerys_shutdown() {
        use Signal::{Int, Quit, Term};
        let stages = |signals: &[Signal]| {
            let mut stage = Stage::Running;
            for signal in signals {
                stage = stage.after(*signal);
            }
            stage
        };
        for (signals, expected) in [
            (&[Term][..], Stage::Warm),
            (&[Term, Term, Term], Stage::Warm),
            (&[Int], Stage::Warm),
            (&[Int, Int], Stage::Soft),
            (&[Term, Quit], Stage::Soft),
            (&[Quit], Stage::Soft),
            (&[Quit, Term], Stage::Soft),
            (&[Quit, Quit], Stage::Cold),
            (&[Int, Int, Int], Stage::Cold),
            (&[Quit, Quit, Quit], Stage::Gone),
        ] {
            assert_eq!(stages(signals), expected, "{signals:?}");
        }
    }
}
