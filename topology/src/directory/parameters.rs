//! What the network asks of everyone: rates, delays, limits, and the classes of clients.

use std::collections::HashSet;
use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{DelayLaw, Error};

/// The traffic shape of a client: all that an observer of its link sees.
///
/// All slots are fixed: those of each kind follow each other at equal gaps. A table in a file need only have the keys that
/// differ from those of class web.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Class {
    /// What the configuration calls it.
    pub name: String,
    /// λ_P, payload slots, 1/s.
    pub payload_per_s: f64,
    /// λ_L, loop slots, 1/s.
    pub loops_per_s: f64,
    /// Share of empty payload slots that carry a loop to oneself, 0 to 1.
    pub loop_share: f64,
    /// Frames down, at fixed instants, 1/s.
    pub down_per_s: f64,
    /// The law of a packet's delay in the mixes.
    pub delay: DelayLaw,
    /// What share of the network's packets is expected to be of this class, as a number that is compared with those of
    /// the other classes. Loops of nodes take the law of a class that is drawn by it.
    pub weight: f64,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            name: String::new(),
            payload_per_s: 50.0,
            loops_per_s: 5.0,
            loop_share: 0.5,
            down_per_s: 110.0,
            delay: DelayLaw::INTERACTIVE,
            weight: 0.55,
        }
    }
}

/// Classes of fewer payload slots than this, 1/s, keep some for letters. In faster ones nobody finds what a letter leaves out among so
/// much that arrives; and slots that never carry loops would show there whose loops, or calls, they are missing from.
const SLOW_PER_S: f64 = 5.0;

impl Class {
    /// Share of the payload slots that are kept for letters and never carry loops: half of those without a loop, in a slow class.
    pub fn letter_share(&self) -> f64 {
        if self.payload_per_s < SLOW_PER_S { (1.0 - self.loop_share) / 2.0 } else { 0.0 }
    }

    /// Letters/s that the slots which may carry them take, and loops of their readers make way for.
    pub fn letters_per_s(&self) -> f64 {
        let kept = self.letter_share();
        let free = if kept > 0.0 { kept } else { 1.0 - self.loop_share };
        free.min(self.loop_share) * self.payload_per_s
    }

    /// Packets/s that a service may send to a client of this class: 0.95 · (down − λ_L).
    pub fn budget_per_s(&self) -> f64 {
        0.95 * (self.down_per_s - self.loops_per_s)
    }

    /// Bytes per day, up and down, that the class costs, counting frames alone.
    pub fn bytes_per_day(&self) -> (u64, u64) {
        let day = 86_400.0 * shoal_sphinx::FRAME_LEN as f64;
        (((self.payload_per_s + self.loops_per_s) * day) as u64, (self.down_per_s * day) as u64)
    }

    fn check(&self) -> Result<(), Error> {
        let sound = |rate: f64| rate.is_finite() && (0.01..=100_000.0).contains(&rate);
        let wrong = |why: &str| {
            Err(Error::Invalid { what: "class table", why: format!("class {}: {why}", self.name) })
        };
        if ![self.payload_per_s, self.loops_per_s, self.down_per_s].into_iter().all(sound) {
            return wrong("rates must lie between 0.01 and 100,000 per second");
        }
        if !(0.0..=1.0).contains(&self.loop_share) {
            return wrong("the loop share must lie between 0 and 1");
        }
        if self.down_per_s <= self.loops_per_s {
            return wrong("the downlink must exceed the rate of loops");
        }
        if self.name.is_empty() || self.name.len() > 32 {
            return wrong("a name has 1 to 32 bytes");
        }
        if !self.delay.hides_phase_of(self.payload_per_s) {
            return wrong(
                "the uniform delay must last one period of the payload slots, or a whole number of them: else arrivals \
                 keep the phase of the slots, and a gateway tells a client's loops from packets of others by it",
            );
        }
        if !self.weight.is_finite() || !(0.0..=1e6).contains(&self.weight) {
            return wrong("the weight must lie between 0 and 1,000,000");
        }
        Ok(())
    }
}

/// What an epoch document fixes for everyone. A file need only have the keys that are not as usual.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// L, mixing layers.
    pub layers: u8,
    /// Least number of mixes in each layer; with fewer a document is refused.
    pub min_mixes_per_layer: u16,
    /// A mix that declares to take fewer packets/s is not listed: all mixes of a layer are drawn alike, so the slowest says how
    /// much of its layer's traffic is lost.
    pub min_packets_per_s: u32,
    /// True if jurisdictions on a path must differ, beside operators.
    pub distinct_jurisdictions: bool,
    /// The longest delay that a node grants, microseconds; a packet that asks for more is dropped.
    pub max_delay_us: u64,
    /// How far clocks may be apart, seconds.
    pub clock_error_s: u32,
    /// Loops that every node sends, 1/s.
    pub node_loops_per_s: f64,
    /// Layers are drawn anew every so many epochs.
    pub draw_every: u32,
    /// A loop that takes so much longer than its delays and what loops take otherwise counts as lost, microseconds.
    pub loop_late_us: u64,
    /// Below so many bits of expected anonymity clients warn.
    pub warn_bits: f64,
    /// And below so many they send nothing of the user's.
    pub refuse_bits: f64,
    /// Packets that an inbox holds for a client that is away.
    pub inbox_packets: u32,
    /// How long it holds them, seconds.
    pub inbox_expiry_s: u32,
    /// The classes of clients.
    pub classes: Vec<Class>,
    /// True if the network was founded for trial. Authorities take it from their network file and from nowhere else
    /// ([`crate::Network::trial`]).
    pub trial: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        let class = |name: &str, rates: [f64; 4], delay, weight| {
            let [payload_per_s, loops_per_s, loop_share, down_per_s] = rates;
            let name = name.into();
            Class { name, payload_per_s, loops_per_s, loop_share, down_per_s, delay, weight }
        };
        let interactive = DelayLaw::INTERACTIVE;
        let text = DelayLaw { exponential_us: 200_000, uniform_us: 1_000_000 };
        Self {
            layers: 3,
            min_mixes_per_layer: 2,
            min_packets_per_s: 100,
            distinct_jurisdictions: false,
            max_delay_us: 5_000_000,
            clock_error_s: 30,
            node_loops_per_s: 2.0,
            draw_every: 72,
            loop_late_us: 300_000,
            warn_bits: 6.0,
            refuse_bits: 3.0,
            inbox_packets: 5_000,
            inbox_expiry_s: 7 * 86_400,
            classes: vec![
                class("text", [1.0, 0.2, 0.5, 2.0], text, 0.02),
                class("call", [25.0, 2.0, 0.9, 50.0], interactive, 0.28),
                class("web", [50.0, 5.0, 0.5, 110.0], interactive, 0.55),
                class("fast", [150.0, 10.0, 0.5, 300.0], interactive, 0.15),
            ],
            trial: false,
        }
    }
}

impl Parameters {
    /// The class of this name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// The law of delay of a class that is drawn by its share of the traffic; of the first one if all weigh nothing.
    /// What nodes send looks to a mix as what clients send. `None` where there is no class.
    pub fn draw_delay_law(&self, rng: &mut impl Rng) -> Option<DelayLaw> {
        let all: f64 = self.classes.iter().map(|class| class.weight).sum();
        let mut left = rng.random::<f64>() * all;
        let drawn = self.classes.iter().find(|class| {
            left -= class.weight;
            left < 0.0
        });
        drawn.or(self.classes.first()).map(|class| class.delay)
    }

    /// The longest delay that a node grants.
    pub fn max_delay(&self) -> Duration {
        Duration::from_micros(self.max_delay_us)
    }

    /// How long after the end of an epoch its keys open packets: L times the longest delay, and how far clocks may be
    /// apart.
    pub fn key_grace(&self) -> Duration {
        self.max_delay() * u32::from(self.layers)
            + Duration::from_secs(u64::from(self.clock_error_s))
    }

    /// Checks all values.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        let wrong =
            |why: &str| Err(Error::Invalid { what: "table of parameters", why: why.into() });
        if self.draw_every == 0 {
            return wrong("layers are drawn every epoch, or every few");
        }
        if ![self.warn_bits, self.refuse_bits].iter().all(|bits| (0.0..=64.0).contains(bits)) {
            return wrong("the floors of anonymity must lie between 0 and 64 bits");
        }
        if !(1..=3).contains(&self.layers) {
            return wrong("there are 1 to 3 layers: a packet has room for 5 hops");
        }
        if !self.node_loops_per_s.is_finite() || !(0.0..=10_000.0).contains(&self.node_loops_per_s)
        {
            return wrong("the nodes' rate of loops must lie between 0 and 10,000 per second");
        }
        if self.max_delay_us == 0 || self.max_delay_us > 600_000_000 {
            return wrong("the longest delay must lie between 1 µs and 10 minutes");
        }
        if self.classes.is_empty() || self.classes.len() > 64 {
            return wrong("there are 1 to 64 classes");
        }
        let names: HashSet<&str> = self.classes.iter().map(|class| class.name.as_str()).collect();
        if names.len() < self.classes.len() {
            return wrong("two classes have the same name");
        }
        let too_long = |law: DelayLaw| law.exponential_us.max(law.uniform_us) > self.max_delay_us;
        if self.classes.iter().any(|class| too_long(class.delay)) {
            return wrong("a class asks for a delay that no node grants");
        }
        self.classes.iter().try_for_each(Class::check)
    }
}
