//! Call records that an attack claims to have rebuilt: who, whom, when and how long.

use std::collections::HashMap;

use super::{Permutations, RecordKind, Score, relabelled};
use crate::adversary::attacks::{Answer, RebuiltRecord};
use crate::stats;
use crate::trace::{Record, Truth};

/// Shorter calls are not looked for, seconds.
const LEAST_S: f64 = 3.0;
/// A claim may be wrong by so much about begin and length, seconds; about the length also by a fifth.
const WRONG_S: f64 = 2.0;
const SHARE: f64 = 0.2;

/// How many records were rebuilt, and how many claims are true.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// Records of calls of three seconds and more.
    pub records: u64,
    /// Those of them that a claim has right in all.
    pub rebuilt: u64,
    /// How many claims the attack makes.
    pub claims: u64,
    /// Those of them that are right in all about a call, however short.
    pub right: u64,
}

impl Claims {
    /// The rows of an answer against what really happened.
    pub fn of(answer: &Answer, truth: &Truth) -> Self {
        let records = by_pair(&truth.records);
        let rows = claimed(answer);
        Self {
            records: long(&truth.records).count() as u64,
            claims: rows.len() as u64,
            ..judge(&rows, &records, None)
        }
    }
}

type ByPair = HashMap<u64, Vec<Record>>;

fn by_pair(records: &[Record]) -> ByPair {
    let mut all = ByPair::new();
    for record in records.iter().filter(|record| record.duration_s > 0.0) {
        all.entry(RecordKind::Calls.key(record.caller, record.callee)).or_default().push(*record);
    }
    all
}

fn long(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| record.duration_s >= LEAST_S)
}

/// What of an answer claims to be a record of a call.
fn claimed(answer: &Answer) -> Vec<&RebuiltRecord> {
    let fits = |row: &&RebuiltRecord| row.start_s.is_finite() && row.duration_s > 0.0;
    answer.rows.iter().filter(fits).collect()
}

fn judge(rows: &[&RebuiltRecord], records: &ByPair, labels: Option<&[u32]>) -> Claims {
    let label = |person: u32| labels.map_or(person, |labels| relabelled(labels, person));
    let mut claims = Claims::default();
    let mut found: Vec<(u64, usize)> = Vec::new();
    for row in rows {
        let key = RecordKind::Calls.key(label(row.caller), label(row.callee));
        let own = records.get(&key).map_or(&[][..], Vec::as_slice);
        let right = |record: &Record| {
            let wrong_s = (row.duration_s - record.duration_s).abs();
            (row.start_s - record.start.as_secs_f64()).abs() <= WRONG_S
                && wrong_s <= WRONG_S.max(SHARE * record.duration_s)
        };
        // Two claims of one call are both right, and it counts as rebuilt once.
        if let Some(index) = own.iter().position(right) {
            claims.right += 1;
            if own.get(index).is_some_and(|record| record.duration_s >= LEAST_S) {
                found.push((key, index));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    claims.rebuilt = found.len() as u64;
    claims
}

/// `rebuilt_of_3_s`: of the calls of three seconds and more, the share of which there is a claim that is right in
/// all. `claims_true`: of the claims, the share that is right in all; zero of none.
pub fn scores(answer: &Answer, truth: &Truth, permutations: &Permutations) -> Vec<Score> {
    let (records, rows) = (by_pair(&truth.records), claimed(answer));
    let all = Claims::of(answer, truth);
    if all.records == 0 {
        return Vec::new();
    }
    let shares = |claims: Claims| {
        let rebuilt = claims.rebuilt as f64 / all.records as f64;
        [rebuilt, claims.right as f64 / all.claims.max(1) as f64]
    };
    let compared =
        permutations.compare(shares(all), |labels| shares(judge(&rows, &records, Some(labels))));
    let [rebuilt, right] = compared;
    let share_of_claims = match all.claims {
        0 => crate::experiment::Estimate { value: 0.0, low: 0.0, high: 1.0 },
        claims => stats::proportion(all.right, claims),
    };
    let score = |name, value, (prior, p)| Score { name, value, prior, p };
    vec![
        score("rebuilt_of_3_s", stats::proportion(all.rebuilt, all.records), rebuilt),
        score("claims_true", share_of_claims, right),
    ]
}

#[cfg(test)]
mod tests {
    use shoal_topology::{Seed, Time};

    use super::*;

    #[test]
    fn a_claim_must_be_right_about_pair_begin_and_length() {
        let record = |k: u64, duration_s: f64| Record {
            caller: k as u32,
            callee: k as u32 + 20,
            start: Time::from_secs(100 * k),
            duration_s,
        };
        let truth = Truth { records: vec![record(1, 60.0), record(2, 2.0), record(3, 10.0)] };
        let row = |k: u32, late_s: f64, duration_s: f64| RebuiltRecord {
            caller: k + 20,
            callee: k,
            start_s: f64::from(100 * k) + late_s,
            duration_s,
            score: 1.0,
        };
        let wrong = [row(1, 3.0, 60.0), row(1, 0.0, 80.0), row(3, 0.0, 13.0), row(4, 0.0, 10.0)];
        let right = [row(1, 1.0, 50.0), row(1, -1.0, 61.0), row(2, 0.0, 2.5)];
        let rows = wrong.into_iter().chain(right).collect();
        let answer = Answer { rows, ..Answer::default() };
        let expected = Claims { records: 2, rebuilt: 1, claims: 7, right: 3 };
        assert_eq!(Claims::of(&answer, &truth), expected);
        let permutations = Permutations { people: 60, seed: Seed::from_u64(1) };
        let found = scores(&answer, &truth, &permutations);
        assert!(found.iter().all(|score| score.p < 0.01), "{found:?}");
        let none = scores(&Answer::default(), &truth, &permutations);
        assert!(none.iter().all(|score| score.p == 1.0 && score.value.value == 0.0), "{none:?}");
    }
}
