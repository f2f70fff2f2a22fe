//! Settings of a stratified network and of the Poisson traffic through it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::experiment::Wrong;

/// Mixes in each layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "must be a whole number from 1 on, or a list of them, one for each layer"
)]
pub enum Width {
    /// The same in all layers.
    Same(u32),
    /// One number for each layer.
    Each(Vec<u32>),
}

/// Corrupt mixes: they tell which of their arrivals became which departure.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorruptMixes {
    /// In each layer; the first ones of the layer (routes are uniform, so it does not matter which).
    pub per_layer: u32,
    /// In all, placed at random by the seed. Not together with `per_layer`.
    pub total: u32,
}

/// A stratified network: a packet passes one mix of each layer, drawn uniformly.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StratifiedNetwork {
    /// L, layers of mixes.
    pub layers: u32,
    /// W, mixes per layer: one number, or a list of one for each layer.
    pub width: Width,
    /// 1/µ, mean of the exponential delay at a hop, seconds.
    pub hop_mean_s: f64,
    /// What every one of the L + 1 links takes, milliseconds.
    pub link_delay_ms: f64,
    /// Which mixes are corrupt.
    pub corrupt: CorruptMixes,
}

impl Default for StratifiedNetwork {
    fn default() -> Self {
        Self {
            layers: 3,
            width: Width::Same(10),
            hop_mean_s: 0.05,
            link_delay_ms: 0.0,
            corrupt: CorruptMixes::default(),
        }
    }
}

impl Width {
    /// Mixes in each of so many layers, from the first on.
    pub fn of(&self, layers: u32) -> Vec<u32> {
        match self {
            Self::Same(width) => vec![*width; layers as usize],
            Self::Each(widths) => widths.clone(),
        }
    }

    /// Checks it for so many layers.
    ///
    /// # Errors
    /// What is wrong with the key `width`.
    pub fn check(&self, layers: u32) -> Result<(), Wrong> {
        let widths = self.of(layers);
        if widths.len() != layers as usize {
            let why = format!("width must be one number, or one for each of the {layers} layers");
            return Err(Wrong::new("width", why).or("layers"));
        }
        if !widths.iter().all(|width| (1..=10_000).contains(width)) {
            return Err(Wrong::new("width", "must be 1 to 10000"));
        }
        Ok(())
    }
}

impl CorruptMixes {
    /// Checks it for layers of these widths.
    ///
    /// # Errors
    /// What is wrong, in the table `corrupt`.
    pub fn check(&self, widths: &[u32]) -> Result<(), Wrong> {
        let Self { per_layer, total } = *self;
        if per_layer > 0 && total > 0 {
            return Err(Wrong::new("corrupt", "takes `per_layer` or `total`, not both"));
        }
        if widths.iter().any(|width| per_layer > *width) {
            let why = "must not be more than the mixes of a layer";
            return Err(Wrong::new("corrupt.per_layer", why));
        }
        if u64::from(total) > widths.iter().map(|width| u64::from(*width)).sum() {
            return Err(Wrong::new("corrupt.total", "must not be more than all mixes"));
        }
        Ok(())
    }
}

impl StratifiedNetwork {
    /// Mixes in each layer, from the first on.
    pub fn widths(&self) -> Vec<u32> {
        self.width.of(self.layers)
    }

    /// What all links of a route take, seconds.
    pub fn links_s(&self) -> f64 {
        f64::from(self.layers + 1) * self.link_delay_ms / 1e3
    }

    /// What one link takes.
    pub fn link_delay(&self) -> Duration {
        Duration::from_nanos((self.link_delay_ms * 1e6) as u64)
    }

    /// Mean time from sender to receiver, seconds.
    pub fn mean_s(&self) -> f64 {
        f64::from(self.layers) * self.hop_mean_s + self.links_s()
    }

    /// Checks it; `table` is its name in the scenario.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        let wrong = |key: &str, why: &str| Err(Wrong::new(&format!("{table}.{key}"), why));
        if !(1..=20).contains(&self.layers) {
            return wrong("layers", "must be 1 to 20");
        }
        self.width.check(self.layers).map_err(|wrong| wrong.within(table))?;
        if !(1e-6..=1e6).contains(&self.hop_mean_s) {
            return wrong("hop_mean_s", "must be 0.000001 to 1000000");
        }
        if !(0.0..=1e7).contains(&self.link_delay_ms) {
            return wrong("link_delay_ms", "must be 0 to 10000000");
        }
        self.corrupt.check(&self.widths()).map_err(|wrong| wrong.within(table))
    }
}

/// Plain Poisson packets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoissonTraffic {
    /// Users; each receives the same share of the packets. With zero nothing is said of people, and `rate_per_s`
    /// must be given.
    pub users: u32,
    /// Packets that a user sends per second.
    pub per_user_per_s: f64,
    /// Λ, all packets per second; where it is given it takes the place of users times their rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
}

impl Default for PoissonTraffic {
    fn default() -> Self {
        Self { users: 100, per_user_per_s: 50.0, rate_per_s: None }
    }
}

impl PoissonTraffic {
    /// This many packets per second, and no people.
    pub fn rate(rate_per_s: f64) -> Self {
        Self { users: 0, per_user_per_s: 0.0, rate_per_s: Some(rate_per_s) }
    }

    /// Λ, packets per second.
    pub fn total_per_s(&self) -> f64 {
        self.rate_per_s.unwrap_or(f64::from(self.users) * self.per_user_per_s)
    }

    /// Checks it; `table` is its name in the scenario.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(&self, table: &str) -> Result<(), Wrong> {
        if !(1e-6..=1e8).contains(&self.total_per_s()) {
            let key = if self.rate_per_s.is_some() { "rate_per_s" } else { "per_user_per_s" };
            let why = "must give 0.000001 to 100000000 packets per second in all";
            return Err(Wrong::new(&format!("{table}.{key}"), why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_is_one_number_or_one_for_each_layer() {
        let network: StratifiedNetwork = toml::from_str("layers = 2\nwidth = [3, 4]").unwrap();
        assert_eq!(network.widths(), vec![3, 4]);
        let network: StratifiedNetwork = toml::from_str("layers = 2\nwidth = 5").unwrap();
        assert_eq!(network.widths(), vec![5, 5]);
        let network: StratifiedNetwork = toml::from_str("layers = 3\nwidth = [3, 4]").unwrap();
        assert_eq!(network.check("network").unwrap_err().key, "network.width");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let corrupt = CorruptMixes { per_layer: 11, total: 0 };
        let network = StratifiedNetwork { corrupt, ..StratifiedNetwork::default() };
        assert_eq!(network.check("network").unwrap_err().key, "network.corrupt.per_layer");
        let network = StratifiedNetwork { hop_mean_s: f64::NAN, ..StratifiedNetwork::default() };
        assert_eq!(network.check("network").unwrap_err().key, "network.hop_mean_s");
        assert_eq!(
            PoissonTraffic::rate(0.0).check("traffic").unwrap_err().key,
            "traffic.rate_per_s"
        );
    }
}
