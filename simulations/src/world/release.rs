//! A trial: the first mix lets a packet go at an instant that counts from its slot, not from its arrival.
//!
//! A header can only ask for a delay from arrival, and a client cannot foresee when a frame arrives. So this stands for
//! an absolute instant in the header, and for mixes and clients whose clocks agree: the world carries the slots along.

use std::collections::HashMap;
use std::time::Duration;

use shoal_sphinx::Packet;
use shoal_topology::{Seed, Stream, Time, exponential};

use super::settings::Settings;
use super::spans::millis;

/// The slots of packets that are on their way to their first mix.
pub(super) struct Release {
    at: Duration,
    spread: Duration,
    rng: Stream,
    slots: HashMap<[u8; 16], Time>,
    late: u64,
    released: u64,
}

impl Release {
    pub(super) fn new(settings: &Settings, seed: &Seed) -> Self {
        let trial = &settings.trial;
        Self {
            at: millis(trial.release_ms),
            spread: millis(trial.release_spread_ms),
            rng: seed.stream("releases"),
            slots: HashMap::new(),
            late: 0,
            released: 0,
        }
    }

    /// A client sent this in a slot.
    pub(super) fn sent(&mut self, slot: Time, packet: &Packet) {
        if !self.at.is_zero() {
            self.slots.insert(name(packet), slot);
        }
    }

    /// The slot of a packet that comes to a mix, if that is its first.
    pub(super) fn slot(&mut self, packet: &Packet) -> Option<Time> {
        if self.at.is_zero() { None } else { self.slots.remove(&name(packet)) }
    }

    /// How long the first mix keeps what came now.
    pub(super) fn delay(&mut self, now: Time, slot: Time) -> Duration {
        let spread = exponential(&mut self.rng, self.spread);
        let due = slot + self.at + spread;
        self.released += 1;
        self.late += u64::from(due < now);
        due.since(now)
    }

    /// The share of packets that came too late for their instant.
    pub(super) fn late_share(&self) -> Option<f64> {
        (self.released > 0).then(|| self.late as f64 / self.released as f64)
    }
}

fn name(packet: &Packet) -> [u8; 16] {
    packet.as_bytes().first_chunk().copied().unwrap_or_default()
}
