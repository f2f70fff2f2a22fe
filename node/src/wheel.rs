//! The delay pool: a hierarchical timing wheel (Varghese and Lauck, SOSP 1987) that gives its entries back in the
//! exact order of (time, insertion).
//!
//! A slot of the lowest level spans 2^16 ns. Entries are put by the highest group of six bits in which their tick
//! differs from the cursor's, so that everything in a lower level comes before everything in a higher one. What is
//! due within one tick passes through a small heap, which gives the order to the nanosecond.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use shoal_topology::Time;

const TICK_BITS: u32 = 16;
const GROUP_BITS: u32 = 6;
const SLOTS: usize = 1 << GROUP_BITS;
/// 8 groups of 6 bits are the 48 bits of a tick: no time lies beyond the wheel.
const LEVELS: usize = 8;
/// A slot that once held more than this gives its memory back when it is emptied.
const KEPT_CAPACITY: usize = 1_024;

/// Something that waits, with the number that orders those of one instant.
struct Scheduled<T> {
    at: Time,
    sequence: u64,
    value: T,
}

impl<T> Scheduled<T> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.sequence)
    }
}

impl<T> PartialEq for Scheduled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Scheduled<T> {}

impl<T> PartialOrd for Scheduled<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Turned round: the heap gives its greatest, and wanted is the earliest.
impl<T> Ord for Scheduled<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

struct Slot<T> {
    earliest: Time,
    entries: Vec<Scheduled<T>>,
}

struct Level<T> {
    /// One bit for each slot that holds something.
    occupied: u64,
    slots: Vec<Slot<T>>,
}

/// Things that become due. Inserting is O(1); the caller bounds how many there are by [`Wheel::len`].
pub struct Wheel<T> {
    /// The tick whose entries, and all earlier ones, are in `ready`.
    cursor: u64,
    ready: BinaryHeap<Scheduled<T>>,
    levels: Vec<Level<T>>,
    sequence: u64,
    len: usize,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub fn new() -> Self {
        let slot = || Slot { earliest: Time::NEVER, entries: Vec::new() };
        let level = || Level { occupied: 0, slots: (0..SLOTS).map(|_| slot()).collect() };
        Self {
            cursor: 0,
            ready: BinaryHeap::new(),
            levels: (0..LEVELS).map(|_| level()).collect(),
            sequence: 0,
            len: 0,
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry that is due at `at`; a time that has passed is due at once.
    pub fn insert(&mut self, at: Time, value: T) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.len += 1;
        self.place(Scheduled { at, sequence, value });
    }

    /// When the earliest entry is due, exactly.
    pub fn next_deadline(&self) -> Option<Time> {
        if let Some(entry) = self.ready.peek() {
            return Some(entry.at);
        }
        let (level, slot) = self.first_slot()?;
        Some(self.levels.get(level)?.slots.get(slot)?.earliest)
    }

    /// The earliest entry that is due at `now`, with the instant for which it was meant.
    pub fn pop(&mut self, now: Time) -> Option<(Time, T)> {
        while self.ready.is_empty() {
            if self.is_empty() {
                // Nothing can be left behind: start afresh near the present, so that little must cascade.
                self.cursor = self.cursor.max(tick(now));
                return None;
            }
            if self.next_deadline().is_none_or(|at| at > now) {
                return None;
            }
            self.expand();
        }
        if self.ready.peek().is_none_or(|entry| entry.at > now) {
            return None;
        }
        let entry = self.ready.pop()?;
        self.len -= 1;
        Some((entry.at, entry.value))
    }

    fn place(&mut self, entry: Scheduled<T>) {
        let tick = tick(entry.at);
        // The slots of this tick have been emptied already, so nobody would look there again. The heap has the order.
        if tick <= self.cursor {
            self.ready.push(entry);
            return;
        }
        // The highest group that differs. All groups above it are the cursor's, so within the level a slot's index
        // alone says which comes first.
        let level = (tick ^ self.cursor).ilog2() / GROUP_BITS;
        let index = (tick >> (level * GROUP_BITS)) as usize % SLOTS;
        let Some(level) = self.levels.get_mut(level as usize) else { return };
        let Some(slot) = level.slots.get_mut(index) else { return };
        level.occupied |= 1 << index;
        // Kept beside the entries: the next deadline is asked for after each call, and a slot may hold thousands.
        slot.earliest = slot.earliest.min(entry.at);
        slot.entries.push(entry);
    }

    /// Level and index of the slot that comes first in time.
    fn first_slot(&self) -> Option<(usize, usize)> {
        // A lower level comes before a higher one as a whole (see the module), so the first that holds anything has
        // it.
        let (number, level) =
            self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        Some((number, level.occupied.trailing_zeros() as usize))
    }

    /// Moves the cursor to the first slot and spreads what is in it over `ready` and the lower levels.
    fn expand(&mut self) {
        let Some((number, index)) = self.first_slot() else { return };
        let Some(level) = self.levels.get_mut(number) else { return };
        let Some(slot) = level.slots.get_mut(index) else { return };
        level.occupied &= !(1 << index);
        slot.earliest = Time::NEVER;
        // Taken out, since placing them again borrows the levels; none of them comes back into this slot.
        let mut entries = std::mem::take(&mut slot.entries);

        // The cursor goes to the slot's first tick: groups above stay, its own becomes the index, those below become
        // zero. So each entry finds a lower level, or `ready`.
        let shift = number as u32 * GROUP_BITS;
        let above = shift + GROUP_BITS;
        self.cursor = (self.cursor >> above << above) | (index as u64) << shift;
        for entry in entries.drain(..) {
            self.place(entry);
        }
        if entries.capacity() <= KEPT_CAPACITY
            && let Some(slot) = self.levels.get_mut(number).and_then(|l| l.slots.get_mut(index))
        {
            slot.entries = entries;
        }
    }
}

fn tick(at: Time) -> u64 {
    at.as_nanos() >> TICK_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // All scales: within a tick, within a level, far beyond, "never".
        let span = prop_oneof![
            0u64..3,
            0u64..100_000,
            0u64..50_000_000,
            0u64..10_000_000_000,
            any::<u64>(),
        ];
        prop_oneof![3 => span.clone().prop_map(Step::Insert), 1 => (0u64..60_000_000).prop_map(Step::Advance)]
    }

    proptest! {
        #[test]
        fn entries_come_back_in_the_order_of_time_and_insertion(
            start in 0u64..1 << 40,
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let (mut now, mut number) = (start, 0u64);
            for step in steps {
                match step {
                    Step::Insert(delay) => {
                        let at = now.saturating_add(delay);
                        wheel.insert(Time::from_nanos(at), number);
                        model.insert((at, number), ());
                        number += 1;
                    }
                    Step::Advance(by) => {
                        now += by;
                        while let Some((at, value)) = wheel.pop(Time::from_nanos(now)) {
                            let ((expected, order), ()) = model.pop_first().unwrap();
                            prop_assert_eq!((at.as_nanos(), value), (expected, order));
                            prop_assert!(at.as_nanos() <= now);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.first_key_value().map(|((at, _), ())| *at);
                prop_assert_eq!(wheel.next_deadline().map(Time::as_nanos), first);
                prop_assert!(first.is_none_or(|at| at > now || wheel.pop(Time::ZERO).is_none()));
            }
            while let Some((at, value)) = wheel.pop(Time::NEVER) {
                let ((expected, order), ()) = model.pop_first().unwrap();
                prop_assert_eq!((at.as_nanos(), value), (expected, order));
            }
            prop_assert!(model.is_empty());
        }
    }
}
