//! Which empty payload slots carry loops, so that what arrives for a client keeps its resting rate and comes near its
//! resting law. It does not reach it: bursts of messages show at the reader's gateway (THREAT-MODEL says how much).
//!
//! What comes from others takes the place of loops: each arrival is a credit, and a payload slot that was to carry a loop
//! carries drop cover instead. That keeps the mean. For the law two things matter besides.
//!
//! **When a credit is settled.** At once would answer each message with a gap a round trip later, for ever at the same lag.
//! So each open credit, and each loop that is owed, is settled in any of the slots that may with the same small chance:
//! after a second on average, and faster the more there are.
//!
//! **What loops at rest vary by.** Messages come as a Poisson stream, of spectrum r; loops that are thinned to make room for
//! them lose r·(2·S/µ − 1), where µ is the rate of what arrives and S its spectrum at rest. The sum moves by
//! 2·r·(1 − S/µ): by nothing only if arrivals at rest vary as a Poisson stream does. A coin for each slot has S = µ·(1 − p),
//! half of that for p = ½: it is too even, and two messages in three seconds show in how counts of 0.1 to 2 s vary. A coin
//! for two slots has S = 2·µ·(1 − p): for p = ½ that of a Poisson stream, up to frequencies at which the delays hide the
//! slots anyway. Class call, with p = 0.9, stays too even: longer runs would tear gaps into speech.

use rand::RngExt;
use shoal_topology::{Class, Seed, Stream};

use super::plan::{Chance, Fill};

/// How long a debt, or a credit, stays open on average, seconds. Whoever settled it at once would answer each message
/// with a gap a round trip later.
const SETTLED_WITHIN_S: f64 = 1.0;
/// And no sooner than in so many payload slots: in a class of few slots a second has one.
const SETTLED_WITHIN_SLOTS: f64 = 8.0;
/// Loops that may be owed, or may have been taken the place of, at least: a burst of messages in a class of few slots.
const LEAST_BOUND: f64 = 16.0;

/// The account of loops: those that payload slots owe, less those that packets from others have taken the place of.
pub(super) struct Account {
    coins: Stream,
    settling: Stream,
    /// What the coin said for the slot that comes, if it was thrown for the one before.
    second: Option<bool>,
    owed: f64,
}

impl Account {
    pub(super) fn new(seed: &Seed) -> Self {
        let (coins, settling) = (seed.stream("loop coins"), seed.stream("settling of loops"));
        Self { coins, settling, second: None, owed: 0.0 }
    }

    /// What chance has for the next payload slot. One coin is thrown for two slots: see the module.
    pub(super) fn chance(&mut self, class: &Class) -> Chance {
        // The stream is read whatever the account says, so that its state does not depend on what arrived.
        let chosen = self.second.take().unwrap_or_else(|| {
            let chosen = self.coins.random::<f64>() < class.loop_share;
            self.second = Some(chosen);
            chosen
        });
        Chance { chosen, settle: self.settling.random() }
    }

    /// What a payload slot carries if nothing of the user's does, and what that did to the account.
    pub(super) fn fill(&mut self, class: &Class, chance: Chance) -> (Fill, f64) {
        // Credits are settled in slots that chance chose for loops, debts in the others. How many there are of either
        // follows from the class, and the chance makes up for it: both stay open equally long on average.
        let share = if chance.chosen { class.loop_share } else { 1.0 - class.loop_share };
        let within = (SETTLED_WITHIN_S * class.payload_per_s).max(SETTLED_WITHIN_SLOTS);
        let slots = within * share;
        let settles = |open: f64| open >= 1.0 && chance.settle * slots < open;
        match chance.chosen {
            true if settles(-self.owed) => (Fill::Drop, self.book(class, 1.0)),
            true => (Fill::Loop, 0.0),
            false if settles(self.owed) => (Fill::Loop, self.book(class, -1.0)),
            false => (Fill::Drop, 0.0),
        }
    }

    /// Adds loops that are owed, or takes off those that are not. Bounded to a second of slots and [`LEAST_BOUND`], either way.
    /// Returns what was added.
    pub(super) fn book(&mut self, class: &Class, loops: f64) -> f64 {
        // Without a bound a flood of packets would keep loops out of payload slots long after it has ended.
        let most = class.payload_per_s.max(LEAST_BOUND);
        self.owed = (self.owed + loops).clamp(-most, most);
        loops
    }
}
