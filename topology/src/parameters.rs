//! What the network asks of everyone: rates, delays, limits, and the classes of clients.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The law by which payload slots follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Law {
    /// Exponential gaps.
    Poisson,
    /// Equal gaps.
    Fixed,
}

/// How long a client keeps the path of its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Routes {
    /// A new path for every packet.
    Fresh,
    /// The same path for this many seconds.
    KeptSeconds(u32),
}

/// The traffic shape of a client: all that an observer of its link sees.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    /// Law of the payload slots.
    pub law: Law,
    /// 1/µ, mean delay at a mix, microseconds.
    pub mean_delay_us: u64,
    /// How long a path is kept.
    pub routes: Routes,
}

impl Class {
    /// 1/µ.
    pub fn mean_delay(&self) -> Duration {
        Duration::from_micros(self.mean_delay_us)
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
        Ok(())
    }
}

/// What an epoch document fixes for everyone. A file need only have the keys that are not as usual.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// L, mixing layers.
    pub layers: u8,
    /// Least number of mixes in each layer; with fewer a document is refused.
    pub min_mixes_per_layer: u16,
    /// Whether jurisdictions on a path must differ, beside operators.
    pub distinct_jurisdictions: bool,
    /// The longest delay that a node grants, microseconds; a packet that asks for more is dropped.
    pub max_delay_us: u64,
    /// How far clocks may be apart, seconds.
    pub clock_error_s: u32,
    /// Loops that every node sends, 1/s.
    pub node_loops_per_s: f64,
    /// Mean delay at a hop of a node's loop, microseconds.
    pub node_loop_delay_us: u64,
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
}

impl Default for Parameters {
    fn default() -> Self {
        let class = |name: &str, payload, loops, share, down, law, delay_ms: u64, routes| Class {
            name: name.into(),
            payload_per_s: payload,
            loops_per_s: loops,
            loop_share: share,
            down_per_s: down,
            law,
            mean_delay_us: delay_ms * 1000,
            routes,
        };
        let (poisson, fresh) = (Law::Poisson, Routes::Fresh);
        Self {
            layers: 3,
            min_mixes_per_layer: 2,
            distinct_jurisdictions: false,
            max_delay_us: 5_000_000,
            clock_error_s: 30,
            node_loops_per_s: 2.0,
            node_loop_delay_us: 50_000,
            draw_every: 72,
            loop_late_us: 300_000,
            warn_bits: 6.0,
            refuse_bits: 3.0,
            inbox_packets: 1_000,
            inbox_expiry_s: 3_600,
            classes: vec![
                class("text", 1.0, 0.2, 0.5, 2.0, poisson, 200, fresh),
                class("web", 45.0, 5.0, 0.5, 110.0, poisson, 15, fresh),
                class("fast", 140.0, 10.0, 0.5, 300.0, poisson, 15, fresh),
                class("call", 25.0, 2.0, 1.0, 50.0, Law::Fixed, 10, Routes::KeptSeconds(300)),
            ],
        }
    }
}

impl Parameters {
    /// The class of this name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
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
        let wrong = |why: &str| Err(Error::Invalid { what: "parameters", why: why.into() });
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
        if self.classes.iter().any(|class| class.mean_delay_us > self.max_delay_us) {
            return wrong("a class asks for a mean delay that no node grants");
        }
        self.classes.iter().try_for_each(Class::check)
    }
}
