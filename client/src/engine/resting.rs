//! What of a client's link goes to replies that keep to the rate of its loops at rest: all under `protect.strict`, and what the client
//! fetches by itself.

use std::collections::BTreeSet;

use shoal_topology::{Class, Seed, Time};

use super::GroupId;
use super::shares::{Shares, loops_in_slots_per_s};

/// SURBs that may go out at once, beyond the rate of loops.
pub(super) const RATION_BURST: f64 = 32.0;
/// Of that rate and that burst, what comes also while other replies take the place of all loops: 2.5 % of it.
const LEAST_PART: f64 = 0.025;
const LEAST_BURST: f64 = 4.0;

/// The shares of all groups: apart for those that keep to the resting rate where others do not, so that what a client fetches by
/// itself moves nothing that a service is told of the user's.
pub(super) struct AllShares {
    open: Shares,
    resting: Shares,
    at_rest: BTreeSet<GroupId>,
    /// How many SURBs may go out while replies are kept within the resting rate.
    pub(super) ration: Ration,
}

impl AllShares {
    pub(super) fn new(now: Time, seed: &Seed) -> Self {
        let open = Shares::new(now, seed.part("shares"));
        let resting = Shares::new(now, seed.part("shares at rest"));
        Self { open, resting, at_rest: BTreeSet::new(), ration: Ration::new(now) }
    }

    /// A group keeps to the resting rate, and others do not.
    pub(super) fn rests(&mut self, id: GroupId) {
        self.at_rest.insert(id);
    }

    /// The shares among which this group's is.
    pub(super) fn of(&mut self, id: GroupId) -> &mut Shares {
        if self.at_rest.contains(&id) { &mut self.resting } else { &mut self.open }
    }

    /// The part of the whole that a group has.
    pub(super) fn share(&self, id: GroupId) -> f64 {
        if self.at_rest.contains(&id) { self.resting.share(id) } else { self.open.share(id) }
    }

    /// What the service of a group is told.
    pub(super) fn told(&self, id: GroupId, whole_per_s: f64) -> u16 {
        let shares = if self.at_rest.contains(&id) { &self.resting } else { &self.open };
        shares.told(id, whole_per_s)
    }

    /// A group ended.
    pub(super) fn remove(&mut self, id: GroupId) {
        self.of(id).remove(id);
        self.at_rest.remove(&id);
    }

    /// The next instant of a clock by which shares change.
    pub(super) fn next(&self) -> Time {
        let resting = if self.at_rest.is_empty() { Time::NEVER } else { self.resting.next() };
        self.open.next().min(resting)
    }

    /// Instants of the clocks that are due.
    pub(super) fn turn(&mut self, now: Time) {
        self.open.turn(now);
        if !self.at_rest.is_empty() {
            self.resting.turn(now);
        }
    }
}

/// How many SURBs may still go out where replies keep to the resting rate. Over any time no more replies arrive than loops in
/// payload slots would, and the burst, whatever services do. Replies that need not keep to it take the place of loops first:
/// the others get what is left of those, and a little.
pub(super) struct Ration {
    left: f64,
    /// Of the little that comes in any case.
    least: f64,
    counted: Time,
}

impl Ration {
    pub(super) fn new(now: Time) -> Self {
        Self { left: RATION_BURST - LEAST_BURST, least: LEAST_BURST, counted: now }
    }

    fn gain(&mut self, now: Time, class: &Class) {
        let gained = now.since(self.counted).as_secs_f64() * loops_in_slots_per_s(class);
        self.left = (self.left + (1.0 - LEAST_PART) * gained).min(RATION_BURST - LEAST_BURST);
        self.least = (self.least + LEAST_PART * gained).min(LEAST_BURST);
        self.counted = now;
    }

    /// Of so many that are wanted, those that may go out now.
    pub(super) fn take(&mut self, now: Time, class: &Class, wanted: usize) -> usize {
        self.gain(now, class);
        let first = wanted.min(self.left.max(0.0) as usize);
        let second = (wanted - first).min(self.least.max(0.0) as usize);
        self.left -= first as f64;
        self.least -= second as f64;
        first + second
    }

    /// A reply that need not keep to the rate has taken the place of a loop.
    pub(super) fn passed(&mut self, now: Time, class: &Class) {
        self.gain(now, class);
        self.left = (self.left - 1.0).max(-RATION_BURST);
    }
}
