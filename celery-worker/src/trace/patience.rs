//! Trying again while broker or store are away, with growing pauses and an end to it.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Why something was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stuck<E> {
    /// It will never be.
    Refused(E),
    /// It may be later; patience is at an end.
    GaveUp(E),
}

/// How long something is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// No try begins later than this.
    pub(super) span: Duration,
    /// The first pause; each is twice as long as the one before, up to two seconds.
    pub(super) pause: Duration,
}

impl Patience {
    /// Tries until it succeeds; `problem` is what the log says of each try that does not.
    pub(super) async fn attempt<T, E, F>(
        self,
        problem: &str,
        is_transient: impl Fn(&E) -> bool,
        attempt: impl Fn() -> F,
    ) -> Result<T, Stuck<E>>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let until = Instant::now() + self.span;
        let mut pause = self.pause;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) if !is_transient(&error) => return Err(Stuck::Refused(error)),
                Err(error) => error,
            };
            if Instant::now() + pause > until {
                return Err(Stuck::GaveUp(error));
            }
            tracing::warn!(%error, "{problem}");
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The moments of the tries, in milliseconds, until one of them answers.
    async fn tries(
        span: Duration,
        answer: impl Fn(usize) -> Result<(), &'static str>,
    ) -> (Vec<u128>, Result<(), Stuck<&'static str>>) {
        let (begin, moments) = (Instant::now(), RefCell::new(Vec::new()));
        let patience = Patience { span, pause: Duration::from_millis(50) };
        let ended = patience.attempt(
            "not yet",
            |error| *error == "away",
            || {
                moments.borrow_mut().push(begin.elapsed().as_millis());
                let answer = answer(moments.borrow().len());
                async move { answer }
            },
        );
        let ended = ended.await;
        (moments.into_inner(), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_two_seconds_until_it_succeeds() {
        let answer = |nth: usize| if nth == 10 { Ok(()) } else { Err("away") };
        let (moments, ended) = tries(Duration::from_secs(60), answer).await;
        assert_eq!(moments, [0, 50, 150, 350, 750, 1_550, 3_150, 5_150, 7_150, 9_150]);
        assert_eq!(ended, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_an_end_and_a_refusal_needs_none() {
        let (moments, ended) = tries(Duration::from_secs(5), |_| Err("away")).await;
        assert_eq!(moments, [0, 50, 150, 350, 750, 1_550, 3_150]);
        assert_eq!(ended, Err(Stuck::GaveUp("away")));
        let (moments, ended) = tries(Duration::from_secs(5), |_| Err("no")).await;
        assert_eq!((moments, ended), (vec![0], Err(Stuck::Refused("no"))));
    }
}
