//! Rebuilt rows against true ones.
//!
//! Of n true records the n surest rows count. A row and a record belong together where the pair is right and the
//! starts lie within a minute; each belongs to one at the most.

use std::collections::{BTreeMap, HashMap};

use super::{Permutations, RecordKind, Score, mixed, relabelled};
use crate::adversary::attacks::{Answer, RebuiltRecord};
use crate::stats;
use crate::trace::{Record, Truth};

/// Beyond this, a row is about something else, seconds.
const SAME_S: f64 = 60.0;
const START_S: f64 = 10.0;
const DURATION: f64 = 0.2;

/// Records that have a row; that have one with the start right; that have one with the duration right.
type Hits = [u64; 3];

/// Shares of records with the right pair, with the right start as well, and with the right duration (of those that
/// have one).
pub fn scores(
    answer: &Answer,
    truth: &Truth,
    kind: RecordKind,
    ties: u64,
    permutations: &Permutations,
) -> Vec<Score> {
    let rows = surest(&answer.rows, truth.records.len(), kind, ties);
    let mut records: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    for record in &truth.records {
        records.entry(kind.key(record.caller, record.callee)).or_default().push(*record);
    }
    let n = truth.records.len() as u64;
    let lasting = truth.records.iter().filter(|record| record.duration_s > 0.0).count() as u64;
    if n == 0 {
        return Vec::new();
    }
    let mut used = Vec::new();
    let mut hits = |labels: Option<&[u32]>| {
        let mut sums = [0; 3];
        for (key, records) in &records {
            let label = |person: u32| labels.map_or(person, |labels| relabelled(labels, person));
            let key = kind.key(label((key >> 32) as u32), label(*key as u32));
            if let Some(rows) = rows.get(&key) {
                let found = assign(records, rows, &mut used);
                sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
            }
        }
        sums
    };
    let shares = |[pair, start, duration]: Hits| {
        let share = |hits: u64, n: u64| hits as f64 / n.max(1) as f64;
        [share(pair, n), share(start, n), share(duration, lasting)]
    };
    let found = hits(None);
    let compared = permutations.compare(shares(found), |labels| shares(hits(Some(labels))));
    let names = ["top_1", "start_within_10_s", "duration_within_20_pct"];
    let all = names.into_iter().zip(found).zip([n, n, lasting]).zip(compared);
    all.filter(|((_, n), _)| *n > 0)
        .map(|(((name, hits), n), (prior, p))| Score {
            name,
            value: stats::proportion(hits, n),
            prior,
            p,
        })
        .collect()
}

/// The surest rows by pair, each pair's in order of time.
pub fn surest(
    rows: &[RebuiltRecord],
    most: usize,
    kind: RecordKind,
    ties: u64,
) -> HashMap<u64, Vec<RebuiltRecord>> {
    let mut order: Vec<(&RebuiltRecord, u64)> = rows
        .iter()
        .filter(|row| row.score.is_finite() && row.start_s.is_finite())
        .map(|row| (row, mixed(kind.key(row.caller, row.callee) ^ row.start_s.to_bits(), ties)))
        .collect();
    order.sort_by(|a, b| b.0.score.total_cmp(&a.0.score).then(a.1.cmp(&b.1)));
    order.truncate(most);
    let mut all: HashMap<u64, Vec<RebuiltRecord>> = HashMap::new();
    for (row, _) in order {
        all.entry(kind.key(row.caller, row.callee)).or_default().push(*row);
    }
    all.values_mut().for_each(|rows| rows.sort_by(|a, b| a.start_s.total_cmp(&b.start_s)));
    all
}

/// Gives each record, in order of time, the nearest row that is left.
fn assign(records: &[Record], rows: &[RebuiltRecord], used: &mut Vec<bool>) -> Hits {
    used.clear();
    used.resize(rows.len(), false);
    let mut hits = [0; 3];
    for record in records {
        let start_s = record.start.as_secs_f64();
        let away = |row: &RebuiltRecord| (row.start_s - start_s).abs();
        let first = rows.partition_point(|row| row.start_s < start_s - SAME_S);
        let near = rows.iter().zip(used.iter_mut()).skip(first);
        let near = near.take_while(|(row, _)| row.start_s <= start_s + SAME_S);
        let free = near.filter(|(_, used)| !**used);
        if let Some((row, used)) = free.min_by(|a, b| away(a.0).total_cmp(&away(b.0))) {
            *used = true;
            let start = away(row) <= START_S;
            let wrong_s = (row.duration_s - record.duration_s).abs();
            let duration = record.duration_s > 0.0 && wrong_s <= DURATION * record.duration_s;
            let found = [1, u64::from(start), u64::from(duration)];
            hits.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        }
    }
    hits
}
