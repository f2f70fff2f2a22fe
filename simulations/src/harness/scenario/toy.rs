//! A small experiment for tests.

use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use super::Kind;
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, PacketRow, Wrong};
use crate::trace::{Flow, Link, Party, Public, Record, Trace, Truth, View};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Toy {
    network: ToyNetwork,
    traffic: ToyTraffic,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ToyNetwork {
    layers: u32,
    hop_mean_s: f64,
}

impl Default for ToyNetwork {
    fn default() -> Self {
        Self { layers: 3, hop_mean_s: 0.5 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ToyTraffic {
    packets: u32,
}

impl Default for ToyTraffic {
    fn default() -> Self {
        Self { packets: 200 }
    }
}

impl Experiment for Toy {
    fn check(&self) -> Result<(), Wrong> {
        if !(1..=10).contains(&self.network.layers) {
            return Err(Wrong::new("network.layers", "must be 1 to 10"));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let mut stream = Seed::from_u64(context.seed).part("toy").stream("delays");
        let mut packets = Vec::new();
        let mut flow = Flow::new(2048);
        for n in 0..self.traffic.packets {
            let sent = u64::from(n) * 1_000_000;
            let mut delay = 0.0;
            for _ in 0..self.network.layers {
                let mean = std::time::Duration::from_secs_f64(self.network.hop_mean_s);
                delay += shoal_topology::exponential(&mut stream, mean).as_secs_f64();
            }
            flow.push(Time::from_nanos(sent), 2048);
            let delivered = sent + (delay * 1e9) as u64;
            packets.push(PacketRow {
                sent,
                delivered,
                entropy_bits: delay.ln_1p(),
                corrupt_mixes: 0,
            });
        }
        (context.progress)(1.0);
        let delays: Vec<f64> =
            packets.iter().map(|p| (p.delivered - p.sent) as f64 / 1e9).collect();
        let theory = f64::from(self.network.layers) * self.network.hop_mean_s;
        let delay = Measured {
            name: "delay_s".into(),
            unit: "s".into(),
            estimate: crate::stats::mean(&delays),
            expected: Some(theory),
        };
        let infinite = Measured {
            name: "bound".into(),
            unit: "1".into(),
            estimate: Estimate::exact(f64::INFINITY),
            expected: None,
        };
        let link = Link { from: Party::Person(0), to: Party::Node(0) };
        let public = Public {
            people: 2,
            begin: Time::from_secs(0),
            end: Time::from_secs(60),
            hops: self.network.layers,
            hop_mean_s: self.network.hop_mean_s,
            uniform_s: 0.0,
            latency_s: 0.0,
            resting_up_per_s: 0.0,
            resting_down_per_s: 0.0,
            call_per_s: 0.0,
        };
        let trace = Trace { links: [(link, flow)].into() };
        let record = Record { caller: 0, callee: 1, start: Time::from_secs(1), duration_s: 0.0 };
        let observed = (View { public, trace, passes: vec![] }, Truth { records: vec![record] });
        Ok(Outcome {
            measured: vec![delay, infinite],
            trace_hash: Some(format!("{:x}", packets.iter().fold(0, |sum, p| sum ^ p.delivered))),
            observed: Some(observed),
            packets,
            ..Outcome::default()
        })
    }
}

const EXPLAINED: &str = r#"# Which experiment.
experiment = "toy"
# Seed of the first run.
seed = 7

# The mixes.
[network]
layers = 3 # Hops, 1 to 10.
# Mean delay at a hop,
# seconds.
hop_mean_s = 0.5

# What is sent.
[traffic]
# How many packets.
packets = 200
"#;

pub static KINDS: &[Kind] = &[Kind::of::<Toy>("toy", "Exponential delays", EXPLAINED)];
