//! Experiment `loopix`: how well a departure from a last-layer mix tells two senders apart (Loopix, USENIX Security
//! 2017, Fig. 5).

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Time};

use super::engine::{PoissonEngine, PoissonPacket, UNMARKED};
use super::measured;
use super::network::{StratifiedNetwork, Width};
use super::tracked::Poisson;
use crate::anonymity::Epsilons;
use crate::experiment::{Context, Experiment, Outcome, Wrong};

/// Which packets of S0 and S1 carry mass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marked {
    /// Messages: what they put into their queues.
    Messages,
    /// Everything that they send, cover too.
    Everything,
}

/// Two senders among users.
///
/// A unit of time is a second. All users send at Poisson instants of rate λ, S0 and S1 among them. During the burn-in
/// S0 and S1 are silent; from then on each puts one message into its queue at the begin of every unit, and an instant
/// of its own process sends the oldest message, or cover when none waits. Messages carry mass: of S0 in one column, of
/// S1 in another, summed over all their messages, as the adversary tracks them forward. After the units, the first
/// packet that leaves a random mix of the last layer gives p0, p1 and ε.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loopix {
    /// U, users, S0 and S1 among them.
    pub users: u32,
    /// λ, packets per second and user.
    pub per_user_per_s: f64,
    /// L, the number of layers.
    pub layers: u32,
    /// W, mixes per layer.
    pub width: u32,
    /// 1/µ, mean delay at a hop, seconds.
    pub hop_mean_s: f64,
    /// Units of time with the others alone. From some 30 mean delays on it changes nothing.
    pub burn_in_units: u32,
    /// Units of time with S0 and S1.
    pub units: u32,
    /// Repetitions, each from an empty network.
    pub repetitions: u32,
    /// What carries mass: "messages" or "everything".
    pub marked: Marked,
    /// ε0 for which δ is given.
    pub epsilon0: f64,
}

impl Default for Loopix {
    fn default() -> Self {
        Self {
            users: 100,
            per_user_per_s: 2.0,
            layers: 3,
            width: 3,
            hop_mean_s: 1.0,
            burn_in_units: 2_500,
            units: 100,
            repetitions: 200,
            marked: Marked::Messages,
            epsilon0: 0.5,
        }
    }
}

impl Loopix {
    /// ε of all repetitions.
    pub fn simulate(&self, seed: &Seed, progress: &(dyn Fn(f64) + Sync)) -> Epsilons {
        let mut all = Epsilons::default();
        for repetition in 0..self.repetitions {
            let (p0, p1) = self.once(&seed.part(&format!("repetition {repetition}")));
            all.push(p0, p1);
            progress(f64::from(repetition + 1) / f64::from(self.repetitions));
        }
        all
    }

    /// p0 and p1 of one repetition.
    fn once(&self, seed: &Seed) -> (f64, f64) {
        let network = StratifiedNetwork {
            layers: self.layers,
            width: Width::Same(self.width),
            hop_mean_s: self.hop_mean_s,
            ..StratifiedNetwork::default()
        };
        let mut engine = PoissonEngine::new(&network, 2, seed);
        let (mut gaps, mut who) = (seed.stream("sending"), seed.stream("senders"));
        let mut sending = Poisson::new(f64::from(self.users) * self.per_user_per_s);
        let begin = Time::from_secs(u64::from(self.burn_in_units));
        let end = Time::from_secs(u64::from(self.burn_in_units) + u64::from(self.units));
        // Before anything is sent: a mix that is chosen by what left it would not be a random one.
        let chosen = seed.stream("mix").random_range(0..self.width);
        let mut sent = [0u64; 2];
        let mut seen = None;
        while seen.is_none() {
            let at = sending.next(&mut gaps);
            engine.advance(at, |exit| {
                if seen.is_none()
                    && exit.at > end
                    && exit.mix == chosen
                    && let [p0, p1] = exit.masses
                {
                    seen = Some((*p0, *p1));
                }
            });
            let user = who.random_range(0..self.users);
            let mut column = None;
            if let Some(sent) = sent.get_mut(user as usize) {
                // An instant of S0 or S1 passes unused: they are silent during the burn-in.
                if at < begin {
                    continue;
                }
                // One at the begin of the first unit, one more at every unit since.
                let queued = at.since(begin).as_secs() + 1;
                let message = *sent < queued;
                *sent += u64::from(message);
                if message || self.marked == Marked::Everything {
                    column = Some(user as usize);
                }
            }
            engine.send(PoissonPacket::new(at, user, UNMARKED), column);
        }
        seen.unwrap_or_default()
    }
}

impl Experiment for Loopix {
    fn check(&self) -> Result<(), Wrong> {
        if !(3..=1_000_000).contains(&self.users) {
            return Err(Wrong::new("users", "must be 3 to 1000000"));
        }
        if !(1e-3..=1e4).contains(&self.per_user_per_s) {
            return Err(Wrong::new("per_user_per_s", "must be 0.001 to 10000"));
        }
        if !(1..=20).contains(&self.layers) {
            return Err(Wrong::new("layers", "must be 1 to 20"));
        }
        if !(1..=10_000).contains(&self.width) {
            return Err(Wrong::new("width", "must be 1 to 10000"));
        }
        if !(1e-6..=1e5).contains(&self.hop_mean_s) {
            return Err(Wrong::new("hop_mean_s", "must be 0.000001 to 100000"));
        }
        if !(1..=1_000_000).contains(&self.units) {
            return Err(Wrong::new("units", "must be 1 to 1000000"));
        }
        if self.burn_in_units > 1_000_000 {
            return Err(Wrong::new("burn_in_units", "must be at most 1000000"));
        }
        if !(2..=10_000_000).contains(&self.repetitions) {
            return Err(Wrong::new("repetitions", "must be 2 to 10000000"));
        }
        if !(0.0..=1e3).contains(&self.epsilon0) {
            return Err(Wrong::new("epsilon0", "must be 0 to 1000"));
        }
        let under_way =
            f64::from(self.users) * self.per_user_per_s * f64::from(self.layers) * self.hop_mean_s;
        if under_way > 1e7 {
            let why = "must not put more than 10000000 packets into the network";
            return Err(Wrong::new("hop_mean_s", why));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("loopix");
        let all = self.simulate(&seed, context.progress);
        let measured = vec![
            measured("epsilon", "1", all.mean()),
            measured("delta", "1", all.delta(self.epsilon0)),
            measured("share_of_zero", "1", all.zeros()),
        ];
        Ok(Outcome { measured, ..Outcome::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_senders_are_told_apart_as_in_figure_5() {
        let loopix = Loopix { burn_in_units: 15, units: 25, repetitions: 150, ..Loopix::default() };
        let all = loopix.simulate(&Seed::from_u64(2), &|_| ());
        let value = all.mean().value;
        assert!((value - 0.188).abs() < 0.05, "{value}");
        assert_eq!(all.zeros().value, 0.0);
    }
}
