//! Whether time depends on secrets, by experiment: Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?",
//! DATE 2017. Two classes of input are measured in random order; Welch's t-test says whether their times differ.
//!
//! A quiet machine shows more: on a busy one small differences drown, and no difference is made up.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
#![allow(
    clippy::print_stdout,
    reason = "what was measured is of interest, also where nothing is wrong"
)]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::backends;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::*;

/// Beyond this, the paper's section 3 has no doubt.
const T: f64 = 10.0;
const ATTEMPTS: u64 = 3;
/// Inputs of each class, all in their own memory, so that both classes come from it equally.
const INPUTS: usize = 256;
/// How long one attempt measures, and how often at most.
const TIME: Duration = Duration::from_secs(4);
const MEASUREMENTS: usize = 1_000_000;

/// Two classes of input, and what is measured.
struct Experiment<'a, I> {
    name: String,
    class: &'a dyn Fn(&mut ChaCha12Rng, usize) -> I,
    /// What is measured takes its input away, so that it is not dropped in that time.
    work: &'a mut dyn FnMut(&mut I),
}

/// Mean, variance, number.
fn moments(times: &[f64]) -> (f64, f64, f64) {
    let n = times.len() as f64;
    let mean = times.iter().sum::<f64>() / n;
    let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance, n)
}

/// Welch's t, and the difference in ns that would be certain.
fn welch(a: &[f64], b: &[f64]) -> (f64, f64) {
    let ((mean_a, variance_a, n_a), (mean_b, variance_b, n_b)) = (moments(a), moments(b));
    let deviation = (variance_a / n_a + variance_b / n_b).sqrt().max(f64::MIN_POSITIVE);
    ((mean_a - mean_b) / deviation, T * deviation)
}

impl<I: Clone> Experiment<'_, I> {
    /// The largest |t| of a fresh set of measurements, over all that is cut off as an interruption.
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn attempt(&mut self, seed: u64) -> f64 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let inputs: Vec<I> = (0..2 * INPUTS).map(|i| (self.class)(&mut rng, i % 2)).collect();
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        let (mut times, mut all) = ([Vec::new(), Vec::new()], Vec::new());
        let began = Instant::now();
        let mut is_warm = false;
        while began.elapsed() < TIME && all.len() < MEASUREMENTS {
            order.shuffle(&mut rng);
            for i in &order {
                let mut input = inputs[*i].clone();
                let start = Instant::now();
                (self.work)(black_box(&mut input));
                let time = start.elapsed().as_nanos() as f64;
                if is_warm {
                    times[i % 2].push(time);
                    all.push(time);
                }
            }
            is_warm = true;
        }
        all.sort_unstable_by(f64::total_cmp);
        let (mut largest, mut certain) = (0.0_f64, f64::MAX);
        for percent in [100, 99, 95, 90, 80, 70, 50, 30, 20, 10, 5] {
            let limit = all[(all.len() * percent / 100).min(all.len() - 1)];
            let below = |times: &Vec<f64>| -> Vec<f64> {
                times.iter().copied().filter(|time| *time <= limit).collect()
            };
            let (t, difference) = welch(&below(&times[0]), &below(&times[1]));
            // Where much is cut off, what is left says less than how much of each class is left.
            let is_below = |times: &Vec<f64>| -> Vec<f64> {
                times.iter().map(|time| f64::from(u8::from(*time <= limit))).collect()
            };
            let (t_of_share, _) = welch(&is_below(&times[0]), &is_below(&times[1]));
            largest = largest.max(t.abs()).max(t_of_share.abs());
            certain = certain.min(difference);
        }
        let median = all[all.len() / 2] / 1e3;
        let Self { name, .. } = self;
        println!(
            "{name}: |t| = {largest:.1}, {} of {median:.1} µs, {certain:.0} ns would show",
            all.len()
        );
        largest
    }

    /// True if the classes differ in each of a few attempts.
    fn leaks(&mut self) -> bool {
        (0..ATTEMPTS).all(|seed| self.attempt(seed) > T)
    }
}

/// All that is measured, one after the other: nothing else shall run beside it.
#[test]
#[ignore = "long: scripts/release-check runs it, in release"]
fn no_secret_shows_in_the_time_that_is_taken_and_one_would() {
    let mut compare = |(a, b): &mut ([u8; 1024], [u8; 1024])| {
        let _ = black_box(a.iter().zip(b.iter()).all(|(a, b)| black_box(a) == b));
    };
    let wrong_at_an_end = |rng: &mut ChaCha12Rng, class: usize| {
        let (a, index) = (std::array::from_fn(|_| rng.random()), [0, 1023][class]);
        let mut b = a;
        b[index] ^= 1;
        (a, b)
    };
    let name = "a comparison that ends early".into();
    let mut experiment = Experiment { name, class: &wrong_at_an_end, work: &mut compare };
    assert!(experiment.leaks(), "the method finds nothing");

    let mut leaks = Vec::new();
    for (backend, codec) in backends() {
        // As many as are computed together.
        let count = match backend {
            Backend::Reference | Backend::Scalar => 1,
            Backend::Avx512 | Backend::Ifma => 8,
        };
        let mut of = |what: &str, leak: &mut dyn FnMut(String) -> bool| {
            let name = format!("{backend:?}, {what}");
            if leak(name.clone()) {
                leaks.push(name);
            }
        };

        let fixed: [u8; 32] = ChaCha12Rng::seed_from_u64(1).random();
        let scalars = |rng: &mut ChaCha12Rng, class: usize| {
            let points: Vec<[u8; 32]> = (0..count).map(|_| rng.random()).collect();
            (vec![if class == 0 { fixed } else { rng.random() }; count], points, Vec::new())
        };
        let mut multiply = |(scalars, points, products): &mut (Vec<_>, Vec<_>, Vec<_>)| {
            *products = backend.x25519(scalars, points).unwrap();
        };
        of("X25519, scalar", &mut |name| {
            Experiment { name, class: &scalars, work: &mut multiply }.leaks()
        });

        let batch = |rng: &mut ChaCha12Rng, secret: [u8; 32]| {
            let secret = SecretKey::from_bytes(secret);
            let hop = Hop { address: [1; 32], key: secret.public(), delay: Duration::ZERO };
            let seal = |_| Sphinx::SCALAR.seal(rng, &[hop], [0; 16], b"hello").unwrap();
            Batch { packets: (0..count).map(seal).collect(), secret, opened: Vec::new() }
        };
        let keys = |rng: &mut ChaCha12Rng, class: usize| {
            let secret = if class == 0 { fixed } else { rng.random() };
            batch(rng, secret)
        };
        let macs = |rng: &mut ChaCha12Rng, class: usize| {
            let mut batch = batch(rng, fixed);
            for packet in &mut batch.packets {
                packet.as_mut_bytes()[32 + 15 * class] ^= 1;
            }
            batch
        };
        let mut open = |batch: &mut Batch| {
            codec.open_batch(&batch.secret, &mut batch.packets, &mut batch.opened);
        };
        of("open, key", &mut |name| Experiment { name, class: &keys, work: &mut open }.leaks());
        of("open, byte of the MAC", &mut |name| {
            Experiment { name, class: &macs, work: &mut open }.leaks()
        });
    }
    assert!(leaks.is_empty(), "{leaks:?}");
}

/// Packets to be opened together, and room for what comes out.
struct Batch {
    secret: SecretKey,
    packets: Vec<Packet>,
    opened: Vec<Result<Opened, Error>>,
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let (secret, packets) = (self.secret.clone(), self.packets.clone());
        let opened = Vec::with_capacity(packets.len());
        Self { secret, packets, opened }
    }
}
