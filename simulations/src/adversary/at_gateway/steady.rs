//! Whether what comes for a person follows one law, whatever the person does: a permutation test.
//!
//! Arrivals are not independent, so blocks of 20 s are exchanged, not arrivals. Of each block there is a row of statistics;
//! the largest standardised difference of their means between the two laws is compared with its law when the blocks'
//! labels are exchanged (Westfall and Young, 1993: one test for all statistics together, at its own level).

use std::f64::consts::TAU;

use rand::seq::SliceRandom;
use shoal_topology::Stream;

use super::Seen;

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;
/// Length of a block, nanoseconds.
pub const BLOCK: u64 = 20_000 * MS;
/// Windows in which arrivals are counted, milliseconds; the whole block besides.
const WINDOWS_MS: [u64; 6] = [20, 100, 400, 1_000, 2_000, 5_000];
/// Gaps between arrivals: the share below so many milliseconds.
const GAPS_MS: [u64; 6] = [1, 5, 20, 60, 200, 800];
/// Lags of the autocorrelation of counts, in payload slots.
const LAGS: usize = 10;
/// Lags of the autocorrelation of counts in seconds.
const SLOW_LAGS: usize = 4;

/// What everybody knows of a class.
#[derive(Clone, Copy, Debug)]
pub struct Grids {
    /// Between payload slots, nanoseconds.
    pub payload: u64,
    /// Between loop slots, nanoseconds.
    pub loops: u64,
}

/// The rows of all whole blocks of one person between two instants, nanoseconds. `peer` is whom it would talk to, `last`
/// the mixes of the last layer.
pub fn blocks(
    (seen, peer): (&Seen, &Seen),
    grids: Grids,
    last: &[u32],
    (begin, end): (u64, u64),
) -> Vec<Vec<f64>> {
    let phases = [
        (grids.payload, phase(seen, grids.payload, None)),
        (grids.payload, phase(peer, grids.payload, None)),
        (grids.loops, phase(seen, grids.loops, Some(grids.payload))),
        (grids.loops, phase(peer, grids.loops, Some(grids.payload))),
    ];
    let count = end.saturating_sub(begin) / BLOCK;
    (0..count).map(|n| row((seen, peer), grids, &phases, last, begin + n * BLOCK)).collect()
}

/// Names of the statistics, in the order of a row.
pub fn names() -> Vec<String> {
    let mut names = vec!["arrivals in 20 s".to_owned()];
    names.extend(WINDOWS_MS.iter().map(|ms| format!("variance of counts in {ms} ms")));
    names.extend(GAPS_MS.iter().map(|ms| format!("gaps below {ms} ms")));
    names.push("mean logarithm of gaps".into());
    for grid in ["own payload slots", "peer's payload slots", "own loop slots", "peer's loop slots"]
    {
        for harmonic in [1, 2] {
            names.extend(["cosine", "sine"].map(|of| format!("phase, {grid}: {of} {harmonic}")));
        }
        names.push(format!("phase, {grid}: length"));
    }
    names.push("epoch byte not that of the frames up".into());
    names.push("chi-square of last links".into());
    names.extend((1..=LAGS).map(|lag| format!("autocovariance at {lag} payload slots")));
    names.extend((1..=SLOW_LAGS).map(|lag| format!("autocovariance at {lag} s")));
    names.extend(
        ["before", "with", "behind"].map(|lag| format!("covariance {lag} the peer, 200 ms")),
    );
    names.push("covariance with the peer, 1 s".into());
    names
}

/// The instant at which a grid of this gap begins, as far as frames up show it: where most of them lie. Of the loops'
/// grid the frames count that are not on the `other`.
fn phase(seen: &Seen, gap: u64, other: Option<u64>) -> u64 {
    let near = |at: u64, from: u64, gap: u64| {
        let off = (at + gap - from % gap) % gap;
        off.min(gap - off) < MS
    };
    let most = |times: &[u64], gap: u64| {
        let count = |from: u64| times.iter().filter(|at| near(**at, from, gap)).count();
        times.iter().take(60).copied().max_by_key(|from| count(*from)).unwrap_or(0) % gap
    };
    let times: Vec<u64> = seen.up.iter().take(2_000).map(|up| up.at).collect();
    let Some(other) = other else { return most(&times, gap) };
    let from = most(&times, other);
    let rest: Vec<u64> = times.into_iter().filter(|at| !near(*at, from, other)).collect();
    most(&rest, gap)
}

fn row(
    (seen, peer): (&Seen, &Seen),
    grids: Grids,
    phases: &[(u64, u64)],
    last: &[u32],
    begin: u64,
) -> Vec<f64> {
    let from = seen.came.partition_point(|came| came.at < begin);
    let to = seen.came.partition_point(|came| came.at < begin + BLOCK);
    let came = seen.came.get(from..to).unwrap_or_default();
    let n = came.len() as f64;
    let mut row = vec![n];
    for ms in WINDOWS_MS {
        row.push(covariance(&seen.counts(begin, ms * MS, (BLOCK / MS / ms) as usize), 0));
    }
    let gaps: Vec<u64> =
        came.iter().zip(came.iter().skip(1)).map(|(a, b)| b.at.saturating_sub(a.at)).collect();
    let count = gaps.len().max(1) as f64;
    for ms in GAPS_MS {
        row.push(gaps.iter().filter(|gap| **gap < ms * MS).count() as f64 / count);
    }
    row.push(gaps.iter().map(|gap| (*gap as f64 + 1e6).ln()).sum::<f64>() / count);
    for (gap, phase) in phases {
        row.extend(harmonics(came.iter().map(|came| came.at), *gap, *phase));
    }
    let other = came.iter().filter(|came| {
        let before = seen.up.partition_point(|up| up.at <= came.at);
        before.checked_sub(1).and_then(|n| seen.up.get(n)).is_some_and(|up| up.epoch != came.epoch)
    });
    row.push(other.count() as f64 / n.max(1.0));
    let expected = n / last.len().max(1) as f64;
    let square = |mix: &u32| {
        let of = came.iter().filter(|came| came.from == *mix).count() as f64;
        (of - expected).powi(2) / expected.max(1e-9)
    };
    row.push(last.iter().map(square).sum());
    let slots = seen.counts(begin, grids.payload, (BLOCK / grids.payload) as usize);
    row.extend((1..=LAGS).map(|lag| covariance(&slots, lag)));
    let seconds = seen.counts(begin, 1_000 * MS, 20);
    row.extend((1..=SLOW_LAGS).map(|lag| covariance(&seconds, lag)));
    let fine = |seen: &Seen| seen.counts(begin, 200 * MS, 100);
    let (own, other) = (fine(seen), fine(peer));
    for (a, b) in [(1, 0), (0, 0), (0, 1)] {
        let [own, other] = [(&own, a), (&other, b)].map(|(of, skip)| of.get(skip..).unwrap_or(of));
        row.push(together(own, other));
    }
    row.push(together(&seconds, &peer.counts(begin, 1_000 * MS, 20)));
    row
}

/// Cosine and sine of the first two harmonics against a grid, and the length of the first.
fn harmonics(times: impl Iterator<Item = u64>, gap: u64, phase: u64) -> [f64; 5] {
    let mut sums = [0.0; 4];
    let mut n = 0.0_f64;
    for at in times {
        let angle = TAU * ((at + gap - phase % gap) % gap) as f64 / gap as f64;
        let parts = [angle.cos(), angle.sin(), (2.0 * angle).cos(), (2.0 * angle).sin()];
        sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        n += 1.0;
    }
    let [a, b, c, d] = sums.map(|sum| sum / n.max(1.0));
    [a, b, c, d, n * (a * a + b * b)]
}

/// Of a series with itself, so many values later.
fn covariance(values: &[f64], lag: usize) -> f64 {
    together(values, values.get(lag..).unwrap_or_default())
}

/// Of two series, as far as both go.
fn together(a: &[f64], b: &[f64]) -> f64 {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let n = a.len().min(b.len()).max(1) as f64;
    a.iter().zip(b).map(|(a, b)| (a - of_a) * (b - of_b)).sum::<f64>() / n
}

/// What the test says.
#[derive(Clone, Debug)]
pub struct PermutationTest {
    /// The chance of a difference as large as the largest, or larger, if both groups follow one law.
    pub p: f64,
    /// Blocks of the first law, and of the second.
    pub blocks: (usize, usize),
    /// Every statistic and its standardised difference (second less first), the largest first.
    pub differences: Vec<(String, f64)>,
}

/// The rows of one person: of its first law, and of its second.
pub type Stratum = (Vec<Vec<f64>>, Vec<Vec<f64>>);

/// Compares the two laws under so many permutations, each of which exchanges blocks of one person only: people differ, by
/// the phases of their slots for one.
pub fn compare(people: &[Stratum], permutations: u32, rng: &mut Stream) -> PermutationTest {
    let strata: Vec<(Vec<Vec<f64>>, usize)> = people.iter().map(centred).collect();
    let width = strata.iter().find_map(|(rows, _)| rows.first()).map_or(0, Vec::len);
    let scales = scales(&strata, width);
    let n: usize = strata.iter().map(|(_, first)| first).sum();
    let m: usize = strata.iter().map(|(rows, first)| rows.len() - first).sum();
    let scale = ((n + m) as f64 / (n as f64 * m as f64)).sqrt();
    let sums = |orders: &[Vec<usize>]| {
        let mut sums = vec![0.0; width];
        for ((rows, first), order) in strata.iter().zip(orders) {
            for row in order.iter().skip(*first).filter_map(|index| rows.get(*index)) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        sums.iter_mut().zip(&scales).for_each(|(sum, by)| *sum *= by * scale);
        sums
    };
    let mut orders: Vec<Vec<usize>> =
        strata.iter().map(|(rows, _)| (0..rows.len()).collect()).collect();
    let observed = sums(&orders);
    let largest = |sums: &[f64]| sums.iter().fold(0.0_f64, |most, sum| most.max(sum.abs()));
    let most = largest(&observed);
    let mut as_large = 1_u32;
    for _ in 0..permutations {
        orders.iter_mut().for_each(|order| order.shuffle(rng));
        as_large += u32::from(largest(&sums(&orders)) >= most * (1.0 - 1e-9));
    }
    let names = names().into_iter().chain(["variance of counts in 20 s".to_owned()]);
    let mut differences: Vec<(String, f64)> = names.zip(observed).collect();
    differences.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    PermutationTest {
        p: f64::from(as_large) / f64::from(permutations + 1),
        blocks: (n, m),
        differences,
    }
}

/// All rows of a person less their mean, the first law's first, and how many these are. The square of a block's total, which
/// is a statistic too, comes last.
fn centred((first, second): &Stratum) -> (Vec<Vec<f64>>, usize) {
    let mut rows: Vec<Vec<f64>> = first.iter().chain(second).cloned().collect();
    centre(&mut rows);
    for row in &mut rows {
        let total = row.first().copied().unwrap_or(0.0);
        row.push(total * total);
    }
    centre(&mut rows);
    (rows, first.len())
}

fn centre(rows: &mut [Vec<f64>]) {
    let mut mean = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows.iter() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows.len() as f64);
    }
    for row in rows {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
}

/// One over the standard deviation of each column over all people; zero for a constant.
fn scales(strata: &[(Vec<Vec<f64>>, usize)], width: usize) -> Vec<f64> {
    let mut squares = vec![0.0; width];
    let mut count = 0.0_f64;
    for row in strata.iter().flat_map(|(rows, _)| rows) {
        squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * value);
        count += 1.0;
    }
    let scale = |sum: f64| {
        let deviation = (sum / count.max(1.0)).sqrt();
        if deviation > 1e-9 { 1.0 / deviation } else { 0.0 }
    };
    squares.into_iter().map(scale).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use rand::RngExt;
    use rand_distr::{Distribution, Exp};
    use shoal_topology::Seed;

    use super::*;
    use crate::adversary::at_gateway::{PersonArrival, Up};

    const GRIDS: Grids = Grids { payload: 40 * MS, loops: 500 * MS };

    /// 400 s: payload slots every 40 ms, arrivals at this rate, so much of them bound to the slots.
    fn seen(rate: f64, bound: f64, rng: &mut Stream) -> Seen {
        let up = |n: u64| Up {
            at: n * 40 * MS + 7 * MS,
            sent: n * 40 * MS + 7 * MS,
            first_hop: 0,
            epoch: 1,
        };
        let mut seen = Seen { up: (0..10_000).map(up).collect(), ..Seen::default() };
        let gaps = Exp::new(rate).unwrap();
        let mut at = 0.0;
        while at < 400.0 {
            at += gaps.sample(rng);
            let mut nanos = (at * 1e9) as u64;
            if rng.random::<f64>() < bound {
                nanos = nanos / (40 * MS) * 40 * MS + 12 * MS;
            }
            seen.came.push(PersonArrival { at: nanos, from: rng.random_range(0..3), epoch: 1 });
        }
        seen.came.sort_by_key(|came| came.at);
        seen
    }

    /// Rows by person and block.
    fn group(rate: f64, bound: f64, rng: &mut Stream) -> Vec<Vec<Vec<f64>>> {
        let people: Vec<Seen> = (0..6).map(|_| seen(rate, bound, rng)).collect();
        let end = 400_000 * MS;
        let rows = |n: usize| blocks((&people[n], &people[n ^ 1]), GRIDS, &[0, 1, 2], (0, end));
        (0..6).map(rows).collect()
    }

    #[test]
    fn one_law_is_not_told_from_itself_and_another_rate_or_phase_is() {
        let rng = &mut Seed::from_u64(1).stream("steady");
        let one = group(24.5, 0.0, rng);
        assert_eq!((one[0].len(), one[0][0].len()), (20, names().len()));
        let mut against = |rate, bound| {
            let strata: Vec<Stratum> = one.iter().cloned().zip(group(rate, bound, rng)).collect();
            compare(&strata, 2_000, rng)
        };
        let same = against(24.5, 0.0);
        assert!(same.p > 0.01, "{same:?}");
        let faster = against(25.5, 0.0);
        assert!(faster.p < 0.001, "{faster:?}");
        let bound = against(24.5, 0.1);
        assert!(bound.p < 0.001 && bound.differences[0].0.contains("payload"), "{bound:?}");
    }
}
