//! What corrupted nodes add: which arrival became which departure.
//!
//! A chain of passes from a person to another is certain. A chain back to the same person is a loop, and is taken
//! away from what she sends and receives. A corrupt gateway also sees what arrives for each of its clients before
//! slots hide it; that is matched with what people send.

use std::collections::{BTreeMap, HashMap};

use super::delay::Delay;
use super::dense::{MOST_PEOPLE, Matrix, products};
use super::disclosure::answer;
use super::view_by_user::{MOST_BINS, Side};
use super::{Answer, Attack, RebuiltRecord, Scored};
use crate::trace::{Party, Pass, Public, View};

/// Chains of passes, and statistical disclosure on arrivals at corrupt gateways. Nothing where there are no passes.
pub struct CorruptNodes;

impl Attack for CorruptNodes {
    fn name(&self) -> &'static str {
        "inside"
    }

    fn run(&self, view: &View) -> Answer {
        if view.passes.is_empty() || view.public.people as usize > MOST_PEOPLE {
            return Answer::default();
        }
        let chains = chains(&view.passes);
        let mut loops = vec![Chained::default(); view.passes.len()];
        let mut certain: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        let mut rows = Vec::new();
        for (first, last) in chains {
            let (Some(begin), Some(end)) = (view.passes.get(first), view.passes.get(last)) else {
                continue;
            };
            let (Party::Person(caller), Party::Person(callee)) = (begin.from, end.to) else {
                continue;
            };
            if caller == callee {
                for index in [first, last] {
                    if let Some(chained) = loops.get_mut(index) {
                        *chained = Chained::Loop;
                    }
                }
                continue;
            }
            *certain.entry((caller, callee)).or_default() += 1.0;
            let start_s = begin.arrived.as_secs_f64();
            rows.push(RebuiltRecord { caller, callee, start_s, duration_s: 0.0, score: 1.0 });
        }
        let mut found = arrivals(view, &loops);
        // Certainty first: more than any correlation can give.
        let most = found.pairs.iter().map(|pair| pair.score.abs()).fold(1.0, f64::max);
        for pair in &mut found.pairs {
            if let Some(times) = certain.remove(&(pair.caller, pair.callee)) {
                pair.score += times * 2.0 * most;
            }
        }
        let rest = certain.into_iter();
        found.pairs.extend(rest.map(|((caller, callee), times)| Scored {
            caller,
            callee,
            score: times * 2.0 * most,
        }));
        found.rows = merged(rows);
        found
    }
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Chained {
    #[default]
    Open,
    Loop,
}

/// The first and last pass of each chain that begins at a person and ends at one.
fn chains(passes: &[Pass]) -> Vec<(usize, usize)> {
    // What leaves one corrupt node for another is what comes there, byte for byte.
    let arrivals: HashMap<(u32, u64), usize> =
        passes.iter().enumerate().map(|(index, pass)| ((pass.node, pass.came), index)).collect();
    let next = |pass: &Pass| match pass.to {
        Party::Node(to) if to != pass.node => arrivals.get(&(to, pass.went)).copied(),
        _ => None,
    };
    let mut found = Vec::new();
    for (first, pass) in passes.iter().enumerate() {
        if !matches!(pass.from, Party::Person(_)) {
            continue;
        }
        let mut index = first;
        // A path visits a node of each layer and two gateways; who copies packets makes no circle of it.
        for _ in 0..16 {
            let Some(then) = passes.get(index).and_then(next) else { break };
            index = then;
        }
        if passes.get(index).is_some_and(|last| matches!(last.to, Party::Person(_))) {
            found.push((first, index));
        }
    }
    found
}

/// What people send, without loops that were seen through, with what arrives for clients of corrupt gateways.
fn arrivals(view: &View, loops: &[Chained]) -> Answer {
    let up = Side::up(view);
    let delay = Delay::new(&view.public);
    let bin = up.bin((delay.sd_s() * 1e9) as u64, MOST_BINS);
    let mut sent = Matrix::counts(&up, bin);
    let values = vec![0.0; sent.values.len()];
    let mut came = Matrix { rows: sent.rows, columns: sent.columns, values };
    let begin = view.public.begin.as_nanos();
    let mut seen = false;
    for (pass, chained) in view.passes.iter().zip(loops) {
        let add = |matrix: &mut Matrix, person: u32, at: u64, packets: f32| {
            let index = at.saturating_sub(begin) / bin;
            if (person as usize) < matrix.rows
                && let Some(count) = matrix.row_mut(person as usize).get_mut(index as usize)
            {
                *count = (*count + packets).max(0.0);
            }
        };
        if let Party::Person(person) = pass.to
            && *chained == Chained::Open
        {
            seen = true;
            add(&mut came, person, pass.arrived.as_nanos(), 1.0);
        }
        if let Party::Person(person) = pass.from
            && *chained == Chained::Loop
        {
            add(&mut sent, person, pass.arrived.as_nanos(), -1.0);
        }
    }
    if !seen {
        return Answer::default();
    }
    let columns = sent.columns as f64;
    let (sent, came) = (sent.delayed(&delay, bin).standardised(), came.standardised());
    answer(&products(&sent, &came), sent.rows, columns.sqrt())
}

/// Packets of one call make one row: those of a pair that follow each other within two seconds.
fn merged(mut rows: Vec<RebuiltRecord>) -> Vec<RebuiltRecord> {
    const PAUSE_S: f64 = 2.0;
    let pair = |row: &RebuiltRecord| (row.caller.min(row.callee), row.caller.max(row.callee));
    rows.sort_by(|a, b| pair(a).cmp(&pair(b)).then(a.start_s.total_cmp(&b.start_s)));
    let mut all: Vec<RebuiltRecord> = Vec::new();
    for row in rows {
        match all.last_mut() {
            Some(last)
                if pair(last) == pair(&row)
                    && row.start_s - (last.start_s + last.duration_s) < PAUSE_S =>
            {
                last.duration_s = row.start_s - last.start_s;
                last.score += 1.0;
            }
            _ => all.push(row),
        }
    }
    all
}

/// What arrives for each client of a corrupt gateway beyond rest, in standard deviations of a Poisson law, over
/// the whole observation: (person, excess). Shows downloads (THREAT-MODEL.md, "A gateway at each end"). `resting_per_s` is the rate at which
/// packets arrive for somebody who does nothing.
pub fn arrival_excess(view: &View, resting_per_s: f64) -> Vec<(u32, f64)> {
    let Public { begin, end, .. } = view.public;
    let expected = end.since(begin).as_secs_f64() * resting_per_s;
    let mut arrived: BTreeMap<u32, u64> = BTreeMap::new();
    for pass in &view.passes {
        if let Party::Person(person) = pass.to {
            *arrived.entry(person).or_default() += 1;
        }
    }
    let excess = |count: u64| (count as f64 - expected) / expected.max(1.0).sqrt();
    arrived.into_iter().map(|(person, count)| (person, excess(count))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use rand::RngExt;
    use shoal_topology::{Seed, Time};

    use super::*;

    /// Packets through gateway 0, mixes 1 and 2 and gateway 3, all corrupt; half of them loops.
    fn view() -> (View, BTreeMap<(u32, u32), u32>) {
        let mut stream = Seed::from_u64(9).stream("passes");
        let (mut passes, mut sent) = (Vec::new(), BTreeMap::new());
        for k in 0..4000u32 {
            let from = k % 20;
            let to = if stream.random() { from } else { (from + 7) % 20 };
            if from != to {
                *sent.entry((from, to)).or_default() += 1;
            }
            let mut at = Time::from_nanos((stream.random::<f64>() * 600e9) as u64);
            let mut last = Party::Person(from);
            for (node, next) in (0..4).zip([1, 2, 3, 0]) {
                let next = if node == 3 { Party::Person(to) } else { Party::Node(next) };
                let left = at + Duration::from_secs_f64(0.001 + 0.5 * stream.random::<f64>());
                let hash = |node| u64::from(5 * k + node + 1);
                let (came, went) = (hash(node), hash(node + 1));
                let arrived = at;
                let epoch = 0;
                passes.push(Pass { node, arrived, from: last, left, to: next, came, went, epoch });
                at = left + Duration::from_nanos(stream.random_range(0..50_000_000));
                last = Party::Node(node);
            }
        }
        passes.sort_by_key(|pass| pass.left);
        let public = Public {
            people: 20,
            begin: Time::ZERO,
            end: Time::from_secs(610),
            hops: 4,
            hop_mean_s: 0.25,
            uniform_s: 0.0,
            latency_s: 0.06,
            resting_up_per_s: 0.0,
            resting_down_per_s: 0.0,
            call_per_s: 25.0,
        };
        (View { public, trace: crate::trace::Trace::default(), passes }, sent)
    }

    #[test]
    fn a_chain_of_corrupt_nodes_names_both_ends() {
        let (view, sent) = view();
        let mut pairs = CorruptNodes.run(&view).pairs;
        pairs.sort_by(|a, b| b.score.total_cmp(&a.score));
        let best = pairs.iter().take(sent.len());
        let right = best.filter(|pair| sent.contains_key(&(pair.caller, pair.callee))).count();
        assert_eq!(right, sent.len());
    }

    #[test]
    fn every_link_of_a_chain_is_found_however_much_traffic_there_is() {
        let (view, sent) = view();
        let found = chains(&view.passes);
        assert_eq!(found.len(), 4_000);
        for (first, last) in found {
            let (from, to) = (view.passes[first].from, view.passes[last].to);
            let (Party::Person(from), Party::Person(to)) = (from, to) else { unreachable!() };
            assert!(from == to || sent.contains_key(&(from, to)), "{from} {to}");
        }
    }

    #[test]
    fn a_download_shows_at_a_corrupt_gateway() {
        let (mut view, _) = view();
        let download = (0..200).map(|k| Pass {
            node: 3,
            arrived: Time::from_millis(300_000 + k),
            from: Party::Node(2),
            left: Time::from_millis(300_000 + 10 * k),
            to: Party::Person(4),
            came: 1_000_000 + k,
            went: 2_000_000 + k,
            epoch: 0,
        });
        view.passes.extend(download);
        let excess = arrival_excess(&view, 200.0 / 610.0);
        let of = |person| excess.iter().find(|(who, _)| *who == person).unwrap().1;
        assert!(of(4) > 10.0 && of(5).abs() < 5.0, "{excess:?}");
    }
}
