//! The wall clock: the only place in this crate that reads it.

use std::time::SystemTime;

use crate::state::time::UnixTime;

/// Now.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}
