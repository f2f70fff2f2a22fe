//! Experiment `delay_law`: what a packet hides behind where one mix delays uniformly.
//!
//! A uniform delay has a memory, so a pool does not forget how long each packet has been in it. A target's mass goes
//! from arrivals to departures of a mix in proportion to the density of each delay (the likelihood of one departure by itself), and is
//! scaled to one behind each layer.

use std::f64::consts::LOG2_E;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::stats;

/// Three layers: exponential, uniform and exponential delays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DelayLaw {
    /// Packets per second through the network.
    pub rate_per_s: f64,
    /// W, mixes per layer.
    pub width: u32,
    /// Mean delay at mix 1 and at mix 3, milliseconds.
    pub exponential_ms: f64,
    /// Longest delay at mix 2, milliseconds.
    pub uniform_ms: f64,
    /// Packets that are followed.
    pub targets: u32,
}

impl Default for DelayLaw {
    fn default() -> Self {
        Self {
            rate_per_s: 4_050.0,
            width: 10,
            exponential_ms: 10.0,
            uniform_ms: 40.0,
            targets: 400,
        }
    }
}

/// The law of the delay at one layer, seconds.
#[derive(Clone, Copy)]
enum Law {
    Exponential(f64),
    Uniform(f64),
}

impl Law {
    fn draw(self, draws: &mut Stream) -> f64 {
        let share: f64 = draws.random();
        match self {
            Self::Exponential(mean) => -mean * (1.0 - share).ln(),
            Self::Uniform(most) => most * share,
        }
    }

    fn density(self, delay: f64) -> f64 {
        match self {
            _ if delay < 0.0 => 0.0,
            Self::Exponential(mean) => (-delay / mean).exp() / mean,
            Self::Uniform(most) if delay <= most => 1.0 / most,
            Self::Uniform(_) => 0.0,
        }
    }

    /// Longer delays do not count, seconds.
    fn reach(self) -> f64 {
        match self {
            Self::Exponential(mean) => 15.0 * mean,
            Self::Uniform(most) => most,
        }
    }
}

/// A packet at a mix.
#[derive(Clone, Copy)]
struct Visit {
    came: f64,
    left: f64,
    packet: usize,
}

impl DelayLaw {
    fn laws(&self) -> [Law; 3] {
        let exponential = Law::Exponential(self.exponential_ms / 1e3);
        [exponential, Law::Uniform(self.uniform_ms / 1e3), exponential]
    }

    /// Heavy traffic: log2 Λ + h(law), bits, by numerical integration of the density of the sum.
    pub fn heavy_bits(&self) -> f64 {
        let (mean, most) = (self.exponential_ms / 1e3, self.uniform_ms / 1e3);
        let within = |x: f64| if x > 0.0 { stats::erlang_cdf(x, 2, 1.0 / mean) } else { 0.0 };
        let (end, steps) = (most + 40.0 * mean, 40_000);
        let step = end / f64::from(steps);
        let term = |k: i32| {
            let x = (f64::from(k) + 0.5) * step;
            let density = (within(x) - within(x - most)) / most;
            if density > 0.0 { -density * density.log2() * step } else { 0.0 }
        };
        self.rate_per_s.log2() + (0..steps).map(term).sum::<f64>()
    }

    /// Entropy of each followed packet, bits.
    fn entropies(&self, seed: &Seed, progress: &(dyn Fn(f64) + Sync)) -> Vec<f64> {
        let laws = self.laws();
        let whole: f64 = laws.iter().map(|law| law.reach()).sum();
        // A reach before the first target fills the mixes, and one behind the last lets it meet all that could be it.
        let span = 2.0 * whole + f64::from(self.targets) / self.rate_per_s * 20.0;
        let mut draws = seed.stream("packets");
        let mut mixes = vec![vec![Vec::new(); self.width as usize]; laws.len()];
        let (mut now, mut packets) = (0.0, Vec::new());
        while now < span {
            now += Law::Exponential(1.0 / self.rate_per_s).draw(&mut draws);
            let mut came = now;
            for (layer, law) in mixes.iter_mut().zip(laws) {
                let left = came + law.draw(&mut draws);
                let mix = draws.random_range(0..self.width) as usize;
                if let Some(mix) = layer.get_mut(mix) {
                    mix.push(Visit { came, left, packet: packets.len() });
                }
                came = left;
            }
            packets.push(now);
        }
        for mix in mixes.iter_mut().flatten() {
            mix.sort_by(|a: &Visit, b: &Visit| a.came.total_cmp(&b.came));
        }
        let begin = packets.partition_point(|at| *at < whole);
        let all = (0..self.targets as usize).map(|n| {
            progress(n as f64 / f64::from(self.targets));
            entropy(&mixes, laws, begin + 20 * n, packets.len())
        });
        all.collect()
    }
}

/// The entropy of where one packet has gone, bits, behind all layers.
fn entropy(mixes: &[Vec<Vec<Visit>>], laws: [Law; 3], target: usize, packets: usize) -> f64 {
    let mut mass = vec![0.0; packets];
    if let Some(own) = mass.get_mut(target) {
        *own = 1.0;
    }
    for (layer, law) in mixes.iter().zip(laws) {
        let mut next = vec![0.0; packets];
        for mix in layer {
            let of = |visit: &Visit| mass.get(visit.packet).copied().unwrap_or(0.0);
            let carry = |visit: &&Visit| of(visit) > 0.0;
            let Some(first) = mix.iter().find(carry) else { continue };
            let last = mix.iter().rev().find(carry).map_or(first.came, |visit| visit.came);
            // The visits of a mix are in order of arrival, so what no mass can reach is passed over at once.
            let from = mix.partition_point(|visit| visit.came < first.came - law.reach());
            let may = mix.iter().skip(from).take_while(|visit| visit.came <= last + law.reach());
            for gone in may.filter(|visit| visit.left >= first.came) {
                let low = mix.partition_point(|visit| visit.came < gone.left - law.reach());
                let in_pool = mix.iter().skip(low).take_while(|visit| visit.came <= gone.left);
                let (mut own, mut all) = (0.0, 0.0);
                for visit in in_pool {
                    let density = law.density(gone.left - visit.came);
                    own += density * of(visit);
                    all += density;
                }
                if let Some(slot) = next.get_mut(gone.packet)
                    && all > 0.0
                {
                    // Of all that could have left as this one, the part that carries the target's mass.
                    *slot = own / all;
                }
            }
        }
        let sum: f64 = next.iter().sum();
        // The target left the layer once, so its masses are a law again.
        next.iter_mut().for_each(|mass| *mass /= sum.max(f64::MIN_POSITIVE));
        mass = next;
    }
    mass.iter().filter(|mass| **mass > 0.0).map(|mass| -mass * mass.ln() * LOG2_E).sum()
}

impl Experiment for DelayLaw {
    fn check(&self) -> Result<(), Wrong> {
        let within = |key, value: f64, low, high| {
            let why = format!("must be {low} to {high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(Wrong::new(key, why)) }
        };
        within("rate_per_s", self.rate_per_s, 1.0, 100_000.0)?;
        within("width", f64::from(self.width), 1.0, 1_000.0)?;
        within("exponential_ms", self.exponential_ms, 0.1, 1_000.0)?;
        within("uniform_ms", self.uniform_ms, 0.1, 10_000.0)?;
        within("targets", f64::from(self.targets), 2.0, 100_000.0)?;
        let packets = self.rate_per_s * (self.exponential_ms * 30.0 + self.uniform_ms) / 1e3;
        within("rate_per_s", packets, 0.0, 1e6)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("delay law");
        let bits = self.entropies(&seed, context.progress);
        let mean_s = (2.0 * self.exponential_ms + self.uniform_ms / 2.0) / 1e3;
        let erlang = super::poisson::theory::heavy_traffic_bits(self.rate_per_s, 3, mean_s / 3.0);
        let exact =
            |name: &str, unit: &str, value| Measured::new(name, unit, Estimate::exact(value));
        let measured = vec![
            Measured::new("entropy_bits", "bits", stats::mean(&bits)),
            exact("entropy_heavy_traffic_bits", "bits", self.heavy_bits()),
            exact("entropy_heavy_traffic_exponential_bits", "bits", erlang),
            exact("mixing_delay_mean_s", "s", mean_s),
        ];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_with_a_uniform_part_hides_as_much_as_theory_says() {
        let settings = DelayLaw { targets: 60, ..DelayLaw::default() };
        // h(Exp + U + Exp) lies between that of the uniform part alone and that of a normal law of the same variance.
        let variance: f64 = 2.0 * 0.01f64.powi(2) + 0.04f64.powi(2) / 12.0;
        let normal = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * variance).log2();
        let heavy = settings.heavy_bits();
        let rate = settings.rate_per_s.log2();
        assert!(heavy > rate + 0.04f64.log2() && heavy < rate + normal, "{heavy}");
        let bits = settings.entropies(&Seed::from_u64(1), &|_| ());
        let mean = stats::mean(&bits);
        // A mix holds some four packets here, and their number varies: a little less than in heavy traffic.
        assert!(mean.value < heavy + 0.1 && mean.value > heavy - 0.6, "{mean:?}, {heavy}");
        let wide = DelayLaw { uniform_ms: 400.0, ..settings };
        let wider = stats::mean(&wide.entropies(&Seed::from_u64(1), &|_| ()));
        assert!(wider.value > mean.value + 1.0, "{wider:?}");
    }
}
