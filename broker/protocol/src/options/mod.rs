//! How a task is called and run: what can be said in four places, and the one function that decides.
//!
//! For sending, a call's own options ([`SendOptions`]) win over its signature's, these over the task's
//! ([`TaskOptions`]), these over the app's. For running, the task's win over the app's ([`TaskOptions::resolve`]).

mod send;
mod task;

pub use send::{Effective, Expiry, SendOptions, resolve};
pub use task::{Execution, MaxRetries, RateLimit, RatePeriod, Serializer, TaskOptions};
