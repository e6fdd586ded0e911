//! Which of the pipelined publishes of one channel came back as unroutable. Pure.
//!
//! AMQP's `basic.return` carries no delivery tag, and lapin hands a returned message to *whichever* confirm completes
//! next. What it does guarantee: returns arrive in publish order and before the confirm of their own publish, they wait
//! in a queue, and each completing confirm takes one from the front if there is any. From that follows, for a publish X
//! whose confirm has completed:
//!
//! 1. a returned message that carries X's id: X was unroutable;
//! 2. X's confirm took nothing: the queue was empty, so X's return, if there was one, is in the hands of a confirm that
//!    completed earlier, and is known once everything that is ready has been looked at;
//! 3. X's confirm took the return of another publish: X stays undecided until a return of a *later* publish shows up
//!    (X's own would have come before it), or a later confirm takes nothing, or no confirm is outstanding.
//!
//! So the answer is exact without relying on timing.

use std::collections::HashMap;

/// Position of a publish on its channel.
pub(super) type Seq = u64;

/// What a completed confirm said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub(super) seq: Seq,
    pub(super) acked: bool,
    /// Id of the returned message that the confirm carried, its own or that of another publish.
    pub(super) returned: Option<String>,
}

/// The final word on one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Confirmed and routed.
    Accepted,
    /// Confirmed, but returned first.
    Unroutable,
    /// `basic.nack`.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its confirm has not completed.
    Outstanding,
    /// Its confirm completed with the return of another publish (rule 3).
    Undecided,
}

#[derive(Debug)]
struct Entry {
    id: String,
    stage: Stage,
    returned: bool,
}

/// The publishes in flight on one channel.
#[derive(Debug, Default)]
pub(super) struct Returns {
    next: Seq,
    entries: HashMap<Seq, Entry>,
    by_id: HashMap<String, Seq>,
    outstanding: usize,
    /// Highest publish whose return has been seen.
    horizon: Option<Seq>,
    undecided: Vec<Seq>,
}

impl Returns {
    /// Whether a publish of this id is in flight: a second one would make returns ambiguous.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// A publish was handed to the channel.
    pub(super) fn started(&mut self, id: &str) -> Seq {
        let seq = self.next;
        self.next += 1;
        self.outstanding += 1;
        self.by_id.insert(id.to_owned(), seq);
        self.entries.insert(seq, Entry { id: id.to_owned(), stage: Stage::Outstanding, returned: false });
        seq
    }

    /// All confirms that were ready at once, in any order. Yields the publishes that are decided now.
    pub(super) fn completed(&mut self, batch: &[Confirmed]) -> Vec<(Seq, Verdict)> {
        for confirmed in batch {
            self.outstanding -= usize::from(self.entries.contains_key(&confirmed.seq));
            let seq = confirmed.returned.as_ref().and_then(|id| self.by_id.get(id).copied());
            if let Some(entry) = seq.and_then(|seq| self.entries.get_mut(&seq)) {
                entry.returned = true;
                self.horizon = self.horizon.max(seq);
            }
        }
        let mut decided = Vec::new();
        let drained = self.outstanding == 0 || batch.iter().any(|confirmed| confirmed.returned.is_none());
        for seq in std::mem::take(&mut self.undecided) {
            self.judge(seq, drained, &mut decided);
        }
        for confirmed in batch {
            if !confirmed.acked {
                self.finish(confirmed.seq, Verdict::Refused, &mut decided);
            } else {
                // Only a confirm that took nothing itself proves, inside its own batch, that nothing was waiting.
                let proven = confirmed.returned.is_none() || self.outstanding == 0;
                self.judge(confirmed.seq, proven, &mut decided);
            }
        }
        decided
    }

    fn judge(&mut self, seq: Seq, proven: bool, decided: &mut Vec<(Seq, Verdict)>) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.returned {
            self.finish(seq, Verdict::Unroutable, decided);
        } else if proven || self.horizon.is_some_and(|horizon| horizon > seq) {
            self.finish(seq, Verdict::Accepted, decided);
        } else {
            entry.stage = Stage::Undecided;
            self.undecided.push(seq);
        }
    }

    fn finish(&mut self, seq: Seq, verdict: Verdict, decided: &mut Vec<(Seq, Verdict)>) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.by_id.remove(&entry.id);
            decided.push((seq, verdict));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// lapin's behaviour as read in its sources: returns queue up, each completing confirm takes one.
    #[derive(Default)]
    struct Lapin {
        waiting: VecDeque<String>,
        ready: Vec<Confirmed>,
    }

    impl Lapin {
        fn confirm(&mut self, seq: Seq, acked: bool) {
            let returned = self.waiting.pop_front();
            self.ready.push(Confirmed { seq, acked, returned });
        }
    }

    fn run(unroutable: &[bool], order: &[usize], looks: &[bool]) -> HashMap<Seq, Verdict> {
        let mut returns = Returns::default();
        let mut lapin = Lapin::default();
        let mut answers = HashMap::new();
        let mut returned = 0;
        for index in 0..unroutable.len() {
            returns.started(&format!("id{index}"));
        }
        for (step, index) in order.iter().enumerate() {
            // The broker returns in publish order, each before its own confirm.
            while returned <= *index {
                if unroutable[returned] {
                    lapin.waiting.push_back(format!("id{returned}"));
                }
                returned += 1;
            }
            lapin.confirm(*index as Seq, true);
            if looks.get(step).copied().unwrap_or(true) {
                answers.extend(returns.completed(&std::mem::take(&mut lapin.ready)));
            }
        }
        answers.extend(returns.completed(&lapin.ready));
        assert!(returns.entries.is_empty() && returns.by_id.is_empty() && returns.undecided.is_empty());
        answers
    }

    #[test]
    fn a_return_taken_by_an_earlier_confirm_is_found() {
        // 0 is routable and confirmed by the ack that also brought the return of 1.
        let answers = run(&[false, true], &[0, 1], &[true, true]);
        assert_eq!(answers[&0], Verdict::Accepted);
        assert_eq!(answers[&1], Verdict::Unroutable);
    }

    #[test]
    fn the_return_of_a_completed_confirm_may_be_in_the_hands_of_a_later_one() {
        // Confirms of one multiple-ack complete in hash order: 1 takes the return of 0, 0 takes that of 1.
        let mut returns = Returns::default();
        returns.started("a");
        returns.started("b");
        let first = returns.completed(&[Confirmed { seq: 1, acked: true, returned: Some("a".into()) }]);
        assert_eq!(first, []);
        let mut second = returns.completed(&[Confirmed { seq: 0, acked: true, returned: Some("b".into()) }]);
        second.sort_by_key(|(seq, _)| *seq);
        assert_eq!(second, [(0, Verdict::Unroutable), (1, Verdict::Unroutable)]);
    }

    #[test]
    fn a_nack_is_final() {
        let mut returns = Returns::default();
        returns.started("a");
        assert!(returns.contains("a"));
        let decided = returns.completed(&[Confirmed { seq: 0, acked: false, returned: None }]);
        assert_eq!(decided, [(0, Verdict::Refused)]);
        assert!(!returns.contains("a"));
    }

    proptest! {
        #[test]
        fn every_answer_is_exact(
            unroutable in prop::collection::vec(any::<bool>(), 1..60),
            shuffle in prop::collection::vec(any::<prop::sample::Index>(), 60),
            looks in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut order: Vec<usize> = (0..unroutable.len()).collect();
            for (at, other) in (0..order.len()).zip(&shuffle) {
                let other = other.index(order.len());
                order.swap(at, other);
            }
            let answers = run(&unroutable, &order, &looks);
            prop_assert_eq!(answers.len(), unroutable.len());
            for (index, gone) in unroutable.iter().enumerate() {
                let expected = if *gone { Verdict::Unroutable } else { Verdict::Accepted };
                prop_assert_eq!(answers[&(index as Seq)], expected, "publish {}", index);
            }
        }
    }
}
