//! As many slots as there is work, within bounds: up at once, down when it has been quiet for a while, as Celery's
//! `--autoscale`.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::worker::engine::Engine;

/// How often the load is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long after the last growth, or the last work for more slots, slots are given up (`AUTOSCALE_KEEPALIVE`).
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The most slots.
    pub max: usize,
    /// The fewest, at least 1.
    pub min: usize,
}

impl FromStr for Range {
    type Err = String;

    /// Reads `max,min`, or `max` alone with a `min` of 1.
    fn from_str(text: &str) -> Result<Range, String> {
        let wrong = || format!("autoscale `{text}`: write max,min with 1 <= min <= max, for instance 10,2");
        let (max, min) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| text.trim().parse().map_err(|_| wrong());
        let range = Range { max: number(max)?, min: number(min)? };
        let sane = (1..=range.max).contains(&range.min) && range.max <= 10_000;
        if sane { Ok(range) } else { Err(wrong()) }
    }
}

/// The bounds in effect, if there are any; remote control changes them.
#[derive(Debug)]
pub(crate) struct Autoscale(Mutex<Option<Range>>);

impl Autoscale {
    pub(crate) fn new(range: Option<Range>) -> Autoscale {
        Autoscale(Mutex::new(range))
    }

    pub(crate) fn range(&self) -> Option<Range> {
        *self.lock()
    }

    /// Changes the bounds.
    ///
    /// # Errors
    /// What a Python worker answers when there are none, or what is wrong with the new ones.
    pub(crate) fn update(
        &self,
        max: Option<usize>,
        min: Option<usize>,
        most: usize,
    ) -> Result<Range, String> {
        let mut range = self.lock();
        let Some(old) = *range else { return Err("ValueError('Autoscale not enabled')".to_owned()) };
        let new = Range { max: max.unwrap_or(old.max), min: min.unwrap_or(old.min).max(1) };
        if new.max < new.min || new.max > most {
            return Err(format!(
                "ValueError('max={} min={}: not 1 <= min <= max <= {most}')",
                new.max, new.min
            ));
        }
        *range = Some(new);
        Ok(new)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Range>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many slots there should be: `wanted` tasks run or wait, and for `quiet` no more than the slots were needed.
fn target(range: Range, slots: usize, wanted: usize, quiet: Duration) -> usize {
    let fitting = wanted.clamp(range.min, range.max);
    match fitting > slots || slots > range.max || quiet >= KEEPALIVE {
        true => fitting.max(wanted.min(slots).min(range.max)),
        false => slots.max(range.min),
    }
}

/// Keeps the number of slots right until `stop`.
pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut busy = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let Some(range) = engine.autoscale.range() else { continue };
        let slots = engine.pool.size();
        let wanted = engine.pool.running().len() + engine.pool.waiting().len();
        if wanted >= slots && slots > range.min {
            busy = Instant::now();
        }
        let target = target(range, slots, wanted, busy.elapsed());
        if target > slots {
            busy = Instant::now();
            tracing::info!(from = slots, to = target, "scaling up");
            if engine.lines.grow.send(target - slots).await.is_err() {
                return stop.cancelled().await;
            }
        } else if target < slots {
            tracing::info!(from = slots, to = target, "scaling down");
            engine.pool.remove_lanes(slots - target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_at_once_and_down_after_a_while() {
        let range = Range { max: 10, min: 2 };
        let (now, late) = (Duration::ZERO, KEEPALIVE);
        for (slots, wanted, quiet, expected) in [
            (2, 0, now, 2),
            (2, 5, now, 5),
            (2, 50, now, 10),
            (5, 3, now, 5),
            (5, 3, late, 3),
            (5, 0, late, 2),
            (12, 0, now, 2),
            (12, 11, now, 10),
            (1, 0, now, 2),
        ] {
            assert_eq!(
                target(range, slots, wanted, quiet),
                expected,
                "{slots} slots, {wanted} wanted, {quiet:?}"
            );
        }
    }

    #[test]
    fn bounds_are_read_changed_and_refused() {
        assert_eq!("10,2".parse(), Ok(Range { max: 10, min: 2 }));
        assert_eq!("4".parse(), Ok(Range { max: 4, min: 1 }));
        for bad in ["", "x", "2,3", "0,0", "4,0", "10001,1", "-1"] {
            assert!(bad.parse::<Range>().unwrap_err().contains("write max,min"), "{bad}");
        }
        let autoscale = Autoscale::new(None);
        assert!(autoscale.update(Some(3), None, 100).unwrap_err().contains("not enabled"));
        let autoscale = Autoscale::new(Some(Range { max: 3, min: 1 }));
        assert_eq!(autoscale.update(Some(5), Some(2), 100), Ok(Range { max: 5, min: 2 }));
        assert!(autoscale.update(Some(1), None, 100).is_err());
        assert!(autoscale.update(Some(101), None, 100).is_err());
        assert_eq!(autoscale.range(), Some(Range { max: 5, min: 2 }));
    }
}
