//! The best linear statistic between two groups of rows: Fisher's discriminant, with a ridge.

/// Weights of a row's values.
#[derive(Clone, Debug)]
pub struct Linear {
    weights: Vec<f64>,
}

impl Linear {
    /// Learns from rows of equal length; higher scores speak for `busy`. `ridge` is added to the diagonal of the
    /// correlations, so it does not depend on the units of the values.
    pub fn train(idle: &[Vec<f64>], busy: &[Vec<f64>], ridge: f64) -> Self {
        let width = idle.first().map_or(0, Vec::len);
        let (of_idle, of_busy) = (mean(idle, width), mean(busy, width));
        let mut covariance = vec![vec![0.0; width]; width];
        let groups = [(idle, &of_idle), (busy, &of_busy)];
        for (row, mean) in
            groups.iter().flat_map(|(rows, mean)| rows.iter().map(move |r| (r, *mean)))
        {
            let off: Vec<f64> = row.iter().zip(mean).map(|(value, mean)| value - mean).collect();
            for (line, a) in covariance.iter_mut().zip(&off) {
                line.iter_mut().zip(&off).for_each(|(cell, b)| *cell += a * b);
            }
        }
        let count = (idle.len() + busy.len()).max(1) as f64;
        covariance.iter_mut().flatten().for_each(|cell| *cell /= count);
        let scales: Vec<f64> = (covariance.iter().enumerate())
            .map(|(n, line)| line.get(n).copied().unwrap_or(0.0).sqrt().max(1e-12))
            .collect();
        for (n, (line, own)) in covariance.iter_mut().zip(&scales).enumerate() {
            line.iter_mut().zip(&scales).for_each(|(cell, other)| *cell /= own * other);
            line.iter_mut().skip(n).take(1).for_each(|cell| *cell += ridge);
        }
        let difference = of_busy.iter().zip(&of_idle).zip(&scales);
        let difference = difference.map(|((busy, idle), scale)| (busy - idle) / scale).collect();
        let solved = solve(covariance, difference).into_iter().zip(&scales);
        Self { weights: solved.map(|(weight, scale)| weight / scale).collect() }
    }

    /// The statistic of a row.
    pub fn score(&self, row: &[f64]) -> f64 {
        row.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum()
    }
}

fn mean(rows: &[Vec<f64>], width: usize) -> Vec<f64> {
    let mut mean = vec![0.0; width];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows.len() as f64);
    }
    mean
}

/// A·x = b by Gauss's elimination, for a positive definite A.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let Some(pivot) = a.get(column).cloned() else { continue };
        let (Some(head), Some(right)) = (pivot.get(column).copied(), b.get(column).copied()) else {
            continue;
        };
        for (line, value) in a.iter_mut().zip(b.iter_mut()).skip(column + 1) {
            let factor = line.get(column).copied().unwrap_or(0.0) / head;
            let cells = line.iter_mut().zip(&pivot).skip(column);
            cells.for_each(|(cell, above)| *cell -= factor * above);
            *value -= factor * right;
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        let Some(line) = a.get(row) else { continue };
        let known: f64 = line.iter().zip(&x).skip(row + 1).map(|(cell, x)| cell * x).sum();
        let right = b.get(row).copied().unwrap_or(0.0) - known;
        if let (Some(x), Some(head)) = (x.get_mut(row), line.get(row)) {
            *x = right / head;
        }
    }
    x
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};
    use shoal_topology::{Seed, Stream};

    use super::*;

    #[test]
    fn a_system_of_three_is_solved() {
        let a = vec![vec![4.0, 1.0, 0.0], vec![1.0, 3.0, 1.0], vec![0.0, 1.0, 2.0]];
        let x = solve(a, vec![6.0, 10.0, 8.0]);
        for (x, expected) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((x - expected).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn it_finds_a_shift_that_correlated_noise_hides() {
        let rng: &mut Stream = &mut Seed::from_u64(1).stream("linear");
        let mut rows = |shift: f64| -> Vec<Vec<f64>> {
            let normal = |rng: &mut Stream| -> f64 { StandardNormal.sample(rng) };
            (0..4_000)
                .map(|_| {
                    let common = 5.0 * normal(rng);
                    vec![common + normal(rng) + shift, common + normal(rng)]
                })
                .collect()
        };
        let (idle, busy) = (rows(0.0), rows(2.0));
        let linear = Linear::train(&idle, &busy, 1e-6);
        // Best is the difference of both: 2 / √2 standard deviations apart.
        let above = |rows: &[Vec<f64>], least: f64| {
            rows.iter().filter(|row| linear.score(row) > least).count() as f64 / rows.len() as f64
        };
        let middle = linear.score(&[1.0, 0.0]);
        assert!((above(&busy, middle) - 0.76).abs() < 0.03, "{}", above(&busy, middle));
        assert!((above(&idle, middle) - 0.24).abs() < 0.03, "{}", above(&idle, middle));
    }
}
