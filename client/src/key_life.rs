//! For how long the keys of a client's periods are used and kept.
//!
//! The program keeps the keys on disk and the simulator in memory; when one begins, ends and is erased is said here for both.

use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time for which a key opens packets after its period, of a client to which nobody writes while it is away.
pub(crate) const GRACE_S: u64 = 3_600;
/// For so many periods after its own a descriptor of a person holds, who may be away all the while; then packets may wait at
/// the gateway for as many again. Longer periods than a day count as a day.
const AWAY: u64 = 7;
const DAY_S: u64 = 86_400;

/// A period's descriptor goes to the gateway so long after it began, in a slot.
pub const RENEWED_AFTER: Duration = Duration::from_secs(30);
/// When no letter has come over a link for so long, none waits at the gateway.
pub const DRAINED: Duration = Duration::from_secs(60);

/// Who sends to a client by what it has published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// Those who talk to it, while it is here.
    WhileHere,
    /// Whoever has its address, also while it is away.
    WhileAway,
}

/// The life of keys that each belong to a period. All instants are seconds of Unix time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLife {
    length_s: u64,
    reached: Reached,
}

impl KeyLife {
    /// Of periods of this length, in seconds.
    pub fn new(length_s: u64, reached: Reached) -> Self {
        Self { length_s: length_s.max(1), reached }
    }

    /// Who sends to the client.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// When the period begins in which an instant lies.
    pub fn begins(&self, unix_s: u64) -> u64 {
        unix_s / self.length_s * self.length_s
    }

    /// When the period ends in which a key was made.
    pub fn ends(&self, made: u64) -> u64 {
        (made / self.length_s + 1).saturating_mul(self.length_s)
    }

    /// An instant for which there must be a key already: half a period ahead.
    pub fn ahead(&self, unix_s: u64) -> u64 {
        unix_s.saturating_add(self.length_s / 2)
    }

    /// Until when others seal to a key.
    pub fn used_until(&self, made: u64) -> u64 {
        let used_s = match self.reached {
            Reached::WhileHere => self.kept_s(),
            Reached::WhileAway => self.kept_s() / 2,
        };
        self.ends(made) + used_s
    }

    /// When a key opens nothing any more, after which the next one was made at `next`.
    pub fn over(&self, made: u64, next: u64) -> u64 {
        // Who was away has no key of the periods in between; what was told of this one ends all the same.
        let ends = match self.reached {
            Reached::WhileHere => next,
            Reached::WhileAway => self.ends(made),
        };
        ends.saturating_add(self.kept_s())
    }

    /// What is written down of the instant at which a gateway was told of a key: the disk need not say when its owner was
    /// here.
    pub fn told_at(&self, unix_s: u64) -> u64 {
        let grain = (self.length_s / 24).max(1);
        unix_s.div_ceil(grain) * grain
    }

    /// Where nothing waits at the gateway any more, the newest key of which it was told so long ago that nobody seals to an
    /// earlier one. `told` has when it was told of which key, by when that was made; `made` has those that there are.
    pub fn settled<'a>(
        &self,
        told: &BTreeMap<u64, u64>,
        made: impl DoubleEndedIterator<Item = &'a u64>,
        unix_s: u64,
    ) -> Option<u64> {
        let since = unix_s.saturating_sub(self.length_s.min(DAY_S));
        let known = |made: &&u64| told.get(made).is_some_and(|told| *told <= since);
        made.rev().find(known).copied()
    }

    /// For how long a key opens packets after its period, seconds: an hour and less where periods are short, or twice as long
    /// as a person may be away.
    fn kept_s(&self) -> u64 {
        match self.reached {
            Reached::WhileHere => GRACE_S.min(self.length_s / 4),
            Reached::WhileAway => 2 * AWAY * self.length_s.min(DAY_S),
        }
    }
}
