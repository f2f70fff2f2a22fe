//! Experiment `capacity`: anonymity against what it costs a client.

use serde::{Deserialize, Serialize};
use shoal_topology::Seed;

use super::measured;
use super::network::{Corrupt, Network, Traffic, Width};
use super::tracked::{Detail, Plan, lifetime_s, track};
use crate::experiment::{Context, Estimate, Experiment, Outcome, Wrong};

/// Targets that are under way at once: so that the largest number of users runs for two lifetimes of a packet.
const ACTIVE: usize = 20;

/// One class of clients, from few users to many: entropy, and entropy for what a client pays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Numbers of users.
    pub users: Vec<u32>,
    /// Packets that a client sends per second: slots and loops.
    pub per_user_per_s: f64,
    /// Packets that a client receives per second.
    pub down_per_s: f64,
    /// Bytes of a packet on a client's link.
    pub frame_bytes: f64,
    /// 1/µ, mean delay at a hop, seconds.
    pub hop_mean_s: f64,
    /// L, layers.
    pub layers: u32,
    /// W, mixes per layer.
    pub width: Width,
    /// What every one of the L + 1 links takes, milliseconds.
    pub link_delay_ms: f64,
    /// Packets that are followed for each number of users.
    pub targets: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            users: vec![100, 1_000, 10_000, 100_000],
            per_user_per_s: 50.0,
            down_per_s: 110.0,
            frame_bytes: 2_400.0,
            hop_mean_s: 0.015,
            layers: 3,
            width: Width::Same(10),
            link_delay_ms: 20.0,
            targets: 20,
        }
    }
}

impl Capacity {
    fn network(&self) -> Network {
        Network {
            layers: self.layers,
            width: self.width.clone(),
            hop_mean_s: self.hop_mean_s,
            link_delay_ms: self.link_delay_ms,
            corrupt: Corrupt::default(),
        }
    }

    fn traffic(&self, users: u32) -> Traffic {
        // Nothing is said of people: the entropy is that over packets.
        Traffic::rate(f64::from(users) * self.per_user_per_s)
    }

    /// What a client sends and receives, kB/s.
    pub fn cost_kb_per_s(&self) -> f64 {
        (self.per_user_per_s + self.down_per_s) * self.frame_bytes / 1e3
    }
}

impl Experiment for Capacity {
    fn check(&self) -> Result<(), Wrong> {
        let network = self.network();
        network.check("network").map_err(|wrong| {
            let key = wrong.key.strip_prefix("network.").unwrap_or(&wrong.key);
            Wrong::new(key, wrong.why)
        })?;
        if self.users.is_empty() || !self.users.iter().all(|n| (1..=10_000_000).contains(n)) {
            return Err(Wrong::new("users", "must be numbers from 1 to 10000000"));
        }
        if !(1e-6..=1e6).contains(&self.per_user_per_s) {
            return Err(Wrong::new("per_user_per_s", "must be 0.000001 to 1000000"));
        }
        if !(0.0..=1e6).contains(&self.down_per_s) {
            return Err(Wrong::new("down_per_s", "must be 0 to 1000000"));
        }
        if !(1.0..=1e9).contains(&self.frame_bytes) {
            return Err(Wrong::new("frame_bytes", "must be 1 to 1000000000"));
        }
        if !(20..=1_000_000).contains(&self.targets) {
            return Err(Wrong::new("targets", "must be 20 to 1000000"));
        }
        let most = self.users.iter().copied().max().unwrap_or(0);
        if lifetime_s(&network, 1e-11) * self.traffic(most).total_per_s() > 1e9 {
            return Err(Wrong::new("users", "must not put more than 10^9 packets into a lifetime"));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("capacity");
        let network = self.network();
        let cost = self.cost_kb_per_s();
        let delay_ms = network.mean_s() * 1e3;
        let mut all = vec![
            measured("cost_kb_per_s", "kB/s", Estimate::exact(cost)),
            measured("mean_delay_ms", "ms", Estimate::exact(delay_ms)),
        ];
        let all_users: f64 = self.users.iter().map(|n| f64::from(*n)).sum();
        let mut done = 0.0;
        for users in &self.users {
            let plan = Plan {
                traffic: self.traffic(*users),
                targets: self.targets as usize,
                every: 0,
                active: ACTIVE,
                burn_in_s: None,
                delays: 0,
                detail: Detail::Entropy,
            };
            let share = f64::from(*users) / all_users;
            let progress = |part: f64| (context.progress)(done + share * part);
            let tracked = track(&network, &plan, &seed.part(&format!("{users} users")), &progress)?;
            done += share;
            let bits = tracked.mean(|target| target.row.entropy_bits);
            let over = |by: f64| Estimate {
                value: bits.value / by,
                low: bits.low / by,
                high: bits.high / by,
            };
            let name = |what: &str| format!("{what}_{users}_users");
            all.push(measured(&name("entropy_bits"), "bits", bits));
            all.push(measured(&name("bits_per_kb_per_s"), "bits s/kB", over(cost)));
            all.push(measured(&name("bits_per_ms"), "bits/ms", over(delay_ms)));
        }
        Ok(Outcome { measured: all, ..Outcome::default() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_the_users_are_worth_three_bits() {
        let settings = Capacity { users: vec![100, 1_000], ..Capacity::default() };
        settings.check().unwrap();
        let outcome = settings.run(&Context { seed: 1, progress: &|_| () }).unwrap();
        let bits = |name: &str| {
            outcome.measured.iter().find(|figure| figure.name == name).unwrap().estimate.value
        };
        let gain = bits("entropy_bits_1000_users") - bits("entropy_bits_100_users");
        assert!((gain - 10.0f64.log2()).abs() < 0.15, "{gain}");
        assert_eq!(bits("cost_kb_per_s"), 384.0);
    }
}
