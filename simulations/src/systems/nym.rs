//! Loopix with deliveries pushed as they come.
//!
//! Only the links of clients are in the view: they are what the attacks use. Traffic is counted in bins. A
//! Poisson stream's bins are drawn as such; only what is real is followed one by one, and a slot that carried it
//! is a slot of the same stream. Loops up and the same loops down are drawn apart: how a person's own loops
//! relate says nothing about pairs, and no attack here reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand_distr::{Distribution, Poisson};
use shoal_topology::{Seed, Stream, exponential};

use super::packets::packets;
use super::{Nym, SystemSettings};
use crate::trace::{Flow, Link, Party, Trace};
use crate::workload::Workload;

/// The links of all clients to and from their gateway, [`Party::Node`] zero.
pub fn observe(settings: &SystemSettings, workload: &Workload, seed: &Seed) -> Trace {
    let nym = &settings.nym;
    let end = workload.end.as_nanos();
    let bin = bin(nym, end);
    let bins = end.div_ceil(bin) as usize;
    let mut waiting: BTreeMap<Party, Vec<(u64, Party)>> = BTreeMap::new();
    for packet in packets(&settings.traffic, workload, seed) {
        for _ in 0..packet.size.div_ceil(nym.payload_bytes).max(1) {
            waiting.entry(packet.from).or_default().push((packet.at, packet.to));
        }
    }
    let mut arrivals: BTreeMap<Party, Vec<u64>> = BTreeMap::new();
    let mut busy: BTreeMap<Party, BusyQueue> = BTreeMap::new();
    for (from, mut packets) in waiting {
        packets.sort_by_key(|(at, _)| *at);
        let seed = seed.part(&format!("sender {from:?}"));
        let slots = send(nym, from, &packets, &seed, &mut arrivals);
        busy.insert(from, slots);
    }
    let gateway = Party::Node(0);
    let (up, down) = (nym.payload_per_s + nym.loops_per_s, nym.loops_per_s);
    let (full_up, full_down) =
        (PoissonTable::new(up * bin as f64 / 1e9), PoissonTable::new(down * bin as f64 / 1e9));
    let mut trace = Trace::default();
    for person in (0..workload.people).map(Party::Person) {
        let seed = seed.part(&format!("cover {person:?}"));
        let idle = BusyQueue::default();
        let busy = busy.get(&person).unwrap_or(&idle);
        let mut counts = cover(&full_up, bins, &mut seed.stream("up"));
        busy.correct(nym, bin, &mut counts, &mut seed.stream("up while busy"));
        trace.links.insert(Link { from: person, to: gateway }, Flow::Counts { bin, counts });
        let mut counts = cover(&full_down, bins, &mut seed.stream("down"));
        for at in arrivals.get(&person).into_iter().flatten() {
            add(&mut counts, at / bin, 1);
        }
        trace.links.insert(Link { from: gateway, to: person }, Flow::Counts { bin, counts });
    }
    trace
}

/// A bin of 100 ms, longer where there would be too many.
fn bin(nym: &Nym, end: u64) -> u64 {
    let least = end.div_ceil(nym.bins.max(1)).div_ceil(100_000_000).max(1) * 100_000_000;
    least.min(nym.bin_max_ms * 1_000_000).max(1)
}

fn add(counts: &mut [u16], index: u64, packets: u16) {
    if let Some(count) = counts.get_mut(index as usize) {
        *count = count.saturating_add(packets);
    }
}

fn cover(table: &PoissonTable, bins: usize, stream: &mut Stream) -> Vec<u16> {
    (0..bins).map(|_| table.draw(stream)).collect()
}

/// When a sender's queue held something, and the slots within.
#[derive(Default)]
struct BusyQueue {
    /// From the first packet in to the slot of the last, nanoseconds.
    spans: Vec<(u64, u64)>,
    /// Slots that carried real packets.
    slots: Vec<u64>,
}

impl BusyQueue {
    /// Draws the bins that a busy span touches anew: cover for what is idle of them, and the slots.
    fn correct(&self, nym: &Nym, bin: u64, counts: &mut [u16], stream: &mut Stream) {
        let mut busy: BTreeMap<u64, u64> = BTreeMap::new();
        for (begin, end) in &self.spans {
            for index in begin / bin..=end / bin {
                let low = (index * bin).max(*begin);
                let high = ((index + 1) * bin).min(*end);
                *busy.entry(index).or_default() += high.saturating_sub(low);
            }
        }
        for (index, nanos) in busy {
            let idle_s = bin.saturating_sub(nanos) as f64 / 1e9;
            let mean = idle_s * nym.payload_per_s + bin as f64 / 1e9 * nym.loops_per_s;
            let drawn = Poisson::new(mean).map_or(0.0, |law| law.sample(stream));
            if let Some(count) = counts.get_mut(index as usize) {
                *count = drawn as u16;
            }
        }
        for slot in &self.slots {
            add(counts, slot / bin, 1);
        }
    }
}

/// Sends what waits at the slots of a Poisson stream. Services answer at once and have no slots.
fn send(
    nym: &Nym,
    from: Party,
    packets: &[(u64, Party)],
    seed: &Seed,
    arrivals: &mut BTreeMap<Party, Vec<u64>>,
) -> BusyQueue {
    let mut slots = seed.stream("slots");
    let mut delays = seed.stream("delays");
    let gap = Duration::from_secs_f64(1.0 / nym.payload_per_s);
    let hop = Duration::from_secs_f64(nym.hop_mean_ms / 1e3);
    let links = (f64::from(nym.hops + 2) * nym.link_delay_ms * 1e6) as u64;
    let service = matches!(from, Party::Service(_));
    let mut busy = BusyQueue::default();
    let mut free = 0;
    for (at, to) in packets {
        // Without memory: from any instant on, the next slot is an exponential away.
        let begin = free.max(*at);
        let slot = begin + if service { 0 } else { exponential(&mut slots, gap).as_nanos() as u64 };
        match busy.spans.last_mut() {
            Some(span) if span.1 >= *at => span.1 = slot,
            _ => busy.spans.push((*at, slot)),
        }
        busy.slots.push(slot);
        free = slot;
        let mixing: u64 =
            (0..nym.hops).map(|_| exponential(&mut delays, hop).as_nanos() as u64).sum();
        arrivals.entry(*to).or_default().push(slot + mixing + links);
    }
    busy
}

/// Draws from a Poisson law by inversion with a guide, for many draws of one mean.
struct PoissonTable {
    /// P(X <= k) for k = 0, 1, 2 ...
    sums: Vec<f64>,
    /// For u in [g, g + 1)/256, the least k that can be it.
    guide: Vec<u16>,
}

const GUIDE: usize = 256;

impl PoissonTable {
    /// Means up to about 700, above which exp(-mean) is no number; bins here have 55 at the most.
    fn new(mean: f64) -> Self {
        let mut sums = Vec::new();
        let (mut term, mut sum, mut k) = ((-mean).exp(), 0.0, 0.0);
        loop {
            sum += term;
            sums.push(sum);
            k += 1.0;
            term *= mean / k;
            if k > mean && term < 1e-18 || sums.len() > usize::from(u16::MAX - 1) {
                break;
            }
        }
        let least = |g: usize| {
            sums.partition_point(|sum| *sum <= g as f64 / GUIDE as f64).min(sums.len() - 1) as u16
        };
        Self { guide: (0..GUIDE).map(least).collect(), sums }
    }

    fn draw(&self, stream: &mut Stream) -> u16 {
        let u: f64 = stream.random();
        let mut k = self.guide.get((u * GUIDE as f64) as usize).copied().unwrap_or(0);
        while self.sums.get(usize::from(k)).is_some_and(|sum| *sum <= u) {
            k += 1;
        }
        k
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use shoal_topology::Time;

    use super::*;
    use crate::systems::{System, observe};
    use crate::workload::Activity;

    #[test]
    fn the_table_draws_a_poisson_law() {
        let table = PoissonTable::new(55.0);
        let mut stream = Seed::from_u64(1).stream("test");
        let n = 200_000;
        let drawn: Vec<f64> = (0..n).map(|_| f64::from(table.draw(&mut stream))).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(n);
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 55.0).abs() < 4.0 * (55.0 / f64::from(n)).sqrt(), "{mean}");
        assert!((variance / 55.0 - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn a_call_does_not_show_up_but_shows_down() {
        let activities =
            vec![Activity::Call { from: 0, to: 1, at: Time::from_secs(100), seconds: 200.0 }];
        let workload = Workload { people: 3, end: Time::from_secs(400), activities };
        let view = observe(System::Nym, &workload, 5);
        let rate = |from, to| {
            let counts =
                view.trace.links[&Link { from, to }].counts(100_000_000_000, 200_000_000_000, 1);
            f64::from(counts[0]) / 200.0
        };
        let (gateway, person) = (Party::Node(0), Party::Person);
        for who in 0..3 {
            assert!((rate(person(who), gateway) - 55.0).abs() < 4.0 * (55.0f64 / 200.0).sqrt());
        }
        assert!((rate(gateway, person(0)) - 30.0).abs() < 1.5);
        assert!((rate(gateway, person(1)) - 30.0).abs() < 1.5);
        assert!((rate(gateway, person(2)) - 5.0).abs() < 1.0);
    }
}
