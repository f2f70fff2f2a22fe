//! Numbers that depend on what people do, as a daemon may show them: once an epoch, rounded, with noise.
//!
//! Who reads all daemons twice a second (a monitoring server, or who breaks into it) would see each request as a step in
//! the counters along its way, and could join them to a record of calls. So within an epoch nothing moves. When it ends,
//! what was counted in it is added with noise by Laplace's law, drawn once for each number and epoch so that asking again
//! brings nothing, and rounded up to a multiple, in the sizes that Tor's relays use for what they tell of onion services
//! (proposal 238, sections 2.4 and 3.2).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How coarse a number is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// Of packets: multiples of 1,024, noise of 2,048 / 0.3.
    Packets,
    /// Of things that are few, such as tunnels or clients: multiples of 8, noise of 8 / 0.3.
    Few,
}

impl Grain {
    /// What shown numbers are multiples of.
    pub fn step(self) -> u64 {
        match self {
            Self::Packets => 1_024,
            Self::Few => 8,
        }
    }

    /// The mean of the noise's size.
    fn noise(self) -> f64 {
        match self {
            Self::Packets => 2_048.0 / 0.3,
            Self::Few => 8.0 / 0.3,
        }
    }

    /// Laplace's law, mean zero.
    fn draw(self, rng: &mut StdRng) -> f64 {
        let uniform: f64 = rng.random_range(-0.5..0.5);
        let noise = -self.noise() * uniform.signum() * (1.0 - 2.0 * uniform.abs()).ln();
        noise.clamp(-1e9, 1e9)
    }

    /// The rounding hides which noise it was, so that the last bits of a float do not tell.
    fn round(self, noisy: f64) -> u64 {
        (noisy.max(0.0) as u64).div_ceil(self.step()).saturating_mul(self.step())
    }
}

/// What kind of number is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// Counted since the start.
    Total(u64),
    /// How much there is.
    Level(u64),
}

/// Shows numbers once an epoch.
pub struct Coarse {
    epoch_s: u64,
    state: Mutex<CoarseState>,
}

struct CoarseState {
    rng: StdRng,
    /// The epoch that is under way, once something was observed.
    epoch: Option<u64>,
    shown: BTreeMap<String, Shown>,
}

#[derive(Clone, Copy, Default)]
struct Shown {
    /// The total at the end of the last epoch.
    then: u64,
    /// Of a total, what was counted with the noise of every epoch.
    noisy: f64,
    /// What is shown.
    value: u64,
}

impl Coarse {
    /// Shows nothing until the end of the present epoch. The seed, of the system's randomness, gives the noise.
    pub fn new(epoch_s: u64, seed: [u8; 32]) -> Self {
        let state =
            CoarseState { rng: StdRng::from_seed(seed), epoch: None, shown: BTreeMap::new() };
        Self { epoch_s: epoch_s.max(1), state: Mutex::new(state) }
    }

    /// To be called often, with all numbers: the first call after an epoch's end takes them over.
    pub fn observe<'a>(
        &self,
        unix_s: u64,
        numbers: impl IntoIterator<Item = (&'a str, Number, Grain)>,
    ) {
        let mut state = self.state();
        let CoarseState { rng, epoch, shown } = &mut *state;
        let now = unix_s / self.epoch_s;
        // A clock that is set back shows nothing twice.
        if epoch.replace(epoch.map_or(now, |then| then.max(now))).is_none_or(|then| then >= now) {
            return;
        }
        for (name, number, grain) in numbers {
            if !shown.contains_key(name) {
                shown.insert(name.to_owned(), Shown::default());
            }
            let Some(shown) = shown.get_mut(name) else { continue };
            match number {
                Number::Level(value) => shown.value = grain.round(value as f64 + grain.draw(rng)),
                Number::Total(total) => {
                    let new = total.saturating_sub(shown.then);
                    shown.then = total;
                    // The noise of many epochs goes up and down; what is shown does not fall.
                    shown.noisy += new as f64 + grain.draw(rng);
                    shown.value = shown.value.max(grain.round(shown.noisy));
                }
            }
        }
    }

    /// The number as it may be shown; 0 before the first epoch's end.
    pub fn shown(&self, name: &str) -> u64 {
        self.state().shown.get(name).map_or(0, |shown| shown.value)
    }

    fn state(&self) -> MutexGuard<'_, CoarseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(coarse: &Coarse, unix_s: u64, packets: u64, clients: u64) -> (u64, u64) {
        coarse.observe(
            unix_s,
            [
                ("packets", Number::Total(packets), Grain::Packets),
                ("clients", Number::Level(clients), Grain::Few),
            ],
        );
        (coarse.shown("packets"), coarse.shown("clients"))
    }

    #[test]
    fn where_nothing_happens_totals_hardly_rise() {
        for seed in 0..20 {
            let coarse = Coarse::new(100, [seed; 32]);
            (10..411).for_each(|epoch| _ = observe(&coarse, epoch * 100, 0, 0));
            // 400 epochs; what noise alone would bring if each epoch's were cut at zero is 1,560,000.
            let shown = coarse.shown("packets");
            assert!(shown < 700_000, "seed {seed}: {shown}");
        }
    }

    #[test]
    fn nothing_moves_within_an_epoch_and_what_moves_then_is_rounded() {
        let coarse = Coarse::new(100, [1; 32]);
        for second in 0..100 {
            assert_eq!(observe(&coarse, 1_000 + second, second * 1_000, second), (0, 0));
        }
        let mut last = (0, 0);
        for epoch in 11..200 {
            let first = observe(&coarse, epoch * 100, epoch * 100_000, 500);
            assert!(first != last || epoch > 11, "nothing is shown");
            assert_eq!((first.0 % 1_024, first.1 % 8), (0, 0));
            assert!(first.0 >= last.0, "a total does not fall");
            for second in 1..100 {
                let more = epoch * 100_000 + second * 7_777;
                assert_eq!(observe(&coarse, epoch * 100 + second, more, 900 + second), first);
            }
            last = first;
        }
        // The noise has no drift: 199 epochs of 100,000, with an error of 9,700 each time and the rounding.
        let drift = last.0 as f64 / 199.0 - 100_000.0;
        assert!(drift.abs() < 4_000.0, "{drift}");
    }

    #[test]
    fn what_one_person_does_is_less_than_the_noise() {
        let shown = |seed: u8, packets| {
            let coarse = Coarse::new(10, [seed; 32]);
            observe(&coarse, 5, 0, 0);
            observe(&coarse, 15, packets, 0).0
        };
        // A page of 100 packets: whoever knows the noise's law guesses right hardly more often than by tossing a coin.
        let more = |packets| (0..=255).filter(|seed| shown(*seed, packets) > 51_200).count();
        let (idle, busy) = (more(50_000), more(50_100));
        assert!(busy.abs_diff(idle) < 20 && idle > 50 && idle < 200, "{idle} {busy}");
    }

    #[test]
    fn a_clock_that_is_set_back_shows_nothing_twice() {
        let coarse = Coarse::new(10, [3; 32]);
        observe(&coarse, 5, 0, 0);
        let first = observe(&coarse, 15, 1 << 20, 0);
        assert_eq!(observe(&coarse, 5, 1 << 21, 0), first);
        assert_eq!(observe(&coarse, 16, 1 << 21, 0), first);
        assert_ne!(observe(&coarse, 25, 1 << 21, 0), first);
    }
}
