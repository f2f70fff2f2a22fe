//! What corrupt gateways see of their clients before slots and seals hide it: which mix each frame goes to, which mix each arrival
//! comes from, its epoch, and how many there are.

use std::collections::BTreeMap;

use super::dense::{Matrix, products};
use super::disclosure::answer;
use super::first_mixes::gap_s;
use super::marks::{self, Marked, block_s};
use super::{Answer, Attack, Sign};
use crate::trace::{Party, Pass, View};

/// Calls from the first hops of the frames of each client, as its gateway reads them.
pub struct FirstHops;

impl Attack for FirstHops {
    fn name(&self) -> &'static str {
        "first_hops"
    }

    fn run(&self, view: &View) -> Answer {
        let towards = |pass: &Pass| match (pass.from, pass.to) {
            (Party::Person(person), Party::Node(mix)) if mix != pass.node => {
                Some((person, pass.left.as_nanos(), mix))
            }
            _ => None,
        };
        by_mix(view, towards)
    }
}

/// Calls from the mixes that arrivals for each client come from.
pub struct LastMixes;

impl Attack for LastMixes {
    fn name(&self) -> &'static str {
        "last_mixes"
    }

    fn run(&self, view: &View) -> Answer {
        let arrived = |pass: &Pass| match (pass.from, pass.to) {
            (Party::Node(mix), Party::Person(person)) if mix != pass.node => {
                Some((person, pass.arrived.as_nanos(), mix))
            }
            _ => None,
        };
        by_mix(view, arrived)
    }
}

/// By a person, an instant and a mix in each pass that has them.
fn by_mix(view: &View, of: impl Fn(&Pass) -> Option<(u32, u64, u32)>) -> Answer {
    let mut people: BTreeMap<u32, Vec<(u64, u16)>> = BTreeMap::new();
    let mut mixes: BTreeMap<u32, u16> = BTreeMap::new();
    for (person, at, mix) in view.passes.iter().filter_map(of) {
        let next = mixes.len() as u16;
        let mark = *mixes.entry(mix).or_insert(next);
        people.entry(person).or_default().push((at, mark));
    }
    if people.is_empty() {
        return Answer::default();
    }
    let one = |(person, mut frames): (u32, Vec<(u64, u16)>)| {
        frames.sort_unstable();
        let mut marked = Marked::new(person);
        frames.into_iter().for_each(|(at, mark)| marked.push(at, [(mark, 1.0)]));
        marked
    };
    let people: Vec<Marked> = people.into_iter().map(one).collect();
    marks::answer(&people, mixes.len(), gap_s(view), &view.public).0
}

/// What arrives for each client of corrupt gateways, in order of time: instants (nanoseconds) and epochs.
pub fn arrivals(view: &View) -> BTreeMap<u32, Vec<(u64, u8)>> {
    let mut all: BTreeMap<u32, Vec<(u64, u8)>> = BTreeMap::new();
    for pass in &view.passes {
        if let Party::Person(person) = pass.to {
            all.entry(person).or_default().push((pass.arrived.as_nanos(), pass.epoch));
        }
    }
    all.values_mut().for_each(|arrivals| arrivals.sort_unstable());
    all
}

/// The index of the block that an instant falls into.
fn block(view: &View, at: u64) -> usize {
    let since_s = at.saturating_sub(view.public.begin.as_nanos()) as f64 / 1e9;
    (since_s / block_s(&view.public)) as usize
}

/// Whole blocks in the observation.
fn blocks(view: &View) -> usize {
    (view.public.end.since(view.public.begin).as_secs_f64() / block_s(&view.public)) as usize
}

/// A person's scores of blocks as signs.
fn signs(view: &View, person: u32, scores: Vec<f64>) -> impl Iterator<Item = Sign> {
    let (begin_s, length_s) = (view.public.begin.as_secs_f64(), block_s(&view.public));
    scores.into_iter().enumerate().map(move |(block, score)| Sign {
        person,
        begin_s: begin_s + block as f64 * length_s,
        length_s,
        score,
    })
}

/// Who gets packets of another epoch than most of what arrives at the time.
pub struct EpochBytes;

impl Attack for EpochBytes {
    fn name(&self) -> &'static str {
        "epoch_bytes"
    }

    fn run(&self, view: &View) -> Answer {
        let all = arrivals(view);
        let mut bytes: Vec<BTreeMap<u8, u32>> = vec![BTreeMap::new(); blocks(view)];
        for (at, epoch) in all.values().flatten() {
            if let Some(counts) = bytes.get_mut(block(view, *at)) {
                *counts.entry(*epoch).or_default() += 1;
            }
        }
        let most = |counts: &BTreeMap<u8, u32>| {
            counts.iter().max_by_key(|(_, count)| **count).map(|(epoch, _)| *epoch)
        };
        let usual: Vec<Option<u8>> = bytes.iter().map(most).collect();
        let mut found = Answer::default();
        for (person, arrivals) in all {
            let mut scores = vec![0.0; usual.len()];
            for (at, epoch) in arrivals {
                let index = block(view, at);
                if let (Some(score), Some(usual)) = (scores.get_mut(index), usual.get(index))
                    && *usual != Some(epoch)
                {
                    *score += 1.0;
                }
            }
            found.signs.extend(signs(view, person, scores));
        }
        found
    }
}

/// How many packets arrive for each client: who gets more or fewer than usual, and whose numbers go together.
pub struct ArrivalCounts;

impl Attack for ArrivalCounts {
    fn name(&self) -> &'static str {
        "arrival_counts"
    }

    fn run(&self, view: &View) -> Answer {
        let all = arrivals(view);
        if all.is_empty() {
            return Answer::default();
        }
        let mut found = pairs(view, &all);
        for (person, arrivals) in all {
            let mut counts = vec![0.0; blocks(view)];
            for (at, _) in arrivals {
                if let Some(count) = counts.get_mut(block(view, at)) {
                    *count += 1.0;
                }
            }
            let mut sorted = counts.clone();
            sorted.sort_by(f64::total_cmp);
            // The median: a long call does not move it, and would move the mean.
            let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
            let scores = counts.iter().map(|count| (count - usual).abs()).collect();
            found.signs.extend(signs(view, person, scores));
        }
        found
    }
}

/// Pearson's correlation of the arrivals of each two people in bins of a second, or so many that few are empty.
fn pairs(view: &View, all: &BTreeMap<u32, Vec<(u64, u8)>>) -> Answer {
    let rate = view.public.resting_up_per_s.max(1.0);
    let bin = (1e9 * (10.0 / rate).max(1.0)) as u64;
    let (begin, end) = (view.public.begin.as_nanos(), view.public.end.as_nanos());
    let (rows, columns) = (view.public.people as usize, ((end - begin) / bin) as usize);
    if rows > super::dense::MOST_PEOPLE {
        return Answer::default();
    }
    let mut matrix = Matrix { rows, columns, values: vec![0.0; rows * columns] };
    for (person, arrivals) in all.iter().filter(|(person, _)| (**person as usize) < rows) {
        let row = matrix.row_mut(*person as usize);
        for (at, _) in arrivals {
            if let Some(count) = row.get_mut((at.saturating_sub(begin) / bin) as usize) {
                *count += 1.0;
            }
        }
    }
    let matrix = matrix.standardised();
    answer(&products(&matrix, &matrix), rows, (columns as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::attacks::generated::{Calls, view};
    use crate::score::scores::{self, Claims, RecordKind};

    /// The least p of the scores of what an attack finds.
    fn least_p(attack: &dyn Attack, settings: &Calls) -> f64 {
        let (view, truth) = view(settings);
        let answer = attack.run(&view);
        let people = view.public.people;
        let all = scores::scores(&answer, &truth, people, RecordKind::Calls, &Seed::from_u64(1));
        assert!(!all.is_empty(), "{}", attack.name());
        all.iter().map(|score| score.p).fold(1.0, f64::min)
    }

    #[test]
    fn calls_over_kept_paths_are_rebuilt_at_both_gateways_and_over_fresh_ones_not() {
        for attack in [&FirstHops as &dyn Attack, &LastMixes] {
            let (kept, truth) = view(&Calls { kept: true, ..Calls::default() });
            let found = Claims::of(&attack.run(&kept), &truth);
            assert!(found.rebuilt * 2 > found.records, "{}: {found:?}", attack.name());
            let (fresh, truth) = view(&Calls::default());
            let found = Claims::of(&attack.run(&fresh), &truth);
            assert_eq!(found.claims, 0, "{}", attack.name());
            assert!(least_p(attack, &Calls::default()) > 1e-3, "{}", attack.name());
        }
    }

    #[test]
    fn packets_of_another_epoch_are_told_from_loops() {
        assert!(least_p(&EpochBytes, &Calls { epochs: true, ..Calls::default() }) < 1e-3);
        assert!(least_p(&EpochBytes, &Calls::default()) > 1e-3);
    }

    #[test]
    fn numbers_of_arrivals_that_no_call_moves_say_nothing() {
        assert!(least_p(&ArrivalCounts, &Calls::default()) > 1e-3);
        // Who gets what others do not get stands out.
        let (mut view, truth) = view(&Calls::default());
        let more: Vec<Pass> = view
            .passes
            .iter()
            .filter(|pass| match pass.to {
                Party::Person(person) => truth.records.iter().any(|record| {
                    let since_s = pass.arrived.as_secs_f64() - record.start.as_secs_f64();
                    [record.caller, record.callee].contains(&person)
                        && (0.0..record.duration_s).contains(&since_s)
                }),
                _ => false,
            })
            .copied()
            .collect();
        view.passes.extend(more);
        let answer = ArrivalCounts.run(&view);
        let all = scores::scores(&answer, &truth, 40, RecordKind::Calls, &Seed::from_u64(1));
        assert!(all.iter().all(|score| score.p < 1e-3), "{all:?}");
    }
}
