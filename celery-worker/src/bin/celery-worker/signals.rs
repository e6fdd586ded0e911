//! What signals ask for: SIGTERM and SIGINT the warm shutdown, a second one, or SIGQUIT, the cold one.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Finish what runs.
    Warm,
    /// Do not wait for it.
    Cold,
}

/// The signals that stop the worker.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    warm: bool,
}

impl Signals {
    /// Takes the signals over from their defaults.
    pub(crate) fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hup: listen(SignalKind::hangup())?,
            warm: false,
        })
    }

    /// Waits for the next wish.
    pub(crate) async fn next(&mut self) -> Wish {
        loop {
            let name = tokio::select! {
                Some(()) = self.term.recv() => "SIGTERM",
                Some(()) = self.int.recv() => "SIGINT",
                Some(()) = self.quit.recv() => {
                    tracing::warn!("SIGQUIT: cold shutdown");
                    return Wish::Cold;
                }
                Some(()) = self.hup.recv() => {
                    tracing::warn!("SIGHUP is ignored: restart the worker to load a new configuration");
                    continue;
                }
            };
            if std::mem::replace(&mut self.warm, true) {
                tracing::warn!("{name} again: cold shutdown");
                return Wish::Cold;
            }
            tracing::warn!("{name}: warm shutdown; the same signal again does not wait for running tasks");
            return Wish::Warm;
        }
    }
}
