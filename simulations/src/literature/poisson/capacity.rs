//! Experiment `capacity`: anonymity against what it costs a client.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shoal_sphinx::FRAME_LEN;
use shoal_topology::{Parameters, Seed};

use super::measured;
use super::network::{CorruptMixes, PoissonTraffic, StratifiedNetwork, Width};
use super::tracked::{Detail, TrackingPlan, lifetime_s, track};
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::harness::figures::{Curve, Figure, Scale};

/// Targets that are under way at once: so that the largest number of users runs for two lifetimes of a packet.
const ACTIVE: usize = 20;

/// What a client of a class sends and receives, and how long its packets are held.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Its name, of letters, digits and "_".
    pub name: String,
    /// Packets that a client sends per second: slots and loops.
    pub per_user_per_s: f64,
    /// Packets that a client receives per second.
    pub down_per_s: f64,
    /// 1/µ, mean delay at a hop, seconds.
    pub hop_mean_s: f64,
}

impl Shape {
    /// What a client sends and receives, kB/s.
    fn cost_kb_per_s(&self, frame_bytes: f64) -> f64 {
        (self.per_user_per_s + self.down_per_s) * frame_bytes / 1e3
    }
}

/// Classes of clients, from few users to many: entropy, and entropy for what a client pays. All users are of one class
/// at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Numbers of users.
    pub users: Vec<u32>,
    /// Bytes of a packet on a client's link.
    pub frame_bytes: f64,
    /// L, the number of layers.
    pub layers: u32,
    /// W, mixes per layer.
    pub width: Width,
    /// What every one of the L + 1 links takes, milliseconds.
    pub link_delay_ms: f64,
    /// Packets that are followed for each class and number of users.
    pub targets: u32,
    /// The classes of clients that are measured one after the other.
    pub classes: Vec<Shape>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            users: vec![100, 1_000, 10_000, 100_000],
            frame_bytes: FRAME_LEN as f64,
            layers: 3,
            width: Width::Same(10),
            link_delay_ms: 20.0,
            targets: 20,
            classes: ["text", "web", "call"].into_iter().filter_map(deployed).collect(),
        }
    }
}

/// A class of the deployed parameters. Tracking through pools knows exponential delays alone: all mixes get their mean.
fn deployed(name: &str) -> Option<Shape> {
    let parameters = Parameters::default();
    let class = parameters.class(name)?;
    Some(Shape {
        name: name.into(),
        per_user_per_s: class.payload_per_s + class.loops_per_s,
        down_per_s: class.down_per_s,
        hop_mean_s: class.delay.total_mean(3).as_secs_f64() / 3.0,
    })
}

impl Capacity {
    fn network(&self, class: &Shape) -> StratifiedNetwork {
        StratifiedNetwork {
            layers: self.layers,
            width: self.width.clone(),
            hop_mean_s: class.hop_mean_s,
            link_delay_ms: self.link_delay_ms,
            corrupt: CorruptMixes::default(),
        }
    }

    fn check_class(&self, class: &Shape) -> Result<(), Wrong> {
        let wrong = |name: &str, why: &str| Err(Wrong::new(&format!("classes.{name}"), why));
        let network = self.network(class);
        network.check("network").map_err(|wrong| {
            let key = wrong.key.strip_prefix("network.").unwrap_or(&wrong.key);
            let inside = key == "hop_mean_s";
            Wrong::new(&if inside { format!("classes.{key}") } else { key.into() }, wrong.why)
        })?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if class.name.is_empty() || !class.name.chars().all(is_plain) {
            return wrong("name", "must be of letters, digits and \"_\"");
        }
        if !(1e-6..=1e6).contains(&class.per_user_per_s) {
            return wrong("per_user_per_s", "must be 0.000001 to 1000000");
        }
        if !(0.0..=1e6).contains(&class.down_per_s) {
            return wrong("down_per_s", "must be 0 to 1000000");
        }
        let most = f64::from(self.users.iter().copied().max().unwrap_or(0));
        if lifetime_s(&network, 1e-11) * most * class.per_user_per_s > 1e9 {
            return Err(Wrong::new("users", "must not put more than 10^9 packets into a lifetime"));
        }
        Ok(())
    }

    /// The figures of one class, and its curve.
    fn class(
        &self,
        class: &Shape,
        context: &Context<'_>,
    ) -> anyhow::Result<(Vec<Measured>, Curve)> {
        let seed = Seed::from_u64(context.seed).part("capacity").part(&class.name);
        let network = self.network(class);
        let cost = class.cost_kb_per_s(self.frame_bytes);
        let delay_ms = network.mean_s() * 1e3;
        let name = |what: &str| format!("{}_{what}", class.name);
        let mut all = vec![
            measured(&name("cost_kb_per_s"), "kB/s", Estimate::exact(cost)),
            measured(&name("mean_delay_ms"), "ms", Estimate::exact(delay_ms)),
        ];
        let mut points = Vec::new();
        let all_users: f64 = self.users.iter().map(|n| f64::from(*n)).sum();
        let mut done = 0.0;
        for users in &self.users {
            let plan = TrackingPlan {
                // Nothing is said of people: the entropy is that over packets.
                traffic: PoissonTraffic::rate(f64::from(*users) * class.per_user_per_s),
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
            // By users, since the time that a run takes is about in proportion to them.
            done += share;
            let bits = tracked.mean(|target| target.row.entropy_bits);
            let over = |by: f64| Estimate {
                value: bits.value / by,
                low: bits.low / by,
                high: bits.high / by,
            };
            let name = |what: &str| format!("{}_{what}_{users}_users", class.name);
            all.push(measured(&name("entropy_bits"), "bits", bits));
            all.push(measured(&name("bits_per_kb_per_s"), "bits s/kB", over(cost)));
            all.push(measured(&name("bits_per_ms"), "bits/ms", over(delay_ms)));
            points.push((f64::from(*users), bits));
        }
        let legend = format!("{}: {cost:.1} kB/s, {delay_ms:.0} ms", class.name);
        Ok((all, Curve { name: legend, points }))
    }
}

impl Experiment for Capacity {
    fn check(&self) -> Result<(), Wrong> {
        if self.users.is_empty() || !self.users.iter().all(|n| (1..=10_000_000).contains(n)) {
            return Err(Wrong::new("users", "must be numbers from 1 to 10000000"));
        }
        if !(1.0..=1e9).contains(&self.frame_bytes) {
            return Err(Wrong::new("frame_bytes", "must be 1 to 1000000000"));
        }
        if !(20..=1_000_000).contains(&self.targets) {
            return Err(Wrong::new("targets", "must be 20 to 1000000"));
        }
        let names: BTreeSet<&str> = self.classes.iter().map(|class| class.name.as_str()).collect();
        if names.is_empty() || names.len() < self.classes.len() {
            return Err(Wrong::new("classes", "must be at least one, each with a name of its own"));
        }
        self.classes.iter().try_for_each(|class| self.check_class(class))
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let (mut all, mut curves) = (Vec::new(), Vec::new());
        for (index, class) in self.classes.iter().enumerate() {
            let part = |share: f64| {
                (context.progress)((index as f64 + share) / self.classes.len() as f64);
            };
            let context = Context { seed: context.seed, progress: &part };
            let (measured, curve) = self.class(class, &context)?;
            all.extend(measured);
            curves.push(curve);
        }
        let figure = Figure::Curves {
            title: "Anonymity against cost: link traffic of a client, mean delay".into(),
            x: "users, all of one class".into(),
            scale: Scale::Logarithmic,
            y: "entropy of a packet, bits".into(),
            curves,
        };
        let figures = vec![("anonymity-against-cost".into(), figure)];
        Ok(Outcome { measured: all, figures, ..Outcome::default() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_has_the_deployed_classes() {
        #[derive(Deserialize)]
        struct File {
            classes: Vec<Shape>,
        }
        let text = include_str!("../../../scenarios/capacity.toml");
        let File { classes } = toml::from_str(text).unwrap();
        let deployed = Capacity::default().classes;
        assert_eq!(classes.len(), deployed.len());
        for (written, class) in classes.iter().zip(&deployed) {
            assert_eq!(written.name, class.name);
            assert_eq!(written.per_user_per_s, class.per_user_per_s, "{}", class.name);
            assert_eq!(written.down_per_s, class.down_per_s, "{}", class.name);
            assert!((written.hop_mean_s - class.hop_mean_s).abs() < 1e-9, "{}", class.name);
        }
    }

    #[test]
    fn ten_times_the_users_are_worth_three_bits() {
        let mut settings = Capacity { users: vec![100, 1_000], ..Capacity::default() };
        settings.classes.retain(|class| class.name == "web");
        settings.check().unwrap();
        let outcome = settings.run(&Context { seed: 1, progress: &|_| () }).unwrap();
        let bits = |name: &str| {
            outcome.measured.iter().find(|figure| figure.name == name).unwrap().estimate.value
        };
        let gain = bits("web_entropy_bits_1000_users") - bits("web_entropy_bits_100_users");
        assert!((gain - 10.0f64.log2()).abs() < 0.15, "{gain}");
        assert_eq!(bits("web_cost_kb_per_s"), 396.0);
    }
}
