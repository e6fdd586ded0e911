//! Waiting in tests: poll under a deadline, and say what was seen last when it passes. The only sleeper.

use std::fmt::Display;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(20);

/// Polls `check` until it answers `Ok`, and returns that.
///
/// # Panics
/// When `deadline` passes, with `what` was waited for and the state that the last `Err` described.
pub async fn until<T, S: Display>(
    deadline: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    match attempt(deadline, check).await {
        Ok(value) => value,
        Err(state) => crate::program::give_up(&format!("waited {deadline:?} for {what}; last seen: {state}")),
    }
}

/// Polls `check` until it answers `Ok`; after `deadline` the last `Err` is the answer.
///
/// # Errors
/// The state that `check` described last.
pub async fn attempt<T, S>(deadline: Duration, mut check: impl AsyncFnMut() -> Result<T, S>) -> Result<T, S> {
    let end = Instant::now() + deadline;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(state) if Instant::now() >= end => return Err(state),
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// Polls a check that does not wait itself, also in tasks that move between threads; else as [`attempt`].
///
/// # Errors
/// The state that `check` described last.
pub async fn polled<T, S>(deadline: Duration, mut check: impl FnMut() -> Result<T, S>) -> Result<T, S> {
    let end = Instant::now() + deadline;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(state) if Instant::now() >= end => return Err(state),
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// Lets `span` pass: for tests that show that something does *not* happen. To wait for something, use
/// [`until`].
pub async fn nothing_for(span: Duration) {
    tokio::time::sleep(span).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_value_of_the_first_success() {
        let mut polls = 0;
        let value = until(Duration::from_secs(5), "three polls", async || {
            polls += 1;
            if polls == 3 { Ok(polls) } else { Err(polls) }
        });
        assert_eq!(value.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "waited 30ms for rain; last seen: sunshine")]
    async fn names_the_last_state_at_the_deadline() {
        until::<(), _>(Duration::from_millis(30), "rain", async || Err("sunshine")).await;
    }
}
