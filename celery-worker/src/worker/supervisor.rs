//! The services of a worker: named, awaited, and never lost.
//!
//! The only place of this crate that starts tasks on a runtime (docs/architecture.md, I6). A service that ends before
//! it was told to, or panics, stops the worker: a process that half works is worse than one that is started again.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Services that run until they are told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    services: JoinSet<()>,
    names: HashMap<Id, Service>,
    /// From now on a service may end.
    stop: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct Service {
    name: &'static str,
    /// It may end before it is told to.
    finite: bool,
}

/// A service ended although nobody told it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceEnded {
    name: &'static str,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    Returned,
    Panicked(String),
}

impl Supervisor {
    /// No services yet; once `stop` is cancelled they may end.
    pub(crate) fn new(stop: CancellationToken) -> Supervisor {
        Supervisor { services: JoinSet::new(), names: HashMap::new(), stop }
    }

    /// Starts a service that has to run until it is told to stop.
    pub(crate) fn spawn(&mut self, name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
        let id = self.services.spawn(service).id();
        self.names.insert(id, Service { name, finite: false });
    }

    /// Starts something on another runtime that may end at any time, but must not panic.
    pub(crate) fn spawn_finite(
        &mut self,
        runtime: &Handle,
        name: &'static str,
        service: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.services.spawn_on(service, runtime).id();
        self.names.insert(id, Service { name, finite: true });
    }

    /// Waits until a service ends that should not have.
    pub(crate) async fn failed(&mut self) -> ServiceEnded {
        while let Some(ended) = self.services.join_next_with_id().await {
            let (service, how) = self.describe(ended);
            if how != How::Returned || !service.finite && !self.stop.is_cancelled() {
                return ServiceEnded { name: service.name, how };
            }
        }
        std::future::pending().await
    }

    /// Waits until all have ended; false if one panicked.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut good = true;
        while let Some(ended) = self.services.join_next_with_id().await {
            let (service, how) = self.describe(ended);
            if how != How::Returned {
                tracing::error!(service = service.name, %how, "a service failed while stopping");
                good = false;
            }
        }
        good
    }

    /// Cuts off whatever still runs, and names it.
    pub(crate) async fn cut_off(&mut self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.names.values().map(|service| service.name).collect();
        names.sort_unstable();
        self.services.shutdown().await;
        self.names.clear();
        names
    }

    /// Waits until all have ended, at most `patience`, then cuts them off; false if that was necessary.
    pub(crate) async fn end_within(&mut self, patience: Duration) -> bool {
        if let Ok(good) = tokio::time::timeout(patience, self.ended()).await {
            return good;
        }
        let names = self.cut_off().await;
        tracing::error!(?names, "services did not stop in time");
        false
    }

    fn describe(&mut self, ended: Result<(Id, ()), JoinError>) -> (Service, How) {
        let (id, how) = match ended {
            Ok((id, ())) => (id, How::Returned),
            Err(err) => (err.id(), How::Panicked(err.to_string())),
        };
        (self.names.remove(&id).unwrap_or(Service { name: "unknown", finite: false }), how)
    }
}

impl fmt::Display for ServiceEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service {} {}", self.name, self.how)
    }
}

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
        services.spawn_finite(&Handle::current(), "finite", async {});
        services.spawn("short", async {});
        assert_eq!(services.failed().await.to_string(), "the service short ended before it was told to");
        services.spawn_finite(&Handle::current(), "broken", async { panic!("no") });
        assert!(services.failed().await.to_string().starts_with("the service broken failed:"));
        assert_eq!(services.cut_off().await, ["quiet"]);
    }

    #[tokio::test]
    async fn services_stop_when_told() {
        let stop = CancellationToken::new();
        let mut services = Supervisor::new(stop.clone());
        let told = stop.clone();
        services.spawn("obedient", async move { told.cancelled().await });
        stop.cancel();
        assert!(services.end_within(Duration::from_secs(5)).await);
        services.spawn("deaf", std::future::pending());
        assert!(!services.end_within(Duration::from_millis(10)).await);
    }
}
