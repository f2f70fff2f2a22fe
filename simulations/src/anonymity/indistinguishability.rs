//! Loopix's ε: how well a departure at an honest mix of the last layer tells two senders apart.

use crate::experiment::Estimate;
use crate::stats;

/// |ln(p0/p1)| for the probabilities that a departing packet is the one's or the other's; infinite where one of
/// them is zero, none where both are.
pub fn epsilon(p0: f64, p1: f64) -> Option<f64> {
    if p0 <= 0.0 && p1 <= 0.0 {
        return None;
    }
    if p0 <= 0.0 || p1 <= 0.0 {
        return Some(f64::INFINITY);
    }
    Some((p0 / p1).ln().abs())
}

/// ε of many departures that are independent of each other.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Epsilons {
    finite: Vec<f64>,
    infinite: u64,
    nothing: u64,
}

impl Epsilons {
    /// Adds a departure.
    pub fn push(&mut self, p0: f64, p1: f64) {
        match epsilon(p0, p1) {
            Some(value) if value.is_finite() => self.finite.push(value),
            Some(_) => self.infinite += 1,
            None => self.nothing += 1,
        }
    }

    /// Number of departures.
    pub fn len(&self) -> u64 {
        self.finite.len() as u64 + self.infinite + self.nothing
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The finite values.
    pub fn finite(&self) -> &[f64] {
        &self.finite
    }

    /// Mean of the finite values.
    pub fn mean(&self) -> Estimate {
        stats::mean(&self.finite)
    }

    /// δ(ε0): share of departures whose ε is greater, the infinite ones among them.
    pub fn delta(&self, epsilon0: f64) -> Estimate {
        let greater = self.finite.iter().filter(|value| **value > epsilon0).count() as u64;
        stats::proportion(greater + self.infinite, self.len())
    }

    /// Share of departures at which p0 or p1 is zero.
    pub fn zeros(&self) -> Estimate {
        stats::proportion(self.infinite + self.nothing, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_sender_counts_in_delta_and_not_in_the_mean() {
        let mut all = Epsilons::default();
        for (p0, p1) in [(0.2, 0.1), (0.1, 0.2), (0.1, 0.1), (0.0, 0.1), (0.0, 0.0)] {
            all.push(p0, p1);
        }
        let third = 2.0 * 2.0f64.ln() / 3.0;
        assert!((all.mean().value - third).abs() < 1e-12);
        assert_eq!(all.delta(0.5).value, 0.6);
        assert_eq!(all.zeros().value, 0.4);
    }
}
