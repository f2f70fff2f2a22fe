//! Estimates with their intervals, tests, and the laws that they need.

pub mod law;

pub use law::{
    beta_cdf, erlang_cdf, erlang_pdf, erlang_quantile, ln_gamma, normal_cdf, normal_quantile,
    poisson_cdf, student_cdf, student_quantile,
};

use serde::{Deserialize, Serialize};

/// Confidence of all intervals.
const CONFIDENCE: f64 = 0.95;

/// A value with its 95 % confidence interval.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// What is taken for the value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// A value that is computed, not estimated.
    pub const fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }
}

/// Mean, its standard error and the number of values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moments {
    /// Number of values.
    pub n: usize,
    /// Mean; NaN of nothing.
    pub mean: f64,
    /// Sample variance (n − 1); NaN of fewer than two.
    pub variance: f64,
}

impl Moments {
    /// Of these values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { n, mean, variance: squares / (n as f64 - 1.0) }
    }

    /// Standard error of the mean.
    pub fn standard_error(&self) -> f64 {
        (self.variance / self.n as f64).sqrt()
    }

    /// The mean with its Student interval.
    pub fn estimate(&self) -> Estimate {
        if self.n < 2 {
            return Estimate { value: self.mean, low: f64::NEG_INFINITY, high: f64::INFINITY };
        }
        let t = student_quantile(0.5 + CONFIDENCE / 2.0, self.n as f64 - 1.0);
        let half = t * self.standard_error();
        Estimate { value: self.mean, low: self.mean - half, high: self.mean + half }
    }

    /// Two-sided Student p-value of "the true mean is `expected`".
    pub fn p_of(&self, expected: f64) -> f64 {
        let difference = (self.mean - expected).abs();
        let error = self.standard_error();
        if difference == 0.0 {
            return 1.0;
        }
        if error == 0.0 {
            return 0.0;
        }
        2.0 * student_cdf(-difference / error, self.n as f64 - 1.0)
    }
}

/// Mean of independent values, with its Student 95 % interval (unbounded for fewer than two values).
pub fn mean(values: &[f64]) -> Estimate {
    Moments::of(values).estimate()
}

/// Two-sided Student p-value of "the true mean of these independent values is `expected`".
pub fn mean_p(values: &[f64], expected: f64) -> f64 {
    Moments::of(values).p_of(expected)
}

/// Means of `batches` consecutive batches of equal length; a remainder at the end is left out.
pub fn batches(values: &[f64], batches: usize) -> Vec<f64> {
    let length = (values.len() / batches.max(1)).max(1);
    let average = |batch: &[f64]| batch.iter().sum::<f64>() / batch.len() as f64;
    values.chunks_exact(length).take(batches).map(average).collect()
}

/// Mean of a correlated series: the batch means are taken as independent.
pub fn batch_means(values: &[f64], count: usize) -> Estimate {
    mean(&batches(values, count))
}

/// Share of `hits` in `n` independent trials, with its 95 % Wilson interval.
pub fn proportion(hits: u64, n: u64) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: 0.0, high: 1.0 };
    }
    let (n, z) = (n as f64, normal_quantile(0.5 + CONFIDENCE / 2.0));
    let share = hits as f64 / n;
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = scale * (share + z * z / (2.0 * n));
    let half = scale * z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Estimate {
        value: share,
        low: (centre - half).max(0.0).min(share),
        high: (centre + half).min(1.0).max(share),
    }
}

/// Two-sided p-value of "each of `n` trials hits with probability `expected`": the exact binomial law, the
/// smaller tail doubled.
pub fn proportion_p(hits: u64, n: u64, expected: f64) -> f64 {
    let (k, n) = (hits as f64, n as f64);
    // P(X >= k) = I_q(k, n - k + 1)
    let above = if hits == 0 { 1.0 } else { law::beta_cdf(expected, k, n - k + 1.0) };
    let below = if k >= n { 1.0 } else { 1.0 - law::beta_cdf(expected, k + 1.0, n - k) };
    (2.0 * above.min(below)).min(1.0)
}

/// Two-sided normal p-value of "the true value is `expected`", from an estimate with a 95 % interval.
pub fn estimate_p(estimate: Estimate, expected: f64) -> f64 {
    let error = (estimate.high - estimate.low) / (2.0 * normal_quantile(0.5 + CONFIDENCE / 2.0));
    let difference = (estimate.value - expected).abs();
    if difference == 0.0 {
        return 1.0;
    }
    if error == 0.0 {
        return 0.0;
    }
    2.0 * normal_cdf(-difference / error)
}

/// Adjusted p-values (Holm, Scand. J. Statist. 1979), in the order given: reject where one is below alpha, and the
/// chance of any false rejection in the family is at most alpha.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = p.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0f64;
    for (rank, (index, value)) in order.into_iter().enumerate() {
        // Never below a smaller p: otherwise a weaker result could be rejected where a stronger one is not.
        largest = largest.max((value * (p.len() - rank) as f64).min(1.0));
        if let Some(slot) = adjusted.get_mut(index) {
            *slot = largest;
        }
    }
    adjusted
}

/// Quantile of these sorted values by linear interpolation (type 7); NaN of nothing.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p.clamp(0.0, 1.0) * (sorted.len().max(1) - 1) as f64;
    let low = position.floor();
    let (Some(a), Some(b)) = (sorted.get(low as usize), sorted.get(position.ceil() as usize))
    else {
        return f64::NAN;
    };
    a + (position - low) * (b - a)
}

/// Quantile of these sorted independent values with its 95 % interval, from the binomial law of ranks (normal
/// approximation).
pub fn quantile_estimate(sorted: &[f64], p: f64) -> Estimate {
    let n = sorted.len() as f64;
    let half = normal_quantile(0.5 + CONFIDENCE / 2.0) * (p * (1.0 - p) / n).sqrt();
    Estimate {
        value: quantile(sorted, p),
        low: quantile(sorted, p - half),
        high: quantile(sorted, p + half),
    }
}

/// One-sample Kolmogorov–Smirnov distance of sorted values from a law.
pub fn kolmogorov_distance(sorted: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let n = sorted.len() as f64;
    let distance = |(rank, value): (usize, &f64)| {
        let theory = cdf(*value);
        (theory - rank as f64 / n).max((rank + 1) as f64 / n - theory)
    };
    sorted.iter().enumerate().map(distance).fold(0.0, f64::max)
}

/// Probability of a distance of at least `d` with `n` samples of the law (Kolmogorov's limit with Stephens's
/// correction, JRSS B 1970).
pub fn kolmogorov_p(d: f64, n: usize) -> f64 {
    let root = (n as f64).sqrt();
    let x = d * (root + 0.12 + 0.11 / root);
    if x < 0.2 {
        return 1.0;
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * x * x).exp()
    };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }

    #[test]
    fn a_mean_has_the_student_interval() {
        let estimate = mean(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        close(estimate.value, 3.0, 1e-12);
        // t(0.975; 4) = 2.776445 and s/√n = 0.707107
        close(estimate.high - 3.0, 1.963243, 1e-5);
        assert!(mean(&[1.0]).high.is_infinite());
    }

    #[test]
    fn a_proportion_has_the_wilson_interval() {
        let estimate = proportion(10, 100);
        close(estimate.low, 0.055229, 1e-5);
        close(estimate.high, 0.174366, 1e-5);
        assert_eq!(proportion(0, 50).low, 0.0);
    }

    #[test]
    fn the_binomial_test_is_exact() {
        // 2 · P(X >= 8), X ~ Bin(10, 1/2) = 2 · 56/1024
        close(proportion_p(8, 10, 0.5), 0.109375, 1e-10);
        close(proportion_p(5, 10, 0.5), 1.0, 1e-12);
        close(proportion_p(0, 10, 0.5), 2.0 / 1024.0, 1e-12);
    }

    #[test]
    fn holm_multiplies_by_the_number_that_remains() {
        let adjusted = holm(&[0.01, 0.04, 0.03]);
        for (a, b) in adjusted.iter().zip([0.03, 0.06, 0.06]) {
            close(*a, b, 1e-12);
        }
    }

    #[test]
    fn the_kolmogorov_distance_of_three_values() {
        close(kolmogorov_distance(&[0.1, 0.2, 0.9], |x| x), 2.0 / 3.0 - 0.2, 1e-12);
        // One in a thousand at 10^5 samples lies above 0.0062.
        close(kolmogorov_p(0.006_16, 100_000), 0.001, 1e-4);
        close(kolmogorov_p(1.358_1 / 100.0, 10_000), 0.05, 1e-3);
    }

    #[test]
    fn batches_average_neighbours() {
        assert_eq!(batches(&[1.0, 3.0, 5.0, 7.0, 100.0], 2), vec![2.0, 6.0]);
        close(batch_means(&[1.0, 3.0, 5.0, 7.0], 2).value, 4.0, 1e-12);
    }

    #[test]
    fn a_test_of_equality_sees_a_difference() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i % 10)).collect();
        close(mean_p(&values, 4.5), 1.0, 1e-12);
        assert!(mean_p(&values, 6.0) < 1e-5);
        let estimate = Estimate { value: 1.0, low: 0.0, high: 2.0 };
        close(estimate_p(estimate, 2.0), 0.05, 1e-6);
    }
}
