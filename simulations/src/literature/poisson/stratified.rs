//! Experiment `stratified`: forward tracking through a stratified network.

use serde::{Deserialize, Serialize};
use shoal_topology::Seed;

use super::network::{PoissonTraffic, StratifiedNetwork};
use super::theory;
use super::tracked::{Detail, Followed, Tracked, TrackingPlan, track};
use super::{figure, measured};
use crate::anonymity::degree_of_anonymity;
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::stats;

/// Poisson packets through a stratified network; every n-th is followed (MiXiM, PETS 2022).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stratified {
    /// The mixes and their links.
    pub network: StratifiedNetwork,
    /// The packets that users send.
    pub traffic: PoissonTraffic,
    /// Packets that are followed.
    pub targets: u32,
    /// Every n-th packet is followed; zero: as often as some 24 are under way at once.
    pub every: u64,
    /// Time before the first target, seconds; left out: until the network is full (1e-6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_in_s: Option<f64>,
    /// Packets whose mixing delay is compared with the Erlang law.
    pub delay_samples: u32,
}

impl Default for Stratified {
    fn default() -> Self {
        Self {
            network: StratifiedNetwork::default(),
            traffic: PoissonTraffic::default(),
            targets: 1_000,
            every: 0,
            burn_in_s: None,
            delay_samples: 100_000,
        }
    }
}

impl Experiment for Stratified {
    fn check(&self) -> Result<(), Wrong> {
        self.network.check("network")?;
        self.traffic.check("traffic")?;
        if !(20..=10_000_000).contains(&self.targets) {
            return Err(Wrong::new("targets", "must be 20 to 10000000"));
        }
        if self.burn_in_s.is_some_and(|s| !(0.0..=1e9).contains(&s)) {
            return Err(Wrong::new("burn_in_s", "must be 0 to 1000000000"));
        }
        let rate = self.traffic.total_per_s();
        if self.network.mean_s() * rate > 1e7 {
            let why = "must not put more than 10000000 packets into the network";
            return Err(Wrong::new("network.hop_mean_s", why));
        }
        if self.delay_samples > 100_000_000 {
            return Err(Wrong::new("delay_samples", "must be at most 100000000"));
        }
        let followed = f64::from(self.targets) * (self.every as f64).max(1.0);
        let samples = followed.max(f64::from(self.delay_samples));
        if samples > 1e11 || samples / rate > 1e9 {
            let why = "must be fewer: 10^11 packets and 10^9 seconds at most";
            return Err(Wrong::new(if self.every > 1 { "every" } else { "targets" }, why));
        }
        if self.burn_in_s.is_some_and(|s| s * rate > 1e11) {
            return Err(Wrong::new("burn_in_s", "must be shorter: 10^11 packets at most"));
        }
        let packets = super::tracked::lifetime_s(&self.network, 1e-11) * rate;
        if self.every > 0 && packets / self.every as f64 > 4_096.0 {
            let least = (packets / 4_096.0).ceil();
            let why = format!("must be 0, or at least {least}: 4096 are followed at once at most");
            return Err(Wrong::new("every", why));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("stratified");
        let plan = TrackingPlan {
            traffic: self.traffic.clone(),
            targets: self.targets as usize,
            every: self.every,
            active: 24,
            burn_in_s: self.burn_in_s,
            delays: self.delay_samples as usize,
            detail: Detail::Guessing,
        };
        let tracked = track(&self.network, &plan, &seed, context.progress)?;
        let mut all = anonymity(&tracked, self.traffic.users);
        let heavy = theory::heavy_traffic_bits(
            self.traffic.total_per_s(),
            self.network.layers,
            self.network.hop_mean_s,
        );
        all.push(measured("entropy_heavy_traffic_bits", "bits", Estimate::exact(heavy)));
        all.extend(delays(&tracked.delays_s, &self.network));
        all.push(measured("events", "1", Estimate::exact(tracked.events as f64)));
        let packets = tracked.followed.iter().map(|followed| followed.row).collect();
        Ok(Outcome { measured: all, packets, ..Outcome::default() })
    }
}

fn anonymity(tracked: &Tracked, users: u32) -> Vec<Measured> {
    let entropy = |followed: &Followed| followed.row.entropy_bits;
    let mut all = vec![
        measured("entropy_bits", "bits", tracked.mean(entropy)),
        measured("effective_set", "packets", tracked.effective_set()),
        measured("min_entropy_bits", "bits", tracked.mean(|target| target.min_entropy_bits)),
        measured("guessing_entropy", "guesses", tracked.mean(|target| target.guesses)),
        measured(
            "degree_of_anonymity",
            "1",
            tracked.mean(|target| degree_of_anonymity(entropy(target), target.candidates)),
        ),
    ];
    if users > 0 {
        let person = |target: &Followed| target.person_entropy_bits;
        let degree = |target: &Followed| degree_of_anonymity(person(target), f64::from(users));
        all.push(measured("person_entropy_bits", "bits", tracked.mean(person)));
        all.push(measured("person_degree_of_anonymity", "1", tracked.mean(degree)));
        all.push(measured(
            "person_min_entropy_bits",
            "bits",
            tracked.mean(|target| target.person_min_entropy_bits),
        ));
    }
    all
}

/// Quantiles of the mixing delay, and its distance from the Erlang law.
fn delays(sorted_s: &[f64], network: &StratifiedNetwork) -> Vec<Measured> {
    if sorted_s.len() < 2 {
        return Vec::new();
    }
    let rate = 1.0 / network.hop_mean_s;
    let quantile = |(name, p): (&str, f64)| {
        let expected = stats::erlang_quantile(p, network.layers, rate);
        figure(name, "s", stats::quantile_estimate(sorted_s, p), expected)
    };
    let names = [
        ("mixing_delay_p50_s", 0.5),
        ("mixing_delay_p90_s", 0.9),
        ("mixing_delay_p99_s", 0.99),
        ("mixing_delay_p999_s", 0.999),
    ];
    let mut all: Vec<Measured> = names.into_iter().map(quantile).collect();
    let mean = f64::from(network.layers) * network.hop_mean_s;
    all.push(figure("mixing_delay_mean_s", "s", stats::mean(sorted_s), mean));
    let distance =
        stats::kolmogorov_distance(sorted_s, |t| stats::erlang_cdf(t, network.layers, rate));
    all.push(measured("mixing_delay_distance", "1", Estimate::exact(distance)));
    let p = stats::kolmogorov_p(distance, sorted_s.len());
    all.push(measured("mixing_delay_distance_p", "1", Estimate::exact(p)));
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::literature::poisson::network::{CorruptMixes, Width};

    fn value(settings: &Stratified, name: &str) -> f64 {
        settings.check().unwrap();
        let context = Context { seed: 5, progress: &|_| () };
        let outcome = settings.run(&context).unwrap();
        outcome.measured.iter().find(|figure| figure.name == name).unwrap().estimate.value
    }

    fn one_mix(rate_per_s: f64) -> Stratified {
        Stratified {
            network: StratifiedNetwork {
                layers: 1,
                width: Width::Same(1),
                ..StratifiedNetwork::default()
            },
            traffic: PoissonTraffic::rate(rate_per_s),
            targets: 4_000,
            delay_samples: 0,
            ..Stratified::default()
        }
    }

    #[test]
    fn forward_tracking_through_one_mix_has_the_mean_of_sender_entropy() {
        // 20 packets/s of 50 ms each: a = 1. "The first packet after a time" would give 1.21.
        let bits = value(&one_mix(20.0), "entropy_bits");
        assert!((bits - 1.511227).abs() < 0.08, "{bits}");
    }

    #[test]
    fn corrupt_mixes_take_anonymity() {
        let honest = Stratified { targets: 100, delay_samples: 0, ..Stratified::default() };
        let mut half = honest.clone();
        half.network.corrupt = CorruptMixes { per_layer: 5, total: 0 };
        let mut all = honest.clone();
        all.network.corrupt = CorruptMixes { per_layer: 0, total: 30 };
        let bits = [&honest, &half, &all].map(|settings| value(settings, "entropy_bits"));
        assert!(bits.is_sorted_by(|a, b| a > b), "{bits:?}");
        assert_eq!(bits.last(), Some(&0.0));
    }

    #[test]
    fn each_target_says_how_many_corrupt_mixes_it_met() {
        let mut settings = Stratified { targets: 400, delay_samples: 0, ..Stratified::default() };
        let met = |settings: &Stratified| {
            let context = Context { seed: 5, progress: &|_| () };
            let outcome = settings.run(&context).unwrap();
            outcome.packets.iter().map(|packet| packet.corrupt_mixes).collect::<Vec<_>>()
        };
        assert!(met(&settings).iter().all(|met| *met == 0));
        settings.network.corrupt = CorruptMixes { per_layer: 5, total: 0 };
        // Binomial of 3 and 1/2: its mean is 600 of 400 targets, with a deviation of 17.
        let some = met(&settings);
        let sum: u32 = some.iter().sum();
        assert!((520..680).contains(&sum) && some.iter().all(|met| *met <= 3), "{sum}");
        settings.network.corrupt = CorruptMixes { per_layer: 0, total: 30 };
        assert!(met(&settings).iter().all(|met| *met == 3));
    }

    #[test]
    fn people_are_fewer_than_packets() {
        let settings = Stratified { targets: 50, delay_samples: 10_000, ..Stratified::default() };
        let people = value(&settings, "person_entropy_bits");
        assert!(people > 6.0 && people <= 100.0f64.log2(), "{people}");
        assert!(value(&settings, "mixing_delay_distance_p") > 1e-3);
    }

    #[test]
    fn more_targets_at_once_than_can_be_followed_are_refused() {
        let settings = Stratified { every: 1, ..Stratified::default() };
        assert!(settings.check().is_err());
    }
}
