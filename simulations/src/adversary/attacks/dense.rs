//! Matrices of people by bins, and the few operations on them that attacks need.
#![expect(
    clippy::indexing_slicing,
    reason = "all loops run over the matrix's own dimensions, and this is where the time goes"
)]

use super::delay::Delay;
use super::view_by_user::Side;

/// More people than this are too many for a score of every pair.
pub const MOST_PEOPLE: usize = 4096;

/// A row for each person, row after row.
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// The values, row after row.
    pub values: Vec<f32>,
}

impl Matrix {
    /// Everybody's packets in each bin, nanoseconds.
    pub fn counts(side: &Side<'_>, bin: u64) -> Self {
        let (rows, columns) = (side.people(), side.bins(bin));
        let mut values = Vec::with_capacity(rows * columns);
        for person in 0..rows {
            values.extend(side.counts(person, bin));
        }
        Self { rows, columns, values }
    }

    /// The values of one row, a value for each column.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// A row, to change.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// What is sent as it is expected to come: each row, spread over later bins by the law of the delay.
    pub fn delayed(mut self, delay: &Delay, bin: u64) -> Self {
        let kernel = delay.kernel(bin as f64 / 1e9);
        let mut sum = vec![0.0; self.columns];
        for row in 0..self.rows {
            sum.fill(0.0);
            let own = self.row_mut(row);
            for (lag, share) in kernel.iter().enumerate().take(own.len()) {
                for (sum, value) in sum[lag..].iter_mut().zip(own.iter()) {
                    *sum += share * value;
                }
            }
            own.copy_from_slice(&sum);
        }
        self
    }

    /// Each row less its mean, divided by its norm; a row that never changes becomes zero.
    pub fn standardised(mut self) -> Self {
        for row in 0..self.rows {
            let own = self.row_mut(row);
            let mean = own.iter().map(|x| f64::from(*x)).sum::<f64>() / own.len().max(1) as f64;
            let squares: f64 = own.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
            // What is left by rounding is no change.
            let scale = if squares > 1e-9 { 1.0 / squares.sqrt() } else { 0.0 };
            own.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
        }
        self
    }

    /// Each row less its mean.
    pub fn centred(mut self) -> Self {
        for row in 0..self.rows {
            let own = self.row_mut(row);
            let mean = own.iter().map(|x| f64::from(*x)).sum::<f64>() / own.len().max(1) as f64;
            own.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
        }
        self
    }
}

/// Inner products of all rows of one with all rows of the other: `a.rows` x `b.rows`, row after row.
pub fn products(a: &Matrix, b: &Matrix) -> Vec<f64> {
    /// Columns at a time: a tile of rows stays in the cache, and sums in f32 stay short.
    const CHUNK: usize = 512;
    let columns = a.columns.min(b.columns);
    let mut all = vec![0.0; a.rows * b.rows];
    for begin in (0..columns).step_by(CHUNK) {
        let end = (begin + CHUNK).min(columns);
        let used = |m: &Matrix| -> Vec<usize> {
            (0..m.rows).filter(|row| m.row(*row)[begin..end].iter().any(|x| *x != 0.0)).collect()
        };
        let others = used(b);
        for i in used(a) {
            let x = &a.row(i)[begin..end];
            let sums = &mut all[i * b.rows..(i + 1) * b.rows];
            for four in others.chunks(4) {
                let row = |k: usize| &b.row(four[k.min(four.len() - 1)])[begin..end];
                let found = four_products(x, [row(0), row(1), row(2), row(3)]);
                for (j, sum) in four.iter().zip(found) {
                    sums[*j] += f64::from(sum);
                }
            }
        }
    }
    all
}

/// Four inner products at once, in lanes that the compiler can vectorise.
fn four_products(x: &[f32], y: [&[f32]; 4]) -> [f32; 4] {
    const LANES: usize = 8;
    let mut sums = [[0.0f32; LANES]; 4];
    let whole = x.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let x = &x[at..at + LANES];
        for (sums, y) in sums.iter_mut().zip(y) {
            let y = &y[at..at + LANES];
            for lane in 0..LANES {
                sums[lane] += x[lane] * y[lane];
            }
        }
    }
    let mut found = [0.0; 4];
    for k in 0..4 {
        let rest: f32 = x[whole..].iter().zip(&y[k][whole..]).map(|(a, b)| a * b).sum();
        found[k] = sums[k].iter().sum::<f32>() + rest;
    }
    found
}

/// Solves A·X = B for a symmetric positive definite A (n x n) by Cholesky; B is n x m and becomes X. Both row
/// after row. None where A is not positive definite.
pub fn solve(a: &mut [f64], n: usize, b: &mut [f64], m: usize) -> Option<()> {
    for j in 0..n {
        for i in j..n {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let value = a[i * n + j] - dot;
            if i == j {
                if value.is_nan() || value <= 0.0 {
                    return None;
                }
                a[j * n + j] = value.sqrt();
            } else {
                a[i * n + j] = value / a[j * n + j];
            }
        }
    }
    for i in 0..n {
        let (done, rest) = b.split_at_mut(i * m);
        let own = &mut rest[..m];
        for k in 0..i {
            let factor = a[i * n + k];
            own.iter_mut().zip(&done[k * m..]).for_each(|(x, y)| *x -= factor * y);
        }
        own.iter_mut().for_each(|x| *x /= a[i * n + i]);
    }
    for i in (0..n).rev() {
        let (head, done) = b.split_at_mut((i + 1) * m);
        let own = &mut head[i * m..];
        for k in i + 1..n {
            let factor = a[k * n + i];
            own.iter_mut().zip(&done[(k - i - 1) * m..]).for_each(|(x, y)| *x -= factor * y);
        }
        own.iter_mut().for_each(|x| *x /= a[i * n + i]);
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_solves() {
        let a = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let x = [1.0, -2.0, 3.0, 0.5, -1.0, 4.0];
        let mut b = [0.0; 6];
        for i in 0..3 {
            for j in 0..2 {
                b[i * 2 + j] = (0..3).map(|k| a[i * 3 + k] * x[k * 2 + j]).sum();
            }
        }
        solve(&mut a.clone(), 3, &mut b, 2).unwrap();
        assert!(b.iter().zip(x).all(|(got, want)| (got - want).abs() < 1e-12), "{b:?}");
        assert!(solve(&mut [1.0, 2.0, 2.0, 1.0], 2, &mut [0.0; 2], 1).is_none());
    }

    #[test]
    fn products_are_inner_products() {
        let matrix = |rows, shift: usize| {
            let columns = 1100;
            let value = |k: usize| ((k + shift) * 7919 % 13) as f32;
            Matrix { rows, columns, values: (0..rows * columns).map(value).collect() }
        };
        let (a, b) = (matrix(3, 0), matrix(6, 5));
        let all = products(&a, &b);
        for i in 0..3 {
            for j in 0..6 {
                let want: f32 = a.row(i).iter().zip(b.row(j)).map(|(x, y)| x * y).sum();
                assert_eq!(all[i * 6 + j] as f32, want);
            }
        }
    }
}
