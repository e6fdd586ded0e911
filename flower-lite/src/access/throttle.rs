//! Slows down those who guess passwords: after some failures they have to wait, longer each time.

use std::collections::HashMap;

use crate::state::time::UnixTime;

/// How many times somebody may be wrong before they have to wait.
const FREE: u32 = 3;
/// The longest wait, in seconds.
const LONGEST: f64 = 60.0;
/// After so many seconds without a failure, earlier ones are forgotten.
const FORGIVEN: f64 = 900.0;
/// How many who failed are remembered.
const MAX_KNOWN: usize = 10_000;

/// Who failed how often, and when last.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failed: HashMap<String, (u32, UnixTime)>,
}

impl Throttle {
    /// For how many seconds `who` is not to be asked.
    #[must_use]
    pub(super) fn wait(&self, who: &str, now: UnixTime) -> Option<f64> {
        let (count, last) = self.failed.get(who)?;
        let over = count.checked_sub(FREE)?;
        let pause = 2f64.powi(i32::try_from(over).unwrap_or(i32::MAX)).min(LONGEST);
        let left = pause - now.since(*last);
        (left > 0.0).then_some(left)
    }

    /// `who` was wrong.
    pub(super) fn failed(&mut self, who: &str, now: UnixTime) {
        self.failed.retain(|_, (_, last)| now.since(*last) < FORGIVEN);
        if self.failed.len() >= MAX_KNOWN && !self.failed.contains_key(who) {
            let oldest = self.failed.iter().min_by(|a, b| a.1.1.seconds().total_cmp(&b.1.1.seconds()));
            if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
                self.failed.remove(&oldest);
            }
        }
        let (count, last) = self.failed.entry(who.to_owned()).or_insert((0, now));
        *count = count.saturating_add(1);
        *last = now;
    }

    /// `who` was right.
    pub(super) fn succeeded(&mut self, who: &str) {
        self.failed.remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_becomes_slower() {
        let at = |seconds| UnixTime::EPOCH.plus(seconds);
        let mut throttle = Throttle::default();
        let waits: Vec<Option<f64>> = (0..12)
            .map(|_| {
                throttle.failed("a", at(0.0));
                throttle.wait("a", at(0.0))
            })
            .collect();
        assert_eq!(waits[..6], [None, None, Some(1.0), Some(2.0), Some(4.0), Some(8.0)]);
        assert_eq!(waits[11], Some(60.0));
        assert_eq!(throttle.wait("b", at(0.0)), None, "others don't wait");
        assert_eq!((throttle.wait("a", at(59.0)), throttle.wait("a", at(60.0))), (Some(1.0), None));
        throttle.succeeded("a");
        throttle.failed("a", at(61.0));
        assert_eq!(throttle.wait("a", at(61.0)), None);
    }

    #[test]
    fn a_flood_of_names_costs_no_memory() {
        let mut throttle = Throttle::default();
        for index in 0..MAX_KNOWN + 10 {
            throttle.failed(
                &format!("{index}"),
                UnixTime::EPOCH.plus(f64::from(u32::try_from(index).expect("small")) / 1e6),
            );
        }
        assert_eq!(throttle.failed.len(), MAX_KNOWN);
        assert!(!throttle.failed.contains_key("0"));
    }
}
