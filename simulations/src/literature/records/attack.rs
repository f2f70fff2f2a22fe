//! Bayes for each message over the deliveries, and the graph that its posteriors add up to.

use std::collections::{BTreeMap, BTreeSet};

use shoal_topology::Seed;

use crate::literature::disclosure::MixDelay;
use crate::trace::Record;

/// What the attack got right in one draw of delays.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scores {
    /// Share of messages whose most probable delivery goes to their recipient.
    pub top: f64,
    /// Share of true edges among as many of the highest-ranked ones.
    pub edges: f64,
}

/// A delivery as it is seen.
struct Delivery {
    at: f64,
    to: u32,
}

/// Attacks one draw of the delays.
pub fn scores(records: &[Record], hops: u32, delay_mean_s: f64, seed: u64, draw: u32) -> Scores {
    let delay = MixDelay::new(hops, delay_mean_s / f64::from(hops));
    let mut rng = Seed::from_u64(seed).part("records").stream(&format!("delays {draw}"));
    let mut deliveries: Vec<Delivery> = records
        .iter()
        .map(|record| Delivery {
            at: record.start.as_secs_f64() + delay.sample(&mut rng),
            to: record.callee,
        })
        .collect();
    deliveries.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut found: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    let mut right = 0usize;
    for record in records {
        let sent = record.start.as_secs_f64();
        let first = deliveries.partition_point(|delivery| delivery.at < sent);
        let last = deliveries.partition_point(|delivery| delivery.at <= sent + delay.longest());
        let near = deliveries.get(first..last).unwrap_or_default();
        let densities: Vec<f64> = near.iter().map(|d| delay.density(d.at - sent)).collect();
        let sum: f64 = densities.iter().sum();
        let best = near.iter().zip(&densities).max_by(|a, b| a.1.total_cmp(b.1));
        right += usize::from(best.is_some_and(|(delivery, _)| delivery.to == record.callee));
        if sum > 0.0 {
            for (delivery, density) in near.iter().zip(&densities) {
                *found.entry((record.caller, delivery.to)).or_default() += density / sum;
            }
        }
    }
    let truth: BTreeSet<(u32, u32)> = records.iter().map(|r| (r.caller, r.callee)).collect();
    let mut ranked: Vec<((u32, u32), f64)> = found.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let hits = ranked.iter().take(truth.len()).filter(|(edge, _)| truth.contains(edge)).count();
    Scores {
        top: right as f64 / records.len().max(1) as f64,
        edges: hits as f64 / truth.len().max(1) as f64,
    }
}
