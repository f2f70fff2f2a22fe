//! Experiment `corrupt_operators`: how soon a client, or a call, has a path whose operators are all corrupt.
//!
//! Operators are corrupt, not mixes: all mixes of an operator stand in one layer, which a draw gives it, and who
//! runs a gateway runs no mix. Every packet takes a path of its own, uniformly.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::stats;

/// Paths of which some operators are corrupt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorruptOperators {
    /// L, the number of layers.
    pub layers: u32,
    /// Operators in each layer, with as many mixes each.
    pub per_layer: u32,
    /// Operators of gateways.
    pub gateways: u32,
    /// Shares of all operators that are corrupt, each 0 to 1: placed at random by the seed.
    pub shares: Vec<f64>,
    /// Packets per second of a client, cover included.
    pub client_per_s: f64,
    /// Packets per second of a call that go to the other side, in one direction.
    pub call_per_s: f64,
    /// Clients, each with a placement of its own.
    pub clients: u32,
    /// Most packets that are looked at for each: who has no corrupt path until then counts as never hit.
    pub most_packets: u32,
}

impl Default for CorruptOperators {
    fn default() -> Self {
        Self {
            layers: 3,
            per_layer: 20,
            gateways: 20,
            shares: vec![0.05, 0.1, 0.2],
            client_per_s: 27.0,
            call_per_s: 22.5,
            clients: 4_000,
            most_packets: 100_000,
        }
    }
}

/// The quantiles of the time to the first corrupt path.
const QUANTILES: [(&str, f64); 2] = [("5_pct", 0.05), ("median", 0.5)];

impl CorruptOperators {
    fn operators(&self) -> u32 {
        self.layers * self.per_layer + self.gateways
    }

    /// Corrupt operators among those that are left when `gateways` gateways are known to be corrupt; none where there are not
    /// so many.
    fn left(&self, share: f64, gateways: u32) -> Option<(u32, u32)> {
        let corrupt = (share * f64::from(self.operators())).round() as u32;
        Some((corrupt.checked_sub(gateways)?, self.operators() - gateways))
    }

    /// Corrupt operators in each layer of a random placement.
    fn draw_corrupt(&self, (corrupt, operators): (u32, u32), draws: &mut Stream) -> Vec<u32> {
        let (mut remaining, mut left) = (corrupt, operators);
        let layer = |_| {
            let mut here = 0;
            for _ in 0..self.per_layer {
                if draws.random_range(0..left) < remaining {
                    (here, remaining) = (here + 1, remaining - 1);
                }
                left -= 1;
            }
            here
        };
        (0..self.layers).map(layer).collect()
    }

    /// For each client the number of its first packet on a corrupt path, from 1 on, in order; infinite where there is none.
    fn first_hits(&self, of: (u32, u32), seed: &Seed) -> Vec<f64> {
        let (mut placements, mut paths) = (seed.stream("placements"), seed.stream("paths"));
        let client = |_| {
            let corrupt = self.draw_corrupt(of, &mut placements);
            // Without a corrupt operator in every layer no path is ever corrupt: the search would go to its end for
            // nothing.
            if corrupt.contains(&0) {
                return f64::INFINITY;
            }
            let hit = (1..=self.most_packets).find(|_| {
                // A layer that is passed at an honest mix ends the search: what follows is independent of it.
                corrupt.iter().all(|here| paths.random_range(0..self.per_layer) < *here)
            });
            hit.map_or(f64::INFINITY, f64::from)
        };
        let mut all: Vec<f64> = (0..self.clients).map(client).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The share of placements with each probability of a corrupt path: exact, by the product of hypergeometric laws.
    fn alphas(&self, (corrupt, operators): (u32, u32)) -> Vec<(f64, f64)> {
        let choose = |n: u32, k: u32| {
            let ln = |n: u32| stats::ln_gamma(f64::from(n) + 1.0);
            if k > n { 0.0 } else { (ln(n) - ln(k) - ln(n - k)).exp() }
        };
        // Share, product of corrupt shares, corrupt ones left.
        let mut states = vec![(1.0, 1.0, corrupt)];
        let mut left = operators;
        for _ in 0..self.layers {
            let mut next = Vec::new();
            for (share, product, remaining) in states {
                for here in 0..=remaining.min(self.per_layer) {
                    let ways = choose(self.per_layer, here)
                        * choose(left - self.per_layer, remaining - here)
                        / choose(left, remaining);
                    let alpha = product * f64::from(here) / f64::from(self.per_layer);
                    next.push((share * ways, alpha, remaining - here));
                }
            }
            states = next;
            left -= self.per_layer;
        }
        states.into_iter().map(|(share, alpha, _)| (share, alpha)).collect()
    }

    /// The least number of packets after which this share of clients has been hit; infinite where so many never are.
    fn packets(&self, alphas: &[(f64, f64)], quantile: f64) -> f64 {
        let hit = |packets: f64| {
            let one =
                |(share, alpha): &(f64, f64)| share * super::poisson::theory::hit(*alpha, packets);
            alphas.iter().map(one).sum::<f64>()
        };
        let most = f64::from(self.most_packets);
        if hit(most) < quantile {
            return f64::INFINITY;
        }
        let (mut low, mut high) = (0.0, most);
        while high - low > 0.5 {
            let middle: f64 = (low + high) / 2.0;
            if hit(middle) < quantile { low = middle } else { high = middle }
        }
        high.round()
    }

    fn figures(&self, share: f64, gateways: u32, seed: &Seed) -> Vec<Measured> {
        let Some(of) = self.left(share, gateways) else { return Vec::new() };
        let percent = share * 100.0;
        let which = if gateways == 1 { "one_gateway" } else { "both_gateways" };
        let name = |what: &str| format!("f_{percent}_pct_{which}_{what}");
        let hits = self.first_hits(of, &seed.part(&name("")));
        let alphas = self.alphas(of);
        let number = hits.iter().filter(|hit| hit.is_finite()).count() as u64;
        // The mean over placements of what each gives, since that of a mean placement is another number.
        let expected: f64 = alphas
            .iter()
            .map(|(share, alpha)| {
                share * super::poisson::theory::hit(*alpha, f64::from(self.most_packets))
            })
            .sum();
        let ever = stats::proportion(number, hits.len() as u64);
        let mut all = vec![super::poisson::figure(&name("ever"), "1", ever, expected)];
        for (whose, per_s) in [("client", self.client_per_s), ("call", self.call_per_s)] {
            for (label, quantile) in QUANTILES {
                let found = ranked(&hits, quantile);
                let seconds = |packets: f64| packets / per_s;
                let estimate = Estimate {
                    value: seconds(found.value),
                    low: seconds(found.low),
                    high: seconds(found.high),
                };
                let expected = seconds(self.packets(&alphas, quantile));
                all.push(super::poisson::figure(
                    &name(&format!("{whose}_{label}_s")),
                    "s",
                    estimate,
                    expected,
                ));
            }
        }
        all
    }
}

/// A quantile of sorted values, infinite ones last, with its 95 % interval by ranks.
fn ranked(sorted: &[f64], quantile: f64) -> Estimate {
    let n = sorted.len() as f64;
    let half = 1.96 * (quantile * (1.0 - quantile) / n).sqrt();
    let at = |share: f64| {
        let rank = (share.clamp(0.0, 1.0) * n).ceil().max(1.0) as usize - 1;
        sorted.get(rank.min(sorted.len() - 1)).copied().unwrap_or(f64::INFINITY)
    };
    Estimate { value: at(quantile), low: at(quantile - half), high: at(quantile + half) }
}

impl Experiment for CorruptOperators {
    fn check(&self) -> Result<(), Wrong> {
        let within = |key, value: u32, low, high| {
            let why = format!("must be {low} to {high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(Wrong::new(key, why)) }
        };
        within("layers", self.layers, 1, 5)?;
        within("per_layer", self.per_layer, 1, 40)?;
        within("gateways", self.gateways, 2, 1_000)?;
        within("clients", self.clients, 20, 1_000_000)?;
        within("most_packets", self.most_packets, 1, 10_000_000)?;
        if self.shares.is_empty() || !self.shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(Wrong::new("shares", "must be numbers from 0 to 1"));
        }
        for (key, value) in [("client_per_s", self.client_per_s), ("call_per_s", self.call_per_s)] {
            if !(1e-3..=1e5).contains(&value) {
                return Err(Wrong::new(key, "must be 0.001 to 100000"));
            }
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("corrupt operators");
        let mut measured = Vec::new();
        for (index, share) in self.shares.iter().enumerate() {
            for gateways in [1, 2] {
                measured.extend(self.figures(*share, gateways, &seed));
            }
            (context.progress)((index + 1) as f64 / self.shares.len() as f64);
        }
        let note = "Given that the gateway of a client, or both gateways of a call, are among the corrupt; \
                    \"ever\" is within most_packets.";
        Ok(Outcome { measured, notes: vec![note.into()], ..Outcome::default() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_a_corrupt_path_is_what_theory_says() {
        let settings = CorruptOperators { per_layer: 10, gateways: 10, ..Default::default() };
        settings.check().unwrap();
        let context = Context { seed: 3, progress: &|_| () };
        let found = settings.run(&context).unwrap().measured;
        assert_eq!(found.len(), 3 * 2 * 5);
        let mut finite = 0;
        for figure in found {
            let (estimate, expected) = (figure.estimate, figure.expected.unwrap());
            // Three half-widths: 30 figures, of which most depend on each other.
            let low = estimate.value - 3.0 * (estimate.value - estimate.low);
            let high = estimate.value + 3.0 * (estimate.high - estimate.value);
            let fits = (low - 0.1..=high + 0.1).contains(&expected);
            assert!(fits || expected == estimate.value, "{figure:?}");
            finite += u32::from(estimate.value.is_finite());
        }
        assert!(finite > 15, "{finite}");
    }

    #[test]
    fn the_placements_of_operators_have_the_share_of_theory() {
        let settings = CorruptOperators { per_layer: 10, gateways: 10, ..Default::default() };
        let of = settings.left(0.2, 2).unwrap();
        assert_eq!(of, (6, 38));
        let alphas = settings.alphas(of);
        let sum: f64 = alphas.iter().map(|(share, _)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        // The mean over placements is that of three different operators: 6/38 · 5/37 · 4/36.
        let mean: f64 = alphas.iter().map(|(share, alpha)| share * alpha).sum();
        assert!((mean - 6.0 / 38.0 * 5.0 / 37.0 * 4.0 / 36.0).abs() < 1e-9, "{mean}");
    }
}
