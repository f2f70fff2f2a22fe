//! Statistical disclosure in continuous time: each packet that Alice sends scores each delivery by the density of
//! the mixing delay (after Danezis, "The Traffic Analysis of Continuous-Time Mixes", PET 2004).

use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use rand::RngExt;

use super::kernel::{MixDelay, poisson_times};
use super::within;
use crate::experiment::{Context, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::stats;

/// Settings of experiment `disclosure-continuous`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisclosureContinuous {
    /// Mixes on the way: L.
    pub hops: u32,
    /// Mean delay at each, seconds: 1/µ.
    pub hop_mean_s: f64,
    /// Packets of Alice that are observed: n.
    pub packets: u32,
    /// Packets that Alice sends, 1/s (Poisson).
    pub alice_per_s: f64,
    /// Chance that one of them is real and for the recipient: q.
    pub real_share: f64,
    /// Other packets that the recipient gets, 1/s (Poisson): ρ.
    pub background_per_s: f64,
    /// How often all is drawn.
    pub draws: u32,
}

impl Default for DisclosureContinuous {
    fn default() -> Self {
        Self {
            hops: 3,
            hop_mean_s: 0.5,
            packets: 2_000,
            alice_per_s: 0.5,
            real_share: 0.1,
            background_per_s: 1.0,
            draws: 200,
        }
    }
}

impl DisclosureContinuous {
    fn delay(&self) -> MixDelay {
        MixDelay::new(self.hops, self.hop_mean_s)
    }

    /// z = √n · q · √(∫f²/ρ).
    pub fn expected_z(&self) -> f64 {
        let per_packet = self.delay().squared_mass() / self.background_per_s;
        f64::from(self.packets).sqrt() * self.real_share * per_packet.sqrt()
    }

    /// The score of one recipient in its standard deviations without Alice: Σ_i Σ_j f(t_out,j − t_in,i), less what
    /// each delivery scores on average against n packets at random instants, so that Alice's rate adds no noise.
    fn z(&self, real_share: f64, rng: &mut Stream) -> f64 {
        let delay = self.delay();
        let length = f64::from(self.packets) / self.alice_per_s;
        let mut sent: Vec<f64> = (0..self.packets).map(|_| rng.random::<f64>() * length).collect();
        sent.sort_by(f64::total_cmp);
        let end = length + delay.longest();
        let mut seen = poisson_times(rng, self.background_per_s, 0.0, end);
        for at in &sent {
            if rng.random::<f64>() < real_share {
                seen.push(at + delay.sample(rng));
            }
        }
        let score = |out: &f64| {
            let first = sent.partition_point(|at| *at < out - delay.longest());
            let last = sent.partition_point(|at| at <= out);
            let near = sent.get(first..last).unwrap_or_default();
            let sum: f64 = near.iter().map(|at| delay.density(out - at)).sum();
            let average = delay.share_within(*out) - delay.share_within(out - length);
            sum - self.alice_per_s * average
        };
        let sum: f64 = seen.iter().map(score).sum();
        let n = f64::from(self.packets);
        sum / (n * self.background_per_s * delay.squared_mass()).sqrt()
    }

    fn draws(&self, real_share: f64, seed: &Seed) -> Vec<f64> {
        let draw = |draw| self.z(real_share, &mut seed.stream(&format!("draw {draw}")));
        (0..self.draws).map(draw).collect()
    }
}

impl Experiment for DisclosureContinuous {
    fn check(&self) -> Result<(), Wrong> {
        within("hops", f64::from(self.hops), 1.0, 10.0)?;
        within("hop_mean_s", self.hop_mean_s, 1e-6, 1e5)?;
        within("packets", f64::from(self.packets), 2.0, 1e7)?;
        within("alice_per_s", self.alice_per_s, 1e-6, 1e6)?;
        within("real_share", self.real_share, 0.0, 1.0)?;
        within("background_per_s", self.background_per_s, 1e-6, 1e6)?;
        within("draws", f64::from(self.draws), 2.0, 1e6)?;
        // What the stranger receives while Alice sends.
        let (span, draws) = (f64::from(self.packets) / self.alice_per_s, f64::from(self.draws));
        let most = (1e8_f64).min(1e11 / draws) / span;
        within("background_per_s", self.background_per_s, 1e-6, most)
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("disclosure-continuous");
        let stranger = stats::Moments::of(&self.draws(0.0, &seed.part("stranger")));
        (context.progress)(0.5);
        let friend = self.draws(self.real_share, &seed.part("friend"));
        // Normal approximation of the interval of a standard deviation.
        let sd = stranger.variance.sqrt();
        let half = 1.96 * sd / (2.0 * stranger.n as f64).sqrt();
        let sd = crate::experiment::Estimate { value: sd, low: sd - half, high: sd + half };
        let measured = vec![
            Measured::new("z_friend", "1", stats::mean(&friend)).expecting(self.expected_z()),
            Measured::new("z_stranger", "1", stranger.estimate()).expecting(0.0),
            Measured::new("z_stranger_sd", "1", sd).expecting(1.0),
        ];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

pub(super) fn jobs(effort: Effort) -> Vec<CheckJob> {
    vec![CheckJob::new("continuous disclosure", move |seed| {
        let seed = Seed::from_u64(seed).part("continuous");
        let settings =
            DisclosureContinuous { draws: effort.pick(60, 400), ..DisclosureContinuous::default() };
        let friend = settings.draws(settings.real_share, &seed.part("friend"));
        let stranger = settings.draws(0.0, &seed.part("stranger"));
        let check = |name, values: &[f64], expected| {
            let p = stats::mean_p(values, expected);
            Check::equal("2", name, expected, stats::mean(values), p)
        };
        Ok(vec![
            check("continuous disclosure: z of a friend", &friend, settings.expected_z()),
            check("continuous disclosure: z of a stranger", &stranger, 0.0),
        ])
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_friends_z_is_that_of_the_formula_and_a_strangers_is_standard() {
        let settings = DisclosureContinuous { draws: 200, ..DisclosureContinuous::default() };
        let context = Context { seed: 1, progress: &|_| () };
        for figure in settings.run(&context).unwrap().measured {
            let p = stats::estimate_p(figure.estimate, figure.expected.unwrap());
            assert!(p > 1e-3, "{figure:?}");
        }
    }
}
