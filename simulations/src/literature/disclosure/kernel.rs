//! The law of an end-to-end mixing delay: a sum of exponential delays, one a hop.

use rand::{Rng, RngExt};

/// Erlang law of the delay over `hops` mixes of one mean, with what its density needs computed once.
#[derive(Clone, Copy, Debug)]
pub struct MixDelay {
    hops: u32,
    rate: f64,
    scale: f64,
}

impl MixDelay {
    /// Over so many hops (at least one) with this mean at each, seconds.
    pub fn new(hops: u32, hop_mean_s: f64) -> Self {
        let rate = 1.0 / hop_mean_s;
        let factorial: f64 = (1..hops).map(f64::from).product();
        Self { hops, rate, scale: rate.powi(hops as i32) / factorial }
    }

    /// Density at `t` seconds, 1/s.
    pub fn density(&self, t: f64) -> f64 {
        if t < 0.0 {
            return 0.0;
        }
        self.scale * t.powi(self.hops as i32 - 1) * (-self.rate * t).exp()
    }

    /// Share of delays up to `t` seconds.
    pub fn share_within(&self, t: f64) -> f64 {
        if t <= 0.0 {
            return 0.0;
        }
        let x = self.rate * t;
        let (mut term, mut sum) = (1.0, 1.0);
        for k in 1..self.hops {
            term *= x / f64::from(k);
            sum += term;
        }
        1.0 - (-x).exp() * sum
    }

    /// A delay that all but 1e-9 of packets stay below (hops up to ten or so), seconds.
    pub fn longest(&self) -> f64 {
        (20.0 + 4.0 * f64::from(self.hops)) / self.rate
    }

    /// ∫f² = µ·C(2L−2, L−1)/2^(2L−1), 1/s.
    pub fn squared_mass(&self) -> f64 {
        let l = self.hops;
        let choose: f64 = (1..l).map(|i| f64::from(l - 1 + i) / f64::from(i)).product();
        self.rate * choose / 2f64.powi(2 * l as i32 - 1)
    }

    /// Draws a delay, seconds.
    pub fn sample(&self, rng: &mut impl Rng) -> f64 {
        (0..self.hops).map(|_| exponential_s(rng, 1.0 / self.rate)).sum()
    }
}

/// Draws from an exponential law, seconds.
pub fn exponential_s(rng: &mut impl Rng, mean_s: f64) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() * mean_s
}

/// The instants of a Poisson process of `rate` from `begin` to `end`, seconds, in order.
pub fn poisson_times(rng: &mut impl Rng, rate: f64, begin: f64, end: f64) -> Vec<f64> {
    let mut times = Vec::new();
    if rate <= 0.0 {
        return times;
    }
    let mut at = begin + exponential_s(rng, 1.0 / rate);
    while at < end {
        times.push(at);
        at += exponential_s(rng, 1.0 / rate);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{erlang_cdf, erlang_pdf};

    #[test]
    fn the_density_is_erlangs() {
        let delay = MixDelay::new(3, 0.05);
        for t in [0.0, 0.01, 0.1, 0.4] {
            assert!((delay.density(t) - erlang_pdf(t, 3, 20.0)).abs() < 1e-9);
            assert!((delay.share_within(t) - erlang_cdf(t, 3, 20.0)).abs() < 1e-12);
        }
        assert!((delay.squared_mass() - 3.75).abs() < 1e-12);
        assert!((MixDelay::new(1, 1.0).squared_mass() - 0.5).abs() < 1e-12);
        assert!(1.0 - delay.share_within(delay.longest()) < 1e-9);
    }
}
