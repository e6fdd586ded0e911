//! A sorted list of places in chunks: what a set does, in half of its memory, for places that mostly come at the end.

use std::collections::VecDeque;

use super::time::UnixTime;

/// The most places in a chunk.
const CHUNK: usize = 128;
/// Neighbours that have no more than this together become one.
const FEW: usize = CHUNK / 2;

/// A place in an index: the time a task is listed by; the task's number decides between equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The time, as bits that sort as times do; in two halves, so that a place takes 12 bytes.
    high: u32,
    low: u32,
    serial: u32,
}

impl Place {
    const SIGN: u64 = 1 << 63;

    /// The place of a task with this number that is listed by `at`.
    #[must_use]
    pub fn new(at: UnixTime, serial: u32) -> Place {
        let bits = at.seconds().to_bits();
        let key = if bits & Place::SIGN == 0 { bits | Place::SIGN } else { !bits };
        let [high, low] = [key >> 32, key & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or_default());
        Place { high, low, serial }
    }

    /// The time.
    #[must_use]
    pub fn at(self) -> UnixTime {
        let key = u64::from(self.high) << 32 | u64::from(self.low);
        let bits = if key & Place::SIGN == 0 { !key } else { key & !Place::SIGN };
        UnixTime::new(f64::from_bits(bits)).unwrap_or(UnixTime::EPOCH)
    }

    /// The task's number.
    #[must_use]
    pub fn serial(self) -> u32 {
        self.serial
    }
}

/// Places in their order, each of them once.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// None of them is empty.
    chunks: VecDeque<Vec<Place>>,
    len: usize,
}

impl Order {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Place> {
        self.chunks.iter().flatten().copied()
    }

    /// Those after `place`, in order; all without one.
    pub fn after(&self, place: Option<Place>) -> impl DoubleEndedIterator<Item = Place> {
        let chunk = place.map_or(0, |place| self.chunk_of(place));
        let first = self.chunks.get(chunk).map_or(&[][..], |chunk| {
            &chunk[place.map_or(0, |place| chunk.partition_point(|known| *known <= place))..]
        });
        let others = self.chunks.range((chunk + 1).min(self.chunks.len())..);
        first.iter().chain(others.flatten()).copied()
    }

    /// Those before `place`, in order; all without one.
    pub fn before(&self, place: Option<Place>) -> impl DoubleEndedIterator<Item = Place> {
        let chunk = place.map_or(self.chunks.len(), |place| self.chunk_of(place));
        let last = self.chunks.get(chunk).map_or(&[][..], |chunk| {
            &chunk[..place.map_or(0, |place| chunk.partition_point(|known| *known < place))]
        });
        self.chunks.range(..chunk).flatten().chain(last).copied()
    }

    /// The chunk that `place` is in or belongs into, if it isn't behind all of them.
    fn chunk_of(&self, place: Place) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| *last < place))
    }

    /// Puts `place` where it belongs, if it isn't there.
    pub fn insert(&mut self, place: Place) {
        let mut index = self.chunk_of(place);
        if index == self.chunks.len() {
            let full = self.chunks.back().is_none_or(|last| last.len() >= CHUNK);
            if full {
                self.chunks.push_back(Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK }));
            }
            index = self.chunks.len() - 1;
        } else if self.chunks[index].len() >= CHUNK {
            let upper = self.chunks[index].split_off(CHUNK / 2);
            self.chunks.insert(index + 1, upper);
            index += usize::from(self.chunks[index].last().is_some_and(|last| *last < place));
        }
        let chunk = &mut self.chunks[index];
        if let Err(at) = chunk.binary_search(&place) {
            chunk.insert(at, place);
            self.len += 1;
        }
    }

    /// Takes `place` out, if it is there.
    pub fn remove(&mut self, place: Place) {
        let index = self.chunk_of(place);
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        let Ok(at) = chunk.binary_search(&place) else { return };
        chunk.remove(at);
        self.len -= 1;
        let len = chunk.len();
        let next = self.chunks.get(index + 1).map(Vec::len);
        let previous = index.checked_sub(1).and_then(|index| self.chunks.get(index)).map(Vec::len);
        if len == 0 {
            self.chunks.remove(index);
        } else if next.is_some_and(|next| len + next <= FEW) {
            self.join(index);
        } else if previous.is_some_and(|previous| previous + len <= FEW) {
            self.join(index - 1);
        }
    }

    /// Puts the chunk after `index` to its end.
    fn join(&mut self, index: usize) {
        if let Some(next) = self.chunks.remove(index + 1) {
            self.chunks[index].extend(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    fn place(number: u32) -> Place {
        Place::new(UnixTime::EPOCH.plus(f64::from(number / 2) - 300.0), number % 2)
    }

    #[test]
    fn places_sort_as_their_times() {
        assert_eq!(size_of::<Place>(), 12);
        let times = [-1e300, -2.5, -1.0, 0.0, 1e-300, 1.0, 1_800_000_000.25, 1e300];
        for pair in times.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|seconds| UnixTime::EPOCH.plus(seconds));
            assert!(Place::new(a, 9) < Place::new(b, 1), "{pair:?}");
            assert_eq!((Place::new(a, 9).at(), Place::new(a, 9).serial()), (a, 9));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((0..1_500_u32, prop::bool::weighted(0.55)), 1..3_000)) {
            let (mut order, mut set) = (Order::default(), BTreeSet::new());
            for (number, insert) in &changes {
                if *insert {
                    order.insert(place(*number));
                    set.insert(place(*number));
                } else {
                    order.remove(place(*number));
                    set.remove(&place(*number));
                }
            }
            // The order in which tasks come and go: at the end, and from the front.
            for number in 0..800 {
                order.insert(place(1_500 + number));
                set.insert(place(1_500 + number));
                if let Some(first) = set.pop_first() {
                    order.remove(first);
                }
            }
            prop_assert_eq!(order.len(), set.len());
            prop_assert!(order.iter().eq(set.iter().copied()));
            prop_assert!(order.iter().rev().eq(set.iter().rev().copied()));
            for number in (0..2_400).step_by(37) {
                let at = place(number);
                prop_assert!(order.before(Some(at)).rev().eq(set.range(..at).rev().copied()));
                let behind = (Bound::Excluded(at), Bound::Unbounded);
                prop_assert!(order.after(Some(at)).eq(set.range(behind).copied()));
            }
            prop_assert!(order.after(None).eq(order.before(None)));
            prop_assert!(order.chunks.len() <= 2 + 2 * order.len() / FEW, "{} chunks", order.chunks.len());
        }
    }
}
