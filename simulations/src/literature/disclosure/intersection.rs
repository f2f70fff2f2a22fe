//! Intersection under churn: whoever is offline when the target communicates is not the partner.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use super::kernel::exponential_s;
use super::within;
use crate::experiment::{Context, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::stats;

/// Settings of experiment `intersection`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intersection {
    /// Users who could be the partner, the partner included: N.
    pub users: u32,
    /// Mean time online, seconds (exponential).
    pub online_mean_s: f64,
    /// Mean time offline, seconds (exponential).
    pub offline_mean_s: f64,
    /// Time between two instants at which the target communicates, seconds.
    pub every_s: f64,
    /// How many such instants are observed: k.
    pub observations: u32,
    /// How often all is drawn.
    pub draws: u32,
}

impl Default for Intersection {
    fn default() -> Self {
        Self {
            users: 1_000,
            online_mean_s: 4.0 * 3_600.0,
            offline_mean_s: 4.0 * 3_600.0,
            every_s: 86_400.0,
            observations: 10,
            draws: 100,
        }
    }
}

impl Intersection {
    fn online_share(&self) -> f64 {
        self.online_mean_s / (self.online_mean_s + self.offline_mean_s)
    }

    /// Candidates after k observations: 1 + (N − 1)·p·s^(k−1), s = p + (1 − p)·exp(−τ(1/on + 1/off)) the chance to be
    /// online again after τ. Instants far apart make it 1 + (N − 1)·p^k.
    pub fn expected(&self, k: u32) -> f64 {
        let p = self.online_share();
        let forget = self.every_s * (1.0 / self.online_mean_s + 1.0 / self.offline_mean_s);
        let again = p + (1.0 - p) * (-forget).exp();
        1.0 + f64::from(self.users - 1) * p * again.powi(k as i32 - 1)
    }

    /// How many instants one user is online for from the first on without a miss.
    fn survives(&self, rng: &mut Stream) -> u32 {
        let mut online = rng.random::<f64>() < self.online_share();
        let mean = |online| if online { self.online_mean_s } else { self.offline_mean_s };
        let mut changes = exponential_s(rng, mean(online));
        for k in 0..self.observations {
            let instant = f64::from(k) * self.every_s;
            while changes <= instant {
                online = !online;
                changes += exponential_s(rng, mean(online));
            }
            if !online {
                return k;
            }
        }
        self.observations
    }

    /// Candidates after 1, 2, ... observations, for each draw.
    fn draws(&self, seed: &Seed) -> Vec<Vec<f64>> {
        let draw = |draw: u32| {
            let mut rng = seed.stream(&format!("draw {draw}"));
            let last: Vec<u32> = (1..self.users).map(|_| self.survives(&mut rng)).collect();
            let left = |k| 1.0 + last.iter().filter(|survived| **survived >= k).count() as f64;
            (1..=self.observations).map(left).collect()
        };
        (0..self.draws).map(draw).collect()
    }
}

fn column(draws: &[Vec<f64>], k: u32) -> Vec<f64> {
    draws.iter().filter_map(|draw| draw.get(k as usize - 1).copied()).collect()
}

impl Experiment for Intersection {
    fn check(&self) -> Result<(), Wrong> {
        within("users", f64::from(self.users), 1.0, 1e7)?;
        within("online_mean_s", self.online_mean_s, 1e-3, 1e9)?;
        within("offline_mean_s", self.offline_mean_s, 1e-3, 1e9)?;
        within("every_s", self.every_s, 0.0, 1e9)?;
        within("observations", f64::from(self.observations), 1.0, 1e5)?;
        within("draws", f64::from(self.draws), 2.0, 1e6)?;
        let (draws, each) = (f64::from(self.draws), f64::from(self.observations));
        within("observations", each, 1.0, (1e8 / draws).floor())?;
        within("users", f64::from(self.users), 1.0, (1e11 / draws).floor())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let draws = self.draws(&Seed::from_u64(context.seed).part("intersection"));
        let figure = |k| {
            let left = stats::mean(&column(&draws, k));
            Measured::new(format!("candidates_after_{k}"), "1", left).expecting(self.expected(k))
        };
        Ok(Outcome {
            measured: (1..=self.observations).map(figure).collect(),
            ..Outcome::default()
        })
    }
}

pub(super) fn jobs(effort: Effort) -> Vec<CheckJob> {
    vec![CheckJob::new("intersection", move |seed| {
        let settings = Intersection { draws: effort.pick(30, 200), ..Intersection::default() };
        let draws = settings.draws(&Seed::from_u64(seed).part("intersection"));
        let check = |k| {
            let values = column(&draws, k);
            let expected = settings.expected(k);
            let name = format!("intersection, 1000 users half online: candidates after {k}");
            let p = stats::mean_p(&values, expected);
            Check::equal("2", name, expected, stats::mean(&values), p)
        };
        Ok(vec![check(1), check(5)])
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn candidates_are_lost_as_theory_says_also_where_presence_lasts() {
        for every_s in [60_000.0, 3_600.0] {
            let settings =
                Intersection { every_s, observations: 5, draws: 60, ..Intersection::default() };
            let context = Context { seed: 1, progress: &|_| () };
            for figure in settings.run(&context).unwrap().measured {
                let p = stats::estimate_p(figure.estimate, figure.expected.unwrap());
                assert!(p > 1e-4, "{figure:?}");
            }
        }
        let far = Intersection::default().expected(3);
        assert!((far - (1.0 + 999.0 / 8.0)).abs() < 0.1, "{far}");
    }
}
