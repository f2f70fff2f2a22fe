//! Flow matching: which flow out of the network is the one that goes in (MixMatch, Oldenburg, Juarez, Argones Rúa and
//! Diaz, PoPETs 2024), by a likelihood ratio instead of their neural network.
//!
//! The configuration is that of Nym by default: a client fills Poisson slots (50/s) with real packets, or with cover
//! to itself when it has none, and sends loops besides (5/s). All pass `hops` mixes (3, mean 50 ms each). The flow's
//! other end is sent its packets as they come, and its own loops (5/s) return to it among them: it downloads or takes
//! an upload, and its own slots hold replies that go elsewhere. A download that fills its slots has
//! `real_share` 1. The observer sees all packets that go in at one end and all that come out at the other, no sizes,
//! and begins in the middle of the flow, so that no start or end gives it away.

mod ratio;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::literature::disclosure::{MixDelay, poisson_times};
use crate::stats;
use ratio::Detector;

/// Settings of experiment `flow-matching`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowMatching {
    /// Mixes on the way.
    pub hops: u32,
    /// Mean delay at each, seconds.
    pub hop_mean_s: f64,
    /// Payload slots of the sending end, 1/s (Poisson).
    pub payload_per_s: f64,
    /// Share of its slots that hold a packet of the flow; the others hold cover to itself.
    pub real_share: f64,
    /// Loops of the sending end, 1/s (Poisson).
    pub loops_per_s: f64,
    /// Cover and loops of the receiving end that return to it, 1/s (Poisson).
    pub receiver_loops_per_s: f64,
    /// Packets that are observed at the receiving end.
    pub observations: u32,
    /// Share of pairs that do not belong together but are taken to.
    pub false_positives: f64,
    /// Flows in a group: each is compared with each of the same group.
    pub flows: u32,
    /// Groups; intervals are over these.
    pub groups: u32,
}

impl Default for FlowMatching {
    fn default() -> Self {
        Self {
            hops: 3,
            hop_mean_s: 0.05,
            payload_per_s: 50.0,
            real_share: 1.0,
            loops_per_s: 5.0,
            receiver_loops_per_s: 5.0,
            observations: 100,
            false_positives: 0.01,
            flows: 60,
            groups: 10,
        }
    }
}

/// A flow as it is seen: instants in and out, seconds; observation begins at zero.
struct SeenFlow {
    sent: Vec<f64>,
    received: Vec<f64>,
}

impl FlowMatching {
    fn delay(&self) -> MixDelay {
        MixDelay::new(self.hops, self.hop_mean_s)
    }

    fn detector(&self) -> Detector {
        let sent = self.payload_per_s + self.loops_per_s;
        let real = self.payload_per_s * self.real_share;
        Detector::new(self.delay(), real / sent, self.receiver_loops_per_s, real)
    }

    /// One flow, from long before the observation until enough packets came out for certain.
    fn flow(&self, rng: &mut Stream) -> SeenFlow {
        let delay = self.delay();
        let out_per_s = self.payload_per_s * self.real_share + self.receiver_loops_per_s;
        let wanted = f64::from(self.observations);
        let end = (wanted + 10.0 * wanted.sqrt() + 20.0) / out_per_s;
        let begin = -delay.longest();
        let mut received = poisson_times(rng, self.receiver_loops_per_s, begin, end);
        let mut sent = Vec::new();
        for at in poisson_times(rng, self.payload_per_s, begin, end) {
            sent.push(at);
            if rng.random::<f64>() < self.real_share {
                received.push(at + delay.sample(rng));
            }
        }
        sent.extend(poisson_times(rng, self.loops_per_s, begin, end));
        sent.sort_by(f64::total_cmp);
        received.retain(|at| *at >= 0.0);
        received.sort_by(f64::total_cmp);
        received.truncate(self.observations as usize);
        SeenFlow { sent, received }
    }

    /// True positives at the false positives that are set, in one group.
    fn group(&self, seed: &Seed) -> f64 {
        let seen = |flow| self.flow(&mut seed.stream(&format!("flow {flow}")));
        let flows: Vec<SeenFlow> = (0..self.flows).map(seen).collect();
        let detector = self.detector();
        let (mut matched, mut others) = (Vec::new(), Vec::new());
        for (i, sender) in flows.iter().enumerate() {
            for (j, receiver) in flows.iter().enumerate() {
                let score = detector.score(&sender.sent, &receiver.received);
                if i == j { matched.push(score) } else { others.push(score) }
            }
        }
        others.sort_by(f64::total_cmp);
        let threshold = stats::quantile(&others, 1.0 - self.false_positives);
        let above = matched.iter().filter(|score| **score > threshold).count();
        above as f64 / matched.len().max(1) as f64
    }

    fn true_positives(&self, seed: u64, progress: &dyn Fn(f64)) -> Estimate {
        let seed = Seed::from_u64(seed).part("flow-matching");
        let mut shares = Vec::new();
        for group in 0..self.groups {
            shares.push(self.group(&seed.part(&format!("group {group}"))));
            progress(f64::from(group + 1) / f64::from(self.groups));
        }
        stats::mean(&shares)
    }
}

impl Experiment for FlowMatching {
    fn check(&self) -> Result<(), Wrong> {
        let within = |key: &str, value: f64, low: f64, high: f64| {
            let wrong = || Wrong::new(key, format!("must be {low} to {high}"));
            (low..=high).contains(&value).then_some(()).ok_or_else(wrong)
        };
        within("hops", f64::from(self.hops), 1.0, 10.0)?;
        within("hop_mean_s", self.hop_mean_s, 1e-6, 1e4)?;
        within("payload_per_s", self.payload_per_s, 1e-3, 1e5)?;
        within("real_share", self.real_share, 1e-3, 1.0)?;
        within("loops_per_s", self.loops_per_s, 0.0, 1e5)?;
        within("receiver_loops_per_s", self.receiver_loops_per_s, 1e-3, 1e5)?;
        within("observations", f64::from(self.observations), 1.0, 1e6)?;
        within("false_positives", self.false_positives, 1e-6, 0.5)?;
        within("flows", f64::from(self.flows), 2.0, 1e4)?;
        if f64::from(self.flows) * f64::from(self.flows - 1) * self.false_positives < 10.0 {
            let why = "must be so many that ten pairs are false positives";
            return Err(Wrong::new("flows", why));
        }
        let all = self.payload_per_s + self.loops_per_s + self.receiver_loops_per_s;
        let packets = f64::from(self.observations) * all / (self.payload_per_s * self.real_share);
        if packets * f64::from(self.flows) > 1e8 {
            let why = "must be fewer: all flows of a group together have 10^8 packets at most";
            return Err(Wrong::new("observations", why));
        }
        within("groups", f64::from(self.groups), 2.0, 1e5)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let found = self.true_positives(context.seed, &|share| (context.progress)(share));
        let measured = vec![Measured::new("true_positives", "1", found)];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

/// The check of `reproduce`, section 3, on MixMatch.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    vec![CheckJob::new("flow matching", move |seed| {
        let settings = FlowMatching { groups: effort.pick(4, 30), ..FlowMatching::default() };
        let found = settings.true_positives(seed, &|_| ());
        let name = "flow matching (MixMatch, .5): true positives at 1e-2, must lie in .3 to .8";
        Ok(vec![Check::within("3", name, 0.55, 0.25, found)])
    })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_matched_about_as_often_as_published() {
        let settings = FlowMatching { groups: 2, ..FlowMatching::default() };
        let found = settings.true_positives(1, &|_| ());
        assert!((0.3..0.8).contains(&found.value), "{found:?}");
    }

    #[test]
    fn long_delays_and_much_cover_hide_the_flow() {
        let hidden = FlowMatching {
            groups: 2,
            flows: 40,
            hop_mean_s: 0.3,
            receiver_loops_per_s: 200.0,
            ..FlowMatching::default()
        };
        assert!(hidden.true_positives(1, &|_| ()).value < 0.08);
        let plain = FlowMatching { groups: 2, hop_mean_s: 0.005, ..FlowMatching::default() };
        assert!(plain.true_positives(1, &|_| ()).value > 0.95);
    }
}
