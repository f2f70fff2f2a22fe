//! Intersection: whoever receives each time that she sends.

use super::delay::Delay;
use super::dense::MOST_PEOPLE;
use super::view_by_user::{MOST_BINS, Side};
use super::{Answer, Attack, Scored};
use crate::trace::View;

/// Windows of time in which somebody sends more than at rest, against those in which each receives more. A pair's
/// score is the log-likelihood ratio of "her messages go to him with this chance" against "by chance".
pub struct Intersection {
    /// The chance that what she sends is for a given friend.
    pub share: f64,
    /// The shortest window, seconds.
    pub window_s: f64,
}

impl Default for Intersection {
    fn default() -> Self {
        Self { share: 0.5, window_s: 2.0 }
    }
}

impl Attack for Intersection {
    fn name(&self) -> &'static str {
        "intersection"
    }

    fn run(&self, view: &View) -> Answer {
        let (up, down) = (Side::up(view), Side::down(view));
        if up.people() > MOST_PEOPLE {
            return Answer::default();
        }
        let delay = Delay::new(&view.public);
        let wanted = (2.0 * (delay.mean_s() + delay.sd_s())).max(self.window_s) * 1e9;
        let bin = down.bin(up.bin(wanted as u64, MOST_BINS), MOST_BINS);
        let bins = up.bins(bin);
        let receives: Vec<Windows> =
            (0..down.people()).map(|p| Windows::raised(&down.counts(p, bin)).or_before()).collect();
        let mut answer = Answer::default();
        for caller in 0..up.people() {
            let sends = Windows::raised(&up.counts(caller, bin));
            let times = sends.len();
            if times == 0 {
                continue;
            }
            for (callee, receives) in receives.iter().enumerate() {
                let hits = sends.common(receives);
                if hits == 0 || caller == callee {
                    continue;
                }
                // Neither 0 nor 1, of which the logarithms below would be infinite.
                let chance = (receives.len() as f64 / bins as f64).clamp(1e-9, 1.0 - 1e-9);
                let misses = f64::from(times - hits);
                let score = f64::from(hits) * (self.share / chance).ln()
                    + misses * ((1.0 - self.share) / (1.0 - chance)).ln();
                let (caller, callee) = (caller as u32, callee as u32);
                answer.pairs.push(Scored { caller, callee, score });
            }
        }
        answer
    }
}

/// A set of windows, 64 to a word.
struct Windows(Vec<u64>);

impl Windows {
    /// Those with more than usual: beyond two standard deviations of a Poisson law of the person's own mean, and
    /// by a packet at least.
    fn raised(counts: &[f32]) -> Self {
        let sum: f64 = counts.iter().map(|x| f64::from(*x)).sum();
        let mean = (sum / counts.len().max(1) as f64) as f32;
        // Where little is seen, each packet is something.
        let bound = if mean < 0.5 { 0.5 } else { (mean + 2.0 * mean.sqrt()).max(mean + 1.0) };
        let word = |counts: &[f32]| {
            let bits = counts.iter().enumerate().filter(|(_, count)| **count > bound);
            bits.fold(0, |word, (bit, _)| word | 1u64 << bit)
        };
        Self(counts.chunks(64).map(word).collect())
    }

    /// Adds the window before each: what is sent late in one arrives in the next.
    fn or_before(mut self) -> Self {
        let mut next = 0;
        for word in self.0.iter_mut().rev() {
            let own = *word;
            *word |= own >> 1 | (next & 1) << 63;
            next = own;
        }
        self
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn common(&self, other: &Self) -> u32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_joined_by_the_one_before() {
        let mut counts = vec![0.0; 130];
        counts[64] = 1.0;
        counts[100] = 1.0;
        let windows = Windows::raised(&counts);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows.or_before().0, vec![1 << 63, 1 | 1 << 36 | 1 << 35, 0]);
    }
}
