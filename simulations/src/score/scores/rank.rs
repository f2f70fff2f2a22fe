//! Pairs in order of score against those that were really in contact.

use std::collections::{BTreeSet, HashMap};

use super::{Permutations, RecordKind, Score, mixed, relabelled};
use crate::adversary::attacks::Answer;
use crate::experiment::Estimate;
use crate::stats;
use crate::trace::Truth;

/// Ranks of pairs, from one. A pair that the attack does not name has a rank at random below those that it does.
struct Ranking {
    named: HashMap<u64, u32>,
    /// All pairs there are.
    pairs: u64,
    ties: u64,
}

impl Ranking {
    fn new(answer: &Answer, kind: RecordKind, people: u32, ties: u64) -> Self {
        let mut sums: HashMap<u64, f64> = HashMap::new();
        for pair in answer.pairs.iter().filter(|pair| pair.caller != pair.callee) {
            if pair.score.is_finite() {
                *sums.entry(kind.key(pair.caller, pair.callee)).or_default() += pair.score;
            }
        }
        let most = sums.values().fold(f64::MIN_POSITIVE, |most, score| most.max(score.abs()));
        // Rounding in an attack must not order pairs by where they stand in a matrix.
        let coarse = |score: f64| (score / most * 1e6).round() as i64;
        let mut order: Vec<(i64, u64, u64)> =
            sums.into_iter().map(|(key, score)| (-coarse(score), mixed(key, ties), key)).collect();
        order.sort_unstable();
        let named = order.iter().zip(1..).map(|((_, _, key), rank)| (*key, rank)).collect();
        let people = u64::from(people);
        let directed = people * people.saturating_sub(1);
        let pairs = match kind {
            RecordKind::Messages => directed,
            RecordKind::Calls => directed / 2,
        };
        Self { named, pairs, ties }
    }

    fn rank(&self, key: u64) -> u64 {
        if let Some(rank) = self.named.get(&key) {
            return u64::from(*rank);
        }
        let named = self.named.len() as u64;
        let rest = self.pairs.saturating_sub(named).max(1);
        // By multiplication: the upper half is a uniform rank below `rest`.
        let part = u128::from(mixed(key, self.ties)) * u128::from(rest);
        named + 1 + (part >> 64) as u64
    }
}

/// Precision at each true pair, in order of rank, and how many are among the first R.
fn precisions(ranking: &Ranking, keys: impl Iterator<Item = u64>, ranks: &mut Vec<u64>) -> u64 {
    ranks.clear();
    ranks.extend(keys.map(|key| ranking.rank(key)));
    ranks.sort_unstable();
    let truly = ranks.len() as u64;
    ranks.partition_point(|rank| *rank <= truly) as u64
}

/// Average precision and R-precision.
pub fn scores(
    answer: &Answer,
    truth: &Truth,
    kind: RecordKind,
    ties: u64,
    permutations: &Permutations,
) -> Vec<Score> {
    let ranking = Ranking::new(answer, kind, permutations.people, ties);
    let distinct: BTreeSet<u64> =
        truth.records.iter().map(|r| kind.key(r.caller, r.callee)).collect();
    let pairs: Vec<(u32, u32)> =
        distinct.iter().map(|key| ((key >> 32) as u32, *key as u32)).collect();
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut ranks = Vec::new();
    let at_each = |ranks: &[u64]| -> Vec<f64> {
        ranks.iter().zip(1u64..).map(|(rank, k)| (k as f64 / *rank as f64).min(1.0)).collect()
    };
    let hits = precisions(&ranking, distinct.iter().copied(), &mut ranks);
    let precision = at_each(&ranks);
    let average = stats::mean(&precision);
    let average = Estimate {
        value: average.value,
        low: average.low.clamp(0.0, 1.0),
        high: average.high.clamp(0.0, 1.0),
    };
    let share = stats::proportion(hits, pairs.len() as u64);
    let compared = permutations.compare([average.value, share.value], |labels| {
        let keys = pairs.iter().map(|(caller, callee)| {
            kind.key(relabelled(labels, *caller), relabelled(labels, *callee))
        });
        let hits = precisions(&ranking, keys, &mut ranks);
        let n = pairs.len() as f64;
        [at_each(&ranks).iter().sum::<f64>() / n, hits as f64 / n]
    });
    let values = [("average_precision", average), ("r_precision", share)];
    let score = |((name, value), (prior, p))| Score { name, value, prior, p };
    values.into_iter().zip(compared).map(score).collect()
}
