//! Pauses between attempts to make a link that is to stand for ever.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double with each failed attempt, from a tenth of a second up to five. Each is shortened by up to one
/// half, by chance: that hides nothing, it keeps many from knocking at once.
pub struct Backoff(Duration);

impl Default for Backoff {
    /// Nothing has failed yet.
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// A link that lasted longer was no failed attempt.
    pub const STOOD: Duration = LONGEST;

    /// An attempt succeeded: what fails from now on fails for the first time.
    pub fn succeeded(&mut self) {
        self.0 = FIRST;
    }

    /// How long to wait after an attempt that failed, or a link that ended.
    pub fn pause(&mut self, rng: &mut impl Rng) -> Duration {
        let pause = self.0.mul_f64(rng.random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use shoal_topology::Stream;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let (mut backoff, mut rng) = (Backoff::default(), Stream::from_seed([7; 32]));
        for n in 0..12 {
            let most = (FIRST * 2_u32.pow(n)).min(LONGEST);
            let pause = backoff.pause(&mut rng);
            assert!(most / 2 <= pause && pause <= most, "{n}: {pause:?}");
        }
        backoff.succeeded();
        assert!(backoff.pause(&mut rng) <= FIRST);
    }
}
