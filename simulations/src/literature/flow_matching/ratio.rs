//! The likelihood ratio of what comes out, given what went in.

use crate::literature::disclosure::MixDelay;

/// Compares two laws of the deliveries: b + q·Σ_i f(t − t_i), of the packets sent at t_i to this receiver, and b′, the
/// same mean rate without a cause.
pub(super) struct Detector {
    delay: MixDelay,
    /// q, the share of sent packets that are of the flow.
    real: f64,
    /// b, deliveries of other origin, 1/s.
    other_per_s: f64,
    /// b′, the mean rate of all deliveries, 1/s.
    mean_per_s: f64,
}

impl Detector {
    pub(super) fn new(delay: MixDelay, real: f64, other_per_s: f64, real_per_s: f64) -> Self {
        Self { delay, real, other_per_s, mean_per_s: other_per_s + real_per_s }
    }

    /// Σ_j log((b + q·g(t_j))/b′) − ∫(b + q·g − b′) dt over the observation, from zero to the last packet received;
    /// both lists are in order. `sent` reaches back by the longest delay.
    pub(super) fn score(&self, sent: &[f64], received: &[f64]) -> f64 {
        let longest = self.delay.longest();
        let end = received.last().copied().unwrap_or(0.0);
        let ratio = |out: &f64| {
            let first = sent.partition_point(|at| *at < out - longest);
            let last = sent.partition_point(|at| at <= out);
            let near = sent.get(first..last).unwrap_or_default();
            let caused: f64 = near.iter().map(|at| self.delay.density(out - at)).sum();
            ((self.other_per_s + self.real * caused) / self.mean_per_s).ln()
        };
        let sum: f64 = received.iter().map(ratio).sum();
        let inside = |at: &f64| self.delay.share_within(end - at) - self.delay.share_within(-at);
        let caused: f64 = sent.iter().filter(|at| **at < end).map(inside).sum();
        sum - self.real * caused - (self.other_per_s - self.mean_per_s) * end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_one_packet_is_that_by_hand() {
        // Sent at 0, received at 0.1: g = f(0.1), its integral F(0.1).
        let delay = MixDelay::new(1, 0.1);
        let score = Detector::new(delay, 0.5, 2.0, 1.0).score(&[0.0], &[0.1]);
        let density = 10.0 * (-1.0f64).exp();
        let by_hand = ((2.0 + 0.5 * density) / 3.0).ln() - 0.5 * (1.0 - (-1.0f64).exp()) + 0.1;
        assert!((score - by_hand).abs() < 1e-12, "{score} {by_hand}");
    }
}
