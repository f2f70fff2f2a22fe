//! Re-identification from the interaction graph (Creţu, Monti, Marrone, Dong, Bronstein and de Montjoye, Nature
//! Communications 2022): who somebody is, from how the people around him interact.
//!
//! A simple matcher in place of the paper's trained one: histograms of a person's k-hop graph, nearest neighbour.

use std::collections::{BTreeMap, BTreeSet};

use shoal_topology::{Seed, Time};

use super::{Permutations, Score, relabelled};
use crate::adversary::attacks::RebuiltRecord;
use crate::stats;
use crate::trace::{Record, Truth};

/// How far around a person the graph is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hops {
    /// The person's own interactions.
    One,
    /// Those of his contacts as well.
    Two,
}

/// Bins of each histogram.
const BINS: usize = 8;
/// Of a person: out- and in-degree, records out and in, total duration, records per contact (sorted, the first 4),
/// histograms of durations and of records per contact.
const OWN: usize = 9 + 2 * BINS;

/// Features of everybody who has a record.
type Features = BTreeMap<u32, Vec<f64>>;

fn features(records: &[Record], hops: Hops) -> Features {
    let mut contacts: BTreeMap<u32, BTreeMap<u32, Edge>> = BTreeMap::new();
    for record in records {
        let there = contacts.entry(record.caller).or_default().entry(record.callee).or_default();
        there.add(record.duration_s, true);
        let back = contacts.entry(record.callee).or_default().entry(record.caller).or_default();
        back.add(record.duration_s, false);
    }
    let own: Features = contacts.iter().map(|(person, edges)| (*person, own(edges))).collect();
    if hops == Hops::One {
        return own;
    }
    let both = |(person, edges): (&u32, &BTreeMap<u32, Edge>)| {
        let mut all = own.get(person).cloned().unwrap_or_default();
        // Contacts in order of how much he has to do with them; then the sum over all.
        let mut order: Vec<(u32, u32)> =
            edges.iter().map(|(other, e)| (e.count(), *other)).collect();
        order.sort_by(|a, b| b.cmp(a));
        let mut sum = vec![0.0; OWN];
        for (_, other) in &order {
            let theirs = own.get(other).into_iter().flatten();
            sum.iter_mut().zip(theirs).for_each(|(sum, x)| *sum += x / order.len() as f64);
        }
        for index in 0..2 {
            let theirs = order.get(index).and_then(|(_, other)| own.get(other));
            all.extend(theirs.cloned().unwrap_or_else(|| vec![0.0; OWN]));
        }
        all.extend(sum);
        (*person, all)
    };
    contacts.iter().map(both).collect()
}

/// What two people had to do with each other, from one's side.
#[derive(Default)]
struct Edge {
    out: u32,
    back: u32,
    durations_s: Vec<f64>,
}

impl Edge {
    fn add(&mut self, duration_s: f64, out: bool) {
        if out {
            self.out += 1;
        } else {
            self.back += 1;
        }
        self.durations_s.push(duration_s);
    }

    fn count(&self) -> u32 {
        self.out + self.back
    }
}

fn own(edges: &BTreeMap<u32, Edge>) -> Vec<f64> {
    let sum = |of: &dyn Fn(&Edge) -> f64| edges.values().map(of).sum::<f64>();
    let mut counts: Vec<u32> = edges.values().map(Edge::count).collect();
    counts.sort_by(|a, b| b.cmp(a));
    let mut all = vec![
        sum(&|edge| f64::from(u8::from(edge.out > 0))),
        sum(&|edge| f64::from(u8::from(edge.back > 0))),
        sum(&|edge| f64::from(edge.out)),
        sum(&|edge| f64::from(edge.back)),
        sum(&|edge| edge.durations_s.iter().sum()),
    ];
    all.extend((0..4).map(|index| f64::from(counts.get(index).copied().unwrap_or(0))));
    let mut histograms = [0.0; 2 * BINS];
    let bin = |x: f64| (x.max(0.0) + 1.0).log2().min(BINS as f64 - 1.0) as usize;
    for edge in edges.values() {
        for duration_s in &edge.durations_s {
            // Durations go up to hours: two doublings a bin.
            let index = ((duration_s.max(0.0) + 1.0).log2() / 2.0).min(BINS as f64 - 1.0) as usize;
            histograms.get_mut(index).into_iter().for_each(|x| *x += 1.0);
        }
        let index = BINS + bin(f64::from(edge.count()));
        histograms.get_mut(index).into_iter().for_each(|x| *x += 1.0);
    }
    all.extend(histograms);
    // Counts go over orders of magnitude: without the logarithm a few busy people would decide every distance.
    all.iter().map(|x| (1.0 + x).ln()).collect()
}

/// For each person of the known records, who of the seen ones looks most like him.
fn matches(known: &[Record], seen: &[Record], hops: Hops) -> Vec<(u32, u32)> {
    let (known, seen) = (features(known, hops), features(seen, hops));
    let length = seen.values().next().map_or(0, Vec::len);
    let spread: Vec<f64> = (0..length)
        .map(|k| {
            let values: Vec<f64> = seen.values().filter_map(|f| f.get(k).copied()).collect();
            let variance = stats::Moments::of(&values).variance;
            // A feature that all share tells nobody apart, and would divide by nothing.
            if variance > 1e-12 { 1.0 / variance.sqrt() } else { 0.0 }
        })
        .collect();
    let distance = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).zip(&spread).map(|((a, b), scale)| (a - b).abs() * scale).sum()
    };
    let nearest = |(person, own): (&u32, &Vec<f64>)| {
        let all = seen.iter().map(|(other, theirs)| (distance(own, theirs), *other));
        // Those who look the same are told apart by nothing: a number from their features, not their labels.
        let best = all.min_by(|a, b| a.0.total_cmp(&b.0).then(hashed(a.1).cmp(&hashed(b.1))));
        best.map(|(_, other)| (*person, other))
    };
    known.iter().filter_map(nearest).collect()
}

fn hashed(person: u32) -> u64 {
    super::mixed(u64::from(person), 0)
}

/// Share of people who are found again: `known` are records of an earlier time, with names; `seen` those of a later
/// time as an adversary has them, whose labels are the truth. Of people who are in `known` and in `later`, the
/// true records of the later time.
pub fn reidentified(
    known: &[Record],
    seen: &[Record],
    later: &[Record],
    people: u32,
    hops: Hops,
    seed: &Seed,
) -> Option<Score> {
    let in_later: BTreeSet<u32> = later.iter().flat_map(|r| [r.caller, r.callee]).collect();
    let in_known: BTreeSet<u32> = known.iter().flat_map(|r| [r.caller, r.callee]).collect();
    let n = in_known.intersection(&in_later).count() as u64;
    if n == 0 {
        return None;
    }
    let guesses: Vec<(u32, u32)> =
        matches(known, seen, hops).into_iter().filter(|(who, _)| in_later.contains(who)).collect();
    let hits = |labels: Option<&[u32]>| {
        let label = |person: u32| labels.map_or(person, |labels| relabelled(labels, person));
        guesses.iter().filter(|(who, guess)| *who == label(*guess)).count() as u64
    };
    let value = stats::proportion(hits(None), n);
    let permutations = Permutations { people, seed: seed.part("prior of graphs") };
    let share = |labels: &[u32]| [hits(Some(labels)) as f64 / n as f64];
    let [(prior, p)] = permutations.compare([value.value], share);
    let name = match hops {
        Hops::One => "reidentified_1_hop",
        Hops::Two => "reidentified_2_hop",
    };
    Some(Score { name, value, prior, p })
}

/// Scores of rebuilt rows: the true records up to `middle` are known, the rows after it are seen.
pub fn scores(
    rows: &[RebuiltRecord],
    truth: &Truth,
    middle: Time,
    people: u32,
    seed: &Seed,
) -> Vec<Score> {
    let (known, later) = split(&super::real(&truth.records, people), middle);
    let mut surest: Vec<&RebuiltRecord> = rows.iter().collect();
    surest.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.start_s.total_cmp(&b.start_s)));
    // As many as there are true records: the surest ones count, and not how many an attack names.
    let seen: Vec<Record> = surest
        .into_iter()
        .take(truth.records.len())
        .map(|row| Record {
            caller: row.caller,
            callee: row.callee,
            start: Time::from_nanos((row.start_s.max(0.0) * 1e9) as u64),
            duration_s: row.duration_s,
        })
        .collect();
    let (_, seen) = split(&seen, middle);
    let one = |hops| reidentified(&known, &seen, &later, people, hops, seed);
    [Hops::One, Hops::Two].into_iter().filter_map(one).collect()
}

/// Records before this instant, and the others.
pub fn split(records: &[Record], middle: Time) -> (Vec<Record>, Vec<Record>) {
    records.iter().partition(|record| record.start < middle)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::RngExt;

    use super::*;

    /// People with habits of their own, over two periods.
    fn records(seed: u64, labels: impl Fn(u32) -> u32) -> Vec<Record> {
        let mut habits = Seed::from_u64(1).stream("habits");
        let mut stream = Seed::from_u64(seed).stream("records");
        let mut all = Vec::new();
        for caller in 0..50u32 {
            for _ in 0..habits.random_range(1..6) {
                let callee = (caller + habits.random_range(1..50)) % 50;
                let (times, seconds) =
                    (habits.random_range(1..40), habits.random_range(10.0..2000.0f64));
                for _ in 0..times {
                    let duration_s = seconds * stream.random_range(0.8..1.2);
                    let (caller, callee) = (labels(caller), labels(callee));
                    all.push(Record { caller, callee, start: Time::ZERO, duration_s });
                }
            }
        }
        all
    }

    #[test]
    fn people_are_found_again_by_their_habits() {
        let (known, later) = (records(2, |p| p), records(3, |p| p));
        for hops in [Hops::One, Hops::Two] {
            let seed = Seed::from_u64(1);
            let found = reidentified(&known, &later, &later, 50, hops, &seed).unwrap();
            assert!(found.value.value > 0.8 && found.p < 0.001, "{found:?}");
            // Records under other labels name somebody else.
            let other = records(3, |p| (p + 1) % 50);
            let found = reidentified(&known, &other, &later, 50, hops, &seed).unwrap();
            assert!(found.value.value < 0.2 && found.p > 0.001, "{found:?}");
        }
    }
}
