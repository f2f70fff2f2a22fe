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
//! 2·r·(1 − S/µ): by nothing only if arrivals at rest vary as a Poisson stream does. A coin for each slot has S = µ·(1 − p):
//! it is too even, and two messages in three seconds show in how counts of 0.1 to 2 s vary. A coin for a run of m slots, m drawn
//! too where no whole number will do, has S = µ·(1 − p)·E[m²]/E[m]: that of a Poisson stream for E[m²]/E[m] = 1/(1 − p), up to frequencies at which the delays
//! hide the slots anyway. Class call, with p near 1, stays too even: longer runs would tear gaps into speech.
//!
//! **Which slots are the letters'.** A slot with a letter has no loop. If letters take slots that a coin left without one, then who
//! has both gateways sees fewer loops come back to the writer about when a letter comes to the reader. In class text, where
//! little arrives, a thousand letters told who wrote to whom. So there some slots are kept for letters, at even distances, and carry
//! drop cover else: coins are thrown for the others alone, and say nothing of when a letter leaves. In faster classes that trace is
//! lost in what arrives, and slots that never carry loops would show whether what comes are one's own loops or a call.

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

/// The longest run of slots that one coin is thrown for.
const RUN: f64 = 3.0;
/// Where most slots carry loops a longer one without any would be heard in speech.
const RUN_OF_EVEN: f64 = 2.0;
/// From this share of loops on.
const EVEN: f64 = 0.75;

/// The account of loops: those that payload slots owe, less those that packets from others have taken the place of.
pub(super) struct Account {
    coins: Stream,
    settling: Stream,
    /// What the coin said that was thrown last, and for how many slots more it says so.
    coin: (bool, u32),
    /// How much of a slot for letters has gathered; with 1 there is one.
    letters: f64,
    owed: f64,
}

impl Account {
    pub(super) fn new(seed: &Seed) -> Self {
        let (coins, settling) = (seed.stream("loop coins"), seed.stream("settling of loops"));
        let letters = seed.stream("slots for letters").random();
        Self { coins, settling, coin: (false, 0), letters, owed: 0.0 }
    }

    /// What chance has for the next payload slot: see the module.
    pub(super) fn chance(&mut self, class: &Class) -> Chance {
        // Streams are read whatever the account says, so that their states do not depend on what arrived.
        let settle = self.settling.random();
        self.letters += class.letter_share();
        if self.letters >= 1.0 {
            self.letters -= 1.0;
            return Chance { chosen: false, is_for_letters: true, settle };
        }
        if self.coin.1 == 0 {
            let share = class.loop_share / (1.0 - class.letter_share());
            self.coin = (self.coins.random::<f64>() < share, run(share, &mut self.coins));
        }
        self.coin.1 -= 1;
        Chance { chosen: self.coin.0, is_for_letters: false, settle }
    }

    /// What a payload slot carries if nothing of the user's does, and what that did to the account.
    pub(super) fn fill(&mut self, class: &Class, chance: Chance) -> (Fill, f64) {
        // Credits are settled in slots that chance chose for loops, debts in the others. How many there are of either
        // follows from the class, and the chance makes up for it: both stay open equally long on average.
        let unchosen = 1.0 - class.loop_share - class.letter_share();
        let share = if chance.chosen { class.loop_share } else { unchosen };
        let within = (SETTLED_WITHIN_S * class.payload_per_s).max(SETTLED_WITHIN_SLOTS);
        let slots = within * share;
        let settles = |open: f64| open >= 1.0 && chance.settle * slots < open;
        if chance.is_for_letters {
            return (Fill::Drop, 0.0);
        }
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

/// How many slots a coin is thrown for that says loops with this chance: one of two lengths beside each other.
fn run(share: f64, lengths: &mut Stream) -> u32 {
    let most = if share > EVEN { RUN_OF_EVEN } else { RUN };
    let wanted = (1.0 / (1.0 - share).max(f64::EPSILON)).min(most);
    // 2/3 is none that a float has: what is a whole number but for that is one.
    let wanted = (wanted * 1e9).round() / 1e9;
    let short = wanted.floor();
    // So that E[m²]/E[m] is what is wanted.
    let chance_of_long = short * (wanted - short) / (2.0 * short + 1.0 - wanted);
    let is_long = chance_of_long > 0.0 && lengths.random::<f64>() < chance_of_long;
    short as u32 + u32::from(is_long)
}
