//! The services of a worker: named, awaited, and never lost.
//!
//! The only place of this crate that spawns on the runtime (docs/architecture.md, I6). A service that ends before it
//! was told to, or panics, stops the worker: a process that half works is worse than one that an orchestrator
//! restarts.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Services that run until they are told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    services: JoinSet<&'static str>,
    names: std::collections::HashMap<tokio::task::Id, &'static str>,
    stop: CancellationToken,
}

/// A service ended although nobody told it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEnded {
    name: &'static str,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    Returned,
    Panicked(String),
}

impl Supervisor {
    /// No services yet; they are told to stop through children of `stop`.
    pub(crate) fn new(stop: CancellationToken) -> Supervisor {
        Supervisor { services: JoinSet::new(), names: std::collections::HashMap::new(), stop }
    }

    /// Starts a service on the current runtime.
    pub(crate) fn spawn(&mut self, name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), name, service);
    }

    /// Starts a service on another runtime.
    pub(crate) fn spawn_on(
        &mut self,
        runtime: &Handle,
        name: &'static str,
        service: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = async move {
            service.await;
            name
        };
        #[expect(clippy::disallowed_methods, reason = "this is the supervisor")]
        let handle = self.services.spawn_on(task, runtime);
        self.names.insert(handle.id(), name);
    }

    /// Waits until a service ends although it was not told to.
    pub(crate) async fn failed(&mut self) -> ServiceEnded {
        loop {
            let Some(ended) = self.services.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let (name, how) = self.describe(ended);
            if !self.stop.is_cancelled() || how != How::Returned {
                return ServiceEnded { name, how };
            }
        }
    }

    /// Tells all services to stop and waits for them, at most `patience`; names those that had to be aborted or
    /// panicked.
    pub(crate) async fn stop(mut self, patience: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        let mut bad = Vec::new();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, self.services.join_next_with_id()).await {
                Ok(Some(ended)) => {
                    let (name, how) = self.describe(ended);
                    if how != How::Returned {
                        tracing::error!(service = name, %how, "a service failed while stopping");
                        bad.push(name);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    bad.extend(self.names.values().copied());
                    self.services.shutdown().await;
                    break;
                }
            }
        }
        bad
    }

    fn describe(
        &mut self,
        ended: Result<(tokio::task::Id, &'static str), tokio::task::JoinError>,
    ) -> (&'static str, How) {
        match ended {
            Ok((id, name)) => {
                self.names.remove(&id);
                (name, How::Returned)
            }
            Err(err) => {
                let name = self.names.remove(&err.id()).unwrap_or("unknown");
                (name, How::Panicked(err.to_string()))
            }
        }
    }
}

impl fmt::Display for ServiceEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service {} {}", self.name, self.how)
    }
}

impl std::error::Error for ServiceEnded {}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Returned => f.write_str("ended before it was told to"),
            How::Panicked(text) => write!(f, "failed: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_ends_or_panics_is_named() {
        let mut services = Supervisor::new(CancellationToken::new());
        services.spawn("quiet", std::future::pending());
        services.spawn("short", async {});
        assert_eq!(services.failed().await.to_string(), "the service short ended before it was told to");
        services.spawn("broken", async { panic!("no") });
        assert!(services.failed().await.to_string().starts_with("the service broken failed:"));
        assert_eq!(services.stop(Duration::from_millis(10)).await, ["quiet"]);
    }

    #[tokio::test]
    async fn services_stop_when_told() {
        let stop = CancellationToken::new();
        let mut services = Supervisor::new(stop.clone());
        services.spawn("obedient", async move { stop.cancelled().await });
        assert!(services.stop(Duration::from_secs(5)).await.is_empty());
    }
}
