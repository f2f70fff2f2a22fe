//! How likely arrivals are if a person's own frames brought them, and if somebody else's did.
//!
//! A loop follows its frame after the delays of three mixes; whatever stalls the frames stalls the loops. So the rate of
//! arrivals of a person at rest is Σ q f(t − uᵢ) over the frames up uᵢ, with q the share of loops and f the density of the
//! way; in a call most arrivals follow the frames of the peer. The logarithm of the ratio of the two likelihoods of a
//! Poisson process (Snyder and Miller, Random Point Processes, 2.4) adds up over time.

use super::Seen;

/// The law of the delay at one mix.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Delay {
    /// Exponential, of this mean, seconds.
    Exponential(f64),
    /// Uniform from zero to this, seconds.
    Uniform(f64),
}

/// Step of the density, seconds.
const STEP_S: f64 = 0.001;

/// The density of the way from a frame's arrival at one gateway to its packet's arrival at another.
#[derive(Clone, Debug)]
pub struct Way {
    /// 1/s, from the shortest way on.
    density: Vec<f64>,
    /// The integral of `density` from the shortest way on.
    cumulative: Vec<f64>,
    shortest_s: f64,
}

impl Way {
    /// The sum of these delays, and of the links between.
    pub fn new(delays: &[Delay], links_s: f64) -> Self {
        let reach: f64 = delays
            .iter()
            .map(|delay| match delay {
                Delay::Exponential(mean) => 12.0 * mean,
                Delay::Uniform(width) => *width,
            })
            .sum();
        let cells = (reach / STEP_S).ceil() as usize + 1;
        let mut density = vec![0.0; cells];
        if let Some(first) = density.first_mut() {
            *first = 1.0 / STEP_S;
        }
        for delay in delays {
            density = match delay {
                Delay::Exponential(mean) => exponential(&density, *mean),
                Delay::Uniform(width) => uniform(&density, *width),
            };
        }
        let mut sum = 0.0;
        let cumulative = density
            .iter()
            .map(|value| {
                sum += value * STEP_S;
                sum
            })
            .collect();
        Self { density, cumulative, shortest_s: links_s }
    }

    fn at(&self, seconds: f64) -> f64 {
        let index = (seconds - self.shortest_s) / STEP_S;
        if index < 0.0 { 0.0 } else { self.density.get(index as usize).copied().unwrap_or(0.0) }
    }

    fn until(&self, seconds: f64) -> f64 {
        let index = (seconds - self.shortest_s) / STEP_S;
        if index < 0.0 {
            return 0.0;
        }
        let last = self.cumulative.last().copied().unwrap_or(1.0);
        self.cumulative.get(index as usize).copied().unwrap_or(last)
    }

    /// The longest way that counts, seconds.
    fn longest_s(&self) -> f64 {
        self.shortest_s + self.density.len() as f64 * STEP_S
    }

    /// The rate of arrivals at an instant, 1/s, if each of these frames brings one with this chance.
    pub(crate) fn rate(&self, up: &Seen, share: f64, at: u64) -> f64 {
        let earliest = at.saturating_sub((self.longest_s() * 1e9) as u64);
        let from = up.up.partition_point(|frame| frame.at < earliest);
        let frames = up.up.iter().skip(from).take_while(|frame| frame.at <= at);
        share * frames.map(|frame| self.at((at - frame.at) as f64 / 1e9)).sum::<f64>()
    }

    /// The expected arrivals between two instants.
    pub(crate) fn expected(&self, up: &Seen, share: f64, (begin, end): (u64, u64)) -> f64 {
        let earliest = begin.saturating_sub((self.longest_s() * 1e9) as u64);
        let from = up.up.partition_point(|frame| frame.at < earliest);
        let until = |frame: u64, at: u64| {
            if at <= frame { 0.0 } else { self.until((at - frame) as f64 / 1e9) }
        };
        let frames = up.up.iter().skip(from).take_while(|frame| frame.at < end);
        share * frames.map(|frame| until(frame.at, end) - until(frame.at, begin)).sum::<f64>()
    }
}

fn exponential(density: &[f64], mean: f64) -> Vec<f64> {
    if mean <= 0.0 {
        return density.to_vec();
    }
    // A first-order recursion: y' = (x − y) / mean, exact for a density that is constant over a step.
    let keep = (-STEP_S / mean).exp();
    let mut value = 0.0;
    let step = |x: &f64| {
        value = keep * value + (1.0 - keep) * x;
        value
    };
    density.iter().map(step).collect()
}

fn uniform(density: &[f64], width: f64) -> Vec<f64> {
    let cells = (width / STEP_S).round().max(1.0) as usize;
    let mut sum = 0.0;
    let step = |(n, x): (usize, &f64)| {
        sum += x;
        if let Some(gone) = n.checked_sub(cells).and_then(|n| density.get(n)) {
            sum -= gone;
        }
        sum / cells as f64
    };
    density.iter().enumerate().map(step).collect()
}

/// Shares of a person's frames, as a class defines them.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Of all frames up, those that are loops when nothing is done.
    pub loops: f64,
    /// Of all frames up, those of loop slots: loops always.
    pub slots: f64,
    /// Frames up, 1/s.
    pub up_per_s: f64,
}

/// Which question is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// Asks whether the person is in a call with anybody: what came from others came at a constant rate.
    InACall,
    /// Asks whether it is in a call with this one, whose frames up are known.
    With(&'a Seen),
}

/// The logarithm of the likelihood ratio for each of so many steps from `begin` on, nanoseconds: above zero for a call.
pub fn series(
    seen: &Seen,
    question: Question<'_>,
    (way, shares): (&Way, Shares),
    (begin, step, steps): (u64, u64, usize),
) -> Vec<f64> {
    let from_others = shares.loops - shares.slots;
    // Cover that somebody else's frames bring, and what the model leaves out: no arrival is impossible.
    let floor = 0.02 * shares.up_per_s;
    let idle = |at: u64| floor + way.rate(seen, shares.loops, at);
    let busy = |at: u64| {
        let others = match question {
            Question::InACall => from_others * shares.up_per_s,
            Question::With(peer) => way.rate(peer, from_others, at),
        };
        floor + others + way.rate(seen, shares.slots, at)
    };
    let one = |n: usize| {
        let (from, to) = (begin + n as u64 * step, begin + (n as u64 + 1) * step);
        let first = seen.came.partition_point(|came| came.at < from);
        let came = seen.came.iter().skip(first).take_while(|came| came.at < to);
        let ratio: f64 = came.map(|came| (busy(came.at) / idle(came.at)).ln()).sum();
        let span = (from, to);
        let others = match question {
            Question::InACall => from_others * shares.up_per_s * step as f64 / 1e9,
            Question::With(peer) => way.expected(peer, from_others, span),
        };
        let expected = others + way.expected(seen, shares.slots, span)
            - way.expected(seen, shares.loops, span);
        ratio - expected
    };
    (0..steps).map(one).collect()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::adversary::at_gateway::{PersonArrival, Up};

    #[test]
    fn the_density_of_the_way_is_that_of_the_sum_of_its_delays() {
        let delays = [Delay::Exponential(0.01), Delay::Uniform(0.04), Delay::Exponential(0.01)];
        let way = Way::new(&delays, 0.08);
        assert!((way.until(1.0) - 1.0).abs() < 0.01, "{}", way.until(1.0));
        let mean: f64 =
            (0..1_000).map(|n| f64::from(n) * 0.001 * way.at(f64::from(n) * 0.001) * 0.001).sum();
        // 80 ms of links, 10, 20 and 10 of mixes.
        assert!((mean - 0.12).abs() < 0.002, "{mean}");
        assert!(way.at(0.079) == 0.0);
    }

    #[test]
    fn a_gap_in_the_frames_that_arrivals_do_not_show_speaks_for_a_call() {
        let way = Way::new(&[Delay::Uniform(0.04)], 0.08);
        let frame =
            |n: u64| Up { at: n * 40_000_000, sent: n * 40_000_000, first_hop: 0, epoch: 0 };
        // A frame every 40 ms, but for half a second.
        let up: Vec<Up> = (0..250).filter(|n| !(100..113).contains(n)).map(frame).collect();
        let came = |at: u64| PersonArrival { at, from: 0, epoch: 0 };
        let loops = up.iter().map(|up| came(up.at + 95_000_000)).collect();
        let others = (0..250).map(|n| came(n * 40_000_000 + 33_000_000)).collect();
        let shares = Shares { loops: 1.0, slots: 0.0, up_per_s: 25.0 };
        let steps = (1_000_000_000, 1_000_000_000, 8);
        let of = |came: Vec<PersonArrival>| {
            let seen = Seen { up: up.clone(), came, down: Vec::new() };
            series(&seen, Question::InACall, (&way, shares), steps)
        };
        let (idle, busy): (Vec<f64>, Vec<f64>) = (of(loops), of(others));
        assert!(idle.iter().sum::<f64>() < -5.0, "{idle:?}");
        assert!(busy.iter().sum::<f64>() > 5.0, "{busy:?}");
        // Only the second with the gap says so.
        assert!(busy[0].abs() < 1.0 && busy[3] > 5.0, "{busy:?}");
    }
}
