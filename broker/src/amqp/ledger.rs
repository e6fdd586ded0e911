//! Which deliveries of one channel are settled, and which frames tell the broker so with the least effort. Pure.
//!
//! Delivery tags of a channel are 1, 2, 3, …. The ledger keeps the lowest tag that is not settled at the broker; a run of
//! equal answers from there on becomes *one* frame with `multiple` set, whatever order the answers came in. What is
//! settled above a hole (a task that still runs) is told singly, but only when it has waited a little: most holes close
//! within microseconds.

use std::collections::VecDeque;

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ack,
    /// Rejected; the broker dead-letters or drops it.
    Reject,
    /// Rejected; the broker queues it again.
    Requeue,
}

/// A frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) answer: Answer,
    pub(super) tag: u64,
    /// Also for all lower tags that are not settled yet.
    pub(super) multiple: bool,
}

/// What to make of an answer given to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// Noted; nothing is urgent.
    Quiet,
    /// Noted; somebody should call [`Ledger::take`] soon.
    Due,
    /// This delivery was answered before, or never happened.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Open,
    Answered(Answer),
    Told,
}

/// The deliveries of one channel.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Tag of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// Delivered and not answered.
    open: usize,
    /// Answered and not told.
    waiting: usize,
    /// How many answers make a flush due while other deliveries are open.
    threshold: usize,
}

impl Ledger {
    /// An empty ledger; `threshold` is how many answers are collected while work goes on.
    pub(super) fn new(threshold: usize) -> Self {
        Self { base: 1, slots: VecDeque::new(), open: 0, waiting: 0, threshold: threshold.max(1) }
    }

    pub(super) fn set_threshold(&mut self, threshold: usize) {
        self.threshold = threshold.max(1);
    }

    /// The channel delivered `tag`. Tags come in order, but may skip what was never seen by us.
    pub(super) fn delivered(&mut self, tag: u64) {
        while self.base + (self.slots.len() as u64) <= tag {
            self.slots.push_back(Slot::Open);
            self.open += 1;
        }
    }

    /// The delivery `tag` is answered.
    pub(super) fn answer(&mut self, tag: u64, answer: Answer) -> Noted {
        let slot = tag
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.slots.get_mut(index));
        match slot {
            Some(slot @ Slot::Open) => *slot = Slot::Answered(answer),
            _ => return Noted::Refused,
        }
        self.open -= 1;
        self.waiting += 1;
        // The first one starts the clock, the last open one and a full batch end it.
        if self.waiting == 1 || self.open == 0 || self.waiting.is_multiple_of(self.threshold) {
            Noted::Due
        } else {
            Noted::Quiet
        }
    }

    /// Nothing more is going on, or enough has been collected: tell the broker now rather than in a moment.
    pub(super) fn is_due(&self) -> bool {
        self.waiting > 0 && (self.open == 0 || self.waiting >= self.threshold)
    }

    /// Answers that the broker has not been told.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the frames for the run at the low end; with `stragglers` also those for answers above a hole.
    pub(super) fn take(&mut self, stragglers: bool, frames: &mut Vec<Frame>) {
        while let Some(slot) = self.slots.front() {
            match *slot {
                Slot::Open => break,
                Slot::Told => {}
                Slot::Answered(answer) => {
                    self.waiting -= 1;
                    match frames.last_mut() {
                        // Everything below is told, so one frame can speak for the whole run.
                        Some(last) if last.answer == answer => {
                            last.tag = self.base;
                            last.multiple = true;
                        }
                        _ => frames.push(Frame { answer, tag: self.base, multiple: false }),
                    }
                }
            }
            self.slots.pop_front();
            self.base += 1;
        }
        if !stragglers || self.waiting == 0 {
            return;
        }
        for (tag, slot) in (self.base..).zip(self.slots.iter_mut()) {
            if let Slot::Answered(answer) = *slot {
                *slot = Slot::Told;
                self.waiting -= 1;
                frames.push(Frame { answer, tag, multiple: false });
                if self.waiting == 0 {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// RabbitMQ's side: what is outstanding, and how it was settled.
    #[derive(Default)]
    struct Broker {
        outstanding: BTreeMap<u64, ()>,
        settled: BTreeMap<u64, Answer>,
    }

    impl Broker {
        fn deliver(&mut self, tag: u64) {
            self.outstanding.insert(tag, ());
        }

        /// Unknown tags close the channel, so they fail the test.
        fn receive(&mut self, frame: Frame) {
            assert!(self.outstanding.contains_key(&frame.tag), "unknown delivery tag {}", frame.tag);
            let tags: Vec<u64> = if frame.multiple {
                self.outstanding.range(..=frame.tag).map(|(tag, ())| *tag).collect()
            } else {
                vec![frame.tag]
            };
            for tag in tags {
                self.outstanding.remove(&tag);
                assert_eq!(self.settled.insert(tag, frame.answer), None, "tag {tag} settled twice");
            }
        }
    }

    fn ledger(deliveries: u64) -> Ledger {
        let mut ledger = Ledger::new(64);
        for tag in 1..=deliveries {
            ledger.delivered(tag);
        }
        ledger
    }

    fn taken(ledger: &mut Ledger, stragglers: bool) -> Vec<(Answer, u64, bool)> {
        let mut frames = Vec::new();
        ledger.take(stragglers, &mut frames);
        frames.into_iter().map(|frame| (frame.answer, frame.tag, frame.multiple)).collect()
    }

    #[test]
    fn a_run_becomes_one_frame_whatever_the_order_of_answers() {
        let mut ledger = ledger(5);
        for tag in [3, 1, 5, 2, 4] {
            ledger.answer(tag, Answer::Ack);
        }
        assert_eq!(taken(&mut ledger, false), [(Answer::Ack, 5, true)]);
        assert_eq!((ledger.waiting(), ledger.open), (0, 0));
    }

    #[test]
    fn one_answer_is_a_single_frame() {
        let mut ledger = ledger(1);
        assert_eq!(ledger.answer(1, Answer::Ack), Noted::Due);
        assert!(ledger.is_due());
        assert_eq!(taken(&mut ledger, false), [(Answer::Ack, 1, false)]);
    }

    #[test]
    fn different_answers_end_a_run() {
        let mut ledger = ledger(6);
        for (tag, answer) in [
            (1, Answer::Ack),
            (2, Answer::Ack),
            (3, Answer::Reject),
            (4, Answer::Requeue),
            (5, Answer::Requeue),
            (6, Answer::Ack),
        ] {
            ledger.answer(tag, answer);
        }
        assert_eq!(
            taken(&mut ledger, false),
            [
                (Answer::Ack, 2, true),
                (Answer::Reject, 3, false),
                (Answer::Requeue, 5, true),
                (Answer::Ack, 6, false)
            ]
        );
    }

    #[test]
    fn stragglers_above_a_hole_are_told_singly_and_once() {
        let mut ledger = ledger(4);
        ledger.answer(2, Answer::Ack);
        ledger.answer(3, Answer::Ack);
        assert_eq!(taken(&mut ledger, false), []);
        assert_eq!(taken(&mut ledger, true), [(Answer::Ack, 2, false), (Answer::Ack, 3, false)]);
        assert_eq!(taken(&mut ledger, true), []);
        ledger.answer(1, Answer::Ack);
        ledger.answer(4, Answer::Ack);
        // 2 and 3 are settled at the broker already; the run may still name 4 with `multiple`.
        assert_eq!(taken(&mut ledger, true), [(Answer::Ack, 4, true)]);
    }

    #[test]
    fn a_second_answer_and_an_unknown_tag_are_refused() {
        let mut ledger = ledger(1);
        assert_eq!(ledger.answer(1, Answer::Ack), Noted::Due);
        for tag in [0, 1, 2, u64::MAX] {
            assert_eq!(ledger.answer(tag, Answer::Ack), Noted::Refused, "tag {tag}");
        }
        taken(&mut ledger, true);
        assert_eq!(ledger.answer(1, Answer::Reject), Noted::Refused);
    }

    #[test]
    fn answers_collect_while_work_goes_on() {
        let mut ledger = Ledger::new(3);
        (1..=10).for_each(|tag| ledger.delivered(tag));
        let noted: Vec<Noted> = (1..=10).map(|tag| ledger.answer(tag, Answer::Ack)).collect();
        use Noted::{Due, Quiet};
        assert_eq!(noted, [Due, Quiet, Due, Quiet, Quiet, Due, Quiet, Quiet, Due, Due]);
    }

    proptest! {
        #[test]
        fn the_broker_learns_every_answer_exactly_once(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), 0..3_u8), 1..300)
        ) {
            let mut broker = Broker::default();
            let mut ledger = Ledger::new(4);
            let mut open = Vec::new();
            let mut given = BTreeMap::new();
            let mut next = 1;
            let mut frames = Vec::new();
            for (step, which, answer) in steps {
                let answer = [Answer::Ack, Answer::Reject, Answer::Requeue][usize::from(answer)];
                match step {
                    0 | 1 => {
                        broker.deliver(next);
                        ledger.delivered(next);
                        open.push(next);
                        next += 1;
                    }
                    2 if !open.is_empty() => {
                        let tag = open.swap_remove(which.index(open.len()));
                        prop_assert_ne!(ledger.answer(tag, answer), Noted::Refused);
                        given.insert(tag, answer);
                    }
                    _ => {
                        ledger.take(answer == Answer::Ack, &mut frames);
                        frames.drain(..).for_each(|frame| broker.receive(frame));
                    }
                }
            }
            ledger.take(true, &mut frames);
            frames.drain(..).for_each(|frame| broker.receive(frame));
            prop_assert_eq!(&broker.settled, &given);
            prop_assert_eq!(broker.outstanding.keys().copied().collect::<Vec<_>>(), { open.sort_unstable(); open });
            prop_assert_eq!(ledger.waiting(), 0);
        }
    }
}
