//! What an attack found against what really happened, and against what it would find by knowing nothing.
//!
//! The prior-only guess is the same answer with people's labels permuted at random: it keeps how many pairs and
//! rows an attack names, and how they hang together, and loses all that it knows of whom they are about. A score
//! beats it if few permutations reach it (one-sided p; the observed answer counts as one of the permutations, so
//! that p is never zero).

mod claims;
pub mod graph;
mod rank;
mod rows;
mod told;

pub use claims::Claims;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};
pub use told::BusyTime;

use crate::adversary::attacks::Answer;
use crate::experiment::Estimate;
use crate::trace::{Record, Truth};

/// Most permutations behind a prior: p is 1/(1 + this) at the least, so that up to 999 lines can be corrected at once
/// and a line can still beat it.
pub const PERMUTATIONS: u32 = 19_999;
/// After so many permutations no more are drawn where so many of them reached each observed value: such a score is
/// far from beating the prior, and its p is known to a fifth (Besag and Clifford, Biometrika 1991).
const ENOUGH: (u32, u32) = (999, 30);

/// What the records are of, and so what a pair is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Messages: a pair is directed, who wrote to whom.
    Messages,
    /// Calls: a pair has no direction, since both ends send alike.
    Calls,
}

impl RecordKind {
    /// Calls if any record has a duration.
    pub fn of(truth: &Truth) -> Self {
        let lasts = truth.records.iter().any(|record| record.duration_s > 0.0);
        if lasts { Self::Calls } else { Self::Messages }
    }

    /// A pair as a key.
    fn key(self, caller: u32, callee: u32) -> u64 {
        let (first, second) = match self {
            Self::Messages => (caller, callee),
            Self::Calls => (caller.min(callee), caller.max(callee)),
        };
        u64::from(first) << 32 | u64::from(second)
    }
}

/// A score of an answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Score {
    /// Which: `average_precision`, `r_precision`, `top_1`, `start_within_10_s`, `duration_within_20_pct`,
    /// `rebuilt_of_3_s`, `claims_true`, `told_at_1_pct`, `told_from_rest`, `reidentified_1_hop`, `reidentified_2_hop`.
    pub name: &'static str,
    /// The score, 0 to 1, with its 95 % interval over pairs or records.
    pub value: Estimate,
    /// Its mean over permuted labels.
    pub prior: f64,
    /// One-sided p-value of "no better than the prior".
    pub p: f64,
}

/// All scores of an answer: of pairs, of rows where the attack makes any, of signs likewise. `people` is how many there are,
/// known to everybody. An answer without pairs is scored as the guess that it is, unless it has signs.
pub fn scores(
    answer: &Answer,
    truth: &Truth,
    people: u32,
    kind: RecordKind,
    seed: &Seed,
) -> Vec<Score> {
    let real = Truth { records: real(&truth.records, people) };
    let permutations = Permutations { people, seed: seed.part("prior") };
    // Of the seed and not of the order in which an attack names pairs, which may follow the truth by accident.
    let ties = seed.stream("ties").random();
    let mut all = Vec::new();
    if !answer.pairs.is_empty() || answer.signs.is_empty() {
        all.extend(rank::scores(answer, &real, kind, ties, &permutations));
    }
    if !answer.rows.is_empty() {
        all.extend(of_rows(answer, truth, people, kind, seed));
    }
    all.extend(of_signs(answer, &busy(&real, kind), people, seed));
    all
}

/// The scores of rows alone; of none, they are zero.
pub fn of_rows(
    answer: &Answer,
    truth: &Truth,
    people: u32,
    kind: RecordKind,
    seed: &Seed,
) -> Vec<Score> {
    let truth = Truth { records: real(&truth.records, people) };
    let permutations = Permutations { people, seed: seed.part("prior") };
    let ties = seed.stream("ties").random();
    let mut all = rows::scores(answer, &truth, kind, ties, &permutations);
    if kind == RecordKind::Calls {
        all.extend(claims::scores(answer, &truth, &permutations));
    }
    all
}

/// The scores of signs alone, where there are any, by when people did something.
pub fn of_signs(answer: &Answer, busy: &[BusyTime], people: u32, seed: &Seed) -> Vec<Score> {
    let permutations = Permutations { people, seed: seed.part("prior") };
    told::scores(answer, busy, &permutations)
}

/// When people are in calls, or write and get messages.
fn busy(truth: &Truth, kind: RecordKind) -> Vec<BusyTime> {
    // A message is on its way for so long.
    const MESSAGE_S: f64 = 3.0;
    let lasts = |record: &&Record| kind == RecordKind::Messages || record.duration_s > 0.0;
    let of = |record: &Record| {
        let begin_s = record.start.as_secs_f64();
        let length_s = if kind == RecordKind::Messages { MESSAGE_S } else { record.duration_s };
        let one = |person| BusyTime { person, begin_s, end_s: begin_s + length_s };
        [record.caller, record.callee].map(one)
    };
    truth.records.iter().filter(lasts).flat_map(of).collect()
}

/// Records between two different people.
fn real(records: &[Record], people: u32) -> Vec<Record> {
    let fits = |r: &&Record| r.caller != r.callee && r.caller.max(r.callee) < people;
    records.iter().filter(fits).copied().collect()
}

/// Permutations of people's labels, the same in every call.
struct Permutations {
    people: u32,
    seed: Seed,
}

impl Permutations {
    /// Compares what is observed with the same under each permutation. Both give one value for each score.
    fn compare<const N: usize>(
        &self,
        observed: [f64; N],
        mut under: impl FnMut(&[u32]) -> [f64; N],
    ) -> [(f64, f64); N] {
        let mut stream: Stream = self.seed.stream("permutations");
        let mut labels: Vec<u32> = (0..self.people).collect();
        let (mut sums, mut reached, mut drawn) = ([0.0; N], [1u32; N], 0);
        while drawn < PERMUTATIONS {
            drawn += 1;
            for last in (1..labels.len()).rev() {
                labels.swap(last, stream.random_range(0..=last));
            }
            for (k, value) in under(&labels).into_iter().enumerate() {
                let at = |all: &[f64; N]| all.get(k).copied().unwrap_or(0.0);
                // With a little room: equal scores that were summed in another order must count as reached.
                if value >= at(&observed) - 1e-12
                    && let Some(reached) = reached.get_mut(k)
                {
                    *reached += 1;
                }
                if let Some(sum) = sums.get_mut(k) {
                    *sum += value;
                }
            }
            // Only all of them together: a score that is still rarely reached needs the smallest p that there can be.
            if drawn >= ENOUGH.0 && reached.iter().all(|reached| *reached > ENOUGH.1) {
                break;
            }
        }
        let mut all = [(0.0, 1.0); N];
        for ((slot, sum), reached) in all.iter_mut().zip(sums).zip(reached) {
            *slot = (sum / f64::from(drawn), f64::from(reached) / f64::from(1 + drawn));
        }
        all
    }
}

/// A number for breaking ties: depends on the pair and the seed, and not on the order of people.
fn mixed(key: u64, seed: u64) -> u64 {
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut z = key.wrapping_add(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A person under other labels.
fn relabelled(labels: &[u32], person: u32) -> u32 {
    labels.get(person as usize).copied().unwrap_or(person)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use shoal_topology::Time;

    use super::*;
    use crate::adversary::attacks::{RebuiltRecord, Scored};

    fn truth() -> Truth {
        let record = |k: u32| Record {
            caller: k,
            callee: 2 * k + 1,
            start: Time::from_secs(u64::from(k) * 100),
            duration_s: 60.0,
        };
        Truth { records: (0..40).map(record).collect() }
    }

    fn by_name(all: &[Score], name: &str) -> Score {
        all.iter().find(|score| score.name == name).unwrap().clone()
    }

    #[test]
    fn the_truth_scores_one_and_beats_the_prior() {
        let truth = truth();
        let pairs = truth.records.iter();
        let pairs = pairs.map(|r| Scored { caller: r.callee, callee: r.caller, score: 1.0 });
        let rows = truth.records.iter().map(|r| RebuiltRecord {
            caller: r.caller,
            callee: r.callee,
            start_s: r.start.as_secs_f64() + 9.0,
            duration_s: r.duration_s * 1.1,
            score: 1.0,
        });
        let answer = Answer { pairs: pairs.collect(), rows: rows.collect(), ..Answer::default() };
        let found = scores(&answer, &truth, 100, RecordKind::Calls, &Seed::from_u64(1));
        assert_eq!(found.len(), 7);
        for score in found {
            if ["rebuilt_of_3_s", "claims_true"].contains(&score.name) {
                // Nine seconds late is no record rebuilt.
                assert_eq!(score.value.value, 0.0, "{score:?}");
                continue;
            }
            assert_eq!(score.value.value, 1.0, "{score:?}");
            assert!(score.prior < 0.1 && score.p < 0.001, "{score:?}");
        }
    }

    #[test]
    fn rows_that_are_late_or_long_do_not_count() {
        let truth = truth();
        let rows = truth.records.iter().map(|r| RebuiltRecord {
            caller: r.caller,
            callee: r.callee,
            start_s: r.start.as_secs_f64() + 11.0,
            duration_s: r.duration_s * 1.3,
            score: 1.0,
        });
        let answer = Answer { rows: rows.collect(), ..Answer::default() };
        let found = scores(&answer, &truth, 100, RecordKind::Calls, &Seed::from_u64(1));
        assert_eq!(by_name(&found, "top_1").value.value, 1.0);
        assert_eq!(by_name(&found, "start_within_10_s").value.value, 0.0);
        assert_eq!(by_name(&found, "duration_within_20_pct").value.value, 0.0);
    }

    #[test]
    fn an_empty_answer_is_a_guess() {
        let found =
            scores(&Answer::default(), &truth(), 100, RecordKind::Messages, &Seed::from_u64(2));
        let precision = by_name(&found, "r_precision");
        assert!(precision.value.value <= 0.1 && precision.p > 0.01, "{precision:?}");
        // 40 of 9,900 pairs.
        assert!((precision.prior - 40.0 / 9900.0).abs() < 0.002, "{precision:?}");
    }

    #[test]
    fn p_values_of_guesses_are_uniform() {
        let truth = truth();
        let p = |seed: u64| {
            let mut stream = Seed::from_u64(seed).stream("guess");
            let mut pairs = Vec::new();
            for caller in 0..100 {
                for callee in 0..100 {
                    pairs.push(Scored { caller, callee, score: stream.random() });
                }
            }
            let answer = Answer { pairs, ..Answer::default() };
            let found = scores(&answer, &truth, 100, RecordKind::Messages, &Seed::from_u64(seed));
            by_name(&found, "average_precision").p
        };
        let all: Vec<f64> = (0..40).map(p).collect();
        let mean = all.iter().sum::<f64>() / 40.0;
        // Four standard deviations of the mean of 40 uniform values.
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 40.0).sqrt(), "{mean}");
    }
}
