//! Which mixes are missing among the first hops of a client's frames?
//!
//! Where an operator may have a gateway and mixes, and all operators on a path differ, the mixes of the far gateway's
//! operator are missing while a client sends there. Those of its own gateway's operator always are, so each gateway's are
//! known from what its clients send at rest.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::block_s;
use super::{Answer, Attack, Scored, Sign};
use crate::trace::{Party, View};

/// First hops, as corrupt gateways read them, that are missing for a while.
pub struct MissingMixes;

/// What is left of a mix's share while it is missing: loops go on.
const LEFT: f64 = 0.1;
/// A mix with less than this part of an even share is missing at all times.
const ALWAYS: f64 = 0.3;

/// A client's frames: by block and by mix.
type Counts = Vec<BTreeMap<u32, f64>>;

impl Attack for MissingMixes {
    fn name(&self) -> &'static str {
        "missing_mixes"
    }

    fn run(&self, view: &View) -> Answer {
        let (begin_s, length_s) = (view.public.begin.as_secs_f64(), block_s(&view.public));
        let end_s = view.public.end.as_secs_f64();
        let blocks = ((end_s - begin_s) / length_s) as usize;
        let mut people: BTreeMap<u32, Counts> = BTreeMap::new();
        let mut gateways: BTreeMap<u32, u32> = BTreeMap::new();
        let mut mixes = BTreeSet::new();
        for pass in &view.passes {
            let (Party::Person(person), Party::Node(mix)) = (pass.from, pass.to) else { continue };
            if mix == pass.node {
                continue;
            }
            mixes.insert(mix);
            gateways.insert(person, pass.node);
            let counts = people.entry(person).or_insert_with(|| vec![BTreeMap::new(); blocks]);
            let block = ((pass.left.as_secs_f64() - begin_s) / length_s) as usize;
            if let Some(counts) = counts.get_mut(block) {
                *counts.entry(mix).or_default() += 1.0;
            }
        }
        let usual = usual(&people, &gateways, &mixes);
        let missing: BTreeMap<u32, Vec<BTreeMap<u32, f64>>> =
            people.iter().map(|(person, counts)| (*person, missing(counts, &mixes))).collect();
        let mut found = Answer::default();
        for (person, blocks) in &missing {
            let signs = blocks.iter().enumerate().map(|(block, odds)| Sign {
                person: *person,
                begin_s: begin_s + block as f64 * length_s,
                length_s,
                score: odds.values().copied().fold(f64::MIN, f64::max),
            });
            found.signs.extend(signs.filter(|sign| sign.score > f64::MIN));
        }
        let odds = |person: &u32, other: &u32| -> Option<Vec<f64>> {
            let mix = usual.get(gateways.get(other)?)?;
            let of = |odds: &BTreeMap<u32, f64>| odds.get(mix).copied().unwrap_or(0.0);
            Some(missing.get(person)?.iter().map(of).collect())
        };
        for caller in missing.keys() {
            for callee in missing.keys().filter(|callee| *callee > caller) {
                let (Some(one), Some(other)) = (odds(caller, callee), odds(callee, caller)) else {
                    continue;
                };
                // Both must miss the other's, in the same block.
                let both = one.iter().zip(&other).map(|(a, b)| a.min(*b).max(0.0));
                let score: f64 = both.sum();
                if score > 0.0 {
                    found.pairs.push(Scored { caller: *caller, callee: *callee, score });
                }
            }
        }
        found
    }
}

/// The mix that is missing among all that a gateway's clients send; none where none is.
fn usual(
    people: &BTreeMap<u32, Counts>,
    gateways: &BTreeMap<u32, u32>,
    mixes: &BTreeSet<u32>,
) -> BTreeMap<u32, u32> {
    let mut sums: BTreeMap<u32, BTreeMap<u32, f64>> = BTreeMap::new();
    for (person, counts) in people {
        let Some(gateway) = gateways.get(person) else { continue };
        let sums = sums.entry(*gateway).or_default();
        for (mix, count) in counts.iter().flatten() {
            *sums.entry(*mix).or_default() += count;
        }
    }
    let least = |(gateway, sums): (u32, BTreeMap<u32, f64>)| {
        let all: f64 = sums.values().sum();
        let of = |mix: &u32| sums.get(mix).copied().unwrap_or(0.0);
        let mix = mixes.iter().min_by(|a, b| of(a).total_cmp(&of(b)))?;
        (of(mix) < ALWAYS * all / mixes.len() as f64).then_some((gateway, *mix))
    };
    sums.into_iter().filter_map(least).collect()
}

/// For each block and each mix that is not missing at all times, the logarithm of the odds that it is missing then.
fn missing(counts: &Counts, mixes: &BTreeSet<u32>) -> Vec<BTreeMap<u32, f64>> {
    let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
    for (mix, count) in counts.iter().flatten() {
        *sums.entry(*mix).or_default() += count;
    }
    let all: f64 = sums.values().sum();
    let even = all / mixes.len().max(1) as f64;
    let often: Vec<(u32, f64)> =
        sums.into_iter().filter(|(_, sum)| *sum >= ALWAYS * even).collect();
    let block = |counts: &BTreeMap<u32, f64>| {
        let here: f64 = counts.values().sum();
        let odds = |(mix, sum): &(u32, f64)| {
            let expected = here * sum / all;
            let count = counts.get(mix).copied().unwrap_or(0.0);
            (*mix, count * LEFT.ln() + (1.0 - LEFT) * expected)
        };
        often.iter().map(odds).collect()
    };
    counts.iter().map(block).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::attacks::generated::{Calls, view};
    use crate::score::scores::{self, RecordKind};

    #[test]
    fn the_rule_of_operators_names_the_far_gateway_and_paths_without_it_say_nothing() {
        let scores = |operators_rule| {
            let (view, truth) = view(&Calls { operators_rule, ..Calls::default() });
            let answer = MissingMixes.run(&view);
            let people = view.public.people;
            scores::scores(&answer, &truth, people, RecordKind::Calls, &Seed::from_u64(1))
        };
        let rule = scores(true);
        for name in ["average_precision", "told_from_rest"] {
            let score = rule.iter().find(|score| score.name == name).unwrap();
            assert!(score.p < 1e-3, "{score:?}");
        }
        let none = scores(false);
        assert!(!none.is_empty() && none.iter().all(|score| score.p > 1e-3), "{none:?}");
    }
}
