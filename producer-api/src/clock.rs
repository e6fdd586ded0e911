//! The wall clock: the only place of this crate that reads it.

use std::time::SystemTime;

use celery_protocol::WireTime;

/// The present.
pub fn now() -> WireTime {
    WireTime::from(SystemTime::now())
}
