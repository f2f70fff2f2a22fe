//! Experiments `fifo` and `slots`: the order of two packets, and the queue before a client's slots.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use super::engine::{PoissonEngine, PoissonPacket};
use super::network::{StratifiedNetwork, Width};
use super::tracked::{Poisson, lifetime_s};
use super::{figure, theory};
use crate::experiment::{Context, Experiment, Outcome, Wrong};
use crate::stats::{self, Moments};

/// Two packets, one after the other: how often they leave in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fifo {
    /// L, hops with exponential delays.
    pub hops: u32,
    /// Time between the two, in mean hop delays.
    pub gap_in_hop_means: f64,
    /// Mean hop delay, seconds.
    pub hop_mean_s: f64,
    /// How many pairs of packets are sent.
    pub pairs: u64,
}

impl Default for Fifo {
    fn default() -> Self {
        Self { hops: 3, gap_in_hop_means: 1.0, hop_mean_s: 0.05, pairs: 100_000 }
    }
}

impl Fifo {
    /// How many pairs leave in order.
    pub fn simulate(&self, seed: &Seed, progress: &(dyn Fn(f64) + Sync)) -> u64 {
        let network = StratifiedNetwork {
            layers: self.hops,
            width: Width::Same(1),
            hop_mean_s: self.hop_mean_s,
            ..StratifiedNetwork::default()
        };
        let mut engine = PoissonEngine::new(&network, 0, seed);
        let gap = (self.gap_in_hop_means * self.hop_mean_s * 1e9) as u64;
        // So that no pair meets the one before, and pairs are independent.
        let apart = gap + (lifetime_s(&network, 1e-12) * 1e9) as u64;
        let mut ordered = 0;
        let (mut at, mut last) = (0u64, None);
        for pair in 0..self.pairs {
            for mark in 0..2 {
                let sent = Time::from_nanos(at + u64::from(mark) * gap);
                engine.advance(sent, |exit| last = Some(exit.packet.mark));
                engine.send(PoissonPacket::new(sent, 0, mark), None);
            }
            at += apart;
            engine.advance(Time::from_nanos(at), |exit| last = Some(exit.packet.mark));
            // Of two packets the second came last: they are in order.
            ordered += u64::from(last == Some(1));
            if pair.is_multiple_of(1 << 14) {
                progress(pair as f64 / self.pairs as f64);
            }
        }
        ordered
    }
}

impl Experiment for Fifo {
    fn check(&self) -> Result<(), Wrong> {
        if !(1..=20).contains(&self.hops) {
            return Err(Wrong::new("hops", "must be 1 to 20"));
        }
        if !(0.0..=1e3).contains(&self.gap_in_hop_means) {
            return Err(Wrong::new("gap_in_hop_means", "must be 0 to 1000"));
        }
        if !(1e-6..=100.0).contains(&self.hop_mean_s) {
            return Err(Wrong::new("hop_mean_s", "must be 0.000001 to 100"));
        }
        if !(1..=10_000_000).contains(&self.pairs) {
            return Err(Wrong::new("pairs", "must be 1 to 10000000"));
        }
        let span = self.pairs as f64 * self.hop_mean_s * (self.gap_in_hop_means + 70.0);
        if span > 1e10 {
            return Err(Wrong::new("pairs", "must be fewer with delays of this length"));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("fifo");
        let ordered = self.simulate(&seed, context.progress);
        let expected = theory::in_order(self.hops, self.gap_in_hop_means);
        let estimate = stats::proportion(ordered, self.pairs);
        let measured = vec![figure("in_order", "1", estimate, expected)];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

/// A queue of packets that slots at Poisson instants drain, one each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slots {
    /// λ_P, slots per second.
    pub slots_per_s: f64,
    /// r, packets per second that come to the queue; below λ_P.
    pub rate_per_s: f64,
    /// How many packets are sent.
    pub packets: u64,
}

impl Default for Slots {
    fn default() -> Self {
        Self { slots_per_s: 45.0, rate_per_s: 20.0, packets: 500_000 }
    }
}

impl Slots {
    /// Time of each packet in the queue, seconds; the first tenth, while it fills, is left out.
    pub fn simulate(&self, seed: &Seed) -> Vec<f64> {
        let (mut gaps, mut instants) = (seed.stream("packets"), seed.stream("slots"));
        let (mut arriving, mut draining) =
            (Poisson::new(self.rate_per_s), Poisson::new(self.slots_per_s));
        let burn_in = self.packets / 10;
        let mut waited = Vec::with_capacity(self.packets as usize);
        let mut queue = VecDeque::new();
        let mut slot = draining.next(&mut instants);
        for _ in 0..self.packets + burn_in {
            let at = arriving.next(&mut gaps);
            while slot <= at {
                if let Some(came) = queue.pop_front() {
                    waited.push(slot.since(came).as_secs_f64());
                }
                slot = draining.next(&mut instants);
            }
            queue.push_back(at);
        }
        // The queue began empty, so its first packets waited too little.
        waited.split_off((burn_in as usize).min(waited.len()))
    }

    /// Batches that are long compared with the memory of the queue, 1/(√λ_P − √r)².
    pub fn moments(&self, waited: &[f64]) -> Moments {
        let memory = (self.slots_per_s.sqrt() - self.rate_per_s.sqrt()).powi(-2);
        let spans = waited.len() as f64 / self.rate_per_s / memory;
        Moments::of(&stats::batches(waited, (spans / 20.0).clamp(10.0, 50.0) as usize))
    }
}

impl Experiment for Slots {
    fn check(&self) -> Result<(), Wrong> {
        if !(1e-6..=1e7).contains(&self.slots_per_s) {
            return Err(Wrong::new("slots_per_s", "must be 0.000001 to 10000000"));
        }
        if !(self.rate_per_s > 0.0 && self.rate_per_s < self.slots_per_s) {
            return Err(Wrong::new("rate_per_s", "must be above 0 and below slots_per_s"));
        }
        if !(1_000..=100_000_000).contains(&self.packets) {
            return Err(Wrong::new("packets", "must be 1000 to 100000000"));
        }
        let (span, slots) = (self.packets as f64 / self.rate_per_s, self.slots_per_s);
        if span > 1e10 || span * slots > 1e11 {
            let why = "must be higher: 10^11 slots and 10^10 seconds at most";
            return Err(Wrong::new("rate_per_s", why));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let waited = self.simulate(&Seed::from_u64(context.seed).part("slots"));
        let expected = theory::slot_delay_s(self.slots_per_s, self.rate_per_s);
        let estimate = self.moments(&waited).estimate();
        let measured = vec![figure("slot_delay_s", "s", estimate, expected)];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}
