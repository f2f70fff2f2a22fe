//! Who acts against the network in a scenario file, and what is tried with the engines.

use serde::{Deserialize, Serialize};

/// What an active adversary does to links. It acts behind the place of observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attack {
    /// On which links: as in the observer's list.
    pub links: String,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
    /// Until when, seconds of the observation.
    pub end_s: f64,
    /// Share of the packets that it drops.
    pub drop_share: f64,
    /// By how much it delays each, milliseconds. Order is kept.
    pub delay_ms: f64,
    /// Share of the packets behind which it sends a copy.
    pub copy_share: f64,
    /// Share of the packets whose payload it changes.
    pub tag_share: f64,
    /// From `begin_s` on, once every `every_s`, it holds all packets for so long, milliseconds, and then lets them go at
    /// once; 0 for never.
    pub hold_ms: f64,
    /// How often it holds, seconds.
    pub every_s: f64,
}

impl Default for Attack {
    fn default() -> Self {
        Self {
            links: String::new(),
            begin_s: 0.0,
            end_s: f64::MAX,
            drop_share: 0.0,
            delay_ms: 0.0,
            copy_share: 0.0,
            tag_share: 0.0,
            hold_ms: 0.0,
            every_s: 2.0,
        }
    }
}

/// What a corrupt gateway puts in place of dummies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Injected {
    /// Frames of random bytes.
    Garbage,
    /// Packets sealed to the person's key, which its descriptor has.
    Sealed,
    /// Packets that it has sent before, such as loops.
    Replayed,
}

/// A corrupt gateway that injects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Injection {
    /// To whom, by number.
    pub people: Vec<u32>,
    /// What: "garbage", "sealed" or "replayed".
    pub what: Injected,
    /// In place of which share of the dummies.
    pub share: f64,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
}

impl Default for Injection {
    fn default() -> Self {
        Self { people: Vec::new(), what: Injected::Garbage, share: 0.3, begin_s: 0.0 }
    }
}

/// Someone who interrupts the TCP connections of people (RST). They connect again a second later, to the same gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interruption {
    /// Whose, by number.
    pub people: Vec<u32>,
    /// From when on, seconds of the observation.
    pub begin_s: f64,
    /// How often, seconds.
    pub every_s: f64,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { people: Vec::new(), begin_s: 0.0, every_s: 10.0 }
    }
}

/// What is tried with the engines that they do not do in service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trial {
    /// Whether arrivals from others take the place of loops. Without it the gateway sees what arrives beside the loops.
    pub credits: bool,
    /// Whether letters wait a drawn time before they take a slot. Without it a burst arrives as one.
    pub letters_wait: bool,
    /// Whether receipts of messages wait for an hour on average, unless something is written to the same person meanwhile. Without
    /// it they leave as soon as they are owed.
    pub receipts_wait: bool,
    /// A frame leaves its first mix no sooner than so long after the instant of its slot, milliseconds, plus an
    /// exponential delay of mean `release_spread_ms`, in place of the delay that its header asks for; 0 for as it asks. It
    /// stands for an absolute instant in the header, and for clocks that agree.
    pub release_ms: f64,
    /// The mean of that, milliseconds.
    pub release_spread_ms: f64,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            credits: true,
            letters_wait: true,
            receipts_wait: true,
            release_ms: 0.0,
            release_spread_ms: 10.0,
        }
    }
}
