//! Whether signs of use tell those who do something from those who rest.
//!
//! A block of time of a person in which she does something for half of it, or half of what she does, is busy; one in which she
//! does nothing at all is at rest; others are not judged.

use std::collections::{BTreeMap, HashMap};

use super::{Permutations, Score};
use crate::adversary::attacks::{Answer, Sign};
use crate::stats;

/// Share of those at rest who are suspected, too.
const FALSE_ALARMS: f64 = 0.01;

/// Somebody does something.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BusyTime {
    /// The person who is busy.
    pub person: u32,
    /// From when on, seconds.
    pub begin_s: f64,
    /// Until when, seconds.
    pub end_s: f64,
}

/// All blocks that have a sign, in the order of their scores, the highest first.
struct Blocks {
    /// For each rank the first of those with the same score, and the one behind the last.
    alike: Vec<(u32, u32)>,
    /// The rank of each person's block, by person and slot.
    ranks: HashMap<(u32, u32), u32>,
}

impl Blocks {
    fn new(answer: &Answer, slots: &[(f64, f64)]) -> Self {
        let slot = |begin_s: f64| slots.partition_point(|(other, _)| *other < begin_s) as u32;
        let signs = answer.signs.iter().filter(|sign| sign.score.is_finite());
        let mut order: Vec<&Sign> = signs.collect();
        order.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut alike = Vec::with_capacity(order.len());
        // Equal scores have no order that an attack has given, so none of them may stand before another.
        for group in order.chunk_by(|a, b| a.score == b.score) {
            let first = alike.len() as u32;
            let end = first + group.len() as u32;
            alike.extend(group.iter().map(|_| (first, end)));
        }
        let rank = |(rank, sign): (u32, &&Sign)| ((sign.person, slot(sign.begin_s)), rank);
        let ranks = (0..).zip(&order).map(rank).collect();
        Self { alike, ranks }
    }
}

/// How a person spends a block.
#[derive(Clone, Copy, PartialEq)]
enum Spent {
    Busy,
    Mixed,
}

/// `told_at_1_pct`: of busy blocks, the share that stands out of all but 1 % of those at rest. `told_from_rest`: the
/// chance that a busy block stands out of one at rest. None where nobody is busy or nobody rests.
pub fn scores(answer: &Answer, busy: &[BusyTime], permutations: &Permutations) -> Vec<Score> {
    let mut slots: Vec<(f64, f64)> =
        answer.signs.iter().map(|sign| (sign.begin_s, sign.length_s)).collect();
    slots.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    slots.dedup();
    let blocks = Blocks::new(answer, &slots);
    let spent = spent(&slots, busy);
    let mut inverse: Vec<u32> = (0..permutations.people).collect();
    let mut judge = |labels: Option<&[u32]>| {
        // Whose signs are compared with a person's life.
        for (person, label) in labels.into_iter().flatten().enumerate() {
            if let Some(slot) = inverse.get_mut(*label as usize) {
                *slot = person as u32;
            }
        }
        shares(&blocks, &spent, &inverse)
    };
    let (told, area, n) = judge(None);
    let resting = blocks.alike.len() as u64;
    if n == 0 || n == resting {
        return Vec::new();
    }
    let compared = permutations.compare([told, area], |labels| {
        let (told, area, _) = judge(Some(labels));
        [told, area]
    });
    let [told_prior, area_prior] = compared;
    let hits = (told * n as f64).round() as u64;
    let score = |name, value, (prior, p)| Score { name, value, prior, p };
    // The interval takes blocks as independent; p does not.
    let half = (stats::proportion((area * n as f64).round() as u64, n), area);
    let area = crate::experiment::Estimate { value: half.1, ..half.0 };
    vec![
        score("told_at_1_pct", stats::proportion(hits, n), told_prior),
        score("told_from_rest", area, area_prior),
    ]
}

/// What each person does in each slot in which she does anything.
fn spent(slots: &[(f64, f64)], busy: &[BusyTime]) -> BTreeMap<(u32, u32), Spent> {
    let mut seconds: BTreeMap<(u32, u32), (f64, f64)> = BTreeMap::new();
    let longest = slots.iter().map(|(_, length)| *length).fold(0.0, f64::max);
    for BusyTime { person, begin_s, end_s } in busy {
        let first = slots.partition_point(|(begin, _)| *begin < begin_s - longest);
        for (number, (begin, length)) in slots.iter().enumerate().skip(first) {
            if begin > end_s {
                break;
            }
            let overlap = end_s.min(begin + length) - begin_s.max(*begin);
            // Zero too: who only touches a block is not at rest in it.
            if overlap >= 0.0 {
                let slot = seconds.entry((*person, number as u32)).or_insert((0.0, f64::MAX));
                slot.0 += overlap;
                slot.1 = slot.1.min(0.5 * length.min(end_s - begin_s));
            }
        }
    }
    let spent = |(overlap, needed)| if overlap >= needed { Spent::Busy } else { Spent::Mixed };
    seconds.into_iter().map(|(key, both)| (key, spent(both))).collect()
}

/// Share of busy blocks above all but 1 % of the resting ones; the chance that a busy block is above a resting one (equal
/// ones count half); and the number of busy blocks. `signs_of` says whose signs stand for each person's.
fn shares(
    blocks: &Blocks,
    spent: &BTreeMap<(u32, u32), Spent>,
    signs_of: &[u32],
) -> (f64, f64, u64) {
    // Ranks of all that is not rest, and of what is busy.
    let (mut taken, mut busy) = (Vec::with_capacity(spent.len()), Vec::new());
    for ((person, slot), spent) in spent {
        let of = signs_of.get(*person as usize).copied().unwrap_or(*person);
        if let Some(rank) = blocks.ranks.get(&(of, *slot)) {
            taken.push(*rank);
            if *spent == Spent::Busy {
                busy.push(*rank);
            }
        }
    }
    taken.sort_unstable();
    let resting = (blocks.alike.len() - taken.len()) as u64;
    // Rounded down, so that never more than the named share is suspected in vain.
    let suspected = (resting as f64 * FALSE_ALARMS) as u64;
    let resting_before =
        |rank: u32| u64::from(rank) - taken.partition_point(|other| *other < rank) as u64;
    let (mut told, mut area) = (0u64, 0.0f64);
    for rank in &busy {
        let (first, end) = blocks.alike.get(*rank as usize).copied().unwrap_or_default();
        let (above, alike_too) = (resting_before(first), resting_before(end));
        // Those who look alike are suspected together.
        told += u64::from(alike_too <= suspected);
        area += (resting - alike_too) as f64 + 0.5 * (alike_too - above) as f64;
    }
    let number = busy.len() as u64;
    let pairs = (number * resting).max(1) as f64;
    (told as f64 / number.max(1) as f64, area / pairs, number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::RngExt;
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::attacks::Sign;

    /// 40 people, 60 blocks of five seconds; what a busy block adds to noise.
    fn scored(adds: f64, seed: u64) -> Vec<Score> {
        let mut stream = Seed::from_u64(seed).stream("signs");
        let busy: Vec<BusyTime> = (0..40)
            .map(|person| {
                let begin_s = 250.0 * stream.random::<f64>();
                BusyTime { person, begin_s, end_s: begin_s + 20.0 }
            })
            .collect();
        let sign = |k: u32| {
            let (person, begin_s) = (k / 60, f64::from(k % 60) * 5.0);
            let own = busy.iter().find(|busy| busy.person == person).unwrap();
            let inside = begin_s >= own.begin_s && begin_s + 5.0 <= own.end_s;
            let score = stream.random::<f64>() + if inside { adds } else { 0.0 };
            Sign { person, begin_s, length_s: 5.0, score }
        };
        let mut sign = sign;
        let answer = Answer { signs: (0..40 * 60).map(&mut sign).collect(), ..Answer::default() };
        let permutations = Permutations { people: 40, seed: Seed::from_u64(seed).part("prior") };
        scores(&answer, &busy, &permutations)
    }

    #[test]
    fn signs_that_tell_are_told_and_noise_is_not() {
        let [told, area] = scored(2.0, 1).try_into().unwrap();
        // Whole blocks stand out; those that are busy for half of their time or a little more do not.
        assert!(told.value.value > 0.6 && told.p < 1e-3, "{told:?}");
        assert!(area.value.value > 0.8 && area.p < 1e-3, "{area:?}");
        let mut least = 1.0f64;
        for seed in 0..20 {
            scored(0.0, seed).iter().for_each(|score| least = least.min(score.p));
        }
        assert!(least > 1e-3, "{least}");
    }

    #[test]
    fn signs_that_are_all_alike_tell_nothing() {
        let sign = |k: u32| Sign {
            person: k / 60,
            begin_s: f64::from(k % 60) * 5.0,
            length_s: 5.0,
            score: 0.0,
        };
        let answer = Answer { signs: (0..240).map(sign).collect(), ..Answer::default() };
        let busy = [BusyTime { person: 1, begin_s: 10.0, end_s: 30.0 }];
        let permutations = Permutations { people: 4, seed: Seed::from_u64(1) };
        let [told, area] = scores(&answer, &busy, &permutations).try_into().unwrap();
        assert_eq!((told.value.value, area.value.value), (0.0, 0.5));
        assert_eq!((told.p, area.p), (1.0, 1.0));
    }
}
