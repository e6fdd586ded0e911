//! The monitor at `/dashboard`, in this process: `flower-lite`'s scope behind this server's tokens (feature `dashboard`).
//!
//! A browser cannot be told to send a bearer token, so here a token is also taken as the password of basic
//! authentication. Nowhere else: a browser sends those credentials along with any site's requests, and only the
//! dashboard is without effects.

use actix_web::web::ServiceConfig;
use celery_broker::{BrokerError, Celery};
#[cfg(feature = "dashboard")]
use {
    crate::auth,
    actix_web::middleware::from_fn,
    flower_lite::{Monitor, MonitorOptions},
};

/// The monitor, if there is one.
#[derive(Debug, Clone)]
pub struct Dashboard {
    #[cfg(feature = "dashboard")]
    monitor: Option<Monitor>,
}

#[cfg(feature = "dashboard")]
impl Dashboard {
    /// Begins to listen to the workers' events, unless it is not wanted.
    ///
    /// # Errors
    /// This client cannot listen to events.
    pub fn start(celery: &Celery, wanted: bool) -> Result<Self, BrokerError> {
        let monitor = wanted.then(|| Monitor::start(celery, MonitorOptions::default())).transpose()?;
        Ok(Dashboard { monitor })
    }

    /// Serves it.
    pub fn mount(&self, services: &mut ServiceConfig) {
        if let Some(monitor) = &self.monitor {
            let scope = flower_lite::scope(monitor.clone(), "/dashboard");
            services.service(scope.wrap(from_fn(auth::require_token_or_password)));
        }
    }

    /// Ends its live streams, which would never end by themselves.
    pub fn close(&self) {
        if let Some(monitor) = &self.monitor {
            monitor.close();
        }
    }
}

#[cfg(not(feature = "dashboard"))]
impl Dashboard {
    /// There is none.
    ///
    /// # Errors
    /// None.
    pub fn start(_celery: &Celery, wanted: bool) -> Result<Self, BrokerError> {
        if wanted {
            tracing::info!("built without the dashboard");
        }
        Ok(Dashboard {})
    }

    /// Serves nothing.
    pub fn mount(&self, _services: &mut ServiceConfig) {}

    /// Ends nothing.
    pub fn close(&self) {}
}
