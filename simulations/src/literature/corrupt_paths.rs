//! Experiment `corrupt-paths`: how soon a user, or a call, has a route of corrupt mixes alone.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use shoal_topology::{Seed, Stream};

use super::poisson::network::{CorruptMixes, Width};
use super::poisson::{figure, measured, theory};
use crate::experiment::{Context, Estimate, Experiment, Measured, Outcome, Wrong};
use crate::stats::{self, Moments};

/// Routes through layers of which some mixes are corrupt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorruptPaths {
    /// L, the number of layers.
    pub layers: u32,
    /// W, mixes per layer: one number, or a list of one for each layer.
    pub width: Width,
    /// Corrupt mixes: `per_layer`, or `total` placed at random.
    pub corrupt: CorruptMixes,
    /// M, packets that a user sends, each on a route of its own.
    pub packets: u64,
    /// Users; where the mixes are placed at random, each on a placement of its own.
    pub users: u64,
    /// The call of each user.
    pub call: Call,
}

/// A call: a flow of packets at a constant rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// Packets per second.
    pub per_s: f64,
    /// How long a route is kept, seconds; zero: every packet on a fresh one.
    pub route_kept_s: f64,
    /// Times since the call began for which the share of calls hit is given, seconds.
    pub within_s: Vec<f64>,
}

impl Default for Call {
    fn default() -> Self {
        Self { per_s: 25.0, route_kept_s: 0.0, within_s: vec![1.0, 10.0, 60.0, 600.0] }
    }
}

impl Default for CorruptPaths {
    fn default() -> Self {
        Self {
            layers: 3,
            width: Width::Same(10),
            corrupt: CorruptMixes { per_layer: 1, total: 0 },
            packets: 693,
            users: 20_000,
            call: Call::default(),
        }
    }
}

impl Call {
    /// Routes that a call has used by a time.
    pub fn routes(&self, within_s: f64) -> f64 {
        if self.route_kept_s > 0.0 {
            (within_s / self.route_kept_s).floor() + 1.0
        } else {
            (within_s * self.per_s).floor().max(1.0)
        }
    }
}

impl CorruptPaths {
    /// Mixes in each layer.
    fn widths(&self) -> Vec<u32> {
        self.width.of(self.layers)
    }

    /// α of a fresh route: exact for `per_layer`, the mean over placements for `total`.
    pub fn alpha(&self) -> f64 {
        let widths = self.widths();
        if self.corrupt.per_layer > 0 {
            widths
                .iter()
                .map(|width| f64::from(self.corrupt.per_layer) / f64::from(*width))
                .product()
        } else {
            theory::corrupt_route(self.corrupt.total, self.layers, widths.iter().sum())
        }
    }

    /// Corrupt mixes in each layer, placed by this stream.
    fn draw_corrupt(&self, widths: &[u32], draws: &mut Stream) -> Vec<u32> {
        if self.corrupt.total == 0 {
            return vec![self.corrupt.per_layer; widths.len()];
        }
        // Layer by layer without replacement: each mix in turn is corrupt with probability remaining/left.
        let mut left: u32 = widths.iter().sum();
        let mut remaining = self.corrupt.total;
        let layer = |width: &u32| {
            let mut here = 0;
            for _ in 0..*width {
                if draws.random_range(0..left) < remaining {
                    here += 1;
                    remaining -= 1;
                }
                left -= 1;
            }
            here
        };
        widths.iter().map(layer).collect()
    }

    /// α of each of many placements.
    pub fn placements(&self, number: u64, seed: &Seed) -> Vec<f64> {
        let mut draws = seed.stream("placements");
        let widths = self.widths();
        let share = |(corrupt, width): (u32, &u32)| f64::from(corrupt) / f64::from(*width);
        let placed = |draws: &mut Stream| {
            self.draw_corrupt(&widths, draws).into_iter().zip(&widths).map(share).product()
        };
        (0..number).map(|_| placed(&mut draws)).collect()
    }

    /// For each user the number of the first route that is corrupt throughout, from 1 on; none within `most`.
    pub fn first_hits(&self, most: u64, seed: &Seed) -> Vec<Option<u64>> {
        let (mut placements, mut routes) = (seed.stream("placements"), seed.stream("routes"));
        let widths = self.widths();
        let user = |_| {
            let corrupt = self.draw_corrupt(&widths, &mut placements);
            (1..=most).find(|_| {
                // A layer that is passed at an honest mix ends the search: what follows is independent of it.
                corrupt
                    .iter()
                    .zip(&widths)
                    .all(|(here, width)| routes.random_range(0..*width) < *here)
            })
        };
        (0..self.users).map(user).collect()
    }

    fn share(&self, hits: &[Option<u64>], routes: f64) -> Estimate {
        let within = |hit: &&Option<u64>| hit.is_some_and(|first| first as f64 <= routes);
        stats::proportion(hits.iter().filter(within).count() as u64, hits.len() as u64)
    }

    /// Share of users, or calls, hit within so many routes: as theory has it where the placement is fixed. Over
    /// random placements the mean of 1 − (1 − α)^M is not that of the mean α.
    fn hit_figure(&self, name: &str, hits: &[Option<u64>], routes: f64) -> Measured {
        let estimate = self.share(hits, routes);
        let expected = (self.corrupt.total == 0).then(|| theory::hit(self.alpha(), routes));
        Measured { expected, ..measured(name, "1", estimate) }
    }
}

impl Experiment for CorruptPaths {
    fn check(&self) -> Result<(), Wrong> {
        if !(1..=20).contains(&self.layers) {
            return Err(Wrong::new("layers", "must be 1 to 20"));
        }
        self.width.check(self.layers)?;
        self.corrupt.check(&self.widths())?;
        if !(2..=10_000_000).contains(&self.users) {
            return Err(Wrong::new("users", "must be 2 to 10000000"));
        }
        if !(1..=10_000_000).contains(&self.packets) {
            return Err(Wrong::new("packets", "must be 1 to 10000000"));
        }
        if !(1e-3..=1e5).contains(&self.call.per_s) {
            return Err(Wrong::new("call.per_s", "must be 0.001 to 100000"));
        }
        if !(0.0..=1e7).contains(&self.call.route_kept_s) {
            return Err(Wrong::new("call.route_kept_s", "must be 0 to 10000000"));
        }
        let possible = |t: &f64| *t >= 0.0 && self.call.routes(*t) <= 1e7;
        if !self.call.within_s.iter().all(possible) {
            return Err(Wrong::new(
                "call.within_s",
                "must be 0 or more, with 10000000 routes at most",
            ));
        }
        Ok(())
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let seed = Seed::from_u64(context.seed).part("corrupt-paths");
        let alpha = self.alpha();
        let placed = stats::mean(&self.placements(self.users, &seed.part("alpha")));
        (context.progress)(0.1);
        let users = self.first_hits(self.packets, &seed.part("users"));
        (context.progress)(0.5);
        let most = self.call.within_s.iter().map(|t| self.call.routes(*t)).fold(0.0, f64::max);
        let calls = self.first_hits(most as u64, &seed.part("calls"));
        let half = theory::half_hit_packets(alpha);
        let mut all = vec![
            figure("corrupt_route", "1", placed, alpha),
            self.hit_figure("users_hit", &users, self.packets as f64),
            measured("half_hit_packets", "packets", Estimate::exact(half)),
        ];
        for within_s in &self.call.within_s {
            let name = format!("calls_hit_within_{within_s}_s");
            all.push(self.hit_figure(&name, &calls, self.call.routes(*within_s)));
        }
        Ok(Outcome { measured: all, ..Outcome::default() })
    }
}

/// Mean α of placements, with the p-value of the formula.
pub fn compare(placements: &[f64], expected: f64) -> (Estimate, f64) {
    let moments = Moments::of(placements);
    (moments.estimate(), moments.p_of(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_placements_have_the_alpha_of_the_formula() {
        let corrupt = CorruptMixes { per_layer: 0, total: 9 };
        let settings = CorruptPaths { corrupt, ..CorruptPaths::default() };
        let placed = settings.placements(20_000, &Seed::from_u64(1));
        assert!(compare(&placed, settings.alpha()).1 > 1e-3);
        // (9/30)^3, as if mixes were drawn anew for each layer, is not it.
        assert!(compare(&placed, 0.027).1 < 1e-3);
    }

    #[test]
    fn layers_may_differ_in_width() {
        let text = "width = [34, 33, 33]\ncorrupt.per_layer = 0\ncorrupt.total = 30\nusers = 1000";
        let settings: CorruptPaths = toml::from_str(text).unwrap();
        settings.check().unwrap();
        assert!((settings.alpha() - 30.0 * 29.0 * 28.0 / (100.0 * 99.0 * 98.0)).abs() < 1e-12);
        let placed = settings.placements(50_000, &Seed::from_u64(1));
        assert!(compare(&placed, settings.alpha()).1 > 1e-3);
        let fixed = CorruptPaths { corrupt: CorruptMixes { per_layer: 17, total: 0 }, ..settings };
        assert!((fixed.alpha() - 0.5 * (17.0f64 / 33.0).powi(2)).abs() < 1e-12);
        let short = CorruptPaths { width: Width::Each(vec![34, 33]), ..fixed };
        assert_eq!(short.check().unwrap_err().key, "width");
    }

    #[test]
    fn a_call_that_keeps_its_route_uses_few() {
        let call = Call { per_s: 25.0, route_kept_s: 60.0, ..Call::default() };
        assert_eq!((call.routes(0.0), call.routes(59.0), call.routes(60.0)), (1.0, 1.0, 2.0));
        let call = Call { route_kept_s: 0.0, ..call };
        assert_eq!((call.routes(0.0), call.routes(2.0)), (1.0, 50.0));
    }
}
