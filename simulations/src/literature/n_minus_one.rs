//! The n−1 attack on one mix: the attacker lets 1/s of the others' packets through, follows the target, and the
//! node's own loops both cover the target and raise an alarm.
//!
//! Loopix (USENIX Security 2017), section 4: with loops at λ_M, other packets at λ_R and delays of mean 1/µ,
//! P(target) = sµ/(sλ_M + λ_R). That is 1/a, a the mean number of other packets in the mix; the exact value of
//! E[1/N] at the target's departure is (1 − e^−a)/a, the same where a is large.

use anyhow::ensure;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::Seed;

use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::literature::check::{Check, CheckJob, Effort};
use crate::literature::disclosure::{exponential_s, poisson_times};
use crate::stats::{self, poisson_cdf};

/// Settings of experiment `blending`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blending {
    /// Other packets at the mix without the attack, 1/s: λ_R.
    pub others_per_s: f64,
    /// The mix's own loops, 1/s: λ_M. Compared with none.
    pub loops_per_s: f64,
    /// Mean delay at the mix, seconds: 1/µ.
    pub hop_mean_s: f64,
    /// The attacker lets one packet in so many through: s, 1 or more.
    pub one_in: f64,
    /// Targets that are followed.
    pub targets: u32,
    /// Loops expected back in the alarm's window: m.
    pub window_loops: f64,
    /// Alarm when fewer come back: r.
    pub alarm_below: u64,
    /// Windows that are simulated for the alarm.
    pub windows: u32,
}

impl Default for Blending {
    fn default() -> Self {
        Self {
            others_per_s: 100.0,
            loops_per_s: 10.0,
            hop_mean_s: 1.0,
            one_in: 10.0,
            targets: 20_000,
            window_loops: 20.0,
            alarm_below: 3,
            windows: 100_000,
        }
    }
}

/// Loopix's formula, cut at 1.
fn formula(others: f64, loops: f64, hop_mean_s: f64, one_in: f64) -> f64 {
    (one_in / hop_mean_s / (one_in * loops + others)).min(1.0)
}

/// The exact probability, (1 − e^−a)/a with a the mean number of other packets in the pool.
fn exact(others: f64, loops: f64, hop_mean_s: f64, one_in: f64) -> f64 {
    let a = (loops + others / one_in) * hop_mean_s;
    if a == 0.0 { 1.0 } else { -(-a).exp_m1() / a }
}

impl Blending {
    /// 1/N at the departure of each target. Targets come one after another to a mix that was flushed and has filled
    /// again with what the attacker lets through.
    fn chances(&self, loops_per_s: f64, seed: &Seed) -> Vec<f64> {
        let mut arrivals = seed.stream("arrivals");
        let mut kept = seed.stream("attacker");
        let mut delays = seed.stream("delays");
        let mean = self.hop_mean_s;
        let warm = 20.0 * mean;
        let one = |_| {
            let left = warm + exponential_s(&mut delays, mean);
            let mut inside = 1u32;
            let others = poisson_times(&mut arrivals, self.others_per_s, 0.0, left);
            let passed = others.into_iter().filter(|_| kept.random::<f64>() * self.one_in < 1.0);
            let passed: Vec<f64> = passed.collect();
            let loops = poisson_times(&mut arrivals, loops_per_s, 0.0, left);
            for at in passed.into_iter().chain(loops) {
                let stays = at + exponential_s(&mut delays, mean) > left;
                inside += u32::from(stays);
            }
            1.0 / f64::from(inside)
        };
        (0..self.targets).map(one).collect()
    }

    /// Windows in which fewer than `alarm_below` loops come back when each passes with `share`.
    fn alarms(&self, share: f64, seed: &Seed) -> u64 {
        let mut rng = seed.stream("loops");
        let mut attacker = seed.stream("attacker");
        let alarm = |_: &u32| {
            let sent = poisson_times(&mut rng, self.window_loops, 0.0, 1.0);
            let back = sent.iter().filter(|_| attacker.random::<f64>() < share).count();
            (back as u64) < self.alarm_below
        };
        (0..self.windows).filter(alarm).count() as u64
    }

    /// Loops back at the mix with the attack, expected to raise the alarm with this chance.
    fn detection(&self, one_in: f64) -> f64 {
        match self.alarm_below {
            0 => 0.0,
            r => poisson_cdf(r - 1, self.window_loops / one_in),
        }
    }
}

impl Experiment for Blending {
    fn check(&self) -> Result<(), Wrong> {
        let within = |key: &str, value: f64, low: f64, high: f64| {
            let wrong = || Wrong::new(key, format!("must be {low} to {high}"));
            (low..=high).contains(&value).then_some(()).ok_or_else(wrong)
        };
        within("others_per_s", self.others_per_s, 0.0, 1e6)?;
        within("loops_per_s", self.loops_per_s, 0.0, 1e6)?;
        within("hop_mean_s", self.hop_mean_s, 1e-6, 1e4)?;
        within("one_in", self.one_in, 1.0, 1e9)?;
        within("targets", f64::from(self.targets), 2.0, 1e8)?;
        within("window_loops", self.window_loops, 0.0, 1e6)?;
        within("alarm_below", self.alarm_below as f64, 0.0, 1e6)?;
        within("windows", f64::from(self.windows), 1.0, 1e8)?;
        // Each target has the packets of some twenty mean delays before it.
        let packets = 21.0 * (self.others_per_s + self.loops_per_s) * self.hop_mean_s;
        if packets > 1e8 || packets * f64::from(self.targets) > 1e11 {
            let why = "must be shorter: 10^8 packets for a target and 10^11 in all at most";
            return Err(Wrong::new("hop_mean_s", why));
        }
        if self.window_loops * f64::from(self.windows) > 1e11 {
            return Err(Wrong::new("windows", "must be fewer: 10^11 loops at most"));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("blending");
        let mut measured = Vec::new();
        for (name, loops) in [("with_loops", self.loops_per_s), ("without_loops", 0.0)] {
            let chances = self.chances(loops, &seed.part(name));
            ensure!(!chances.is_empty(), "no target was followed");
            let theory = exact(self.others_per_s, loops, self.hop_mean_s, self.one_in);
            let loopix = formula(self.others_per_s, loops, self.hop_mean_s, self.one_in);
            let simulated = Measured::new(format!("p_target_{name}"), "1", stats::mean(&chances));
            measured.push(simulated.expecting(theory));
            let figure = format!("p_target_{name}_loopix");
            measured.push(Measured::new(figure, "1", Estimate::exact(loopix)));
        }
        (context.progress)(0.5);
        for (name, one_in) in [("false_alarms", 1.0), ("detection", self.one_in)] {
            let hits = self.alarms(1.0 / one_in, &seed.part(name));
            let share = stats::proportion(hits, u64::from(self.windows));
            measured.push(Measured::new(name, "1", share).expecting(self.detection(one_in)));
        }
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

/// Checks of `reproduce`, section 2, on n−1 attacks.
pub fn jobs(effort: Effort) -> Vec<CheckJob> {
    vec![CheckJob::new("n-1", move |seed| {
        let seed = Seed::from_u64(seed).part("n-1");
        let settings = Blending {
            targets: effort.pick(4_000, 20_000),
            windows: effort.pick(20_000, 200_000),
            ..Blending::default()
        };
        let mut checks = Vec::new();
        for loops in [0.0, 10.0] {
            let chances = settings.chances(loops, &seed.part(&format!("loops {loops}")));
            let theory =
                formula(settings.others_per_s, loops, settings.hop_mean_s, settings.one_in);
            let name = format!("n-1: P(target), s = 10, loops {loops}/s, others 100/s, 1 s");
            let p = stats::mean_p(
                &chances,
                exact(settings.others_per_s, loops, settings.hop_mean_s, settings.one_in),
            );
            checks.push(Check::equal("2", name, theory, stats::mean(&chances), p));
        }
        let false_alarms = settings.detection(1.0);
        let name = "n-1: false alarms, m = 20, r = 3";
        checks.push(Check::exact("2", name, 4.6e-7, false_alarms, 0.05e-7));
        let name = "n-1: detection, s = 10, m = 20, r = 3";
        checks.push(Check::exact("2", name, 0.677, settings.detection(10.0), 5e-4));
        let (windows, theory) = (u64::from(settings.windows), settings.detection(10.0));
        let hits = settings.alarms(0.1, &seed.part("detection"));
        let p = stats::proportion_p(hits, windows, theory);
        let name = "n-1: detection, s = 10, m = 20, r = 3, simulated";
        checks.push(Check::equal("2", name, theory, stats::proportion(hits, windows), p));
        Ok(checks)
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_loop_alarm_has_the_stated_chances() {
        let settings = Blending::default();
        assert!((settings.detection(1.0) - 4.555e-7).abs() < 1e-10);
        assert!((settings.detection(10.0) - 0.676_676).abs() < 1e-6);
    }

    #[test]
    fn the_simulated_chance_is_the_exact_one_and_loops_lower_it() {
        let settings =
            Blending { targets: 3_000, windows: 10, others_per_s: 20.0, ..Blending::default() };
        let context = Context { seed: 5, progress: &|_| () };
        let measured = settings.run(&context).unwrap().measured;
        let figure = |name: &str| measured.iter().find(|m| m.name == name).unwrap().clone();
        for name in ["p_target_with_loops", "p_target_without_loops"] {
            let figure = figure(name);
            assert!(
                stats::estimate_p(figure.estimate, figure.expected.unwrap()) > 1e-4,
                "{figure:?}"
            );
        }
        let with = figure("p_target_with_loops").estimate;
        assert!(with.high < figure("p_target_without_loops").estimate.low / 3.0);
    }
}
