//! What `#[task]` expands to: names to reach the public traits by, and the few functions behind its options. Not for
//! other use, and not part of what stays compatible.

pub use celery_protocol::content::Compression;
pub use celery_protocol::options::{MaxRetries, Serializer};
use celery_protocol::options::{RateLimit, RatePeriod};
pub use celery_protocol::{Sig, TaskDef, TaskOptions};
// The names that generated code needs, so that it works whatever is in scope where the task stands.
pub use core::{
    convert::Into,
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

/// Builds a call of `T`, argument by argument.
pub struct CallOf<T: TaskDef> {
    sig: Sig<T::Output>,
    /// Positional arguments that were left out: sent as `null` only if another one follows.
    absent: usize,
}

impl<T: TaskDef> CallOf<T> {
    /// With those of the task's options that a message carries.
    pub fn new(options: &TaskOptions) -> Self {
        let mut sig = Sig::new(T::NAME);
        if let Some(queue) = options.queue {
            sig = sig.queue(queue);
        }
        if let Some(priority) = options.priority {
            sig = sig.priority(priority);
        }
        if let Some(expires) = options.expires {
            sig = sig.expires_in(expires);
        }
        if let Some(serializer) = options.serializer {
            sig = sig.option("serializer", serializer.name());
        }
        if let Some(compression) = options.compression {
            sig = sig.option("compression", compression.mime());
        }
        Self { sig, absent: 0 }
    }

    #[must_use]
    pub fn arg<A: Serialize>(mut self, value: &A) -> Self {
        for _ in 0..std::mem::take(&mut self.absent) {
            self.sig = self.sig.arg(());
        }
        self.sig = self.sig.arg(value);
        self
    }

    #[must_use]
    pub fn optional_arg<A: Serialize>(mut self, value: Option<A>) -> Self {
        match value {
            Some(value) => self.arg(&value),
            None => {
                self.absent += 1;
                self
            }
        }
    }

    #[must_use]
    pub fn args<A: Serialize>(self, values: impl IntoIterator<Item = A>) -> Self {
        values.into_iter().fold(self, |call, value| call.arg(&value))
    }

    #[must_use]
    pub fn kwarg<A: Serialize>(mut self, name: &str, value: &A) -> Self {
        self.sig = self.sig.kwarg(name, value);
        self
    }

    #[must_use]
    pub fn optional_kwarg<A: Serialize>(self, name: &str, value: Option<A>) -> Self {
        match value {
            Some(value) => self.kwarg(name, &value),
            None => self,
        }
    }

    #[must_use]
    pub fn kwargs<K: AsRef<str>, A: Serialize>(self, values: impl IntoIterator<Item = (K, A)>) -> Self {
        values.into_iter().fold(self, |call, (name, value)| call.kwarg(name.as_ref(), &value))
    }

    pub fn sig(self) -> Sig<T::Output> {
        self.sig
    }
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
