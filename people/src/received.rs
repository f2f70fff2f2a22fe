//! What has come of one stream of a device.

use serde::{Deserialize, Serialize};

use crate::frame::{Ack, MAX_RANGES};

/// Most ranges of one stream that are remembered.
const RANGES: usize = 2_048;
/// How often a device is asked whether all has come, where that is not known.
pub(crate) const CHECKS: u8 = 3;
/// How often a device is asked for what is missed.
const ASKED: u8 = 12;

/// Which sequences of a stream have come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    /// The stream that it is about.
    pub(crate) stream: u64,
    /// Those that have come, as ranges (first, last) in their order, which do not touch.
    come: Vec<(u32, u32)>,
    /// What is lower has come, was never for this device, or is lost.
    begin: u32,
    /// The sender takes what is lower for delivered, or tries no more.
    oldest: u32,
    /// How often it was asked for what is missed.
    pub(crate) asked: u8,
    /// How often the sender is still told what came, so that it finds what was lost with an older state.
    pub(crate) checks: u8,
    /// The sender does not know yet what came last.
    pub(crate) is_owed: bool,
    /// When something new came last, Unix milliseconds: of several streams that stream is acknowledged first.
    pub(crate) last: u64,
}

/// What a sequence is to its reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It comes for the first time.
    New,
    /// It came before, or is not waited for.
    Known,
    /// There is no room to remember it; it will come again.
    NoRoom,
}

impl Received {
    /// Of a stream of which nothing has come.
    pub(crate) fn new(stream: u64) -> Self {
        let (come, asked, checks, is_owed, last) = Default::default();
        Self { stream, come, begin: 1, oldest: 1, asked, checks, is_owed, last }
    }

    /// The sender has nothing for this device that is lower than `begin`, and tries no more to deliver what is lower than
    /// `oldest`. How many sequences are lost for good by that.
    pub(crate) fn passed(&mut self, begin: u32, oldest: u32) -> u32 {
        if oldest > self.oldest {
            self.oldest = oldest;
            self.asked = 0;
        }
        if begin <= self.begin {
            return 0;
        }
        // Where nothing has come, what is lower was for other devices.
        let lost = if self.come.is_empty() { 0 } else { self.missing(begin) };
        self.begin = begin;
        self.oldest = self.oldest.max(begin);
        self.come.retain(|(_, last)| *last >= begin);
        if let Some((first, _)) = self.come.first_mut() {
            *first = begin.max(*first);
        }
        lost
    }

    /// How many below this one have not come.
    fn missing(&self, below: u32) -> u32 {
        let last = below.saturating_sub(1);
        let come = self.come.iter().map(|(first, end)| {
            (*end).min(last).checked_sub(*first).map_or(0, |more| more.saturating_add(1))
        });
        let come = come.fold(0_u32, u32::saturating_add);
        below.saturating_sub(self.begin).saturating_sub(come)
    }

    /// A sequence has come.
    pub(crate) fn take(&mut self, sequence: u32) -> Taken {
        let at = self.come.partition_point(|(_, last)| *last < sequence);
        let behind = self.come.get(at).map(|(first, _)| *first);
        if sequence < self.begin || behind.is_some_and(|first| first <= sequence) {
            return Taken::Known;
        }
        let touches_next = sequence.checked_add(1) == behind;
        let touches_last = |range: &&mut (u32, u32)| range.1.checked_add(1) == Some(sequence);
        let room = RANGES.saturating_sub(self.come.len());
        let next_last = self.come.get(at).map_or(sequence, |(_, last)| *last);
        let last = at.checked_sub(1).and_then(|last| self.come.get_mut(last)).filter(touches_last);
        match (last, touches_next) {
            (Some(range), true) => {
                range.1 = next_last;
                self.come.remove(at);
            }
            (Some(range), false) => range.1 = sequence,
            (None, true) => self.come.iter_mut().skip(at).take(1).for_each(|r| r.0 = sequence),
            (None, false) if room == 0 => return Taken::NoRoom,
            (None, false) => self.come.insert(at, (sequence, sequence)),
        }
        Taken::New
    }

    /// True if this sequence has come, or is waited for no more.
    pub(crate) fn has_come(&self, sequence: u32) -> bool {
        let is_in = |(first, last): &(u32, u32)| (*first..=*last).contains(&sequence);
        sequence <= self.low() || self.come.iter().any(is_in)
    }

    /// All up to this one have come, or are waited for no more.
    fn low(&self) -> u32 {
        let given_up = if self.asked >= ASKED { self.oldest - 1 } else { 0 };
        let mut low = given_up.max(self.begin - 1);
        for (first, last) in &self.come {
            if *first > low.saturating_add(1) {
                break;
            }
            low = low.max(*last);
        }
        low
    }

    /// What the sender is told. What is missed has not come, as long as it is asked for: else the sender would take it for
    /// delivered again before it was sent.
    pub(crate) fn ack(&self) -> Ack {
        let low = self.low();
        let beyond = self.come.iter().filter(|(first, _)| *first > low);
        Ack { stream: self.stream, low, ranges: beyond.take(MAX_RANGES).copied().collect() }
    }

    /// How many ranges it remembers.
    pub(crate) fn ranges(&self) -> usize {
        self.come.len()
    }

    /// True if something came while what was sent before it has not.
    pub(crate) fn has_gap(&self) -> bool {
        let low = self.low();
        self.come.iter().any(|(first, _)| *first > low)
    }

    /// True if the sender is to be asked whether all has come.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.checks > 0 || (self.asked < ASKED && self.missing(self.oldest) > 0)
    }

    /// Asks the sender: it is noted that this was done. How many sequences are given up by that.
    pub(crate) fn ask(&mut self) -> u32 {
        self.checks = self.checks.saturating_sub(1);
        if self.missing(self.oldest) == 0 {
            return 0;
        }
        self.asked = self.asked.saturating_add(1);
        if self.asked == ASKED { self.missing(self.oldest) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_sender_takes_for_delivered_is_missed_and_still_taken() {
        let mut received = Received::new(1);
        assert_eq!([1, 3, 3].map(|n| received.take(n)), [Taken::New, Taken::New, Taken::Known]);
        assert_eq!(received.ack(), Ack { stream: 1, low: 1, ranges: vec![(3, 3)] });
        assert!(received.has_gap() && !received.is_asked_for());
        assert_eq!(received.passed(1, 6), 0);
        assert!(received.is_asked_for());
        assert_eq!(received.ack(), Ack { stream: 1, low: 1, ranges: vec![(3, 3)] });
        assert_eq!([4, 4, 3].map(|n| received.take(n)), [Taken::New, Taken::Known, Taken::Known]);
        // It is asked for some times, and then given up.
        let lost: Vec<u32> = (0..ASKED).map(|_| received.ask()).collect();
        assert_eq!(lost.iter().sum::<u32>(), 2);
        assert!(!received.is_asked_for());
        assert_eq!(received.ack(), Ack { stream: 1, low: 5, ranges: Vec::new() });
        assert_eq!(received.take(5), Taken::New, "and taken, should it come");
    }

    #[test]
    fn however_much_is_lost_all_of_it_is_missed() {
        let mut received = Received::new(1);
        (1..=100).for_each(|n| _ = received.take(n));
        received.passed(1, 20_000);
        assert_eq!((received.missing(20_000), received.ack().low), (19_899, 100));
        for n in (101..20_000).rev() {
            assert_eq!(received.take(n), Taken::New);
        }
        assert_eq!((received.missing(20_000), received.ack().low), (0, 19_999));
    }

    #[test]
    fn what_was_never_for_a_device_is_not_missed_and_what_the_sender_lost_is() {
        let mut received = Received::new(1);
        assert_eq!(received.passed(500, 600), 0, "nothing has come yet");
        received.take(600);
        assert_eq!(received.missing(600), 100);
        assert_eq!(received.passed(600, 600), 100);
        assert_eq!(received.ack().low, 600);
    }

    proptest! {
        #[test]
        fn each_sequence_is_new_once(order in proptest::collection::vec((1u32..200, 1u32..200, 1u32..20), 0..400)) {
            let mut received = Received::new(0);
            let (mut new, mut lost) = (BTreeSet::new(), 0);
            for (sequence, oldest, begin) in order {
                lost = lost.max(begin.min(oldest));
                received.passed(begin.min(oldest), oldest);
                match received.take(sequence) {
                    Taken::New => prop_assert!(new.insert(sequence)),
                    Taken::Known => prop_assert!(new.contains(&sequence) || sequence < lost),
                    Taken::NoRoom => prop_assert!(false),
                }
                let ack = received.ack();
                prop_assert!(ack.has(sequence) || ack.ranges.len() == MAX_RANGES);
                // Whatever is said to have come has, or the sender has it no more.
                prop_assert!((lost.max(1)..=250).all(|n| !ack.has(n) || new.contains(&n)));
                prop_assert!(received.come.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            }
        }

        #[test]
        fn nothing_that_a_member_says_takes_much_room(order in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..200)) {
            let mut received = Received::new(0);
            for (sequence, begin, oldest) in order {
                received.passed(begin.max(1).min(oldest.max(1)), oldest.max(1));
                received.take(sequence.max(1));
                received.ask();
                received.ack();
                prop_assert!(received.come.len() <= RANGES);
            }
        }
    }
}
