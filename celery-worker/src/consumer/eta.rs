//! What waits in this process for its time: a bounded heap ordered by due time.
//!
//! Generic and without a clock, so that a test needs neither messages nor waiting. The wall clock may jump, so the
//! owner asks again at least once a second instead of sleeping until a moment computed once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

/// The longest the owner may sleep before it looks at the clock again.
const RECHECK: Duration = Duration::from_secs(1);

/// Items that are due at a wall-clock time, at most `capacity` of them.
#[derive(Debug)]
pub(crate) struct Heap<T> {
    entries: BinaryHeap<Entry<T>>,
    capacity: usize,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: SystemTime,
    /// Keeps arrival order among items due at the same moment.
    sequence: u64,
    item: T,
}

impl<T> Heap<T> {
    /// An empty heap that takes `capacity` items.
    pub(crate) fn new(capacity: usize) -> Heap<T> {
        Heap { entries: BinaryHeap::new(), capacity, sequence: 0 }
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no further item is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    /// Keeps `item` until `due`.
    ///
    /// # Errors
    /// Gives the item back when the heap is full.
    pub(crate) fn push(&mut self, due: SystemTime, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.sequence += 1;
        self.entries.push(Entry { due, sequence: self.sequence, item });
        Ok(())
    }

    /// The next item that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: SystemTime) -> Option<T> {
        if self.entries.peek()?.due > now {
            return None;
        }
        self.entries.pop().map(|entry| entry.item)
    }

    /// How long the owner may sleep before asking [`Heap::pop_due`] again; `None` when nothing waits.
    pub(crate) fn sleep(&self, now: SystemTime) -> Option<Duration> {
        let due = self.entries.peek()?.due;
        Some(due.duration_since(now).unwrap_or(Duration::ZERO).min(RECHECK))
    }

    /// Takes out every item for which `unwanted` holds, in the order in which they are due.
    pub(crate) fn take(&mut self, unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut out, keep): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| unwanted(&entry.item));
        self.entries = keep.into();
        out.sort_by(|one, other| other.cmp(one));
        out.into_iter().map(|entry| entry.item).collect()
    }

    /// All items with their due times, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SystemTime, &T)> {
        self.entries.iter().map(|entry| (entry.due, &entry.item))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: `BinaryHeap` gives its greatest entry, wanted is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due).then(other.sequence.cmp(&self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn items_come_out_by_due_time_then_arrival() {
        let mut heap = Heap::new(10);
        for (due, item) in [(30, "c"), (10, "a"), (30, "d"), (20, "b")] {
            heap.push(at(due), item).unwrap();
        }
        assert_eq!(heap.pop_due(at(9)), None);
        assert_eq!(heap.sleep(at(9)), Some(Duration::from_secs(1)));
        assert_eq!(heap.pop_due(at(30)), Some("a"));
        assert_eq!(
            [heap.pop_due(at(30)), heap.pop_due(at(30)), heap.pop_due(at(30))],
            [Some("b"), Some("c"), Some("d")]
        );
        assert_eq!(heap.sleep(at(30)), None);
    }

    #[test]
    fn a_full_heap_gives_the_item_back() {
        let mut heap = Heap::new(1);
        heap.push(at(1), 'a').unwrap();
        assert_eq!(heap.push(at(1), 'b'), Err('b'));
    }

    #[test]
    fn a_clock_that_jumps_back_delays_and_one_that_jumps_forward_releases() {
        let mut heap = Heap::new(1);
        heap.push(at(100), ()).unwrap();
        assert_eq!(heap.sleep(at(0)), Some(RECHECK));
        assert_eq!(heap.sleep(at(200)), Some(Duration::ZERO));
        assert_eq!(heap.pop_due(at(200)), Some(()));
    }

    #[test]
    fn unwanted_items_are_taken_out() {
        let mut heap = Heap::new(10);
        for n in 0..6 {
            heap.push(at(n), n).unwrap();
        }
        let mut odd = heap.take(|n| n % 2 == 1);
        odd.sort_unstable();
        assert_eq!(odd, [1, 3, 5]);
        assert_eq!(heap.len(), 3);
        assert_eq!(heap.pop_due(at(9)), Some(0));
    }
}
