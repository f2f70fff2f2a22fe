//! Statistical disclosure: who receives more than usual just after she sends.

use super::delay::Delay;
use super::dense::{MOST_PEOPLE, Matrix, products, solve};
use super::view_by_user::{MOST_BINS, Side};
use super::{Answer, Attack, Scored};
use crate::trace::View;

/// Continuous statistical disclosure (`reproduce`, section 2): packets to each through the law of the delay of
/// those from each, less what chance gives, in units of its standard deviation.
pub struct Disclosure;

impl Attack for Disclosure {
    fn name(&self) -> &'static str {
        "disclosure"
    }

    fn run(&self, view: &View) -> Answer {
        let Some((up, down)) = sides(view) else { return Answer::default() };
        let columns = up.columns as f64;
        let (up, down) = (up.standardised(), down.standardised());
        answer(&products(&up, &down), up.rows, columns.sqrt())
    }
}

/// Least squares (LSDA, Pérez-González and Troncoso 2012): the shares of each sender's packets that go to each,
/// all at once: P = (UᵀU + r)⁻¹UᵀY.
pub struct LeastSquares {
    /// r as a share of the mean of UᵀU's diagonal: keeps it solvable where people send alike.
    pub ridge: f64,
}

impl Default for LeastSquares {
    fn default() -> Self {
        Self { ridge: 1e-2 }
    }
}

impl Attack for LeastSquares {
    fn name(&self) -> &'static str {
        "least_squares"
    }

    fn run(&self, view: &View) -> Answer {
        let Some((up, down)) = sides(view) else { return Answer::default() };
        let (up, down) = (up.centred(), down.standardised());
        let n = up.rows;
        let mut gram = products(&up, &up);
        let mut shares = products(&up, &down);
        let trace: f64 = gram.iter().step_by(n + 1).sum();
        let ridge = (self.ridge * trace / n.max(1) as f64).max(1e-9);
        let diagonal: Vec<f64> = gram.iter().step_by(n + 1).copied().collect();
        gram.iter_mut().step_by(n + 1).for_each(|value| *value += ridge);
        if solve(&mut gram, n, &mut shares, n).is_none() {
            return Answer::default();
        }
        // A share times the sender's own deviation: what the sender explains of the recipient.
        for (row, own) in shares.chunks_mut(n.max(1)).zip(diagonal) {
            row.iter_mut().for_each(|share| *share *= own.max(0.0).sqrt());
        }
        answer(&shares, n, 1.0)
    }
}

/// Counts up, delayed as they come down, and counts down. Nothing where there are too many people.
fn sides(view: &View) -> Option<(Matrix, Matrix)> {
    let (up, down) = (Side::up(view), Side::down(view));
    if up.people() > MOST_PEOPLE {
        return None;
    }
    let delay = Delay::new(&view.public);
    let wanted = (delay.sd_s() * 1e9) as u64;
    let bin = down.bin(up.bin(wanted, MOST_BINS), MOST_BINS);
    let up = Matrix::counts(&up, bin).delayed(&delay, bin);
    Some((up, Matrix::counts(&down, bin)))
}

/// All pairs that anything speaks for or against.
pub fn answer(scores: &[f64], people: usize, scale: f64) -> Answer {
    let mut pairs = Vec::new();
    for (caller, row) in scores.chunks(people.max(1)).enumerate() {
        for (callee, score) in row.iter().enumerate() {
            if caller != callee && *score != 0.0 && score.is_finite() {
                let (caller, callee) = (caller as u32, callee as u32);
                pairs.push(Scored { caller, callee, score: score * scale });
            }
        }
    }
    Answer { pairs, ..Answer::default() }
}
