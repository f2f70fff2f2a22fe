//! Experiment `pool`: one exponential mix.

use serde::{Deserialize, Serialize};
use shoal_node::wheel::Wheel;
use shoal_topology::{Seed, Time, exponential};

use super::tracked::Poisson;
use super::{figure, measured, theory};
use crate::anonymity::SenderEntropy;
use crate::experiment::{Context, Estimate, Experiment, Outcome, Wrong};
use crate::stats::{self, Moments};

/// Mean delays before the first departure that counts: the pool has forgotten that it began empty but for e^-15.
const BURN_IN_MEANS: f64 = 15.0;
/// Mean delays between samples of the pool's size that count as independent.
const APART_MEANS: f64 = 8.0;

/// One exponential mix that Poisson packets fill: its sender entropy (Loopix, Fig. 4) and the size of its pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// λ, packets per second.
    pub rate_per_s: f64,
    /// 1/µ, mean delay, seconds.
    pub hop_mean_s: f64,
    /// Departures that count. The estimates need some 100 mean delays: at least 100 · λ/µ departures.
    pub departures: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { rate_per_s: 10.0, hop_mean_s: 1.0, departures: 200_000 }
    }
}

/// What came out of a pool.
#[derive(Clone, Debug)]
pub struct PoolRun {
    /// Sender entropy of each departure, bits.
    pub entropy_bits: Vec<f64>,
    /// 1/N at each departure, the departing packet included.
    pub inverse: Vec<f64>,
    /// N as each arrival finds it.
    pub found: Vec<f64>,
    /// N at instants so far apart that they count as independent.
    pub apart: Vec<f64>,
    /// Batches that are long compared with the memory of the pool.
    pub batches: usize,
}

impl PoolRun {
    /// Lets leave what is due.
    fn leave(&mut self, wheel: &mut Wheel<()>, mix: &mut SenderEntropy, now: Time, begin: Time) {
        while let Some((left, ())) = wheel.pop(now) {
            let packets = mix.packets() as f64;
            if let Some(entropy) = mix.depart()
                && left >= begin
            {
                self.entropy_bits.push(entropy);
                self.inverse.push(1.0 / packets);
            }
        }
    }

    /// Mean of one of the series, and the p-value of an expected mean.
    pub fn compare(&self, series: &[f64], expected: f64) -> (Estimate, f64) {
        let moments = Moments::of(&stats::batches(series, self.batches));
        (moments.estimate(), moments.p_of(expected))
    }
}

impl Pool {
    /// a = λ/µ, the mean number of packets in the pool.
    pub fn load(&self) -> f64 {
        self.rate_per_s * self.hop_mean_s
    }

    /// Lets packets through until enough have left.
    pub fn simulate(&self, seed: &Seed, progress: &(dyn Fn(f64) + Sync)) -> PoolRun {
        let (mut gaps, mut delays) = (seed.stream("sending"), seed.stream("delays"));
        let mean = std::time::Duration::from_secs_f64(self.hop_mean_s);
        let mut sending = Poisson::new(self.rate_per_s);
        let begin = Time::ZERO + mean.mul_f64(BURN_IN_MEANS);
        let wanted = self.departures as usize;
        let spans = wanted as f64 / self.load().max(1.0);
        let mut run = PoolRun {
            entropy_bits: Vec::with_capacity(wanted),
            inverse: Vec::with_capacity(wanted),
            found: Vec::with_capacity(wanted),
            apart: Vec::new(),
            batches: (spans / 20.0).clamp(10.0, 50.0) as usize,
        };
        let (mut wheel, mut mix) = (Wheel::new(), SenderEntropy::new());
        let mut next_sample = begin;
        while run.entropy_bits.len() < wanted {
            let at = sending.next(&mut gaps);
            // At fixed instants, not at "the first arrival after" them: that one finds too few.
            while next_sample <= at {
                run.leave(&mut wheel, &mut mix, next_sample, begin);
                run.apart.push(wheel.len() as f64);
                next_sample += mean.mul_f64(APART_MEANS);
            }
            // Before the arrival is counted: it finds those that have not left yet, and not itself.
            run.leave(&mut wheel, &mut mix, at, begin);
            if at >= begin {
                run.found.push(wheel.len() as f64);
                if run.found.len().is_multiple_of(1 << 16) {
                    progress((run.entropy_bits.len() as f64 / wanted as f64).min(1.0));
                }
            }
            mix.arrive();
            wheel.insert(at + exponential(&mut delays, mean), ());
        }
        run
    }
}

impl Experiment for Pool {
    fn check(&self) -> Result<(), Wrong> {
        if !(1e-6..=1e8).contains(&self.rate_per_s) {
            return Err(Wrong::new("rate_per_s", "must be 0.000001 to 100000000"));
        }
        if !(1e-6..=1e6).contains(&self.hop_mean_s) {
            return Err(Wrong::new("hop_mean_s", "must be 0.000001 to 1000000"));
        }
        if self.load() > 1e7 {
            return Err(Wrong::new(
                "hop_mean_s",
                "must not give more than 10000000 packets in the mix",
            ));
        }
        if !(1_000..=1_000_000_000).contains(&self.departures) {
            return Err(Wrong::new("departures", "must be 1000 to 1000000000"));
        }
        if self.departures as f64 / self.rate_per_s > 1e10 {
            let why = "must not last longer than 10^10 seconds at this rate";
            return Err(Wrong::new("departures", why));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("pool");
        let run = self.simulate(&seed, context.progress);
        let a = self.load();
        let mut all = vec![
            figure(
                "sender_entropy_bits",
                "bits",
                run.compare(&run.entropy_bits, 0.0).0,
                theory::pool_entropy_bits(a),
            ),
            figure("inverse_pool", "1", run.compare(&run.inverse, 0.0).0, theory::inverse_pool(a)),
            figure("pool_mean", "packets", run.compare(&run.found, 0.0).0, a),
        ];
        if run.apart.len() >= 2 {
            let mean = Moments::of(&run.apart).mean;
            let squares: Vec<f64> = run.apart.iter().map(|n| (n - mean).powi(2)).collect();
            all.push(figure("pool_variance", "packets^2", stats::mean(&squares), a));
            let distance = poisson_distance(&run.apart, a);
            all.push(measured("pool_size_distance", "1", Estimate::exact(distance)));
            // The law has steps, so that the true p-value is larger than this.
            let p = stats::kolmogorov_p(distance, run.apart.len());
            all.push(measured("pool_size_distance_p", "1", Estimate::exact(p)));
        }
        Ok(Outcome { measured: all, ..Outcome::default() })
    }
}

/// Largest difference between the distribution of these sizes and Poisson's.
pub fn poisson_distance(sizes: &[f64], mean: f64) -> f64 {
    let mut sorted = sizes.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut largest = 0.0f64;
    let mut below = 0;
    for same in sorted.chunk_by(|a, b| a == b) {
        let Some(size) = same.first() else { continue };
        let under = if *size < 1.0 { 0.0 } else { stats::poisson_cdf(*size as u64 - 1, mean) };
        let before = below as f64 / sorted.len() as f64;
        below += same.len();
        let after = below as f64 / sorted.len() as f64;
        let theory = stats::poisson_cdf(*size as u64, mean);
        largest = largest.max((before - under).abs()).max((after - theory).abs());
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_one_mix_is_poisson() {
        for a in [0.5, 5.0] {
            let pool = Pool { rate_per_s: a, hop_mean_s: 1.0, departures: 60_000 };
            let run = pool.simulate(&Seed::from_u64(3), &|_| ());
            let distance = poisson_distance(&run.apart, a);
            assert!(stats::kolmogorov_p(distance, run.apart.len()) > 1e-3, "{distance}");
            assert!(run.compare(&run.found, a).1 > 1e-3);
            assert!(run.compare(&run.inverse, theory::inverse_pool(a)).1 > 1e-3);
            assert!(run.compare(&run.entropy_bits, theory::pool_entropy_bits(a)).1 > 1e-3);
            // The same test sees a rate that is a twentieth off.
            assert!(run.compare(&run.found, 1.05 * a).1 < 1e-3);
        }
    }
}
