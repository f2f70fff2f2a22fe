//! Which share of the loops by each mix comes back. A mix that drops some packets only, say those that ask for the
//! shortest delays, returns too many loops to be silent, and too few to be honest.

use std::collections::BTreeMap;

use shoal_topology::Identity;

use super::loss_test::at_least;

/// When so many loops by one mix are known, half of them are forgotten: what it does today counts.
const FULL: u32 = 2_000;
/// With fewer loops nothing is said of a mix.
const LEAST: u32 = 50;
/// The share that an honest mix may lose, whatever others do.
const TOLERANCE: f64 = 0.03;
/// The chance at which a mix is named that loses no more than others: small, since many are judged again and again.
const CHANCE: f64 = 1e-8;

/// Loops by each mix that are back or lost. Bounded by the mixes of the document in use.
#[derive(Default)]
pub(super) struct Returns {
    by_mix: BTreeMap<Identity, LossCount>,
    all: LossCount,
}

#[derive(Clone, Copy, Default)]
struct LossCount {
    of: u32,
    lost: u32,
}

impl LossCount {
    fn add(&mut self, lost: bool) {
        self.of += 1;
        self.lost += u32::from(lost);
    }

    fn halve(&mut self) {
        (self.of, self.lost) = (self.of / 2, self.lost / 2);
    }
}

impl Returns {
    /// A loop by these mixes is back, or lost.
    pub(super) fn add(&mut self, mixes: &[Identity], lost: bool) {
        self.all.add(lost);
        for mix in mixes {
            self.by_mix.entry(*mix).or_default().add(lost);
        }
        // All together, so that what is known of one mix and of the others is of the same time.
        if self.by_mix.values().any(|known| known.of >= FULL) {
            self.by_mix.values_mut().for_each(LossCount::halve);
            self.all.halve();
        }
    }

    /// Forgets mixes of which this is false.
    pub(super) fn keep(&mut self, is_listed: impl Fn(&Identity) -> bool) {
        self.by_mix.retain(|mix, _| is_listed(mix));
    }

    /// Mixes that lose more of the loops than is lost of those by other mixes, beyond chance; the share that comes back.
    pub(super) fn lossy(&self) -> Vec<(Identity, f64)> {
        let lossy = |(mix, known): (&Identity, &LossCount)| {
            // Loops by this mix are left out of what it is compared with: its own losses would excuse it.
            let others = self.all.of.saturating_sub(known.of);
            let lost = f64::from(self.all.lost.saturating_sub(known.lost));
            // What others lose is itself known by chance only: two deviations more.
            let usual = (lost + 2.0 * lost.sqrt()) / f64::from(others.max(1));
            let honest = usual.clamp(TOLERANCE, 0.95);
            let named = known.of >= LEAST
                && at_least(known.of as usize, known.lost as usize, honest) < CHANCE;
            named.then(|| (*mix, f64::from(known.of - known.lost) / f64::from(known.of)))
        };
        self.by_mix.iter().filter_map(lossy).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use shoal_topology::Seed;

    use super::*;

    /// Loops by three layers of `width`, of which mix 1 of layer 1 loses a share, and anything a share of its own: the
    /// number of loops after which exactly that mix is named; nobody else ever is.
    fn named_after(seed: u64, width: u8, share: f64, anything: f64, loops: u32) -> Option<u32> {
        let mut rng = Seed::from_u64(seed).stream("loops");
        let mut returns = Returns::default();
        for n in 1..=loops {
            let mixes: Vec<Identity> = (0..3)
                .map(|layer| Identity([layer * 100 + rng.random_range(0..width); 32]))
                .collect();
            let bad = mixes[0] == Identity([1; 32]) && rng.random::<f64>() < share;
            returns.add(&mixes, bad || rng.random::<f64>() < anything);
            if n % 50 == 0 {
                match returns.lossy().as_slice() {
                    [] => {}
                    [(mix, back)] if share > 0.0 && *mix == Identity([1; 32]) => {
                        assert!((back - 1.0 + share + anything).abs() < 0.15, "{back}");
                        return Some(n);
                    }
                    others => panic!("{others:?}"),
                }
            }
        }
        None
    }

    #[test]
    fn a_mix_that_drops_the_shortest_delays_is_named_by_the_share_of_loops_that_it_returns() {
        for seed in 0..5 {
            for width in [2, 4, 10] {
                // What asks for less than 2.56 ms: 15.7 % of class web, 22.6 % of class call.
                for share in [0.157, 0.226] {
                    let after = named_after(seed, width, share, 0.005, 40_000);
                    let of_mix = after.map(|n| n / u32::from(width));
                    assert!(of_mix.is_some_and(|n| n <= 500), "{width}, {share}: {after:?}");
                }
            }
        }
    }

    #[test]
    fn no_mix_is_named_for_losses_of_all() {
        for seed in 0..3 {
            // A good network, a bad one, and a gateway that takes a third.
            for anything in [0.005, 0.05, 0.3] {
                assert_eq!(named_after(seed, 4, 0.0, anything, 40_000), None, "{anything}");
            }
        }
    }
}
