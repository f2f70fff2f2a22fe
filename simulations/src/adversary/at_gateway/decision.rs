//! How long a reading takes until it decides.

use crate::experiment::Estimate;
use crate::stats;

/// False alarms that the adversary allows itself.
pub const FALSE_ALARMS: f64 = 0.01;

/// What a statistic that grows with time decides.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The share of the busy that is found after so many seconds, at [`FALSE_ALARMS`].
    pub found: Vec<(f64, Estimate)>,
    /// The first instant at which half of the busy is found, seconds; none within the trial.
    pub median_s: Option<f64>,
    /// One-sided p-value of "the sums of the busy are not larger" at the end of the trial (Mann and Whitney, 1947).
    pub p: f64,
}

/// Adds up the scores of steps of `step_s` seconds, and compares the sums of the busy with the 99 % quantile of the idle
/// after each step. All series must have one length; `at_s` says for which instants the share is wanted.
pub fn decide(busy: &[Vec<f64>], idle: &[Vec<f64>], step_s: f64, at_s: &[f64]) -> Decision {
    let steps = busy.iter().chain(idle).map(Vec::len).min().unwrap_or(0);
    let sums = |group: &[Vec<f64>], step: usize| -> Vec<f64> {
        group.iter().map(|series| series.iter().take(step).sum()).collect()
    };
    let hits = |step: usize| {
        let mut idle = sums(idle, step);
        idle.sort_by(f64::total_cmp);
        let least = stats::quantile(&idle, 1.0 - FALSE_ALARMS);
        // A sum that equals what every idle one has says nothing.
        sums(busy, step).iter().filter(|sum| **sum > least + 1e-9).count() as u64
    };
    let n = busy.len() as u64;
    let median = (1..=steps).find(|step| 2 * hits(*step) >= n && n > 0);
    let share = |at: &f64| {
        let step = ((at / step_s).round() as usize).clamp(1, steps.max(1));
        (*at, stats::proportion(hits(step), n))
    };
    Decision {
        found: at_s.iter().filter(|at| **at <= steps as f64 * step_s + 1e-9).map(share).collect(),
        median_s: median.map(|step| step as f64 * step_s),
        p: rank_p(&sums(busy, steps), &sums(idle, steps)),
    }
}

/// The rank-sum test, by its normal limit with ties corrected for.
fn rank_p(busy: &[f64], idle: &[f64]) -> f64 {
    let (n, m) = (busy.len() as f64, idle.len() as f64);
    let mut all: Vec<f64> = busy.iter().chain(idle).copied().collect();
    all.sort_by(f64::total_cmp);
    // Pairs in which the busy one is larger, ties by half.
    let larger: f64 = busy
        .iter()
        .map(|value| {
            let below = idle.iter().filter(|other| *other < value).count() as f64;
            let equal = idle.iter().filter(|other| *other == value).count() as f64;
            below + equal / 2.0
        })
        .sum();
    let ties: f64 = all
        .chunk_by(|a, b| a == b)
        .map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64)
        .sum();
    let count = n + m;
    let variance = n * m / 12.0 * (count + 1.0 - ties / (count * (count - 1.0)).max(1.0));
    if variance <= 0.0 || variance.is_nan() {
        return 1.0;
    }
    stats::normal_cdf(-(larger - n * m / 2.0 - 0.5) / variance.sqrt())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};
    use shoal_topology::Seed;

    use super::*;

    #[test]
    fn a_drift_of_a_fifth_of_a_deviation_takes_two_minutes_and_a_quarter() {
        let rng = &mut Seed::from_u64(1).stream("decision");
        let mut group = |drift: f64| -> Vec<Vec<f64>> {
            let mut step = || {
                let noise: f64 = StandardNormal.sample(&mut *rng);
                noise + drift
            };
            (0..2_000).map(|_| (0..300).map(|_| step()).collect()).collect()
        };
        let (busy, idle, same) = (group(0.2), group(0.0), group(0.0));
        let decision = decide(&busy, &idle, 1.0, &[1.0, 60.0]);
        // 0.2·√T = 2.326: T = 135.
        let median = decision.median_s.unwrap_or(0.0);
        assert!((115.0..155.0).contains(&median), "{median}");
        assert!(decision.p < 1e-6, "{}", decision.p);
        assert!((decision.found[1].1.value - 0.22).abs() < 0.05, "{:?}", decision.found);
        let nothing = decide(&same, &idle, 1.0, &[60.0]);
        assert!(nothing.median_s.is_none() && nothing.found[0].1.value < 0.03);
        assert!((0.01..0.99).contains(&nothing.p), "{}", nothing.p);
        // Nothing was counted anywhere.
        let zeros = vec![vec![0.0]; 4];
        assert!((decide(&zeros, &zeros, 1.0, &[]).p - 1.0).abs() < 1e-12);
    }
}
