//! What `#[task]` expands to: names to reach the public traits by, and the few functions behind its options. Not for
//! other use, and not part of what stays compatible.

pub use celery_protocol::content::Compression;
pub use celery_protocol::options::{MaxRetries, Serializer};
use celery_protocol::options::{RateLimit, RatePeriod};
pub use celery_protocol::{Sig, TaskDef, TaskOptions};
// The names that generated code needs, so that it works whatever is in scope where the task stands.
pub use core::{
    convert::{AsRef, Into},
    future::Future,
    marker::{Send, Sync},
    option::Option::Some,
    time::Duration,
};
pub use serde;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use super::{ErrbackStyle, ErrorMatch, FailureRules, FromRef, Task, TaskResult, TaskReturn};
pub use crate::context::Context;

/// A call without arguments.
pub fn sig<T: TaskDef>() -> Sig<T::Output> {
    Sig::new(T::NAME)
}

/// `rate_limit = "10/m"`, taken apart.
pub const fn rate_limit(runs: f64, per: &str) -> RateLimit {
    let per = match per.as_bytes() {
        b"h" => RatePeriod::Hour,
        b"m" => RatePeriod::Minute,
        _ => RatePeriod::Second,
    };
    RateLimit { runs, per }
}

/// A type that an unmarked parameter may have.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` can't travel in a message",
    label = "this parameter is unmarked, so it is an argument of the call",
    note = "mark it `#[ctx]` or `#[state]` if it belongs to this process, or derive `Serialize` and `Deserialize` for it"
)]
pub trait Travels {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Travels for T {}

/// Fails to compile, in our words, for a type that can't travel.
pub fn assert_travels<T: Travels>() {}
