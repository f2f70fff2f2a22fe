//! How long packets stay in the mixes.
//!
//! Clients send at fixed instants. A packet that leaves its mixes after a sum of exponential delays still shows, to
//! whoever sees many of them arrive, on which grid they were sent: a gateway tells a client's own loops from packets of a
//! peer by it. So one mix takes a uniform delay of one period of the slots, or of several: its characteristic function
//! vanishes at the frequencies of the grid, and nothing of the phase is left, whatever the other mixes do.

use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::exponential;

/// The law of a packet's delay: a uniform part at one mix, and exponential parts at the others.
///
/// The second mix takes the uniform part, so that of three mixes the outer ones are exponential; where there is one mix
/// alone it is that one. Layers are counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayLaw {
    /// 1/µ, mean of the exponential delays, microseconds.
    pub exponential_us: u64,
    /// The longest of the uniform delays, which begin at zero, microseconds.
    pub uniform_us: u64,
}

impl DelayLaw {
    /// What all interactive classes take: Exp(10 ms), U(0, 40 ms), Exp(10 ms).
    pub const INTERACTIVE: Self = Self { exponential_us: 10_000, uniform_us: 40_000 };

    /// True if the mix of this layer, of so many, takes the uniform part.
    pub fn is_uniform(layer: u8, layers: u8) -> bool {
        layer == layers.min(2)
    }

    /// A delay at the mix of a layer, of so many.
    pub fn draw(&self, rng: &mut impl Rng, layer: u8, layers: u8) -> Duration {
        if Self::is_uniform(layer, layers) {
            let longest = self.uniform_us.saturating_mul(1_000);
            return Duration::from_nanos(rng.random_range(0..=longest));
        }
        self.draw_exponential(rng)
    }

    /// A delay of the exponential part: at a mix that takes it, and at a node that is no mix of the path.
    pub fn draw_exponential(&self, rng: &mut impl Rng) -> Duration {
        exponential(rng, Duration::from_micros(self.exponential_us))
    }

    /// The mean delay at the mix of a layer, of so many.
    pub fn mean(&self, layer: u8, layers: u8) -> Duration {
        if Self::is_uniform(layer, layers) {
            Duration::from_micros(self.uniform_us) / 2
        } else {
            Duration::from_micros(self.exponential_us)
        }
    }

    /// The mean of the delays of all mixes together.
    pub fn total_mean(&self, layers: u8) -> Duration {
        (1..=layers).map(|layer| self.mean(layer, layers)).sum()
    }

    /// True if arrivals keep nothing of the phase of slots that come at this rate, 1/s: the characteristic function of
    /// U(0, w) vanishes at the multiples of 1/w, so 1/w must divide the rate.
    pub fn hides_phase_of(&self, slots_per_s: f64) -> bool {
        let periods = slots_per_s * self.uniform_us as f64 / 1e6;
        periods > 0.5 && (periods - periods.round()).abs() < 1e-6 * periods
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    /// |mean of exp(2πi·f·t)| over delays through three mixes of packets that leave at the instants of a grid.
    fn line(law: DelayLaw, slots_per_s: f64, packets: u32) -> f64 {
        let mut rng = Seed::from_u64(3).stream("delays");
        let (mut re, mut im) = (0.0, 0.0);
        for slot in 0..packets {
            let sent = f64::from(slot) / slots_per_s;
            let delay: Duration = (1..=3).map(|layer| law.draw(&mut rng, layer, 3)).sum();
            let turn = std::f64::consts::TAU * slots_per_s * (sent + delay.as_secs_f64());
            (re, im) = (re + turn.cos(), im + turn.sin());
        }
        f64::hypot(re, im) / f64::from(packets)
    }

    #[test]
    fn arrivals_keep_no_phase_of_the_slots_that_sent_them() {
        // Of 40,000 random phases the mean has a length of 0.0044 on average, and of over 0.0131 once in 1,000.
        for rate in [25.0, 50.0, 150.0] {
            assert!(DelayLaw::INTERACTIVE.hides_phase_of(rate));
            let line = line(DelayLaw::INTERACTIVE, rate, 40_000);
            assert!(line < 0.0131, "{rate}: {line}");
        }
        // Without the uniform part it does show, as with one that does not fit the slots.
        let erlang = DelayLaw { exponential_us: 15_000, uniform_us: 0 };
        assert!(!erlang.hides_phase_of(25.0) && line(erlang, 25.0, 40_000) > 0.02);
        let wide = DelayLaw { exponential_us: 10_000, uniform_us: 60_000 };
        assert!(!wide.hides_phase_of(25.0) && line(wide, 25.0, 40_000) > 0.02);
    }

    #[test]
    fn means_are_those_of_what_is_drawn() {
        let mut rng = Seed::from_u64(4).stream("delays");
        for layers in 1..=3 {
            for layer in 1..=layers {
                let law = DelayLaw::INTERACTIVE;
                let sum: Duration = (0..20_000).map(|_| law.draw(&mut rng, layer, layers)).sum();
                let (drawn, mean) = (sum / 20_000, law.mean(layer, layers));
                // Five standard deviations of the wider law.
                assert!(drawn.abs_diff(mean) < Duration::from_micros(410), "{layer} of {layers}");
            }
        }
        assert_eq!(DelayLaw::INTERACTIVE.total_mean(3), Duration::from_millis(40));
        assert_eq!(DelayLaw::INTERACTIVE.total_mean(1), Duration::from_millis(20));
    }

    /// What a service can learn of how far its client is, were links without noise: THREAT-MODEL.md, "The exit".
    #[test]
    fn the_mean_of_four_thousand_round_trips_is_known_to_half_a_millisecond() {
        const TRIPS: u32 = 4_000;
        let law = DelayLaw::INTERACTIVE;
        let mut rng = Seed::from_u64(5).stream("round trips");
        // Three mixes there and back, the wait for a slot up of class web and for one down.
        let mut trip = || {
            let mixes: Duration = (0..6).map(|hop| law.draw(&mut rng, 1 + hop % 3, 3)).sum();
            let slots = rng.random_range(0.0..1.0 / 50.0) + rng.random_range(0.0..1.0 / 110.0);
            (mixes.as_secs_f64() + slots) * 1e3
        };
        let mut mean = || (0..TRIPS).map(|_| trip()).sum::<f64>() / f64::from(TRIPS);
        let means: Vec<f64> = (0..100).map(|_| mean()).collect();
        let middle = means.iter().sum::<f64>() / 100.0;
        let deviation = means.iter().map(|mean| (mean - middle).powi(2)).sum::<f64>() / 99.0;
        eprintln!("{middle:.1} ms, of {TRIPS} trips known to {:.2} ms", deviation.sqrt());
        assert!((0.3..0.5).contains(&deviation.sqrt()), "{} ms", deviation.sqrt());
    }
}
